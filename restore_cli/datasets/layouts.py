"""Folder layouts of pairs: one table that reader, writer and checker share.

To add a layout, add a row to `LAYOUTS`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from restore_cli.errors import NoInputError
from restore_cli.formatting import format_list
from restore_cli.image import PHOTO_SUFFIXES
from restore_cli.image.folders import list_folders, list_pictures

NAMED = 3  # most files that an error names
# Patterns for the fields of a template whose values are not given.
SPLIT = r"\w+"
_OPEN = {"split": SPLIT, "scale": "[2-8]", "sequence": ".+", "blur": "blur(_gamma)?"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Path templates of the pictures of a pair.

    Fields are `{split}`, `{scale}` (downscaling), `{sequence}` (a video) and `{blur}` (`blur_gamma`
    or `blur`).
    """

    name: str  # name on the command line
    description: str  # one line
    # alternatives for the folders of degraded and sharp pictures; the first is written
    folders: tuple[tuple[str, str], ...]
    # alternatives for the parent of both in the dataset's folder; the first is written. `{archive}`
    # is the first part of the folder's own template, as unpacked zip files have.
    roots: tuple[str, ...]
    file: str  # path of a written picture in its folder, without suffix; `{name}` is the source's
    sequence: str = "{}"  # format of the number of a video
    first: int = 0  # number of a video's first frame
    # the side whose folder alone identifies the layout, so that a missing partner is an error
    marker_side: Literal["", "degraded", "reference"] = ""

    def paths(
        self, *, name: str, split: str, scale: int, blur: str, sequence: int, frame: int
    ) -> tuple[Path, Path]:
        """Return the paths of a new pair, without suffix: the degraded and the sharp picture.

        `blur` is `blur_gamma` or `blur`; sequences and frames are numbered from 0.
        """
        fields = {
            "name": name,
            "split": split,
            "scale": scale,
            "blur": blur,
            "sequence": self.sequence.format(sequence),
            "frame": frame + self.first,
        }
        fitting = [pair for pair in self.folders if ("{scale}" in pair[0]) == (scale > 1)]
        sides = (fitting or self.folders)[0]
        written = [f"{self.roots[0]}/{side}/{self.file}".lstrip("/") for side in sides]
        degraded, reference = (Path(template.format(**fields)) for template in written)
        return degraded, reference


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            name="plain",
            description="lr/ and hr/, input/ and target/, blur/ or blur_bicubic_X4/ and sharp/",
            folders=(
                ("lr", "hr"),
                ("input", "target"),
                ("blur", "sharp"),
                ("blur_bicubic_X4", "sharp"),
            ),
            roots=("", "{split}"),
            file="{name}",
        ),
        Layout(
            name="reds",
            description="SPLIT/SPLIT_blur_bicubic/X4/000/00000000.png and SPLIT/SPLIT_sharp/...",
            folders=(
                ("{split}_blur_bicubic/X{scale}", "{split}_sharp"),
                ("{split}_blur", "{split}_sharp"),
            ),
            roots=("{split}", "{archive}/{split}", ""),
            file="{sequence}/{frame:08d}",
            sequence="{:03d}",
            marker_side="degraded",
        ),
        Layout(
            name="gopro",
            description="SPLIT/GOPR0000_00_00/{blur,blur_gamma,sharp}/000001.png",
            folders=(("{sequence}/{blur}", "{sequence}/sharp"),),
            roots=("{split}", ""),
            file="{frame:06d}",
            sequence="GOPR{:04d}_00_00",
            first=1,
            marker_side="reference",
        ),
    )
}
KNOWN = "known layouts: " + "; ".join(f"{one.name} ({one.description})" for one in LAYOUTS.values())


@dataclass(frozen=True, slots=True)
class Pair:
    """A degraded picture and its sharp reference, or several references."""

    name: str  # path without suffix, unique in its dataset
    degraded: Path  # picture file
    # one sharp picture; for a camera path many, or one `.mat` file with all frames
    references: tuple[Path, ...]
    group: str = ""  # group for which papers report a mean, e.g. a video; or "".

    @property
    def reference(self) -> Path:
        """The sharp picture, or the first of many."""
        return self.references[0]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs in the order of their names."""

    layout: str  # name in `LAYOUTS`
    pairs: list[Pair]  # at least one


@dataclass(frozen=True, slots=True)
class Folders:
    """Two folders; pictures with the same relative path without suffix are pairs."""

    degraded: Path  # folder of the degraded pictures
    reference: Path  # folder of the sharp pictures
    prefix: str = ""  # prefix of the names of the pairs

    def pairs(self, suffixes: Collection[str] = PHOTO_SUFFIXES) -> list[Pair]:
        """Return every degraded picture with its sharp one, or the path where that should be.

        Raises `NoInputError` if two pictures of one side have the same name.
        """
        degraded, reference = (_by_name(side, suffixes) for side in (self.degraded, self.reference))
        return [
            Pair(
                self.prefix + name,
                path,
                (reference.get(name, self.reference / path.relative_to(self.degraded)),),
            )
            for name, path in degraded.items()
        ]

    def unpaired(self, suffixes: Collection[str] = PHOTO_SUFFIXES) -> list[Path]:
        """Return the sharp pictures without a degraded one."""
        degraded, reference = (_by_name(side, suffixes) for side in (self.degraded, self.reference))
        return [path for name, path in reference.items() if name not in degraded]


def find_pairs(folder: Path, split: str = "train", gopro_blur: str = "blur_gamma") -> Pairs | None:
    """Find the pairs in the folder of a dataset or its split; None if it has none of the layouts.

    `gopro_blur` is the one of GoPro's two blurry folders, `blur_gamma` or `blur`. Raises
    `NoInputError` if a part of the layout is missing.
    """
    for name in LAYOUTS:
        found = find_folders(folder, name, split, gopro_blur)
        if found:
            return Pairs(name, [pair for folders in found for pair in _whole(folders)])
    return None


def find_folders(
    folder: Path, layout: str, split: str, gopro_blur: str = "blur_gamma"
) -> list[Folders]:
    """Find the folders of one of the `LAYOUTS`, like `find_pairs`; their content is not examined.

    Raises `NoInputError` if only one side exists.
    """
    kind = LAYOUTS[layout]
    for missing_too in (False, True):
        for found, halves in _located(folder, kind, {"split": split, "blur": gopro_blur}):
            half = next((path for side, path in halves if side == kind.marker_side), None)
            if half is not None and (found or missing_too):
                other = {"degraded": "sharp", "reference": gopro_blur}[kind.marker_side]
                raise NoInputError(
                    f"'{half}' has no folder of {other} pictures beside it",
                    hint=f"expected {kind.description}",
                )
            if found:  # if there are several scales, the largest, which comes last
                return list({one.reference: one for one in found}.values())
    return []


def find_all_folders(folder: Path) -> tuple[list[Folders], list[tuple[str, Path]]]:
    """Find all layouts, with any split and blur, in a folder and its subfolders.

    Returns:
        Pairs of folders; and folders without a partner, as (side, path).
    """
    whole: dict[Path, Folders] = {}
    unpaired: dict[Path, str] = {}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        for kind in LAYOUTS.values():
            for found, halves in _located(here, kind, {}):
                whole = {one.degraded: one for one in found} | whole
                unpaired |= {path: side for side, path in halves}
        sides = {side for one in whole.values() for side in (one.degraded, one.reference)}
        waiting += [path for path in list_folders(here) if path not in sides]
    near = sides | {parent for side in sides for parent in side.parents}
    return list(whole.values()), [
        (side, path) for path, side in unpaired.items() if path not in near
    ]


def _located(
    folder: Path, layout: Layout, known: Mapping[str, str]
) -> Iterator[tuple[list[Folders], list[tuple[str, Path]]]]:
    """Yield pairs of folders and folders without a partner, for each alternative of a layout."""
    # Both sides in one root come before sides that were unpacked separately.
    roots = sorted(product(layout.roots, repeat=2), key=lambda pair: pair[0] != pair[1])
    taken: set[Path] = set()
    for sides, places in product(layout.folders, roots):
        degraded, reference = (
            _expand(folder, side, root, known) for side, root in zip(sides, places, strict=True)
        )
        partners = {_shared(fields): path for path, fields in reference}
        halves = [
            ("degraded", path) for path, fields in degraded if _shared(fields) not in partners
        ]
        given = {_shared(fields) for _, fields in degraded}
        halves += [("reference", path) for key, path in partners.items() if key not in given]
        around = {parent for side in taken for parent in side.parents}
        used = taken | around
        whole = [
            Folders(path, partners[key], f"{key[1]}/" * bool(key[1]))
            for path, fields in degraded
            if (key := _shared(fields)) in partners
            and path not in used
            and partners[key] not in (around if places[0] == places[1] else used)
        ]
        taken.update(side for one in whole for side in (one.degraded, one.reference))
        yield whole, halves


def _shared(fields: Mapping[str, str]) -> tuple[str, str]:
    """Return the fields that both sides of a pair share: split and sequence."""
    return fields.get("split", ""), fields.get("sequence", "")


def _expand(
    folder: Path, side: str, root: str, known: Mapping[str, str]
) -> list[tuple[Path, dict[str, str]]]:
    """Return the existing folders that match a template, with the values of its fields."""
    whole = f"{root}/{side}".replace("{archive}", side.partition("/")[0]).lstrip("/")
    found = [(folder, dict(known))]
    for part in whole.split("/"):
        found = [step for path, fields in found for step in _enter(path, part, fields)]
    return found


def _enter(
    folder: Path, part: str, fields: Mapping[str, str]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield the subfolders that match one part of a template."""
    if all(name in fields for name in re.findall(r"\{(\w+)\}", part)):
        path = folder / part.format(**fields)
        if path.is_dir():
            yield path, dict(fields)
        return

    def pattern(field: re.Match[str]) -> str:
        name = field[1]
        return re.escape(fields[name]) if name in fields else f"(?P<{name}>{_OPEN[name]})"

    wanted = re.compile(re.sub(r"\{(\w+)\}", pattern, part))
    for path in list_folders(folder) if folder.is_dir() else ():
        if match := wanted.fullmatch(path.name):
            yield path, {**fields, **match.groupdict()}


def _whole(folders: Folders) -> list[Pair]:
    """Return the pairs of two folders, at least one; every picture must have a partner."""
    pairs = sorted(folders.pairs(), key=lambda pair: pair.name)
    files = [path for pair in pairs for path in (pair.degraded, pair.reference)]
    if dead := [path for path in (*files, *folders.unpaired()) if _is_dead_link(path)]:
        raise NoInputError(
            f"dangling links: {format_list([str(path) for path in dead], NAMED)}",
            hint="make their targets available, e.g. mount the disk, or remove the links",
        )
    for here, there, unpaired in (
        (
            folders.degraded,
            folders.reference,
            [p.degraded for p in pairs if not p.reference.is_file()],
        ),
        (folders.reference, folders.degraded, folders.unpaired()),
    ):
        if unpaired:
            names = sorted(path.relative_to(here).with_suffix("").as_posix() for path in unpaired)
            hint = "both folders must hold the same names; suffixes may differ"
            if (there / f"{names[0]}.npy").exists():
                hint = "files of 32-bit values (.npy) are for other programs; use 8-bit pictures"
            raise NoInputError(
                f"'{here}' has pictures that '{there}' lacks: {format_list(names, NAMED)}",
                hint=hint,
            )
    if not pairs:
        raise NoInputError(
            f"no pictures in '{folders.degraded}' and '{folders.reference}'",
            hint="both folders must hold pictures of the same names",
        )
    return pairs


def _is_dead_link(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _by_name(folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """Return the pictures by relative path without suffix; none if the folder does not exist."""
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    for path in list_pictures(
        folder, recursive=True, suffixes=suffixes, links=True, dead_links=True
    ):
        # Macs store letters with accents as two characters, other systems as one.
        name = normalize("NFC", path.relative_to(folder).with_suffix("").as_posix())
        if name in found:
            raise NoInputError(
                f"'{found[name]}' and '{path}' have the same name, so their partner is ambiguous",
                hint="remove one of them",
            )
        found[name] = path
    return found
