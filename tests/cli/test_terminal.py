"""What a person sees at a terminal of 80 columns, as a terminal emulator shows it."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios

import pyte
import pytest
from conftest import ROOT
from rich.console import Console
from training_runs import make_recipe, save_photos, write_toml

from restore_cli.benchmarking.protocol import PROTOCOLS
from restore_cli.cli import _output as out
from restore_cli.cli._terminal import Bar, remaining_seconds, show_facts, show_table

COLUMNS = 80


def at_terminal(command: list[str], folder, rows: int = 60) -> tuple[int, list[str], str]:
    """Exit status, the lines of the screen at the end, and everything that was sent to it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=folder,
        env=environment,
        close_fds=True,
    )
    os.close(theirs)
    sent = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 120)
        try:
            piece = os.read(ours, 65536) if ready else b""
        except OSError:  # the other side was closed
            piece = b""
        if not piece:
            break
        sent += piece
    status = process.wait(timeout=60)
    os.close(ours)
    screen = pyte.Screen(COLUMNS, rows)
    pyte.ByteStream(screen).feed(sent)
    return status, [line.rstrip() for line in screen.display], sent.decode("utf-8", "replace")


BARS = """
import sys, time
from restore_cli.cli import _output as out
from restore_cli.cli._terminal import Bar
with Bar("pictures") as bar:
    first = bar.add_task("a-name-of-a-picture-that-is-rather-long-for-a-bar.png", total=3)
    second = bar.add_task("filling the pool", total=3)
    for n in range(3):
        bar.update(first, advance=1)
        bar.update(second, advance=1)
        bar.refresh()
        out.echo(f"/data/pictures/{n}.png")
        out.echo_err(f"note: {n}")
        sys.stderr.write(f"a library says {n}\\n")
        time.sleep(0.15)
"""


def test_lines_stand_alone_while_bars_live(tmp_path):
    status, lines, sent = at_terminal(["-c", BARS], tmp_path)
    assert status == 0, lines
    expected = [
        line
        for n in range(3)
        for line in (f"/data/pictures/{n}.png", f"note: {n}", f"a library says {n}")
    ]
    assert [line for line in lines if line] == expected
    assert "3/3" in sent
    assert "filling the pool" in sent


def test_time_left_begins_with_the_plan_and_ends_with_its_own_pace():
    assert remaining_seconds(0, 0, 100) == 100
    assert remaining_seconds(0, 120, 100) == 0
    assert remaining_seconds(0, 5, None) is None
    own, planned = 200.0, 1000.0
    left = remaining_seconds(0.9, 180, planned)
    assert left is not None
    assert own - 180 < left < 110
    first_tile = remaining_seconds(1 / 20, 10, 200)
    assert first_tile == pytest.approx(190)


def test_a_bar_is_one_line_of_the_terminal():
    console_file = io.StringIO()
    bar = Bar("pictures")
    bar.add_task("x" * 200, total=4, completed=1, expected=3600.0)
    Console(file=console_file, width=COLUMNS, force_terminal=True).print(bar.get_renderable())
    lines = console_file.getvalue().splitlines()
    assert len(lines) == 1
    assert "left" in lines[0]


NAMES = ["attentive-deblur-lite.handheld", "gfn-lite.shake", "maxim-mscam.motion"]
ROWS = [
    (name, "x4", "+0.47", "what was trained on: photos, blurred by handheld paths")
    for name in NAMES
]


def printed(show, *arguments, width: int) -> list[str]:
    stream = io.StringIO()
    show(*arguments, Console(file=stream, width=width, highlight=False))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_first_columns_are_never_wrapped(width):
    lines = printed(show_table, ("checkpoint", "scale", "gain", "data"), ROWS, width=width)
    for name in NAMES:
        assert sum(name in line.split() for line in lines) == 1, lines
    words = " ".join(lines).split()
    assert words.count("handheld") == 3


@pytest.mark.parametrize("width", [60, 80, 100])
def test_tables_lose_no_word(width):
    """Rich shrinks columns below their longest word, and then cuts it."""
    rows = [(one.name, one.description, one.source) for one in PROTOCOLS.values()]
    lines = printed(show_table, ("protocol", "what it computes", "source"), rows, width=width)
    assert all(len(line) <= width for line in lines)
    for row in rows:
        assert all(any(word in line.split() for line in lines) for word in " ".join(row).split())


def test_control_characters_in_cells_are_printed_as_text(capfd):
    out.facts([("recipe", "\x1b]0;title\x07\nfake\tline")])
    out.table(["name"], [["a\x9b1m"]])
    printed = r"\x1b]0;title\x07\x0afake\x09line"
    assert capfd.readouterr().out == f"recipe\t{printed}\na\\x9b1m\n"


def test_narrow_terminals_get_stacked_rows():
    lines = printed(show_table, ("checkpoint", "scale", "gain", "data"), ROWS, width=40)
    assert lines[0] == NAMES[0]
    assert lines[1].split() == ["scale", "x4"]


def test_facts_keep_their_names_and_long_paths_whole():
    path = "/home/somebody/" + "x" * 90
    lines = printed(show_facts, [("cache", path), ("memory", "a b c " * 20)], width=80)
    assert f"cache   {path}" in lines
    assert all(len(line) <= 80 for line in lines if path not in line)


def alone(lines: list[str], wanted: list[str]) -> bool:
    """Whether each of the lines stands on the screen, with nothing beside it."""
    return all(lines.count(line) == 1 for line in wanted)


@pytest.mark.slow
def test_image_at_a_terminal(tmp_path, tiny_weights):
    save_photos(tmp_path / "in", [(48, 60)] * 3)
    (tmp_path / "in" / "bad.png").write_text("no")
    command = ["-m", "restore_cli", "image", "in", "-o", "out", "-w", str(tiny_weights)]
    status, lines, sent = at_terminal([*command, "--tile", "32", "--overlap", "8"], tmp_path)
    assert status == 1
    assert alone(lines, [f"out/{n}_x4.png" for n in range(3)])
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert alone(lines, ["4 pictures, 8,640 pixels -> 0.1 megapixels"])
    assert re.search(r"tile \d of \d", sent)
    assert not any("━" in line for line in lines)  # the bar is gone


@pytest.mark.slow
def test_degrade_at_a_terminal(tmp_path):
    save_photos(tmp_path / "photos", [(160, 176)] * 2)
    command = ["-m", "restore_cli", "degrade", "photos", "-o", "pairs", "-j", "1"]
    status, lines, _ = at_terminal(command, tmp_path)
    assert status == 0, lines
    written = [line for line in lines if line.endswith(".png")]
    assert len(written) >= 2
    assert all((tmp_path / line).is_file() for line in written)
    assert any(line.startswith("2 pairs in ") for line in lines)
    assert not any("━" in line for line in lines)


@pytest.mark.slow
def test_train_at_a_terminal(tmp_path, photos, held_out):
    recipe = tmp_path / "tiny.toml"
    write_toml(recipe, make_recipe())
    command = ["-m", "restore_cli", "train", str(recipe), "--data", str(photos), "-o", "run"]
    status, lines, sent = at_terminal([*command, "--validation", str(held_out)], tmp_path)
    assert status == 0, lines
    assert any(re.fullmatch(r"step 3: .* dB, .*", line) for line in lines), lines
    assert alone(lines, ["run/weights.safetensors"])
    assert "/6" in sent
    assert not any("━" in line for line in lines)


@pytest.mark.slow
def test_benchmark_at_a_terminal(tmp_path):
    save_photos(tmp_path / "pairs" / "input", [(48, 60)] * 3)
    save_photos(tmp_path / "pairs" / "target", [(192, 240)] * 3)
    command = ["-m", "restore_cli", "benchmark", "--dataset", "pairs", "--model", "bicubic"]
    status, lines, sent = at_terminal([*command, "-o", "out"], tmp_path)
    assert status == 0, lines
    assert any(line.startswith("bicubic") for line in lines)
    assert alone(lines, ["written: out/report.html"])
    assert "/3" in sent
    assert not any("━" in line for line in lines)


def test_notes_are_broken_between_words_and_names_stay_whole(tmp_path):
    name = f"/data/{'n' * 90}.png"
    note = f"note: {'several words of a note ' * 4}about '{name}' and others"
    code = f"from restore_cli.cli import _output as out\nout.echo_err({note!r})\n"
    _, lines, sent = at_terminal(["-c", code], tmp_path)
    assert " ".join(line for line in sent.split() if line) == note
    assert name in sent
    assert all(line.split()[-1] in note.split() for line in lines[:1])
    piped = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    )
    assert piped.stderr.decode().splitlines() == [note]


def test_messages_without_stderr_are_lost_and_nothing_else(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    out.echo_err("nobody reads this")
    with Bar("pictures") as bar:
        bar.add_task("", total=1)
