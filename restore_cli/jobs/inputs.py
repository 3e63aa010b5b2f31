"""Finds the inputs of a run: files, folders, globs and lists of files."""

from __future__ import annotations

import codecs
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path
from unicodedata import normalize

from restore_cli.errors import NoInputError, RestoreError, UsageError, nearest_name
from restore_cli.image import PHOTO_SUFFIXES
from restore_cli.image.folders import is_hidden, list_folders, list_pictures, natural_key
from restore_cli.image.formats import HEAD, VIDEO_SUFFIXES, has_video_suffix, recognise
from restore_cli.image.xmp import WIDE_MARKS
from restore_cli.jobs.request import Selection

STREAM = Path("-")  # stdin or stdout
# Byte order marks of Windows programs.
_MARKS = ((codecs.BOM_UTF8, "utf-8"), *WIDE_MARKS)


@dataclass(frozen=True, slots=True)
class Source:
    """One input."""

    path: Path  # the file, or `STREAM`
    relative: Path = Path()  # its folder, relative to the given folder; outputs mirror this tree


def find(selection: Selection) -> list[Source]:
    """Return the pictures of a selection in order, without duplicates, for all shards together.

    Links to folders are not followed. Patterns match names or relative paths. Raises `NoInputError`
    if an input does not exist or cannot be read, or a pattern matches nothing.
    """
    found: dict[Path, Source] = {}
    suffixes = {*PHOTO_SUFFIXES, *_videos_asked_for(selection.include)}
    for given in map(as_stored, selection.inputs):
        try:
            for source in _expand(given, suffixes, selection):
                name = str(source.relative / source.path.name)
                if source.path == given or _wanted(name, selection.include, selection.exclude):
                    found.setdefault(_canonical_link(source.path), source)
        except OSError as error:  # e.g. the name is too long, or access to a folder is denied
            hint = "check its name, and the permissions of its folder"
            raise NoInputError(f"cannot use '{given}': {error.strerror}", hint=hint) from error
    return list(found.values())


def pictures(path: Path) -> list[Path]:
    """Return a file, or a folder's own pictures, sorted; raises `NoInputError` if it is missing."""
    return [source.path for source in _expand(path, PHOTO_SUFFIXES, Selection((path,)))]


def left_out(selection: Selection, suffixes: Collection[str]) -> list[Path]:
    """Return files with such suffixes in the selected folders that are not inputs, e.g. videos.

    Videos that the selection includes are not listed.
    """
    suffixes = {*suffixes} - _videos_asked_for(selection.include)
    return [
        source.path
        for folder in _folders(selection)
        for source in _folder(folder, suffixes, selection)
        if _wanted(source.path.name, selection.include, selection.exclude)
    ]


def left_out_below(selection: Selection) -> tuple[list[Path], list[Path]]:
    """Return subfolders that are not searched, and the pictures in them.

    Pictures further down are not searched for: that could take minutes.
    """
    if selection.recursive:
        return [], []
    below = [
        one
        for folder in _folders(selection)
        for one in list_folders(folder)
        if not (one.is_symlink() or one in selection.inputs)
        and _wanted(one.name, (), selection.exclude)
    ]
    pictures: list[Path] = []
    for one in below:
        with suppress(RestoreError):  # a folder that cannot be read
            pictures += left_out(replace(selection, inputs=(one,)), PHOTO_SUFFIXES)
    return below, pictures


def _folders(selection: Selection) -> list[Path]:
    return [folder for folder in selection.inputs if folder != STREAM and folder.is_dir()]


def _videos_asked_for(include: Sequence[str]) -> set[str]:
    """Return the suffixes of videos in which patterns end."""
    return {one for one in VIDEO_SUFFIXES if any(p.lower().endswith(one) for p in include)}


def read_list(text: bytes, *, separator: bytes) -> list[Path]:
    """Parse a list of paths, separated by line ends or NUL.

    Args:
        text: names as bytes; or UTF-8, UTF-16 or UTF-32 with a byte order mark; or UTF-16 of mostly
            Latin letters without a mark, as Windows programs write it.
        separator: line end or NUL; in UTF-16 and UTF-32 always the line end.

    Raises:
        UsageError: lines that contain NUL, as from `find -print0`; an incomplete character; or a
            picture instead of a list.
    """
    mark, encoding = next(((m, e) for m, e in _MARKS if text.startswith(m)), (b"", ""))
    encoding = encoding or _unmarked(text)
    if encoding == "utf-8":
        text = text.removeprefix(mark)
    elif encoding:
        try:
            text = text.decode(encoding).encode()  # whatever the locale: names are UTF-8 here
        except UnicodeError as error:
            raise UsageError(
                f"the list of files is not valid {encoding.upper()}", hint="save it as UTF-8"
            ) from error
        separator = b"\n"
    if separator != b"\0" and b"\0" in text:
        if recognise(text[:HEAD]):
            hint = "give pictures without --files-from"
            raise UsageError("the list of files is a picture", hint=hint)
        raise UsageError("the list of files contains NUL characters", hint="use -0")
    if separator == b"\n":
        # \x1a: the end of a file of DOS. A CR alone ended the lines of old Macs.
        text = text.removesuffix(b"\x1a").replace(b"\r\n", b"\n")
        text = text if b"\n" in text else text.replace(b"\r", b"\n")
    paths = [Path(_decode(name)) for name in text.split(separator) if name.strip()]
    return [path.absolute() if path == STREAM else path for path in paths]  # a file named "-"


def _decode(name: bytes) -> str:
    with suppress(UnicodeDecodeError):  # on Windows; elsewhere all bytes can be names
        return os.fsdecode(name)
    for encoding in ("oem", "mbcs"):  # of cmd and of other programs on Windows
        with suppress(UnicodeDecodeError, LookupError):
            return name.decode(encoding)
    raise UsageError("the list of files is not valid UTF-8", hint="save it as UTF-8")


def _unmarked(text: bytes) -> str:
    """Detect UTF-16 without a mark: every second byte of Latin text is NUL; "" if it is not."""
    if len(text) < 4 or len(text) % 2:
        return ""
    even, odd = text[::2].count(0), text[1::2].count(0)
    if max(even, odd) > 0.4 * len(text) / 2 and min(even, odd) == 0:
        return "utf-16-le" if odd else "utf-16-be"
    return ""


def _expand(given: Path, suffixes: Collection[str], selection: Selection) -> Iterator[Source]:
    if given == STREAM:
        yield Source(given)
    elif given.is_dir():
        yield from _folder(given, suffixes, selection)
    elif given.exists() or given.is_symlink():
        yield Source(given)
    elif has_magic(str(given)):
        yield from _glob(given, selection)
    else:
        raise missing(given)


def as_stored(path: Path) -> Path:
    """Return a path that exists, if necessary in another spelling of its name; else the path.

    Macs store letters with accents as two characters, other systems as one. Windows copies paths
    with quotation marks.
    """
    text = str(path)
    bare = text[1:-1] if text[0] == text[-1] == '"' else text
    spellings = (text, *(normalize(form, bare) for form in ("NFC", "NFD")), bare)
    return next((Path(one) for one in spellings if os.path.lexists(one)), path)


def missing(given: Path) -> NoInputError:
    """Return the error for an input that does not exist, with the name most like it there."""
    hint = f"check the name; it is not in '{given.parent.absolute()}'"
    if not given.parent.is_dir():
        hint = f"there is no folder '{given.parent}'"
    with suppress(OSError):
        near = nearest_name(given.name, sorted(path.name for path in given.parent.iterdir()))
        hint = f"did you mean '{given.parent / near}'?" if near else hint
    return NoInputError(f"no such file or folder: '{given}'", hint=hint)


def _glob(given: Path, selection: Selection) -> Iterator[Source]:
    """Expand a pattern that the shell did not expand, since it was quoted.

    Leading folders that exist are taken literally, including brackets. A folder that matches stands
    for the pictures in it.
    """
    root = next((parent for parent in given.parents if parent.exists()), given)  # no such drive
    pattern = given.relative_to(root)
    if not has_magic(str(pattern)):
        raise missing(given)
    suffixes = {*PHOTO_SUFFIXES, *({pattern.suffix.lower()} & VIDEO_SUFFIXES)}
    asked = any(is_hidden(part) for part in pattern.parts)
    # Not glob.iglob, which follows links to folders: two links to their own folder never end.
    below = pattern / "*" if pattern.name == "**" else pattern
    try:
        matches = [path.relative_to(root) for path in root.glob(str(below))]
    except (ValueError, NotImplementedError) as error:
        raise UsageError(f"'{given}' is not a pattern: {error}", hint="`**` is a folder") from error
    deep = "**" in pattern.parts
    if deep:  # folders that cannot be read, which `Path.glob` leaves out
        before = Path(*pattern.parts[: pattern.parts.index("**")])
        for top in root.glob(str(before)) if before.parts else [root]:
            list(_folder(top, (), replace(selection, recursive=True)))
    shown = [
        match
        for match in sorted(matches, key=natural_key)
        if asked or not any(is_hidden(part) for part in match.parts)
    ]
    sources: list[Source] = []
    for match in shown:
        path = root / match
        if match.suffix.lower() in suffixes and path.is_file():
            sources.append(Source(path, match.parent))
        elif path.is_dir() and not deep:
            inside = _folder(path, suffixes, selection)
            sources += [replace(one, relative=match / one.relative) for one in inside]
    if not sources:
        videos = any(map(has_video_suffix, matches))
        hint = "patterns of videos end in their suffix, e.g. '*.mp4'" if videos else ""
        raise NoInputError(f"no pictures match '{given}'", hint=hint)
    yield from sources


def _folder(folder: Path, suffixes: Collection[str], selection: Selection) -> Iterator[Source]:
    for path in list_pictures(
        folder,
        recursive=selection.recursive,
        suffixes=suffixes,
        enter=lambda relative: _wanted(str(relative), (), selection.exclude),
        dead_links=True,
    ):
        yield Source(path, path.parent.relative_to(folder))


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a name matches the patterns, in upper or lower case as suffixes do."""
    whole, base = Path(name).as_posix().lower(), Path(name).name.lower()

    def matches(patterns: Sequence[str]) -> bool:
        known = [pattern.lower().replace(os.sep, "/") for pattern in patterns]
        return any(fnmatchcase(one, pattern) for pattern in known for one in (base, whole))

    return not matches(exclude) and (not include or matches(include))


def _canonical_link(path: Path) -> Path:
    """Return one path for all spellings of a name; frames of a video may link to one another."""
    return path if path == STREAM else canonical_path(path.parent) / path.name


def canonical_path(path: Path) -> Path:
    """Return one path for all names of a file; a loop of links is returned as an absolute path."""
    if path == STREAM:
        return path
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path.absolute()
