"""Estimates what a job will cost, before it is run."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from restore_cli.image import read_size
from restore_cli.inference.pipeline import Pipeline
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.inference.sizing import input_size
from restore_cli.inference.tiling import plan_tiles
from restore_cli.jobs.inputs import STREAM
from restore_cli.jobs.plan import Item
from restore_cli.jobs.request import RestoreRequest
from restore_cli.weights.manifest import Checkpoint, checkpoint_of

_WARM, _SMALL = 64, 128  # pixels a side of the picture that warms up, and of the first timed one
_PROBES = 3
_PATIENCE = 30.0  # seconds that one probe of a whole tile may take; else a smaller one is timed
_ENOUGH = 10.0  # seconds of probing after which no other probe is begun
_SLOWER = 1.15  # than the slowest probe may a run be: pictures are read and written as well
_LISTED, _CORES = (960, 1280), 2  # picture and cores of the manifest's seconds per megapixel

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one picture.

    Attributes:
        item: it is.
        size: height and width of the input; None where the header tells nothing.
        output_size: of the result; None where that of the input is not known.
        tiles: that it is cut into by the first network; 0 where there is none.
        bytes: of memory at the peak, besides the network.
        fastest: seconds, by the fastest of several probes.
        seconds: by the slowest of them, with reading and writing.
    """

    item: Item
    size: Size | None
    output_size: Size | None
    tiles: int
    bytes: int
    fastest: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Expected:
    """The cost of a run by measurements of the past; nothing is computed.

    Attributes:
        count: pictures to restore.
        sizes: inputs whose headers tell their size, with that and the result's.
        targets: where their results go.
        read: pixels of the inputs.
        written: pixels of the results.
        seconds: of all; None where no measurement fits, as on a GPU.
    """

    count: int
    sizes: tuple[tuple[Path, tuple[Size, Size]], ...]
    targets: tuple[Path, ...]
    read: int
    written: int
    seconds: float | None


def expected(request: RestoreRequest, items: list[Item], pipeline: Pipeline) -> Expected:
    """What a run will read, write and take, from headers and the manifest."""
    to_do = [item for item in items if not item.done]
    sizes, targets, pixels = [], [], 0
    for item in to_do:
        if item.source == STREAM or (before := read_size(item.source)) is None:
            continue
        after = request.processing.output_size(*before, pipeline.scale)
        sizes.append((item.source, (before, after)))
        targets.append(item.target)
        height, width = _given(request, pipeline, before)
        pixels += _worked(pipeline, height, width)[1]
    return Expected(
        len(to_do),
        tuple(sizes),
        tuple(targets),
        sum(before[0] * before[1] for _, (before, _) in sizes),
        sum(after[0] * after[1] for _, (_, after) in sizes),
        _listed_seconds(pipeline, pixels) if sizes else None,
    )


def estimate(request: RestoreRequest, items: list[Item], pipeline: Pipeline) -> list[Estimate]:
    """Sizes from headers, tiles as they will be, seconds by probes of a tile's size."""
    sizes = [None if item.source == STREAM else read_size(item.source) for item in items]
    given = [_given(request, pipeline, size) for size in sizes if size is not None]
    fastest, slowest = _rates(pipeline, max(given, default=(_SMALL, _SMALL)))
    return [
        _estimate(request, item, size, pipeline, (fastest, slowest))
        for item, size in zip(items, sizes, strict=True)
    ]


def _estimate(
    request: RestoreRequest,
    item: Item,
    size: Size | None,
    pipeline: Pipeline,
    rates: tuple[float, float],
) -> Estimate:
    if size is None:
        return Estimate(item, None, None, 0, 0, 0.0, 0.0)
    after = request.processing.output_size(*size, pipeline.scale)
    tiles, worked, features = _worked(pipeline, *_given(request, pipeline, size))
    # Whole numbers in and out, and what stands beside them at the peak: measured 1.34 times for
    # 2008x1496, x4. Grey pictures and profiles other than sRGB stay float: 3.1 times 4 bytes.
    pictures = int(3 * (size[0] * size[1] + after[0] * after[1]) * 1.4)
    fastest, slowest = (worked * rate for rate in rates)
    return Estimate(item, size, after, tiles, pictures + features, fastest, slowest)


def _given(request: RestoreRequest, pipeline: Pipeline, size: Size) -> Size:
    """Height and width of what the pipeline is given for an input."""
    target = request.processing.size
    return size if target is None else input_size(pipeline.scale, size, target.of(*size))


def _worked(pipeline: Pipeline, height: int, width: int) -> tuple[int, int, int]:
    """Tiles, pixels worked on with overlaps, and bytes of features, of the first network."""
    network = next((stage for stage in pipeline.stages if isinstance(stage, Restorer)), None)
    return (0, height * width, 0) if network is None else network.cost(height, width)


def _rates(pipeline: Pipeline, largest: Size) -> tuple[float, float]:
    """Seconds per pixel worked on: by the fastest and, with a margin, by the slowest probe."""
    network = next((stage for stage in pipeline.stages if isinstance(stage, Restorer)), None)
    tile = max(largest) if network is None else network.tile_side(*largest)
    high, wide = (max(_WARM, min(side, tile)) for side in largest)
    if network is not None:
        # As many tiles side by side as the picture's are restored at once.
        at_once = network.tiles_at_once(network.cost(*largest)[0], high * wide)
        wide += (at_once - 1) * (tile - network.overlap)
    pipeline(torch.rand(1, 3, _WARM, _WARM))  # the first time costs more
    rate = _rate(pipeline, min(high, _SMALL), min(wide, _SMALL))
    while rate * high * wide > _PATIENCE and max(high, wide) > 2 * _SMALL:
        high, wide = max(_SMALL, high // 2), max(_SMALL, wide // 2)
    begun = time.monotonic()
    probes = [_rate(pipeline, high, wide)]
    while len(probes) < _PROBES and time.monotonic() - begun < _ENOUGH:
        probes.append(_rate(pipeline, high, wide))
    return min(probes), max(probes) * _SLOWER


def _rate(pipeline: Pipeline, height: int, width: int) -> float:
    """Seconds per pixel that is worked on: what a side is padded by counts."""
    image, begun = torch.rand(1, 3, height, width), time.monotonic()
    pipeline(image)
    return (time.monotonic() - begun) / _worked(pipeline, height, width)[1]


def listed_seconds(checkpoint: Checkpoint, pixels: int, options: RestorerOptions) -> float | None:
    """Seconds that the manifest lets expect of one network; None on a GPU, or if not measured.

    Args:
        checkpoint: of the network.
        pixels: of the input; overlaps of tiles are in the manifest's seconds.
        options: the device, and whether the self-ensemble runs it eight times.
    """
    if options.device.type != "cpu" or checkpoint.seconds_per_megapixel is None:
        return None
    times = 8 if options.self_ensemble else 1
    cores = min(torch.get_num_threads(), 4 * _CORES)
    return checkpoint.seconds_per_megapixel * pixels / 1e6 * times * _CORES / cores


def _listed_seconds(pipeline: Pipeline, worked: int) -> float | None:
    """The same for a pipeline of one network, from the pixels that it will work on."""
    networks = [stage for stage in pipeline.stages if isinstance(stage, Restorer)]
    listed = checkpoint_of(networks[0].facts.sha256) if len(networks) == 1 else None
    if listed is None:
        return None
    model = networks[0].model
    tile = min(max(_LISTED), model.largest_tile)
    axes = plan_tiles(model, *_LISTED, tile, listed.overlap)
    measured = prod(sum(span.length for span in spans) for spans in axes)
    pixels = worked * prod(_LISTED) // measured
    return listed_seconds(listed, pixels, pipeline.options)
