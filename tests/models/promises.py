"""What every model of the registry promises, whichever it is.

A new network is tested by being listed: what these tests need to know of it, a tiny config and
another value of each hyperparameter, is in its `Model` record.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from conftest import miniature, picture
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from restore_cli.inference.loading import LoadedNetwork
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.inference.tlsc import has_global_statistics, localise, windows
from restore_cli.models.layers import GlobalStatistic
from restore_cli.models.registry import MODELS, detect
from restore_cli.models.spec import Model
from restore_cli.weights.store import WeightsFile

CPU = torch.device("cpu")


def assert_model_keeps_its_promises(model: Model) -> None:
    """Everything the registry says of a model, on its tiny network and on empty published ones."""
    _facts_are_stated(model)
    _published_network_costs_what_the_record_says(model)
    _config_is_found_again_from_the_weights(model)
    for config in model.configs:
        _named_config_restores_and_is_found_again(model, config)
    _output_has_the_size_and_type_it_should(model)
    _size_rule_is_the_real_one(model)
    _batch_is_its_pictures_one_by_one(model)
    _outputs_have_the_size_of_the_input_or_of_the_result(model)
    _local_statistics_change_nothing_at_training_size(model)
    _any_size_is_restored(model)


def _size(model: Model, *lengths: int) -> tuple[int, ...]:
    return tuple(map(model.size.padded, lengths))


def _facts_are_stated(model: Model) -> None:
    assert MODELS[model.name] is model
    assert model.paper
    assert model.code_license == "Apache-2.0"
    assert model.configs


def _published_network_costs_what_the_record_says(model: Model) -> None:
    with torch.device("meta"):
        network = model.build(next(iter(model.configs.values()))).eval()
    # Without values, all but convolutions is traced in Python: maxim-mscam took 8.9 s, not 2.7 s.
    device = "cpu" if model.macs < 15e9 else "meta"
    network = network.to_empty(device=device)
    math = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the fused kernel of CPUs
    with torch.no_grad(), math, FlopCounterMode(display=False) as counter:
        for parameter in network.parameters():
            parameter.zero_()
        network(torch.zeros(1, 3, 64, 64, device=device))
    assert sum(p.numel() for p in network.parameters()) == model.parameters
    assert counter.get_total_flops() == 2 * model.macs  # it counts two per multiply-add


def _config_is_found_again_from_the_weights(model: Model) -> None:
    """Of the tiny network, and of it with each hyperparameter changed."""
    values = dataclasses.asdict(model.tiny)
    others = {n: not v if isinstance(v, bool) else 2 * v for n, v in values.items()}
    for change in ({}, *({n: v} for n, v in (others | dict(model.tiny_changes)).items())):
        config = dataclasses.replace(model.tiny, **change)
        assert (config == model.tiny) == (not change), f"{change} needs another value: tiny_changes"
        with torch.device("meta"):
            state = model.build(config).state_dict()
        assert detect(state) is model
        assert model.infer_config(state) == config
        assert model.parse_config(dataclasses.asdict(config)) == config


def _named_config_restores_and_is_found_again(model: Model, name: str) -> None:
    """In full from its shapes; then a small network with the same changes."""
    with torch.device("meta"):
        state = model.build(model.configs[name]).state_dict()
    assert detect(state) is model
    assert model.infer_config(state) == model.configs[name]
    torch.manual_seed(0)
    network = model.build(miniature(model, model.configs[name])).eval()
    state, image = network.state_dict(), picture(*_size(model, 16, 32))
    with torch.inference_mode():
        restored, outputs = network(image), network.outputs(image)
        assert torch.equal(outputs["restored"], restored)
        assert detect(state) is model
        again = model.build(model.infer_config(state)).eval()  # what says nothing may differ
        again.load_state_dict(state)
        assert torch.equal(again(image), restored)
        assert localise(network, (16, 16), (24, 24))(image).isfinite().all()


def _output_has_the_size_and_type_it_should(model: Model) -> None:
    network = model.build(model.tiny).eval()
    for steps in ((1, 1), (3, 2)):
        height, width = (model.size.padded(n * model.size.multiple_of) for n in steps)
        for dtype in set(model.dtypes) & {torch.float32, torch.bfloat16}:
            with torch.inference_mode():
                restored = network.to(dtype)(picture(height, width).to(dtype))
            assert restored.shape == (1, 3, model.scale * height, model.scale * width)
            assert restored.dtype == dtype


def _size_rule_is_the_real_one(model: Model) -> None:
    """The published network does not take half of it: the rule is no stricter than need be."""
    multiple = model.size.multiple_of
    if multiple == 1:
        return
    height, width = 5 * multiple + multiple // 2, 8 * multiple
    with torch.device("meta"):
        network = model.build(next(iter(model.configs.values()))).eval()
        try:
            restored = network(torch.empty(1, 3, height, width))
        except RuntimeError:
            return
    assert restored.shape[-2:] != (model.scale * height, model.scale * width)


def _batch_is_its_pictures_one_by_one(model: Model) -> None:
    network = model.build(model.tiny).eval()
    batch = torch.cat([picture(*_size(model, 16, 48), seed) for seed in range(3)])
    with torch.inference_mode():
        together = network(batch)
        alone = torch.cat([network(image[None]) for image in batch])
    assert torch.allclose(together, alone, atol=1e-5)


def _outputs_have_the_size_of_the_input_or_of_the_result(model: Model) -> None:
    network, (height, width) = model.build(model.tiny).eval(), _size(model, 16, 48)
    with torch.inference_mode():
        outputs = network.outputs(picture(height, width))
    assert "restored" in outputs
    sizes = [(height * n // 4, width * n // 4) for n in (1, 2, 4, 4 * model.scale)]
    for name, output in outputs.items():
        assert tuple(output.shape[-2:]) in sizes, name


def _with_strong_statistics(network: torch.nn.Module) -> torch.nn.Module:
    """Random weights that make the statistics count."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if any(part in name for part in ("squeeze", "expand", "query", "key", "value")):
                weight.mul_(5)
            if name.endswith("gain"):
                weight.fill_(2)
            if weight.ndim == 4 and not weight.any():  # a last layer that starts at zero
                torch.nn.init.normal_(weight, std=0.05)
    return network


def _local_statistics_change_nothing_at_training_size(model: Model) -> None:
    """And something beyond it; converting twice is converting once, weights are shared."""
    torch.manual_seed(1)
    network = _with_strong_statistics(model.build(model.tiny).eval())
    train, base = (64, 64), (96, 96)
    if not has_global_statistics(network):
        assert windows(network, train, base) == {}
        return
    once = localise(network, train, base)
    twice = localise(once, train, base)
    assert not any(isinstance(m, GlobalStatistic) for m in once.modules())
    assert {id(p) for p in once.parameters()} == {id(p) for p in network.parameters()}
    small, large = picture(*train), picture(*_size(model, 128, 160))
    with torch.inference_mode():
        restored = once(large)
        assert (restored - network(large)).abs().max() > 1e-4
        assert torch.allclose(once(small), network(small), atol=1e-5)
        assert torch.equal(restored, twice(large))


def _any_size_is_restored(model: Model) -> None:
    torch.manual_seed(2)
    network = model.build(model.tiny).eval()
    file = WeightsFile(model.name, Path(model.name), "0" * 64, None)
    loaded = LoadedNetwork(
        model, model.tiny, network, file, (32, 32), (48, 48), True, model.overlap
    )
    restorer = Restorer(loaded, RestorerOptions(CPU))
    for height, width in ((1, 1), (7, 5), (61, 107)):
        restored = restorer(picture(height, width))
        assert restored.shape == (1, 3, model.scale * height, model.scale * width)
        assert restored.isfinite().all()
        assert restored.min() >= 0
        assert restored.max() <= 1
