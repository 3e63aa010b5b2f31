"""`restore recipes`: the recipes of `restore train` and `restore degrade`."""

import tomllib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from restore_cli.cli import _complete
from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors
from restore_cli.errors import UsageError, lookup

FOLDER = _complete.PACKAGE / "recipes"
EPILOG = """
Examples:
  restore recipes
  restore recipes list degrade
  restore recipes show finetune > mine.toml
"""
app = typer.Typer(
    help="List the recipes of train and degrade, or print one.",
    epilog=EPILOG,
    invoke_without_command=True,
)


class Command(StrEnum):
    """The command that takes a recipe."""

    TRAIN = "train"
    DEGRADE = "degrade"


@app.callback()
def default(context: typer.Context, json: opt.JsonOpt = False) -> None:
    """List the recipes if no command was given."""
    opt.list_without_command(context, lambda: show_recipes(list(Command), json=json))


@app.command("list")
@handle_errors
def list_recipes(
    command: Annotated[Command | None, typer.Argument(help="Only those of this command.")] = None,
    json: opt.JsonOpt = False,
) -> None:
    """List the recipes that come with restore."""
    show_recipes([command] if command else list(Command), json=json)


@app.command()
@handle_errors
def show(
    name: Annotated[str, typer.Argument(help="Name of a recipe; train/NAME or degrade/NAME.")],
) -> None:
    """Print a recipe as TOML, as a start for your own."""
    from restore_cli.training.recipe import ablations

    if name in ablations():
        base = ablations()[name].base
        raise UsageError(f"'{name}' changes '{base}'", hint=f"restore recipes show {base}")
    paths = {f"{one}/{path.stem}": path for one in Command for path in _files(one)}
    whole = [key for key in paths if key.endswith(f"/{name}")] or [name]
    if len(whole) > 1:
        raise UsageError(f"'{name}' is the name of {len(whole)} recipes", hint=" or ".join(whole))
    out.echo(lookup("recipe", whole[0], paths).read_text("utf-8").rstrip())


def show_recipes(commands: list[Command], *, json: bool) -> None:
    """Print the recipes of some commands."""
    found = [(name, one.value, what) for one in commands for name, what in _described(one)]
    if json:
        keys = ("recipe", "command", "description")
        out.echo_json([dict(zip(keys, row, strict=True)) for row in found])
        return
    out.table(("recipe", "of", "description"), found)


def _described(command: Command) -> Iterator[tuple[str, str]]:
    """Yield names and descriptions, without torch, which degradation recipes would need."""
    for path in _files(command):
        yield path.stem, tomllib.loads(path.read_text("utf-8"))["description"]
    if command is Command.TRAIN:
        from restore_cli.training.recipe import ablations

        for name, ablation in ablations().items():
            yield name, ablation.description


def _files(command: Command) -> list[Path]:
    return sorted((FOLDER / command.value).glob("*.toml"), key=lambda path: path.stem)
