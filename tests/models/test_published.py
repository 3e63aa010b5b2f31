"""The other networks equal the published networks, with their weights under our names."""

from __future__ import annotations

import gzip
import json
import sys

import pytest
import torch
from conftest import GOLDEN, slow
from safetensors.torch import load_file

sys.path.insert(0, str(GOLDEN))
import fill

from restore_cli.inference.local_statistics import LocalInstanceNorm
from restore_cli.models.attentive_deblur import resize_without_centres
from restore_cli.models.layers import GlobalCovariance, GlobalMean, matrix_sqrt
from restore_cli.models.moadg import ChannelAttention
from restore_cli.models.msan import SelfAttention
from restore_cli.models.registry import detect, get_model

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}  # of the output's range
OUTPUTS = {
    "attentive-deblur": {
        "level0": ("level0", 1),
        "level1": ("level1", 1),
        "level2": ("restored", 2),
    },
    "gfn": {"sr": ("restored", 6), "deblur": ("deblurred", 3)},
    "msan": {
        "restored": ("restored", 3),
        "d1": ("stage1", 3),
        "d2": ("stage2", 3),
        "d3": ("stage3", 3),
    },
}


@pytest.mark.parametrize("dtype", [torch.float32, slow(torch.float64)], ids=str)
@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_equals_the_authors_network(name, dtype):
    model = get_model(name)
    keys = json.loads(gzip.decompress((GOLDEN / f"{name}_keys.json.gz").read_bytes()))
    tf = name == "attentive-deblur"
    filled = fill.fill(keys, 1, "tf" if tf else "torch")
    filled = {key: torch.from_numpy(values) for key, values in filled.items()}
    published = model.published[0]
    assert published.recognises(filled)
    state = published.convert(filled)
    assert detect(state) is model
    network = model.build(model.infer_config(state)).eval()
    network.load_state_dict(state)
    image = torch.from_numpy(fill.input_image(48, 64, 1)).to(dtype)
    with torch.inference_mode():
        outputs = network.to(dtype).outputs(image)
    reference = load_file(GOLDEN / f"{name}_48x64.safetensors")
    for theirs, (ours, step) in OUTPUTS[name].items():
        # msan's authors keep the residual of an earlier stage, we its image.
        output = (
            outputs[ours] - image if theirs.startswith("d") and name == "msan" else outputs[ours]
        )
        expected = reference[theirs]
        error = (output[..., ::step, ::step] - expected).abs().max()
        assert error <= TOLERANCE[dtype] * (expected.max() - expected.min())


def test_resize_is_tensorflows():
    unit = load_file(GOLDEN / "attentive_resize.safetensors")
    cases = [key.removeprefix("in_") for key in unit if key.startswith("in_")]
    assert len(cases) == 6
    for case in cases:
        image, expected = (unit[f"{side}_{case}"].permute(0, 3, 1, 2) for side in ("in", "out"))
        resized = resize_without_centres(image, *expected.shape[-2:])
        assert torch.allclose(resized, expected, atol=1e-5), case


def test_self_attention_is_the_published_one():
    unit = load_file(GOLDEN / "msan_self_attention.safetensors")
    attention = SelfAttention(16)
    attention.load_state_dict(
        {
            "gain": unit["param.gamma"],
            **{f"down.{k}": unit[f"param.gconv.{k}"] for k in ("weight", "bias")},
            **{f"up.{k}": unit[f"param.degconv.{k}"] for k in ("weight", "bias")},
            **{
                f"{part}.{k}": unit[f"param.{part}_conv.{k}"]
                for part in ("query", "key", "value")
                for k in ("weight", "bias")
            },
        }
    )
    with torch.inference_mode():
        assert torch.allclose(attention(unit["input"]), unit["output"], atol=1e-5)


def attention(statistic, unit):
    layer = ChannelAttention(64, 16, statistic)
    layer.load_state_dict(
        {
            f"{ours}.{k}": unit[f"param.conv_du.{theirs}.{k}"]
            for ours, theirs in (("squeeze", 0), ("expand", 2))
            for k in ("weight", "bias")
        }
    )
    return layer


def test_first_order_attention_is_the_published_one():
    unit = load_file(GOLDEN / "moadg_foca.safetensors")
    with torch.inference_mode():
        output = attention(GlobalMean(), unit)(unit["input"])
    assert torch.allclose(output[..., ::4, ::4], unit["output"], atol=1e-6)


def test_second_order_attention_is_the_published_one():
    unit = load_file(GOLDEN / "moadg_soca.safetensors")
    x = unit["input"].flatten(2)
    x = x - x.mean(-1, keepdim=True)
    root = matrix_sqrt(x @ x.mT / x.shape[-1])
    assert torch.allclose(root[:, ::2, ::2], unit["sqrt"], atol=1e-5)
    with torch.inference_mode():
        output = attention(GlobalCovariance(), unit)(unit["input"])
    assert torch.allclose(output[..., ::2, ::2], unit["output"], atol=1e-5)


def test_local_instance_norm_is_the_published_one():
    unit = load_file(GOLDEN / "tlsc_instance_norm.safetensors")
    output = LocalInstanceNorm(((10, 12),))(unit["input"])
    output = output * unit["weight"][:, None, None] + unit["bias"][:, None, None]
    assert torch.allclose(output, unit["output"], atol=1e-5)
