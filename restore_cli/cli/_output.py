"""stdout carries data only: paths, tables, JSON. Everything else goes to stderr."""

from __future__ import annotations

import codecs
import json
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress

from rich.console import Console

from restore_cli.cli._terminal import Bar, bar_aside, is_terminal, show_facts, show_table
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
    """A line for the person at the terminal; when nobody reads it, the work goes on.

    A terminal shows it broken between words, and what is longer than a line whole, to be copied.
    """
    # Full, closed, and rich's for a broken pipe.
    with suppress(OSError, ValueError, SystemExit), bar_aside():
        console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        lines = message.splitlines()
        if console.is_terminal:
            lines = [part for line in lines for part in _parts(line, console.width)]
        console.print("\n".join(lines), markup=False)


def _parts(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) or [""]


def data(line: str) -> None:
    """A line for the next program in the pipe; when that one has gone, the work goes on.

    Raises:
        RestoreError: stdout cannot be written to, e.g. its disk is full.
    """
    with bar_aside() if is_terminal() else nullcontext():
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

    The first column is never wrapped; see `show_table`.
    """
    if is_terminal():
        show_table(columns, rows)
        return
    for row in rows:
        data("\t".join(row))


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line; tab-separated into a pipe."""
    if is_terminal():
        show_facts(pairs)
        return
    for pair in pairs:
        data("\t".join(pair))


def decibels(gain: float | None) -> str:
    """A gain in dB for a table; "-" where none was measured.

    >>> decibels(0.876), decibels(None)
    ('+0.88', '-')
    """
    return "-" if gain is None else f"{gain:+.2f}"


def progress_bar(*, quiet: bool, unit: str) -> Bar:
    """A bar with time left on stderr; nothing where stderr is no terminal, or when quiet."""
    return Bar(quiet=quiet, unit=unit)
