"""`restore datasets`: datasets, protocols, published tables, and folders of pairs."""

from math import isinf
from pathlib import Path
from typing import Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors
from restore_cli.cli._terminal import Bar
from restore_cli.errors import UsageError, lookup
from restore_cli.formatting import format_count

EPILOG = """
Examples:
  restore datasets list
  restore datasets fetch reds-val300 --data-root data/
  restore datasets check pairs/
  restore datasets replay pairs/records/lr/a.json -o again.png
"""

app = typer.Typer(
    help="List, fetch and check datasets; list layouts, protocols and published tables.",
    no_args_is_help=True,
    epilog=EPILOG,
)


@app.command("list")
@handle_errors
def list_datasets(json: opt.JsonOpt = False) -> None:
    """List the datasets that `restore benchmark` knows by name."""
    from restore_cli.datasets.degraded import MINIATURES
    from restore_cli.datasets.registry import DATASETS

    known = {**MINIATURES, **DATASETS}.values()
    if json:
        keys = ("name", "description", "scale", "count", "protocol", "layout", "home")
        out.echo_json(
            [{key: getattr(d, key) for key in keys} | {"fetched": d.hub is not None} for d in known]
        )
        return
    out.table(
        ("dataset", "scale", "pictures", "protocol", "what"),
        ((d.name, f"x{d.scale}", str(d.count or "-"), d.protocol, d.description) for d in known),
    )


@app.command("layouts")
@handle_errors
def list_layouts(json: opt.JsonOpt = False) -> None:
    """List the folder layouts of pairs that degrade writes, and train and benchmark read."""
    from restore_cli.datasets.layouts import LAYOUTS

    if json:
        out.echo_json([{"name": one.name, "what": one.description} for one in LAYOUTS.values()])
        return
    out.table(("layout", "what"), ((one.name, one.description) for one in LAYOUTS.values()))


@app.command("protocols")
@handle_errors
def list_protocols(json: opt.JsonOpt = False) -> None:
    """List the scoring protocols and their sources."""
    from dataclasses import asdict

    from restore_cli.benchmarking.protocol import PROTOCOLS

    known = PROTOCOLS.values()
    if json:
        unlimited = {"highest": "inf"}  # as in reports: JSON has no infinity
        out.echo_json([asdict(p) | (unlimited if isinf(p.highest) else {}) for p in known])
        return
    out.table(("protocol", "what", "source"), ((p.name, p.description, p.source) for p in known))


@app.command("tables")
@handle_errors
def list_tables(json: opt.JsonOpt = False) -> None:
    """List the published tables that `restore benchmark --table` measures or prints."""
    from restore_cli.benchmarking.published import load_published

    tables = load_published().tables
    if json:
        out.echo_json(
            [
                table.model_dump(mode="json", exclude_defaults=True) | {"name": table.name}
                for table in tables
            ]
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
                table.source or load_published().papers[table.paper],
            )
            for table in tables
        ),
    )


@app.command("fetch")
@handle_errors
def fetch(
    name: Annotated[str, typer.Argument(help="Name of a dataset from `restore datasets list`.")],
    data_root: Annotated[
        str, opt.option(help="Folder that contains one folder per dataset.", metavar="DIR")
    ] = opt.DATA_ROOT,
    quiet: opt.QuietOpt = False,
) -> None:
    """Fetch a dataset from the Hub and print its folder; existing files are kept."""
    from restore_cli.datasets.degraded import MINIATURES
    from restore_cli.datasets.fetch import fetch as fetch_dataset
    from restore_cli.datasets.registry import DATASETS, find_samples

    if name in MINIATURES:
        raise UsageError(
            f"dataset '{name}' comes with restore and is not fetched",
            hint=f"restore benchmark --dataset {name}",
        )
    dataset = lookup("dataset", name, DATASETS)
    folder = dataset.folder(opt.parse_path(data_root))
    fetch_dataset(dataset, folder, out.note)
    find_samples(dataset, folder)
    out.echo(str(folder))


@app.command("check")
@handle_errors
def check(
    folder: Annotated[str, typer.Argument(help="A folder of pairs.", metavar="PAIRS")],
    json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Report pairs that are missing, shifted, rotated, unreadable or do not belong together.

    Prints kind, path and text of each finding; exits with 1 if there are any.
    """
    check_folder(opt.parse_path(folder), json=json)


@app.command("replay")
@handle_errors
def replay(
    record: Annotated[
        str, typer.Argument(help="JSON record of a pair, written by `restore degrade`.")
    ],
    output: Annotated[
        str, opt.option("--output", "-o", help="Picture file to write.", metavar="FILE")
    ],
    sharp: Annotated[
        str | None, typer.Argument(help="The sharp picture. Default: the path in the record.")
    ] = None,
) -> None:
    """Make a degraded picture again from its record, byte for byte."""
    replay_record(record, output, sharp)


def check_folder(folder: Path, *, json: bool = False) -> None:
    """Print the findings for a folder of pairs; exit 1 if there are any."""
    from restore_cli.datasets.lint import check_pairs

    rows = []
    with Bar("pairs") as bar:
        task = bar.add_task("checking", total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        for finding in check_pairs(folder, report):
            rows.append((finding.kind, str(finding.path), finding.text))
            if not json:
                out.echo("\t".join(map(out.printable, rows[-1])))
    if json:
        out.echo_json([dict(zip(("kind", "path", "text"), row, strict=True)) for row in rows])
    out.note(format_count(len(rows), "finding") if rows else "no problems found")
    if rows:
        raise typer.Exit(1)


def replay_record(record: str, output: str, sharp: str | None) -> None:
    """Make a degraded picture again, and print its path."""
    from restore_cli.datasets.synthesize import replay as make_again

    target = opt.parse_path(output)
    make_again(opt.parse_path(record), target, opt.parse_path(sharp) if sharp is not None else None)
    out.echo(str(target))
