"""maxim-mscam: MAXIM followed by a super-resolution module with a learned gate, x4.

As in mprnet-mscam (Shoyan 2022), a deblurring module that was trained separately is followed by a
super-resolution module with multi-scale channel attention (MS-CAM, arXiv:2009.14082). The
deblurring module is `maxim` (arXiv:2201.02973). It makes nearly sharp pictures slightly worse, so
the second module also takes the degraded picture, and blends the two by a gate.
Code: our own. Apache-2.0.

Data flow, (B, C, H, W) with H, W of the input:

    MAXIM -> deblurred picture, features at 1, 1/2, 1/4
    degraded and deblurred picture, features -> fusion
      -> blocks at 1 -> blocks at 1/2 -> blocks at 1
      -> pixel shuffle, + interpolation of (degraded + gate * (deblurred - degraded))
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models import maxim
from restore_cli.models.layers import LearnedInterpolation, conv, select_outputs, zero_init
from restore_cli.models.maxim import Maxim, MaximConfig
from restore_cli.models.mprnet import ResidualGroup
from restore_cli.models.mprnet_mscam import MultiScaleBlock
from restore_cli.models.spec import FrozenPart, Model, SizeRequirement, StateDict, Tiling
from restore_cli.models.state_dict import count_blocks

DEBLUR = "deblur."  # prefix of MAXIM's parameters
# Divisors for MAXIM's last features at 1, 1/2, 1/4, near their standard deviations on 21 pictures:
# 0.009 to 0.022, 0.009 to 0.025, 0.015 to 0.027.
FEATURE_DEVIATIONS = (0.015, 0.014, 0.017)


@dataclass(frozen=True, slots=True)
class MaximMscamConfig(MaximConfig):
    """Shape of the network: MAXIM's, then the super-resolution module's."""

    sr_features: int = 64  # width at the input's resolution
    sr_coarse_features: int = 96  # width at half of it
    sr_first_blocks: int = 2
    sr_coarse_blocks: int = 4
    sr_last_blocks: int = 6
    sr_reduction: int = 8  # channel reduction of multi-scale channel attention
    scale: int = 4

    def deblurring(self) -> MaximConfig:
        """Return the config of MAXIM."""
        names = [field.name for field in dataclasses.fields(MaximConfig)]
        return MaximConfig(**{name: getattr(self, name) for name in names})


class Deblurred(NamedTuple):
    """Outputs of the first module for the second."""

    image: Tensor  # deblurred picture (B, 3, H, W), unclamped
    features: Sequence[Tensor]  # (B, C, H, W), (B, 2C, H/2, W/2), (B, 4C, H/4, W/4)


class Fusion(nn.Module):
    """Merges two pictures and features at three scales into one map."""

    def __init__(self, config: MaximMscamConfig) -> None:
        super().__init__()
        width = config.sr_features
        self.pictures = conv(6, width, 3, bias=True)
        self.features = nn.ModuleList(
            conv(config.channels(n), width, 1, bias=False) for n in range(maxim.SCALES)
        )

    def forward(self, image: Tensor, deblurred: Deblurred) -> Tensor:
        """Map (B, 3, H, W) and MAXIM's result to (B, C, H, W)."""
        maps = zip(self.features, deblurred.features, FEATURE_DEVIATIONS, strict=True)
        *finer, x = (project(features / deviation) for project, features, deviation in maps)
        for own in reversed(finer):
            x = own + F.interpolate(x, scale_factor=2, mode="nearest")
        return x + self.pictures(torch.cat([image, deblurred.image - image], 1))


class GatedUpscaler(nn.Module):
    """The super-resolution module; maps are (B, C, H, W)."""

    def __init__(self, config: MaximMscamConfig) -> None:
        super().__init__()
        width, half = config.sr_features, config.sr_coarse_features

        def blocks(count: int, width: int) -> list[nn.Module]:
            return [MultiScaleBlock(width, config.sr_reduction) for _ in range(count)]

        self.scale = config.scale
        self.fusion = Fusion(config)
        self.first = ResidualGroup(blocks(config.sr_first_blocks, width), width)
        self.down = nn.Conv2d(width, half, 2, stride=2)
        self.coarse = ResidualGroup(blocks(config.sr_coarse_blocks, half), half)
        self.up = conv(half, 4 * width, 1, bias=True)
        self.last = ResidualGroup(blocks(config.sr_last_blocks, width), width)
        self.gate = conv(width, 1, 3, bias=True)
        self.phases = conv(width, 3 * config.scale**2, 3, bias=True)
        self.interpolation = LearnedInterpolation(config.scale)
        zero_init(self.gate)  # the gate starts at 1/2
        zero_init(self.phases)

    def forward(self, image: Tensor, deblurred: Deblurred) -> Tensor:
        """Map (B, 3, H, W) and MAXIM's result to (B, 3, scale * H, scale * W), unclamped."""
        x = self.first(self.fusion(image, deblurred))
        x = x + F.pixel_shuffle(self.up(self.coarse(self.down(x))), 2)
        x = F.leaky_relu(self.last(x), 0.1)
        base = image + self.gate(x).sigmoid() * (deblurred.image - image)
        return F.pixel_shuffle(self.phases(x) + self.interpolation(base), self.scale)


class MaximMscam(nn.Module):
    """The network. Input (B, 3, H, W) in [0, 1], H and W multiples of 64."""

    def __init__(self, config: MaximMscamConfig) -> None:
        super().__init__()
        self.deblur = Maxim(config.deblurring())
        self.upscaler = GatedUpscaler(config)

    def forward(self, image: Tensor) -> Tensor:
        """Restore (B, 3, H, W) to (B, 3, scale * H, scale * W), unclamped."""
        return self.upscaler(image, self.deblurred(image))

    def deblurred(self, image: Tensor) -> Deblurred:
        """Return MAXIM's picture and features for (B, 3, H, W)."""
        last = self.deblur.run(image)[-1]
        planes = [x.permute(0, 3, 1, 2) for x in (last.images[0], *last.decoded)]
        return Deblurred(planes[0], planes[1:])

    def prepare(self, image: Tensor) -> dict[str, Tensor]:
        """Return MAXIM's outputs for (B, 3, H, W) by name, as `prepared` for `outputs`."""
        deblurred = self.deblurred(image)
        features = {f"features{n}": x for n, x in enumerate(deblurred.features)}
        return {"image": deblurred.image} | features

    def outputs(
        self,
        image: Tensor,
        wanted: Collection[str] | None = None,
        prepared: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to `restored`, and `deblurred` at the input's size.

        Args:
            image: the degraded picture; with `prepared`, sides may be multiples of 4.
            wanted: names, or None for all.
            prepared: outputs of `prepare` for the image, or crops of those for a larger image.
        """
        if prepared is None:
            deblurred = self.deblurred(image)
        else:
            features = [prepared[f"features{n}"] for n in range(maxim.SCALES)]
            deblurred = Deblurred(prepared["image"], features)
        return select_outputs(
            {
                "restored": lambda: self.upscaler(image, deblurred),
                "deblurred": lambda: deblurred.image,
            },
            wanted,
        )


def _infer_config(state: StateDict) -> MaximMscamConfig:
    deblurring = {k.removeprefix(DEBLUR): v for k, v in state.items() if k.startswith(DEBLUR)}
    width = state["upscaler.gate.weight"].shape[1]
    squeeze = "upscaler.last.blocks.0.attention.local_squeeze.weight"
    return MaximMscamConfig(
        **dataclasses.asdict(maxim.infer_config(deblurring)),
        sr_features=width,
        sr_coarse_features=state["upscaler.down.weight"].shape[0],
        sr_first_blocks=count_blocks(state, "upscaler.first.blocks"),
        sr_coarse_blocks=count_blocks(state, "upscaler.coarse.blocks"),
        sr_last_blocks=count_blocks(state, "upscaler.last.blocks"),
        sr_reduction=width // state[squeeze].shape[0],
        scale=math.isqrt(state["upscaler.phases.weight"].shape[0] // 3),
    )


MAXIM_MSCAM = Model(
    name="maxim-mscam",
    task="motion deblurring and x4 super-resolution",
    scale=4,
    parameters=23_748_502,
    macs=13_111_261_184,
    paper="MAXIM: arXiv:2201.02973; MS-CAM: arXiv:2009.14082; the order: Shoyan 2022",
    code_license="Apache-2.0",
    configs={
        "base": MaximMscamConfig(),
    },
    build=MaximMscam,
    detect=lambda state: (
        "upscaler.fusion.pictures.weight" in state and "upscaler.gate.weight" in state
    ),
    infer_config=_infer_config,
    bytes_per_pixel=lambda config: 7_500 * config.width // 32,
    size=SizeRequirement(multiple_of=64),
    tiling=Tiling.WINDOWS,
    # The size of the training patches. Gain over bicubic on 7 real frames of 240x135: 2.78 dB in
    # windows of 128 (2.75 with an overlap of 16 px), 2.65 dB in windows of 192, 2.60 dB whole.
    largest_tile=128,
    overlap=32,
    frozen_part=FrozenPart(name=DEBLUR.removesuffix("."), multiple_of=2 ** (maxim.SCALES - 1)),
    tiny=MaximMscamConfig(
        stages=1,
        width=4,
        large_window=4,
        small_window=2,
        groups=1,
        bottlenecks=1,
        sr_features=16,
        sr_coarse_features=8,
        sr_first_blocks=1,
        sr_coarse_blocks=1,
        sr_last_blocks=1,
    ),
    tiny_changes={"sr_reduction": 4, "scale": 2},
)
