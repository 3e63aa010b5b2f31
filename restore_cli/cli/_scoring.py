"""What `restore benchmark` does once it knows what: find, score, report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.errors import NoInputError

if TYPE_CHECKING:
    from restore_cli.benchmarking.datasets import Dataset, Sample
    from restore_cli.benchmarking.published import Table
    from restore_cli.benchmarking.report import Report
    from restore_cli.benchmarking.run import Benchmark, Entry, Row
    from restore_cli.benchmarking.timing import Timed
    from restore_cli.inference.restorer import RestorerOptions


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, but for dataset and table."""

    models: tuple[str, ...]
    protocol: str | None
    options: RestorerOptions
    self_ensemble: bool | None
    data_root: Path
    fetch: bool
    output: Path | None
    formats: tuple[str, ...]
    save_images: bool
    limit: int | None
    shard: str | None
    warm_up: int
    as_json: bool
    quiet: bool


def score_dataset(request: Request, name: str) -> bool:
    """Score the models on a dataset; whether everything could be."""
    options = dataclasses.replace(request.options, self_ensemble=bool(request.self_ensemble))
    dataset, folder = _dataset(name, request.data_root, _scale(request.models))
    entries = [entry_of(text, options, dataset.scale) for text in request.models]
    place = request.output or Path(f"benchmark-{dataset.name}")
    return _score(request, dataset, folder, entries, place)


def score_table(request: Request, name: str, dataset_name: str | None) -> bool:
    """Measure a paper's table, or print one of which nothing can be; whether all of it worked.

    Raises:
        NoInputError: the pictures of none of its parts are there.
    """
    from restore_cli.benchmarking.datasets import DATASETS
    from restore_cli.benchmarking.published import get_table
    from restore_cli.benchmarking.tables import parts

    measured = parts(name, dataset_name)
    if not measured:
        for table in get_table(name):
            _print(table, as_json=request.as_json, quiet=request.quiet)
        return True
    place = request.output or Path(f"benchmark-{name.replace('/', '-')}")
    good, missing = True, []
    for table in measured:
        own = place if len(measured) == 1 else place / table.dataset
        scale = DATASETS[table.dataset].scale
        dataset, folder = _dataset(dataset_name or table.dataset, request.data_root, scale)
        entries = _entries(request, table, dataset.scale)
        try:
            good &= _score(request, dataset, folder, entries, own, table)
        except NoInputError as error:
            if len(measured) == 1:
                raise
            missing.append(error)
            out.talk(f"warning: {name} without {dataset.name}: {error}")
    if len(missing) == len(measured):
        raise missing[0]
    return good


def entry_of(text: str, options: RestorerOptions, scale: int, suffix: str = "") -> Entry:
    """`MODEL`, `A+B`, `bicubic` or `MODEL=WEIGHTS`."""
    from restore_cli.benchmarking.run import Entry
    from restore_cli.inference.pipeline import PipelineSpec
    from restore_cli.inference.stages import BICUBIC

    name, _, weights = text.partition("=")
    alone = name.strip() == BICUBIC
    if alone:  # it does the same in every pose
        options = dataclasses.replace(options, self_ensemble=False)
    spec = PipelineSpec.parse(name, weights or None, scale if alone else None, options)
    suffix += " x8" * options.self_ensemble
    return Entry((text if weights else name) + suffix, spec.load())


def _entries(request: Request, table: Table, scale: int) -> list[Entry]:
    """The table's networks with its switches, then what else was asked for; bicubic last."""
    from restore_cli.benchmarking.tables import wanted
    from restore_cli.inference.stages import BICUBIC

    found: dict[tuple[str, RestorerOptions], Entry] = {}
    for one in wanted(table):
        options = one.options(request.options, request.self_ensemble)
        mine = [text for text in request.models if text.partition("=")[0] == one.model]
        for text in mine or [one.model]:
            if (text, options) not in found:
                suffix = " no TLSC" * (options.tlsc is False)
                found[text, options] = entry_of(text, options, scale, suffix)
    named = {one.model for one in wanted(table)} | {BICUBIC}
    options = dataclasses.replace(request.options, self_ensemble=bool(request.self_ensemble))
    rest = [text for text in request.models if text.partition("=")[0] not in named]
    others = [entry_of(text, options, scale) for text in (*rest, BICUBIC)]
    return [*found.values(), *others]


def _score(
    request: Request,
    dataset: Dataset,
    folder: Path | None,
    entries: list[Entry],
    place: Path,
    table: Table | None = None,
) -> bool:
    """Score, show and write; whether no picture failed."""
    from restore_cli.benchmarking.protocol import get_protocol
    from restore_cli.benchmarking.report import summarise
    from restore_cli.benchmarking.run import Benchmark, check

    usual = (table and table.protocol) or dataset.protocol
    job = Benchmark(
        dataset=dataset,
        samples=(),
        protocol=get_protocol(request.protocol or usual),
        entries=entries,
        output=place,
        save_images=request.save_images or "html" in request.formats,
        table=table,
    )
    check(job)
    found = _samples(
        dataset, folder or place / "pictures", fetch=request.fetch, quiet=request.quiet
    )
    whole = len(found) == (dataset.count or len(found))
    if not whole and not request.quiet:
        out.talk(
            f"warning: {len(found)} of the {dataset.count} pictures of {dataset.name} are there"
        )
    part = opt.parse_shard(request.shard) if request.shard else None
    first, step = part or (1, 1)
    samples = found[: request.limit][first - 1 :: step]
    whole = whole and len(samples) == len(found)
    job = dataclasses.replace(job, samples=samples, shard=part, whole=whole)
    rows = _run(job, quiet=request.quiet)
    timed = _timed(job, request.warm_up) if part is None else {}
    report = summarise(job, rows, timed)
    _show(report, as_json=request.as_json, quiet=request.quiet)
    if part is None:
        _write(job, report, request.formats, quiet=request.quiet)
    return not any(row.error for row in rows)


def _run(job: Benchmark, *, quiet: bool) -> list[Row]:
    """Score everything under a progress bar."""
    from restore_cli.benchmarking.run import run

    with out.progress_bar(quiet=quiet, unit="pictures") as bar:
        task = bar.add_task("", total=len(job.samples) * len(job.entries))

        def report(row: Row, kept: bool) -> None:
            bar.update(task, advance=1, description=f"{row.entry}: {row.sample}")
            if row.error:
                out.talk(f"error: {row.error}")

        return run(job, report)


def _timed(job: Benchmark, warm_up: int) -> dict[str, Timed]:
    """Run times of the networks alone, where the paper has some at one size."""
    from restore_cli.benchmarking.timing import run_time

    timing = job.table.timing if job.table else None
    if timing is None or timing.width is None or timing.height is None:
        return {}
    return {
        entry.name: run_time(entry, timing.width, timing.height, warm_up)
        for entry in job.entries
        if any(fact.weights for fact in entry.line.facts) and not entry.line.options.self_ensemble
    }


def _scale(models: tuple[str, ...]) -> int:
    """Of the first that has a network, for a folder of pairs: bicubic alone says nothing."""
    from restore_cli.inference.pipeline import own_scale, split_names
    from restore_cli.inference.stages import BICUBIC

    lines = [split_names(text.partition("=")[0]) for text in models]
    return own_scale(next((names for names in lines if names != (BICUBIC,)), lines[0]))


def _dataset(name: str, root: Path, scale: int) -> tuple[Dataset, Path | None]:
    """The dataset and its folder; None for one that is made where the reports go."""
    from restore_cli.benchmarking.datasets import get_dataset
    from restore_cli.benchmarking.miniature import MINIATURES

    if name in MINIATURES:
        return MINIATURES[name], None
    found = get_dataset(name, Path(name), scale)
    return found, Path(name) if found.home == "your own" else found.folder(root)


def _samples(dataset: Dataset, folder: Path, *, fetch: bool, quiet: bool) -> list[Sample]:
    from restore_cli.benchmarking.datasets import find_samples
    from restore_cli.benchmarking.fetch import fetch as fetch_dataset
    from restore_cli.benchmarking.miniature import MINIATURES, make

    if dataset.name in MINIATURES:
        make(dataset, folder)
    elif fetch:
        fetch_dataset(dataset, folder, out.talk if not quiet else lambda message: None)
    return find_samples(dataset, folder)


def _write(job: Benchmark, report: Report, formats: tuple[str, ...], *, quiet: bool) -> None:
    from restore_cli.benchmarking.page import to_html
    from restore_cli.benchmarking.report import to_csv, to_json, to_markdown
    from restore_cli.files import write_then_rename

    makers = {
        "html": lambda: to_html(job, report),
        "md": lambda: to_markdown(report),
        "csv": lambda: to_csv(report),
        "json": lambda: to_json(report),
    }
    for name in formats:
        with write_then_rename(job.output / f"report.{name}") as temporary:
            temporary.write_text(makers[name](), "utf-8", errors="backslashreplace")
        if not quiet:
            out.talk(f"written: {job.output / f'report.{name}'}")


def _show(report: Report, *, as_json: bool, quiet: bool) -> None:
    from restore_cli.benchmarking.beside import COLUMNS as PUBLISHED_COLUMNS
    from restore_cli.benchmarking.report import (
        COLUMNS,
        groups_table,
        heading,
        table,
        to_json,
    )

    if as_json:
        import json

        out.data_json(json.loads(to_json(report)))
        return
    if not quiet:
        for line in heading(report):
            out.talk(line)
    out.table(COLUMNS, table(report))
    if report.published:
        out.table(PUBLISHED_COLUMNS, [one.cells() for one in report.published])
    columns, groups = groups_table(report)
    if groups:
        out.table(columns, groups)


def _print(table: Table, *, as_json: bool, quiet: bool) -> None:
    """A table of which nothing can be measured: sizes of sets, single pictures, running text."""
    from restore_cli.benchmarking.published import columns_of, rows_of

    if as_json:
        out.data_json(table.model_dump(mode="json", exclude_defaults=True))
        return
    if not quiet:
        out.talk(f"{table.name} ({table.kind}) is printed, not measured. {table.note}")
    out.table(columns_of(table), rows_of(table))
