"""Checks a folder of pairs in any layout, by reading every picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from restore_cli.datasets.layouts import KNOWN, Pair, find_all_folders
from restore_cli.datasets.pairs import profile_of
from restore_cli.errors import NoInputError, PictureError
from restore_cli.files import read_npy
from restore_cli.formatting import reason_of
from restore_cli.image import PHOTO_SUFFIXES, read_bytes
from restore_cli.image.folders import list_pictures
from restore_cli.image.reading import decode, open_header
from restore_cli.metrics import rec601_luma
from restore_cli.rounding import to_float

SUFFIXES = (*PHOTO_SUFFIXES, ".npy")  # 32-bit pictures are stored as .npy
# Tolerated shift, in pixels of the small picture: a part for the picture and one for the blur, in
# pixels of the large picture. At x1, no pair of a camera (88) or of five recipes (347) is beyond
# it, but 36 of 56 of lai-uniform are, whose kernels fill their square. At x4 there is no margin: of
# 168 pairs of about 144x108, three are beyond it, at 0.99 to 1.19 px.
SHIFT, _OFF_CENTRE = 0.5, 1.5
# Share of the squared difference that is left at most when a shift is undone. Of 390 shifts beyond
# SHIFT, in pairs of ten recipes and of Gaussian blur up to sigma 12, five leave more. Stronger
# blur, the noise of a sky and another tone curve leave 0.73 to 1, and are not shifts.
_LEFT = 0.7
# Measured on pairs of the recipes and of a camera: correlation at least 0.74, brightness 0.96 to
# 1.31, red minus blue 0.80 alike. Of unrelated photos, nine in ten correlate less than 0.45.
_LIKE = 0.5  # least correlation of the smoothed pictures of a pair
_BRIGHTER = 1.7  # ratio of mean values from which one of two pictures is clearly brighter
_GREY, _COLOURED = 0.5, 4.0  # mean range over channels of a grey picture; of one in colour, of 255
_FAINT = 0.05, 0.2 / 255  # contrast, relative to the mean and in light, that is too low to compare
_BLANK, _CONTRAST = 0.02, 4 / 255  # contrast relative to the partner's; of the partner, in light
_SMOOTH = 8.0  # standard deviation of the blur before shifts are measured, in pixels
_MIN_SIDE = 4  # shortest side of a picture whose shift can be measured, in pixels
_ALIKE = 3  # most differing bits of two 64-bit difference hashes of the same picture
_UPRIGHT = 1  # EXIF orientation
_SPLITS = ("train", "val", "test", "eval")  # names of others, e.g. of videos, may share pictures
_SHARPER = 1.1  # ratio of detail from which one of two pictures is clearly sharper


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem; `kind` is a keyword for filters, `text` the details."""

    # missing, ambiguous, unreadable, transparent, rotated, scale, different, shifted, colour,
    # exchanged, duplicate
    kind: str
    path: Path
    text: str


def check_pairs(
    folder: Path, report: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Finding]:
    """Yield all problems in a folder.

    `report` is called before each pair with the numbers of finished and of all pairs. Raises
    `NoInputError` without pairs in a known layout.
    """
    if not folder.is_dir():
        raise NoInputError(f"no folder '{folder}'")
    pairs, findings = _listed(folder)
    if not (pairs or findings):
        raise NoInputError(f"'{folder}' has no pictures")
    yield from findings
    scales: dict[float, list[Path]] = {}
    hashes: dict[str, dict[Path, int]] = {}  # of sharp pictures, by split
    sharper: list[bool] = []  # whether a degraded picture is sharper than its partner
    for done, pair in enumerate(pairs):
        report(done, len(pairs))
        if not (pair.reference.is_file() or pair.reference.is_symlink()):
            place = pair.reference.relative_to(folder)
            yield Finding("missing", pair.degraded, f"has no sharp partner '{place}'")
            continue
        small, large = _read(pair.degraded), _read(pair.reference)
        yield from _check_picture(pair.degraded, small)
        yield from _check_picture(pair.reference, large)
        if isinstance(small, str) or isinstance(large, str):
            continue
        if small.orientation != large.orientation:
            continue  # reported above; pictures of different orientation cannot be compared
        if small.profile != large.profile:
            text = "has another colour profile than its sharp partner"
            yield Finding("colour", pair.degraded, text)
        split = pair.reference.relative_to(folder).parts[0]
        if split.lower().startswith(_SPLITS):
            hashes.setdefault(split, {})[pair.reference] = _difference_hash(large.grey)
        sharper.append(
            small.grey.shape == large.grey.shape
            and _detail(small.grey) > _SHARPER * _detail(large.grey)
        )
        found = list(_check_pair(pair.degraded, small, large))
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


def _check_picture(path: Path, picture: _Read | str) -> Iterator[Finding]:
    """Yield the problems of one picture, or the reason why it cannot be read."""
    if isinstance(picture, str):
        yield Finding("unreadable", path, picture)
        return
    if picture.transparent:
        yield Finding("transparent", path, "has transparency")
    if picture.orientation != _UPRIGHT:
        text = f"is stored rotated or mirrored (EXIF orientation {picture.orientation})"
        yield Finding("rotated", path, text)


def _check_pair(path: Path, small: _Read, large: _Read) -> Iterator[Finding]:
    """Yield the problems of two pictures as a pair."""
    ratios = [b / a for a, b in zip(small.grey.shape, large.grey.shape, strict=True)]
    if ratios[0] != ratios[1] or ratios[0] != int(ratios[0]):
        text = f"is {_size(small.grey)}, its sharp partner {_size(large.grey)}"
        yield Finding("scale", path, text)
        return
    if min(small.grey.shape) < _MIN_SIDE:
        return
    x, y, likeness = _align(small.grey, large.grey)
    if likeness < _LIKE:
        yield Finding("different", path, "does not resemble its sharp partner")
        return
    if text := _other_colours(small.cells, large.cells):
        yield Finding("colour", path, text)
    elif np.hypot(x, y) > SHIFT + _OFF_CENTRE / ratios[0]:
        text = f"is shifted by {x:+.2f}, {y:+.2f} px (right, down) from its sharp partner"
        yield Finding("shifted", path, text)
    ratio = float((small.grey.mean() + 1) / (large.grey.mean() + 1))
    if max(ratio, 1 / ratio) > _BRIGHTER:
        text = f"is {ratio:.2g} times as bright as its sharp partner"
        yield Finding("different", path, text)


@dataclass(frozen=True, slots=True)
class _Read:
    grey: np.ndarray  # (H, W) float32
    cells: np.ndarray  # (16, 16, 3) float32: mean colours of a grid, of 255
    orientation: int
    profile: bytes | None = None  # None for sRGB
    transparent: bool = False


def _read(path: Path) -> _Read | str:
    """Read a picture; if that fails, return the reason."""
    try:
        if path.suffix == ".npy":
            values = read_npy(path)
            if values.ndim != 3 or values.shape[2] != 3 or not values.size:
                return f"has the shape {values.shape}, not height, width and 3"
            with np.errstate(over="ignore"):
                values = values.astype(np.float32) * 255
            if not np.isfinite(values).all():
                return "has values that are not finite"
            return _Read(values.mean(-1), _cells(values), _UPRIGHT)
        data = read_bytes(path)
        header = open_header(data, str(path))
        picture = decode(data, str(path), icc="keep")
        pixels = to_float(picture.pixels)
        grey = rec601_luma(pixels)[0, 0].numpy() * 255
        cells = _cells(pixels.expand(-1, 3, -1, -1)[0].permute(1, 2, 0).numpy()) * 255
        return _Read(grey, cells, header.orientation, profile_of(picture), picture.is_transparent)
    except PictureError as error:
        return str(error).replace(f"'{path}' ", "").replace(f" '{path}'", "")
    except (OSError, ValueError) as error:
        return f"cannot be read: {reason_of(error)}"


def _cells(pixels: np.ndarray) -> np.ndarray:
    return cv2.resize(np.ascontiguousarray(pixels), (16, 16), interpolation=cv2.INTER_AREA)


def _other_colours(small: np.ndarray, large: np.ndarray) -> str:
    """Say how the colours (16, 16, 3) of two pictures of a pair differ; "" if they do not."""
    spread, other = (float(np.ptp(cells, axis=-1).mean()) for cells in (small, large))
    if min(spread, other) < _GREY and max(spread, other) > _COLOURED:
        kinds = ("grey", "in colour") if spread < other else ("in colour", "grey")
        return f"is {kinds[0]}, its sharp partner {kinds[1]}"
    one, two = (cells[..., 0] - cells[..., 2] for cells in (small, large))
    strength = float(np.linalg.norm(one) * np.linalg.norm(two))
    if strength > one.size * _COLOURED**2 and float((one * two).sum()) < -strength / 2:
        return "has red and blue exchanged"
    return ""


def _align(small: np.ndarray, large: np.ndarray) -> tuple[float, float, float]:
    """Estimate the displacement of the small picture from its sharp partner, and their likeness.

    Returns:
        x, y: displacement to the right and down, in pixels of the small picture.
        likeness: correlation of the smoothed pictures without this displacement.

    Least squares on brightness (Lucas and Kanade) of both pictures after smoothing: at low
    frequencies a blur of any shape is a shift by its centroid, and a centred blur is not a shift.
    (The peak of phase correlation follows the ends of a long path instead.) Computed on linear
    light, where blur is linear: on encoded values the same pairs gave up to 2.7 px, on linear light
    0.4. Brightness may differ by a factor and an offset.
    """
    height, width = small.shape
    sigma = max(1.0, min(_SMOOTH, min(height, width) / 16))
    step = max(1, int(sigma / 2))  # smooth pictures need few pixels
    size = (width // step, height // step)
    sigma /= step
    light = (((np.maximum(x, 0) / 255) ** 2.2).astype(np.float32) for x in (large, small))
    shrunk = (cv2.resize(x, size, interpolation=cv2.INTER_AREA) for x in light)
    still, moved = (cv2.GaussianBlur(x, (0, 0), sigma) for x in shrunk)
    weak, strong = sorted((still, moved), key=lambda x: float(x.std()))
    if weak.std() < _BLANK * strong.std() and strong.std() > _CONTRAST:
        return 0.0, 0.0, 0.0
    if any(x.std() < max(_FAINT[0] * x.mean(), _FAINT[1]) for x in (still, moved)):
        return 0.0, 0.0, 1.0
    rows, columns = np.gradient(still)
    edge = int(min(2 * sigma, size[1] // 4, size[0] // 4))
    inner = (slice(edge, size[1] - edge or None), slice(edge, size[0] - edge or None))
    known = (columns[inner], rows[inner], still[inner], np.ones_like(still[inner]))
    slopes = np.stack([one.ravel() for one in known], 1)
    total, back = np.zeros(2), moved
    for _ in range(3):
        change, *_ = np.linalg.lstsq(slopes, (still - back)[inner].ravel(), rcond=None)
        total += change[:2]
        if (abs(total) >= size).any():
            return 0.0, 0.0, 0.0
        back = cv2.warpAffine(
            moved,
            np.array([[1, 0, total[0]], [0, 1, total[1]]], np.float32),
            size,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    x, y = total * (width / size[0], height / size[1])
    before, after = (
        float(np.nan_to_num(np.corrcoef(still[inner].ravel(), one[inner].ravel())[0, 1]))
        for one in (moved, back)
    )
    if 1 - after**2 > _LEFT * (1 - before**2):
        return 0.0, 0.0, after
    return float(x), float(y), after


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


def _duplicates(hashes: dict[str, dict[Path, int]], folder: Path) -> Iterator[Finding]:
    """Yield the sharp pictures that are in two splits (first part of the path)."""
    for one, other in combinations(sorted(hashes), 2):
        for path, own in hashes[one].items():
            twin, its = min(hashes[other].items(), key=lambda found: (found[1] ^ own).bit_count())
            if (its ^ own).bit_count() <= _ALIKE:
                text = f"is also in '{other}', as '{twin.relative_to(folder)}'"
                yield Finding("duplicate", path, text)


def _difference_hash(grey: np.ndarray) -> int:
    """Return the 64-bit difference hash: the signs of horizontal steps on a grid of 9x8 means."""
    cells = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)
    return int("".join("01"[int(bit)] for bit in (cells[:, 1:] > cells[:, :-1]).ravel()), 2)


def _size(grey: np.ndarray) -> str:
    return f"{grey.shape[1]}x{grey.shape[0]}"
