"""Estimates the time and memory of a run in advance."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod

import torch

from restore_cli.inference.devices import cpu_convolution_rate
from restore_cli.inference.pipeline import Pipeline
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.inference.sizing import input_size
from restore_cli.inference.tiling import plan_tiles
from restore_cli.jobs.plan import Item
from restore_cli.jobs.request import RestoreRequest
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import Size
from restore_cli.weights.manifest import Checkpoint, checkpoint_of

_WARM, _SMALL = 64, 128  # side in pixels of the warm-up picture, and of the first timed one
_PROBES = 3
_MAX_PROBE_SECONDS = 30.0  # for one probe of a tile; a smaller one is used if it takes longer
_MAX_PROBING_SECONDS = 10.0  # seconds of probing after which no further probe is started
_SLOWER = 1.15  # margin over the slowest probe, for reading and writing
_LISTED = 960, 1280  # picture of the manifest's seconds per megapixel
# Operations per second of a convolution where these were measured: 127 to 173e9 in 30 processes.
_LISTED_RATE = 150e9
_MAX_FASTER = 4  # times: more cores or wider instructions help a whole network less
_SHORT = 10.0  # seconds; shorter runs are not worth the 40 ms that measuring this processor takes
_BF16 = 0.6  # times that; 0.48 to 0.61 were measured (docs/speed.md)


# Seconds, and pixels of the result, from which a faster way is suggested and the page asks first.
LONG_SECONDS, LARGE_PIXELS = 60.0, 50_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """The cost of one picture."""

    item: Item  # the picture
    size: Size | None  # height and width of the input; None if the header cannot be read
    output_size: Size | None  # height and width of the result; None if the input's size is unknown
    tiles: int  # number of tiles of the first network; 0 if there is no network
    bytes: int  # peak memory, without the network
    fastest: float  # seconds according to the fastest of several probes
    seconds: float  # seconds according to the slowest probe, including reading and writing

    @property
    def is_unreadable(self) -> bool:
        """Whether the input is a file whose header the installed readers cannot read."""
        readable = not self.item.is_video or find_spec("av") is not None
        unknown = not self.item.skip and self.size is None
        return readable and unknown and self.item.source.is_file()


@dataclass(frozen=True, slots=True)
class Forecast:
    """The cost of a run according to earlier measurements; nothing is computed."""

    count: int  # number of pictures to restore
    # items whose input has a known size, with that size and the result's
    sizes: tuple[tuple[Item, Size, Size], ...]
    written: int  # pixels of these results
    seconds: float | None  # for all of them; None if there is no measurement, e.g. on a GPU.


def forecast(request: RestoreRequest, items: list[Item], pipeline: Pipeline) -> Forecast:
    """Estimate what a run reads, writes and takes, from headers and the manifest."""
    to_do = [item for item in items if not item.skip]
    sizes, pixels = [], 0
    for item in to_do:
        if (before := item.size) is None:
            continue
        after = request.processing.output_size(*before, pipeline.scale)
        sizes.append((item, before, after))
        height, width = _given(request, pipeline, before)
        pixels += _processed(pipeline, height, width)[1] * item.frames
    return Forecast(
        len(to_do),
        tuple(sizes),
        sum(prod(after) for *_, after in sizes),
        _listed_seconds(pipeline, pixels) if sizes else None,
    )


def estimate(request: RestoreRequest, items: list[Item], pipeline: Pipeline) -> list[Estimate]:
    """Estimate every item: sizes from headers, tiles as planned, seconds by timed probes."""
    sizes = [item.size for item in items]
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
    tiles, worked, features = _processed(pipeline, *_given(request, pipeline, size))
    # Integers in and out plus temporary copies: peak measured at 1.34 times for 2008x1496, x4.
    # Grey pictures and profiles other than sRGB stay float: 3.1 times 4 bytes.
    pictures = int(3 * (size[0] * size[1] + after[0] * after[1]) * 1.4)
    fastest, slowest = (worked * rate * item.frames for rate in rates)
    return Estimate(item, size, after, tiles, pictures + features, fastest, slowest)


def _given(request: RestoreRequest, pipeline: Pipeline, size: Size) -> Size:
    """Height and width of the picture that the pipeline gets for an input."""
    target = request.processing.size
    return size if target is None else input_size(pipeline.scale, size, target.of(*size))


def _processed(pipeline: Pipeline, height: int, width: int) -> tuple[int, int, int]:
    """Count tiles, pixels including overlaps, and bytes of features, of the first network."""
    network = next(iter(pipeline.networks), None)
    return (0, height * width, 0) if network is None else network.cost(height, width)


def _rates(pipeline: Pipeline, largest: Size) -> tuple[float, float]:
    """Seconds per processed pixel: by the fastest and, with a margin, by the slowest probe."""
    network = next(iter(pipeline.networks), None)
    tile = largest
    if network is not None:
        padded = (network.model.size.padded(side) for side in largest)
        rows, columns = network.plan(*largest, network.tile_side(*padded))
        tile = rows[0].length, columns[0].length
    high, wide = (max(_WARM, min(sides)) for sides in zip(largest, tile, strict=True))
    if network is not None:
        # The probe has as many tiles, side by side, as are restored at once.
        at_once = network.tiles_at_once(network.cost(*largest)[0], high * wide)
        wide += (at_once - 1) * (tile[1] - network.overlap)
    pipeline(torch.rand(1, 3, _WARM, _WARM))  # the first call is slower
    rate = _rate(pipeline, min(high, _SMALL), min(wide, _SMALL))
    while rate * high * wide > _MAX_PROBE_SECONDS and max(high, wide) > 2 * _SMALL:
        high, wide = max(_SMALL, high // 2), max(_SMALL, wide // 2)
    begun = time.monotonic()
    probes = [_rate(pipeline, high, wide)]
    while len(probes) < _PROBES and time.monotonic() - begun < _MAX_PROBING_SECONDS:
        probes.append(_rate(pipeline, high, wide))
    return min(probes), max(probes) * _SLOWER


def _rate(pipeline: Pipeline, height: int, width: int) -> float:
    """Seconds per processed pixel, padding included."""
    image, begun = torch.rand(1, 3, height, width), time.monotonic()
    pipeline(image)
    return (time.monotonic() - begun) / _processed(pipeline, height, width)[1]


def listed_seconds(checkpoint: Checkpoint, pixels: int, options: RestorerOptions) -> float | None:
    """Seconds for one network: the manifest's, scaled by this processor's convolution rate.

    None on a GPU, or if not measured.

    `pixels` are those of the input; the manifest's seconds include overlaps of tiles.
    """
    if options.device.type != "cpu" or checkpoint.seconds_per_megapixel is None:
        return None
    times = 8 if options.self_ensemble else 1
    is_bf16 = options.with_dtype([MODELS[checkpoint.model]]).dtype == torch.bfloat16
    listed = checkpoint.seconds_per_megapixel * pixels / 1e6 * times * (_BF16 if is_bf16 else 1)
    if listed < _SHORT:
        return listed
    return listed / min(cpu_convolution_rate(torch.float32) / _LISTED_RATE, _MAX_FASTER)


def _listed_seconds(pipeline: Pipeline, worked: int) -> float | None:
    """`listed_seconds` for a pipeline of one network, from its processed pixels."""
    networks = pipeline.networks
    listed = checkpoint_of(networks[0].sha256) if len(networks) == 1 else None
    if listed is None:
        return None
    model = networks[0].model
    tile = min(max(_LISTED), model.largest_tile)
    axes = plan_tiles(model, *_LISTED, tile, listed.overlap)
    measured = prod(sum(span.length for span in spans) for spans in axes)
    pixels = worked * prod(_LISTED) // measured
    return listed_seconds(listed, pixels, pipeline.options)
