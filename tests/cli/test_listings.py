"""Listings in terminals of any width: a name is whole, on one line, and first."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from restore_cli.cli import _output as out
from restore_cli.cli.app import app
from restore_cli.training.recipe import ablations, shipped_recipes
from restore_cli.weights.manifest import load_manifest

CHECKPOINTS = load_manifest().checkpoints
NAMES = {
    "models": [*{one.model for one in CHECKPOINTS.values()}, "bicubic"],
    "weights": list(CHECKPOINTS),
    "train": [*shipped_recipes(), *ablations()],
}


def test_a_broken_record_is_reported_once(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    (tmp_path / "restore-cli/weights").mkdir(parents=True)
    (tmp_path / "restore-cli/weights/a.b.json").write_text("{}")
    done = CliRunner().invoke(app, ["models", "--json"])
    assert len(json.loads(done.stdout)) > 5
    assert done.stderr.count("is not a record") == 1


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("command", NAMES)
def test_names_are_never_broken(command, width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(out, "is_terminal", lambda stream: True)
    lines = CliRunner().invoke(app, [command]).stdout.splitlines()
    first = {line.split(" ")[0] for line in lines}
    assert set(NAMES[command]) <= first
    # At 40 the terminal breaks what is longer, so that it is copied whole.
    assert width == 40 or all(len(line) <= width for line in lines)
    words = {word for line in lines for word in line.split()}
    if command == "models":
        assert {one.name for one in CHECKPOINTS.values() if one.default} <= words


def test_rows_are_stacked_where_columns_do_not_fit(capsys, monkeypatch):
    monkeypatch.setattr(out, "is_terminal", lambda stream: True)
    rows = [("a-name-to-be-copied", "12 MB", "what it is [for] in some words"), ("b", "-", "")]
    for width, expected in (
        (80, ["name                 size   what", "a-name-to-be-copied  12 MB  what it is [for]"]),
        (
            30,
            [
                "a-name-to-be-copied",
                "  size  12 MB",
                "  what  what it is [for] in",
                "        some words",
                "b",
            ],
        ),
    ):
        monkeypatch.setenv("COLUMNS", str(width))
        out.table(("name", "size", "what"), rows)
        lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert len(lines) == {80: 3, 30: 5}[width]
        assert all(line.startswith(begun) for line, begun in zip(lines, expected, strict=False))


def test_a_pipe_gets_tabs(capsys):
    out.table(("name", "size", "what"), [("a", "12 MB", "what it is"), ("b", "-", "")])
    assert capsys.readouterr().out.splitlines() == ["a\t12 MB\twhat it is", "b\t-\t"]


def test_every_checkpoint_has_its_gains_and_its_seconds():
    listed = CliRunner().invoke(app, ["weights", "list"]).stdout
    known = next(one for one in CHECKPOINTS.values() if one.seconds_per_megapixel and one.scores)
    seconds, gain = known.seconds_per_megapixel, known.gain("real")
    row = next(line.split("\t") for line in listed.splitlines() if line.startswith(known.name))
    assert {f"{seconds:.0f}", f"{gain:+.2f}"} <= set(row)
    told = CliRunner().invoke(app, ["models", "info", known.model]).stdout
    assert f"{known.name}, {gain:+.2f} dB on real blur" in told
    assert f"{seconds:.3g} s per megapixel" in told


def test_json_has_no_more_digits_than_are_measured():
    facts = json.loads(CliRunner().invoke(app, ["models", "info", "maxim", "--json"]).stdout)
    gains = [one["gain_real"] for one in facts["checkpoints"]]
    assert gains
    assert all(len(f"{gain!r}") <= len("-12.3456") for gain in gains)
