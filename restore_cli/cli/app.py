"""The Typer application. It does not import torch, so that `--help` is fast."""

import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import (
    benchmark,
    compare,
    datasets,
    degrade,
    doctor,
    image,
    info,
    models,
    recipes,
    serve,
    train,
    weights,
)
from restore_cli.cli._environment import ignore_bad_timeouts
from restore_cli.cli._group import RestoreGroup
from restore_cli.cli._output import ANY_TEXT, echo
from restore_cli.cli._process import fast_exit
from restore_cli.cli._terminal import Bar
from restore_cli.errors import UsageError
from restore_cli.version import __version__

EPILOG = """
Examples:
  restore photo.jpg
  restore image holiday/ -r -o sharp/ --resume
  restore models

A picture or a folder in place of a command means `restore image`.
"""
app = typer.Typer(
    name="restore",
    cls=RestoreGroup,
    help="Remove motion blur from pictures, and enlarge them.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "RESTORE"},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        echo(f"restore {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        opt.option(
            "--version",
            "-V",
            help="Print the version.",
            is_eager=True,
            allow_from_autoenv=False,
            callback=lambda value: _version(wanted=value),
        ),
    ] = False,
    offline: Annotated[bool, opt.option("--offline", help="Do not download anything.")] = False,
    no_progress: Annotated[bool, opt.option("--no-progress", help="Draw no progress bar.")] = False,
    no_color: Annotated[bool, opt.option("--no-color", help="Print without colours.")] = False,
) -> None:
    """Remove motion blur from pictures, and enlarge them."""
    ignore_bad_timeouts()
    Bar.hidden = no_progress
    if no_color:
        os.environ["NO_COLOR"] = "1"  # which rich reads
    # onnxruntime, which `weights convert` and `doctor` import, would write an id of this machine.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        Path.cwd()
    except OSError as error:  # torch would report that a library of its own is missing
        raise UsageError("the current folder no longer exists", hint="cd to another one") from error
    opt.go_offline(offline=offline)


app.command("image", epilog=image.EPILOG)(image.image)
app.command("restore", hidden=True, context_settings={"auto_envvar_prefix": "RESTORE_IMAGE"})(
    image.image
)
app.command("degrade", epilog=degrade.EPILOG)(degrade.degrade)
app.command("train", epilog=train.EPILOG)(train.train)
app.command("benchmark", epilog=benchmark.EPILOG)(benchmark.benchmark)
app.command("compare", epilog=compare.EPILOG)(compare.compare)
app.command("serve", epilog=serve.EPILOG)(serve.serve)
app.command("info", epilog=info.EPILOG)(info.info)
app.command("doctor", epilog=doctor.EPILOG)(doctor.doctor)
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")
app.add_typer(recipes.app, name="recipes")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Run the console script."""
    if os.environ.get("COLUMNS") == "0":  # rich would print nothing
        del os.environ["COLUMNS"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ANY_TEXT)
    try:
        app()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            fast_exit(end.code or 0)
        raise
