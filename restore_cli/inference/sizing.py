"""Results of a requested size, with a single resampling.

A network of scale s turns a picture of size T / s into one of size T. So the input is resampled to
T / s, antialiased and on the grid of the result, restored, and the excess over T, less than s
pixels, is cropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil

from torch import Tensor

from restore_cli.errors import UsageError
from restore_cli.inference.stages import ProgressCallback, Stage, no_progress, resized
from restore_cli.resample import resample_bicubic
from restore_cli.rounding import to_float

_MAX_SIDE = 1 << 16  # pixels a side


@dataclass(frozen=True, slots=True)
class TargetSize:
    """The requested size of a result."""

    factor: float = 1.0  # factor relative to the input; 1 keeps its size. Not used with a box.
    # height and width that the result fits into, keeping its aspect ratio; None for the factor
    box: tuple[int, int] | None = None

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the result, at least one pixel each, for that input size."""
        factor = self.factor
        if self.box is not None:
            factor = min(self.box[0] / height, self.box[1] / width)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def __str__(self) -> str:
        if self.box is not None:
            return f"{self.box[1]}x{self.box[0]}"
        return "keep" if self.factor == 1 else f"{self.factor:g}x"


KEEP = TargetSize()


def parse_box(text: str, option: str) -> tuple[int, int] | None:
    """Parse `WIDTHxHEIGHT` to (height, width) in pixels, or None if the text has another form.

    Raises:
        UsageError: a side is 0 or too large.
    """
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if found is None:
        return None
    width, height = map(int, found.groups())
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise UsageError(f"{option} '{text}' must have sides between 1 and {_MAX_SIDE} px")
    return height, width


def parse_size(text: str) -> TargetSize:
    """Parse `keep`, a factor such as `2x` or `0.5x`, or a box such as `1600x1200`.

    Raises `UsageError` if the text is not a size, or out of range.
    """
    if text == "keep":
        return KEEP
    if box := parse_box(text, "--size"):
        return TargetSize(box=box)
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)x", text):
        if 0.01 <= float(found[1]) <= 8:
            return TargetSize(float(found[1]))
        raise UsageError(f"--size '{text}' must be between 0.01x and 8x")
    raise UsageError(
        f"--size '{text}' is not a size", hint="use keep, WIDTHxHEIGHT, or a factor such as 2x"
    )


def input_size(scale: int, before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the network's input: the result's / scale, at most the input's.

    `before` and `after` are height and width of the input and of the result, pixels.
    """
    height, width = (ceil(side / scale) for side in after)
    shrinks = height < before[0] and width < before[1]
    return (height, width) if shrinks else before


def restore_to_size(
    stage: Stage,
    image: Tensor,
    size: tuple[int, int],
    report: ProgressCallback = no_progress,
    depth: int | None = None,
) -> Tensor:
    """Restore (1, 3, H, W), float in [0, 1] or integers, to (1, 3, height, width).

    `size` is height and width of the result in pixels. The result is float32 in [0, 1], or with a
    `depth` of 8 or 16 bits uint8 or uint16. `report` is called with (finished tiles, all tiles).
    """
    before, scale = (image.shape[-2], image.shape[-1]), stage.scale
    given = input_size(scale, before, size)
    if given != before:
        factors = (size[0] / (scale * before[0]), size[1] / (scale * before[1]))
        small = resample_bicubic(to_float(image), given, factors).clamp(0, 1)
        return stage(small, report, depth)[..., : size[0], : size[1]]
    if size == (scale * before[0], scale * before[1]):
        return stage(image, report, depth)
    result = resized(stage(image, report), size, depth)
    return result.clamp_(0, 1) if depth is None else result
