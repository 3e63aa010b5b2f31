"""mprnet-mscam: joint motion deblurring and x4 super-resolution.

Paper: M. Shoyan, "Joint motion deblurring and super-resolution with multi-scale channel attention";
the deblurring part is that of `mprnet`, the attention Dai et al., "Attentional Feature Fusion"
(WACV 2021, arXiv:2009.14082, MS-CAM), here without bias and normalisation.
Code: written from a description of the network; no line of the authors' is used. Apache-2.0.
Where paper and published network differ, the network is followed: a convolution and a 1x1 between
the residual groups and the pixel shuffle.

Data flow, (B, C, H, W) with H, W of the input:

    mprnet's three stages -> features -> transformation
    upscaler: residual groups with multi-scale channel attention -> pixel shuffle -> image
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import (
    GlobalMean,
    LearnedInterpolation,
    add_gated,
    add_inplace,
    conv,
    select_outputs,
    zero_init,
)
from restore_cli.models.mprnet import (
    OFFICIAL_NAMES,
    DeblurringStages,
    MprnetConfig,
    ResidualGroup,
    bytes_per_pixel,
    has_deblurring_stages,
    infer_deblurring_config,
    one_less,
)
from restore_cli.models.spec import (
    Model,
    PublishedFormat,
    SizeRequirement,
    StateDict,
    TilePlacement,
)
from restore_cli.models.state_dict import RenameRules, count_blocks, rename_keys


@dataclass(frozen=True, slots=True)
class MprnetMscamConfig(MprnetConfig):
    """Shape of the network; the defaults are the published one (34,116,641 parameters)."""

    sr_features: int = 64  # width of the upscaler
    sr_groups: int = 17  # residual groups of the upscaler; 0 for none
    sr_blocks: int = 10  # blocks per residual group
    sr_reduction: int = 8  # channel reduction of multi-scale channel attention
    scale: int = 4
    image_skip: bool = False  # add a learned x4 interpolation of the input (not in the paper)


class MultiScaleAttention(nn.Module):
    """MS-CAM: input + x * sigmoid(local(x) + global(mean(x))), without bias and normalisation.

    Both paths are narrow 1x1 convolutions of the same maps, so they run as one convolution.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.mean = GlobalMean()
        self.identity = nn.Identity()
        self.local_squeeze = conv(width, width // reduction, 1)
        self.local_expand = conv(width // reduction, width, 1)
        self.global_squeeze = conv(width, width // reduction, 1)
        self.global_expand = conv(width // reduction, width, 1)

    def forward(self, x: Tensor, block_input: Tensor) -> Tensor:
        """Gate the first of two maps (B, C, H, W), and add the second; the same shape."""
        squeeze = torch.cat([self.local_squeeze.weight, self.global_squeeze.weight])
        expand = torch.cat([self.local_expand.weight, self.global_expand.weight], 1)
        local, whole = F.conv2d(x, squeeze).chunk(2, 1)
        whole = self.mean(whole, self.identity).expand_as(local)
        gate = F.conv2d(torch.cat([local, whole], 1).relu_(), expand)
        return add_gated(block_input, x, gate)


class MultiScaleBlock(nn.Module):
    """conv, ReLU, conv, MS-CAM, + input."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = conv(width, width, 3)
        self.conv2 = conv(width, width, 3)
        self.attention = MultiScaleAttention(width, reduction)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return self.attention(self.conv2(F.relu_(self.conv1(x))), x)


class Upscaler(nn.Module):
    """Residual groups with MS-CAM, then 1x1 convolution, pixel shuffle and 3x3 convolution.

    The last three are linear without bias, so they run as a single 3x3 convolution from C channels
    to the image's scale^2 phases, at the small size, without the C * scale^2 channels in between.
    The result is equal up to rounding, including borders (zero padding maps to zero padding).
    Measured on 2 cores at 8x64x64: a training step of the first lite network went from 2.0 s to
    1.4 s.
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
        """Map (B, C, H, W) to phases (B, 3 * scale^2, H, W), to be pixel-shuffled."""
        if len(self.groups):
            x = add_inplace(x, self.groups(x))
        x = F.leaky_relu_(self.conv(x), 0.1)
        return F.conv2d(x, self._phase_kernel(), padding=1)

    def _phase_kernel(self) -> Tensor:
        """Return (3 * scale^2, C, 3, 3): response of expand, shuffle, image to unit impulses."""
        width = self.conv.out_channels
        impulses = self.conv.weight.new_zeros(width, width, 3, 3)
        impulses[:, :, 1, 1] = torch.eye(width, dtype=impulses.dtype, device=impulses.device)
        response = self.image(F.pixel_shuffle(self.expand(impulses), self.scale))
        # A convolution's kernel is its impulse response rotated by 180 degrees.
        return F.pixel_unshuffle(response, self.scale).transpose(0, 1).flip(2, 3).contiguous()


class MprnetMscam(DeblurringStages):
    """The network. Input (B, 3, H, W) in [0, 1], H and W multiples of 8 (of 4 in a tile's part)."""

    def __init__(self, config: MprnetMscamConfig) -> None:
        super().__init__(config)
        full = config.features + config.full_growth
        self.scale = config.scale
        self.transform_block = self.block_maker(config)(full)
        self.transform_conv = conv(full, config.sr_features, 3)
        self.upscaler = Upscaler(config)
        self.interpolation = LearnedInterpolation(config.scale) if config.image_skip else None
        if config.image_skip:
            zero_init(self.upscaler.image)

    def forward(self, image: Tensor, placement: TilePlacement | None = None) -> Tensor:
        """Restore (B, 3, H, W) to (B, 3, scale*H, scale*W), unclamped, without auxiliary images."""
        return self._upscale(self.deblur(image, placement).features, image)

    def outputs(self, image: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to `restored` and the images of the three stages."""
        deblurred = self.deblur(image, None)
        return select_outputs(
            {
                "restored": lambda: self._upscale(deblurred.features, image),
                "stage1": lambda: deblurred.stage1,
                "stage2": lambda: deblurred.stage2,
                "stage3": lambda: self.stage3_image(deblurred.features),
            },
            wanted,
        )

    def _upscale(self, features: Tensor, image: Tensor) -> Tensor:
        x = self.activation(self.transform_conv(self.transform_block(features)))
        phases = self.upscaler(x)
        if self.interpolation is not None:
            phases = phases + self.interpolation(image)
        return F.pixel_shuffle(phases, self.scale)


def _infer_config(state: StateDict) -> MprnetMscamConfig:
    width = state["upscaler.conv.weight"].shape[0]
    squeeze = "upscaler.groups.0.blocks.0.attention.local_squeeze.weight"
    groups = count_blocks(state, "upscaler.groups")
    of_groups: dict[str, int] = {}  # without groups the defaults, which then have no effect
    if groups:
        of_groups = {
            "sr_blocks": count_blocks(state, "upscaler.groups.0.blocks"),
            "sr_reduction": width // state[squeeze].shape[0],
        }
    return MprnetMscamConfig(
        **dataclasses.asdict(infer_deblurring_config(state)),
        **of_groups,
        sr_features=width,
        sr_groups=groups,
        scale=math.isqrt(state["upscaler.expand.weight"].shape[0] // width),
        image_skip="interpolation.phases.weight" in state,
    )


# The upscaler's names come first; the rest are those of the deblurring part.
_OFFICIAL_NAMES: RenameRules = (
    (r"^SRNet_before_rec\.1\.weight$", "activation.weight"),
    (r"^SRNet_before_rec\.0\.", "transform_conv."),
    (r"^SRNet_sr_cab\.", "transform_block."),
    (r"^SRNet_HRconv\.", "upscaler.conv."),
    (r"^SRNet_upscale\.0\.", "upscaler.expand."),
    (r"^SRNet_upscale\.2\.", "upscaler.image."),
    (r"^(SRNet_reconstructor)(\d+)", one_less),
    (r"^SRNet_reconstructor(\d+)\.body\.\d+\.weight$", r"upscaler.groups.\1.conv.weight"),
    (r"^SRNet_reconstructor(\d+)\.body\.", r"upscaler.groups.\1.blocks."),
    (r"\.body\.3\.(local|global)_att\.[01]\.", r".attention.\1_squeeze."),
    (r"\.body\.3\.(local|global)_att\.[23]\.", r".attention.\1_expand."),
    *OFFICIAL_NAMES,
)

MPRNET_MSCAM = Model(
    name="mprnet-mscam",
    task="motion deblurring and x4 super-resolution",
    scale=4,
    parameters=34_116_641,
    macs=104_078_146_176,
    paper="Shoyan 2022; MPRNet: arXiv:2102.02808; MS-CAM: arXiv:2009.14082",
    code_license="Apache-2.0",
    configs={
        "paper": MprnetMscamConfig(),
        "baseline": MprnetMscamConfig(sr_groups=0),
        "rms-cab-120": MprnetMscamConfig(sr_groups=12),
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
    detect=lambda state: has_deblurring_stages(state) and "upscaler.expand.weight" in state,
    infer_config=_infer_config,
    bytes_per_pixel=bytes_per_pixel,
    size=SizeRequirement(multiple_of=8),
    overlap_grows=True,
    takes_placement=True,
    published=(
        PublishedFormat(
            name="MPRNet_SR of joint-motion-deblur-and-sr",
            recognises=lambda state: "SRNet_HRconv.weight" in state,
            convert=partial(rename_keys, rules=_OFFICIAL_NAMES),
            train_size=(64, 64),
        ),
    ),
    tiny=MprnetMscamConfig(
        features=8,
        growth=8,
        full_growth=8,
        level_blocks=1,
        full_blocks=1,
        sr_features=16,
        sr_groups=1,
        sr_blocks=1,
        image_skip=True,
    ),
    tiny_changes={"scale": 2},
)
