"""mprnet: motion deblurring (x1), the deblurring part of mprnet-mscam.

Paper: Zamir et al., "Multi-Stage Progressive Image Restoration", CVPR 2021 (arXiv:2102.02808), as
changed by M. Shoyan for joint deblurring and super-resolution: with a long skip connection around
stage 3, and without adding the input to its image.
Code: written from a description of the network; no line of the authors' is used. Apache-2.0.
Where paper and published network differ, the network is followed: one block per skip.

Data flow, (B, C, H, W) with H, W of the input; c1, c2, c3 are the widths of the three levels:

    stage 1  four quadrants -> encoder;  two halves -> decoder -> supervised attention
    stage 2  two halves -> encoder, fed by stage 1;  whole -> decoder -> supervised attention
    stage 3  whole, full resolution only, fed by stage 2's encoder and decoder -> image

The halves and quadrants are those of the whole picture. A tile is split where their borders cross
it, so `forward` takes the tile's position.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import (
    GlobalMean,
    add_gated,
    add_inplace,
    conv,
    select_outputs,
    upsample2x,
)
from restore_cli.models.spec import (
    Model,
    PublishedFormat,
    SizeRequirement,
    StateDict,
    TilePlacement,
)
from restore_cli.models.state_dict import RenameRules, count_blocks, rename_keys

LEVELS = 3


@dataclass(frozen=True, slots=True)
class MprnetConfig:
    """Shape of the network; the defaults are the published one (20,127,073 parameters)."""

    features: int = 96  # width of level 1 of both U-Nets
    growth: int = 48  # added width per level down
    full_growth: int = 32  # width of stage 3 minus `features`
    reduction: int = 4  # channel reduction of channel attention
    level_blocks: int = 2  # attention blocks per level of an encoder or decoder
    full_blocks: int = 8  # attention blocks per group of stage 3

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the three levels, full resolution first."""
        return tuple(self.features + level * self.growth for level in range(LEVELS))


class Deblurred(NamedTuple):
    """Features of stage 3 and the images of stages 1 and 2."""

    features: Tensor
    stage1: Tensor
    stage2: Tensor


class ChannelAttention(nn.Module):
    """input + x * sigmoid(expand(relu(squeeze(mean(x))))), Zamir et al. fig. 3."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.mean = GlobalMean()
        self.squeeze = conv(width, width // reduction, 1)
        self.expand = conv(width // reduction, width, 1)

    def forward(self, x: Tensor, block_input: Tensor) -> Tensor:
        """Gate the first of two maps (B, C, H, W), and add the second; the same shape."""
        gate = self.expand(F.relu_(self.mean(x, self.squeeze)))
        return add_gated(block_input, x, gate)


class AttentionBlock(nn.Module):
    """conv, PReLU, conv, channel attention, + input. All blocks of a network share the PReLU."""

    def __init__(self, width: int, reduction: int, activation: nn.PReLU) -> None:
        super().__init__()
        self.conv1 = conv(width, width, 3)
        self.conv2 = conv(width, width, 3)
        self.attention = ChannelAttention(width, reduction)
        # In a tuple, so that the state dict has the shared slope once, not in each block.
        self._activation = (activation,)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.attention(self.conv2(self._activation[0](self.conv1(x))), x)


class ResidualGroup(nn.Module):
    """blocks, conv, + input."""

    def __init__(self, blocks: Sequence[nn.Module], width: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.conv = conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return add_inplace(x, self.conv(self.blocks(x)))


class SupervisedAttention(nn.Module):
    """Image of a stage, and its features gated by that image (Zamir et al. fig. 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = conv(width, width, 1)
        self.image = conv(width, 3, 1)
        self.gate = conv(3, width, 1)

    def forward(self, x: Tensor, degraded: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (B, C, H, W) and picture (B, 3, H, W) to gated features and an image."""
        image = self.image(x) + degraded
        return add_gated(x, self.features(x), self.gate(image)), image


BlockMaker = Callable[[int], AttentionBlock]


class Encoder(nn.Module):
    """Three levels of attention blocks; with `crossed`, the previous stage's features are added."""

    def __init__(self, config: MprnetConfig, block: BlockMaker, *, crossed: bool) -> None:
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
        """Map (B, c1, H, W) to features at H, H/2, H/4.

        `encoded` and `decoded` are an earlier stage's levels, which are added; the first has none.
        """
        levels: list[Tensor] = []
        for index, blocks in enumerate(self.levels):
            # A 2x2 mean is bilinear downscaling by 2.
            x = blocks(self.downs[index - 1](F.avg_pool2d(x, 2)) if index else x)
            if self.cross_encoder:
                x = add_inplace(x, self.cross_encoder[index](encoded[index]))
                x = add_inplace(x, self.cross_decoder[index](decoded[index]))
            levels.append(x)
        return levels


class Decoder(nn.Module):
    """From the smallest level up; the encoder's levels are added through one block each."""

    def __init__(self, config: MprnetConfig, block: BlockMaker) -> None:
        super().__init__()
        widths = config.widths
        self.levels = nn.ModuleList(
            nn.Sequential(*(block(width) for _ in range(config.level_blocks))) for width in widths
        )
        self.skips = nn.ModuleList(block(width) for width in widths[:-1])
        self.ups = nn.ModuleList(conv(b, a, 1) for a, b in pairwise(widths))

    def forward(self, *encoded: Tensor) -> list[Tensor]:
        """Map features (B, C, H, W), at H / 2 and H / 4, to the same sizes and widths."""
        levels = [self.levels[-1](encoded[-1])]
        for index in reversed(range(LEVELS - 1)):
            # The 1x1 convolution is first: it commutes with the interpolation, and costs a quarter.
            x = add_inplace(
                upsample2x(self.ups[index](levels[0])), self.skips[index](encoded[index])
            )
            levels.insert(0, self.levels[index](x))
        return levels


class FullResolution(nn.Module):
    """Stage 3: groups of attention blocks at full resolution, each followed by one U-Net level."""

    def __init__(self, config: MprnetConfig, block: BlockMaker) -> None:
        super().__init__()
        width = config.features + config.full_growth
        self.groups = nn.ModuleList(
            ResidualGroup([block(width) for _ in range(config.full_blocks)], width)
            for _ in range(LEVELS)
        )
        self.from_encoder = nn.ModuleList(self._lift(config, n, width) for n in range(LEVELS))
        self.from_decoder = nn.ModuleList(self._lift(config, n, width) for n in range(LEVELS))

    @staticmethod
    def _lift(config: MprnetConfig, level: int, width: int) -> nn.Sequential:
        """Make 1x1 convolutions from a level's width to `width`: one per upscaling, one last."""
        widths = config.widths[level::-1]
        steps = [conv(a, b, 1) for a, b in pairwise(widths)]
        return nn.Sequential(*steps, conv(config.features, width, 1))

    def forward(self, x: Tensor, encoded: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
        """Map (B, C, H, W) and the levels (B, C, H / 2^n, W / 2^n) of both to (B, C, H, W)."""
        for level, group in enumerate(self.groups):
            lifted = self.from_encoder[level](encoded[level])
            lifted = add_inplace(lifted, self.from_decoder[level](decoded[level]))
            for _ in range(level):
                lifted = upsample2x(lifted)
            x = add_inplace(lifted, group(x))
        return x


def _cut(x: Tensor, line: int | None, dim: int) -> list[Tensor]:
    """Return the parts before and after `line`, or the whole without a line."""
    return [x] if line is None else list(x.tensor_split((line,), dim))


def _map(
    function: Callable[..., list[Tensor]], *arguments: list[Tensor] | list[list[Tensor]]
) -> list[list[Tensor]]:
    """Call `function` on each part; each argument lists a tensor, or tensors by level, per part.

    Parts of equal size are batched: four quadrants of a 64x64 patch need one call.
    """
    calls = [
        [x for part in parts for x in (part if isinstance(part, list) else [part])]
        for parts in zip(*arguments, strict=True)
    ]
    if any(call[0].shape != calls[0][0].shape for call in calls):
        return [function(*call) for call in calls]
    batched = function(*(torch.cat(tensors) for tensors in zip(*calls, strict=True)))
    return [list(levels) for levels in zip(*(x.chunk(len(calls)) for x in batched), strict=True)]


def _join(parts: list[list[Tensor]], dim: int) -> list[Tensor]:
    """Concatenate the levels of the parts to the levels of the whole."""
    return [torch.cat(levels, dim) for levels in zip(*parts, strict=True)]


class DeblurringStages(nn.Module):
    """Three stages on (B, 3, H, W) in [0, 1], H and W multiples of 8 (of 4 in a tile's part)."""

    def __init__(self, config: MprnetConfig) -> None:
        super().__init__()
        width, full = config.features, config.features + config.full_growth
        self.activation = nn.PReLU()
        block = self.block_maker(config)
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

    def block_maker(self, config: MprnetConfig) -> BlockMaker:
        """Return a maker of attention blocks that share this network's one PReLU."""
        return lambda width: AttentionBlock(width, config.reduction, self.activation)

    def deblur(self, image: Tensor, placement: TilePlacement | None) -> Deblurred:
        """Run all three stages on (B, 3, H, W); `placement` is that of a tile in its picture."""
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
        return Deblurred(x + self.full(x, encoded2, decoded2), image1, image2)


class Mprnet(DeblurringStages):
    """The network: the image of stage 3 is the result."""

    def forward(self, image: Tensor, placement: TilePlacement | None = None) -> Tensor:
        """Restore (B, 3, H, W) to the same size, unclamped.

        `placement` is that of a tile in its picture; None for a whole picture.
        """
        return self.stage3_image(self.deblur(image, placement).features)

    def outputs(self, image: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return `restored`, and the images of the first two stages, all (B, 3, H, W)."""
        deblurred = self.deblur(image, None)
        return select_outputs(
            {
                "restored": lambda: self.stage3_image(deblurred.features),
                "stage1": lambda: deblurred.stage1,
                "stage2": lambda: deblurred.stage2,
            },
            wanted,
        )


def _split_lines(image: Tensor, placement: TilePlacement | None) -> tuple[int | None, int | None]:
    """Return row and column of the picture's middle in the tile; None if it is outside the tile."""
    height, width = image.shape[-2:]
    if placement is None:
        return height // 2, width // 2
    row = placement.picture_height // 2 - placement.top
    column = placement.picture_width // 2 - placement.left
    return row if 0 < row < height else None, column if 0 < column < width else None


def has_deblurring_stages(state: StateDict) -> bool:
    """Whether the weights include the three stages."""
    return {"fuse2.weight", "fuse3.weight", "full.groups.0.conv.weight"} <= set(state)


def infer_deblurring_config(state: StateDict) -> MprnetConfig:
    """Infer the config of the three stages from the shapes of their weights."""
    features = state["fuse2.weight"].shape[0]
    squeeze = "encoder1.levels.0.0.attention.squeeze.weight"
    return MprnetConfig(
        features=features,
        growth=state["encoder1.downs.0.weight"].shape[0] - features,
        full_growth=state["fuse3.weight"].shape[0] - features,
        reduction=features // state[squeeze].shape[0],
        level_blocks=count_blocks(state, "encoder1.levels.0"),
        full_blocks=count_blocks(state, "full.groups.0.blocks"),
    )


def bytes_per_pixel(config: MprnetConfig) -> int:
    """Estimate the peak memory per pixel in bytes, counted in maps of stage 3's width.

    Measured growth of the process with the upscaler, TLSC on: 15 maps (lite, 768x768), 18 maps
    (paper, 256x256).
    """
    return 4 * 20 * (config.features + config.full_growth)


def one_less(match: re.Match[str]) -> str:
    """Subtract one: the authors count stages, levels and groups from 1, we from 0."""
    return f"{match[1]}{int(match[2]) - 1}"


# The authors' names, in the order in which the rules apply.
OFFICIAL_NAMES: RenameRules = (
    (r"^(stage3_orsnet\.orb)(\d)", one_less),
    (r"^stage3_orsnet\.orb(\d)\.body\.\d+\.weight$", r"full.groups.\1.conv.weight"),
    (r"^stage3_orsnet\.orb(\d)\.body\.", r"full.groups.\1.blocks."),
    (r"^.*\.body\.1\.weight$", "activation.weight"),  # one slope under many names
    (r"\.body\.0\.", ".conv1."),
    (r"\.body\.2\.", ".conv2."),
    (r"\.CA\.conv_du\.0\.", ".attention.squeeze."),
    (r"\.CA\.conv_du\.2\.", ".attention.expand."),
    (r"^stage3_orsnet\.conv_(enc|dec)1\.", r"full.from_\1.0.0."),
    (r"^stage3_orsnet\.conv_(enc|dec)2\.", r"full.from_\1.1.1."),
    (r"^stage3_orsnet\.conv_(enc|dec)3\.", r"full.from_\1.2.2."),
    (r"^stage3_orsnet\.up_(enc|dec)1\.up\.1\.", r"full.from_\1.1.0."),
    (r"^stage3_orsnet\.up_(enc|dec)2\.(\d)\.up\.1\.", r"full.from_\1.2.\2."),
    (r"\.from_enc\.", ".from_encoder."),
    (r"\.from_dec\.", ".from_decoder."),
    (r"^shallow_feat", "shallow."),
    (r"^(shallow\.)(\d)", one_less),
    (r"^stage(\d)_(encoder|decoder)\.", r"\2\1."),
    (r"\.(?:encoder|decoder)_level", ".levels."),
    (r"\.skip_attn", ".skips."),
    (r"\.down12\.down\.1\.", ".downs.0."),
    (r"\.down23\.down\.1\.", ".downs.1."),
    (r"\.up21\.up\.1\.", ".ups.0."),
    (r"\.up32\.up\.1\.", ".ups.1."),
    (r"\.csff_enc", ".cross_encoder."),
    (r"\.csff_dec", ".cross_decoder."),
    (r"(\.(?:levels|skips|cross_encoder|cross_decoder)\.)(\d)", one_less),
    (r"^sam12\.", "attention1."),
    (r"^sam23\.", "attention2."),
    (r"^(attention\d)\.conv1\.", r"\1.features."),
    (r"^(attention\d)\.conv2\.", r"\1.image."),
    (r"^(attention\d)\.conv3\.", r"\1.gate."),
    (r"^concat12\.", "fuse2."),
    (r"^concat23\.", "fuse3."),
    (r"^tail\.", "stage3_image."),
)

MPRNET = Model(
    name="mprnet",
    task="motion deblurring",
    scale=1,
    parameters=20_127_073,
    macs=46_933_170_816,
    paper="arXiv:2102.02808, with the changes of Shoyan 2022",
    code_license="Apache-2.0",
    configs={
        "paper": MprnetConfig(),
        "lite": MprnetConfig(features=32, growth=64, full_growth=32, level_blocks=1, full_blocks=1),
    },
    build=Mprnet,
    detect=lambda state: has_deblurring_stages(state) and "upscaler.expand.weight" not in state,
    infer_config=infer_deblurring_config,
    bytes_per_pixel=bytes_per_pixel,
    size=SizeRequirement(multiple_of=8),
    overlap_grows=True,
    takes_placement=True,
    published=(
        PublishedFormat(
            name="MPRNet_deblur of joint-motion-deblur-and-sr (phase 1)",
            recognises=lambda state: (
                "shallow_feat1.0.weight" in state and "SRNet_HRconv.weight" not in state
            ),
            convert=partial(rename_keys, rules=OFFICIAL_NAMES),
            train_size=(64, 64),
            caution="the original MPRNet (CVPR 2021) has the same keys but is another network, "
            "whose weights give wrong pictures here",
        ),
    ),
    tiny=MprnetConfig(features=8, growth=8, full_growth=8, level_blocks=1, full_blocks=1),
)
