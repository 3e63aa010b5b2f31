"""Layers of MAXIM; every map is (B, H, W, C).

Layer norms and dense layers take such maps directly, convolutions take a channels-last view, so
only the position mixing copies them. For the paper and names, see `maxim`.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import GlobalMean, add_gated

_GELU_SCALE = math.sqrt(2 / math.pi)


class Conv(nn.Conv2d):
    """A convolution of a (B, H, W, C) map, whose permutation is a channels-last map."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H', W', C')."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Up(nn.ConvTranspose2d):
    """Transposed 2x2 convolution of stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2, stride=2)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (B, H, W, C) to (B, 2H, 2W, C')."""
        return super().forward(x.permute(0, 3, 1, 2), output_size).permute(0, 2, 3, 1)


def conv3(inputs: int, outputs: int) -> Conv:
    """Make a 3x3 convolution with zero padding, from `inputs` to `outputs` channels."""
    return Conv(inputs, outputs, 3, padding=1)


def norm(channels: int) -> nn.LayerNorm:
    """Make a layer norm over the channels of each position."""
    return nn.LayerNorm(channels, eps=1e-6)


def gelu(x: Tensor) -> Tensor:
    """Apply GELU, any shape, by its tanh approximation; with erf, published outputs differ by 3e-3.

    Computed as the equal x * sigmoid(2 y), in place if no gradient is needed. Measured on two cores
    (AMD, AVX2), the whole network at 384x384: 0.92 times the time with torch's. Running the dense
    layers as 1x1 convolutions gains nothing (0.96 to 1.0).
    """
    if torch.is_grad_enabled() or x.dtype != torch.float32:
        return F.gelu(x, approximate="tanh")
    slope = x.new_full((), 2 * _GELU_SCALE)
    gate = torch.addcmul(slope, x, x, value=2 * _GELU_SCALE * 0.044715).mul_(x)
    return x.mul_(gate.sigmoid_())


class Dense(nn.Linear):
    """A dense layer over the channels; with `activated`, its output goes through `gelu`.

    When restoring on a CPU, oneDNN's kernel adds the bias while the sums are in registers, and with
    AVX-512 applies GELU there too. Measured on one core (AMD EPYC, 64 to 64 channels, 65,536
    positions): 12.4 -> 8.4 ms in float32, 11.3 -> 5.0 ms in bfloat16. With AVX2, GELU inside the
    kernel is slower than after it (18 against 13 ms), the bias alone faster (7.8 -> 5.4 ms).
    """

    def __init__(self, inputs: int, outputs: int, *, activated: bool = False) -> None:
        super().__init__(inputs, outputs)
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C')."""
        dtype = _dtype_of(x)
        if _fuses(x, dtype):
            return self._fused(x.to(dtype), self.weight, self.bias)
        result = super().forward(x)
        return gelu(result) if self.activated else result

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (..., C) to the halves of the output, (..., C' / 2) each.

        Two products make two contiguous maps; layer norms and elementwise operations would copy, or
        read slowly, the halves of one map.
        """
        dtype = _dtype_of(x)
        if not _fuses(x, dtype):
            first, second = self(x).chunk(2, -1)
            return first, second
        x = x.to(dtype)
        parts = zip(self.weight.chunk(2), self.bias.chunk(2), strict=True)
        first, second = (self._fused(x, weight, bias) for weight, bias in parts)
        return first, second

    def _fused(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        inside = self.activated and _has_avx512()
        after, algorithm = ("gelu", "tanh") if inside else ("none", "")
        given = (x, weight.to(x.dtype), bias.to(x.dtype))
        result: Tensor = torch.ops.mkldnn._linear_pointwise(*given, after, [], algorithm)
        return gelu(result) if self.activated and not inside else result


def _dtype_of(x: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _fuses(x: Tensor, dtype: torch.dtype) -> bool:
    """Whether oneDNN's kernel takes a map: not when training, exporting or counting operations."""
    if x.device.type != "cpu" or not torch.is_inference_mode_enabled() or not x.numel():
        return False
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return not tracing and _has_kernel(dtype)


@cache
def _has_kernel(dtype: torch.dtype) -> bool:
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # torch was built without oneDNN
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


@cache
def _has_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


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
        """Map (B, H, W, C) to the same; `before` acts on channels only, after the one copy."""
        batch, height, width, channels = x.shape
        s = self.window
        down, across = height // s, width // s
        # The mixed axes go first: row and column of the cell, or inside the block.
        if self.grid:
            axes, order, back = (s, down, s, across), (1, 3, 0, 2, 4, 5), (2, 0, 3, 1, 4, 5)
        else:
            axes, order, back = (down, s, across, s), (2, 4, 0, 1, 3, 5), (2, 3, 0, 4, 1, 5)
        x = x.reshape(batch, *axes, channels).permute(order).contiguous()
        x = x if before is None else before(x)
        mixed = torch.addmm(self.bias[:, None], self.weight, x.reshape(s * s, -1))
        return mixed.reshape(x.shape).permute(back).reshape(batch, height, width, channels)


class GatedMlp(nn.Module):
    """gMLP (Liu et al. 2021) along one axis: half of the channels gates the other half."""

    def __init__(self, channels: int, window: int, *, grid: bool) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.in_project = Dense(channels, 2 * channels, activated=True)
        self.gate_norm = norm(channels)
        self.mixing = PositionMixing(window, grid=grid)
        self.out_project = Dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        u, v = self.in_project.halves(self.norm(x))
        v = self.mixing(v, self.gate_norm)
        return x + self.out_project(torch.addcmul(u, u, v))


class MultiAxis(nn.Module):
    """Half of the channels mixed across the grid, half inside blocks.

    By gMLPs, and added to the input; or, for a gate, by position mixing alone.
    """

    def __init__(self, channels: int, window: int, *, gate: bool = False) -> None:
        super().__init__()
        self.gate = gate
        self.norm = norm(channels)
        self.in_project = Dense(channels, 2 * channels, activated=True)
        self.grid, self.block = (
            PositionMixing(window, grid=grid) if gate else GatedMlp(channels, window, grid=grid)
            for grid in (True, False)
        )
        self.out_project = Dense(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        u, v = self.in_project.halves(self.norm(x))
        mixed: Tensor = self.out_project(torch.cat([self.grid(u), self.block(v)], -1))
        return mixed if self.gate else x + mixed


class ChannelAttention(nn.Module):
    """y * sigmoid(expand(relu(squeeze(mean of y)))), added to a map."""

    def __init__(self, channels: int, reduction: int = 4) -> None:
        super().__init__()
        self.mean = GlobalMean()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Map (B, H, W, C), twice, to the same shape."""
        squeezed = self.mean(y.permute(0, 3, 1, 2), self.squeeze)
        return add_gated(x, y, self.expand(F.relu(squeezed)).permute(0, 2, 3, 1))


class ConvAttention(nn.Module):
    """Layer norm, two 3x3 convolutions, channel attention, + input (RCAB)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.conv1 = conv3(channels, channels)
        self.conv2 = conv3(channels, channels)
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        return self.attention(x, self.conv2(F.leaky_relu_(self.conv1(self.norm(x)), 0.2)))


class DenseAttention(nn.Module):
    """The same with dense layers, for the bottleneck (RDCAB)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.dense1 = Dense(channels, channels, activated=True)
        self.dense2 = Dense(channels, channels)
        self.attention = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to the same shape."""
        return self.attention(x, self.dense2(self.dense1(self.norm(x))))


class CrossGating(nn.Module):
    """Two maps gate each other; the second may come from the scale below."""

    def __init__(self, channels: int, window: int, inputs: int, below: int | None = None) -> None:
        super().__init__()
        self.up = Up(below, channels) if below else None
        self.project_x = Dense(inputs, channels)
        self.project_y = Dense(channels, channels)
        self.norm_x = norm(channels)
        self.norm_y = norm(channels)
        self.in_project_x = Dense(channels, channels, activated=True)
        self.in_project_y = Dense(channels, channels, activated=True)
        self.gate_x = MultiAxis(channels, window, gate=True)
        self.gate_y = MultiAxis(channels, window, gate=True)
        self.out_project_x = Dense(channels, channels)
        self.out_project_y = Dense(channels, channels)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, H, W, C_x) and (B, H, W, C), or from below (B, H/2, W/2, C_y), to two maps."""
        x = self.project_x(x)
        y = self.project_y(y if self.up is None else self.up(y))
        a = self.in_project_x(self.norm_x(x))
        b = self.in_project_y(self.norm_y(y))
        y = y + self.out_project_y(b * self.gate_x(a))
        return self.out_project_x(a * self.gate_y(b)) + y + x, y


def resized(x: Tensor, factor: float) -> Tensor:
    """Resize (B, H, W, C) to (B, factor * H, factor * W, C); `factor` is a power of two.

    Bilinear, with half-pixel centres; downscaling is antialiased.
    """
    if factor < 1:
        return _shrunk(x, round(1 / factor))
    planes = F.interpolate(x.permute(0, 3, 1, 2), scale_factor=factor, mode="bilinear")
    return planes.permute(0, 2, 3, 1)


def _shrunk(x: Tensor, factor: int) -> Tensor:
    """Shrink (B, H, W, C) to (B, H / factor, W / factor, C), bilinear and antialiased.

    As a convolution: at (256, 256, 32) on one core of an AMD EPYC it takes 0.4 ms in bfloat16 and
    1.4 ms in float32, and torch's resizing, which has no bfloat16, 8.5 and 14.8 ms.
    """
    rising = torch.arange(1, 2 * factor, 2, dtype=torch.float32, device=x.device)
    taps = torch.cat([rising, rising.flip(0)]) / (2 * factor**2)
    kernel = (taps[:, None] * taps).to(x.dtype).repeat(x.shape[-1], 1, 1, 1)
    result = F.conv2d(
        x.permute(0, 3, 1, 2), kernel, stride=factor, padding=factor // 2, groups=x.shape[-1]
    )
    # Beyond the border there are no pixels: the weights of the others sum to one.
    inside = 1 - sum(range(1, factor, 2)) / (2 * factor**2)
    for edge in (result[:, :, 0], result[:, :, -1], result[..., 0], result[..., -1]):
        edge.div_(inside)
    return result.permute(0, 2, 3, 1)


class SupervisedAttention(nn.Module):
    """A picture from features, and the features gated by it (SAM, Zamir et al. 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = conv3(channels, channels)
        self.image = conv3(channels, 3)
        self.gate = conv3(3, channels)

    def forward(self, x: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, H, W, C) and (B, H, W, 3) to features and a picture of the same shapes."""
        image = self.image(x) + picture
        return add_gated(x, self.features(x), self.gate(image)), image
