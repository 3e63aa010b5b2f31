"""Output: data (paths, tables, JSON) goes to stdout, everything else to stderr."""

from __future__ import annotations

import codecs
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from functools import partial

from rich.console import Console

from restore_cli.cli import _terminal
from restore_cli.cli._terminal import bar_aside, is_terminal, show_facts, show_table
from restore_cli.files import write_to_stdout

ANY_TEXT = "restore.any-text"  # name of the error handler, for `str.encode` and streams


def _encode_anything(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Encode any text: undecodable bytes of a name unchanged, other characters as \u65e5."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if "\udc80" <= letter <= "\udcff":
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    return letter.encode("ascii", "backslashreplace").decode(), error.start + 1


codecs.register_error(ANY_TEXT, _encode_anything)


def echo_err(message: str) -> None:
    r"""Print a line for people on stderr; a closed or full stderr does not stop the work.

    A terminal breaks it between words; a word longer than a line stays whole, to be copied.
    Control characters, which names of files may contain, are printed as `\x1b`.
    """
    message = "\n".join(map(printable, message.split("\n")))
    # The disk is full, stderr is closed, and rich's exception for a broken pipe.
    with suppress(OSError, ValueError, SystemExit), bar_aside():
        console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)
        lines = message.splitlines()
        if is_terminal(sys.stderr):
            break_at = partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)
            lines = [part for line in lines for part in break_at(line, console.width) or [""]]
        console.print("\n".join(lines), markup=False)


def note(message: str) -> None:
    """Print a message on stderr, unless --quiet was given."""
    if not _terminal.quiet:
        echo_err(message)


def printable(text: str) -> str:
    r"""Return a text with control characters as `\x1b`, so that they do nothing to a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def echo(line: str) -> None:
    """Print a line of data on stdout; a closed pipe does not stop the work.

    On a full disk it raises `RestoreError`.
    """
    with bar_aside() if is_terminal(sys.stdout) else nullcontext():
        write_to_stdout((line + "\n").encode(errors=ANY_TEXT))


def echo_json(value: object) -> None:
    r"""Print one JSON value on one line; bytes that are not UTF-8 are escaped as \udcff."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    echo(text)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    r"""Print a table that fits the terminal; into a pipe, tab-separated and without a heading.

    The first column is never wrapped; see `show_table`. Control characters, which files may
    contain, are printed as `\x1b`.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        show_table(columns, rows)
        return
    for row in rows:
        echo("\t".join(row))


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    r"""Print names and values, one pair per line; tab-separated into a pipe.

    Control characters, which files may contain, are printed as `\x1b`.
    """
    pairs = [(printable(name), printable(value)) for name, value in pairs]
    if is_terminal(sys.stdout):
        show_facts(pairs)
        return
    for pair in pairs:
        echo("\t".join(pair))


def format_gain(gain: float | None) -> str:
    """Format a gain in dB for a table; "-" if none was measured.

    >>> format_gain(0.876), format_gain(None)
    ('+0.88', '-')
    """
    return "-" if gain is None else f"{gain:+.2f}"
