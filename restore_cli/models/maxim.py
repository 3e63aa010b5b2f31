"""maxim: multi-axis MLP for image deblurring at the original size.

Paper: Z. Tu et al., "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022 (arXiv:2201.02973).
Code: written from a description of the network; no line of the authors' is used. Apache-2.0.

Three consecutive U-shaped networks (stages), each with three scales and a bottleneck at 1/8. The
multi-axis layer mixes *positions* by one dense layer shared by all channels, inside blocks (local)
and across a fixed grid of cells (global). The spacing of the grid grows with the picture, so a
window is not restored exactly as inside the whole picture (see `Tiling.WINDOWS`).

Internal maps are (B, H, W, C), which layer norms and dense layers take directly, and convolutions
as a channels-last view. So only the position mixing copies them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from restore_cli.models.maxim_layers import (
    Conv,
    ConvAttention,
    CrossGating,
    Dense,
    DenseAttention,
    MultiAxis,
    SupervisedAttention,
    Up,
    conv3,
    resized,
)
from restore_cli.models.spec import Model, PublishedFormat, SizeRequirement, StateDict, Tiling
from restore_cli.models.state_dict import RenameRules, count_blocks, rename

SCALES = 3  # scales of a stage: full, half and quarter resolution; the bottleneck is at 1/8


@dataclass(frozen=True, slots=True)
class MaximConfig:
    """Shape of the network; the defaults are the published MAXIM-3S (22,207,605 parameters)."""

    stages: int = 3
    width: int = 32  # channels at full resolution; twice and four times as many below
    large_window: int = 16  # cells and blocks a side at full and half resolution
    small_window: int = 8  # at quarter resolution and in the bottleneck
    groups: int = 2  # multi-axis layers of every encoder, decoder and bottleneck
    bottlenecks: int = 2

    def channels(self, scale: int) -> int:
        """Return the channels of the maps at 1 / 2^scale of the resolution."""
        return self.width * 2**scale

    def window(self, scale: int) -> int:
        """Return cells and blocks a side at 1 / 2^scale of the resolution."""
        return self.large_window if scale < SCALES - 1 else self.small_window


class Encoder(nn.Module):
    """1x1 convolution of a map and a skip connection, then multi-axis layers and attention.

    As a bottleneck, at 1/8 of the resolution, it has no skip connection, and dense layers instead
    of 3x3 convolutions.
    """

    def __init__(
        self,
        inputs: int,
        config: MaximConfig,
        scale: int,
        *,
        gated: bool = False,
        attention: type[ConvAttention | DenseAttention] = ConvAttention,
    ) -> None:
        super().__init__()
        channels, window = config.channels(scale), config.window(scale)
        self.reduce = Dense(inputs, channels)
        self.multi_axis = nn.ModuleList(MultiAxis(channels, window) for _ in range(config.groups))
        self.channel = nn.ModuleList(attention(channels) for _ in range(config.groups))
        self.gate = CrossGating(channels, window, channels) if gated else None

    def forward(self, x: Tensor, skip: Tensor | None = None, extra: Tensor | None = None) -> Tensor:
        """Map (B, H, W, C_x), (B, H, W, C_skip), for a gate also (B, H, W, C), to (B, H, W, C)."""
        x = shortcut = self.reduce(x if skip is None else torch.cat([x, skip], -1))
        for mix, attend in zip(self.multi_axis, self.channel, strict=True):
            x = attend(mix(x))
        x = x + shortcut
        if self.gate is not None and extra is not None:
            x = self.gate(x, extra)[0]
        return x


class Resample(nn.Module):
    """A map at another scale: bilinear resizing and a 1x1 convolution, in the cheaper order."""

    def __init__(self, config: MaximConfig, source: int, target: int) -> None:
        super().__init__()
        self.steps = source - target  # doublings
        self.project = Dense(config.channels(source), config.channels(target))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, 2^steps H, 2^steps W, C')."""
        if self.steps > 0:  # the two commute, since the weights of the resizing sum to one
            return resized(self.project(x), 2.0**self.steps)
        return self.project(resized(x, 2.0**self.steps) if self.steps else x)


class Gather(nn.ModuleList):
    """Maps of all scales, resampled to one of them and concatenated."""

    def __init__(self, config: MaximConfig, target: int) -> None:
        super().__init__(Resample(config, source, target) for source in range(SCALES))

    def forward(self, maps: Sequence[Tensor], *, coarse_first: bool = False) -> Tensor:
        """Map (B, H / 2^i, W / 2^i, C_i) for every scale i to (B, H', W', 3C').

        With `coarse_first`, the channels of the coarsest scale come first.
        """
        parts = [resample(x) for resample, x in zip(self, maps, strict=True)]
        return torch.cat(parts[::-1] if coarse_first else parts, -1)


class StageMaps(NamedTuple):
    """Outputs of a stage, one map (B, H, W, C) per scale, from full to quarter resolution."""

    encoded: list[Tensor]  # outputs of the encoders
    decoded: list[Tensor]  # outputs of the decoders
    attended: list[Tensor]  # features gated by the stage's pictures; empty for the last stage
    # restored pictures (B, H, W, 3); for the last stage at full resolution only
    images: list[Tensor]


class Stage(nn.Module):
    """One U-shaped network."""

    def __init__(self, config: MaximConfig, *, first: bool, last: bool) -> None:
        super().__init__()
        scales, channels = range(SCALES), [config.channels(i) for i in range(SCALES)]
        bottom = channels[-1]
        self.input_convs = nn.ModuleList(conv3(3, c) for c in channels)
        self.input_gates = nn.ModuleList(
            CrossGating(channels[i], config.window(i), channels[i]) for i in scales if not first
        )
        self.encoders = nn.ModuleList(
            Encoder(channels[max(i - 1, 0)] + channels[i], config, i, gated=not first)
            for i in scales
        )
        self.downs = nn.ModuleList(Conv(c, c, 4, stride=2, padding=1) for c in channels)
        self.bottlenecks = nn.ModuleList(
            Encoder(bottom, config, SCALES - 1, attention=DenseAttention)
            for _ in range(config.bottlenecks)
        )
        self.skip_resamples = nn.ModuleList(Gather(config, i) for i in scales)
        below = [*channels[1:], bottom]  # channels of the next lower scale
        self.skip_gates = nn.ModuleList(
            CrossGating(channels[i], config.window(i), SCALES * channels[i], below[i])
            for i in scales
        )
        self.decoder_resamples = nn.ModuleList(Gather(config, i) for i in scales)
        self.ups = nn.ModuleList(Up(below[i], channels[i]) for i in scales)
        self.decoders = nn.ModuleList(
            Encoder((SCALES + 1) * channels[i], config, i) for i in scales
        )
        self.attentions = nn.ModuleList(SupervisedAttention(c) for c in channels if not last)
        self.output = conv3(channels[0], 3) if last else None

    def forward(self, pictures: Sequence[Tensor], before: StageMaps | None) -> StageMaps:
        """Map pictures (B, H, W, 3) at three scales, and maps of the stage `before`, to maps."""
        maps = [conv(picture) for conv, picture in zip(self.input_convs, pictures, strict=True)]
        extras: list[Tensor | None] = [None] * SCALES
        if before is not None:
            gates = zip(self.input_gates, maps, before.attended, strict=True)
            maps = [gate(own, attended)[0] for gate, own, attended in gates]
            extras = [a + b for a, b in zip(before.encoded, before.decoded, strict=True)]
        x, encoded = maps[0], []
        for encoder, down, skip, extra in zip(self.encoders, self.downs, maps, extras, strict=True):
            encoded.append(encoder(x, skip, extra))
            x = down(encoded[-1])
        for bottleneck in self.bottlenecks:
            x = bottleneck(x)
        decoded = self._decode(x, self._skips(encoded, x))
        if self.output is not None:
            return StageMaps(encoded, decoded, [], [self.output(decoded[0]) + pictures[0]])
        attentions = zip(self.attentions, decoded, pictures, strict=True)
        attended, images = zip(*(sam(x, picture) for sam, x, picture in attentions), strict=True)
        return StageMaps(encoded, decoded, list(attended), list(images))

    def _skips(self, encoded: Sequence[Tensor], y: Tensor) -> list[Tensor]:
        """Connect all encoders to each decoder, gated by the lower scale."""
        skips: list[Tensor] = []
        for i in reversed(range(SCALES)):
            skip, y = self.skip_gates[i](self.skip_resamples[i](encoded), y)
            skips.insert(0, skip)
        return skips

    def _decode(self, x: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        decoded: list[Tensor] = []
        for i in reversed(range(SCALES)):
            signal = self.decoder_resamples[i](skips, coarse_first=True)
            x = self.decoders[i](self.ups[i](x), signal)
            decoded.insert(0, x)
        return decoded


class Maxim(nn.Module):
    """The network. Input (B, 3, H, W) in [0, 1], H and W multiples of 64."""

    def __init__(self, config: MaximConfig) -> None:
        super().__init__()
        last = config.stages - 1
        self.stages = nn.ModuleList(
            Stage(config, first=n == 0, last=n == last) for n in range(config.stages)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Restore (B, 3, H, W) to the same size, unclamped."""
        return self.run(image)[-1].images[0].permute(0, 3, 1, 2)

    def run(self, image: Tensor) -> list[StageMaps]:
        """Map (B, 3, H, W) to the maps of every stage, (B, H, W, C)."""
        x = image.permute(0, 2, 3, 1)
        # Nearest with half-pixel centres: the lower right of the central four of each 2^i x 2^i.
        pictures = [x, x[:, 1::2, 1::2].contiguous(), x[:, 2::4, 2::4].contiguous()]
        stages: list[StageMaps] = []
        for stage in self.stages:
            stages.append(stage(pictures, stages[-1] if stages else None))
        return stages

    def outputs(self, image: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to `restored`, and the earlier stages' pictures at three scales.

        Those are `stage1`, `stage1_half`, `stage1_quarter`, `stage2`, ... `wanted` names those to
        return; None for all.
        """
        stages = self.run(image)
        names: dict[str, Tensor] = {"restored": stages[-1].images[0]}
        for n, maps in enumerate(stages[:-1], 1):
            for suffix, picture in zip(("", "_half", "_quarter"), maps.images, strict=True):
                names[f"stage{n}{suffix}"] = picture
        chosen = [name for name in names if wanted is None or name in wanted]
        return {name: names[name].permute(0, 3, 1, 2) for name in chosen}


def infer_config(state: StateDict) -> MaximConfig:
    """Infer the config of a state dict of `maxim` from its shapes."""

    def window(name: str) -> int:
        return math.isqrt(state[f"stages.0.{name}.multi_axis.0.grid.mixing.bias"].shape[0])

    return MaximConfig(
        stages=count_blocks(state, "stages"),
        width=state["stages.0.input_convs.0.weight"].shape[0],
        large_window=window("encoders.0"),
        small_window=window("bottlenecks.0"),
        groups=count_blocks(state, "stages.0.encoders.0.multi_axis"),
        bottlenecks=count_blocks(state, "stages.0.bottlenecks"),
    )


def _resample(match: re.Match[str]) -> str:
    """Name a layer by its number: the authors count these 18 per stage in order of creation."""
    stage, place = divmod(int(match[1]), 2 * SCALES**2)
    kind, place = divmod(place, SCALES**2)
    upwards, order = divmod(place, SCALES)
    target = SCALES - 1 - upwards
    if kind == 0:
        return f"stages.{stage}.skip_resamples.{target}.{order}.project"
    return f"stages.{stage}.decoder_resamples.{target}.{SCALES - 1 - order}.project"


_FLAX_NAMES: RenameRules = (
    (r"^UpSampleRatio_(\d+)/Conv_0", _resample),
    (r"^stage_(\d+)_", r"stages.\1."),
    (r"input_conv_(\d+)", r"input_convs.\1"),
    (r"input_fuse_sam_(\d+)", r"input_gates.\1"),
    (r"encoder_block_(\d+)/Conv_0", r"encoders.\1.reduce"),
    (r"encoder_block_(\d+)/Conv_1", r"downs.\1"),
    (r"encoder_block_(\d+)/cross_gating_block", r"encoders.\1.gate"),
    (r"encoder_block_(\d+)", r"encoders.\1"),
    (r"global_block_(\d+)/input_proj", r"bottlenecks.\1.reduce"),
    (r"global_block_(\d+)", r"bottlenecks.\1"),
    (r"(?<!/)cross_gating_block_(\d+)", r"skip_gates.\1"),
    (r"decoder_block_(\d+)/ConvTranspose_0", r"ups.\1"),
    (r"decoder_block_(\d+)/UNetEncoderBlock_0/Conv_0", r"decoders.\1.reduce"),
    (r"decoder_block_(\d+)/UNetEncoderBlock_0", r"decoders.\1"),
    (r"supervised_attention_module_(\d+)/Conv_0", r"attentions.\1.features"),
    (r"supervised_attention_module_(\d+)/Conv_1", r"attentions.\1.image"),
    (r"supervised_attention_module_(\d+)/Conv_2", r"attentions.\1.gate"),
    (r"output_conv_0", "output"),
    (r"SplitHeadMultiAxisGmlpLayer_(\d+)", r"multi_axis.\1"),
    (r"(Grid|Block)GmlpLayer", lambda match: match[1].lower()),
    (r"(Grid|Block)GatingUnit/intermediate_layernorm", "gate_norm"),
    (r"(Grid|Block)GatingUnit/Dense_0", "mixing"),
    (r"channel_attention_block_1_?(\d+)", r"channel.\1"),
    (r"channel_attention/Conv_0", "attention.squeeze"),
    (r"channel_attention/Conv_1", "attention.expand"),
    (r"channel_mixing/Dense_0", "dense1"),
    (r"channel_mixing/Dense_1", "dense2"),
    (r"SplitHeadMultiAxisGating_([xy])/Dense_0", r"gate_\1.grid"),
    (r"SplitHeadMultiAxisGating_([xy])/Dense_1", r"gate_\1.block"),
    (r"SplitHeadMultiAxisGating_([xy])", r"gate_\1"),
    (r"ConvTranspose_0", "up"),
    (r"/Conv_0", "/project_x"),
    (r"/Conv_1", "/project_y"),
    (r"LayerNorm_in\b|LayerNorm\b", "norm"),
    (r"LayerNorm_", "norm_"),
    (r"(kernel|scale)$", "weight"),
    (r"/", "."),
)
_DENSE = re.compile(r"(project(_[xy])?|reduce)\.weight$")  # 1x1 convolutions that are dense here


def _from_flax(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the authors' names and layouts (kernels HWIO, dense in x out) to ours."""
    converted: dict[str, Tensor] = {}
    for path, tensor in state.items():
        name = rename(path, _FLAX_NAMES)
        if tensor.ndim == 4:
            kernel = tensor.permute(3, 2, 0, 1)
            converted[name] = kernel[:, :, 0, 0] if _DENSE.search(name) else kernel
        else:
            converted[name] = tensor.T if tensor.ndim == 2 else tensor
    return converted


MAXIM = Model(
    name="maxim",
    task="motion deblurring",
    scale=1,
    parameters=22_207_605,
    macs=9_343_268_864,
    paper="arXiv:2201.02973",
    code_license="Apache-2.0",
    configs={
        "paper": MaximConfig(),
        "lite": MaximConfig(stages=1, width=16, groups=1, bottlenecks=1),
    },
    build=Maxim,
    detect=lambda state: "stages.0.encoders.0.multi_axis.0.grid.mixing.weight" in state,
    infer_config=infer_config,
    bytes_per_pixel=lambda config: 7_500 * config.width // 32,
    size=SizeRequirement(multiple_of=64),
    tiling=Tiling.WINDOWS,
    # Gain on 4 whole frames (960x540; `maxim.motion`, bf16): windows of at most 256 px +8.18 dB,
    # 384 px +8.30 dB, 512 px +8.30 dB, 640 px +8.18 dB. Within 48 px of the seam of two windows of
    # 384 px, against the middle of one, 5 frames: overlap of 16 px -0.17 dB, 32 px -0.04 dB, 64 px
    # +0.01 dB.
    largest_tile=512,
    overlap=32,
    published=(
        PublishedFormat(
            name="MAXIM-3S, deblurring of GoPro",
            recognises=lambda state: (
                "stage_0_encoder_block_0/SplitHeadMultiAxisGmlpLayer_0/in_project/kernel" in state
            ),
            convert=_from_flax,
            train_size=(256, 256),
        ),
    ),
    tiny=MaximConfig(stages=2, width=4, large_window=4, small_window=2, groups=1, bottlenecks=1),
)
