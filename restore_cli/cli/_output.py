"""stdout carries data only: paths, tables, JSON. Everything else goes to stderr."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress

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
    """A listing that fits the terminal; tab-separated, without a heading, into a pipe."""
    if not _is_terminal():
        for row in rows:
            data("\t".join(row))
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*row)
    Console().print(grid)


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
        redirect_stdout=_is_terminal(),
    )


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
