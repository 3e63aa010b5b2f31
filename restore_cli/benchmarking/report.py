"""Summaries of scored rows, as tables for the terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np

from restore_cli.benchmarking.comparison import COLUMNS as PUBLISHED_COLUMNS
from restore_cli.benchmarking.comparison import PublishedComparison, compare, label, source
from restore_cli.benchmarking.run import RUNS, Benchmark, Row, Timed, content_hash
from restore_cli.datasets.registry import VIDEOS
from restore_cli.formatting import format_count
from restore_cli.inference.stages import BICUBIC
from restore_cli.version import __version__

_SAMPLES = 10_000  # drawn with replacement
_LEAST = 5  # pictures, below which an interval says little


@dataclass(frozen=True, slots=True)
class Difference:
    """PSNR of one entry above that of another one on the same pictures."""

    better: str  # name of the entry with the higher mean
    worse: str  # name of the other one
    mean: float  # mean difference, dB
    low: float  # lower end of the 95 % interval of the mean, dB
    high: float  # its upper end
    wins: int  # number of pictures on which `better` is better
    count: int  # number of pictures

    def __str__(self) -> str:
        return (
            f"{self.better} over {self.worse}: {self.mean:+.2f} dB, 95 % interval {self.low:+.2f} "
            f"to {self.high:+.2f}, better on {self.wins} of {self.count} pictures"
        )


@dataclass(frozen=True, slots=True)
class EntrySummary:
    """The scores of one entry over all samples."""

    facts: dict[str, Any]  # facts of the entry: weights, cost, device, options
    count: int  # number of scored samples
    failed: int  # number of samples with errors
    psnr: float  # mean PSNR, dB
    ssim: float  # mean SSIM
    gain: float | None  # mean gain over the baseline's PSNR, dB; None without a baseline
    worst: tuple[str, float] | None  # name and gain of the sample with the smallest gain
    # name and gain of the sample with the largest gain; None with a single sample
    best: tuple[str, float] | None
    seconds: float  # mean time per picture
    memory: int  # peak memory, bytes
    groups: dict[str, float]  # mean PSNR of each group of the dataset, dB
    tiles: int  # largest number of tiles of a picture; 0 if unknown
    timed: Timed | None = None  # run time measured as in the table's paper, or None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything needed to compare or reproduce a benchmark."""

    dataset: str  # name of the dataset
    description: str  # description of the dataset
    data_sha256: str  # sha256 of the names and bytes of all samples
    count: int  # number of requested samples
    whole: bool  # whether these are all samples of the dataset
    protocol: dict[str, Any]  # conventions of the scores
    entries: list[EntrySummary]  # summaries in the requested order
    published: list[PublishedComparison]  # comparisons with rows of papers
    rows: list[Row]  # scores of every entry on every sample
    # each entry against the next lower one, on the pictures that all have
    differences: tuple[Difference, ...] = ()
    table: str = ""  # name of the paper's table, or ""
    notes: tuple[str, ...] = ()  # notes of the paper, and assumptions where it is not specific
    version: str = __version__  # version of restore


def summarise(benchmark: Benchmark, rows: Sequence[Row], timed: Mapping[str, Timed]) -> Report:
    """Summarise a benchmark: means, gains over bicubic if it is an entry, and published rows.

    `rows` are those of all entries, and `timed` holds the run times by entry, if the table has any.
    """
    by_entry = {
        entry.name: [r for r in rows if r.entry == entry.name] for entry in benchmark.entries
    }
    baseline = {row.sample: row for row in by_entry.get(BICUBIC, ())}
    group_of = {sample.name: sample.group for sample in benchmark.samples if sample.group}
    summaries = {
        entry.name: _summary(
            entry.facts(),
            by_entry[entry.name],
            baseline if entry.name != BICUBIC else {},
            group_of,
            timed.get(entry.name),
        )
        for entry in benchmark.entries
    }
    scores = {name: summary.psnr for name, summary in summaries.items()}
    seconds = {
        name: summary.timed.seconds if summary.timed else summary.seconds
        for name, summary in summaries.items()
    }
    dataset, count, table = benchmark.dataset, len(benchmark.samples), benchmark.table
    notes: list[str] = []
    if table:
        notes = [table.note] if table.note else []
        notes += [f"assumed, --{option}: {text}" for option, text in table.assumptions.items()]
    return Report(
        dataset=dataset.name,
        description=dataset.description,
        data_sha256=content_hash(benchmark.samples),
        count=count,
        whole=benchmark.whole,
        protocol=asdict(benchmark.protocol),
        entries=list(summaries.values()),
        published=compare(benchmark, scores, seconds),
        rows=list(rows),
        differences=tuple(differences(by_entry)),
        table=table.name if table else "",
        notes=tuple(notes),
    )


def differences(rows: Mapping[str, Sequence[Row]]) -> list[Difference]:
    """Compare each entry, named by the key, with the next lower one, by the paired bootstrap.

    The interval is that of percentiles.
    """
    scores = {name: {r.sample: r.psnr for r in own if not r.error} for name, own in rows.items()}
    finite = {
        name: {sample: psnr for sample, psnr in own.items() if math.isfinite(psnr)}
        for name, own in scores.items()
    }
    common = set.intersection(*(set(own) for own in finite.values())) if finite else set()
    if len(common) < _LEAST:
        return []
    names = sorted(common)
    values = {name: np.array([own[sample] for sample in names]) for name, own in finite.items()}
    ranked = sorted(values, key=lambda name: -values[name].mean())
    drawn = np.random.default_rng(0).integers(0, len(names), (_SAMPLES, len(names)))
    found = []
    for better, worse in pairwise(ranked):
        gains = values[better] - values[worse]
        low, high = np.percentile(gains[drawn].mean(1), (2.5, 97.5))
        wins = int((gains > 0).sum())
        mean = float(gains.mean())
        found.append(Difference(better, worse, mean, float(low), float(high), wins, len(names)))
    return found


def _summary(
    facts: dict[str, Any],
    rows: Sequence[Row],
    baseline: dict[str, Row],
    group_of: Mapping[str, str],
    timed: Timed | None,
) -> EntrySummary:
    good = [row for row in rows if not row.error]
    gains = sorted(
        (row.psnr - baseline[row.sample].psnr, row.sample)
        for row in good
        if row.sample in baseline and math.isfinite(baseline[row.sample].psnr)
    )
    return EntrySummary(
        facts=facts,
        count=len(good),
        failed=len(rows) - len(good),
        psnr=_mean([row.psnr for row in good]),
        ssim=_mean([row.ssim for row in good]),
        gain=_mean([gain for gain, _ in gains]) if gains else None,
        worst=(gains[0][1], gains[0][0]) if gains else None,
        best=(gains[-1][1], gains[-1][0]) if len(gains) > 1 else None,
        seconds=_mean([row.seconds for row in good]),
        memory=max((row.memory for row in good), default=0),
        groups={
            group: _mean([row.psnr for row in good if group_of.get(row.sample) == group])
            for group in dict.fromkeys(group_of.values())
        },
        tiles=max((row.tiles for row in good), default=0),
        timed=timed,
    )


COLUMNS = (
    "model", "PSNR", "SSIM", "gain", "least gain", "params", "s", "MiB",
    "weights", "GMACs", "device", "precision", "TLSC", "tile",
)  # fmt: skip
SCORE_COLUMNS = 8  # the first columns are scores and costs, the others are settings


def table(report: Report) -> list[tuple[str, ...]]:
    """Return the measured rows as text, one string per column of `COLUMNS`."""
    cells: list[tuple[str, ...]] = []
    for entry in report.entries:
        facts = entry.facts
        costs = ["-"] * 4  # unknown for another program's results
        if facts["parameters"] is not None:
            costs = [
                f"{facts['parameters'] / 1e6:.2f} M",
                _number(entry.seconds, 2),
                f"{entry.memory / 2**20:.0f}",
                f"{facts['macs_64x64'] / 1e9:.2f}",
            ]
        tile = {None: "auto", 0: "off"}.get(facts["tile"], str(facts["tile"]))
        if entry.tiles:
            tile += " (whole)" if entry.tiles == 1 else f" (up to {entry.tiles} tiles)"
        part = f" ({entry.count} of {report.count})" * bool(entry.failed)  # another mean
        cells.append(
            (
                f"{facts['name']}{part}",
                _number(entry.psnr, 3),
                _number(entry.ssim, 4),
                f"{entry.gain:+.3f}" if entry.gain is not None else "-",
                f"{entry.worst[1]:+.2f} {entry.worst[0]}" if entry.worst else "-",
                *costs[:3],
                facts["weights"],
                costs[3],
                facts["device"],
                facts["precision"],
                facts["tlsc"],
                tile,
            )
        )
    return cells


def published_table(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return the non-empty columns, and the published rows as text."""
    rows = [one.cells() for one in report.published]
    kept = [n for n in range(len(PUBLISHED_COLUMNS)) if any(row[n] != "-" for row in rows)]
    return tuple(PUBLISHED_COLUMNS[n] for n in kept), [tuple(row[n] for n in kept) for row in rows]


def groups_table(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """List columns and rows of the published and measured PSNR per group; empty without groups."""
    groups = list(dict.fromkeys(name for entry in report.entries for name in entry.groups))
    if not groups:
        return (), []
    rows = [
        (label(one.row), *(str(one.row.psnr_per_video[VIDEOS.index(name)]) for name in groups))
        for one in report.published
        if one.row.psnr_per_video
    ]
    rows += [
        (f"here: {entry.facts['name']}", *(_number(entry.groups[name], 2) for name in groups))
        for entry in report.entries
    ]
    return ("PSNR of", *groups), rows


def heading(report: Report) -> list[str]:
    """State in a few lines what was measured, and how."""
    count = format_count(report.count, "picture")
    part = f"all {count}" if report.whole else f"{report.count:,} of its pictures"
    lines = [
        f"{report.dataset}: {report.description}; {part}, sha256 {report.data_sha256[:16]}",
        f"protocol {report.protocol['name']}: {report.protocol['description']} "
        f"({report.protocol['source']})",
    ]
    lines += report.notes
    for entry in report.entries:
        if timed := entry.timed:
            lines.append(
                f"{entry.facts['name']}: {timed.seconds:.3g} s for {timed.width}x{timed.height} on "
                f"{timed.device}, median of {RUNS} runs after "
                f"{format_count(timed.warm_up, 'warm-up run')}"
            )
    lines += map(str, report.differences)
    failed = sum(entry.failed for entry in report.entries)
    if failed:
        lines.append(f"{format_count(failed, 'result')} missing: see the errors in the rows")
    return lines


def to_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [
        f"# {report.table or report.dataset}",
        "",
        *(f"{line}  " for line in heading(report)),
        "",
    ]
    lines += markdown_table(COLUMNS, table(report))
    for columns, rows in (published_table(report), groups_table(report)):
        if rows:
            lines += ["", *markdown_table(columns, rows)]
    errors = sorted({row.error for row in report.rows if row.error})
    lines += ["", *(f"- {error}" for error in errors)] if errors else []
    lines += ["", f"restore {report.version}. Seconds and MiB are per picture, on this machine;"]
    lines += ["GMACs are for a 64x64 input."]
    return "\n".join(line.rstrip() for line in lines) + "\n"


_CSV: dict[str, Callable[[Row], object]] = {
    "model": lambda row: row.entry,
    "picture": lambda row: row.sample,
    "psnr": lambda row: _number(row.psnr, 4),
    "ssim": lambda row: _number(row.ssim, 6),
    "seconds": lambda row: f"{row.seconds:.3f}",
    "memory": lambda row: row.memory,
    "width": lambda row: row.width,
    "height": lambda row: row.height,
    "error": lambda row: row.error,
}


def to_csv(report: Report) -> str:
    """Return the report as CSV: a row per entry and sample."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_CSV)
    writer.writerows([value_of(row) for value_of in _CSV.values()] for row in report.rows)
    return stream.getvalue()


def to_json(report: Report) -> str:
    """Return the whole report as JSON."""
    values = asdict(report)
    values["published"] = [
        one.row.model_dump(exclude_defaults=True)
        | {
            "table": one.table.name,
            "source": source(one.table, one.row),
            "entry": one.entry,
            "what_differs": one.reason,
            "here_minus_there": one.difference,
            "seconds_here": one.seconds,
        }
        for one in report.published
    ]
    return json.dumps(_plain(values), indent=1) + "\n"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table.

    `columns` are the titles, and each of `rows` has a cell for every one. In cells, `|` is escaped,
    and line breaks become spaces.
    """
    cells = [[re.sub(r"\s", " ", cell).replace("|", r"\|") for cell in row] for row in rows]
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in cells),
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else float("nan")


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(value: Any) -> Any:
    """Convert what JSON lacks: NaN to null, infinity to "inf", decimals to floats."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
