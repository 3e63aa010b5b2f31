"""`restore benchmark`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported
from restore_cli.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from restore_cli.benchmarking.datasets import Dataset
    from restore_cli.benchmarking.report import Report
    from restore_cli.benchmarking.run import Benchmark, Entry, Row
    from restore_cli.inference.restorer import RestorerOptions

FORMATS = ("html", "md", "csv", "json")
WHAT, WHERE = "What is scored", "Where it goes"
EPILOG = """
Examples:

  restore benchmark --dataset blurmini --model mprnet-mscam bicubic

  restore benchmark --dataset reds-val300 --data-root ~/data --fetch --model gfn=mine.safetensors

  restore benchmark --dataset gopro-x4 --data-root ~/data --model mprnet+gfn bicubic --protocol gfn

  restore benchmark --dataset pairs/ --model msan=weights.safetensors bicubic --limit 20

  restore benchmark --dataset gopro --model msan -d cuda:1 --shard 2/8     # one of eight processes

Without --dataset, the datasets and protocols are listed. Reports go to --output; what has been
scored with the same weights, options and pictures is not scored again.
"""


@reported
def benchmark(
    models: Annotated[
        list[str] | None, typer.Argument(help="More models.", metavar="[MODEL]...")
    ] = None,
    dataset: Annotated[
        str | None,
        opt.option(help="A name, or a folder of pairs.", metavar="NAME", rich_help_panel=WHAT),
    ] = None,
    model: Annotated[
        list[str] | None,
        opt.option(
            "--model",
            "-m",
            help="A model, A+B, bicubic, or MODEL=WEIGHTS; as many as you like.",
            metavar="MODEL",
            rich_help_panel=WHAT,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        opt.option(help="Default: the dataset's.", metavar="NAME", rich_help_panel=WHAT),
    ] = None,
    limit: Annotated[
        int | None,
        opt.option(help="Only the first N pictures.", min=1, metavar="N", rich_help_panel=WHAT),
    ] = None,
    data_root: Annotated[
        Path,
        opt.option(help="Datasets lie in folders of their names below it.", rich_help_panel=WHERE),
    ] = Path("data"),
    fetch: Annotated[
        bool,
        opt.option("--fetch", help="Get the dataset from the Hub.", rich_help_panel=WHERE),
    ] = False,
    output: Annotated[
        Path | None,
        opt.option("--output", "-o", help="Default: benchmark-DATASET.", rich_help_panel=WHERE),
    ] = None,
    formats: Annotated[
        str,
        opt.option("--formats", help="Of the reports.", metavar="LIST", rich_help_panel=WHERE),
    ] = "html,md,csv,json",
    shard: Annotated[
        str | None,
        opt.option(
            help="Score only part I of N; a run without it puts the parts together.",
            metavar="I/N",
            rich_help_panel=WHERE,
        ),
    ] = None,
    save_images: Annotated[
        bool,
        opt.option("--save-images", help="Keep every result as PNG.", rich_help_panel=WHERE),
    ] = False,
    device: opt.DeviceOpt = "auto",
    precision: Annotated[
        str,
        opt.option(help="auto, fp32, fp16 or bf16.", metavar="TYPE", rich_help_panel=opt.COMPUTE),
    ] = "auto",
    tlsc: Annotated[
        bool | None,
        opt.option(
            "--tlsc/--no-tlsc",
            help="Local statistics; default: as the weights say.",
            rich_help_panel=opt.COMPUTE,
        ),
    ] = None,
    tile: Annotated[
        str, opt.option(help="auto, off, or pixels.", rich_help_panel=opt.COMPUTE)
    ] = "auto",
    self_ensemble: Annotated[
        bool,
        opt.option("--self-ensemble", help="Mean over eight poses.", rich_help_panel=opt.COMPUTE),
    ] = False,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Score models on a dataset under a published protocol, beside the published numbers."""
    if dataset is None:
        _list(as_json=as_json)
        return
    names = [*(model or []), *(models or [])]
    if not names:
        raise UsageError("no --model", hint="e.g. --model mprnet-mscam bicubic")
    wanted = [name.strip() for name in formats.split(",")]
    wrong = next((name for name in wanted if name not in FORMATS), None)
    if wrong is not None:
        raise unknown_name("format", wrong, FORMATS)
    from restore_cli.benchmarking.protocol import get_protocol
    from restore_cli.benchmarking.report import summarise
    from restore_cli.benchmarking.run import Benchmark, check
    from restore_cli.inference.restorer import RestorerOptions

    target = opt.parse_device(device)
    options = RestorerOptions(
        device=target,
        dtype=opt.parse_precision(precision, target),
        tlsc=tlsc,
        tile=opt.parse_tile(tile),
        self_ensemble=self_ensemble,
    )
    named = get_protocol(protocol) if protocol else None
    scale = _scale(names)
    chosen, folder = _dataset(dataset, data_root, scale)
    place = output or Path(f"benchmark-{chosen.name}")
    folder = folder or place / "pictures"
    entries = [_entry(name, options, chosen.scale) for name in names]
    job = Benchmark(
        dataset=chosen,
        samples=(),
        protocol=named or get_protocol(chosen.protocol),
        entries=entries,
        output=place,
        save_images=save_images or "html" in wanted,
    )
    check(job)
    found = _samples(chosen, folder, fetch=fetch, quiet=quiet)
    whole = len(found) == (chosen.count or len(found))
    if not whole and not quiet:
        out.talk(f"warning: {len(found)} of the {chosen.count} pictures of {chosen.name} are there")
    part = opt.parse_shard(shard) if shard else None
    first, step = part or (1, 1)
    samples = found[:limit][first - 1 :: step]
    whole = whole and len(samples) == len(found)
    job = dataclasses.replace(job, samples=samples, shard=part, whole=whole)
    rows = _run(job, quiet=quiet)
    report = summarise(job, rows)
    _show(report, as_json=as_json, quiet=quiet)
    if part is None:
        _write(job, report, wanted, quiet=quiet)
    if any(row.error for row in rows):
        raise typer.Exit(1)


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


def _entry(text: str, options: RestorerOptions, scale: int) -> Entry:
    """`MODEL`, `A+B`, `bicubic` or `MODEL=WEIGHTS`."""
    from restore_cli.benchmarking.run import Entry
    from restore_cli.inference.assemble import assemble
    from restore_cli.inference.cascade import split_names, split_weights

    name, _, weights = text.partition("=")
    names = split_names(name)
    bicubic = scale if names == ("bicubic",) else None
    line = assemble(names, split_weights(names, weights or None), options, bicubic)
    return Entry(text if weights else name, line)


def _scale(entries: list[str]) -> int:
    """Of the first that has a network, for a folder of pairs: bicubic alone says nothing."""
    from restore_cli.inference.cascade import BICUBIC, own_scale, split_names

    lines = [split_names(text.partition("=")[0]) for text in entries]
    return own_scale(next((names for names in lines if names != (BICUBIC,)), lines[0]))


def _dataset(name: str, root: Path, scale: int) -> tuple[Dataset, Path | None]:
    """The dataset and its folder; None for one that is made where the reports go."""
    from restore_cli.benchmarking.datasets import get_dataset
    from restore_cli.benchmarking.miniature import MINIATURES

    if name in MINIATURES:
        return MINIATURES[name], None
    found = get_dataset(name, Path(name), scale)
    return found, Path(name) if found.home == "your own" else found.folder(root)


def _samples(dataset: Dataset, folder: Path, *, fetch: bool, quiet: bool) -> list:  # type: ignore[type-arg]
    from restore_cli.benchmarking.datasets import find_samples
    from restore_cli.benchmarking.fetch import fetch as fetch_dataset
    from restore_cli.benchmarking.miniature import MINIATURES, make

    if dataset.name in MINIATURES:
        make(dataset, folder)
    elif fetch:
        fetch_dataset(dataset, folder, out.talk if not quiet else lambda message: None)
    return find_samples(dataset, folder)


def _write(job: Benchmark, report: Report, formats: list[str], *, quiet: bool) -> None:
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
    from restore_cli.benchmarking.report import (
        COLUMNS,
        PUBLISHED_COLUMNS,
        heading,
        published_table,
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
        out.table(PUBLISHED_COLUMNS, published_table(report))


def _list(*, as_json: bool) -> None:
    from restore_cli.benchmarking.datasets import DATASETS
    from restore_cli.benchmarking.miniature import MINIATURES
    from restore_cli.benchmarking.protocol import PROTOCOLS

    known = {**MINIATURES, **DATASETS}
    if as_json:
        for dataset in known.values():
            out.data_json(
                {
                    "dataset": dataset.name,
                    "description": dataset.description,
                    "scale": dataset.scale,
                    "pictures": dataset.count,
                    "protocol": dataset.protocol,
                    "layout": dataset.layout,
                    "home": dataset.home,
                    "fetched": dataset.hub is not None,
                }
            )
        return
    out.table(
        ("dataset", "scale", "pictures", "protocol", "what"),
        (
            (d.name, f"x{d.scale}", str(d.count or "-"), d.protocol, d.description)
            for d in known.values()
        ),
    )
    out.table(
        ("protocol", "what", "source"),
        ((p.name, p.description, p.source) for p in PROTOCOLS.values()),
    )
