"""Compares published rows with measured ones, and lists possible reasons of the differences."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from restore_cli.benchmarking.protocol import PROTOCOLS
from restore_cli.benchmarking.published import (
    UNSTATED,
    PublishedRow,
    Table,
    ablation_recipes,
    load_published,
    printed,
    published_on,
    size_of,
)
from restore_cli.benchmarking.run import Benchmark, Entry
from restore_cli.datasets.registry import USER_DATA
from restore_cli.models.registry import MODELS

COLUMNS = (
    "published", "PSNR", "SSIM", "size", "s", "here", "here - there", "s here", "what differs",
    "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class PublishedComparison:
    """A published row, and the measurement of the same network."""

    table: Table  # table of the row
    row: PublishedRow  # the published row
    entry: str  # name of the measured entry, or ""
    reason: str  # possible reasons of the difference
    difference: float | None = None  # PSNR here minus there, dB; None if one is missing
    seconds: float | None = None  # run time here, if the row has one

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, one string per column of `COLUMNS`."""
        row, ssim = self.row, self.row.ssim or self.row.ms_ssim
        return (
            label(row),
            printed(row.psnr),
            printed(ssim),
            size_of(row),
            printed(row.time_s),
            self.entry or "-",
            "-" if self.difference is None else f"{self.difference:+.2f}",
            "-" if self.seconds is None else f"{self.seconds:.3g}",
            self.reason or "no known difference",
            source(self.table, row),
        )


def label(row: PublishedRow) -> str:
    """Name the method, with our name of its network and its self-ensemble."""
    network = f": {row.model}" if row.recipe else ""
    return row.method + network + " x8" * bool(row.self_ensemble)


def source(table: Table, row: PublishedRow) -> str:
    """State where the number is printed, and whether it was cited from another paper."""
    where = table.source or f"{table.paper}, {table.title}"
    return where + ", cited there" * row.cited + ", in the text" * row.from_text


def compare(
    benchmark: Benchmark, scores: Mapping[str, float], seconds: Mapping[str, float]
) -> list[PublishedComparison]:
    """Compare the rows of the table, or of the dataset, with every entry of the same network.

    `scores` are the mean PSNR in dB and `seconds` the run time of entries, if it was measured. A
    folder of the user's own has no rows, even if it is named like a dataset.
    """
    table, dataset = benchmark.table, benchmark.dataset
    if table is None and dataset.home == USER_DATA:
        return []
    lines = table.lines() if table else published_on(dataset.name)
    return [one for of, row in lines for one in _compare_row(of, row, benchmark, scores, seconds)]


def _compare_row(
    table: Table,
    row: PublishedRow,
    benchmark: Benchmark,
    scores: Mapping[str, float],
    seconds: Mapping[str, float],
) -> Iterator[PublishedComparison]:
    same = _same(row, [e for e in benchmark.entries if math.isfinite(scores[e.name])])
    if not same:
        yield PublishedComparison(table, row, "", what_differs(table, row, benchmark))
    for entry in same:
        yield PublishedComparison(
            table,
            row,
            entry.name,
            what_differs(table, row, benchmark, entry),
            None if row.psnr is None else scores[entry.name] - float(row.psnr),
            seconds.get(entry.name) if row.time_s is not None else None,
        )


def _same(row: PublishedRow, entries: Sequence[Entry]) -> list[Entry]:
    """Select the entries of the row's network: for an ablation its recipe's, else no ablations.

    Entries with the row's TLSC and self-ensemble are preferred.
    """
    found = []
    for entry in entries:
        if [stage.name for stage in entry.pipeline.stages] != [row.model]:
            continue
        network = entry.pipeline.stages[0].loaded
        recipe = network.recipe if network else ""
        if recipe == row.recipe or (row.is_authors_result and recipe not in ablation_recipes()):
            found.append(entry)
    return [entry for entry in found if not list(_switches(row, entry))] or found


def what_differs(
    table: Table, row: PublishedRow, benchmark: Benchmark, entry: Entry | None = None
) -> str:
    """List possible reasons why a published number and an entry's differ; "" if none is known.

    Without `entry`, the row has no measurement, and the reasons include why.
    """
    reasons = list(_weights(row, entry))
    reasons += _protocol(table, row, benchmark)
    if entry is not None:
        reasons += _switches(row, entry)
        if entry.identity["precision"] != "float32":
            reasons.append(f"precision: {entry.identity['precision']} here")
        if row.time_s is not None and table.timing:
            device = table.timing.device or "an unnamed device"
            reasons.append(f"time: {device} there, {entry.identity['device']} here")
    if table.dataset != benchmark.dataset.name:
        reasons.append(f"data: {benchmark.dataset.name} here, {table.dataset} there")
    if not benchmark.whole:
        reasons.append("data: only a part of the pictures")
    assumed = [name for name in table.assumptions if name != "warm-up" or row.time_s is not None]
    if assumed and not row.protocol:
        reasons.append(f"assumed: {', '.join(assumed)}")
    if row.odd:
        reasons.append(f"contradiction in the papers: {row.odd}")
    return "; ".join(reasons)


def _weights(row: PublishedRow, entry: Entry | None) -> Iterator[str]:
    if not row.model:
        yield "the network is not implemented here"
        return
    if entry is None:
        yield (
            "not measured"
            if row.is_authors_result or not row.recipe
            else f"weights: not available here; run `restore train {row.recipe}`, then use "
            f"--model {row.model}=WEIGHTS"
        )
        return
    network = entry.pipeline.stages[0].loaded
    if network is None:
        return
    if network.config != MODELS[row.model].configs[row.config]:
        named = MODELS[row.model].configs.items()
        same = (f"config {name}" for name, config in named if config == network.config)
        yield f"weights: {next(same, 'another config')} here, config {row.config} there"
    elif not network.imported:
        yield "weights: trained here"
    if row.trained_on:
        yield f"weights: trained on {row.trained_on} there"
    if row.is_authors_result and not network.imported:
        yield how_to_import(row.model)


def how_to_import(model: str) -> str:
    """Return instructions for importing the authors' weights, in one line."""
    theirs = load_published().weights[model]
    if not theirs.file:
        return "its authors published no weights"
    return (
        f"authors' weights ({theirs.home}): run `restore weights import {theirs.file} -o "
        f"{model}.safetensors`, then use --model {model}={model}.safetensors"
    )


def _protocol(table: Table, row: PublishedRow, benchmark: Benchmark) -> Iterator[str]:
    theirs, ours = row.protocol or table.protocol, benchmark.protocol.name
    if theirs == UNSTATED:
        yield "protocol: not stated"
    elif theirs and theirs != ours:
        crops = PROTOCOLS[ours].crop, PROTOCOLS[theirs].crop
        cropped = f", with {crops[0]} px cropped here, {crops[1]} there" * (crops[0] != crops[1])
        yield f"protocol: '{ours}' here, '{theirs}' there{cropped}"


def _switches(row: PublishedRow, entry: Entry) -> Iterator[str]:
    if row.self_ensemble is not None or entry.pipeline.options.self_ensemble:
        here, there = entry.pipeline.options.self_ensemble, bool(row.self_ensemble)
        if here != there:
            yield f"self-ensemble {'here' if here else 'there'}"
    local = entry.pipeline.stages[0].tlsc_window != "off"
    if row.tlsc is not None and row.tlsc != local:
        yield f"TLSC {'here' if local else 'there'}"
