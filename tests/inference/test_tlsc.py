"""The conversion to local statistics keeps its promises."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import TINY_CONFIGS, picture

from restore_cli.inference import tlsc
from restore_cli.inference.local_statistics import LOCAL, LocalMean, LocalStatistic
from restore_cli.inference.tlsc import localise, windows
from restore_cli.models.layers import GlobalMean, GlobalStatistic
from restore_cli.models.registry import MODELS

LOCAL_HOME = LocalMean.__module__


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


def test_windows_are_not_measured_on_what_another_thread_runs(tiny_network, monkeypatch):
    """Both may hold the same cached network."""
    expected = windows(tiny_network, (32, 32), (48, 48))
    measured = []
    monkeypatch.setattr(tlsc, "windows", lambda *a: measured.append(a[0]) or expected)
    localise(tiny_network, (32, 32), (48, 48))
    own = {id(module) for module in tiny_network.modules()}
    assert not own & {id(module) for module in measured[0].modules()}


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


@pytest.mark.slow
def test_bfloat16_network_stays_finite(tiny_network):
    local = localise(tiny_network, (32, 32), (48, 48))
    image = picture(160, 160)
    with torch.inference_mode():
        exact = local(image)
        rough = copy.deepcopy(local).to(torch.bfloat16)(image.bfloat16()).float()
    assert (rough - exact).abs().mean() < 0.02


def test_every_global_statistic_has_a_local_one():
    assert set(LOCAL) == set(GlobalStatistic.__subclasses__())
    ours = {one for one in LocalStatistic.__subclasses__() if one.__module__ == LOCAL_HOME}
    assert set(LOCAL.values()) == ours  # those of graphs are theirs


def test_windows_follow_the_size_at_which_shared_weights_run():
    network = MODELS["attentive-deblur"].build(TINY_CONFIGS["attentive-deblur"])
    found = windows(network, (256, 256), (384, 384))
    assert found["encode1.0.mean"] == ((96, 96), (192, 192), (384, 384))
    assert found["middle.0.mean"] == ((24, 24), (48, 48), (96, 96))
