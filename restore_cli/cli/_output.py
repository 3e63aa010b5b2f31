"""stdout carries data only: paths, tables, JSON. Everything else goes to stderr."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from restore_cli.files import write_to_stdout

ANY_TEXT = "restore.any-text"  # a handler of errors, for `str.encode` and streams


def _encode_anything(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""What an encoding has no character for: bytes of a name as they were, all else as \u65e5."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return letter.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(ANY_TEXT, _encode_anything)


def talk(message: str) -> None:
    """A line for the person at the terminal; when nobody reads it, the work goes on."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
    with suppress(OSError, ValueError, SystemExit):  # full, closed, and rich's for a broken pipe
        console.print(message, markup=False)


def data(line: str) -> None:
    """A line for the next program in the pipe; when that one has gone, the work goes on.

    Raises:
        RestoreError: stdout cannot be written to, e.g. its disk is full.
    """
    write_to_stdout((line + "\n").encode(errors=ANY_TEXT))


def data_json(value: object) -> None:
    r"""One JSON value on one line; bytes that are no UTF-8 as \udcff, else it would be no JSON."""
    text = json.dumps(value, ensure_ascii=False)
    data(text if text.isascii() or _is_text(text) else json.dumps(value))


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A listing that fits the terminal; tab-separated, without a heading, into a pipe.

    The first column, with the names, never wraps.
    """
    if not is_terminal():
        for row in rows:
            data("\t".join(row))
        return
    console, lines = Console(), list(rows)
    # Of the first column the whole cell, of the others the longest word.
    needed = [
        max(
            (cell_len(word) for cell in cells for word in (cell.split() if n else [cell])),
            default=0,
        )
        for n, cells in enumerate(zip(columns, *lines, strict=True))
    ]
    if sum(needed) + 2 * len(needed) > console.width:  # each row as a block of lines
        for line in lines:
            console.print(line[0], style="bold", markup=False, highlight=False, soft_wrap=True)
            block = Table(box=None, pad_edge=False, show_header=False, padding=(0, 1, 0, 2))
            for column, cell in zip(columns[1:], line[1:], strict=True):
                if cell != "-":
                    block.add_row(column, Text(cell, overflow="fold"))
            console.print(block)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for n, column in enumerate(columns):
        grid.add_column(column, overflow="fold", no_wrap=n == 0)
    for line in lines:
        grid.add_row(*line)
    console.print(grid)


def decibels(gain: float | None) -> str:
    """A gain in dB for a table; "-" where none was measured.

    >>> decibels(0.876), decibels(None)
    ('+0.88', '-')
    """
    return "-" if gain is None else f"{gain:+.2f}"


def progress_bar(*, quiet: bool, unit: str) -> Progress:
    """A bar with time left on stderr; nothing where stderr is no terminal, or when quiet."""
    console = Console(stderr=True)
    console.quiet = quiet or not console.is_terminal  # rich 13 ends even a disabled bar with a line
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=console.quiet,
        # Rich would send what is written to stdout to this console, which is stderr.
        redirect_stdout=is_terminal(),
    )


def is_terminal() -> bool:
    """Whether stdout is one."""
    return sys.stdout is not None and sys.stdout.isatty()
