"""The interface of a pipeline's stages, and the stage without a network: bicubic interpolation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from restore_cli.inference.loading import LoadedNetwork
from restore_cli.resample import bicubic_bands
from restore_cli.rounding import to_float, to_uint

BICUBIC = "bicubic"
ProgressCallback = Callable[[int, int], object]  # (finished tiles, all tiles)


def no_progress(done: int, total: int) -> None:
    """Ignore the numbers of finished and of all tiles."""


class Stage(Protocol):
    """Restores pictures: a `Restorer`, bicubic interpolation, or a whole pipeline."""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""

    def __call__(
        self, image: Tensor, report: ProgressCallback = ..., depth: int | None = ...
    ) -> Tensor:
        """Map (1, 3, H, W), float in [0, 1] or integers, to (1, 3, scale * H, scale * W).

        The result is float in [0, 1], or uint8 or uint16 with a depth of 8 or 16 bits.
        """


class Bicubic:
    """Bicubic enlargement like MATLAB's imresize: the baseline of every table.

    It has the attributes of a `Restorer` that determine pixels.
    """

    name, weights, sha256, tlsc_window, overlap = BICUBIC, "", "", "off", 0
    loaded: LoadedNetwork | None = None

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def __call__(
        self, image: Tensor, report: ProgressCallback = no_progress, depth: int | None = None
    ) -> Tensor:
        """See `Stage`."""
        height, width = (self.scale * side for side in image.shape[-2:])
        enlarged = resized(image, (height, width), depth)
        report(1, 1)
        return enlarged.clamp_(0, 1) if depth is None else enlarged


def canvas(height: int, width: int, depth: int | None) -> Tensor:
    """Allocate an empty (1, 3, H, W) on the CPU; integers have the memory layout of files.

    With a `depth` of 8 or 16 bits it is uint8 or uint16, with None float32. Dtype and device are
    stated, since the program that uses this package may have set others as torch's defaults.
    """
    if depth is None:
        return torch.empty(1, 3, height, width, dtype=torch.float32, device="cpu")
    dtype = torch.uint8 if depth == 8 else torch.uint16
    return torch.empty(height, width, 3, dtype=dtype, device="cpu").permute(2, 0, 1)[None]


def resized(image: Tensor, size: tuple[int, int], depth: int | None) -> Tensor:
    """Resize (1, 3, H, W), float in [0, 1] or integers, to (1, 3, *size) by bicubic interpolation.

    It is rounded in bands to a `depth` of 8 or 16 bits, uint8 or uint16, without a float copy of
    the result; with None it is float32, not clamped.
    """
    result = canvas(*size, depth)
    scales = (size[0] / image.shape[-2], size[1] / image.shape[-1])
    for top, band in bicubic_bands(to_float(image), size, scales):
        final = band if depth is None else to_uint(band, depth)
        result[..., top : top + band.shape[-2], :] = final
    return result
