"""The papers' ablations: each leaves out or rearranges what it says, and nothing else."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY_CONFIGS, miniature, picture

from restore_cli.models.attentive_deblur import AttentionBlock
from restore_cli.models.gfn import AFTER, BEFORE, IMAGE, Gfn
from restore_cli.models.registry import MODELS


def build(name: str, config: str):
    torch.manual_seed(0)
    return MODELS[name].build(miniature(MODELS[name], MODELS[name].configs[config]))


def parameters(name: str, config: str) -> int:
    with torch.device("meta"):
        network = MODELS[name].build(MODELS[name].configs[config])
    return sum(p.numel() for p in network.parameters())


# Counted by hand from the layers that go or come, but for those of the papers (test_registry).
SIZES = {
    # One residual group of the upscaler: 10 blocks of two 3x3 convolutions and MS-CAM, one 3x3.
    ("mprnet-mscam", "baseline"): 34_116_641 - 17 * (10 * (2 * 36_864 + 4 * 512) + 36_864),
    ("mprnet-mscam", "rms-cab-120"): 34_116_641 - 5 * (10 * (2 * 36_864 + 4 * 512) + 36_864),
    ("gfn", "no-gate"): 12_210_438 - (131 * 64 * 9 + 64) - (64 * 64 + 64),
    ("msan", "no-attention"): 8_924_720
    - 4 * (128 * 9 + 128 + 3 * (128 * 128 + 128) + 128 * 16 + 128 + 1),
    ("attentive-deblur", "unshared"): 3 * 6_907_057,
    ("attentive-deblur", "added"): 6_907_057,
    ("attentive-deblur", "concatenated"): 6_907_057
    + sum(6 * (2 * width * width + width) for width in (32, 64, 128)),
    ("moadg", "no-gating"): 25_907_233,
    ("moadg", "no-third-order"): 25_907_233
    - (2 * 128 * 8 + 128 + 8)  # its attention
    - 128 * 64 * 9,  # of the convolution that reads the routes
}


@pytest.mark.parametrize(("name", "config"), SIZES)
def test_sizes(name, config):
    assert parameters(name, config) == SIZES[name, config]


def test_gfn_in_series_runs_the_same_layers_one_after_the_other():
    image = picture(16, 20)
    first, last = (build("gfn", config).eval() for config in ("deblurring-first", "sr-first"))
    with torch.inference_mode():
        small_image = first.before.restore(image)
        enlarged = first.reconstruction(first.features(small_image))
        assert torch.equal(first(image), enlarged)
        assert torch.equal(first.outputs(image)["deblurred"], small_image)
        large = last.reconstruction(last.features(image))
        assert torch.equal(last(image), last.after.restore(large))
        assert "deblurred" not in last.outputs(image)
    assert parameters("gfn", "deblurring-first") == parameters("gfn", "sr-first")
    assert parameters("gfn", "sr-first") == parameters("gfn", "no-gate")


def test_gfn_without_a_gate_adds_all_of_the_features():
    image = picture(16, 20)
    gated, plain, fused = (build("gfn", c).eval() for c in ("paper", "no-gate", "image-fusion"))
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if not k.startswith("gate")})
    with torch.inference_mode():
        ungated = gated.outputs(image)["ungated"]
        assert torch.equal(plain(image), ungated)
        assert not torch.equal(gated(image), ungated)
        features = fused.features(image) + fused.lift(fused.outputs(image)["deblurred"])
        assert torch.equal(fused(image), fused.reconstruction(features))


@pytest.mark.parametrize(
    "changes",
    [{"arrangement": BEFORE}, {"arrangement": AFTER}, {"deblur_blocks": 0}, {"arrangement": 4}],
)
def test_gfn_refuses_a_gate_between_what_is_not_side_by_side(changes):
    with pytest.raises(ValueError, match="gfn"):
        Gfn(dataclasses.replace(TINY_CONFIGS["gfn"], **changes))
    assert Gfn(dataclasses.replace(TINY_CONFIGS["gfn"], arrangement=IMAGE)).gate is not None


def attend(block, x, y, *, seen):
    """Spatial weights of y, and channel weights of what is `seen`, by the formula."""
    squeeze = torch.relu(block.spatial_squeeze(y))
    spatial = torch.sigmoid(block.spatial_expand(squeeze))
    seen = y * spatial if seen == "attended" else y
    narrow = torch.relu(block.channel_squeeze(seen.mean((2, 3), keepdim=True)))
    return spatial, torch.sigmoid(block.channel_expand(narrow))


@pytest.mark.parametrize("config", ["paper", "added", "concatenated"])
def test_attentions_are_joined_as_they_say(config):
    torch.manual_seed(0)
    block = AttentionBlock(
        8,
        miniature(MODELS["attentive-deblur"], MODELS["attentive-deblur"].configs[config]),
        spatial=True,
    ).eval()
    x = torch.randn(1, 8, 9, 11)
    with torch.inference_mode():
        y = block.conv2(torch.relu(block.conv1(x)))
        spatial, channel = attend(block, x, y, seen="attended" if config == "paper" else "as is")
        expected = {
            "paper": lambda: x + y * spatial * channel,
            "added": lambda: x + y * spatial + y * channel,
            "concatenated": lambda: x + block.join(torch.cat([y * spatial, y * channel], 1)),
        }[config]()
        assert torch.allclose(block(x, 0), expected, atol=1e-6)


def test_attention_is_left_out_where_it_says():
    def kinds(config):
        names = build("attentive-deblur", config).state_dict()
        return {
            (kind, part)
            for kind in ("spatial", "channel")
            for part in ("encode1.0", "encode2.0", "middle.0", "middle.1", "decode2.0", "decode1.0")
            if f"{part}.{kind}_squeeze.weight" in names
        }

    encoder, decoder = (
        ("encode1.0", "encode2.0", "middle.0"),
        ("middle.1", "decode2.0", "decode1.0"),
    )
    every = {(k, p) for k in ("spatial", "channel") for p in encoder + decoder}
    assert kinds("paper") == every
    assert kinds("no-attention") == set()
    assert kinds("channel") == {("channel", p) for p in encoder + decoder}
    assert kinds("spatial") == {("spatial", p) for p in encoder + decoder}
    assert kinds("spatial-encoder") == {("spatial", p) for p in encoder}
    assert kinds("spatial-decoder") == {("spatial", p) for p in decoder}


def test_unshared_weights_are_those_of_their_size():
    network = build("attentive-deblur", "unshared").eval()
    image = picture(32, 48)
    with torch.inference_mode():
        before = network.outputs(image)
        for parameter in network.coarser[1].parameters():
            parameter.mul_(1.5)
        after = network.outputs(image)
    assert torch.equal(before["level0"], after["level0"])
    assert not torch.equal(before["level1"], after["level1"])
    shared = build("attentive-deblur", "paper")
    for name, value in shared.state_dict().items():
        for part in ("", "coarser.0.", "coarser.1."):
            network.state_dict()[part + name].copy_(value)
    with torch.inference_mode():
        assert torch.equal(network(image), shared.eval()(image))


@pytest.mark.parametrize("changes", [{"joined": 3}, {"joined": 1, "channel": False}])
def test_attentions_that_are_not_there_are_not_joined(changes):
    with pytest.raises(ValueError, match="joined"):
        MODELS["attentive-deblur"].build(
            dataclasses.replace(TINY_CONFIGS["attentive-deblur"], **changes)
        )


def test_the_baseline_upscales_its_features_as_they_are():
    network = build("mprnet-mscam", "baseline").eval()
    torch.nn.init.normal_(network.upscaler.image.weight)  # it starts at zero
    x = torch.randn(1, 16, 8, 8)
    with torch.inference_mode():
        phases = network.upscaler(x)
        y = torch.nn.functional.leaky_relu(network.upscaler.conv(x), 0.1)
        image = network.upscaler.image(
            torch.nn.functional.pixel_shuffle(network.upscaler.expand(y), 4)
        )
    assert torch.allclose(torch.nn.functional.pixel_shuffle(phases, 4), image, atol=1e-4)


@pytest.mark.slow
def test_deblurring_after_enlarging_costs_sixteen_times_as_much():
    gfn = MODELS["gfn"]
    costs = {
        config: gfn.cost(gfn.configs[config])[1]
        for config in ("sr-alone", "deblurring-first", "sr-first")
    }
    module = costs["deblurring-first"] - costs["sr-alone"]
    assert costs["sr-first"] - costs["sr-alone"] == 16 * module
