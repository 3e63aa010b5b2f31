"""Reads the content of files and of stdin."""

from __future__ import annotations

import io
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from restore_cli.errors import PictureError, UsageError
from restore_cli.formatting import reason_of

MAX_PIXELS = 268_000_000  # of a picture, by default
_PIECE = 1 << 20  # bytes
_MAX_BYTES = 4 * MAX_PIXELS * 8  # in a file


def read_bytes(path: Path) -> bytes:
    """Read a file or a pipe; raises `PictureError` if it is neither, unreadable or too large."""
    try:
        kind = path.stat().st_mode
        if stat.S_ISDIR(kind):
            raise PictureError(f"'{path}' is a folder, not a file")
        if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
            raise PictureError(f"'{path}' is a device, not a file")
        with path.open("rb") as stream:
            return _read(stream, f"'{path}'")
    except (OSError, ValueError) as error:  # the latter if the path contains NUL
        raise PictureError(f"cannot read '{path}': {reason_of(error)}") from error


def read_stdin() -> bytes:
    """Read stdin; raises `UsageError` if it is closed, and `PictureError` if it is too large."""
    if sys.stdin is None:
        raise UsageError("stdin is closed", hint="pipe something into it, or name files")
    return _read(sys.stdin.buffer, "stdin")


def _read(stream: BinaryIO, name: str) -> bytes:
    """Read in pieces: one `read` would allocate that much memory at once."""
    content = io.BytesIO()
    try:
        while piece := stream.read(_PIECE):
            content.write(piece)
            if content.tell() > _MAX_BYTES:
                raise PictureError(f"{name} has more than {_MAX_BYTES:,} bytes, the limit")
        return content.getvalue()
    except MemoryError as error:
        raise PictureError(f"{name} is larger than the free memory") from error
