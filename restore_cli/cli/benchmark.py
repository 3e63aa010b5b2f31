"""`restore benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported
from restore_cli.errors import UsageError, unknown_name

FORMATS = ("html", "md", "csv", "json")
WHAT, WHERE = "What is scored", "Where it goes"
EPILOG = """
Examples:

  restore benchmark --dataset blurmini --model mprnet-mscam bicubic

  restore benchmark --dataset reds-val300 --fetch --model gfn=mine.safetensors

  restore benchmark --table list

  restore benchmark --table shoyan-2022/1 --data-root ~/data --fetch

  restore benchmark --dataset gopro-x4 --model mprnet+gfn --protocol gfn

  restore benchmark --dataset pairs/ --model msan=mine.safetensors --limit 20

  restore benchmark --dataset gopro --model msan -d cuda:1 --shard 2/8

Without --dataset or --table, the datasets and protocols are listed. Reports go to --output; what
has been scored with the same weights, options and pictures is not scored again.
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
    table: Annotated[
        str | None,
        opt.option(
            help="Measure a paper's table with all that it needs; list shows them.",
            metavar="PAPER/TABLE",
            rich_help_panel=WHAT,
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        opt.option(
            help="Default: the table's or the dataset's.", metavar="NAME", rich_help_panel=WHAT
        ),
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
            help="Local statistics; default: as the weights, or the table's rows, say.",
            rich_help_panel=opt.COMPUTE,
        ),
    ] = None,
    tile: Annotated[
        str, opt.option(help="auto, off, or pixels.", rich_help_panel=opt.COMPUTE)
    ] = "auto",
    self_ensemble: Annotated[
        bool | None,
        opt.option(
            "--self-ensemble/--no-self-ensemble",
            help="Mean over eight poses; default: no, or as the table's rows.",
            rich_help_panel=opt.COMPUTE,
        ),
    ] = None,
    warm_up: Annotated[
        int,
        opt.option(
            help="Runs before a table's run times are taken.",
            min=0,
            metavar="N",
            rich_help_panel=opt.COMPUTE,
        ),
    ] = 1,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Score models on a dataset under a published protocol, beside the published numbers."""
    if table == "list":
        _list_tables(as_json=as_json)
        return
    if dataset is None and table is None:
        _list(as_json=as_json)
        return
    names = (*(model or ()), *(models or ()))
    if not names and table is None:
        raise UsageError("no --model", hint="e.g. --model mprnet-mscam bicubic")
    wanted = tuple(name.strip() for name in formats.split(","))
    wrong = next((name for name in wanted if name not in FORMATS), None)
    if wrong is not None:
        raise unknown_name("format", wrong, FORMATS)
    from restore_cli.benchmarking.protocol import get_protocol
    from restore_cli.cli._scoring import Request, score_dataset, score_table
    from restore_cli.inference.devices import get_device, get_precision
    from restore_cli.inference.restorer import RestorerOptions

    target = get_device(device)
    request = Request(
        models=names,
        protocol=get_protocol(protocol).name if protocol else None,
        options=RestorerOptions(
            device=target,
            dtype=get_precision(precision, target),
            tlsc=tlsc,
            tile=opt.parse_pixels(tile, "--tile"),
        ),
        self_ensemble=self_ensemble,
        data_root=data_root,
        fetch=fetch,
        output=output,
        formats=wanted,
        save_images=save_images,
        limit=limit,
        shard=shard,
        warm_up=warm_up,
        as_json=as_json,
        quiet=quiet,
    )
    good = score_table(request, table, dataset) if table else score_dataset(request, dataset or "")
    if not good:
        raise typer.Exit(1)


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


def _list_tables(*, as_json: bool) -> None:
    from restore_cli.benchmarking.published import all_tables, papers

    if as_json:
        for table in all_tables():
            out.data_json(
                table.model_dump(mode="json", exclude_defaults=True) | {"name": table.name}
            )
        return
    out.table(
        ("table", "kind", "dataset", "protocol", "rows", "ours", "note"),
        (
            (
                table.name,
                table.kind,
                table.dataset or "-",
                table.protocol or "-",
                str(len(table.rows)),
                ", ".join(dict.fromkeys(row.model for row in table.rows if row.model)) or "-",
                table.source or papers()[table.paper],
            )
            for table in all_tables()
        ),
    )
