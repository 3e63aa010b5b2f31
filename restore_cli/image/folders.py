"""Lists the pictures in folders, in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from restore_cli.errors import UsageError
from restore_cli.files import WINDOWS
from restore_cli.image.formats import PHOTO_SUFFIXES

# Folders of operating systems: trash, snapshots, thumbnails. They contain copies.
_SYSTEM = frozenset(
    {
        *("__macosx", "$recycle.bin", "recycler", "recycled", "system volume information"),
        *("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found"),
        *("network trash folder", "temporary items"),
    }
)
_NUMBER = re.compile("([0-9]+)")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or belongs to the operating system.

    Hidden names begin with a dot; among them are AppleDouble files, thumbnails and trash.

    >>> is_hidden("._a.png"), is_hidden("@eaDir"), is_hidden("a.png")
    (True, True, False)
    """
    return name.startswith(".") or name.casefold() in _SYSTEM


def natural_key(path: Path) -> list[tuple[tuple[str | int, ...], str]]:
    """Return a sort key for natural order: digits are compared as numbers, letters without case.

    >>> [p.name for p in sorted(map(Path, ("f10.png", "F2.png", "f1.png")), key=natural_key)]
    ['f1.png', 'F2.png', 'f10.png']
    """
    return [
        (tuple(int(x) if n % 2 else x for n, x in enumerate(_NUMBER.split(part.casefold()))), part)
        for part in path.parts
    ]


def list_pictures(
    folder: Path,
    *,
    recursive: bool = False,
    suffixes: Collection[str] = PHOTO_SUFFIXES,
    enter: Callable[[Path], bool] = lambda relative: True,
    links: bool = False,
    dead_links: bool = False,
) -> list[Path]:
    """Return the pictures in a folder in natural order; those of each subfolder are together.

    Suffixes are in lower case. `enter` says whether to search a subfolder, given its relative path.
    With `links`, links to subfolders are searched, except to those that contain them; with
    `dead_links`, dangling links are returned as well, which cannot be read. Raises `UsageError` if
    a folder cannot be read, or folders are nested too deep (about 900).
    """

    def wanted(relative: Path) -> bool:
        inside = folder / relative
        if inside.is_symlink() and (not links or _leads_back(inside)):
            return False
        return enter(relative)

    def walk(relative: Path) -> Iterator[Path]:
        inside = []
        for entry in _visible(folder / relative):
            # Most entries need no call of the system; a link that leads nowhere is not a folder.
            link = entry.is_symlink() and Path(entry.path).is_dir()
            if link or entry.is_dir(follow_symlinks=False):
                inside.append(relative / entry.name)
            elif Path(entry.name).suffix.lower() in suffixes and (
                Path(entry.path).is_file()
                or (dead_links and entry.is_symlink() and not Path(entry.path).exists())
            ):
                yield folder / relative / entry.name
        for below in inside if recursive else ():
            if wanted(below):
                yield from walk(below)

    try:
        return list(walk(Path()))
    except (OSError, RecursionError) as error:
        raise _unreadable(error, folder) from error


def list_folders(folder: Path) -> list[Path]:
    """Return the visible subfolders in natural order, without links to folders that contain them.

    An unreadable folder raises `UsageError`.
    """
    try:
        shown = (path for path in folder.iterdir() if not is_hidden(path.name))
        found = [
            path
            for path in shown
            if path.is_dir() and not (path.is_symlink() and _leads_back(path))
        ]
    except OSError as error:
        raise _unreadable(error, folder) from error
    return sorted(found, key=natural_key)


def _leads_back(link: Path) -> bool:
    """Whether a link leads to a folder that contains it; to follow it would never end."""
    return link.resolve() in {above.resolve() for above in link.absolute().parents}


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder in natural order, without what is hidden."""
    with os.scandir(folder) as entries:
        shown = [entry for entry in entries if not is_hidden(entry.name)]
    if WINDOWS:  # e.g. "My Pictures" in Documents, which denies access
        shown = [entry for entry in shown if not _is_junction(entry)]
    return sorted(shown, key=lambda entry: natural_key(Path(entry.name)))


def _is_junction(entry: os.DirEntry[str]) -> bool:
    tag = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", 0)
    return bool(tag == 0xA000_0003)  # IO_REPARSE_TAG_MOUNT_POINT


def _unreadable(error: OSError | RecursionError, folder: Path) -> UsageError:
    name, reason = folder, "its folders are nested too deep"
    if isinstance(error, OSError):
        name, reason = error.filename, error.strerror or ""
    return UsageError(
        f"cannot read the folder '{name}': {reason}",
        hint="make it readable; `restore image` can leave it out with --exclude NAME",
    )
