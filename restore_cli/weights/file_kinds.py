"""Recognises the kind of a file of weights by its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from restore_cli.errors import WeightsError
from restore_cli.formatting import format_list

HEAD = 512  # bytes that are examined
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
_OTHERS = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file", "fetch it with `git lfs pull`"),
    b"\x1f\x8b": ("a gzip archive", "unpack it, and give the checkpoint file in it"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it, and give the checkpoint file in it"),
    b"Rar!": ("a RAR archive", "unpack it, and give the checkpoint file in it"),
    b"BZh": ("a bzip2 archive", "unpack it, and give the checkpoint file in it"),
    b"\xfd7zXZ": ("an xz archive", "unpack it, and give the checkpoint file in it"),
    b"\x89HDF": ("an HDF5 file, e.g. of Keras", "save its variables with numpy.savez, import that"),
    b"GGUF": ("a GGUF file", "give the PyTorch or safetensors file it was made from"),
    b"\x89PNG": ("a picture", "give the checkpoint file"),
    b"\xff\xd8\xff": ("a picture", "give the checkpoint file"),
    b"%PDF": ("a PDF document", "give the checkpoint file"),
}


def detect_kind(path: Path) -> str:
    """Return `safetensors`, `npz` or `pickle`, by content, or by suffix if that is not conclusive.

    Raises `WeightsError` for e.g. a Git LFS pointer, a web page, an archive or text.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(HEAD)
    except OSError as error:
        raise WeightsError(f"cannot read '{path}': {error.strerror}") from error
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= size - 8:
        return "safetensors"
    if head.startswith(b"PK") and (inside := _members(path)):
        if all(name.endswith(".npy") for name in inside):
            return "npz"
        if any(name.partition("/")[2] == "data.pkl" for name in inside):  # of PyTorch
            return "pickle"
        raise WeightsError(
            f"'{path}' is a ZIP archive of {format_list(inside, 3)}",
            hint="unpack it, and give the checkpoint file in it",
        )
    if head.startswith(b"PK\3\4"):
        raise WeightsError(
            f"'{path}' is incomplete: an archive without its end", hint="fetch it again"
        )
    check_is_weights(path, head)
    named = {".safetensors": "safetensors", ".npz": "npz"}
    return "pickle" if head.startswith(b"\x80") else named.get(path.suffix, "pickle")


def check_is_weights(path: Path, head: bytes) -> None:
    """Raise a `WeightsError` naming a file's kind if its first bytes are certainly not weights."""
    for magic, (what, remedy) in _OTHERS.items():
        if head.startswith(magic):
            raise WeightsError(f"'{path}' is {what}", hint=remedy)
    if head[257:262] == b"ustar":
        raise WeightsError(f"'{path}' is a tar archive", hint="unpack it, and give a file in it")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_PAGES):
        raise WeightsError(
            f"'{path}' is a web page, not a checkpoint",
            hint="the server asked for confirmation or refused; fetch the file with a browser",
        )
    text = head.decode("utf-8", "ignore")
    if (
        start
        and len(text) > 0.9 * len(head)
        and all(c.isprintable() or c in "\r\n\t" for c in text)
    ):
        line = text.strip().splitlines()[0][:60]
        raise WeightsError(
            f"'{path}' is text, not weights: {line}",
            hint="fetch it again, if necessary with a browser",
        )


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []
