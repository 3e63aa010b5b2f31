"""What in a folder is a picture, and in which order: the one place that decides it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from restore_cli.errors import UsageError
from restore_cli.image.formats import PHOTO_SUFFIXES

# Folders that systems make for themselves: bins, snapshots, thumbnails. They hold copies.
_SYSTEM = frozenset(
    {
        *("__macosx", "$recycle.bin", "recycler", "recycled", "system volume information"),
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found"),
    }
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none that a person put there to be worked on.

    Names that begin with a dot (AppleDouble files, thumbnails and trash among them), and folders
    of the system.

    >>> is_hidden("._a.png"), is_hidden("@eaDir"), is_hidden("a.png")
    (True, True, False)
    """
    return name.startswith(".") or name.casefold() in _SYSTEM


def by_number(path: Path) -> list[tuple[tuple[str | int, ...], str]]:
    """A key to sort by: numbers in names count as numbers.

    >>> [p.name for p in sorted(map(Path, ("10.png", "2.png", "1.png")), key=by_number)]
    ['1.png', '2.png', '10.png']
    """
    return [
        (tuple(int(x) if n % 2 else x for n, x in enumerate(re.split("([0-9]+)", part))), part)
        for part in path.parts
    ]


def list_pictures(
    folder: Path,
    *,
    recursive: bool = False,
    suffixes: Collection[str] = PHOTO_SUFFIXES,
    enter: Callable[[Path], bool] = lambda relative: True,
) -> list[Path]:
    """The pictures in a folder, those of a folder in it together, in the order of their numbers.

    Args:
        folder: to look into.
        recursive: with all folders in it; links to folders are not followed, so loops end.
        suffixes: lower-case, of names that are taken.
        enter: whether to look into a folder, given its path below the one that was given.

    Raises:
        UsageError: a folder cannot be looked into.
    """
    try:
        return list(_walk(folder, Path(), recursive, suffixes, enter))
    except OSError as error:
        raise _unreadable(error) from error


def list_folders(folder: Path) -> list[Path]:
    """The folders in a folder that are no system's, in the order of their numbers.

    Raises:
        UsageError: it cannot be looked into.
    """
    try:
        found = [path for path in folder.iterdir() if not is_hidden(path.name) and path.is_dir()]
    except OSError as error:
        raise _unreadable(error) from error
    return sorted(found, key=by_number)


def _unreadable(error: OSError) -> UsageError:
    return UsageError(
        f"cannot look into '{error.filename}': {error.strerror}",
        hint="make it readable, or leave it out with --exclude NAME",
    )


def _walk(
    folder: Path,
    relative: Path,
    recursive: bool,
    suffixes: Collection[str],
    enter: Callable[[Path], bool],
) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not is_hidden(entry.name)]
    shown.sort(key=lambda entry: by_number(Path(entry.name)))
    inside = []
    for entry in shown:
        if entry.is_dir(follow_symlinks=False):
            inside.append(entry.name)
        elif Path(entry.name).suffix.lower() in suffixes and Path(entry.path).is_file():
            yield folder / entry.name
    for name in inside if recursive else ():
        if enter(relative / name):
            yield from _walk(folder / name, relative / name, recursive, suffixes, enter)
