"""Checks a folder of pairs in any layout, by reading every picture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from restore_cli.datasets.layouts import KNOWN, Pair, find_all_folders
from restore_cli.datasets.pairs import profile_of
from restore_cli.errors import NoInputError, PictureError
from restore_cli.files import read_npy
from restore_cli.image import PHOTO_SUFFIXES, read_bytes
from restore_cli.image.folders import list_pictures
from restore_cli.image.reading import decode, open_header
from restore_cli.metrics import rec601_luma
from restore_cli.rounding import to_float

SUFFIXES = (*PHOTO_SUFFIXES, ".npy")  # 32-bit pictures are stored as .npy
SHIFT = 0.5  # tolerated shift, in pixels of the small picture
_SMOOTH = 8.0  # standard deviation of the blur before shifts are measured, in pixels
_MIN_SIDE = 4  # shortest side of a picture whose shift can be measured, in pixels
_ALIKE = 3  # most differing bits of two 64-bit difference hashes of the same picture
_UPRIGHT = 1  # EXIF orientation
_SHARPER = 1.1  # ratio of detail from which one of two pictures is clearly sharper


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem; `kind` is a keyword for filters, `text` the details."""

    # missing, ambiguous, unreadable, transparent, rotated, scale, shifted, colour, exchanged,
    # duplicate
    kind: str
    path: Path
    text: str


def check_pairs(folder: Path) -> Iterator[Finding]:
    """Yield all problems in a folder; raises `NoInputError` without pairs in a known layout."""
    if not folder.is_dir():
        raise NoInputError(f"no folder '{folder}'")
    pairs, findings = _listed(folder)
    if not (pairs or findings):
        raise NoInputError(f"'{folder}' has no pictures")
    yield from findings
    scales: dict[float, list[Path]] = {}
    hashes: dict[Path, int] = {}
    sharper: list[bool] = []  # whether a degraded picture is sharper than its partner
    for pair in pairs:
        if not pair.reference.is_file():
            place = pair.reference.relative_to(folder)
            yield Finding("missing", pair.degraded, f"has no sharp partner '{place}'")
            continue
        small, large = _read(pair.degraded), _read(pair.reference)
        yield from _check_picture(pair.degraded, small)
        yield from _check_picture(pair.reference, large)
        if small is None or large is None:
            continue
        if small.orientation != large.orientation:
            continue  # reported above; pictures of different orientation cannot be compared
        if small.profile != large.profile:
            text = "has another colour profile than its sharp partner"
            yield Finding("colour", pair.degraded, text)
        hashes[pair.reference] = _difference_hash(large.grey)
        sharper.append(
            small.grey.shape == large.grey.shape
            and _detail(small.grey) > _SHARPER * _detail(large.grey)
        )
        found = list(_check_pair(pair.degraded, small.grey, large.grey))
        yield from found
        if not any(finding.kind == "scale" for finding in found):
            scale = large.grey.shape[0] / small.grey.shape[0]
            scales.setdefault(scale, []).append(pair.degraded)
    yield from _other_scales(scales)
    yield from _exchanged(folder, sum(sharper), len(sharper))
    yield from _duplicates(hashes, folder)


def _listed(folder: Path) -> tuple[list[Pair], list[Finding]]:
    """Return all pairs in a folder, and findings on pictures without a partner."""
    whole, halves = find_all_folders(folder)
    if not whole and not any(side == "degraded" for side, _ in halves):
        raise NoInputError(f"no pairs below '{folder}'", hint=KNOWN)
    pairs: list[Pair] = []
    findings: list[Finding] = []
    for folders in whole:
        try:
            pairs += folders.pairs(SUFFIXES)
            unpaired = folders.unpaired(SUFFIXES)
        except NoInputError as error:
            findings.append(Finding("ambiguous", folders.degraded, str(error)))
            continue
        findings += [Finding("missing", path, "has no degraded partner") for path in unpaired]
    for side, path in halves:
        other = "sharp" if side == "degraded" else "degraded"
        pictures = list_pictures(path, recursive=True, suffixes=SUFFIXES, links=True)
        findings += [Finding("missing", one, f"has no {other} partner") for one in pictures]
    return pairs, findings


def _check_picture(path: Path, picture: _Read | None) -> Iterator[Finding]:
    """Yield the problems of one picture."""
    if picture is None:
        yield Finding("unreadable", path, "cannot be read as a picture")
        return
    if picture.transparent:
        yield Finding("transparent", path, "has transparency")
    if picture.orientation != _UPRIGHT:
        text = f"is stored rotated or mirrored (EXIF orientation {picture.orientation})"
        yield Finding("rotated", path, text)


def _check_pair(path: Path, small: np.ndarray, large: np.ndarray) -> Iterator[Finding]:
    """Yield the problems of two pictures as a pair."""
    ratios = [b / a for a, b in zip(small.shape, large.shape, strict=True)]
    if ratios[0] != ratios[1] or ratios[0] != int(ratios[0]):
        yield Finding("scale", path, f"is {_size(small)}, its sharp partner {_size(large)}")
        return
    x, y = _shift(small, large) if min(small.shape) >= _MIN_SIDE else (0.0, 0.0)
    if np.hypot(x, y) > SHIFT:
        text = f"is shifted by {x:+.2f}, {y:+.2f} px (right, down) from its sharp partner"
        yield Finding("shifted", path, text)


@dataclass(frozen=True, slots=True)
class _Read:
    grey: np.ndarray  # (H, W) float32
    orientation: int
    profile: bytes | None = None  # None for sRGB
    transparent: bool = False


def _read(path: Path) -> _Read | None:
    try:
        if path.suffix == ".npy":
            values = read_npy(path)
            if values.ndim != 3 or not np.isfinite(values).all():
                return None
            return _Read(np.asarray(values.mean(-1) * 255, np.float32), _UPRIGHT)
        data = read_bytes(path)
        header = open_header(data, str(path))
        picture = decode(data, str(path), icc="keep")
        grey = rec601_luma(to_float(picture.pixels))[0, 0].numpy() * 255
        return _Read(grey, header.orientation, profile_of(picture), picture.is_transparent)
    except (OSError, ValueError, PictureError):
        return None


def _shift(small: np.ndarray, large: np.ndarray) -> tuple[float, float]:
    """Estimate the displacement in pixels of the small picture from its sharp partner.

    Least squares on brightness (Lucas and Kanade) of both pictures after smoothing: at low
    frequencies a blur of any shape is a shift by its centroid, and a centred blur is not a shift.
    (The peak of phase correlation follows the ends of a long path instead.) Computed on linear
    light, where blur is linear: on encoded values the same pairs gave up to 2.7 px, on linear light
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


def _detail(grey: np.ndarray) -> float:
    """Mean strength of detail, measured after a blur that removes most noise."""
    return float(np.abs(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.5), cv2.CV_32F)).mean())


def _exchanged(folder: Path, sharper: int, count: int) -> Iterator[Finding]:
    """Yield a finding if most degraded pictures are sharper than their partners."""
    if 2 * sharper > count:
        text = f"{sharper} of {count} degraded pictures are sharper than their partners"
        yield Finding("exchanged", folder, f"{text}: are the folders exchanged?")


def _other_scales(scales: dict[float, list[Path]]) -> Iterator[Finding]:
    """Yield the pairs whose scale differs from that of most pairs."""
    usual = max(scales, key=lambda scale: len(scales[scale]), default=1.0)
    for scale, paths in scales.items():
        for path in paths if scale != usual else ():
            yield Finding("scale", path, f"is x{scale:g}, but most pairs are x{usual:g}")


def _duplicates(hashes: dict[Path, int], folder: Path) -> Iterator[Finding]:
    """Yield the sharp pictures that are in two splits (first part of the path)."""
    by_split: dict[str, list[Path]] = {}
    for path in hashes:
        by_split.setdefault(path.relative_to(folder).parts[0], []).append(path)
    for one, other in combinations(sorted(by_split), 2):
        for path in by_split[one]:
            twin = min(by_split[other], key=lambda t: (hashes[t] ^ hashes[path]).bit_count())
            if (hashes[twin] ^ hashes[path]).bit_count() <= _ALIKE:
                text = f"is also in '{other}', as '{twin.relative_to(folder)}'"
                yield Finding("duplicate", path, text)


def _difference_hash(grey: np.ndarray) -> int:
    """Return the 64-bit difference hash: the signs of horizontal steps on a grid of 9x8 means."""
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int("".join("01"[int(bit)] for bit in (cells[:, 1:] > cells[:, :-1]).ravel()), 2)


def _size(grey: np.ndarray) -> str:
    return f"{grey.shape[1]}x{grey.shape[0]}"
