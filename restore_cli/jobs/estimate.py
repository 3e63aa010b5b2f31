"""What a job will cost, before it is run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from restore_cli.image import read_size
from restore_cli.inference.pipeline import Pipeline
from restore_cli.inference.restorer import Restorer
from restore_cli.jobs.inputs import STREAM
from restore_cli.jobs.plan import Item

_PROBE = 64  # pixels a side of the picture that is timed


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one picture.

    Attributes:
        item: it is.
        size: height and width of the input; None where the header tells nothing.
        tiles: that it is cut into by the first network; 0 where there is none.
        bytes: of memory at the peak, besides the network.
        seconds: by the speed on a small picture.
    """

    item: Item
    size: tuple[int, int] | None
    tiles: int
    bytes: int
    seconds: float


def estimate(items: list[Item], pipeline: Pipeline) -> list[Estimate]:
    """Sizes from headers, tiles as they will be, seconds from one small picture."""
    probe = torch.rand(1, 3, _PROBE, _PROBE)
    per_pixel = 0.0
    for stage in pipeline.stages:
        stage(probe)  # the first time costs more
        begun = time.monotonic()
        probe = stage(probe)
        per_pixel += (time.monotonic() - begun) / _PROBE**2
    return [_estimate(item, pipeline, per_pixel) for item in items]


def _estimate(item: Item, pipeline: Pipeline, per_pixel: float) -> Estimate:
    size = None if item.source == STREAM else read_size(item.source)
    if size is None:
        return Estimate(item, None, 0, 0, 0.0)
    height, width = size
    tiles, worked, features = 0, height * width, 0
    network = next((stage for stage in pipeline.stages if isinstance(stage, Restorer)), None)
    if network is not None:
        tiles, worked, features = network.cost(height, width)
    # float32 in, whole numbers out, and what stands beside them at the peak: measured 1.5 times
    # for 2008x1496, x4. Grey pictures and profiles other than sRGB stay float: 3.1 times 4 bytes.
    pictures = int(height * width * 3 * (4 + pipeline.scale**2) * 1.5)
    return Estimate(item, size, tiles, pictures + features, worked * per_pixel)
