"""Folders of pairs, a degraded and a sharp picture each, as the datasets of the field lay them out.

| layout | degraded | sharp |
|---|---|---|
| plain | `lr/`, `input/` or `blur/`, any tree | `hr/`, `target/` or `sharp/`, the same tree |
| reds | `SPLIT/SPLIT_blur_bicubic/X4/SSS/F.png`, `SPLIT/SPLIT_blur/…` | `SPLIT/SPLIT_sharp/…` |
| gopro | `SPLIT/NAME/blur_gamma/F.png` or `…/blur/F.png` | `SPLIT/NAME/sharp/F.png` |

REDS is also found as its zip files unpack, each in a folder of its own name
(`SPLIT_sharp/SPLIT/SPLIT_sharp/…`), and every layout below a folder named after the split or
without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from restore_cli.errors import NoInputError
from restore_cli.image.folders import list_folders, list_pictures

PLAIN = (("lr", "hr"), ("input", "target"), ("blur", "sharp"))
NAMED = 3  # files that an error names


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair.

    Attributes:
        name: path without suffix, unique in its folder of pairs.
        degraded: picture file.
        reference: picture file, sharp.
    """

    name: str
    degraded: Path
    reference: Path


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs in the order of their names.

    Attributes:
        layout: plain, reds or gopro.
        pairs: at least one.
    """

    layout: str
    pairs: list[Pair]


def find_pairs(folder: Path, split: str = "train", gopro_blur: str = "blur_gamma") -> Pairs | None:
    """The pairs below a folder, or None where nothing looks like one of the layouts.

    Args:
        folder: the dataset, or the folder of its split.
        split: name of the split in layouts that have one.
        gopro_blur: which of GoPro's two blurry folders, `blur_gamma` or `blur`.

    Raises:
        NoInputError: a layout of which a part is missing, with what was expected where.
    """
    gopro = partial(_gopro, blur=gopro_blur)
    for layout, found in (("plain", _plain), ("reds", _reds), ("gopro", gopro)):
        for degraded, reference, prefix in found(folder, split):
            pairs = _match(degraded, reference, prefix)
            if layout != "gopro":
                return Pairs(layout, pairs)
            return Pairs(layout, [p for parts in found(folder, split) for p in _match(*parts)])
    return None


def _plain(folder: Path, split: str) -> Iterator[tuple[Path, Path, str]]:
    for root in (folder, folder / split):
        for degraded, reference in PLAIN:
            if (root / degraded).is_dir() and (root / reference).is_dir():
                yield root / degraded, root / reference, ""
                return


def _reds(folder: Path, split: str) -> Iterator[tuple[Path, Path, str]]:
    degraded, reference = (
        [
            path
            for name in names
            for path in (
                folder / name.split("/", maxsplit=1)[0] / split / name,  # first: it holds the next
                folder / split / name,
                folder / name,
            )
            if path.is_dir()
        ]
        for names in ((f"{split}_blur_bicubic/X4", f"{split}_blur"), (f"{split}_sharp",))
    )
    if degraded and not reference:
        raise NoInputError(
            f"'{folder}' has REDS' '{degraded[0].relative_to(folder)}' but no sharp frames",
            hint=f"expected '{split}/{split}_sharp/000/00000000.png' beside it",
        )
    if degraded:
        yield degraded[0], reference[0], ""


def _gopro(folder: Path, split: str, blur: str) -> Iterator[tuple[Path, Path, str]]:
    for root in (folder / split, folder):
        folders = list_folders(root) if root.is_dir() else []
        sequences = [path for path in folders if (path / "sharp").is_dir()]
        for sequence in sequences:
            if not (sequence / blur).is_dir():
                raise NoInputError(
                    f"'{sequence}' has sharp/ but no {blur}/",
                    hint="GoPro has blur_gamma/ and blur/ beside sharp/",
                )
            yield sequence / blur, sequence / "sharp", f"{sequence.name}/"
        if sequences:
            return


def _match(degraded: Path, reference: Path, prefix: str) -> list[Pair]:
    """Pairs of the same path without suffix below two folders.

    Raises:
        NoInputError: a picture on one side only, or none at all.
    """
    sides = [_pictures(folder) for folder in (degraded, reference)]
    for (here, there), (folder, other) in zip(
        (sides, sides[::-1]), ((degraded, reference), (reference, degraded)), strict=True
    ):
        lonely = sorted(here.keys() - there.keys())
        if lonely:
            more = f" and {len(lonely) - NAMED} more" if len(lonely) > NAMED else ""
            raise NoInputError(
                f"'{folder}' has {', '.join(lonely[:NAMED])}{more} without a picture of the same "
                f"name in '{other}'",
                hint="both folders must hold the same names; suffixes may differ",
            )
    if not sides[0]:
        raise NoInputError(f"no pictures in '{degraded}' and '{reference}'")
    return [Pair(prefix + name, sides[0][name], sides[1][name]) for name in sorted(sides[0])]


def _pictures(folder: Path) -> dict[str, Path]:
    """By path without suffix.

    Raises:
        NoInputError: two pictures of one name, of which one would be lost.
    """
    found: dict[str, Path] = {}
    for path in list_pictures(folder, recursive=True):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise NoInputError(
                f"'{found[name]}' and '{path}' have one name, so their partner is in doubt",
                hint="remove one of them",
            )
        found[name] = path
    return found
