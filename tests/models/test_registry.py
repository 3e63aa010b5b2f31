"""Every listed model: builds, keeps its promises on sizes, is found again from its weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY_CONFIGS, TINY_NETWORKS, picture
from torch.utils.flop_counter import FlopCounterMode

from restore_cli.errors import UsageError, WeightsError
from restore_cli.models.mprnet_mscam import MPRNET_MSCAM
from restore_cli.models.registry import MODELS, detect, get_config, get_model, table


def test_a_duplicate_raises():
    with pytest.raises(ValueError, match="listed twice"):
        table([MPRNET_MSCAM, MPRNET_MSCAM])


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        MODELS["other"] = MPRNET_MSCAM


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'mprnet-mscam'"):
        get_model("mprnet-mscan")
    with pytest.raises(UsageError, match="config of mprnet-mscam 'light' not found"):
        get_config(MPRNET_MSCAM, "light")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_facts_are_stated(name):
    model = MODELS[name]
    assert model.name == name
    assert model.paper
    assert model.code_license == "Apache-2.0"
    assert next(iter(model.configs)) == ("base" if name == "maxim-mscam" else "paper")


@pytest.mark.parametrize(("name", "config"), TINY_NETWORKS)
@pytest.mark.parametrize("steps", [(1, 1), (2, 3), (5, 1)])
def test_size_and_type_of_the_output(name, config, steps):
    model = MODELS[name]
    height, width = (n * model.size.multiple_of for n in steps)
    network = model.build(config).eval()
    for dtype in (torch.float32, torch.bfloat16):
        with torch.inference_mode():
            restored = network.to(dtype)(picture(height, width).to(dtype))
        assert restored.shape == (1, 3, model.scale * height, model.scale * width)
        assert restored.dtype == dtype


@pytest.mark.parametrize(("name", "config"), TINY_NETWORKS)
def test_the_size_rule_is_the_real_one(name, config):
    """Half the multiple does not work, so the rule is not stricter than it need be."""
    model = MODELS[name]
    if name.startswith("maxim"):  # the rule is that of the published windows
        config = dataclasses.replace(config, large_window=16, small_window=8)
    network, multiple = model.build(config), model.size.multiple_of
    height, width = 5 * multiple + multiple // 2, 8 * multiple
    try:
        restored = network(picture(height, width))
    except RuntimeError:
        return
    assert restored.shape[-2:] != (model.scale * height, model.scale * width)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_batch_is_its_pictures_one_by_one(name):
    network = MODELS[name].build(TINY_CONFIGS[name]).eval()
    batch = torch.cat([picture(16, 48, seed) for seed in range(3)])
    with torch.inference_mode():
        together = network(batch)
        alone = torch.cat([network(image[None]) for image in batch])
    assert torch.allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_outputs_have_the_size_of_the_input_or_of_the_result(name):
    model = MODELS[name]
    network, image = model.build(TINY_CONFIGS[name]).eval(), picture(16, 48)
    with torch.inference_mode():
        outputs = network.outputs(image)
        assert torch.allclose(outputs["restored"], network(image), atol=1e-6)
    for output in outputs.values():
        sizes = [(16 * n // 4, 48 * n // 4) for n in (1, 2, 4, 4 * model.scale)]
        assert tuple(output.shape[-2:]) in sizes


PARAMETERS = {  # as published, or as our docstring says
    "maxim-mscam": 23_748_502,
    "maxim": 22_207_605,
    "mprnet-mscam": 34_116_641,
    "mprnet": 20_127_073,
    "gfn": 12_210_438,
    "moadg": 25_907_233,
    "msan": 8_924_720,
    "attentive-deblur": 6_907_057,
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_published_network_costs_what_the_table_says(name):
    model = MODELS[name]
    with torch.device("meta"):
        network = model.build(next(iter(model.configs.values())))
        with FlopCounterMode(display=False) as counter:
            network.eval()(torch.empty(1, 3, 64, 64))
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name] == model.parameters
    assert counter.get_total_flops() == 2 * model.macs  # it counts two per multiply-add


def test_the_network_of_august_2018_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = MODELS["gfn"].build(MODELS["gfn"].configs["august-2018"])
    assert sum(p.numel() for p in network.parameters()) == 12_216_582


MAXIM_CHANGES = {
    "stages": 3,
    "width": 8,
    "large_window": 8,
    "small_window": 4,
    "groups": 2,
    "bottlenecks": 2,
}
CHANGES = {
    "maxim": MAXIM_CHANGES,
    "maxim-mscam": {
        **MAXIM_CHANGES,
        "sr_features": 32,
        "sr_coarse_features": 16,
        "sr_first_blocks": 2,
        "sr_coarse_blocks": 2,
        "sr_last_blocks": 2,
        "sr_reduction": 4,
        "scale": 2,
    },
    "mprnet-mscam": {
        "features": 16,
        "growth": 4,
        "full_growth": 0,
        "reduction": 2,
        "level_blocks": 2,
        "full_blocks": 3,
        "sr_features": 32,
        "sr_groups": 2,
        "sr_blocks": 3,
        "sr_reduction": 4,
        "scale": 2,
        "image_skip": False,
    },
    "mprnet": {
        "features": 16,
        "growth": 4,
        "full_growth": 0,
        "reduction": 2,
        "level_blocks": 2,
        "full_blocks": 3,
    },
    "gfn": {
        "width": 16,
        "deblur_blocks": 2,
        "sr_blocks": 3,
        "fusion_blocks": 4,
        "august_2018": True,
        "image_skip": True,
        "gate": False,
        "arrangement": 1,
    },
    "moadg": {
        "width": 16,
        "growth": 8,
        "deblur_blocks": 2,
        "sr_blocks": 3,
        "fusion_blocks": 2,
        "reduction": 2,
        "third_order": False,
        "gating": False,
        "image_skip": True,
    },
    "attentive-deblur": {
        "width": 16,
        "blocks": 2,
        "reduction": 2,
        "kernel": 3,
        "image_skip": True,
        "shared": False,
        "channel": False,
        "spatial_encoder": False,
        "spatial_decoder": False,
        "joined": 1,
    },
    "msan": {"width": 8, "blocks": 2, "stages": 4, "unshuffle": True, "attention": False},
}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_hyperparameter_is_changed_once(name):
    fields = {field.name for field in dataclasses.fields(MODELS[name].config_type)}
    assert CHANGES[name].keys() == fields


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name, changes in CHANGES.items() for field in [None, *changes]],
)
def test_config_is_found_again_from_the_weights(name, field):
    model, config = MODELS[name], TINY_CONFIGS[name]
    if field is not None:
        assert getattr(config, field) != CHANGES[name][field]
        config = dataclasses.replace(config, **{field: CHANGES[name][field]})
    state = model.build(config).state_dict()
    assert detect(state) is model
    assert model.infer_config(state) == config
    assert model.config_from(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("name", "config"), [(n, c) for n, model in MODELS.items() for c in model.configs]
)
def test_named_configs_are_found_again_from_the_shapes_alone(name, config):
    model = MODELS[name]
    with torch.device("meta"):
        state = model.build(model.configs[config]).state_dict()
    assert detect(state) is model
    assert model.infer_config(state) == model.configs[config]


def test_foreign_weights_are_nobodys():
    assert detect({"conv.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wings": 2}, "unknown fields"),
        ({"features": "96"}, "is not int"),
        ({"image_skip": 1}, "is not bool"),
        ({"features": True}, "is not int"),
    ],
)
def test_stored_configs_are_checked(values, message):
    with pytest.raises(WeightsError, match=message):
        MPRNET_MSCAM.config_from(values)
