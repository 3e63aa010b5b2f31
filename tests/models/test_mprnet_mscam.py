"""mprnet-mscam equals the published network, with its weights under our names."""

from __future__ import annotations

import gzip
import json
import sys

import pytest
import torch
from conftest import GOLDEN, TINY, picture
from safetensors.torch import load_file

sys.path.insert(0, str(GOLDEN))
import fill

from restore_cli.inference.tlsc import localise, windows
from restore_cli.models.mprnet import Mprnet, MprnetConfig, _map
from restore_cli.models.mprnet_mscam import (
    MPRNET_MSCAM,
    MprnetMscam,
    MprnetMscamConfig,
)
from restore_cli.models.spec import TilePlacement

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}  # of the output's range
TYPES = list(TOLERANCE)


@pytest.fixture(scope="module")
def official():
    """The paper's network with the deterministic weights of the reference outputs."""
    keys = json.loads(gzip.decompress((GOLDEN / "mprnet_mscam_keys.json.gz").read_bytes()))
    weights = {name: torch.from_numpy(values) for name, values in fill.fill(keys, 1).items()}
    network = MprnetMscam(MprnetMscamConfig()).eval()
    network.load_state_dict(MPRNET_MSCAM.published[0].convert(weights))
    return network.to(memory_format=torch.channels_last)


def error(output: torch.Tensor, reference: torch.Tensor) -> float:
    return float((output - reference).abs().max() / (reference.max() - reference.min()))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_equals_the_authors_network(official, dtype):
    reference = load_file(GOLDEN / "mprnet_mscam_48x64.safetensors")
    image = torch.from_numpy(fill.input_image(48, 64, 1)).to(dtype)
    network = official.to(dtype)
    with torch.inference_mode():
        outputs = network.outputs(image)
        restored = network(image)
    assert torch.equal(restored, outputs["restored"])
    assert error(restored[..., ::6, ::6], reference["sr"]) <= TOLERANCE[dtype]
    for stage in ("stage1", "stage2", "stage3"):
        assert error(outputs[stage][..., ::3, ::3], reference[stage]) <= TOLERANCE[dtype]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_equals_the_authors_network_with_tlsc(official, dtype):
    reference = load_file(GOLDEN / "mprnet_mscam_tlsc_104x136.safetensors")["sr"]
    image = torch.from_numpy(fill.input_image(104, 136, 1)).to(dtype)
    local = localise(official.to(dtype), (64, 64), (96, 96))
    with torch.inference_mode():
        restored = local(image)[..., ::8, ::8]
    assert error(restored, reference) <= TOLERANCE[dtype]
    if dtype is torch.float32:  # the reference must be able to tell TLSC from none
        with torch.inference_mode():
            assert error(official(image)[..., ::8, ::8], reference) > 0.01


@pytest.mark.slow
def test_mprnet_is_its_deblurring_part(official):
    part = Mprnet(MprnetConfig())
    part.load_state_dict({name: official.state_dict()[name] for name in part.state_dict()})
    image = torch.from_numpy(fill.input_image(48, 64, 1)).double()
    reference = load_file(GOLDEN / "mprnet_mscam_48x64.safetensors")["stage3"]
    with torch.inference_mode():
        restored = part.double()(image)
    assert error(restored[..., ::3, ::3], reference) <= 1e-6


@pytest.mark.slow
def test_windows_are_the_published_ones(official):
    expected = json.loads((GOLDEN / "tlsc_mprnet_windows.json").read_text())
    found = windows(official, (64, 64), (96, 96))
    assert len(found) == len(expected) == 226

    def ours(name: str) -> str:
        # The published names are those of the pooling layers; ours of the mean beside the weights.
        if name.endswith(".CA.avg_pool"):
            weight = name.removesuffix("avg_pool") + "conv_du.0.weight"
        else:
            weight = name.rpartition(".")[0] + ".1.weight"
        (renamed,) = MPRNET_MSCAM.published[0].convert({weight: torch.zeros(1)})
        return renamed.rsplit(".", 2)[0] + ".mean"

    assert {ours(name): (tuple(window),) for name, window in expected.items()} == found


def test_a_fresh_network_with_image_skip_is_bicubic():
    image = picture(16, 24)
    bicubic = torch.nn.functional.interpolate(
        image, scale_factor=4, mode="bicubic", antialias=True, align_corners=False
    )
    with torch.inference_mode():
        restored = MprnetMscam(TINY)(image)
    assert torch.allclose(restored[..., 8:-8, 8:-8], bicubic[..., 8:-8, 8:-8], atol=1e-5)


def test_a_tile_is_cut_where_the_pictures_middle_crosses_it(tiny_network):
    image = picture(32, 48)
    with torch.inference_mode():
        whole = tiny_network(image)
        same = tiny_network(image, TilePlacement(0, 0, 32, 48))
        uncut = tiny_network(image, TilePlacement(0, 0, 320, 480))
        shifted = tiny_network(image, TilePlacement(8, 8, 32 + 16, 48 + 16))
    assert torch.equal(whole, same)
    assert torch.allclose(whole, shifted, atol=1e-6)  # the same lines seen from another origin
    assert (whole - uncut).abs().max() > 1e-3


def test_unequal_parts_go_one_by_one_and_equal_ones_as_a_batch():
    calls = []

    def double(x: torch.Tensor) -> list[torch.Tensor]:
        calls.append(x.shape[0])
        return [2 * x]

    equal = [torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)]
    assert [float(levels[0].mean()) for levels in _map(double, equal)] == [2.0, 0.0]
    assert calls == [2]
    _map(double, [torch.ones(1, 1, 4, 4), torch.ones(1, 1, 8, 4)])
    assert calls == [2, 1, 1]
