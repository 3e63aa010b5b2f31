"""What to do about errors of writing."""

from __future__ import annotations

import errno
import io
import sys

import pytest
from safetensors import SafetensorError

from restore_cli.errors import RestoreError
from restore_cli.files import remedy, write_to_stdout


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free disk space"),
        (OSError(errno.EFBIG, "File too large"), "ulimit -f"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "your quota"),
        (OSError(errno.EROFS, "Read-only file system"), "read-only"),
        (PermissionError(errno.EACCES, "Permission denied"), "that you may write to"),
        (OSError(errno.ENAMETOOLONG, "File name too long"), "shorter name"),
        (SafetensorError("I/O error: Read-only file system (os error 30)"), "read-only"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "free disk space"),
        (OSError(errno.EIO, "Input/output error"), "another place"),
        (RuntimeError("a stream of torch failed"), "free disk space"),
    ],
)
def test_the_remedy_fits_the_error(error, words):
    assert words in remedy(error)


class Unbuffered(io.BytesIO):
    """Takes three bytes at a time, at most `room`, as a raw stream does."""

    room = 1 << 20

    def write(self, data):
        taken = super().write(bytes(data[: min(3, self.room - self.tell())]))
        return taken or None


def test_nothing_is_lost_if_stdout_takes_only_a_part(monkeypatch):
    stream = Unbuffered()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(stream))
    assert write_to_stdout(b"0123456789")
    assert stream.getvalue() == b"0123456789"
    stream.room = 15
    with pytest.raises(RestoreError, match="cannot write to stdout: it does not accept more"):
        write_to_stdout(b"0123456789")
