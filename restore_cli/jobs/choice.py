"""Which job a picture needs, where nobody names one: x4, x1, or x4 of a shrunken copy (keep size).

Small pictures are enlarged. Large ones keep their size: by the x1 network where they hold detail,
and, where blur has taken all that a quarter of the size would lose, by shrinking, restoring x4 and
landing on the size that they had.
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
SMEARED = 12.0  # pixels of blur over which even a small picture holds nothing to enlarge
# Pixels of blur, in the least blurred direction, over which a quarter of the size holds all the
# detail there is. PSNR in dB and SSIM of a photo, by the x1 network and by x4 of a quarter:
# hand's path of 12 px: 21.9, 0.55 and 20.8, 0.39; of 24 px: 19.9, 0.37 and 20.2, 0.33. Across a
# line of motion detail stays: 24 px, 22.1, 0.62 and 20.4, 0.35.
GONE = 10.0
REACH = 32.0  # pixels of blur that the x1 network undoes; line of 40 px: 19.3, 0.27 and 19.9, 0.29
_MOST_LOOKED_AT = 5  # pictures of a run, evenly spread over it
_SIDE, _CELLS = 384, 3  # pixels of a window's side, and windows along a side of the picture
_LEVELS = 5  # halvings of the picture, at most
_BLURRED = 0.33  # blur, as `blur_by_direction` says it, over which a halved picture is not sharp
_EASED = 0.06  # less by so much must blur be when the picture is halved, or it is texture
_NOISY = 2  # halvings that noise outlives
_TEXTURE = 0.3  # a window counts with that share of the steps of the one with the most
# `blur_by_direction` in the worst direction, and the pixels that moved past each other: lines of 5
# to 45 px over 15 photos, sharp at half their size.
_MEASURED = ((0.26, 1.0), (0.31, 2.5), (0.36, 3.5), (0.42, 4.8), (0.48, 6.5), (0.54, 8.5))


@dataclass(frozen=True, slots=True)
class Look:
    """The size and blur of a picture.

    Attributes:
        height: pixels.
        width: pixels.
        blur: pixels that moved past each other, in the most blurred direction; 1 for none.
        least: in the least blurred direction.
    """

    height: int
    width: int
    blur: float
    least: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The job for a picture.

    Attributes:
        task: "x4" and "x1" are the default models of these scales; "keep" is x4 of a shrunken copy
            that lands on the picture's own size.
        reason: one line, for people.
    """

    task: Task
    reason: str


def look(pixels: Tensor) -> Look:
    """Size and blur of a picture (1, 3, H, W) in [0, 1]."""
    height, width = pixels.shape[-2:]
    return Look(height, width, *blur_extents(luminance(pixels)[0, 0].numpy()))


def choose(seen: Look) -> Choice:
    """The job for a picture, and why."""
    blur = "hardly blurred" if seen.blur < 2 else f"blurred over about {seen.blur:.0f} px"
    facts = f"{seen.width}x{seen.height}, {blur}"
    if seen.height * seen.width <= SMALL:
        if seen.blur <= SMEARED:
            return Choice("x4", f"{facts}: a small picture, so it is enlarged")
        return Choice("x1", f"{facts}: more blur than a picture to enlarge may have")
    if seen.least > GONE:
        return Choice("keep", f"{facts} in every direction: a quarter of the size holds it all")
    if seen.blur > REACH:
        return Choice("keep", f"{facts}: more than the x1 model undoes, but not of a quarter")
    return Choice("x1", f"{facts}: a large picture with detail left, so it keeps its size")


def choose_for(paths: Sequence[Path], *, max_pixels: int) -> Choice | None:
    """The job for the pictures of one run, by the majority of a few; None where none can be read.

    Earlier results among them are not looked at, unless there is nothing else: a folder gets the
    same choice before and after it was restored.

    Args:
        paths: of all of them, in order.
        max_pixels: larger ones are not looked at.
    """
    if len(paths) > 1:
        paths = [path for path in paths if not provenance_of(path)] or paths
    step = max(1, len(paths) // _MOST_LOOKED_AT)
    choices = []
    for path in paths[::step][:_MOST_LOOKED_AT]:
        try:
            picture = read_image(path, max_pixels=max_pixels, icc="keep")
        except RestoreError:
            continue  # it will be reported when its turn comes
        choices.append(choose(look(picture.pixels)))
    if not choices:
        return None
    task, count = Counter(choice.task for choice in choices).most_common(1)[0]
    reason = next(choice.reason for choice in choices if choice.task == task)
    if len(paths) > 1:
        reason = f"right for {count} of {len(choices)} pictures looked at; the first is {reason}"
    return Choice(task, reason)


def blur_extents(luma: Array) -> tuple[float, float]:
    """Pixels that moved past each other: in the most and in the least blurred direction.

    Where the picture is sharpest: a thing that moved before a sharp background is not a blurred
    picture. It is halved until it is sharp; what is seen at the last size that was not tells the
    extent. Noise looks sharp at full size and is gone two halvings later; soft shapes look blurred
    at any size.

    Args:
        luma: (H, W) in [0, 1].

    Returns:
        1 for none, as for pictures with a side under 96 px, which are too small to tell.
    """
    if min(luma.shape) < SMALLEST:
        return 1.0, 1.0
    most, least = zip(*(_extents(window) for window in _textured(_windows(luma))), strict=True)
    return min(most), min(*most, *least)


def _windows(luma: Array) -> list[list[Array]]:
    """Cells of the picture; each as its middle at full size, at half of it, and so on."""
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
    """The part of a level around a place, at least as large as blur can be told of."""
    spans = []
    for fraction, side, cell in zip(place, level.shape, (high, wide), strict=True):
        long = min(side, _SIDE, max(cell, SMALLEST))
        start = int(min(max(fraction * side - long / 2, 0), side - long))
        spans.append(slice(start, start + long))
    return np.ascontiguousarray(level[spans[0], spans[1]])


def _textured(cells: list[list[Array]]) -> Iterator[list[Array]]:
    """Windows that show something; sky and shadow tell nothing of blur."""
    steps = [float(np.abs(np.diff(cell[-1], axis=1)).mean()) for cell in cells]
    most = max(steps)
    return (cell for cell, step in zip(cells, steps, strict=True) if step >= _TEXTURE * most)


def _extents(window: list[Array]) -> tuple[float, float]:
    levels = [blur_by_direction(level) for level in window]
    return _extent([max(level) for level in levels]), _extent([min(level) for level in levels])


def _extent(blurs: list[float]) -> float:
    """Pixels, from the blur at full size, at half of it, and so on."""
    last = 0
    for n, blur in enumerate(blurs):
        if n > _NOISY and (blurs[n - 1] <= _BLURRED or blur > blurs[n - 1] - _EASED):
            break
        if blur > _BLURRED:
            last = n
    measured, pixels = zip(*_MEASURED, strict=True)
    return float(np.interp(blurs[last], measured, pixels) * 2**last)
