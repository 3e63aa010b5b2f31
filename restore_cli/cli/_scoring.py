"""The work of `restore benchmark`: find pictures, score models, write reports."""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import print_error
from restore_cli.cli._terminal import Bar, is_terminal
from restore_cli.errors import NoInputError, RestoreError, UsageError, lookup, unknown_name
from restore_cli.files import check_writable

if TYPE_CHECKING:
    from restore_cli.benchmarking.published import Table
    from restore_cli.benchmarking.report import Report
    from restore_cli.benchmarking.run import Benchmark, Entry, Row, Timed
    from restore_cli.datasets.layouts import Pair
    from restore_cli.datasets.registry import Dataset
    from restore_cli.inference.restorer import RestorerOptions


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """The options of `restore benchmark` except dataset and table."""

    models: tuple[str, ...]
    results: tuple[str, ...]
    protocol: str | None
    options: RestorerOptions
    self_ensemble: bool | None
    data_root: Path | None
    fetch: bool
    output: Path | None
    formats: tuple[str, ...]
    save_images: bool
    limit: int | None
    shard: str | None
    warm_up: int
    json: bool
    documents: list[Any] = field(default_factory=list)  # to print, with --json


def score_photos(
    request: ScoringRequest,
    recipe_name: str,
    paths: list[Path],
    *,
    seed: int,
    side: int | None,
    motion: bool,
) -> bool:
    """Degrade sharp pictures, score the models (or all), and return whether none failed."""
    from restore_cli.benchmarking.run import make_entry, models_of_scale
    from restore_cli.datasets.degraded import degraded
    from restore_cli.degradations.recipe import load_degradation
    from restore_cli.inference.stages import BICUBIC
    from restore_cli.jobs.inputs import pictures

    recipe = load_degradation(recipe_name)
    # Not in natural order: the released scores were measured in this order.
    photos = [photo for path in paths for photo in sorted(pictures(path))][: request.limit]
    if not photos:
        raise NoInputError("--degrade has no sharp pictures", hint="add a folder of photos")
    dataset = degraded(photos, recipe, seed=seed, side=side, motion=motion)
    names = request.models or models_of_scale(recipe.scale)
    names = [*names, *(() if BICUBIC in names else (BICUBIC,))]
    entries = [make_entry(text, request.options, recipe.scale) for text in names]
    place = _place(request, dataset.name)
    return _score(request, dataset, None, entries, place)


def score_dataset(request: ScoringRequest, name: str) -> bool:
    """Score the models on a dataset, and return whether no picture failed."""
    from restore_cli.benchmarking.run import make_entry, make_results

    dataset, folder = _dataset(name, request, _scale(request))
    entries = [make_entry(text, request.options, dataset.scale) for text in request.models]
    entries += [make_results(text, request.options, dataset.scale) for text in request.results]
    place = _place(request, dataset.name)
    return _score(request, dataset, folder, entries, place)


def score_table(request: ScoringRequest, name: str, dataset_name: str | None) -> bool:
    """Measure a published table, or print it if it cannot be; return whether nothing failed.

    Raises `NoInputError` if the pictures of all of its parts are missing.
    """
    from restore_cli.benchmarking.published import get_table, table_parts
    from restore_cli.datasets.registry import DATASETS

    measured = table_parts(name, dataset_name)
    if not measured:
        for table in get_table(name):
            _print(table, request)
        return True
    place = _place(request, name)
    good, missing = True, []
    for table in measured:
        own = place if len(measured) == 1 else place / table.dataset
        scale = DATASETS[table.dataset].scale
        dataset, folder = _dataset(dataset_name or table.dataset, request, scale)
        entries = _entries(request, table, dataset.scale)
        try:
            good &= _score(request, dataset, folder, entries, own, table)
        except NoInputError as error:
            if len(measured) == 1:
                raise
            missing.append(error)
            out.echo_err(f"warning: {name}: {dataset.name} is left out: {error}")
    if len(missing) == len(measured):
        raise missing[0]
    return good


def _entries(request: ScoringRequest, table: Table, scale: int) -> list[Entry]:
    """List the table's networks with its options, then other requested ones; bicubic last."""
    from restore_cli.benchmarking.run import make_entry
    from restore_cli.inference.stages import BICUBIC

    found: dict[tuple[str, RestorerOptions], Entry] = {}
    rows = [row for _, row in table.lines() if row.is_authors_result]
    given = request.options
    for row in rows:
        options = dataclasses.replace(
            given,
            tlsc=row.tlsc if given.tlsc is None else given.tlsc,
            self_ensemble=bool(row.self_ensemble)
            if request.self_ensemble is None
            else request.self_ensemble,
        )
        mine = [text for text in request.models if text.partition("=")[0] == row.model]
        for text in mine or [row.model]:
            if (text, options) not in found:
                suffix = " no TLSC" * (options.tlsc is False)
                found[text, options] = make_entry(text, options, scale, suffix)
    named = {row.model for row in rows} | {BICUBIC}
    rest = [text for text in request.models if text.partition("=")[0] not in named]
    others = [make_entry(text, request.options, scale) for text in (*rest, BICUBIC)]
    return [*found.values(), *others]


def _score(
    request: ScoringRequest,
    dataset: Dataset,
    folder: Path | None,
    entries: list[Entry],
    place: Path,
    table: Table | None = None,
) -> bool:
    """Score, print and write reports; return whether no picture failed."""
    from restore_cli.benchmarking.protocol import PROTOCOLS
    from restore_cli.benchmarking.report import summarise
    from restore_cli.benchmarking.run import Benchmark, check_entries

    usual = (table and table.protocol) or dataset.protocol
    job = Benchmark(
        dataset=dataset,
        samples=(),
        protocol=lookup("protocol", request.protocol or usual, PROTOCOLS),
        entries=entries,
        output=place,
        save_images=request.save_images or "html" in request.formats,
        table=table,
    )
    check_entries(job)
    check_writable(place)
    found, failed = _samples(dataset, folder or place / "pictures", fetch=request.fetch)
    whole = len(found) == (dataset.count or len(found))
    if not whole:
        out.note(
            f"warning: only {len(found)} of {dataset.count} pictures of {dataset.name} were found"
        )
    part = opt.parse_shard(request.shard) if request.shard else None
    first, step = part or (1, 1)
    samples = found[: request.limit][first - 1 :: step]
    whole = whole and len(samples) == len(found)
    if not samples:
        out.note(f"warning: --shard {request.shard} is empty: there are {len(found)} pictures")
    job = dataclasses.replace(job, samples=samples, shard=part, whole=whole)
    rows = _run(job)
    timed = _timed(job, request.warm_up) if part is None else {}
    report = summarise(job, rows, timed)
    _show(report, request)
    if part is None:
        _write(job, report, request.formats)
    return not failed and not any(row.error for row in rows)


def _run(job: Benchmark) -> list[Row]:
    """Score everything with a progress bar."""
    from restore_cli.benchmarking.run import run

    with Bar("pictures") as bar:
        task = bar.add_task("", total=len(job.samples) * len(job.entries))

        def report(row: Row) -> None:
            bar.update(task, advance=1, description=f"{row.entry}: {row.sample}")
            if row.error:
                print_error(RestoreError(row.error))

        return run(job, report)


def _timed(job: Benchmark, warm_up: int) -> dict[str, Timed]:
    """Measure run times of the networks alone, if the paper gives some for one size."""
    from restore_cli.benchmarking.run import run_time

    timing = job.table.timing if job.table else None
    if timing is None or timing.width is None or timing.height is None:
        return {}
    return {
        entry.name: run_time(entry, timing.width, timing.height, warm_up)
        for entry in job.entries
        if any(stage.weights for stage in entry.pipeline.stages)
        and not entry.pipeline.options.self_ensemble
    }


def _scale(request: ScoringRequest) -> int | None:
    """Return the scale of the first model that has a network, or None: bicubic has any scale."""
    from restore_cli.benchmarking.run import parse_entry
    from restore_cli.inference.stages import BICUBIC

    specs = (parse_entry(text, request.options, None)[1] for text in request.models)
    return next((spec.scale for spec in specs if spec.models != (BICUBIC,)), None)


def _place(request: ScoringRequest, name: str) -> Path:
    """Return the folder for the reports; by default it is named after the dataset or table."""
    plain = re.sub(r"[/\\\x00-\x1f]+", "-", name)
    return request.output or Path(f"benchmark-{plain}")


def _dataset(name: str, request: ScoringRequest, scale: int | None) -> tuple[Dataset, Path | None]:
    """Return the dataset and its folder, or None if it is made in the reports' folder.

    A name with a slash, e.g. `./gopro`, is a folder. Raises `UsageError` for --data-root and
    --fetch with a dataset that needs neither.
    """
    from restore_cli.datasets.degraded import MINIATURES
    from restore_cli.datasets.registry import DATASETS, pair_folder_dataset

    if name in DATASETS:
        return DATASETS[name], DATASETS[name].folder(request.data_root or Path(opt.DATA_ROOT))
    if name not in MINIATURES and not Path(name).is_dir():
        raise unknown_name("dataset", name, [*MINIATURES, *DATASETS])
    for option, given in (("--data-root", request.data_root), ("--fetch", request.fetch)):
        if given:
            kind = "comes with restore" if name in MINIATURES else "is a folder of pairs"
            raise UsageError(f"{option} does not fit: '{name}' {kind}", hint="leave it out")
    if name in MINIATURES:
        return MINIATURES[name], None
    return pair_folder_dataset(Path(name), scale), Path(name)


def _samples(dataset: Dataset, folder: Path, *, fetch: bool) -> tuple[list[Pair], int]:
    """Make, fetch or find the samples; also return how many could not be made."""
    from restore_cli.datasets.fetch import fetch as fetch_dataset
    from restore_cli.datasets.registry import find_samples

    failed: set[str] = set()
    if dataset.make is not None:
        for made in dataset.make(folder):
            for note in made.notes:
                out.note(f"note: '{made.source}': {note}")
            if made.error:
                print_error(made.error)
                failed.add(made.source.stem)
        if failed and len(failed) == dataset.count:  # else reports without a score are written
            raise RestoreError("no picture could be degraded", hint="see the errors above")
    elif fetch:
        fetch_dataset(dataset, folder, out.note)
    # An earlier run may have made pairs of what cannot be made now.
    samples = [sample for sample in find_samples(dataset, folder) if sample.name not in failed]
    return samples, len(failed)


def _write(job: Benchmark, report: Report, formats: tuple[str, ...]) -> None:
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
        out.note(f"written: {job.output / f'report.{name}'}")


def _show(report: Report, request: ScoringRequest) -> None:
    from restore_cli.benchmarking.comparison import COLUMNS as PUBLISHED_COLUMNS
    from restore_cli.benchmarking.report import (
        COLUMNS,
        SCORE_COLUMNS,
        groups_table,
        heading,
        table,
        to_json,
    )

    if request.json:
        import json

        request.documents.append(json.loads(to_json(report)))
        return
    for line in heading(report):
        out.note(line)
    shown = SCORE_COLUMNS if is_terminal(sys.stdout) else len(COLUMNS)
    out.table(COLUMNS[:shown], [row[:shown] for row in table(report)])
    if report.published:
        out.table(PUBLISHED_COLUMNS, [one.cells() for one in report.published])
    columns, groups = groups_table(report)
    if groups:
        out.table(columns, groups)


def _print(table: Table, request: ScoringRequest) -> None:
    """Print a table that cannot be measured: sizes of sets, single pictures, running text."""
    from restore_cli.benchmarking.published import columns_of, rows_of

    if request.json:
        request.documents.append(table.model_dump(mode="json", exclude_defaults=True))
        return
    out.note(f"{table.name} ({table.kind}) is printed, not measured. {table.note}")
    out.table(columns_of(table), rows_of(table))
