"""What every stage of a pipeline offers, and the one without a network: bicubic interpolation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from restore_cli.inference.loading import LoadedNetwork
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import as_float, rounded

BICUBIC = "bicubic"
Report = Callable[[int, int], None]  # (tiles done, tiles in all)


def no_report(done: int, total: int) -> None:
    """Progress that nobody follows."""


class Stage(Protocol):
    """What restores one picture: a `Restorer`, bicubic interpolation, or a whole pipeline."""

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""

    def __call__(self, image: Tensor, report: Report = ..., depth: int | None = ...) -> Tensor:
        """(1, 3, H, W) in [0, 1] or in whole numbers -> (1, 3, scale * H, scale * W).

        In [0, 1]; with a depth of 8 or 16 bits in whole numbers, uint8 or uint16.
        """


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What decides the pixels of one stage, for reports.

    Attributes:
        model: name.
        weights: name of the file; "" for bicubic.
        sha256: of the weights; "" for bicubic.
        parameters: of the network.
        tlsc: window of local statistics as "96x96", or "off".
        overlap: of tiles, input pixels; 0 for bicubic.
        scale: output pixels per input pixel.
        network: what was loaded; None for bicubic.
    """

    model: str
    weights: str
    sha256: str
    parameters: int
    tlsc: str
    overlap: int
    scale: int
    network: LoadedNetwork | None


class Bicubic:
    """Bicubic enlargement as MATLAB's imresize: the baseline of every table."""

    def __init__(self, scale: int) -> None:
        self.scale = scale

    @property
    def facts(self) -> StageFacts:
        """What decides its pixels."""
        return StageFacts(BICUBIC, "", "", 0, "off", 0, self.scale, None)

    def __call__(
        self, image: Tensor, report: Report = no_report, depth: int | None = None
    ) -> Tensor:
        """See `Stage`."""
        height, width = (self.scale * side for side in image.shape[-2:])
        enlarged = resize_bicubic(as_float(image), height, width)
        report(1, 1)
        return enlarged.clamp(0, 1) if depth is None else rounded(enlarged, depth)
