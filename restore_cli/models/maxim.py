"""maxim: multi-axis MLP for image deblurring at the original size.

Paper: Z. Tu et al., "MAXIM: Multi-Axis MLP for Image Processing", CVPR 2022 (arXiv:2201.02973).
Code: written from a description of the network; no line of the authors' is used. Apache-2.0.

Three U-shaped networks (stages) in a row, each with three scales and a bottleneck at 1/8. Its
special layer mixes *positions* by one dense layer shared by all channels, inside blocks (local)
and across a fixed grid of cells (global). The spacing of the grid grows with the picture, so a
window of a picture is not restored exactly as inside the whole (see `Tiling.WINDOWS`).

Inside, maps are (B, H, W, C): layer norms and dense layers take them as they are, convolutions the
channels-last view, so that no copies are left but those of the position mixing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import GlobalMean, computed
from restore_cli.models.spec import Model, PublishedFormat, SizeRequirement, StateDict, Tiling
from restore_cli.models.state_dict import count_blocks, rename

LARGEST_WINDOW = 384  # pixels a side
_GELU_SCALE = math.sqrt(2 / math.pi)
SCALES = 3  # of a stage: full, half and quarter resolution; the bottleneck is at 1/8


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
        """Of the maps at 1 / 2^scale of the resolution."""
        return self.width * 2**scale

    def window(self, scale: int) -> int:
        """Cells and blocks a side at 1 / 2^scale of the resolution."""
        return self.large_window if scale < SCALES - 1 else self.small_window


# Layers; every map is (B, H, W, C) --------------------------------------------------------------


class Conv(nn.Conv2d):
    """A convolution of a (B, H, W, C) map, which is a channels-last map seen from the side."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H', W', C')."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Dense(nn.Linear):
    """A dense layer of the channels, run as a 1x1 convolution.

    Measured on one AMD core, (61440, 32) -> 64: 16.2 ms as a matrix product (MKL), 4.6 ms as a
    convolution (oneDNN); from 64 channels on the two are alike.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C')."""
        kernel = self.weight[:, :, None, None]
        return F.conv2d(x.permute(0, 3, 1, 2), kernel, self.bias).permute(0, 2, 3, 1)


class Up(nn.ConvTranspose2d):
    """Transposed 2x2 convolution of stride 2: every position becomes four, none overlap."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """(B, H, W, C) -> (B, 2H, 2W, C')."""
        return super().forward(x.permute(0, 3, 1, 2), output_size).permute(0, 2, 3, 1)


def conv3(inputs: int, outputs: int) -> Conv:
    """3x3 with zero padding."""
    return Conv(inputs, outputs, 3, padding=1)


def norm(channels: int) -> nn.LayerNorm:
    """Over the channels of each position."""
    return nn.LayerNorm(channels, eps=1e-6)


def gelu(x: Tensor) -> Tensor:
    """The tanh approximation, of any shape: erf is 3e-3 off the published outputs.

    As x * sigmoid(2 y), which is the same, and in the memory of `x` where no gradient is wanted.
    Measured on one AMD core, 3.9 million values: 9.5 ms, torch's own 14.5 ms.
    """
    if torch.is_grad_enabled() or x.dtype != torch.float32:
        return F.gelu(x, approximate="tanh")
    slope = x.new_tensor(2 * _GELU_SCALE)
    gate = torch.addcmul(slope, x, x, value=2 * _GELU_SCALE * 0.044715).mul_(x)
    return x.mul_(gate.sigmoid_())


class PositionMixing(nn.Module):
    """A dense layer over positions, the same for every channel.

    `grid` mixes the positions at one offset in each of window x window cells of the map, `block`
    those inside each block of window x window.
    """

    def __init__(self, window: int, *, grid: bool) -> None:
        super().__init__()
        self.window, self.grid = window, grid
        self.weight = nn.Parameter(torch.empty(window**2, window**2))
        self.bias = nn.Parameter(torch.zeros(window**2))
        nn.init.normal_(self.weight, std=1 / window)

    def forward(self, x: Tensor, before: nn.Module | None = None) -> Tensor:
        """(B, H, W, C) -> the same; `before` acts on channels only, after the one copy."""
        batch, height, width, channels = x.shape
        s = self.window
        down, across = height // s, width // s
        if self.grid:
            order = (1, 3, 0, 2, 4, 5)  # cell row and column first
            back = (2, 0, 3, 1, 4, 5)
            x = x.reshape(batch, s, down, s, across, channels).permute(order)
            shape = (s, s, batch, down, across, channels)
        else:
            order = (2, 4, 0, 1, 3, 5)  # row and column inside the block first
            back = (2, 3, 0, 4, 1, 5)
            x = x.reshape(batch, down, s, across, s, channels).permute(order)
            shape = (s, s, batch, down, across, channels)
        x = x.contiguous()
        x = x if before is None else before(x)
        mixed = torch.addmm(self.bias[:, None], self.weight, x.reshape(s * s, -1))
        return mixed.reshape(shape).permute(back).reshape(batch, height, width, channels)


class GatedMlp(nn.Module):
    """gMLP (Liu et al. 2021) along one axis: half of the channels gates the other half."""

    def __init__(self, channels: int, window: int, *, grid: bool) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.in_project = Dense(channels, 2 * channels)
        self.gate_norm = norm(channels)
        self.mixing = PositionMixing(window, grid=grid)
        self.out_project = Dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        u, v = gelu(self.in_project(self.norm(x))).chunk(2, -1)
        v = self.mixing(v, self.gate_norm)
        return x + self.out_project(torch.addcmul(u, u, v))


class MultiAxis(nn.Module):
    """Half of the channels through a gMLP across the grid, half through one inside blocks."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.in_project = Dense(channels, 2 * channels)
        self.grid = GatedMlp(channels, window, grid=True)
        self.block = GatedMlp(channels, window, grid=False)
        self.out_project = Dense(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        u, v = gelu(self.in_project(self.norm(x))).chunk(2, -1)
        return x + self.out_project(torch.cat([self.grid(u), self.block(v)], -1))


class ChannelAttention(nn.Module):
    """x * sigmoid(expand(relu(squeeze(mean of x))))."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.mean = GlobalMean()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        squeezed = self.mean(x.permute(0, 3, 1, 2), self.squeeze)
        return x * self.expand(F.relu(squeezed)).sigmoid().permute(0, 2, 3, 1)


class ConvAttention(nn.Module):
    """Layer norm, two 3x3 convolutions, channel attention, + input (RCAB)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.conv1 = conv3(channels, channels)
        self.conv2 = conv3(channels, channels)
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return x + self.attention(self.conv2(F.leaky_relu(self.conv1(self.norm(x)), 0.2)))


class DenseAttention(nn.Module):
    """The same with dense layers: of the bottleneck (RDCAB)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.dense1 = Dense(channels, channels)
        self.dense2 = Dense(channels, channels)
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        return x + self.attention(self.dense2(gelu(self.dense1(self.norm(x)))))


class MultiAxisGate(nn.Module):
    """Weights for a gate: half of the channels mixed across the grid, half inside blocks."""

    def __init__(self, channels: int, window: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.in_project = Dense(channels, 2 * channels)
        self.grid = PositionMixing(window, grid=True)
        self.block = PositionMixing(window, grid=False)
        self.out_project = Dense(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        u, v = gelu(self.in_project(self.norm(x))).chunk(2, -1)
        return self.out_project(torch.cat([self.grid(u), self.block(v)], -1))


class CrossGating(nn.Module):
    """Two maps gate each other; the second may come from the scale below."""

    def __init__(self, channels: int, window: int, inputs: int, below: int | None = None) -> None:
        super().__init__()
        self.up = Up(below, channels) if below else None
        self.project_x = Dense(inputs, channels)
        self.project_y = Dense(channels, channels)
        self.norm_x = norm(channels)
        self.norm_y = norm(channels)
        self.in_project_x = Dense(channels, channels)
        self.in_project_y = Dense(channels, channels)
        self.gate_x = MultiAxisGate(channels, window)
        self.gate_y = MultiAxisGate(channels, window)
        self.out_project_x = Dense(channels, channels)
        self.out_project_y = Dense(channels, channels)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C_x) and (B, H, W, C), or (B, H/2, W/2, C_y) where it is below -> two maps."""
        x = self.project_x(x)
        y = self.project_y(y if self.up is None else self.up(y))
        a = gelu(self.in_project_x(self.norm_x(x)))
        b = gelu(self.in_project_y(self.norm_y(y)))
        y = y + self.out_project_y(b * self.gate_x(a))
        return self.out_project_x(a * self.gate_y(b)) + y + x, y


class Encoder(nn.Module):
    """1x1 convolution of a map and a skip connection, then multi-axis layers and attention."""

    def __init__(
        self, inputs: int, config: MaximConfig, scale: int, *, gated: bool = False
    ) -> None:
        super().__init__()
        channels, window = config.channels(scale), config.window(scale)
        self.reduce = Dense(inputs, channels)
        self.multi_axis = nn.ModuleList(MultiAxis(channels, window) for _ in range(config.groups))
        self.channel = nn.ModuleList(ConvAttention(channels) for _ in range(config.groups))
        self.gate = CrossGating(channels, window, channels) if gated else None

    def forward(self, x: Tensor, skip: Tensor, extra: Tensor | None = None) -> Tensor:
        """(B, H, W, C_x), (B, H, W, C_skip) and for a gate (B, H, W, C) -> (B, H, W, C)."""
        x = shortcut = self.reduce(torch.cat([x, skip], -1))
        for mix, attend in zip(self.multi_axis, self.channel, strict=True):
            x = attend(mix(x))
        x = x + shortcut
        if self.gate is not None and extra is not None:
            x = self.gate(x, extra)[0]
        return x


class Bottleneck(nn.Module):
    """The layers of an encoder at 1/8 of the resolution, with dense layers for convolutions."""

    def __init__(self, config: MaximConfig) -> None:
        super().__init__()
        channels = config.channels(SCALES - 1)
        self.reduce = Dense(channels, channels)
        self.multi_axis = nn.ModuleList(
            MultiAxis(channels, config.small_window) for _ in range(config.groups)
        )
        self.channel = nn.ModuleList(DenseAttention(channels) for _ in range(config.groups))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> the same."""
        x = shortcut = self.reduce(x)
        for mix, attend in zip(self.multi_axis, self.channel, strict=True):
            x = attend(mix(x))
        return x + shortcut


class Resample(nn.Module):
    """A map at another scale: bilinear resizing and a 1x1 convolution, whichever is less work."""

    def __init__(self, config: MaximConfig, source: int, target: int) -> None:
        super().__init__()
        self.steps = source - target  # doublings
        self.project = Dense(config.channels(source), config.channels(target))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, 2^steps H, 2^steps W, C')."""
        if self.steps > 0:  # the two commute, since the weights of the resizing sum to one
            return resized(self.project(x), 2.0**self.steps)
        return self.project(resized(x, 2.0**self.steps) if self.steps else x)


class Gather(nn.ModuleList):
    """Maps of all scales, resampled to one of them and concatenated."""

    def __init__(self, config: MaximConfig, target: int) -> None:
        super().__init__(Resample(config, source, target) for source in range(SCALES))

    def forward(self, maps: Sequence[Tensor], *, coarse_first: bool = False) -> Tensor:
        """(B, H / 2^i, W / 2^i, C_i) for every scale i -> (B, H', W', 3C')."""
        parts = [resample(x) for resample, x in zip(self, maps, strict=True)]
        return torch.cat(parts[::-1] if coarse_first else parts, -1)


def resized(x: Tensor, factor: float) -> Tensor:
    """Bilinear with half-pixel centres, antialiased when shrinking.

    Args:
        x: (B, H, W, C).
        factor: of the sides, a power of two.

    Returns:
        (B, factor * H, factor * W, C).
    """
    height, width = (round(side * factor) for side in x.shape[1:3])
    shrink = factor < 1
    planes = x.permute(0, 3, 1, 2)
    # torch 2.13 has no antialiased resizing in bfloat16 on CPUs.
    planes = (
        planes.float() if shrink and planes.dtype in (torch.bfloat16, torch.float16) else planes
    )
    made = F.interpolate(planes, (height, width), mode="bilinear", antialias=shrink)
    return made.to(x.dtype).permute(0, 2, 3, 1)


class SupervisedAttention(nn.Module):
    """A picture out of features, and the features gated by it (SAM, Zamir et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = conv3(channels, channels)
        self.image = conv3(channels, 3)
        self.gate = conv3(3, channels)

    def forward(self, x: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W, C) and (B, H, W, 3) -> features of the same shape, picture (B, H, W, 3)."""
        image = self.image(x) + picture
        return torch.addcmul(x, self.features(x), self.gate(image).sigmoid()), image


class StageMaps(NamedTuple):
    """What a stage hands on, each a map (B, H, W, C) a scale, from full to quarter resolution.

    Attributes:
        encoded: of the encoders.
        decoded: of the decoders.
        attended: gated by the stage's pictures; none of the last stage.
        images: restored pictures (B, H, W, 3); of the last stage at full resolution only.
    """

    encoded: list[Tensor]
    decoded: list[Tensor]
    attended: list[Tensor]
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
        self.bottlenecks = nn.ModuleList(Bottleneck(config) for _ in range(config.bottlenecks))
        self.skip_resamples = nn.ModuleList(Gather(config, i) for i in scales)
        above = [*channels[1:], bottom]  # channels of the scale below each
        self.skip_gates = nn.ModuleList(
            CrossGating(channels[i], config.window(i), SCALES * channels[i], above[i])
            for i in scales
        )
        self.decoder_resamples = nn.ModuleList(Gather(config, i) for i in scales)
        self.ups = nn.ModuleList(Up(above[i], channels[i]) for i in scales)
        self.decoders = nn.ModuleList(
            Encoder((SCALES + 1) * channels[i], config, i) for i in scales
        )
        self.attentions = nn.ModuleList(SupervisedAttention(c) for c in channels if not last)
        self.output = conv3(channels[0], 3) if last else None

    def forward(self, pictures: Sequence[Tensor], before: StageMaps | None) -> StageMaps:
        """Pictures (B, H, W, 3) at three scales and what the last stage made -> its own maps."""
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
        """What the encoders of all scales give the decoder of each, gated by what comes up."""
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


# Network -----------------------------------------------------------------------------------------


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
        """(B, 3, H, W) -> the maps of every stage, (B, H, W, C); the last stage's are the best."""
        x = image.permute(0, 2, 3, 1)
        # Nearest with half-pixel centres: the lower right of the middle four of each 2^i x 2^i.
        pictures = [x, x[:, 1::2, 1::2], x[:, 2::4, 2::4]]
        made: list[StageMaps] = []
        for stage in self.stages:
            made.append(stage(pictures, made[-1] if made else None))
        return made

    def outputs(self, image: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """From (B, 3, H, W): `restored`, and the earlier stages' pictures at three scales.

        Those are `stage1`, `stage1_half`, `stage1_quarter`, `stage2`, ...
        """
        made = self.run(image)
        names: dict[str, Tensor] = {"restored": made[-1].images[0]}
        for n, maps in enumerate(made[:-1], 1):
            for suffix, picture in zip(("", "_half", "_quarter"), maps.images, strict=True):
                names[f"stage{n}{suffix}"] = picture
        return computed(
            {name: _planes(picture) for name, picture in names.items()},
            wanted,
        )


def _planes(picture: Tensor) -> Callable[[], Tensor]:
    return lambda: picture.permute(0, 3, 1, 2)


# Registry ----------------------------------------------------------------------------------------


def infer_config(state: StateDict) -> MaximConfig:
    """The config of a state dict of `maxim`, by its shapes."""

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
    """The authors number these 18 layers a stage in the order in which they are made."""
    stage, place = divmod(int(match[1]), 2 * SCALES**2)
    kind, place = divmod(place, SCALES**2)
    upwards, order = divmod(place, SCALES)
    target = SCALES - 1 - upwards
    if kind == 0:
        return f"stages.{stage}.skip_resamples.{target}.{order}.project"
    return f"stages.{stage}.decoder_resamples.{target}.{SCALES - 1 - order}.project"


_FLAX_NAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
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
    """The authors' names and layouts (kernels HWIO, dense in x out) -> ours."""
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
    macs=9_335_404_544,
    paper="arXiv:2201.02973",
    code_license="Apache-2.0",
    config_type=MaximConfig,
    configs={
        "paper": MaximConfig(),
        "lite": MaximConfig(stages=1, width=16, groups=1, bottlenecks=1),
    },
    build=Maxim,
    detect=lambda state: "stages.0.encoders.0.multi_axis.0.grid.mixing.weight" in state,
    infer_config=infer_config,
    bytes_per_pixel=lambda config: 7_500 * config.width // 32,
    size=SizeRequirement(multiple_of=64, minimum=64),
    tiling=Tiling.WINDOWS,
    largest_tile=LARGEST_WINDOW,
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
)
