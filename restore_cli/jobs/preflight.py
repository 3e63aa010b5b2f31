"""Examines inputs for faults that a network trained on motion blur cannot repair.

Thresholds were chosen on 24 held-out photos, sharp at three quarters of their size, and blurred by
the recipes. Share of pictures with each remark:

| remark | pictures with the fault | sharp pictures | motion-blurred pictures |
|---|---|---|---|
| hardly blurred | | 83 % | 4 % of `handheld`, 25 % of `shake`, 0 % of lines of 9 and 17 px |
| out of focus | 92 % of discs of radius 4 and 8 | 0 % | 0 % |
| blocks of JPEG | 100 % of quality 20, 96 % of 40, 13 % of 85 | 0 % | 0 % |
| noise | 96 % with sigma 6/255 added | 8 % | 0 % |
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from restore_cli.metrics import rec601_luma
from restore_cli.rounding import to_float

Array = NDArray[np.float32]

_SIDE = 640  # side in pixels of the central part that is examined
MIN_SIDE = 96  # smallest side in pixels for which blur can be estimated
_SHARP = 0.26  # blur in the most blurred direction
_DEFOCUSED, _EVEN = 0.45, 0.22  # mean blur; its range over directions, relative to the mean
_BLOCKS = 1.12  # gradients across the borders of 8x8 blocks, relative to gradients elsewhere
_NOISE = 3.5  # standard deviation, of 255


def window_of_largest_mean(values: Array, height: int, width: int) -> tuple[int, int, float]:
    """Return the first row and column of the window of (H, W) with the largest mean, and that mean.

    A window of `height` x `width` that is larger is cut to that size.
    """
    height, width = min(height, values.shape[0]), min(width, values.shape[1])
    means = cv2.blur(values, (width, height), anchor=(0, 0))
    inside = means[: values.shape[0] - height + 1, : values.shape[1] - width + 1]
    row, column = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(row), int(column), float(inside[row, column])


def input_notes(pixels: Tensor) -> list[str]:
    """List faults of pixels (1, 3, H, W), in [0, 1] or integers, that limit the result."""
    found: list[str] = []
    if min(pixels.shape[-2:]) < MIN_SIDE:
        return found
    luma = rec601_luma(to_float(_middle(pixels)))[0, 0].numpy()
    noise, blocks = noise_level(luma), blockiness(luma)
    directions = blur_by_direction(luma)
    worst, mean = max(directions), sum(directions) / len(directions)
    if worst < _SHARP:
        found.append("it is hardly blurred, so there is little to restore")
    elif mean > _DEFOCUSED and worst - min(directions) < _EVEN * mean:
        found.append("it looks out of focus, which these models for motion blur cannot correct")
    if blocks > _BLOCKS:
        found.append("it has blocks of strong JPEG compression, which may be sharpened too")
    if noise > _NOISE:
        found.append(f"it is noisy (about {noise:.0f} of 255), so less detail can be restored")
    return found


def blur_by_direction(luma: Array) -> tuple[float, ...]:
    """Blur of luma (H, W) along 0, 90, 45 and 135 degrees: 0 for none, 1 for a flat picture.

    The share of the gradients that remains after blurring again: Crete et al., "The blur effect:
    perception and estimation with a new no-reference perceptual blur metric", HVEI 2007.
    """
    height, width = luma.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 45, 1)
    side = int(min(height, width) / 1.5)  # of the square that lies inside after the rotation
    turned: Array = cv2.warpAffine(luma, turn, (width, height)).astype(np.float32)
    top, left = (height - side) // 2, (width - side) // 2
    inside = np.ascontiguousarray(turned[top : top + side, left : left + side])
    pairs: list[tuple[Array, int]] = [(luma, 1), (luma, 0), (inside, 1), (inside, 0)]
    return tuple(_blur(image, axis) for image, axis in pairs)


def noise_level(luma: Array) -> float:
    """Noise of luma (H, W), of 255: standard deviation in the smoothest tenth of 16x16 blocks.

    Immerkaer, "Fast noise variance estimation", CVIU 1996.
    """
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
    response = np.abs(cv2.filter2D(luma, -1, kernel)[1:-1, 1:-1])
    rows, columns = (side // 16 for side in response.shape)
    blocks = response[: rows * 16, : columns * 16].reshape(rows, 16, columns, 16).mean((1, 3))
    return float(np.sqrt(np.pi / 2) * np.percentile(blocks, 10) * 255)


def blockiness(luma: Array) -> float:
    """Gradients of luma (H, W) across borders of 8x8 blocks, relative to those inside; 1: none."""
    return min(_border_ratio(luma), _border_ratio(luma.T))


def _blur(image: Array, axis: int) -> float:
    size = (11, 1) if axis == 1 else (1, 11)
    again = cv2.blur(image, size, borderType=cv2.BORDER_REFLECT)
    steps = np.abs(np.diff(image, axis=axis))
    lost = np.maximum(0, steps - np.abs(np.diff(again, axis=axis)))
    total = float(steps.sum())
    return 1.0 if total < 1e-6 else 1 - float(lost.sum()) / total


def _border_ratio(luma: Array) -> float:
    steps = np.abs(np.diff(luma, axis=1)).mean(0)
    inside = np.concatenate([steps[n::8] for n in range(1, 6)])  # not beside borders: they ring
    return float(steps[7::8].mean() / max(float(inside.mean()), 1e-6))


def _middle(pixels: Tensor) -> Tensor:
    """Return the central part, aligned to the blocks of JPEG."""
    height, width = pixels.shape[-2:]
    top = max(0, height - _SIDE) // 2 // 8 * 8
    left = max(0, width - _SIDE) // 2 // 8 * 8
    return pixels[..., top : top + _SIDE, left : left + _SIDE]
