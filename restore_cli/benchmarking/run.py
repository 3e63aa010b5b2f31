"""Scores every entry on every sample, and stores the rows.

A row has a hash of everything that determines it (weights, options, protocol, the sample's bytes),
so an interrupted benchmark can be resumed, and rows are not computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from pydantic import TypeAdapter
from torch import Tensor

from restore_cli.benchmarking.protocol import Protocol
from restore_cli.benchmarking.published import Table
from restore_cli.datasets.layouts import Pair
from restore_cli.datasets.pairs import other_profile, profile_of, read_pair
from restore_cli.datasets.registry import Dataset
from restore_cli.errors import NoInputError, PictureError, UsageError
from restore_cli.files import naming, sha256
from restore_cli.image import Encoding, Picture, read_image, write_image
from restore_cli.image.folders import list_pictures
from restore_cli.inference.memory import settle
from restore_cli.inference.pipeline import Pipeline, PipelineSpec, default_scale
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.inference.stages import BICUBIC, ProgressCallback, no_progress
from restore_cli.models.registry import MODELS
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import quantise
from restore_cli.weights.manifest import default_model, load_manifest


@dataclass(frozen=True, slots=True)
class Entry:
    """A pipeline with its options, or pictures that another program restored."""

    name: str  # name in reports, e.g. `mprnet-mscam` or `mprnet+gfn`.
    # the loaded pipeline. That of another program has no stages, only the scale.
    pipeline: Pipeline
    # every picture of another program, by its path in its folder without suffix, also with _ for /
    files: Mapping[str, Path] | None = None

    @property
    def scale(self) -> int:
        """Output pixels per input pixel."""
        return self.pipeline.scale

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines its pixels, time and memory; of another program, nothing."""
        if self.files is not None:
            return dict.fromkeys(("precision", "device", "tile"), "-") | {"results": True}
        return {**self.pipeline.identity, "device": str(self.pipeline.options.device)}

    def facts(self) -> dict[str, Any]:
        """Return facts for the report: weights, cost, device and everything in `identity`."""
        known = self.files is None
        networks = [network.loaded for network in self.pipeline.networks]
        costs = [network.model.cost(network.config) for network in networks]
        return {
            "name": self.name,
            "weights": "+".join(stage.weights or "-" for stage in self.pipeline.stages) or "-",
            "parameters": sum(parameters for parameters, _ in costs) if known else None,
            "macs_64x64": sum(macs for _, macs in costs) if known else None,
            "tlsc": "+".join(stage.tlsc_window for stage in self.pipeline.stages) or "-",
            **self.identity,
        }

    def hash(self, sample: Pair) -> str:
        """Return digests of the files that a sample's score depends on."""
        path = self._file(sample)
        return _hash(sample.degraded, *sample.references, *([path] if path else []))

    def _file(self, sample: Pair) -> Path | None:
        files = self.files or {}
        return files.get(sample.name) or files.get(sample.name.replace("/", "_"))

    def restore(
        self,
        sample: Pair,
        degraded: Tensor,
        protocol: Protocol,
        report: ProgressCallback = no_progress,
    ) -> Tensor:
        """Restore or read the picture of a sample, (1, 3, scale * H, scale * W).

        `degraded` is (1, 3, H, W), as the protocol needs it; the picture of another program is
        cropped to the same. `report` is called with (finished tiles, all tiles). Raises
        `PictureError` if that picture is missing, cannot be read, or has another size, or if the
        output of a network is not finite.
        """
        if self.files is None:
            try:
                return self.pipeline(degraded, report)
            except PictureError as error:  # which does not know the name
                raise PictureError(f"sample '{sample.name}': {error}", hint=error.hint) from error
        path = self._file(sample)
        if path is None:
            raise PictureError(f"'{self.name}' has no picture of sample '{sample.name}'")
        picture = read_image(path, icc="keep", strict=True)
        profile = profile_of(picture)
        if profile and profile != profile_of(read_image(sample.degraded, icc="keep", strict=True)):
            raise other_profile(path, sample.degraded)
        restored = picture.pixels
        height, width = (side * self.scale for side in degraded.shape[-2:])
        if restored.shape[-2] > height:  # of a whole frame, which the protocol crops
            restored = protocol.prepare(degraded, restored)[1]
        if restored.shape[-2:] != (height, width):
            raise PictureError(
                f"'{path}' is {restored.shape[-1]}x{restored.shape[-2]}, but sample "
                f"'{sample.name}' is {width}x{height}"
            )
        return restored


@dataclass(frozen=True, slots=True)
class Row:
    """The score of one entry on one sample."""

    key: str  # hash of everything that determines the score
    entry: str  # name of the entry
    sample: str  # name of the sample
    psnr: float  # PSNR, dB; inf for equal pictures
    ssim: float  # SSIM; NaN if the protocol has none
    seconds: float  # time of restoring, without reading and scoring
    # peak memory of the GPU, bytes; on a CPU the growth of the process, sampled 50 times a second
    memory: int
    width: int  # width of the degraded picture
    height: int  # height of the degraded picture
    error: str = ""  # error message, or ""
    tiles: int = 0  # number of tiles of the picture; 0 if unknown


_ROW = TypeAdapter(Row)
RUNS = 3  # timed runs, of which the median is taken
_SCORING = 2  # changes with the way of scoring, so that rows of earlier versions are not kept


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What to score."""

    dataset: Dataset  # the dataset
    samples: Sequence[Pair]  # all of its samples, or the first ones
    protocol: Protocol  # protocol of the scores
    entries: Sequence[Entry]  # entries to compare
    output: Path  # folder for `rows.jsonl`, reports and pictures
    # whether restored pictures are kept, as PNG, in `output/images/ENTRY`
    save_images: bool = False
    whole: bool = False  # whether `samples` are all samples of the dataset
    table: Table | None = None  # table of a paper to compare with; None for all rows on the dataset
    # (i, n): only every n-th sample from the i-th on, counted from 1, with a separate log, so that
    # n processes can share the work; a run without it merges the logs
    shard: tuple[int, int] | None = None

    @property
    def log(self) -> Path:
        """The file that this process writes rows to."""
        return self.output / (
            "rows-{}-of-{}.jsonl".format(*self.shard) if self.shard else "rows.jsonl"
        )


@dataclass(frozen=True, slots=True)
class Timed:
    """A run time."""

    seconds: float  # median of `RUNS`
    width: int  # width of the input, pixels
    height: int  # height of the input, pixels
    warm_up: int  # number of warm-up runs
    device: str  # device, with the name of a GPU


def make_entry(text: str, options: RestorerOptions, scale: int, suffix: str = "") -> Entry:
    """Load what `parse_entry` describes; `suffix` is added to the name.

    `options` are those of the networks, and `scale`, output pixels per input pixel, is for bicubic.

    Raises:
        UsageError: a name is unknown.
        WeightsError: weights are missing or do not fit.
    """
    name, spec = parse_entry(text, options, scale)
    return Entry(name + suffix + " x8" * spec.options.self_ensemble, spec.load())


def parse_entry(text: str, options: RestorerOptions, scale: int | None) -> tuple[str, PipelineSpec]:
    """Parse `MODEL`, `A+B`, `bicubic`, `MODEL=WEIGHTS` or `LABEL=FILE`, a network of any kind.

    `options` are those of the networks; bicubic alone takes `scale`, and neither TLSC nor
    self-ensemble. Raises `UsageError` or `WeightsError`, as `PipelineSpec.parse`.

    Returns:
        Name of the entry, and its pipeline.
    """
    name, _, weights = text.partition("=")
    alone = name.strip() == BICUBIC
    if alone:  # the options are for the networks beside it
        options = replace(options, self_ensemble=False, tlsc=None)
    if weights and not {*MODELS, BICUBIC} & {one.strip() for one in name.split("+")}:
        return name, PipelineSpec.parse(None, weights, None, options)
    spec = PipelineSpec.parse(name, weights or None, scale if alone else None, options)
    return (text if weights else name), spec


def make_results(text: str, options: RestorerOptions, scale: int) -> Entry:
    """Make an entry for pictures that another program restored, `NAME=DIR`.

    They have the samples' names, with `/` or `_` after a folder. The options are those of the other
    entries, the scale that of the dataset.

    Raises:
        UsageError: there is no name, or two pictures differ only in their suffix.
        NoInputError: the folder has no pictures.
    """
    name, _, place = text.partition("=")
    if not (name and place):
        raise UsageError(f"--results '{text}' is not NAME=DIR", hint="e.g. --results span=out/")
    folder = Path(place)
    found = list_pictures(folder, recursive=True, links=True) if folder.is_dir() else []
    if not found:
        raise NoInputError(
            f"'{folder}' is not a folder of pictures", hint="--results takes restored pictures"
        )
    files = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
    twice = next((path for path in found if path not in files.values()), None)
    if twice:
        raise UsageError(
            f"'{folder}' has two pictures named '{twice.stem}'", hint="keep one of them"
        )
    flat = {name.replace("/", "_"): path for name, path in files.items()}
    return Entry(name, Pipeline(PipelineSpec((), (), scale, options), ()), flat | files)


def models_of_scale(scale: int) -> list[str]:
    """List every model of that scale with default weights, then bicubic.

    At x4 also the default x1 model followed by bicubic, which a network for x4 should beat.
    """
    models = load_manifest().defaults
    chain = [f"{default_model(1)}+{BICUBIC}"] * (scale == default_scale([BICUBIC]))
    return [*(name for name in models if MODELS[name].scale == scale), *chain, BICUBIC]


def check_entries(benchmark: Benchmark) -> None:
    """Raise a `UsageError` if an entry's scale is not the dataset's, or two have the same name."""
    names = [entry.name for entry in benchmark.entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"model '{twice}' is given twice", hint="give each --model once")
    for entry in benchmark.entries:
        if entry.scale != benchmark.dataset.scale:
            raise UsageError(
                f"'{entry.name}' has scale x{entry.scale}, but dataset "
                f"'{benchmark.dataset.name}' has scale x{benchmark.dataset.scale}",
                hint="give models of the dataset's scale; see `restore models`",
            )


def run(
    benchmark: Benchmark,
    report: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Compute all rows, in the order of entries and samples, except those of earlier runs.

    `report` is called with each row. Raises `UsageError` if the output cannot be written.
    """
    try:
        benchmark.output.mkdir(parents=True, exist_ok=True)
        benchmark.log.open("a", encoding="utf-8").close()
    except OSError as error:
        raise UsageError(
            f"cannot write to '{benchmark.output}': {error.strerror}",
            hint="choose another --output",
        ) from error
    logs = sorted(benchmark.output.glob("rows*.jsonl"))
    known = {row.key: row for log in logs for row in read_rows(log) if not row.error}
    rows: list[Row] = []
    with naming(benchmark.log), benchmark.log.open("a", encoding="utf-8") as stream:
        if stream.tell() and not benchmark.log.read_bytes().endswith(b"\n"):
            stream.write("\n")  # the last line was cut off by a crash
        for row, kept in _rows(benchmark, known):
            if not kept:
                stream.write(json.dumps(asdict(row)) + "\n")
                stream.flush()
            rows.append(row)
            report(row)
    return rows


def run_time(entry: Entry, width: int, height: int, warm_up: int) -> Timed:
    """Time the restoring of random pixels, as in the papers, without files.

    The input has `height` x `width` pixels; `warm_up` runs before the timed ones are not counted.
    """
    device = entry.pipeline.options.device
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(warm_up + RUNS):
        begun = time.monotonic()
        entry.pipeline(image)
        settle(device)
        seconds.append(time.monotonic() - begun)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return Timed(
        seconds=statistics.median(seconds[warm_up:]),
        width=width,
        height=height,
        warm_up=warm_up,
        device=f"{device} {name}".strip(),
    )


def read_rows(log: Path) -> list[Row]:
    """Read the rows of an earlier run, without incomplete lines."""
    rows = []
    for line in log.read_text("utf-8", "replace").splitlines() if log.exists() else ():
        try:
            rows.append(_ROW.validate_python(json.loads(line)))  # also with names not in UTF-8
        except (ValueError, TypeError, RecursionError):
            continue
    return rows


def image_path(output: Path, row: Row) -> Path:
    """Name the file of a restored picture in the folder `output`.

    The name depends on weights, options and picture.
    """
    entry, sample = (
        re.sub(r"[^\w.+=-]+", "_", text).lstrip(".").encode()[:200].decode("utf-8", "ignore")
        for text in (row.entry, row.sample)
    )
    return output / "images" / entry / f"{sample}.{row.key[:8]}.png"


def content_hash(samples: Sequence[Pair]) -> str:
    """Return a digest of the names and bytes of all samples."""
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(os.fsencode(f"{sample.name} {_hash(sample.degraded, *sample.references)}\n"))
    return digest.hexdigest()


def load_sample(dataset: Dataset, sample: Pair, protocol: Protocol) -> tuple[Tensor, list[Tensor]]:
    """Read the degraded picture and its references (1, 3, H, W), as the protocol needs them.

    If `dataset.shrink` is above 1, a degraded picture of the reference's size is downscaled by it.
    Raises `PictureError`, see `read_pair`, also if the sizes do not match, or are too small for
    `protocol`.
    """
    degraded, references = read_pair(sample)
    height, width = references[0].shape[-2:]
    if dataset.shrink > 1 and degraded.shape == references[0].shape:
        rows, columns = (side - side % dataset.crop_multiple for side in (height, width))
        degraded, references = (
            degraded[..., :rows, :columns],
            [r[..., :rows, :columns] for r in references],
        )
        small = resize_bicubic(degraded, rows // dataset.shrink, columns // dataset.shrink)
        degraded = quantise(small)
    expected = tuple(side * dataset.scale for side in degraded.shape[-2:])
    if any(tuple(r.shape[-2:]) != expected for r in references):
        (low, high), (height, width) = degraded.shape[-2:], references[0].shape[-2:]
        raise PictureError(
            f"sample '{sample.name}': '{sample.degraded}' is {high}x{low} and "
            f"'{sample.references[0]}' {width}x{height}, which does not match x{dataset.scale}"
        )
    prepared, first = protocol.prepare(degraded, references[0])
    height, width = first.shape[-2:]
    if min(height, width) < protocol.smallest:
        raise PictureError(
            f"sample '{sample.name}' is {width}x{height}, too small for protocol '{protocol.name}'"
        )
    return prepared, [first, *(protocol.prepare(degraded, r)[1] for r in references[1:])]


def _rows(benchmark: Benchmark, known: dict[str, Row]) -> Iterator[tuple[Row, bool]]:
    protocol = benchmark.protocol
    for entry in benchmark.entries:
        dataset = benchmark.dataset
        task = [dataset.scale, dataset.shrink, dataset.crop_multiple]
        identity = json.dumps([_SCORING, entry.identity, asdict(protocol), task], sort_keys=True)
        for sample in benchmark.samples:
            key = hashlib.sha256(os.fsencode(f"{identity} {entry.hash(sample)}")).hexdigest()[:24]
            if key in known:
                # The entry or sample may have had another name.
                row = replace(known[key], entry=entry.name, sample=sample.name)
                if not benchmark.save_images or image_path(benchmark.output, row).exists():
                    yield row, True
                    continue
            yield _score(benchmark, entry, sample, key), False


def _score(benchmark: Benchmark, entry: Entry, sample: Pair, key: str) -> Row:
    try:
        return _score_one(benchmark, entry, sample, key)
    except PictureError as error:
        nothing = float("nan")
        return Row(key, entry.name, sample.name, nothing, nothing, 0.0, 0, 0, 0, str(error))


def _score_one(benchmark: Benchmark, entry: Entry, sample: Pair, key: str) -> Row:
    degraded, references = load_sample(benchmark.dataset, sample, benchmark.protocol)
    device = entry.pipeline.options.device
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    with _PeakMemory() as peak:
        begun = time.monotonic()
        reported = [0]
        restored = entry.restore(
            sample, degraded, benchmark.protocol, lambda _, tiles: reported.append(tiles)
        )
        settle(device)
        seconds = time.monotonic() - begun
    memory = torch.cuda.max_memory_allocated(device) if cuda else peak.bytes
    result = benchmark.protocol.quantise(restored.float().cpu())
    scores = benchmark.protocol.score(result, references)
    height, width = degraded.shape[-2:]
    row = Row(
        key=key,
        entry=entry.name,
        sample=sample.name,
        psnr=scores.psnr,
        ssim=scores.ssim,
        seconds=seconds,
        memory=memory,
        width=width,
        height=height,
        tiles=_tiles(entry, max(reported)),
    )
    if benchmark.save_images:
        write_image(image_path(benchmark.output, row), Picture(result), Encoding())
    return row


def _tiles(entry: Entry, reported: int) -> int:
    """Count the tiles of a picture by the progress of its pipeline; 0 if unknown, as of a chain."""
    if len(entry.pipeline.stages) != 1:
        return 0
    return reported // (8 if entry.pipeline.options.self_ensemble else 1)


class _PeakMemory:
    """Measures the peak growth of this process's memory inside the block."""

    def __enter__(self) -> _PeakMemory:
        self.bytes = 0
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _measure(self) -> None:
        while True:
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._before)
            if self._stopped.wait(0.02):
                return


def _hash(*paths: Path) -> str:
    files = [(path, path.stat()) for path in paths]
    return " ".join(_file_hash(path, file.st_size, file.st_mtime_ns) for path, file in files)


@cache
def _file_hash(path: Path, size: int, modified: int) -> str:
    """Return the sha256 of a file; size and time of modification are keys of the cache."""
    return sha256(path)
