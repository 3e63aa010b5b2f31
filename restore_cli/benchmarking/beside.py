"""Published rows beside measured ones, each difference with what may make it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from restore_cli.benchmarking.protocol import PROTOCOLS
from restore_cli.benchmarking.published import (
    UNSTATED,
    Published,
    Table,
    ablation_recipes,
    authors_weights,
    printed,
    published_on,
    size_of,
)
from restore_cli.benchmarking.run import Benchmark, Entry
from restore_cli.models.registry import MODELS

COLUMNS = (
    "published", "PSNR", "SSIM", "size", "s", "here", "here - there", "s here", "what differs",
    "source",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Beside:
    """A published row, and what was measured of the same network.

    Attributes:
        table: that the row is of.
        row: as published.
        entry: name of the measured one, or "".
        reason: what stands between the two.
        difference: PSNR here minus there, dB; None where one is missing.
        seconds: run time here, where the row has one.
    """

    table: Table
    row: Published
    entry: str
    reason: str
    difference: float | None = None
    seconds: float | None = None

    def cells(self) -> tuple[str, ...]:
        """The row as text, one string per column of `COLUMNS`."""
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
            self.reason or "nothing known",
            source(self.table, row),
        )


def label(row: Published) -> str:
    """The method, with our name of its network and its switches."""
    network = f": {row.model}" if row.recipe else ""
    return row.method + network + " x8" * bool(row.self_ensemble)


def source(table: Table, row: Published) -> str:
    """Where the number stands, and whether it was taken over from another paper."""
    where = table.source or f"{table.paper}, {table.title}"
    return where + ", cited there" * row.cited + ", in the text" * row.from_text


def beside(
    benchmark: Benchmark, scores: Mapping[str, float], seconds: Mapping[str, float]
) -> list[Beside]:
    """The rows of the table, or of the dataset, each beside every entry of the same network.

    Args:
        benchmark: what was scored.
        scores: mean PSNR by entry, dB.
        seconds: run time by entry, where it was taken.
    """
    table, dataset = benchmark.table, benchmark.dataset.name
    lines = table.lines() if table else published_on(dataset)
    return [one for of, row in lines for one in _of_row(of, row, benchmark, scores, seconds)]


def _of_row(
    table: Table,
    row: Published,
    benchmark: Benchmark,
    scores: Mapping[str, float],
    seconds: Mapping[str, float],
) -> Iterator[Beside]:
    same = _same(row, [e for e in benchmark.entries if math.isfinite(scores[e.name])])
    if not same:
        yield Beside(table, row, "", what_differs(table, row, benchmark))
    for entry in same:
        yield Beside(
            table,
            row,
            entry.name,
            what_differs(table, row, benchmark, entry),
            None if row.psnr is None else scores[entry.name] - float(row.psnr),
            seconds.get(entry.name) if row.time_s is not None else None,
        )


def _same(row: Published, entries: Sequence[Entry]) -> list[Entry]:
    """Entries that are the row's network: an ablation's by its recipe, else any that is none.

    Those with the row's switches, where there are such.
    """
    found = []
    for entry in entries:
        if [fact.model for fact in entry.pipeline.facts] != [row.model]:
            continue
        network = entry.pipeline.facts[0].network
        recipe = network.recipe if network else ""
        if recipe == row.recipe or (row.own and recipe not in ablation_recipes()):
            found.append(entry)
    return [entry for entry in found if not list(_switches(row, entry))] or found


def what_differs(
    table: Table, row: Published, benchmark: Benchmark, entry: Entry | None = None
) -> str:
    """What stands between a published number and one measured here; "" if nothing is known to.

    Args:
        table: of the row.
        row: the published one.
        benchmark: what was measured.
        entry: of the same network, if there is one.
    """
    reasons = list(_weights(row, entry))
    reasons += _protocol(table, row, benchmark)
    if entry is not None:
        reasons += _switches(row, entry)
        if entry.identity["precision"] != "float32":
            reasons.append(f"precision: {entry.identity['precision']} here")
        if row.time_s is not None and table.timing:
            device = table.timing.device or "a device that is not named"
            reasons.append(f"time: {device} there, {entry.identity['device']} here")
    if table.dataset != benchmark.dataset.name:
        reasons.append(f"data: {benchmark.dataset.name} here, {table.dataset} there")
    if not benchmark.whole:
        reasons.append("data: only a part of the pictures")
    assumed = [name for name in table.assumptions if name != "warm-up" or row.time_s is not None]
    if assumed and not row.protocol:
        reasons.append(f"assumed: {', '.join(assumed)}")
    if row.odd:
        reasons.append(f"the papers: {row.odd}")
    return "; ".join(reasons)


def _weights(row: Published, entry: Entry | None) -> Iterator[str]:
    if not row.model:
        yield "a network that is not here"
        return
    if entry is None:
        yield (
            "not asked for"
            if row.own or not row.recipe
            else f"weights: none here; restore train {row.recipe}, then --model {row.model}=WEIGHTS"
        )
        return
    network = entry.pipeline.facts[0].network
    if network is None:
        return
    if network.config != MODELS[row.model].configs[row.config]:
        named = MODELS[row.model].configs.items()
        ours = next((name for name, config in named if config == network.config), "another")
        yield f"weights: of config {ours}, not {row.config}"
    elif not network.imported:
        yield "weights: trained here"
    if row.trained_on:
        yield f"weights: trained on {row.trained_on} there"
    if row.own and not network.imported:
        yield how_to_import(row.model)


def how_to_import(model: str) -> str:
    """What makes the authors' weights ours, in a line."""
    theirs = authors_weights()[model]
    if not theirs.file:
        return "its authors published no weights"
    return (
        f"theirs: restore weights import {theirs.file} -o {model}.safetensors ({theirs.home}), "
        f"then --model {model}={model}.safetensors"
    )


def _protocol(table: Table, row: Published, benchmark: Benchmark) -> Iterator[str]:
    theirs, ours = row.protocol or table.protocol, benchmark.protocol.name
    if theirs == UNSTATED:
        yield "protocol: not stated"
    elif theirs and theirs != ours:
        crops = PROTOCOLS[ours].crop, PROTOCOLS[theirs].crop
        cropped = f", {crops[0]} px cropped here, {crops[1]} there" * (crops[0] != crops[1])
        yield f"protocol: measured by '{ours}', published by '{theirs}'{cropped}"


def _switches(row: Published, entry: Entry) -> Iterator[str]:
    if row.self_ensemble is not None or entry.pipeline.options.self_ensemble:
        here, there = entry.pipeline.options.self_ensemble, bool(row.self_ensemble)
        if here != there:
            yield f"self-ensemble {'here' if here else 'there'}"
    local = entry.pipeline.facts[0].tlsc != "off"
    if row.tlsc is not None and row.tlsc != local:
        yield f"TLSC {'here' if local else 'there'}"
