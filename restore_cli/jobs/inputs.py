"""What there is to restore: files, folders, globs and lists of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import has_magic, iglob
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from restore_cli.errors import NoInputError, UsageError
from restore_cli.image import PHOTO_SUFFIXES

STREAM = Path("-")  # stdin or stdout


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    Attributes:
        path: of the file, or `STREAM`.
        relative: its folder below the one that was given; the tree of outputs mirrors it.
    """

    path: Path
    relative: Path = Path()


def find(
    inputs: Iterable[Path],
    *,
    recursive: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> list[Source]:
    """Every picture among the inputs, each once, in order.

    Args:
        inputs: files, folders, glob patterns, `STREAM`.
        recursive: folders with all folders in them; links to folders are not followed.
        include: patterns that names in folders must match, e.g. `*.jpg`.
        exclude: patterns that neither their names nor their relative paths may match.

    Raises:
        NoInputError: an input does not exist, or a pattern matches nothing.
    """
    found: dict[Path, Source] = {}
    for given in inputs:
        for source in _expand(given, recursive=recursive, exclude=exclude):
            name = str(source.relative / source.path.name)
            if source.path != given and not _wanted(name, include, exclude):
                continue
            found.setdefault(identity(source.path), source)
    return list(found.values())


def pictures(path: Path) -> list[Path]:
    """The file itself, or the pictures directly in a folder, sorted.

    Raises:
        NoInputError: it does not exist.
    """
    return [source.path for source in _expand(path, recursive=False)]


def read_list(text: bytes, *, separator: bytes) -> list[Path]:
    """Paths from a list, one a line or ended by NUL.

    Raises:
        UsageError: a list of lines that holds NUL: it was made with `-print0`.
    """
    if separator != b"\0" and b"\0" in text:
        raise UsageError("the list of files has NUL characters", hint="use -0")
    names = (name.rstrip(b"\r") if separator == b"\n" else name for name in text.split(separator))
    paths = [Path(os.fsdecode(name)) for name in names if name]
    return [path.absolute() if path == STREAM else path for path in paths]  # a file of that name


def _expand(given: Path, *, recursive: bool, exclude: Sequence[str] = ()) -> Iterator[Source]:
    if given == STREAM:
        yield Source(given)
    elif given.is_dir():
        yield from _folder(given, recursive=recursive, exclude=exclude)
    elif given.exists() or given.is_symlink():
        yield Source(given)
    elif has_magic(str(given)):
        # A pattern that the shell did not expand, because it was quoted.
        names = iglob(str(given), recursive=True)  # noqa: PTH207 — of absolute patterns too
        matches = sorted(map(Path, names))
        root = Path(*takewhile(lambda piece: not has_magic(piece), given.parts))
        sources = [
            Source(match, match.parent.relative_to(root))
            for match in matches
            if match.is_file() and _is_picture(match)
        ]
        if not sources:
            raise NoInputError(f"no pictures match '{given}'")
        yield from sources
    else:
        raise NoInputError(f"no such file or folder: '{given}'")


def _folder(folder: Path, *, recursive: bool, exclude: Sequence[str]) -> Iterator[Source]:
    if not recursive:
        try:
            inside = sorted(folder.iterdir())
        except OSError as error:
            _unreadable(error)
        for path in inside:
            if _is_picture(path) and path.is_file():
                yield Source(path)
        return
    for parent, folders, names in os.walk(folder, onerror=_unreadable):  # no links: no loops
        relative = Path(parent).relative_to(folder)
        folders[:] = sorted(n for n in folders if _wanted(str(relative / n), (), exclude))
        for name in sorted(names):
            path = Path(parent, name)
            if _is_picture(path) and path.is_file():
                yield Source(path, relative)


def _unreadable(error: OSError) -> NoReturn:
    raise UsageError(
        f"cannot look into '{error.filename}': {error.strerror}",
        hint="or leave it out with --exclude NAME",
    )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PHOTO_SUFFIXES and not path.name.startswith(".")


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    base = Path(name).name
    if any(fnmatch(base, pattern) or fnmatch(name, pattern) for pattern in exclude):
        return False
    return not include or any(fnmatch(base, p) or fnmatch(name, p) for p in include)


def identity(path: Path) -> Path:
    """The same for one file by two names; a loop of links is itself."""
    if path == STREAM:
        return path
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()
