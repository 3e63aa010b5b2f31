"""mprnet-mscam: joint motion deblurring and x4 super-resolution.

Paper: M. Shoyan, "Joint motion deblurring and super-resolution with multi-scale channel attention";
the deblurring part follows Zamir et al., "Multi-Stage Progressive Image Restoration" (CVPR 2021),
the attention Dai et al., "Attentional Feature Fusion" (WACV 2021, MS-CAM).
Code: written from a description of the network; no line of the authors' is used. Apache-2.0.
Where paper and published network differ, the published network is followed: one block per skip, a
long skip around the full-resolution stage, no normalisation in MS-CAM.

Data flow, (B, C, H, W) with H, W of the input; c1, c2, c3 are the widths of the three levels:

    stage 1  four quadrants -> encoder;  two halves -> decoder -> supervised attention
    stage 2  two halves -> encoder, fed by stage 1;  whole -> decoder -> supervised attention
    stage 3  whole, full resolution only, fed by stage 2's encoder and decoder
    upscaler residual groups with multi-scale channel attention -> pixel shuffle -> image

The lines that cut halves and quadrants belong to the picture. A tile is cut where they cross it,
which is why `forward` is told where the tile lies.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import GlobalMean, conv, double, halve
from restore_cli.models.spec import Model, Placement, SizeRequirement, StateDict
from restore_cli.models.state_dict import count_blocks

LEVELS = 3


@dataclass(frozen=True, slots=True)
class MprnetMscamConfig:
    """Shape of the network; the defaults are the published one (34,116,641 parameters)."""

    features: int = 96  # width of level 1 of both U-Nets
    growth: int = 48  # added width per level down
    full_growth: int = 32  # width of stage 3 minus `features`
    reduction: int = 4  # of channel attention
    level_blocks: int = 2  # attention blocks per level of an encoder or decoder
    full_blocks: int = 8  # attention blocks per group of stage 3
    sr_features: int = 64  # width of the upscaler
    sr_groups: int = 17  # residual groups of the upscaler
    sr_blocks: int = 10  # blocks per residual group
    sr_reduction: int = 8  # of multi-scale channel attention
    scale: int = 4
    image_skip: bool = False  # add a learned x4 interpolation of the input (not in the paper)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the three levels, full resolution first."""
        return tuple(self.features + level * self.growth for level in range(LEVELS))


class Outputs(NamedTuple):
    """Features and side images of the deblurring part."""

    features: Tensor
    stage1: Tensor
    stage2: Tensor


# Blocks --------------------------------------------------------------------------------------


class ChannelAttention(nn.Module):
    """x * sigmoid(expand(relu(squeeze(mean(x))))), Zamir et al. fig. 3."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.mean = GlobalMean()
        self.squeeze = conv(width, width // reduction, 1)
        self.expand = conv(width // reduction, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.expand(F.relu(self.mean(x, self.squeeze)))
        return x * gate.sigmoid()


class AttentionBlock(nn.Module):
    """conv, PReLU, conv, channel attention, + input. All blocks of a network share one PReLU."""

    def __init__(self, width: int, reduction: int, activation: nn.PReLU) -> None:
        super().__init__()
        self.conv1 = conv(width, width, 3)
        self.conv2 = conv(width, width, 3)
        self.attention = ChannelAttention(width, reduction)
        # In a tuple, so that the one slope is stored once (by the network), not in each block.
        self._activation = (activation,)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.conv2(self._activation[0](self.conv1(x))))


class MultiScaleAttention(nn.Module):
    """MS-CAM: x * sigmoid(local(x) + global(mean(x))); no bias, no normalisation."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.mean = GlobalMean()
        self.local_squeeze = conv(width, width // reduction, 1)
        self.local_expand = conv(width // reduction, width, 1)
        self.global_squeeze = conv(width, width // reduction, 1)
        self.global_expand = conv(width // reduction, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        local = self.local_expand(F.relu(self.local_squeeze(x)))
        whole = self.global_expand(F.relu(self.mean(x, self.global_squeeze)))
        return x * (local + whole).sigmoid()


class MultiScaleBlock(nn.Module):
    """conv, ReLU, conv, MS-CAM, + input."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = conv(width, width, 3)
        self.conv2 = conv(width, width, 3)
        self.attention = MultiScaleAttention(width, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.conv2(F.relu(self.conv1(x))))


class ResidualGroup(nn.Module):
    """blocks, conv, + input."""

    def __init__(self, blocks: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.conv = conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(self.blocks(x))


class SupervisedAttention(nn.Module):
    """Image of a stage, and its features gated by that image (Zamir et al. fig. 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = conv(width, width, 1)
        self.image = conv(width, 3, 1)
        self.gate = conv(3, width, 1)

    def forward(self, x: Tensor, degraded: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W), (B, 3, H, W) -> gated features, image."""
        image = self.image(x) + degraded
        return x + self.features(x) * self.gate(image).sigmoid(), image


# Stages --------------------------------------------------------------------------------------

BlockMaker = Callable[[int], AttentionBlock]


class Encoder(nn.Module):
    """Three levels of attention blocks; with `crossed`, each level adds an earlier stage's."""

    def __init__(self, config: MprnetMscamConfig, block: BlockMaker, *, crossed: bool) -> None:
        super().__init__()
        widths = config.widths
        self.levels = nn.ModuleList(
            nn.Sequential(*(block(width) for _ in range(config.level_blocks))) for width in widths
        )
        self.downs = nn.ModuleList(conv(a, b, 1) for a, b in pairwise(widths))
        self.cross_encoder = nn.ModuleList(conv(w, w, 1) for w in widths if crossed)
        self.cross_decoder = nn.ModuleList(conv(w, w, 1) for w in widths if crossed)

    def forward(
        self, x: Tensor, encoded: Sequence[Tensor] = (), decoded: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """(B, c1, H, W) -> features at H, H/2, H/4."""
        levels: list[Tensor] = []
        for index, blocks in enumerate(self.levels):
            x = blocks(self.downs[index - 1](halve(x)) if index else x)
            if self.cross_encoder:
                x = x + self.cross_encoder[index](encoded[index])
                x = x + self.cross_decoder[index](decoded[index])
            levels.append(x)
        return levels


class Decoder(nn.Module):
    """From the smallest level up, adding the encoder's levels through one block each."""

    def __init__(self, config: MprnetMscamConfig, block: BlockMaker) -> None:
        super().__init__()
        widths = config.widths
        self.levels = nn.ModuleList(
            nn.Sequential(*(block(width) for _ in range(config.level_blocks))) for width in widths
        )
        self.skips = nn.ModuleList(block(width) for width in widths[:-1])
        self.ups = nn.ModuleList(conv(b, a, 1) for a, b in pairwise(widths))

    def forward(self, *encoded: Tensor) -> list[Tensor]:
        """Features at H, H/2, H/4 -> the same sizes and widths."""
        levels = [self.levels[-1](encoded[-1])]
        for index in reversed(range(LEVELS - 1)):
            # The 1x1 goes before the interpolation: they commute, and it is 4 times less work.
            x = double(self.ups[index](levels[0])) + self.skips[index](encoded[index])
            levels.insert(0, self.levels[index](x))
        return levels


class FullResolution(nn.Module):
    """Stage 3: groups of attention blocks at full resolution, each followed by one U-Net level."""

    def __init__(self, config: MprnetMscamConfig, block: BlockMaker) -> None:
        super().__init__()
        width = config.features + config.full_growth
        self.groups = nn.ModuleList(
            ResidualGroup([block(width) for _ in range(config.full_blocks)], width)
            for _ in range(LEVELS)
        )
        self.from_encoder = nn.ModuleList(self._lift(config, n, width) for n in range(LEVELS))
        self.from_decoder = nn.ModuleList(self._lift(config, n, width) for n in range(LEVELS))

    @staticmethod
    def _lift(config: MprnetMscamConfig, level: int, width: int) -> nn.Sequential:
        """1x1 convolutions from a level's width to `width`, one per halving undone, then one."""
        widths = config.widths[level::-1]
        steps = [conv(a, b, 1) for a, b in pairwise(widths)]
        return nn.Sequential(*steps, conv(config.features, width, 1))

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        for level, group in enumerate(self.groups):
            lifted = self.from_encoder[level](encoded[level])
            lifted = lifted + self.from_decoder[level](decoded[level])
            for _ in range(level):
                lifted = double(lifted)
            x = group(x) + lifted
        return x


class Upscaler(nn.Module):
    """Residual groups with MS-CAM, then 1x1, pixel shuffle and 3x3 to the image.

    The last three are linear without bias, so they run as one 3x3 convolution from C channels to
    the image's scale^2 phases, at the small size: equal to rounding, borders too (zero padding maps
    to zero padding), without the C * scale^2 channels between. Measured on 2 cores at 8x64x64:
    a training step of the first lite network went from 2.0 s to 1.4 s.
    """

    def __init__(self, config: MprnetMscamConfig) -> None:
        super().__init__()
        width = config.sr_features
        self.scale = config.scale
        self.groups = nn.Sequential(
            *(
                ResidualGroup(
                    [MultiScaleBlock(width, config.sr_reduction) for _ in range(config.sr_blocks)],
                    width,
                )
                for _ in range(config.sr_groups)
            )
        )
        self.conv = conv(width, width, 3)
        self.expand = conv(width, width * config.scale**2, 1)
        self.image = conv(width, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> phases (B, 3 * scale^2, H, W), to be pixel-shuffled."""
        x = F.leaky_relu(self.conv(x + self.groups(x)), 0.1)
        return F.conv2d(x, self._phase_kernel(), padding=1)

    def _phase_kernel(self) -> Tensor:
        """(3 * scale^2, C, 3, 3): the response of expand, shuffle, image to unit impulses."""
        width = self.conv.out_channels
        impulses = self.conv.weight.new_zeros(width, width, 3, 3)
        impulses[:, :, 1, 1] = torch.eye(width, dtype=impulses.dtype, device=impulses.device)
        response = self.image(F.pixel_shuffle(self.expand(impulses), self.scale))
        # A convolution's kernel is its impulse response turned by 180 degrees.
        return F.pixel_unshuffle(response, self.scale).transpose(0, 1).flip(2, 3)


class LearnedInterpolation(nn.Module):
    """x`scale` interpolation of an image by one learned 5x5 filter per output phase, equal for RGB.

    Starts as Keys' bicubic (a = -1/2), so that a network that adds it starts as bicubic.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.phases = nn.Conv2d(1, scale**2, 5, bias=False)
        taps = torch.arange(-2.0, 3.0)
        phases = (torch.arange(scale) + 0.5) / scale - 0.5
        t = (taps[None] - phases[:, None]).abs()  # (scale, 5)
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        line = torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))
        plane = line[:, None, :, None] * line[None, :, None, :]  # (scale, scale, 5, 5)
        with torch.no_grad():
            self.phases.weight.copy_(plane.reshape(-1, 1, 5, 5))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> phases (B, 3 * scale^2, H, W), to be pixel-shuffled."""
        batch, channels, height, width = image.shape
        planes = F.pad(image, (2, 2, 2, 2), mode="replicate").reshape(
            batch * channels, 1, height + 4, width + 4
        )
        phases: Tensor = self.phases(planes)
        return phases.reshape(batch, -1, height, width)


# Parts of a frame ----------------------------------------------------------------------------


def _cut(x: Tensor, line: int | None, dim: int) -> list[Tensor]:
    """Before and after `line`, or all of it when no line crosses."""
    return [x] if line is None else list(x.tensor_split((line,), dim))


def _map(
    function: Callable[..., list[Tensor]], *arguments: list[Tensor] | list[list[Tensor]]
) -> list[list[Tensor]]:
    """Call `function` on each part; each argument is a list over parts of a tensor or of levels.

    Parts of equal size go through as one batch: four quadrants of a 64x64 patch in one call.
    """
    calls = [
        [x for part in parts for x in (part if isinstance(part, list) else [part])]
        for parts in zip(*arguments, strict=True)
    ]
    if len({call[0].shape for call in calls}) > 1:
        return [function(*call) for call in calls]
    batched = function(*(torch.cat(tensors) for tensors in zip(*calls, strict=True)))
    return [list(levels) for levels in zip(*(x.chunk(len(calls)) for x in batched), strict=True)]


def _join(parts: list[list[Tensor]], dim: int) -> list[Tensor]:
    """Levels of the parts side by side -> levels of the whole."""
    return [torch.cat(levels, dim) for levels in zip(*parts, strict=True)]


# Network -------------------------------------------------------------------------------------


class MprnetMscam(nn.Module):
    """The network. Input (B, 3, H, W) in [0, 1], H and W multiples of 8 (of 4 in a tile's part)."""

    def __init__(self, config: MprnetMscamConfig) -> None:
        super().__init__()
        width, full = config.features, config.features + config.full_growth
        self.scale = config.scale
        self.activation = nn.PReLU()

        def block(channels: int) -> AttentionBlock:
            return AttentionBlock(channels, config.reduction, self.activation)

        self.shallow = nn.ModuleList(
            nn.Sequential(conv(3, width, 3), block(width)) for _ in range(LEVELS)
        )
        self.encoder1 = Encoder(config, block, crossed=False)
        self.decoder1 = Decoder(config, block)
        self.attention1 = SupervisedAttention(width)
        self.fuse2 = conv(2 * width, width, 3)
        self.encoder2 = Encoder(config, block, crossed=True)
        self.decoder2 = Decoder(config, block)
        self.attention2 = SupervisedAttention(width)
        self.fuse3 = conv(2 * width, full, 3)
        self.full = FullResolution(config, block)
        self.stage3_image = conv(full, 3, 3)
        self.transform_block = block(full)
        self.transform_conv = conv(full, config.sr_features, 3)
        self.upscaler = Upscaler(config)
        self.interpolation = LearnedInterpolation(config.scale) if config.image_skip else None
        if config.image_skip:
            nn.init.zeros_(self.upscaler.image.weight)

    def forward(self, image: Tensor, placement: Placement | None = None) -> Tensor:
        """Restore (B, 3, H, W) to (B, 3, scale*H, scale*W), unclamped; no side image is made."""
        return self._upscale(self._deblur(image, placement).features, image)

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Every output that a loss may name: `restored` and the images of the three stages."""
        deblurred = self._deblur(image, None)
        return {
            "restored": self._upscale(deblurred.features, image),
            "stage1": deblurred.stage1,
            "stage2": deblurred.stage2,
            "stage3": self.stage3_image(deblurred.features),
        }

    def _upscale(self, features: Tensor, image: Tensor) -> Tensor:
        x = self.activation(self.transform_conv(self.transform_block(features)))
        phases = self.upscaler(x)
        if self.interpolation is not None:
            phases = phases + self.interpolation(image)
        return F.pixel_shuffle(phases, self.scale)

    def _deblur(self, image: Tensor, placement: Placement | None) -> Outputs:
        row, column = _split_lines(image, placement)
        halves = _cut(image, row, -2)
        quadrants = [part for half in halves for part in _cut(half, column, -1)]
        across = len(quadrants) // len(halves)

        encoded = _map(lambda x: self.encoder1(self.shallow[0](x)), quadrants)
        encoded1 = [_join(encoded[n : n + across], -1) for n in range(0, len(encoded), across)]
        decoded1 = _map(self.decoder1, encoded1)
        gated, image1 = self.attention1(torch.cat([levels[0] for levels in decoded1], -2), image)

        def encode2(half: Tensor, gated: Tensor, *levels: Tensor) -> list[Tensor]:
            x = self.fuse2(torch.cat([self.shallow[1](half), gated], 1))
            return list(self.encoder2(x, levels[:LEVELS], levels[LEVELS:]))

        encoded2 = _join(_map(encode2, halves, _cut(gated, row, -2), encoded1, decoded1), -2)
        decoded2 = self.decoder2(*encoded2)
        gated, image2 = self.attention2(decoded2[0], image)

        x = self.fuse3(torch.cat([self.shallow[2](image), gated], 1))
        return Outputs(x + self.full(x, encoded2, decoded2), image1, image2)


def _split_lines(image: Tensor, placement: Placement | None) -> tuple[int | None, int | None]:
    """Row and column, in the tile, of the picture's middle; None where it lies outside."""
    height, width = image.shape[-2:]
    if placement is None:
        return height // 2, width // 2
    row = placement.picture_height // 2 - placement.top
    column = placement.picture_width // 2 - placement.left
    return row if 0 < row < height else None, column if 0 < column < width else None


# Registry ------------------------------------------------------------------------------------


def _detect(state: StateDict) -> bool:
    return {"fuse2.weight", "full.groups.0.conv.weight", "upscaler.expand.weight"} <= set(state)


def _infer_config(state: StateDict) -> MprnetMscamConfig:
    features = state["fuse2.weight"].shape[0]
    width = state["upscaler.conv.weight"].shape[0]
    attention = "encoder1.levels.0.0.attention.squeeze.weight"
    return MprnetMscamConfig(
        features=features,
        growth=state["encoder1.downs.0.weight"].shape[0] - features,
        full_growth=state["fuse3.weight"].shape[0] - features,
        reduction=features // state[attention].shape[0],
        level_blocks=count_blocks(state, "encoder1.levels.0"),
        full_blocks=count_blocks(state, "full.groups.0.blocks"),
        sr_features=width,
        sr_groups=count_blocks(state, "upscaler.groups"),
        sr_blocks=count_blocks(state, "upscaler.groups.0.blocks"),
        sr_reduction=width
        // state["upscaler.groups.0.blocks.0.attention.local_squeeze.weight"].shape[0],
        scale=math.isqrt(state["upscaler.expand.weight"].shape[0] // width),
        image_skip="interpolation.phases.weight" in state,
    )


def _bytes_per_pixel(config: MprnetMscamConfig) -> int:
    """Maps alive at the peak, counted in maps of stage 3's width.

    Measured growth of the process, TLSC on: 15 maps (lite, 768x768), 18 (paper, 256x256).
    """
    return 4 * 20 * (config.features + config.full_growth)


def _index(match: re.Match[str]) -> str:
    """The authors count stages, levels and groups from 1, we from 0."""
    return f"{match[1]}{int(match[2]) - 1}"


# The authors' names, in the order in which the rules apply.
_OFFICIAL_NAMES: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^(?!SRNet_reconstructor).*\.body\.1\.weight$", "activation.weight"),
    (r"^SRNet_before_rec\.1\.weight$", "activation.weight"),
    (r"\.CA\.conv_du\.0\.", ".attention.squeeze."),
    (r"\.CA\.conv_du\.2\.", ".attention.expand."),
    (r"\.body\.3\.(local|global)_att\.[01]\.", r".attention.\1_squeeze."),
    (r"\.body\.3\.(local|global)_att\.[23]\.", r".attention.\1_expand."),
    (r"^(SRNet_reconstructor\d+\.body\.\d+)\.body\.0\.", r"\1.conv1."),
    (r"^(SRNet_reconstructor\d+\.body\.\d+)\.body\.2\.", r"\1.conv2."),
    (r"^(?!SRNet_reconstructor|stage3_orsnet)(.*)\.body\.0\.weight$", r"\1.conv1.weight"),
    (r"^(?!SRNet_reconstructor|stage3_orsnet)(.*)\.body\.2\.weight$", r"\1.conv2.weight"),
    (r"^(stage3_orsnet\.orb\d\.body\.\d+)\.body\.0\.", r"\1.conv1."),
    (r"^(stage3_orsnet\.orb\d\.body\.\d+)\.body\.2\.", r"\1.conv2."),
    (r"^SRNet_reconstructor", "upscaler.groups."),
    (r"^stage3_orsnet\.orb", "full.groups."),
    (r"(\.groups\.)(\d+)", _index),
    (r"(\.groups\.\d+)\.body\.(\d+)\.weight$", r"\1.conv.weight"),
    (r"(\.groups\.\d+)\.body\.", r"\1.blocks."),
    (r"^stage3_orsnet\.conv_(enc|dec)1\.", r"full.from_\1.0.0."),
    (r"^stage3_orsnet\.conv_(enc|dec)2\.", r"full.from_\1.1.1."),
    (r"^stage3_orsnet\.conv_(enc|dec)3\.", r"full.from_\1.2.2."),
    (r"^stage3_orsnet\.up_(enc|dec)1\.up\.1\.", r"full.from_\1.1.0."),
    (r"^stage3_orsnet\.up_(enc|dec)2\.(\d)\.up\.1\.", r"full.from_\1.2.\2."),
    (r"\.from_enc\.", ".from_encoder."),
    (r"\.from_dec\.", ".from_decoder."),
    (r"^shallow_feat", "shallow."),
    (r"^(shallow\.)(\d)", _index),
    (r"^stage(\d)_(encoder|decoder)\.", r"\2\1."),
    (r"\.(?:encoder|decoder)_level", ".levels."),
    (r"\.skip_attn", ".skips."),
    (r"\.down12\.down\.1\.", ".downs.0."),
    (r"\.down23\.down\.1\.", ".downs.1."),
    (r"\.up21\.up\.1\.", ".ups.0."),
    (r"\.up32\.up\.1\.", ".ups.1."),
    (r"\.csff_enc", ".cross_encoder."),
    (r"\.csff_dec", ".cross_decoder."),
    (r"(\.(?:levels|skips|cross_encoder|cross_decoder)\.)(\d)", _index),
    (r"^sam12\.", "attention1."),
    (r"^sam23\.", "attention2."),
    (r"^(attention\d)\.conv1\.", r"\1.features."),
    (r"^(attention\d)\.conv2\.", r"\1.image."),
    (r"^(attention\d)\.conv3\.", r"\1.gate."),
    (r"^concat12\.", "fuse2."),
    (r"^concat23\.", "fuse3."),
    (r"^tail\.", "stage3_image."),
    (r"^SRNet_sr_cab\.", "transform_block."),
    (r"^SRNet_before_rec\.0\.", "transform_conv."),
    (r"^SRNet_HRconv\.", "upscaler.conv."),
    (r"^SRNet_upscale\.0\.", "upscaler.expand."),
    (r"^SRNet_upscale\.2\.", "upscaler.image."),
)


def _rename_official(name: str) -> str:
    for pattern, replacement in _OFFICIAL_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


MPRNET_MSCAM = Model(
    name="mprnet-mscam",
    task="motion deblurring and x4 super-resolution",
    scale=4,
    paper="Shoyan 2022; MPRNet: arXiv:2102.02808; MS-CAM: arXiv:2009.14082",
    code_license="Apache-2.0",
    config_type=MprnetMscamConfig,
    configs={
        "paper": MprnetMscamConfig(),
        "lite": MprnetMscamConfig(
            features=32,
            growth=64,
            full_growth=32,
            level_blocks=1,
            full_blocks=1,
            sr_groups=1,
            sr_blocks=2,
            image_skip=True,
        ),
    },
    build=MprnetMscam,
    detect=_detect,
    infer_config=_infer_config,
    rename_official=_rename_official,
    bytes_per_pixel=_bytes_per_pixel,
    size=SizeRequirement(multiple_of=8, minimum=8),
    placed=True,
)
