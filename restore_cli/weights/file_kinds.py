"""Recognises the kind of a file of weights by its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

from restore_cli.errors import WeightsError
from restore_cli.formatting import format_list

HEAD = 512  # bytes that are examined
PICKLES = frozenset({".pth", ".pt", ".ckpt", ".bin", ".pkl"})
# What has no signature, or none that is certain.
_BY_SUFFIX = {
    ".onnx": "an ONNX graph",
    ".pb": "a TensorFlow graph",
    ".tflite": "a TensorFlow Lite graph",
    ".msgpack": "a Flax checkpoint",
}
SUFFIXES = frozenset({".safetensors", ".npz", ".h5", ".gguf", *PICKLES, *_BY_SUFFIX})
_UNPACK = "unpack it, and give the checkpoint file in it"
_PAGES = (b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")
_OTHERS = {
    b"\x1f\x8b": ("a gzip archive", _UNPACK),
    b"7z\xbc\xaf": ("a 7z archive", _UNPACK),
    b"Rar!": ("a RAR archive", _UNPACK),
    b"BZh": ("a bzip2 archive", _UNPACK),
    b"\xfd7zXZ": ("an xz archive", _UNPACK),
    b"\x89HDF": ("an HDF5 file, e.g. of Keras", "save its variables with numpy.savez, import that"),
    b"GGUF": ("a GGUF file", "give the PyTorch or safetensors file it was made from"),
    b"\x89PNG": ("a picture", "give the checkpoint file"),
    b"\xff\xd8\xff": ("a picture", "give the checkpoint file"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard archive", _UNPACK),
    b"\x93NUMPY": ("one NumPy array", "save all arrays by name with numpy.savez, import that"),
    b"%PDF": ("a PDF document", "give the checkpoint file"),
}


class DamagedFileError(WeightsError):
    """A file that is not what was published, e.g. truncated or a web page; a new copy may help."""


def detect_kind(path: Path, otherwise: str = "") -> str:
    """Return `safetensors`, `npz` or `pickle`, by content.

    If that is not conclusive, it is `otherwise`, or what the suffix says. Raises `WeightsError` for
    e.g. a Git LFS pointer, a web page, an archive or text.
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
        names = {name.partition("/")[2] for name in inside}
        if {"data.pkl", "constants.pkl"} <= names:
            raise WeightsError(
                f"'{path}' is a TorchScript program, not weights",
                hint="save the state dict of its network: torch.save(network.state_dict(), PATH)",
            )
        if "data.pkl" in names:  # of PyTorch
            return "pickle"
        raise WeightsError(
            f"'{path}' is a ZIP archive of {format_list(inside, 3)}",
            hint=_UNPACK,
        )
    if head.startswith(b"PK\3\4"):
        raise DamagedFileError(
            f"'{path}' is incomplete: an archive without its end", hint="fetch it again"
        )
    check_is_weights(path, head)
    # A truncated safetensors file may begin as a pickle does.
    if head.startswith(b"\x80") and head[8:9] != b"{":
        return "pickle"
    suffix = path.suffix.lower()
    if suffix in _BY_SUFFIX:
        raise WeightsError(
            f"'{path}' is {_BY_SUFFIX[suffix]}, which cannot be read",
            hint="give the PyTorch or safetensors file it was made from",
        )
    return otherwise or {".safetensors": "safetensors", ".npz": "npz"}.get(suffix, "pickle")


def check_is_weights(path: Path, head: bytes) -> None:
    """Raise a `WeightsError` naming a file's kind if its first bytes are certainly not weights."""
    if not head:
        raise DamagedFileError(f"'{path}' is empty", hint="fetch it again")
    for magic, (what, remedy) in _OTHERS.items():
        if head.startswith(magic):
            raise WeightsError(f"'{path}' is {what}", hint=remedy)
    if head.startswith(b"version https://git-lfs"):
        raise DamagedFileError(
            f"'{path}' is a Git LFS pointer, not the file", hint="fetch it with `git lfs pull`"
        )
    if head[257:262] == b"ustar":
        raise WeightsError(f"'{path}' is a tar archive", hint="unpack it, and give a file in it")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_PAGES):
        raise DamagedFileError(
            f"'{path}' is a web page, not a checkpoint",
            hint="the server asked for confirmation or refused; fetch the file with a browser",
        )
    text = head.decode("utf-8", "ignore")
    if (
        start
        and len(text) > 0.9 * len(head)
        and all(c.isprintable() or c in "\r\n\t" for c in text)
    ):
        if b'"weight_map"' in head:
            raise WeightsError(
                f"'{path}' is the index of a checkpoint in several files",
                hint="give one .safetensors file with all its tensors",
            )
        line = text.strip().splitlines()[0][:60]
        raise DamagedFileError(
            f"'{path}' is text, not weights: {line}",
            hint="fetch it again, if necessary with a browser",
        )


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return []
