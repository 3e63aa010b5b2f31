"""Colours that a file describes by other means than a profile: chunks, nclx, EXIF, tags.

They are converted to a profile, which every format can hold. High dynamic range (PQ, HLG) has no
profile: its values are kept unchanged together with their description, or refused. Numbers are
those of ITU-T H.273; the precedence in a PNG is that of its third edition, 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from restore_cli.image.exif import is_adobe_rgb
from restore_cli.image.matrix_profile import make_profile

HDR = {16: "PQ", 18: "HLG"}  # transfers of high dynamic range, by their numbers in H.273
Point = tuple[float, float]  # chromaticities x, y
Primaries = tuple[Point, Point, Point, Point]  # white, red, green, blue

D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
BT709: Primaries = (D65, (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
_SMPTE: Primaries = (D65, (0.63, 0.34), (0.31, 0.595), (0.155, 0.07))
PRIMARIES: dict[int, Primaries] = {
    1: BT709,
    2: BT709,
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (D65, (0.64, 0.33), (0.29, 0.6), (0.15, 0.06)),
    6: _SMPTE,
    7: _SMPTE,
    9: (D65, (0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
    11: (_DCI, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    12: (D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    22: (D65, (0.63, 0.34), (0.295, 0.605), (0.155, 0.077)),
}
SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
TRANSFER_FUNCTIONS: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 14, 15), _VIDEO),
    **dict.fromkeys((2, 13), SRGB),
    **{4: (2.2,), 5: (2.8,), 8: (1.0,)},
}
NEAR = 0.01
_ADOBE_RGB: Primaries = (D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
AS_SRGB = "; its values were taken as sRGB"


@dataclass(frozen=True, slots=True)
class ColourSignalling:
    """A file's description of its colours besides a profile."""

    profile: bytes | None = None  # equivalent profile; None for sRGB, or if there is no description
    # primaries, transfer, matrix and full range if of high dynamic range; else None
    hdr: tuple[int, int, int, int] | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()  # the chunks of a PNG, unchanged
    note: str = ""  # note on an unknown description, or ""


def adobe_rgb(
    data: bytes, exif: bytes | None, *, grey: bool, with_profile: bool
) -> ColourSignalling:
    """Return Adobe RGB if EXIF states it; a profile takes precedence."""
    if with_profile or not is_adobe_rgb(exif or b""):
        return ColourSignalling()
    return ColourSignalling(make_profile("Adobe RGB (1998)", _ADOBE_RGB, (563 / 256,), grey=grey))


def checked_gamma(value: float, *equal: float) -> float:
    """Return a gamma; raises `ValueError` unless it can be one, and the others are equal to it."""
    if not 0.1 < value < 10 or any(abs(one - value) > NEAR for one in equal):
        raise ValueError("no such gamma")
    return value


def is_bt709(primaries: Sequence[Point]) -> bool:
    """Whether primaries are those of sRGB, about."""
    return bool(np.abs(np.subtract(primaries, BT709)).max() < NEAR)


def of_numbers(
    numbers: tuple[int, int, int, int], *, grey: bool, with_profile: bool
) -> ColourSignalling:
    """Return the meaning of primaries, transfer, matrix and full range by ITU-T H.273."""
    primaries, transfer, *_ = numbers
    if transfer in HDR:
        return ColourSignalling(hdr=numbers)
    usual = PRIMARIES.get(primaries) == BT709 and transfer in (1, 2, 6, 13, 14, 15)
    if with_profile or usual:
        return ColourSignalling()
    if primaries not in PRIMARIES or transfer not in TRANSFER_FUNCTIONS:
        return ColourSignalling(
            note=f"its colours (primaries {primaries}, transfer {transfer}) are not known{AS_SRGB}"
        )
    name = f"H.273 primaries {primaries}, transfer {transfer}"
    profile = make_profile(name, PRIMARIES[primaries], TRANSFER_FUNCTIONS[transfer], grey=grey)
    return ColourSignalling(profile)
