"""Local counterparts of the layers that use the whole map (`models.layers.GlobalStatistic`).

Each has windows, one per level, and takes the arguments of its global counterpart. If the window
covers the map, both give the same result, so nothing changes at the training size. Grids of windows
start at the corner of the picture, not of the tile, so that tiles use the same windows as the whole
picture.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore_cli.models.layers import (
    NORM_EPSILON,
    GlobalAttention,
    GlobalCovariance,
    GlobalMean,
    GlobalStatistic,
    InstanceNorm,
    Origin,
    at_least_float32,
    attend,
    matrix_sqrt,
)
from restore_cli.models.spec import Size


class LocalStatistic(nn.Module):
    """Base class, with one window per level, in positions of the map."""

    def __init__(self, windows: tuple[Size, ...]) -> None:
        super().__init__()
        self.windows = windows

    def covers(self, x: Tensor, level: int = 0) -> bool:
        """Whether the window of that level covers the map (B, C, H, W)."""
        return x.shape[-2] <= self.windows[level][0] and x.shape[-1] <= self.windows[level][1]


class LocalMean(LocalStatistic):
    """Mean over a window around each position."""

    def forward(self, x: Tensor, projection: nn.Module, *, level: int = 0) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W), or (B, C', 1, 1) where the window covers the map."""
        if self.covers(x, level):
            return GlobalMean.forward(self, x, projection, level=level)  # type: ignore[arg-type]
        return box_mean(projection(x), self.windows[level])


class LocalInstanceNorm(LocalStatistic):
    """Mean and variance over a window around each position (the published local instance norm)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if self.covers(x):
            return InstanceNorm.forward(self, x)  # type: ignore[arg-type]
        wide = at_least_float32(x)
        # The variance does not depend on a common offset, which would only cost precision.
        wide = wide - wide.mean((2, 3), keepdim=True)
        mean = box_mean(wide, self.windows[0])
        variance = (box_mean(wide * wide, self.windows[0]) - mean * mean).clamp_min_(0)
        return ((wide - mean) * torch.rsqrt(variance + NORM_EPSILON)).to(x.dtype)


class LocalCovariance(LocalStatistic):
    """Covariance over windows of 3x3 blocks, one per block, interpolated between block centres.

    Sums and products are computed once per block and shared by the windows that contain it, so the
    cost is that of one global covariance and one small matrix root per block. At the borders,
    windows are moved inside the picture, as in `LocalMean`.
    """

    def forward(self, x: Tensor, projection: nn.Module, *, origin: Origin = (0, 0)) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W), or (B, C', 1, 1) where the window covers the map."""
        if self.covers(x):
            return GlobalCovariance.forward(self, x, projection)  # type: ignore[arg-type]
        height, width = x.shape[-2:]
        block = self.block
        above, before = origin[0] % block[0], origin[1] % block[1]
        wide = at_least_float32(x)
        # The covariance does not depend on a common offset, which would only cost precision.
        wide = wide - wide.mean((2, 3), keepdim=True)
        ones = wide.new_ones(x.shape[0], 1, height, width)
        counted = torch.cat([wide, ones], 1)  # its products include sums and counts
        below, after = -(above + height) % block[0], -(before + width) % block[1]
        padded = F.pad(counted, (before, after, above, below))
        blended = self.blended(padded, projection, x.dtype)
        return blended[..., above : above + height, before : before + width]

    @property
    def block(self) -> Size:
        """A third of the window."""
        height, width = self.windows[0]
        return max(1, height // 3), max(1, width // 3)

    def blended(self, counted: Tensor, projection: nn.Module, dtype: torch.dtype) -> Tensor:
        """Blend projected statistics of the blocks: (B, C + 1, H, W) to (B, C', H, W).

        H and W are multiples of the block; the last channel of `counted` has ones inside the
        picture, 0 outside. The projection's input is of `dtype`.
        """
        block = self.block
        rows, columns = counted.shape[-2] // block[0], counted.shape[-1] // block[1]
        blocks = counted.reshape(*counted.shape[:2], rows, block[0], columns, block[1])
        blocks = blocks.permute(0, 2, 4, 1, 3, 5).flatten(4)  # (B, rows, columns, C + 1, positions)
        products = (blocks @ blocks.mT).permute(0, 3, 4, 1, 2)  # (B, C + 1, C + 1, rows, columns)
        windows = self.over_blocks(products.flatten(1, 2)).view_as(products)
        windows = windows.permute(0, 3, 4, 1, 2)
        windows = windows / windows[..., -1:, -1:]
        means = windows[..., :-1, -1:]
        squares = windows[..., :-1, :-1]
        covariance = squares - means @ means.mT
        # In flat regions the rest is rounding error, which may be negative.
        variance, power = (m.diagonal(dim1=-2, dim2=-1).sum(-1) for m in (covariance, squares))
        flat = variance <= 100 * torch.finfo(counted.dtype).eps * power
        pooled = matrix_sqrt(covariance.masked_fill(flat[..., None, None], 0)).mean(-2)
        lattice = projection(pooled.permute(0, 3, 1, 2).to(dtype))  # (B, C', rows, columns)
        size = (rows * block[0], columns * block[1])
        return F.interpolate(lattice, size, mode="bilinear", align_corners=False)

    def over_blocks(self, x: Tensor) -> Tensor:
        """Average three by three blocks around each, (B, C, rows, columns) to the same shape."""
        return box_mean(x, (3, 3))


class LocalAttention(LocalStatistic):
    """Attention inside windows that overlap by half, blended by weights that fall to their edges.

    Every position belongs to four windows, so the cost per position is that of attending to four
    windows, for any size of the picture.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, origin: Origin = (0, 0)
    ) -> Tensor:
        """Map query, key and value, each (B, C, H, W), to (B, C, H, W)."""
        if self.covers(query):
            return attend(query, key, value)
        result = torch.zeros_like(query, dtype=torch.promote_types(query.dtype, torch.float32))
        total = result.new_zeros(query.shape[-2:])
        rows, columns = (
            list(_windows(length, start, window, result))
            for length, start, window in zip(query.shape[-2:], origin, self.windows[0], strict=True)
        )
        for row, row_weight in rows:
            for column, column_weight in columns:
                weight = row_weight[:, None] * column_weight
                pieces = (x[..., row, column] for x in (query, key, value))
                result[..., row, column] += attend(*pieces) * weight
                total[row, column] += weight
        return (result / total).to(query.dtype)


def _windows(length: int, origin: int, window: int, like: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield windows along an axis, cropped at its ends, with the weights of their positions.

    They start at multiples of half a window in the whole picture; the map has `length` positions of
    it, from `origin` on.
    """
    step = max(1, window // 2)
    first = max(0, (origin - step) // step)
    for start in range(first * step - origin, max(1, length - step), step):
        inside = slice(max(start, 0), min(start + 2 * step, length))
        if inside.start < inside.stop:
            place = torch.arange(inside.start, inside.stop, device=like.device, dtype=like.dtype)
            nearest = torch.minimum(place - start + 0.5, start + 2 * step - place - 0.5)
            yield inside, nearest / step


def box_mean(x: Tensor, window: Size) -> Tensor:
    """Average every window that lies inside the map; border values are replicated outwards.

    (B, C, H, W) -> the same, in the input's dtype; `window` is height and width, limited to those
    of the map. An even window has its extra row and column after the centre, as in the published
    converter. Sums are computed in at least float32: of an integral image in float16, 81 % of the
    means of 96x96 windows are not finite on a 720p map of values in [0, 1]. They run along one axis
    at a time, so that each sums a line of values, not a map.
    """
    height, width = x.shape[-2:]
    rows, columns = min(window[0], height), min(window[1], width)
    sums = _running_sum(_running_sum(at_least_float32(x), columns, -1), rows, -2)
    left, top = (columns - 1) // 2, (rows - 1) // 2
    around = (left, columns - 1 - left, top, rows - 1 - top)
    mean = F.pad(sums.div_(rows * columns), around, mode="replicate").to(x.dtype)
    # cumsum always returns NCHW; the following layers take 3 times as long in that layout.
    return mean.contiguous(memory_format=torch.channels_last) if x.stride(1) == 1 else mean


def _running_sum(x: Tensor, length: int, dim: int) -> Tensor:
    """Sum `length` neighbours along one axis, valid positions only."""
    total = x.cumsum(dim)
    count = x.shape[dim] - length
    sums = total.narrow(dim, length - 1, count + 1).clone(memory_format=torch.preserve_format)
    sums.narrow(dim, 1, count).sub_(total.narrow(dim, 0, count))
    return sums


LOCAL: dict[type[GlobalStatistic], type[LocalStatistic]] = {
    GlobalMean: LocalMean,
    GlobalCovariance: LocalCovariance,
    InstanceNorm: LocalInstanceNorm,
    GlobalAttention: LocalAttention,
}
