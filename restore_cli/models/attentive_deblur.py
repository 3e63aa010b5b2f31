"""attentive-deblur: coarse-to-fine motion deblurring with spatial and channel attention (x1).

Paper: Y. Xu et al., "Attentive deep network for blind motion deblurring on dynamic scenes",
Computer Vision and Image Understanding 205, 2021.
Code: written from a description of the published TensorFlow network (MIT); no line of the authors'
is used. Apache-2.0. Where paper and published network differ, the network is followed: channel
attention is computed from the spatially attended features, in series.

The paper's ablations are configs: separate weights for each size, and attentions that are left out
or in parallel. The paper does not say how parallel attentions are joined; here by a sum, or by a
1x1 convolution of both.

Data flow: one encoder-decoder, with the same weights at 1/4, 1/2 and full size. Its input is the
image and the enlarged result of the next smaller size; at the smallest size, the image twice.
Downscaling is TensorFlow 1's bilinear resizing without half-pixel centres, which for these factors
is plain subsampling.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import GlobalMean, add_gated, add_inplace, conv, zero_init
from restore_cli.models.spec import Model, PublishedFormat, SizeRequirement, StateDict
from restore_cli.models.state_dict import RenameRules, count_blocks, from_tensorflow, rename_keys

SCALES = 3
IN_SERIES, ADDED, CONCATENATED = range(3)  # spatial and channel attention


@dataclass(frozen=True, slots=True)
class AttentiveDeblurConfig:
    """Shape of the network; the defaults are the published one (6,907,057 parameters)."""

    width: int = 32  # channels at full size; doubled with each halving
    blocks: int = 3  # attention blocks per size of encoder or decoder
    reduction: int = 16  # channel reduction of both attentions
    kernel: int = 5  # kernel size of the convolutions
    image_skip: bool = False  # add the image at each size; not published
    shared: bool = True  # the same weights at all sizes
    channel: bool = True  # channel attention
    spatial_encoder: bool = True  # spatial attention in the encoder
    spatial_decoder: bool = True  # spatial attention in the decoder
    joined: int = IN_SERIES  # order of the attentions; the parallel ones need all of them


class AttentionBlock(nn.Module):
    """conv, ReLU, conv, spatial attention, channel attention, + input."""

    def __init__(self, width: int, config: AttentiveDeblurConfig, *, spatial: bool) -> None:
        super().__init__()
        narrow = width // config.reduction
        self.conv1 = conv(width, width, config.kernel, bias=True)
        self.conv2 = conv(width, width, config.kernel, bias=True)
        self.spatial, self.channel, self.joined = spatial, config.channel, config.joined
        if spatial:
            self.spatial_squeeze = conv(width, narrow, 1, bias=True)
            self.spatial_expand = conv(narrow, 1, 1, bias=True)
        if config.channel:
            self.mean = GlobalMean()
            self.channel_squeeze = conv(width, narrow, 1, bias=True)
            self.channel_expand = conv(narrow, width, 1, bias=True)
        if config.joined == CONCATENATED:
            self.join = conv(2 * width, width, 1, bias=True)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Map (B, C, H, W) to the same shape; `level` 0 is the coarsest size."""
        y = placed = self.conv2(F.relu_(self.conv1(x)))
        if self.spatial:
            placed = y * self.spatial_expand(F.relu_(self.spatial_squeeze(y))).sigmoid_()
        if not self.channel:
            return add_inplace(x, placed)
        seen = placed if self.joined == IN_SERIES else y
        gate = self.channel_expand(F.relu_(self.mean(seen, self.channel_squeeze, level=level)))
        if self.joined == IN_SERIES:
            return add_gated(x, placed, gate)
        chosen = y * gate.sigmoid_()
        if self.joined == ADDED:
            return x + placed + chosen
        return add_inplace(x, self.join(torch.cat([placed, chosen], 1)))


class Blocks(nn.ModuleList):
    """A sequence of attention blocks that passes them the level."""

    def __init__(self, width: int, config: AttentiveDeblurConfig, spatial: Sequence[bool]) -> None:
        super().__init__(AttentionBlock(width, config, spatial=flag) for flag in spatial)

    def forward(self, x: Tensor, level: int) -> Tensor:
        """Map (B, C, H, W) to the same shape; `level` 0 is the coarsest size."""
        for block in self:
            x = block(x, level)
        return x


class EncoderDecoder(nn.Module):
    """The encoder-decoder of one size, or of all sizes."""

    def __init__(self, config: AttentiveDeblurConfig) -> None:
        super().__init__()
        w, kernel = config.width, config.kernel
        encoder = [config.spatial_encoder] * config.blocks
        decoder = [config.spatial_decoder] * config.blocks
        self.kernel = kernel
        self.first = conv(6, w, kernel, bias=True)
        self.encode1 = Blocks(w, config, encoder)
        self.down1 = nn.Conv2d(w, 2 * w, kernel, stride=2)
        self.encode2 = Blocks(2 * w, config, encoder)
        self.down2 = nn.Conv2d(2 * w, 4 * w, kernel, stride=2)
        self.middle = Blocks(4 * w, config, encoder + decoder)
        self.up2 = nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1)
        self.decode2 = Blocks(2 * w, config, decoder)
        self.up1 = nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1)
        self.decode1 = Blocks(w, config, decoder)
        self.image = conv(w, 3, kernel, bias=True)
        # A parameter, so that the state dict shows whether the network adds the image.
        self.image_gain = nn.Parameter(torch.ones(1)) if config.image_skip else None
        if config.image_skip:
            zero_init(self.image)

    def restore(self, x: Tensor, level: int) -> Tensor:
        """Run one pass: (B, 6, h, w) to (B, 3, h, w); `level` 0 is the coarsest size."""
        image = x[:, :3]
        level1 = self.encode1(F.relu_(self.first(x)), level)
        level2 = self.encode2(F.relu_(self.down1(_pad_same(level1, self.kernel))), level)
        x = self.middle(F.relu_(self.down2(_pad_same(level2, self.kernel))), level)
        x = self.decode2(F.relu_(self.up2(x)) + level2, level)
        x = self.decode1(F.relu_(self.up1(x)) + level1, level)
        restored: Tensor = self.image(x)
        return restored if self.image_gain is None else restored + self.image_gain * image


class AttentiveDeblur(EncoderDecoder):
    """The network. Input (B, 3, H, W) in [0, 1], H and W multiples of 16."""

    def __init__(self, config: AttentiveDeblurConfig) -> None:
        """Raise a `ValueError` if the kernel size is even, or parallel attentions are missing."""
        if not config.kernel % 2:
            raise ValueError("attentive-deblur needs an odd kernel")
        both = config.channel and config.spatial_encoder and config.spatial_decoder
        if not IN_SERIES <= config.joined <= CONCATENATED or (config.joined and not both):
            raise ValueError(
                "attentive-deblur needs joined = 0, or 1 or 2 with channel and spatial attention"
            )
        super().__init__(config)
        coarser = range(0 if config.shared else SCALES - 1)
        self.coarser = nn.ModuleList(EncoderDecoder(config) for _ in coarser)
        # A buffer, so that the state dict shows that the attentions are added.
        self.register_buffer("added", torch.ones(1) if config.joined == ADDED else None)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (B, 3, H, W) to the same size, unclamped."""
        return self.outputs(image)["restored"]

    def outputs(self, image: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to `level0` at 1/4 of the size, `level1` at 1/2, and `restored`.

        `wanted` names those to return; None for all.
        """
        height, width = image.shape[-2:]
        images: list[Tensor] = []
        for level in range(SCALES):
            shrink = 2 ** (SCALES - 1 - level)
            size = (height // shrink, width // shrink)
            # No gradient flows from a larger size into a smaller one.
            earlier = images[-1].detach() if images else image
            seen = [resize_without_centres(x, *size) for x in (image, earlier)]
            images.append(self._at(torch.cat(seen, 1), level))
        named = zip(("level0", "level1", "restored"), images, strict=True)
        return {name: image for name, image in named if wanted is None or name in wanted}

    def _at(self, x: Tensor, level: int) -> Tensor:
        if not self.coarser:
            return self.restore(x, level)
        own: EncoderDecoder = [*self.coarser, self][level]
        return own.restore(x, 0)  # its statistics have one level only


def resize_without_centres(image: Tensor, height: int, width: int) -> Tensor:
    """Resize (B, C, H, W) like TensorFlow 1's bilinear, without antialiasing, to a size in pixels.

    Output pixel i lies at i * (old / new).
    """
    if image.shape[-2:] == (height, width):
        return image
    return _interpolate(_interpolate(image, width, -1), height, -2)


def _interpolate(x: Tensor, length: int, dim: int) -> Tensor:
    before = x.shape[dim]
    place = torch.arange(length, dtype=torch.float64) * (before / length)  # MPS has no float64
    low = place.floor().long()
    high = (low + 1).clamp(max=before - 1)
    low, high, weight = low.to(x.device), high.to(x.device), (place - low).to(x.dtype).to(x.device)
    weight = weight[:, None] if dim == -2 else weight
    return torch.lerp(x.index_select(dim, low), x.index_select(dim, high), weight)


def _pad_same(x: Tensor, kernel: int) -> Tensor:
    """Pad like TensorFlow's SAME, stride 2, on even sizes; for a kernel of 5: 1 before, 2 after."""
    before, after = (kernel - 2) // 2, (kernel - 1) // 2
    return F.pad(x, (before, after, before, after))


def _infer_config(state: StateDict) -> AttentiveDeblurConfig:
    width = state["first.weight"].shape[0]
    spatial = [f"{part}1.0.spatial_squeeze.weight" for part in ("encode", "decode")]
    squeezes = [*spatial, "encode1.0.channel_squeeze.weight"]
    squeeze = next((state[name] for name in squeezes if name in state), None)
    joined = CONCATENATED if "encode1.0.join.weight" in state else IN_SERIES
    return AttentiveDeblurConfig(
        width=width,
        blocks=count_blocks(state, "encode1"),
        # Without attention the default, which then has no effect.
        reduction=AttentiveDeblurConfig().reduction if squeeze is None else width // len(squeeze),
        kernel=state["first.weight"].shape[-1],
        image_skip="image_gain" in state,
        shared="coarser.0.first.weight" not in state,
        channel="encode1.0.channel_squeeze.weight" in state,
        spatial_encoder=spatial[0] in state,
        spatial_decoder=spatial[1] in state,
        joined=ADDED if "added" in state else joined,
    )


_OFFICIAL_NAMES: RenameRules = (
    (r"^g_net/", ""),
    (r"/weights$", ".weight"),
    (r"/biases$", ".bias"),
    (r"/blur_attention/conv2d-1", ".spatial_squeeze"),
    (r"/blur_attention/conv2d-2", ".spatial_expand"),
    (r"/channel_attention/conv2d-1", ".channel_squeeze"),
    (r"/channel_attention/conv2d-2", ".channel_expand"),
    (r"/conv2d-(\d)", r".conv\1"),
    (r"^enc1_1\.", "first."),
    (r"^enc2_1\.", "down1."),
    (r"^enc3_1\.", "down2."),
    (r"^enc([12])_(\d)\.", lambda match: f"encode{match[1]}.{int(match[2]) - 2}."),
    (r"^enc3_(\d)\.", lambda match: f"middle.{int(match[1]) - 2}."),
    (r"^dec([12])_4\.", r"up\1."),
    (r"^dec1_0\.", "image."),
    (r"^dec([12])_(\d)\.", lambda match: f"decode{match[1]}.{3 - int(match[2])}."),
    (r"^dec3_(\d)\.", lambda match: f"middle.{6 - int(match[1])}."),
)

ATTENTIVE_DEBLUR = Model(
    name="attentive-deblur",
    task="motion deblurring",
    scale=1,
    parameters=6_907_057,
    macs=5_225_289_216,
    paper="Xu et al., Computer Vision and Image Understanding 205, 2021",
    code_license="Apache-2.0",
    configs={
        "paper": AttentiveDeblurConfig(),
        "unshared": AttentiveDeblurConfig(shared=False),
        "no-attention": AttentiveDeblurConfig(
            channel=False, spatial_encoder=False, spatial_decoder=False
        ),
        "channel": AttentiveDeblurConfig(spatial_encoder=False, spatial_decoder=False),
        "spatial": AttentiveDeblurConfig(channel=False),
        "spatial-encoder": AttentiveDeblurConfig(channel=False, spatial_decoder=False),
        "spatial-decoder": AttentiveDeblurConfig(channel=False, spatial_encoder=False),
        "concatenated": AttentiveDeblurConfig(joined=CONCATENATED),
        "added": AttentiveDeblurConfig(joined=ADDED),
        "lite": AttentiveDeblurConfig(blocks=1, kernel=3, image_skip=True),
    },
    build=AttentiveDeblur,
    detect=lambda state: {"encode1.0.conv1.weight", "down2.weight", "image.weight"} <= set(state),
    infer_config=_infer_config,
    # In maps of `width` channels; measured growth of the process: 13 (paper, 512x512, TLSC on);
    # with added attentions 14.0, with concatenated ones 16.7 (384x384).
    bytes_per_pixel=lambda config: 4 * (18 if config.joined else 14) * config.width,
    size=SizeRequirement(multiple_of=16),
    published=(
        PublishedFormat(
            name="TensorFlow variables of RDAN",
            recognises=lambda state: any(key.startswith("g_net/") for key in state),
            convert=lambda state: rename_keys(from_tensorflow(state), _OFFICIAL_NAMES),
            train_size=(256, 256),
        ),
    ),
    tiny=AttentiveDeblurConfig(width=8, blocks=1, reduction=4),
    tiny_changes={"kernel": 3, "joined": ADDED},
)
