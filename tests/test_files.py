"""What to do about errors of writing."""

from __future__ import annotations

import errno

import pytest
from safetensors import SafetensorError

from restore_cli.files import remedy


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "free disk space"),
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
