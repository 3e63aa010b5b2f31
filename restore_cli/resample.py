"""MATLAB-compatible bicubic resampling (`imresize`), which the papers of the x4 networks use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

_MAX_MATRIX_ENTRIES = 2_000_000  # entries of 8 bytes
_BAND = 250_000  # values of the result that are computed at a time, to keep the rest small


def resize_bicubic(image: Tensor, height: int, width: int) -> Tensor:
    """Resize by antialiased bicubic (Keys, a = -1/2), half-sample symmetric borders, unclamped.

    (B, C, H, W) of any float type -> (B, C, height, width) of that type, computed in float32, or in
    float64 for float64; the input itself if it has that size. The scale along each side is
    new / old, as in MATLAB's `imresize(image, [height width])`.
    """
    before = image.shape[-2:]
    if tuple(before) == (height, width):
        return image
    return resample_bicubic(image, (height, width), (height / before[0], width / before[1]))


def rescale_bicubic(image: Tensor, scale: float) -> Tensor:
    """Resize (B, C, H, W) by a factor, like MATLAB's `imresize(image, scale)`: sides round up."""
    height, width = (math.ceil(side * scale) for side in image.shape[-2:])
    return resample_bicubic(image, (height, width), (scale, scale))


def resample_bicubic(image: Tensor, size: tuple[int, int], scales: tuple[float, float]) -> Tensor:
    """Resize like `resize_bicubic`, with independent size and factors, aligned at the top left.

    (B, C, H, W) of any float type -> (B, C, *size) of that type, not clamped. The scales are new
    pixels per old pixel, vertical and horizontal.
    """
    result: Tensor | None = None
    for top, band in bicubic_bands(image, size, scales):
        if band.shape[-2] == size[0]:
            return band
        if result is None:
            result = image.new_empty((*image.shape[:-2], *size))
        result[..., top : top + band.shape[-2], :] = band
    assert result is not None
    return result


def bicubic_bands(
    image: Tensor, size: tuple[int, int], scales: tuple[float, float]
) -> Iterator[tuple[int, Tensor]]:
    """Yield the result of `resample_bicubic` in bands of rows, from top to bottom.

    Yields:
        The first row of a band, and its pixels: (B, C, rows, size[1]).
    """
    x = image if image.dtype == torch.float64 else image.float()
    rows = max(1, _BAND // (x.shape[:-2].numel() * size[1]))
    for top in range(0, size[0], rows):
        band = _along(x, -2, size[0], scales[0], slice(top, top + rows))
        yield top, _along(band, -1, size[1], scales[1]).to(image.dtype)


def _along(x: Tensor, dim: int, after: int, scale: float, part: slice = slice(None)) -> Tensor:
    """Resample one axis, with a dense matrix if it is small, otherwise tap by tap.

    The matrix for an axis of 4000 pixels would take 0.5 GB.

    Args:
        x: (B, C, H, W).
        dim: -2 or -1.
        after: length of that axis in the whole result.
        scale: new pixels per old pixel.
        part: of the result's axis, which is returned.
    """
    before = x.shape[dim]
    if before * after <= _MAX_MATRIX_ENTRIES:
        matrix = _matrix(before, after, scale)[part].to(x)
        return matrix @ x if dim == -2 else x @ matrix.mT
    index, weight = (torch.from_numpy(values[part]) for values in _taps(before, after, scale))
    index, weight = index.to(x.device), weight.to(x)
    shape = (-1, 1) if dim == -2 else (-1,)
    total: Tensor | None = None
    for n in range(index.shape[1]):
        taken = x.index_select(dim, index[:, n]).mul_(weight[:, n].reshape(shape))
        total = taken if total is None else total.add_(taken)
    assert total is not None
    return total


@lru_cache(maxsize=32)
def _matrix(before: int, after: int, scale: float) -> Tensor:
    """Return the (after, before) float64 matrix of one axis; rows sum to 1."""
    index, weight = _taps(before, after, scale)
    matrix = np.zeros((after, before))
    np.add.at(matrix, (np.arange(after)[:, None], index), weight)
    return torch.from_numpy(matrix)


@lru_cache(maxsize=32)
def _taps(before: int, after: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the old positions of each new one, (after, taps), and their weights."""
    stretch = min(scale, 1.0)  # a wider kernel when downscaling, for antialiasing
    centre = (np.arange(after) + 0.5) / scale - 0.5
    taps = math.ceil(4 / stretch) + 2
    index = np.floor(centre - 2 / stretch).astype(np.int64)[:, None] + np.arange(taps)
    weight = _keys((centre[:, None] - index) * stretch)
    weight /= weight.sum(1, keepdims=True)
    mirrored = index % (2 * before)
    return np.where(mirrored < before, mirrored, 2 * before - 1 - mirrored), weight


def _keys(x: np.ndarray) -> np.ndarray:
    """Compute Keys' cubic convolution kernel, a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
