"""Results of an asked-for size: shrink, restore, land on it, with one resampling.

A network that enlarges by s restores a picture of the size T / s into one of the size T. So the
input is brought to T / s by one antialiased step, on the grid of the result, and what is left
over beyond T, less than s pixels, is cut off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil

from torch import Tensor

from restore_cli.errors import UsageError
from restore_cli.inference.stages import Report, Stage, no_report
from restore_cli.resample import resample_bicubic, resize_bicubic
from restore_cli.rounding import as_float, rounded

_LARGEST = 1 << 16  # pixels a side


@dataclass(frozen=True, slots=True)
class TargetSize:
    """The size that a result is to have.

    Attributes:
        factor: times the input's; 1 keeps it. Not used with a box.
        box: height and width that the result fits into, keeping its shape; None for the factor.
    """

    factor: float = 1.0
    box: tuple[int, int] | None = None

    def of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the result for an input of that size, at least one pixel each."""
        factor = self.factor
        if self.box is not None:
            factor = min(self.box[0] / height, self.box[1] / width)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def __str__(self) -> str:
        if self.box is not None:
            return f"{self.box[1]}x{self.box[0]}"
        return "keep" if self.factor == 1 else f"{self.factor:g}x"


KEEP = TargetSize()


def parse_size(text: str) -> TargetSize:
    """`keep`, `2x` (times the input's, also `0.5x`), or `1600x1200` (what it fits into).

    Raises:
        UsageError: anything else, and what no picture can have.
    """
    if text == "keep":
        return KEEP
    if found := re.fullmatch(r"(\d+)x(\d+)", text):
        width, height = map(int, found.groups())
        if 0 < width <= _LARGEST and 0 < height <= _LARGEST:
            return TargetSize(box=(height, width))
        raise UsageError(f"--size '{text}' has sides that are not between 1 and {_LARGEST} px")
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)x", text):
        if 0.01 <= float(found[1]) <= 8:
            return TargetSize(float(found[1]))
        raise UsageError(f"--size '{text}' is not between 0.01x and 8x")
    raise UsageError(
        f"--size '{text}' is not a size", hint="keep, WIDTHxHEIGHT, or a factor such as 2x"
    )


def input_size(scale: int, before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    """What a network is given: a scale-th of the result, and never more than there is.

    Args:
        scale: of the network.
        before: height and width of the input.
        after: of the result.
    """
    height, width = (ceil(side / scale) for side in after)
    shrinks = height < before[0] and width < before[1]
    return (height, width) if shrinks else before


def restore_to_size(
    stage: Stage,
    image: Tensor,
    size: tuple[int, int],
    report: Report = no_report,
    depth: int | None = None,
) -> Tensor:
    """Restore a picture to a size.

    Args:
        stage: a network made ready, or several in a row.
        image: (1, 3, H, W), float in [0, 1] or whole numbers.
        size: height and width of the result.
        report: called with (tiles done, tiles in all).
        depth: bits a channel, 8 or 16, to round to; None for no rounding.

    Returns:
        (1, 3, height, width): float32 in [0, 1], or with a depth uint8 or uint16.
    """
    before, scale = (image.shape[-2], image.shape[-1]), stage.scale
    given = input_size(scale, before, size)
    if given != before:
        factors = (size[0] / (scale * before[0]), size[1] / (scale * before[1]))
        small = resample_bicubic(as_float(image), given, factors).clamp(0, 1)
        return stage(small, report, depth)[..., : size[0], : size[1]]
    if size == (scale * before[0], scale * before[1]):
        return stage(image, report, depth)
    result = resize_bicubic(stage(image, report), *size).clamp(0, 1)
    return result if depth is None else rounded(result, depth)
