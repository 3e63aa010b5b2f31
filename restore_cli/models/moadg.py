"""moadg: decoupling and multi-order attention drop-out gating for deblurring with x4 enlargement.

Paper: H. Chu, Y. Zhang, H. Liu, "Joint image deblurring and super-resolution by decoupling and
multi-order attention drop-out gating", 2022.
Code: the authors published none; written from the paper. Apache-2.0.

Data flow, (B, C, H, W) with H, W of the input:

    deblurring      conv, two halvings, residual blocks, two doublings -> features (-> small image)
    enlarging       conv, residual dense blocks, conv -> features (-> large blurry image)
    attention       of each branch's features: first order (mean), second order (covariance);
                    third order: first order on both second orders
    gate            five routes, in training each dropped with probability 1/2; concatenated
    reconstruction  routes and image -> residual dense blocks -> x4 -> image

Choices made here where the paper is not specific:

- Width 64, growth 64, five 3x3 convolutions per dense block as in ESRGAN (four with LeakyReLU 0.2,
  one linear, times 0.2, plus input): the text counts "five convolution operations with four
  LeakyReLU layers", and the resulting 25.9 million parameters are close to its 27 million.
- First convolution 7x7 in the deblurring branch, transposed convolutions 4x4, instance norm without
  affine part after every convolution except the image's: as in DeblurGAN's generator, which the
  paper names, but 4x4 instead of 3x3, because 4 is a multiple of the stride. Zero padding, as
  everywhere else here.
- Channel reduction 16 and biases in the attention: as in RCAN and SAN, which the paper builds on.
- Second order: SAN's square root, five Newton-Schulz steps on the covariance of the centred
  features, C x C, not N x N; no centre crop to 1000 pixels, which local statistics replace.
- The exponent of the covariance is 1/2, as in SAN.
- A 3x3 convolution reduces the concatenated routes to the width before the dense blocks: without it
  the network would have more than 70 million parameters.
- Gate: each route of each picture is kept with probability 1/2 and then doubled, so that the
  expected input of the reconstruction is the same in training as at test time, when all routes are
  kept. If all are dropped (1 in 32), the reconstruction sees only the image, which is not a route.
- No long skip connections around the dense blocks, which the paper does not draw.

The paper's ablations are configs: no third order, no drop-out, one branch alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import (
    GlobalCovariance,
    GlobalMean,
    GlobalStatistic,
    InstanceNorm,
    LearnedInterpolation,
    Origin,
    Upscaler4x,
    add_inplace,
    conv,
    select_outputs,
    zero_init,
)
from restore_cli.models.spec import Model, SizeRequirement, StateDict, TilePlacement
from restore_cli.models.state_dict import count_blocks

SLOPE = 0.2  # slope of every LeakyReLU
DENSE_SCALE = 0.2  # factor of the residual of a dense block
KEEP = 0.5  # probability that a route is kept in training
MULTIPLE = 4


@dataclass(frozen=True, slots=True)
class MoadgConfig:
    """Shape of the network; the defaults are our reading of the paper (25,907,233 parameters)."""

    width: int = 64  # channels at the input's size; doubled with each halving
    growth: int = 64  # channels that each convolution of a dense block adds
    deblur_blocks: int = 9  # residual blocks at a quarter of the size; 0: no deblurring branch
    sr_blocks: int = 8  # dense blocks of the enlarging branch; 0: no such branch
    fusion_blocks: int = 16  # dense blocks of the reconstruction
    reduction: int = 16  # channel reduction of every attention
    third_order: bool = True  # needs both branches
    gating: bool = True  # drop routes in training
    image_skip: bool = False  # add the interpolated input; not in the paper


class DenseBlock(nn.Module):
    """Five convolutions, each on all previous outputs; 0.2 times the last, + input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            conv(width + n * growth, growth if n < 4 else width, 3, bias=True) for n in range(5)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        seen = x
        for layer in self.convs[:-1]:
            seen = torch.cat([seen, F.leaky_relu_(layer(seen), SLOPE)], 1)
        return torch.add(x, self.convs[-1](seen), alpha=DENSE_SCALE)


class ResidualBlock(nn.Module):
    """conv, norm, LeakyReLU, conv, norm, + input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv(width, width, 3, bias=True)
        self.norm1 = InstanceNorm()
        self.conv2 = conv(width, width, 3, bias=True)
        self.norm2 = InstanceNorm()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        y = F.leaky_relu_(self.norm1(self.conv1(x)), SLOPE)
        return add_inplace(x, self.norm2(self.conv2(y)))


class ChannelAttention(nn.Module):
    """x * sigmoid(expand(relu(squeeze(statistic of x)))).

    Of first order, as in RCAN, with `GlobalMean`; of second, as in SAN, with `GlobalCovariance`.
    """

    def __init__(self, width: int, reduction: int, statistic: GlobalStatistic) -> None:
        super().__init__()
        self.statistic = statistic
        self.squeeze = conv(width, width // reduction, 1, bias=True)
        self.expand = conv(width // reduction, width, 1, bias=True)

    def forward(self, x: Tensor, **place: Origin) -> Tensor:
        """Map (B, C, H, W) to the same; the second order takes `origin` in the whole picture."""
        gate = self.expand(F.relu_(self.statistic(x, self.squeeze, **place)))
        return x * gate.sigmoid_()


class Deblurring(nn.Module):
    """Encoder and decoder on the small image, with normalisation."""

    output = "deblurred"

    def __init__(self, config: MoadgConfig) -> None:
        super().__init__()
        w = config.width
        self.first = conv(3, w, 7, bias=True)
        self.downs = nn.ModuleList(
            nn.Conv2d(w << n, w << (n + 1), 3, stride=2, padding=1) for n in range(2)
        )
        self.blocks = nn.Sequential(*(ResidualBlock(4 * w) for _ in range(config.deblur_blocks)))
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(w << (n + 1), w << n, 4, stride=2, padding=1) for n in (1, 0)
        )
        self.norms = nn.ModuleList(InstanceNorm() for _ in range(5))
        self.image1 = conv(w, w, 3, bias=True)
        self.image2 = conv(w, 3, 3, bias=True)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, C, H, W)."""
        norms = iter(self.norms)
        x = image
        for layer in (self.first, *self.downs):
            x = F.leaky_relu_(next(norms)(layer(x)), SLOPE)
        x = self.blocks(x)
        for layer in self.ups:
            x = F.leaky_relu_(next(norms)(layer(x)), SLOPE)
        return x

    def image(self, features: Tensor) -> Tensor:
        """Map features (B, C, H, W) to the deblurred small image (B, 3, H, W)."""
        return self.image2(F.leaky_relu_(self.image1(features), SLOPE))


class Enlarging(nn.Module):
    """Residual dense blocks on the small image, without normalisation."""

    output = "enlarged"

    def __init__(self, config: MoadgConfig) -> None:
        super().__init__()
        w = config.width
        self.first = conv(3, w, 3, bias=True)
        self.blocks = nn.Sequential(
            *(DenseBlock(w, config.growth) for _ in range(config.sr_blocks))
        )
        self.last = conv(w, w, 3, bias=True)
        self.upscaler = Upscaler4x(w)

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, C, H, W)."""
        return self.last(self.blocks(self.first(image)))

    def image(self, features: Tensor) -> Tensor:
        """Map features (B, C, H, W) to the large blurry image (B, 3, 4H, 4W)."""
        return self.upscaler(features)


class Reconstruction(nn.Module):
    """Routes and image -> dense blocks -> large image."""

    def __init__(self, config: MoadgConfig, inputs: int) -> None:
        super().__init__()
        self.reduce = conv(inputs, config.width, 3, bias=True)
        self.blocks = nn.Sequential(
            *(DenseBlock(config.width, config.growth) for _ in range(config.fusion_blocks))
        )
        self.upscaler = Upscaler4x(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map routes and image (B, inputs, H, W) to an image (B, 3, 4H, 4W)."""
        return self.upscaler(self.blocks(self.reduce(x)))


class Moadg(nn.Module):
    """The network. Input (B, 3, H, W) in [0, 1], H and W multiples of 4.

    In training mode `forward` drops routes at random, with the device's torch generator.
    """

    keep_probability: Tensor | None

    def __init__(self, config: MoadgConfig) -> None:
        """Raise a `ValueError` if there is no branch, or a third order without both branches."""
        super().__init__()
        branches: dict[str, Deblurring | Enlarging] = {}
        if config.deblur_blocks:
            branches["deblurring"] = Deblurring(config)
        if config.sr_blocks:
            branches["enlarging"] = Enlarging(config)
        if len(branches) < 1 + config.third_order:
            raise ValueError("moadg needs deblur_blocks or sr_blocks, and both with third_order")
        width, reduction = config.width, config.reduction
        self.branches = nn.ModuleDict(branches)
        self.first_order = nn.ModuleDict(
            {name: ChannelAttention(width, reduction, GlobalMean()) for name in branches}
        )
        self.second_order = nn.ModuleDict(
            {name: ChannelAttention(width, reduction, GlobalCovariance()) for name in branches}
        )
        third = ChannelAttention(2 * width, reduction, GlobalMean()) if config.third_order else None
        self.third_order = third
        routes = 2 * len(branches) + 2 * config.third_order  # in widths
        self.reconstruction = Reconstruction(config, routes * config.width + 3)
        # A buffer, so that the state dict shows whether the network drops routes.
        self.register_buffer("keep_probability", torch.tensor(KEEP) if config.gating else None)
        self.interpolation = LearnedInterpolation(4) if config.image_skip else None
        if config.image_skip:
            zero_init(self.reconstruction.upscaler.image)

    def forward(self, image: Tensor, placement: TilePlacement | None = None) -> Tensor:
        """Restore (B, 3, H, W) to (B, 3, 4H, 4W), unclamped, without auxiliary images."""
        return self._restore(image, self._features(image), placement)

    def outputs(self, image: Tensor, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
        """Map (B, 3, H, W) to `restored`, the small `deblurred`, the blurry `enlarged`.

        `wanted` names those to return; None for all.
        """
        features = self._features(image)
        makers: dict[str, Callable[[], Tensor]] = {
            "restored": lambda: self._restore(image, features, None)
        }
        for name, x in features.items():
            branch = self.branches[name]
            image_of: Callable[[Tensor], Tensor] = branch.image  # type: ignore[assignment]
            makers[str(branch.output)] = partial(image_of, x)
        return select_outputs(makers, wanted)

    def _features(self, image: Tensor) -> dict[str, Tensor]:
        return {name: branch(image) for name, branch in self.branches.items()}

    def _restore(
        self, image: Tensor, features: Mapping[str, Tensor], placement: TilePlacement | None
    ) -> Tensor:
        restored: Tensor = self.reconstruction(self._routes(image, features, placement))
        if self.interpolation is not None:
            restored = add_inplace(restored, F.pixel_shuffle(self.interpolation(image), 4))
        return restored

    def _routes(
        self, image: Tensor, features: Mapping[str, Tensor], placement: TilePlacement | None
    ) -> Tensor:
        """Return the attended features of all orders and the image, side by side."""
        origin = (placement.top, placement.left) if placement else (0, 0)
        first = [self.first_order[name](x) for name, x in features.items()]
        second = [self.second_order[name](x, origin=origin) for name, x in features.items()]
        third = []
        if self.third_order is not None:
            third = [self.third_order(torch.cat(second, 1))]
        return torch.cat([*self._gated([*first, *second, *third]), image], 1)

    def _gated(self, routes: list[Tensor]) -> list[Tensor]:
        """In training, drop or scale up each route of each picture; else return them unchanged."""
        if not self.training or self.keep_probability is None:
            return routes
        keep = self.keep_probability
        shape = (len(routes), len(routes[0]), 1, 1, 1)  # routes, pictures
        gates = torch.bernoulli(keep.expand(shape)) / keep
        return [route * gate for route, gate in zip(routes, gates, strict=True)]


def _infer_config(state: StateDict) -> MoadgConfig:
    width = state["reconstruction.reduce.weight"].shape[0]
    branch = "deblurring" if "branches.deblurring.first.weight" in state else "enlarging"
    squeeze = f"first_order.{branch}.squeeze.weight"
    return MoadgConfig(
        width=width,
        growth=state["reconstruction.blocks.0.convs.0.weight"].shape[0],
        deblur_blocks=count_blocks(state, "branches.deblurring.blocks"),
        sr_blocks=count_blocks(state, "branches.enlarging.blocks"),
        fusion_blocks=count_blocks(state, "reconstruction.blocks"),
        reduction=width // state[squeeze].shape[0],
        third_order="third_order.squeeze.weight" in state,
        gating="keep_probability" in state,
        image_skip="interpolation.phases.weight" in state,
    )


MOADG = Model(
    name="moadg",
    task="motion deblurring and x4 super-resolution",
    scale=4,
    parameters=25_907_233,
    macs=64_194_088_960,
    paper="Chu, Zhang, Liu 2022: decoupling and multi-order attention drop-out gating",
    code_license="Apache-2.0",
    configs={
        "paper": MoadgConfig(),
        "no-third-order": MoadgConfig(third_order=False),
        "no-gating": MoadgConfig(gating=False),
        # The text joins first and second order of a single branch directly, without the gate.
        "deblurring-alone": MoadgConfig(sr_blocks=0, third_order=False, gating=False),
        "enlarging-alone": MoadgConfig(deblur_blocks=0, third_order=False, gating=False),
        "lite": MoadgConfig(
            width=32,
            growth=16,
            deblur_blocks=2,
            sr_blocks=2,
            fusion_blocks=3,
            reduction=8,
            image_skip=True,
        ),
    },
    build=Moadg,
    detect=lambda state: (
        "reconstruction.reduce.weight" in state
        and any(key.startswith("second_order.") for key in state)
    ),
    infer_config=_infer_config,
    # In maps of `width` channels; measured growth of the process, TLSC on: 35 to 50 (paper,
    # 384x384), 30 (lite, 768x768).
    bytes_per_pixel=lambda config: 4 * 48 * config.width,
    size=SizeRequirement(multiple_of=MULTIPLE),
    # Each of several consecutive norms extends the receptive field by a local window. Values that
    # differ by more than 1/255 between tiled and whole (random weights of `lite`, 320x800 input):
    # 4 % with an overlap of 64 px, 0.1 % with 128 px, 0.03 % with 160 px, 0.0003 % with 192 px.
    overlap=192,
    overlap_grows=True,
    takes_placement=True,
    tiny=MoadgConfig(width=8, growth=4, deblur_blocks=1, sr_blocks=1, fusion_blocks=1, reduction=4),
)
