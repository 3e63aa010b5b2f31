"""What there is to restore: files, folders, globs and lists of them."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import has_magic, iglob
from pathlib import Path

from restore_cli.errors import NoInputError, UsageError
from restore_cli.image import PHOTO_SUFFIXES
from restore_cli.image.folders import by_number, is_hidden, list_pictures
from restore_cli.jobs.request import Selection

STREAM = Path("-")  # stdin or stdout
# Windows' programs begin lists with one; UTF-32's little-endian mark begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """One input.

    Attributes:
        path: of the file, or `STREAM`.
        relative: its folder below the one that was given; the tree of outputs mirrors it.
    """

    path: Path
    relative: Path = Path()


def find(selection: Selection) -> list[Source]:
    """Every picture of a selection, each once, in order, all shards together.

    Links to folders are not followed. Patterns of `exclude` are of names or of relative paths.

    Raises:
        NoInputError: an input does not exist or cannot be looked at, or a pattern matches nothing.
    """
    found: dict[Path, Source] = {}
    include, exclude = selection.include, selection.exclude
    for given in selection.inputs:
        try:
            for source in _expand(given, recursive=selection.recursive, exclude=exclude):
                name = str(source.relative / source.path.name)
                if source.path == given or _wanted(name, include, exclude):
                    found.setdefault(identity(source.path), source)
        except OSError as error:  # a name that is too long, a folder without permission
            raise NoInputError(f"cannot use '{given}': {error.strerror}") from error
    return list(found.values())


def pictures(path: Path) -> list[Path]:
    """The file itself, or the pictures directly in a folder, sorted.

    Raises:
        NoInputError: it does not exist.
    """
    return [source.path for source in _expand(path, recursive=False)]


def read_list(text: bytes, *, separator: bytes) -> list[Path]:
    """Paths from a list, one a line or ended by NUL.

    Args:
        text: bytes of names; or UTF-8, UTF-16 or UTF-32 with a mark at its beginning, or UTF-16 of
            mostly Latin letters without one, as Windows' programs write it.
        separator: of names, a line's end or NUL; in UTF-16 and UTF-32 always a line's end.

    Raises:
        UsageError: a list of lines that holds NUL: it was made with `-print0`; half of a character.
    """
    mark, encoding = next(((m, e) for m, e in _MARKS if text.startswith(m)), (b"", ""))
    encoding = encoding or _unmarked(text)
    if encoding == "utf-8":
        text = text.removeprefix(mark)
    elif encoding:
        try:
            text = os.fsencode(text.decode(encoding))
        except UnicodeError as error:
            raise UsageError(
                f"the list of files is not whole {encoding.upper()}", hint="save it as UTF-8"
            ) from error
        separator = b"\n"
    if separator != b"\0" and b"\0" in text:
        raise UsageError("the list of files has NUL characters", hint="use -0")
    names = (
        name.removesuffix(b"\r") if separator == b"\n" else name for name in text.split(separator)
    )
    paths = [Path(os.fsdecode(name)) for name in names if name]
    return [path.absolute() if path == STREAM else path for path in paths]  # a file of that name


def _unmarked(text: bytes) -> str:
    """UTF-16 without a mark: every second byte of a name in Latin letters is NUL."""
    if len(text) < 4 or len(text) % 2:
        return ""
    even, odd = text[::2].count(0), text[1::2].count(0)
    if max(even, odd) > 0.4 * len(text) / 2 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return ""


def _expand(given: Path, *, recursive: bool, exclude: Sequence[str] = ()) -> Iterator[Source]:
    if given == STREAM:
        yield Source(given)
    elif given.is_dir():
        yield from _folder(given, recursive=recursive, exclude=exclude)
    elif given.exists() or given.is_symlink():
        yield Source(given)
    elif has_magic(str(given)):
        yield from _glob(given)
    else:
        raise NoInputError(f"no such file or folder: '{given}'")


def _glob(given: Path) -> Iterator[Source]:
    """A pattern that the shell did not expand, because it was quoted.

    Folders at its beginning that exist are taken literally, brackets included.
    """
    root = next(parent for parent in given.parents if parent.exists())
    pattern = given.relative_to(root)
    if not has_magic(str(pattern)):
        raise NoInputError(f"no such file or folder: '{given}'")
    asked = any(is_hidden(part) for part in pattern.parts)
    names = iglob(str(pattern), root_dir=root, recursive=True, include_hidden=asked)  # noqa: PTH207
    matches = [Path(name) for name in names]
    sources = [
        Source(root / match, match.parent)
        for match in sorted(matches, key=by_number)
        if (asked or not any(is_hidden(part) for part in match.parts))
        and match.suffix.lower() in PHOTO_SUFFIXES
        and (root / match).is_file()
    ]
    if not sources:
        raise NoInputError(f"no pictures match '{given}'")
    yield from sources


def _folder(folder: Path, *, recursive: bool, exclude: Sequence[str]) -> Iterator[Source]:
    def enter(relative: Path) -> bool:
        return _wanted(str(relative), (), exclude)

    for path in list_pictures(folder, recursive=recursive, enter=enter):
        yield Source(path, path.parent.relative_to(folder))


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
