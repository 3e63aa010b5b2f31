"""`restore weights`."""

from __future__ import annotations

from typing import Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported, show

app = typer.Typer(help="Checkpoints: list, fetch, verify.", invoke_without_command=True)
NamesArg = Annotated[
    list[str] | None, typer.Argument(help="Checkpoint names. Default: all.", metavar="[NAME]")
]


@app.callback()
def default(context: typer.Context, json: opt.JsonOpt = False) -> None:
    """Checkpoints: list, fetch, verify. Without a command: list."""
    if context.invoked_subcommand is None:
        list_weights(json=json)


@app.command("list")
@reported
def list_weights(json: opt.JsonOpt = False) -> None:
    """List the checkpoints of the manifest."""
    from restore_cli.weights.manifest import load_manifest

    checkpoints = load_manifest().checkpoints.values()
    if json:
        out.data_json([c.model_dump(mode="json") for c in checkpoints])
        return
    out.table(
        ("checkpoint", "model", "size", "licence", "gain over bicubic"),
        [
            (
                c.name,
                c.model + (" (default)" if c.default else ""),
                f"{c.size / 1e6:.1f} MB",
                c.license,
                f"{c.scores[0].psnr - c.scores[0].bicubic_psnr:+.2f} dB" if c.scores else "-",
            )
            for c in checkpoints
        ],
    )


@app.command()
@reported
def verify(names: NamesArg = None) -> None:
    """Check the sha256 of checkpoints; exit 4 if one is missing or changed."""
    from restore_cli.errors import WeightsError
    from restore_cli.weights.manifest import get_checkpoint, load_manifest
    from restore_cli.weights.store import fetch as fetch_file

    broken = 0
    for name in names or load_manifest().checkpoints:
        try:
            file = fetch_file(get_checkpoint(name))
        except WeightsError as error:
            show(error)
            broken += 1
        else:
            out.data(f"{name}\tok\t{file.sha256}")
    if broken:
        raise typer.Exit(WeightsError.exit_code)


@app.command()
@reported
def fetch(names: NamesArg = None) -> None:
    """Fetch and verify checkpoints, so that later runs need no network."""
    _print_paths(names)


@app.command()
@reported
def path(name: Annotated[str, typer.Argument(help="Checkpoint name.")]) -> None:
    """Print where a verified checkpoint lies on this disk."""
    _print_paths([name])


def _print_paths(names: list[str] | None) -> None:
    from restore_cli.weights.manifest import get_checkpoint, load_manifest
    from restore_cli.weights.store import fetch as fetch_file

    for name in names or load_manifest().checkpoints:
        out.data(str(fetch_file(get_checkpoint(name)).path))
