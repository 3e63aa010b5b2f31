"""Every option of `restore image` exists in Python and on the page, or has a reason not to."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
import typer
from conftest import ROOT

import restore_cli
from restore_cli.api import Options
from restore_cli.cli.app import app
from restore_cli.serving.job_queue import JobSettings

OF_A_SHELL = "about a shell: what it passes, what it shows, which processes run"
CALLER = "the caller does this with what it has"
# Where Python has it: a parameter or the field of a record.
PYTHON = {
    **dict.fromkeys(("inputs", "recursive", "include", "exclude", "shard"), "Selection"),
    "max_pixels": "Selection",
    **dict.fromkeys(("output", "on_exists", "resume"), "Destination"),
    **dict.fromkeys(("alpha", "icc", "check", "size"), "Processing"),
    **dict.fromkeys(("format_", "quality", "lossless", "bit_depth", "metadata"), "Encoding"),
    **dict.fromkeys(("weights", "device", "precision", "tile", "overlap", "tlsc"), "Options"),
    "self_ensemble": "Options",
    "tlsc_window": "Options",
    **dict.fromkeys(("model", "scale"), "restore"),
    "fail_fast": "restore_files",
}
SPELLED = {"format_": "format", "bit_depth": "depth", "tlsc_window": "tlsc"}
NOT_IN_PYTHON = {
    **dict.fromkeys(
        ("files_from", "null", "raw", "json", "quiet", "verbose", "offline"), OF_A_SHELL
    ),
    **dict.fromkeys(("jobs", "engine", "address", "workers"), OF_A_SHELL),
    **dict.fromkeys(("dry_run", "manifest", "compare"), CALLER),
}
ON_THE_PAGE = {"model", "scale", "format_", "self_ensemble"}
ONE_PICTURE = "the page takes one picture, as it is, and gives one back"
OWNER = "the owner of the server decides"
ADVANCED = "the default is right for nearly every picture"
NOT_ON_THE_PAGE = {
    **dict.fromkeys((*NOT_IN_PYTHON, "fail_fast"), OF_A_SHELL),
    **dict.fromkeys(("inputs", "recursive", "include", "exclude", "shard"), ONE_PICTURE),
    **dict.fromkeys(("output", "on_exists", "resume"), ONE_PICTURE),
    **dict.fromkeys(("max_pixels", "device", "precision", "weights"), OWNER),
    **dict.fromkeys(("tile", "overlap", "tlsc", "tlsc_window", "check", "size"), ADVANCED),
    **dict.fromkeys(("alpha", "icc", "quality", "lossless", "bit_depth", "metadata"), ADVANCED),
}


def names_of(home):
    """Names of parameters, or of a record's fields."""
    if home == "Options":
        return set(Options.__annotations__)
    if home == "restore_files":
        return set(inspect.signature(restore_cli.LoadedModel.restore_files).parameters)
    found = getattr(restore_cli, home)
    if dataclasses.is_dataclass(found):
        return {field.name for field in dataclasses.fields(found)}
    return set(inspect.signature(found).parameters)


@pytest.fixture(scope="module")
def options():
    command = typer.main.get_command(app).commands["image"]
    return {option.name for option in command.params if option.name != "help"}


def test_python_has_every_option_or_a_reason(options):
    assert options == {*PYTHON, *NOT_IN_PYTHON}
    assert not {*PYTHON} & {*NOT_IN_PYTHON}
    for option, home in PYTHON.items():
        assert SPELLED.get(option, option) in names_of(home), (option, home)


def test_the_page_has_every_option_or_a_reason(options):
    assert options == {*ON_THE_PAGE, *NOT_ON_THE_PAGE}
    fields = {field.name for field in dataclasses.fields(JobSettings)}
    page = (ROOT / "restore_cli/serving/page.html.j2").read_text("utf-8")
    for option in ON_THE_PAGE:
        name = SPELLED.get(option, option)
        assert name in fields
        assert name in page
