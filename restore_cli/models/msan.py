"""msan: multi-stage attentive network for motion deblurring (x1).

Paper: C. Guo et al., "Multi-stage attentive network for motion deblurring via binary cross-entropy
loss", Entropy 24(10), 2022.
Code: written from a description of the published network; no line of the authors' is used.
Apache-2.0. Where paper and published network differ, the network is followed: additive skips
between encoder and decoder, and a hidden feature that each stage passes to the next.

Data flow: four encoder-decoders of the same layout, without shared weights. The input of each is
the image, and from the previous stage its residual and its smallest features. The last residual is
added to the image. The attention of a stage spans the whole frame at 1/8 of its size, so every
output pixel depends on every input pixel, and tiles change the result. TLSC makes the attention
local; then `forward` needs the position of a tile. At 1280x720 on two CPU cores (one run), local
attention took 25.0 s, global attention 24.2 s.

`lite` has two stages and one residual block per group (1,582,696 parameters). The one before, of
two blocks after a pixel unshuffle by 2 and with a million parameters more, gained less on real blur
after more patches: docs/training-log.md, 2026-11-28.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from restore_cli.models.layers import GlobalAttention, Origin, ResidualBlock, conv
from restore_cli.models.spec import (
    Model,
    PublishedFormat,
    SizeRequirement,
    StateDict,
    TilePlacement,
    Tiling,
)
from restore_cli.models.state_dict import RenameRules, count_blocks, rename_keys

MULTIPLE = 8  # input pixels per position of the attention


@dataclass(frozen=True, slots=True)
class MsanConfig:
    """Shape of the network; the defaults are the published one (8,924,720 parameters)."""

    width: int = 32  # channels at full size; doubled with each halving
    blocks: int = 4  # residual blocks per group
    stages: int = 4
    attention: bool = True  # in every stage; off in the paper's ablation


class SelfAttention(nn.Module):
    """Every position attends to every other; the result is added with a gain.

    It runs at half the size of its input, between strided convolutions.

    At 1280x720 the matrix of scores, which the fused kernel avoids, would take 0.8 GB per stage.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width)
        self.query = conv(width, width, 1, bias=True)
        self.key = conv(width, width, 1, bias=True)
        self.value = conv(width, width, 1, bias=True)
        self.attention = GlobalAttention()
        self.up = nn.ConvTranspose2d(width, width, 4, stride=2, padding=1, groups=width)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, origin: Origin = (0, 0)) -> Tensor:
        """Map (B, C, H, W) to the same; `origin` is in positions of the attention."""
        small = self.down(x)
        attended = self.attention(
            self.query(small), self.key(small), self.value(small), origin=origin
        )
        return self.gain * self.up(attended) + x


class Stage(nn.Module):
    """One encoder-decoder."""

    def __init__(self, config: MsanConfig, inputs: int) -> None:
        super().__init__()
        w = config.width

        def group(width: int) -> nn.Sequential:
            return nn.Sequential(*(ResidualBlock(width) for _ in range(config.blocks)))

        self.first = conv(inputs, w, 3, bias=True)
        self.encode1, self.encode2, self.middle = group(w), group(2 * w), group(4 * w)
        self.down1 = nn.Conv2d(w, 2 * w, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1)
        self.attention = SelfAttention(4 * w) if config.attention else None
        self.up2 = nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1)
        self.decode2, self.decode1 = group(2 * w), group(w)
        self.residual = conv(w, 3, 3, bias=True)

    def forward(self, x: Tensor, earlier: Tensor | None, origin: Origin) -> tuple[Tensor, Tensor]:
        """Map images (B, 3 or 6, H, W), features (B, 4w, H/4, W/4) to a residual and features.

        `earlier` are the features of the stage before, or None; `origin` is as in `SelfAttention`.
        """
        level1 = self.encode1(self.first(x))
        level2 = self.encode2(self.down1(level1))
        smallest = self.down2(level2)
        if earlier is not None:
            smallest = smallest + earlier
        features = self.middle(smallest)
        x = features if self.attention is None else self.attention(features, origin)
        x = self.decode2(self.up2(x) + level2)
        x = self.decode1(self.up1(x) + level1)
        return self.residual(x), features


class Msan(nn.Module):
    """The network. Input (B, 3, H, W) in [0, 1], H and W multiples of 8."""

    def __init__(self, config: MsanConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(Stage(config, 6 if n else 3) for n in range(config.stages))

    def forward(self, image: Tensor, placement: TilePlacement | None = None) -> Tensor:
        """Restore (B, 3, H, W) to the same size, unclamped.

        `placement` is that of a tile in its picture; None for a whole picture.
        """
        return image + self._residuals(image, placement)[-1]

    def outputs(self, image: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """Return `restored` and images after earlier stages, `stage1`, ..., all (B, 3, H, W)."""
        images = [image + residual for residual in self._residuals(image, None)]
        names = [*(f"stage{n}" for n in range(1, len(images))), "restored"]
        named = zip(names, images, strict=True)
        return {name: image for name, image in named if wanted is None or name in wanted}

    def _residuals(self, image: Tensor, placement: TilePlacement | None) -> list[Tensor]:
        origin = (placement.top // MULTIPLE, placement.left // MULTIPLE) if placement else (0, 0)
        centred = image - 0.5
        residuals: list[Tensor] = []
        features: Tensor | None = None
        for stage in self.stages:
            seen = torch.cat([centred, *residuals[-1:]], 1)
            residual, features = stage(seen, features, origin)
            residuals.append(residual)
        return residuals


def _infer_config(state: StateDict) -> MsanConfig:
    return MsanConfig(
        width=state["stages.0.first.weight"].shape[0],
        blocks=count_blocks(state, "stages.0.middle"),
        stages=count_blocks(state, "stages"),
        attention="stages.0.attention.gain" in state,
    )


_OFFICIAL_NAMES: RenameRules = (
    (r"^edcoder(\d)\.", lambda match: f"stages.{int(match[1]) - 1}."),
    (r"\.layer1\.", ".first."),
    (r"\.layer2\.", ".encode1."),
    (r"\.layer3\.", ".down1."),
    (r"\.layer4\.", ".encode2."),
    (r"\.layer5\.", ".down2."),
    (r"\.layer6\.", ".middle."),
    (r"\.layer7\.", ".up2."),
    (r"\.layer8\.", ".decode2."),
    (r"\.layer9\.", ".up1."),
    (r"\.layer10\.", ".decode1."),
    (r"\.layer11\.", ".residual."),
    (r"\.sa\.gamma$", ".attention.gain"),
    (r"\.sa\.gconv\.", ".attention.down."),
    (r"\.sa\.degconv\.", ".attention.up."),
    (r"\.sa\.(query|key|value)_conv\.", r".attention.\1."),
)

MSAN = Model(
    name="msan",
    task="motion deblurring",
    scale=1,
    parameters=8_924_720,
    macs=6_515_752_960,
    paper="Guo et al., Entropy 24(10), 2022",
    code_license="Apache-2.0",
    configs={
        "paper": MsanConfig(),
        "no-attention": MsanConfig(attention=False),
        "lite": MsanConfig(blocks=1, stages=2),
    },
    build=Msan,
    detect=lambda state: (
        {"stages.0.encode1.0.conv1.weight", "stages.0.residual.weight"} <= set(state)
    ),
    infer_config=_infer_config,
    # In maps of `width` channels; measured growth of the process at 1280x720: 8.6 (paper; 8.9 with
    # local attention).
    bytes_per_pixel=lambda config: 4 * 10 * config.width,
    size=SizeRequirement(multiple_of=MULTIPLE),
    overlap=128,
    tiling=Tiling.DISCOURAGED,
    tiling_note="its attention spans the whole picture; --tlsc limits it to windows",
    takes_placement=True,
    published=(
        PublishedFormat(
            name="MSAN.pth",
            recognises=lambda state: "edcoder1.sa.gamma" in state,
            convert=partial(rename_keys, rules=_OFFICIAL_NAMES),
            train_size=(256, 256),
        ),
    ),
    tiny=MsanConfig(width=4, blocks=1, stages=2),
)
