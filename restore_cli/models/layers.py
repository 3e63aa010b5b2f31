"""Layers that several networks share; shapes are (B, C, H, W) of the feature map."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Origin = tuple[int, int]  # row, column
NORM_EPSILON = 1e-5
STRIP_PIXELS = 2**16  # of the small image, per strip of `Upscaler4x`
STRIP_CONTEXT = 2  # rows next to a strip that its four convolutions see: 1 + 1/2 + 1/4 + 1/4


class GlobalStatistic(nn.Module):
    """Base of the layers whose result at a position depends on the whole map.

    They have no parameters. Their first argument is the map (B, C, H, W). At test time TLSC
    (`inference.tlsc`) replaces them by local counterparts, statistics of a window. Two arguments
    exist for these: `level` is the number of the size, from 0 up, in networks that run the same
    weights at several sizes; `origin` is the position of a tile's map in the whole picture's map.
    """


class GlobalMean(GlobalStatistic):
    """Mean over the whole map, then a linear 1x1 projection of it.

    The projection is an argument because the two linear maps commute: a local mean is cheaper after
    the projection, which reduces the channels, a global mean before it.
    """

    def forward(self, x: Tensor, projection: nn.Module, *, level: int = 0) -> Tensor:
        """Map (B, C, H, W) to (B, C', 1, 1)."""
        return projection(x.mean((2, 3), keepdim=True))


class GlobalCovariance(GlobalStatistic):
    """Second-order pooling: row means of the square root of the channels' covariance, projected.

    Dai et al., "Second-order Attention Network for Single Image Super-Resolution", CVPR 2019.
    """

    def forward(self, x: Tensor, projection: nn.Module, *, origin: Origin = (0, 0)) -> Tensor:
        """Map (B, C, H, W) to (B, C', 1, 1)."""
        with without_autocast(x):
            features = at_least_float32(x).flatten(2)
            centred = features - features.mean(-1, keepdim=True)
            covariance = centred @ centred.mT / centred.shape[-1]
            pooled = matrix_sqrt(covariance).mean(1)[..., None, None].to(x.dtype)
        return projection(pooled)


class InstanceNorm(GlobalStatistic):
    """(x - mean) / sqrt(variance + NORM_EPSILON) of each channel of each picture; no affine part.

    Unlike torch's, it accepts a map of one position (the result is 0).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        wide = at_least_float32(x)
        variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
        return ((wide - mean) * torch.rsqrt(variance + NORM_EPSILON)).to(x.dtype)


class GlobalAttention(GlobalStatistic):
    """Dot-product attention from every position to every position; scores are not scaled.

    The fused kernel keeps memory linear in the number of positions.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, origin: Origin = (0, 0)
    ) -> Tensor:
        """Map query, key and value, each (B, C, H, W), to (B, C, H, W)."""
        return attend(query, key, value)


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Let every position of `query` (B, C, h, w) attend to all of `key` and `value` (B, C, H, W).

    The result is (B, C, h, w); scores are not scaled.
    """
    q, k, v = (x.flatten(2).mT[:, None].contiguous() for x in (query, key, value))  # (B, 1, N, C)
    attended = F.scaled_dot_product_attention(q, k, v, scale=1.0)
    return attended[:, 0].mT.reshape(query.shape)


def matrix_sqrt(matrix: Tensor, steps: int = 5) -> Tensor:
    """Return the root of symmetric matrices (..., C, C) >= 0 by coupled Newton-Schulz iteration.

    As published with 5 `steps` (Dai et al. 2019). It has not converged for ill-conditioned matrices
    (20 % error on the test matrix), but networks are trained with it. A zero matrix gives zero.
    """
    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    scaled = matrix / trace.clamp_min(torch.finfo(matrix.dtype).tiny)
    three = 3 * torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverse = (three - scaled) / 2  # converges to the inverse of the root
    root = scaled @ inverse
    for _ in range(steps - 2):
        step = (three - inverse @ root) / 2
        root, inverse = root @ step, step @ inverse
    return root @ (three - inverse @ root) / 2 * trace.sqrt()


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Return a context without autocast on the device of `x` (any shape): products stay wide."""
    if torch.amp.is_autocast_available(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision of any shape to float32, for sums over many positions."""
    return x if x.dtype == torch.float64 else x.float()


def conv(inputs: int, outputs: int, kernel: int, *, bias: bool = False) -> nn.Conv2d:
    """Make a stride-1 convolution with zero padding that keeps the size.

    `inputs` and `outputs` are numbers of channels; `kernel` is its odd side in pixels.
    """
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the memory format of maps and weights: channels_last, except on MPS.

    Measured on 2 cores with one 64-channel 3x3 convolution at 180x320: 2.7 times the speed of NCHW.
    On MPS, channels_last has given wrong values (pytorch#174345, #180984).
    """
    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def add_inplace(x: Tensor, branch: Tensor) -> Tensor:
    """Return `x + branch`, equal shapes; overwrites `branch`, which must not be used afterwards.

    If their dtypes differ, as under autocast, the sum is a new tensor of the wider dtype.
    """
    in_place = branch.dtype == x.dtype and branch is not x  # an empty branch returns its input
    return branch.add_(x) if in_place else x + branch


def add_gated(x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    """Return `x` + `branch` * sigmoid(`gate`), each (B, C, H, W); `gate` is overwritten.

    Measured at 64x176x320 on 2 cores: 2.9 ms; separate sigmoid, product and sum take 6.1 ms.
    """
    return torch.addcmul(x, branch, gate.sigmoid_())


def upsample2x(x: Tensor) -> Tensor:
    """Map (B, C, H, W) to (B, C, 2H, 2W): bilinear x2, half-pixel centres."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def zero_init(layer: nn.Conv2d) -> None:
    """Make the layer's output zero, so that a network that adds its input starts as identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class LearnedInterpolation(nn.Module):
    """x`scale` interpolation of an image by one learned 5x5 filter per output phase, equal for RGB.

    Starts as Keys' bicubic (a = -1/2), so that a network that adds it starts as bicubic.
    """

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.phases = nn.Conv2d(1, scale**2, 5, bias=False)
        # Not on the meta device, where `arange` takes 2 s the first time.
        taps = torch.arange(-2.0, 3.0, device="cpu")
        phases = (torch.arange(scale, device="cpu") + 0.5) / scale - 0.5
        t = (taps[None] - phases[:, None]).abs()  # (scale, 5)
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        line = torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))
        plane = line[:, None, :, None] * line[None, :, None, :]  # (scale, scale, 5, 5)
        with torch.no_grad():
            self.phases.weight.copy_(plane.reshape(-1, 1, 5, 5))

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, 3, H, W) to phases (B, 3 * scale^2, H, W), to be pixel-shuffled."""
        batch, channels, height, width = image.shape
        planes = F.pad(image, (2, 2, 2, 2), mode="replicate").reshape(
            batch * channels, 1, height + 4, width + 4
        )
        phases: Tensor = self.phases(planes)
        return phases.reshape(batch, channels * phases.shape[1], height, width)


class ResidualBlock(nn.Module):
    """conv, LeakyReLU, conv, + input; with the default `slope` of 0 it is a ReLU."""

    def __init__(self, width: int, slope: float = 0.0) -> None:
        super().__init__()
        self.conv1 = conv(width, width, 3, bias=True)
        self.conv2 = conv(width, width, 3, bias=True)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        return add_inplace(x, self.conv2(F.leaky_relu_(self.conv1(x), self.slope)))


class Upscaler4x(nn.Module):
    """`blocks`, two pixel shuffles and two convolutions; LeakyReLU with slope 0.2 by default."""

    def __init__(self, width: int, blocks: nn.Module | None = None, up1_slope: float = 0.2) -> None:
        super().__init__()
        self.blocks = blocks or nn.Identity()
        self.up1 = conv(width, 4 * width, 3, bias=True)
        self.up2 = conv(width, 4 * width, 3, bias=True)
        self.conv = conv(width, width, 3, bias=True)
        self.image = conv(width, 3, 3, bias=True)
        self.up1_slope = up1_slope

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to an image (B, 3, 4H, 4W).

        Without gradients, what follows the blocks runs on strips of rows, so that of the maps at
        x4, most of the network's memory, only one strip's exist at once. Measured with `gfn`,
        config `lite`, at 768x768 on 2 cores: 1.3 instead of 3.7 GB, 5.5 instead of 7.3 s, and the
        same bits.
        """
        x = self.blocks(x)
        height, width = x.shape[-2:]
        traced = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if traced or height * width <= STRIP_PIXELS:
            return self._enlarge(x)
        rows = -(-height // -(-height * width // STRIP_PIXELS))
        restored: Tensor | None = None
        for top in range(0, height, rows):
            first, bottom = max(0, top - STRIP_CONTEXT), min(height, top + rows)
            strip = self._enlarge(x[..., first : bottom + STRIP_CONTEXT, :])
            if restored is None:
                restored = strip.new_empty(*strip.shape[:2], 4 * height, 4 * width)
            wanted = strip[..., 4 * (top - first) : 4 * (bottom - first), :]
            restored[..., 4 * top : 4 * bottom, :] = wanted
        assert restored is not None
        return restored

    def _enlarge(self, x: Tensor) -> Tensor:
        """Map features (B, C, H, W) to an image (B, 3, 4H, 4W)."""
        x = F.leaky_relu_(F.pixel_shuffle(self.up1(x), 2), self.up1_slope)
        x = F.leaky_relu_(F.pixel_shuffle(self.up2(x), 2), 0.2)
        return self.image(F.leaky_relu_(self.conv(x), 0.2))


def select_outputs(
    makers: Mapping[str, Callable[[], Tensor]], wanted: Collection[str] | None
) -> dict[str, Tensor]:
    """Make the wanted outputs by name, or all if `wanted` is None; unknown names are left out."""
    return {name: make() for name, make in makers.items() if wanted is None or name in wanted}
