"""Local statistics: the published pool, and a conversion that keeps its promises."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from conftest import GOLDEN, TINY_CONFIGS, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from restore_cli.inference.tlsc import LocalMean, box_mean, has_global_means, localise, windows
from restore_cli.models.layers import GlobalMean
from restore_cli.models.registry import MODELS

POOLS = json.loads((GOLDEN / "tlsc_pool.json").read_text())


@pytest.mark.parametrize("case", POOLS)
def test_box_mean_is_the_published_pool(case):
    reference = load_file(GOLDEN / "tlsc_pool.safetensors")
    mean = box_mean(reference[f"{case}.input"], tuple(POOLS[case]))
    assert torch.allclose(mean, reference[f"{case}.output"].expand_as(mean), atol=1e-6)


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    window=st.tuples(st.integers(1, 25), st.integers(1, 25)),
)
@settings(max_examples=60, deadline=None)
def test_box_mean_is_the_mean_of_each_window(size, window):
    image = torch.rand(1, 2, *size, dtype=torch.float64)
    rows, columns = min(size[0], window[0]), min(size[1], window[1])
    mean = box_mean(image, window)
    for y, x in ((0, 0), (size[0] // 2, size[1] // 2), (size[0] - 1, size[1] - 1)):
        top = min(max(y - (rows - 1) // 2, 0), size[0] - rows)
        left = min(max(x - (columns - 1) // 2, 0), size[1] - columns)
        expected = image[..., top : top + rows, left : left + columns].mean((2, 3))
        assert torch.allclose(mean[..., y, x], expected)


def test_half_precision_sums_in_float32():
    image = torch.rand(1, 2, 720, 1280)
    expected = box_mean(image, (96, 96))
    for dtype, error in ((torch.float16, 1e-3), (torch.bfloat16, 5e-3)):
        mean = box_mean(image.to(dtype), (96, 96))
        assert mean.dtype == dtype
        assert (mean.float() - expected).abs().max() < error
        # what the published integral image does in the network's own type
        assert not image.half().cumsum(-1).cumsum(-2).isfinite().all()


def test_at_training_size_nothing_changes(tiny_network):
    image = picture(32, 32)
    with torch.inference_mode():
        local = localise(tiny_network, (32, 32), (48, 48))(image)
        assert torch.allclose(local, tiny_network(image), atol=1e-6)
        larger = picture(96, 96)
        local = localise(tiny_network, (32, 32), (48, 48))(larger)
        assert (local - tiny_network(larger)).abs().max() > 1e-3


def test_converting_twice_is_converting_once(tiny_network):
    once = localise(tiny_network, (32, 32), (48, 48))
    twice = localise(once, (32, 32), (48, 48))
    other = localise(once, (32, 32), (64, 64))
    assert windows(twice, (32, 32), (48, 48)) == windows(once, (32, 32), (48, 48))
    image = picture(64, 72)
    with torch.inference_mode():
        assert torch.equal(once(image), twice(image))
        assert torch.equal(other(image), localise(tiny_network, (32, 32), (64, 64))(image))


def test_the_original_is_left_alone_and_weights_are_shared(tiny_network):
    local = localise(tiny_network, (32, 32), (48, 48))
    assert any(isinstance(m, GlobalMean) for m in tiny_network.modules())
    assert not any(isinstance(m, LocalMean) for m in tiny_network.modules())
    assert not any(isinstance(m, GlobalMean) for m in local.modules())
    assert {id(p) for p in local.parameters()} == {id(p) for p in tiny_network.parameters()}
    # The shared slope is one object in the copy too, not one per block.
    assert local.shallow[0][1]._activation[0] is local.activation
    assert list(local.state_dict()) == list(tiny_network.state_dict())


def test_forward_writes_nothing_to_the_network(tiny_network):
    local = localise(tiny_network, (32, 32), (48, 48))
    before = {name: dict(module.__dict__) for name, module in local.named_modules()}
    with torch.inference_mode():
        first = local(picture(64, 64))
        local(picture(40, 96))
        again = local(picture(64, 64))
    assert torch.equal(first, again)
    assert {n: dict(m.__dict__) for n, m in local.named_modules()} == before


def test_bfloat16_network_stays_finite(tiny_network):
    local = localise(tiny_network, (32, 32), (48, 48))
    image = picture(160, 160)
    with torch.inference_mode():
        exact = local(image)
        rough = copy.deepcopy(local).to(torch.bfloat16)(image.bfloat16()).float()
    assert (rough - exact).abs().mean() < 0.02


@pytest.mark.parametrize("name", ["attentive-deblur", "mprnet", "mprnet-mscam"])
def test_every_model_with_global_means_keeps_the_promises(name):
    torch.manual_seed(1)
    network = MODELS[name].build(TINY_CONFIGS[name]).eval()
    with torch.no_grad():
        for key, weight in network.named_parameters():
            if "squeeze" in key or "expand" in key:
                weight.mul_(5)
    once = localise(network, (32, 32), (48, 48))
    twice = localise(once, (32, 32), (48, 48))
    with torch.inference_mode():
        small, large = picture(32, 32), picture(96, 112)
        if name != "mprnet-mscam":  # its last layer starts at zero
            assert (once(large) - network(large)).abs().max() > 1e-4
        assert torch.allclose(once(small), network(small), atol=1e-5)
        assert torch.equal(once(large), twice(large))


@pytest.mark.parametrize("name", ["gfn", "msan"])
def test_models_without_global_means_are_left_as_they_are(name):
    network = MODELS[name].build(TINY_CONFIGS[name]).eval()
    assert not has_global_means(network)
    assert windows(network, (32, 32), (48, 48)) == {}


def test_windows_follow_the_size_at_which_shared_weights_run():
    network = MODELS["attentive-deblur"].build(TINY_CONFIGS["attentive-deblur"])
    found = windows(network, (256, 256), (384, 384))
    assert found["encode1.0.mean"] == ((96, 96), (192, 192), (384, 384))
    assert found["middle.0.mean"] == ((24, 24), (48, 48), (96, 96))
