"""From rows to tables: on the terminal, as Markdown, CSV, JSON and one HTML page."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from restore_cli.benchmarking.published import Published, published_on, why_different
from restore_cli.benchmarking.run import Benchmark, Row, content_hash
from restore_cli.version import __version__

BASELINE = "bicubic"


@dataclass(frozen=True, slots=True)
class Summary:
    """One entry over all samples.

    Attributes:
        facts: of the entry: weights, cost, device, options.
        count: samples that were scored.
        failed: samples that could not be.
        psnr: mean, dB.
        ssim: mean.
        gain: mean over the baseline's PSNR; None without one.
        worst: name and gain of the sample that gains least.
        best: likewise of the most.
        seconds: mean a picture.
        memory: largest, bytes.
    """

    facts: dict[str, Any]
    count: int
    failed: int
    psnr: float
    ssim: float
    gain: float | None
    worst: tuple[str, float] | None
    best: tuple[str, float] | None
    seconds: float
    memory: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a reader needs to compare, or to repeat it.

    Attributes:
        dataset: name.
        description: of the dataset.
        data_sha256: of names and bytes of all samples.
        count: samples asked for.
        whole: whether that is all that the dataset has.
        protocol: every convention.
        entries: in the order asked for.
        published: rows of papers; the entry of the same network, or ""; what stands between; its
            PSNR minus the published one.
        rows: every entry on every sample.
        version: of restore.
    """

    dataset: str
    description: str
    data_sha256: str
    count: int
    whole: bool
    protocol: dict[str, Any]
    entries: list[Summary]
    published: list[tuple[Published, str, str, float | None]]
    rows: list[Row]
    version: str = __version__


def summarise(benchmark: Benchmark, rows: Sequence[Row]) -> Report:
    """Means, gains over bicubic where it was asked for, and the published rows beside them."""
    by_entry = {
        entry.name: [r for r in rows if r.entry == entry.name] for entry in benchmark.entries
    }
    baseline = {row.sample: row for row in by_entry.get(BASELINE, ())}
    summaries = [
        _summary(entry.facts(), by_entry[entry.name], baseline if entry.name != BASELINE else {})
        for entry in benchmark.entries
    ]
    dataset, count = benchmark.dataset, len(benchmark.samples)
    published = [
        line for row in published_on(dataset.name) for line in _beside(row, benchmark, summaries)
    ]
    return Report(
        dataset=dataset.name,
        description=dataset.description,
        data_sha256=content_hash(benchmark.samples),
        count=count,
        whole=benchmark.whole,
        protocol=asdict(benchmark.protocol),
        entries=summaries,
        published=published,
        rows=list(rows),
    )


def _beside(
    row: Published, benchmark: Benchmark, summaries: Sequence[Summary]
) -> list[tuple[Published, str, str, float | None]]:
    """A published row beside each entry that is the same network alone; else by itself."""
    same = [
        (entry, summary)
        for entry, summary in zip(benchmark.entries, summaries, strict=True)
        if [fact.model for fact in entry.line.facts] == [row.model] and math.isfinite(summary.psnr)
    ]
    protocol, whole = benchmark.protocol.name, benchmark.whole
    if not same:
        return [(row, "", why_different(row, protocol, whole=whole), None)]
    lines: list[tuple[Published, str, str, float | None]] = []
    for entry, summary in same:
        network = entry.line.facts[0].network
        reason = why_different(
            row,
            protocol,
            whole=whole,
            authors_weights=network is not None and network.imported,
            ensemble=entry.line.options.self_ensemble,
            precision=entry.identity["precision"],
        )
        lines.append((row, entry.name, reason, summary.psnr - row.psnr))
    return lines


def _summary(facts: dict[str, Any], rows: Sequence[Row], baseline: dict[str, Row]) -> Summary:
    good = [row for row in rows if not row.error]
    gains = sorted(
        (row.psnr - baseline[row.sample].psnr, row.sample)
        for row in good
        if row.sample in baseline and math.isfinite(row.psnr)
    )
    return Summary(
        facts=facts,
        count=len(good),
        failed=len(rows) - len(good),
        psnr=_mean([row.psnr for row in good]),
        ssim=_mean([row.ssim for row in good]),
        gain=_mean([gain for gain, _ in gains]) if gains else None,
        worst=(gains[0][1], gains[0][0]) if gains else None,
        best=(gains[-1][1], gains[-1][0]) if gains else None,
        seconds=_mean([row.seconds for row in good]),
        memory=max((row.memory for row in good), default=0),
    )


COLUMNS = (
    "model", "weights", "PSNR", "SSIM", "gain", "least gain", "params", "GMACs", "s", "MiB",
    "device", "precision", "TLSC", "tile",
)  # fmt: skip


def table(report: Report) -> list[tuple[str, ...]]:
    """Measured rows, as text, one a cell of `COLUMNS`."""
    cells: list[tuple[str, ...]] = []
    for entry in report.entries:
        facts = entry.facts
        tile = {None: "auto", 0: "off"}.get(facts["tile"], str(facts["tile"]))
        cells.append(
            (
                facts["name"] + (" x8" if facts["self_ensemble"] else ""),
                facts["weights"],
                _number(entry.psnr, 3),
                _number(entry.ssim, 4),
                f"{entry.gain:+.3f}" if entry.gain is not None else "-",
                f"{entry.worst[1]:+.2f} {entry.worst[0]}" if entry.worst else "-",
                f"{facts['parameters'] / 1e6:.2f} M",
                f"{facts['macs_64x64'] / 1e9:.2f}",
                f"{entry.seconds:.2f}",
                f"{entry.memory / 2**20:.0f}",
                facts["device"],
                facts["precision"],
                facts["tlsc"],
                tile,
            )
        )
    return cells


PUBLISHED_COLUMNS = ("published", "PSNR", "SSIM", "here", "here - there", "what differs", "source")


def published_table(report: Report) -> list[tuple[str, ...]]:
    """Published rows, as text."""
    return [
        (
            row.method,
            f"{row.psnr:.2f}",
            f"{row.ssim:.4f}" if row.ssim is not None else "-",
            entry or "-",
            f"{difference:+.2f}" if difference is not None else "-",
            reason or "nothing known",
            row.source,
        )
        for row, entry, reason, difference in report.published
    ]


def heading(report: Report) -> list[str]:
    """What was measured, and how, in a few lines."""
    part = "all" if report.whole else "a part of its pictures,"
    lines = [
        f"{report.dataset}: {report.description}; {part} {report.count} pictures, "
        f"sha256 {report.data_sha256[:16]}",
        f"protocol {report.protocol['name']}: {report.protocol['description']} "
        f"({report.protocol['source']})",
    ]
    failed = sum(entry.failed for entry in report.entries)
    if failed:
        lines.append(f"{failed} results are missing: see the errors in the rows")
    return lines


def to_markdown(report: Report) -> str:
    """The tables, for a README or a paper's repository."""
    lines = [f"# {report.dataset}", "", *(f"{line}  " for line in heading(report)), ""]
    lines += _markdown_table(COLUMNS, table(report))
    if report.published:
        lines += ["", *_markdown_table(PUBLISHED_COLUMNS, published_table(report))]
    lines += ["", f"restore {report.version}. Seconds and MiB are of this machine, per picture; "]
    lines += ["GMACs for a 64x64 input."]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def to_csv(report: Report) -> str:
    """Every entry on every sample."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("model", "picture", "psnr", "ssim", "seconds", "memory", "width", "height"))
    for row in report.rows:
        writer.writerow(
            (
                row.entry,
                row.sample,
                _number(row.psnr, 4),
                _number(row.ssim, 6),
                f"{row.seconds:.3f}",
                row.memory,
                row.width,
                row.height,
            )
        )
    return stream.getvalue()


def to_json(report: Report) -> str:
    """Everything."""
    values = asdict(report)
    values["published"] = [
        row.model_dump() | {"entry": entry, "what_differs": reason, "here_minus_there": difference}
        for row, entry, reason, difference in report.published
    ]
    return json.dumps(_plain(values), indent=1) + "\n"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else float("nan")


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity: null, and the word."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
