"""Chooses the task for a picture if the user does not: x4, x1, or "keep" (x4 of a shrunken copy).

Small pictures are enlarged. Large ones keep their size: the x1 network restores them if they have
detail. If the blur has removed everything that shrinking to a quarter would lose, they are shrunk
to a quarter and restored x4.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from restore_cli.errors import RestoreError
from restore_cli.image import read_image
from restore_cli.image.info import provenance_of
from restore_cli.jobs.preflight import SMALLEST, blur_by_direction
from restore_cli.metrics import luminance

Array = NDArray[np.float32]
Task = Literal["x4", "x1", "keep"]

SMALL = 500_000  # pixels; x4 of more would be over 8 megapixels
SMEARED = 12.0  # pixels of blur above which even a small picture has no detail to enlarge
# Pixels of blur, in the least blurred direction, above which a copy of a quarter of the size keeps
# all detail. Mean PSNR (dB) and SSIM of four photos (448x448), maxim.motion vs. x4 of the
# quarter-size copy: camera shake of 24 px: 18.5, 0.34 vs. 18.5, 0.32; of 40 px: 17.6, 0.26 vs.
# 17.8, 0.27. Linear motion keeps the detail across it: 24 px: 20.7, 0.55 vs. 18.7, 0.35.
GONE = 10.0
# Pixels of blur that the x1 network can remove. Linear motion of 40 px: 2.0 dB better than x4 of
# the copy where 24 px were found, 0.5 and 0.6 dB worse where 38 and 44 px were found.
REACH = 32.0
_SAMPLED = 5  # pictures of a run that are examined, evenly spaced
_SIDE, _CELLS = 384, 3  # side of a window in pixels, and windows along a side of the picture
_LEVELS = 5  # sizes at most, each half of the one before
_BLURRED = 0.33  # value of `blur_by_direction` above which a picture is not sharp
_EASED = 0.06  # halving must reduce the blur at least by this, else it is soft texture
_NOISY = 2  # halvings until noise has averaged out
_TEXTURE = 0.3  # windows with less than this share of the largest mean gradient are ignored
# `blur_by_direction` in the worst direction, and the blur in pixels: measured with linear motion of
# 5 to 45 px on 15 photos that are sharp at half their size.
_MEASURED = ((0.26, 1.0), (0.31, 2.5), (0.36, 3.5), (0.42, 4.8), (0.48, 6.5), (0.54, 8.5))


@dataclass(frozen=True, slots=True)
class Look:
    """The size and blur of a picture.

    Attributes:
        height: pixels.
        width: pixels.
        blur: extent of the blur in pixels, in the most blurred direction; 1 for none.
        least: the same in the least blurred direction.
    """

    height: int
    width: int
    blur: float
    least: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The task for a picture.

    Attributes:
        task: "x4" and "x1" mean the default models of these scales; "keep" means x4 of a shrunken
            copy, so that the result has the picture's own size.
        reason: one line for the user.
    """

    task: Task
    reason: str


def look(pixels: Tensor) -> Look:
    """Size and blur of a picture (1, 3, H, W) in [0, 1]."""
    height, width = pixels.shape[-2:]
    return Look(height, width, *blur_extents(luminance(pixels)[0, 0].numpy()))


def choose(seen: Look) -> Choice:
    """Choose the task for a picture."""
    blur = "hardly blurred" if seen.blur < 2 else f"blurred over about {seen.blur:.0f} px"
    facts = f"{seen.width}x{seen.height}, {blur}"
    if seen.height * seen.width <= SMALL:
        if seen.blur <= SMEARED:
            return Choice("x4", f"{facts}: a small picture, so it is enlarged")
        return Choice("x1", f"{facts}: a small picture, but too blurred to be enlarged")
    if seen.least > GONE:
        return Choice(
            "keep", f"{facts} in every direction: shrinking it to a quarter loses nothing"
        )
    if seen.blur > REACH:
        return Choice("keep", f"{facts}: more than the x1 model can remove at this size")
    return Choice("x1", f"{facts}: a large picture with detail left, so it keeps its size")


def choose_for(paths: Sequence[Path], *, max_pixels: int) -> Choice | None:
    """Choose the task for all pictures of a run by a majority; None if no picture can be read.

    A few pictures are examined. Results of earlier runs are ignored unless there is nothing else,
    so that a folder gets the same choice before and after it was restored.

    Args:
        paths: all pictures, in order.
        max_pixels: larger pictures are ignored.
    """
    if len(paths) > 1:
        paths = [path for path in paths if not provenance_of(path)] or paths
    step = max(1, len(paths) // _SAMPLED)
    choices = []
    for path in paths[::step][:_SAMPLED]:
        try:
            picture = read_image(path, max_pixels=max_pixels, icc="keep")
        except RestoreError:
            continue  # it is reported when it is restored
        choices.append(choose(look(picture.pixels)))
    if not choices:
        return None
    task, count = Counter(choice.task for choice in choices).most_common(1)[0]
    reason = next(choice.reason for choice in choices if choice.task == task)
    if len(paths) > 1:
        reason = f"suits {count} of {len(choices)} sampled pictures; the first of these: {reason}"
    return Choice(task, reason)


def blur_extents(luma: Array) -> tuple[float, float]:
    """Estimate the blur in pixels, in the most and in the least blurred direction.

    Measured where the picture is sharpest: an object that moved in front of a sharp background does
    not make a blurred picture. The picture is halved until it is sharp; the blur at the last size
    that is not sharp gives the extent. Noise looks sharp at full size and is averaged out after two
    halvings; soft shapes look blurred at any size.

    Args:
        luma: (H, W) in [0, 1].

    Returns:
        Both extents; 1 for no blur, and for pictures with a side under 96 px, which are too small.
    """
    if min(luma.shape) < SMALLEST:
        return 1.0, 1.0
    most, least = zip(*(_extents(window) for window in _textured(_windows(luma))), strict=True)
    return min(most), min(*most, *least)


def _windows(luma: Array) -> list[list[Array]]:
    """Return windows around the centres of the cells, each at full size, half size, and so on."""
    height, width = luma.shape
    rows, columns = (max(1, min(_CELLS, side // (2 * SMALLEST))) for side in luma.shape)
    levels: list[Array] = [luma]
    while len(levels) < _LEVELS and min(levels[-1].shape) // 2 >= SMALLEST:
        high, wide = (side // 2 for side in levels[-1].shape)
        half = cv2.resize(levels[-1], (wide, high), interpolation=cv2.INTER_AREA)
        levels.append(half.astype(np.float32, copy=False))
    cells = []
    for row in range(rows):
        for column in range(columns):
            place = ((row + 0.5) / rows, (column + 0.5) / columns)
            cells.append([_cut(level, place, height // rows, width // columns) for level in levels])
    return cells


def _cut(level: Array, place: tuple[float, float], high: int, wide: int) -> Array:
    """Return the part of a level around a place, large enough to estimate the blur."""
    spans = []
    for fraction, side, cell in zip(place, level.shape, (high, wide), strict=True):
        long = min(side, _SIDE, max(cell, SMALLEST))
        start = int(min(max(fraction * side - long / 2, 0), side - long))
        spans.append(slice(start, start + long))
    return np.ascontiguousarray(level[spans[0], spans[1]])


def _textured(cells: list[list[Array]]) -> Iterator[list[Array]]:
    """Return the windows with texture; sky and shadow do not show blur."""
    steps = [float(np.abs(np.diff(cell[-1], axis=1)).mean()) for cell in cells]
    most = max(steps)
    return (cell for cell, step in zip(cells, steps, strict=True) if step >= _TEXTURE * most)


def _extents(window: list[Array]) -> tuple[float, float]:
    levels = [blur_by_direction(level) for level in window]
    return _extent([max(level) for level in levels]), _extent([min(level) for level in levels])


def _extent(blurs: list[float]) -> float:
    """Return the extent in pixels, from the blur at full size, half size, and so on."""
    last = 0
    for n, blur in enumerate(blurs):
        if n > _NOISY and (blurs[n - 1] <= _BLURRED or blur > blurs[n - 1] - _EASED):
            break
        if blur > _BLURRED:
            last = n
    measured, pixels = zip(*_MEASURED, strict=True)
    return float(np.interp(blurs[last], measured, pixels) * 2**last)
