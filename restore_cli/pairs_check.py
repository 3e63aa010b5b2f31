"""What is wrong with a folder of pairs: found by looking, not by trusting names.

Understands the layouts of `layouts`, below folders of any name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from restore_cli.errors import NoInputError, PictureError
from restore_cli.image import PHOTO_SUFFIXES, read_bytes
from restore_cli.image.folders import list_pictures
from restore_cli.image.reading import decode, open_header
from restore_cli.layouts import PLAIN

SHIFT = 0.5  # pixels of the small picture
_SMOOTH = 8.0  # pixels, standard deviation
_ALIKE = 3  # differing bits of two 64-bit difference hashes of what is one picture
_UPRIGHT = 1  # EXIF orientation
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# Where the degraded picture of a layout lies -> where its sharp one does.
_PARTNERS = (
    *(
        (re.compile(rf"(^|/){degraded}/(?P<name>.+)$"), rf"\1{reference}/\g<name>")
        for degraded, reference in PLAIN
    ),
    (re.compile(r"(?P<s>\w+)_blur(_\w+)?(/X\d)?/(?P<name>\w+/\w+\.\w+)$"), r"\g<s>_sharp/\g<name>"),
    (re.compile(r"/blur_gamma/(?P<name>[^/]+)$"), r"/sharp/\g<name>"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: `kind` is a word to filter by, `text` says what and by how much."""

    kind: str  # missing | unreadable | scale | shifted | rotated | duplicate
    path: Path
    text: str


def check_pairs(folder: Path) -> Iterator[Finding]:
    """Everything found wrong below a folder.

    Raises:
        NoInputError: no folder, or no pairs in a layout that is known.
    """
    if not folder.is_dir():
        raise NoInputError(f"no folder '{folder}'")
    files = {
        p.relative_to(folder).as_posix(): p
        for p in list_pictures(folder, recursive=True, suffixes=(*PHOTO_SUFFIXES, ".npy"))
    }
    by_stem = {name.rpartition(".")[0]: name for name in files}
    partners = {name: _partner(name, by_stem) for name in files}
    degraded = {name: partner for name, partner in partners.items() if partner is not None}
    if not degraded:
        raise NoInputError(
            f"no pairs below '{folder}'",
            hint="known layouts: lr/ and hr/, REDS (train_blur_bicubic/X4), GoPro (blur and sharp)",
        )
    scales: dict[float, list[str]] = {}
    hashes: dict[str, int] = {}
    for name, reference in degraded.items():
        if reference not in files:
            yield Finding("missing", files[name], f"has no sharp partner '{reference}'")
            continue
        small, large = (_read(files[one]) for one in (name, reference))
        yield from _alone(files[name], small)
        yield from _alone(files[reference], large)
        if small is None or large is None:
            continue
        if small.orientation != large.orientation:
            continue  # said above; turned against each other they fit in nothing
        hashes[reference] = _difference_hash(large.grey)
        found = list(_together(files[name], small.grey, large.grey))
        yield from found
        if not any(finding.kind == "scale" for finding in found):
            scales.setdefault(large.grey.shape[0] / small.grey.shape[0], []).append(name)
    yield from _other_scales(scales, files)
    for name in sorted(set(files) - set(degraded) - set(degraded.values())):
        if any(part in ("hr", "sharp") or part.endswith("_sharp") for part in Path(name).parts):
            yield Finding("missing", files[name], "has no degraded partner")
    yield from _duplicates(hashes, files)


def _alone(path: Path, picture: _Read | None) -> Iterator[Finding]:
    """What is wrong with one picture."""
    if picture is None:
        yield Finding("unreadable", path, "cannot be read as a picture")
    elif picture.orientation != _UPRIGHT:
        text = f"is stored turned (EXIF orientation {picture.orientation})"
        yield Finding("rotated", path, text)


def _together(path: Path, small: np.ndarray, large: np.ndarray) -> Iterator[Finding]:
    """What is wrong with two pictures as a pair."""
    ratios = [b / a for a, b in zip(small.shape, large.shape, strict=True)]
    if ratios[0] != ratios[1] or ratios[0] != int(ratios[0]):
        yield Finding("scale", path, f"is {_size(small)}, its sharp partner {_size(large)}")
        return
    x, y = _shift(small, large)
    if np.hypot(x, y) > SHIFT:
        text = f"lies {x:+.2f}, {y:+.2f} px (right, down) from its sharp partner"
        yield Finding("shifted", path, text)


@dataclass(frozen=True, slots=True)
class _Read:
    grey: np.ndarray  # (H, W) float32
    orientation: int


def _read(path: Path) -> _Read | None:
    try:
        if path.suffix == ".npy":
            values = np.load(path, allow_pickle=False)
            return _Read(np.asarray(values.mean(-1) * 255, np.float32), _UPRIGHT)
        data = read_bytes(path)
        header = open_header(data, str(path))
        pixels = decode(data, str(path), icc="keep").pixels[0].numpy()
        return _Read(np.tensordot(_LUMA, pixels, 1) * 255, header.orientation)
    except (OSError, ValueError, PictureError):
        return None


def _partner(name: str, by_stem: dict[str, str]) -> str | None:
    """The sharp picture of a degraded one, whatever its suffix; None when it is not degraded."""
    for pattern, replacement in _PARTNERS:
        if pattern.search(name):
            partner = pattern.sub(replacement, name)
            return by_stem.get(partner.rpartition(".")[0], partner)
    return None


def _shift(small: np.ndarray, large: np.ndarray) -> tuple[float, float]:
    """Displacement in pixels of the small picture from its sharp partner.

    Least squares on brightness (Lucas and Kanade) of both pictures made smooth: at low frequencies
    a blur is a shift by its centroid, whatever its shape, and a centred blur is none. (The peak of
    phase correlation follows the ends of a long path instead.)
    In light, where blur is linear: on encoded values the same pairs measured up to 2.7 px, in light
    0.4. Brightness may differ by a factor and an offset.
    """
    small, large = (((x / 255) ** 2.2).astype(np.float32) for x in (small, large))
    height, width = small.shape
    sigma = max(1.0, min(_SMOOTH, min(height, width) / 16))
    shrunk = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    still, moved = (cv2.GaussianBlur(x, (0, 0), sigma) for x in (shrunk, small))
    rows, columns = np.gradient(still)
    edge = int(min(2 * sigma, height // 4, width // 4))
    inner = (slice(edge, height - edge or None), slice(edge, width - edge or None))
    known = (columns[inner], rows[inner], still[inner], np.ones_like(still[inner]))
    slopes = np.stack([one.ravel() for one in known], 1)
    total = np.zeros(2)
    for _ in range(3):
        place = np.array([[1, 0, total[0]], [0, 1, total[1]]], np.float32)
        back = cv2.warpAffine(
            moved,
            place,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        difference = (still - back)[inner].ravel()
        step, *_ = np.linalg.lstsq(slopes, difference, rcond=None)
        total += step[:2]
    return float(total[0]), float(total[1])


def _other_scales(scales: dict[float, list[str]], files: dict[str, Path]) -> Iterator[Finding]:
    """Pairs of another scale than most."""
    if len(scales) < 2:
        return
    usual = max(scales, key=lambda scale: len(scales[scale]))
    for scale, names in scales.items():
        for name in names if scale != usual else ():
            yield Finding("scale", files[name], f"is x{scale:g}, most pairs are x{usual:g}")


def _duplicates(hashes: dict[str, int], files: dict[str, Path]) -> Iterator[Finding]:
    """Sharp pictures that are in two splits (first part of the path)."""
    by_split: dict[str, list[str]] = {}
    for name in hashes:
        by_split.setdefault(name.partition("/")[0], []).append(name)
    for one, other in combinations(sorted(by_split), 2):
        for name in by_split[one]:
            twin = min(by_split[other], key=lambda t: (hashes[t] ^ hashes[name]).bit_count())
            if (hashes[twin] ^ hashes[name]).bit_count() <= _ALIKE:
                yield Finding("duplicate", files[name], f"is also in '{other}', as '{twin}'")


def _difference_hash(grey: np.ndarray) -> int:
    """64 bits: whether brightness rises, on a grid of 9x8 means."""
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int("".join("01"[int(bit)] for bit in (cells[:, 1:] > cells[:, :-1]).ravel()), 2)


def _size(grey: np.ndarray) -> str:
    return f"{grey.shape[1]}x{grey.shape[0]}"
