"""Listings in terminals: names can be copied, and nothing is wider than the terminal."""

from __future__ import annotations

import pytest

from restore_cli.cli import _output as out

COLUMNS = ("model", "PSNR", "what differs")
NAME = "attentive-deblur-lite.handheld"
ROWS = [
    (NAME, "26.1", "the network is not implemented here; only a part of the pictures"),
    ("x", "1", "-"),
]


@pytest.mark.parametrize("width", [100, 80, 50, 40])
def test_names_never_wrap(monkeypatch, capsys, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(out, "is_terminal", lambda: True)
    out.table(COLUMNS, ROWS)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith(NAME) for line in lines) == 1
    assert all(value in " ".join(" ".join(lines).split()) for value in ("26.1", "PSNR"))


def test_a_pipe_gets_tabs(capsys):
    out.table(COLUMNS, ROWS)
    assert capsys.readouterr().out.splitlines()[1] == "x\t1\t-"
