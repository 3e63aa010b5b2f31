"""Colours that a file describes by other means than a profile: gAMA, cHRM, cICP, nclx, EXIF, tags.

Profiles that the decoders do not look for (GIF, BMP) are found here as well.

They are converted to a profile, which every format can hold. High dynamic range (PQ, HLG) has no
profile: its values are kept unchanged together with their description, or refused. Numbers are
those of ITU-T H.273; the precedence in a PNG is that of its third edition, 4.3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL.ExifTags import Base

from restore_cli.image.containers import Heif, first_directory, gif_profile, png_chunks, read_heif
from restore_cli.image.exif import is_adobe_rgb
from restore_cli.image.formats import HDR
from restore_cli.image.matrix_profile import make_profile

Point = tuple[float, float]  # chromaticities x, y
Primaries = tuple[Point, Point, Point, Point]  # white, red, green, blue

_D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
_BT709: Primaries = (_D65, (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
_SMPTE: Primaries = (_D65, (0.63, 0.34), (0.31, 0.595), (0.155, 0.07))
PRIMARIES: dict[int, Primaries] = {
    1: _BT709,
    2: _BT709,
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.6), (0.15, 0.06)),
    6: _SMPTE,
    7: _SMPTE,
    9: (_D65, (0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
    11: (_DCI, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    12: (_D65, (0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    22: (_D65, (0.63, 0.34), (0.295, 0.605), (0.155, 0.077)),
}
_SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_VIDEO = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
TRANSFER_FUNCTIONS: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 14, 15), _VIDEO),
    **dict.fromkeys((2, 13), _SRGB),
    **{4: (2.2,), 5: (2.8,), 8: (1.0,)},
}
_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_SRGB_GAMMA, _NEAR = 0.45455, 0.01
_UNSPECIFIED = 2  # primaries or transfer
_ADOBE_RGB: Primaries = (_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
_AS_SRGB = "; its values were taken as sRGB"


@dataclass(frozen=True, slots=True)
class ColourSignalling:
    """A file's description of its colours besides a profile."""

    profile: bytes | None = None  # equivalent profile; None for sRGB, or if there is no description
    # primaries, transfer, matrix and full range if of high dynamic range; else None
    hdr: tuple[int, int, int, int] | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()  # the chunks of a PNG, unchanged
    note: str = ""  # note on an unknown description, or ""


def read_colour_signalling(
    data: bytes, key: str, *, grey: bool, with_profile: bool, exif: bytes | None = None
) -> ColourSignalling:
    """Read a file's description of its colours; a profile takes precedence over all but cICP."""
    if key == "png":
        return _of_png(data, grey=grey, with_profile=with_profile)
    if key in ("avif", "heic"):
        heif = read_heif(data)
        for body in heif.of_primary(b"colr"):
            if body[:4] == b"nclx" and len(body) >= 11:
                numbers = (*struct.unpack(">HHH", body[4:10]), body[10] >> 7)
                meaning = _of_numbers(numbers, grey=grey, with_profile=with_profile)
                return replace(meaning, chunks=_brightness(heif)) if meaning.hdr else meaning
        if not heif.of_primary(b"colr") and not with_profile:
            return ColourSignalling(note=f"its container does not state its colours{_AS_SRGB}")
    if with_profile:
        return ColourSignalling()
    if key in ("jpeg", "tiff", "webp") and is_adobe_rgb(data if key == "tiff" else exif or b""):
        return ColourSignalling(
            make_profile("Adobe RGB (1998)", _ADOBE_RGB, (563 / 256,), grey=grey)
        )
    others = {"gif": _of_gif, "bmp": _of_bmp, "tiff": _of_tiff}
    return others[key](data, grey) if key in others else ColourSignalling()


def _brightness(heif: Heif) -> tuple[tuple[bytes, bytes], ...]:
    """Return the chunks of PNG (11.3.2.7 and 11.3.2.8) for mdcv and clli of a HEIC or AVIF."""
    chunks = []
    for body in heif.of_primary(b"mdcv"):
        if len(body) == 24:  # green, blue and red, where a PNG has red, green and blue
            chunks.append((b"mDCV", body[8:12] + body[:8] + body[12:]))
    for body in heif.of_primary(b"clli"):
        if len(body) == 4:  # cd/m2, where a PNG has 0.0001 cd/m2
            levels = (10_000 * n for n in struct.unpack(">HH", body))
            chunks.append((b"cLLI", struct.pack(">II", *levels)))
    return tuple(chunks)


def _of_gif(data: bytes, _: bool) -> ColourSignalling:
    return ColourSignalling(gif_profile(data))


def _of_bmp(data: bytes, grey: bool) -> ColourSignalling:
    """Read the colour space of a BMP of version 4 or 5 ([MS-WMF]: BitmapV4Header and 5)."""
    length, space = int.from_bytes(data[14:18], "little"), data[70:74]
    if length >= 124 and space == b"DEBM":
        start, size = struct.unpack("<II", data[126:134])
        return ColourSignalling(data[14 + start : 14 + start + size] or None)
    if length >= 124 and space == b"KNIL":
        return ColourSignalling(note=f"its profile is another file, which was not read{_AS_SRGB}")
    if length < 108 or space != bytes(4) or not any(data[74:122]):
        return ColourSignalling()
    ends = list(struct.iter_unpack("<3i", data[74:110]))  # X, Y, Z of red, green and blue
    white = [sum(column) for column in zip(*ends, strict=True)]
    gammas = [n / 65536 for n in struct.unpack("<3I", data[110:122])]
    try:
        primaries = [(x / (x + y + z), y / (x + y + z)) for x, y, z in (white, *ends)]
        profile = make_profile("calibrated RGB", tuple(primaries), (_gamma(*gammas),), grey=grey)
    except (ValueError, ZeroDivisionError):
        return ColourSignalling(note=f"its calibrated colours are invalid{_AS_SRGB}")
    return ColourSignalling(
        None if _is_bt709(primaries) and abs(gammas[0] - 2.2) < 0.05 else profile
    )


def _gamma(value: float, *equal: float) -> float:
    if not 0.1 < value < 10 or any(abs(one - value) > _NEAR for one in equal):
        raise ValueError("no such gamma")
    return value


def _of_tiff(data: bytes, grey: bool) -> ColourSignalling:
    """Convert WhitePoint and PrimaryChromaticities (TIFF 6.0, section 20) to a profile."""
    tags = first_directory(data)
    numbers = [*(tags.numbers(Base.WhitePoint) or _D65), *tags.numbers(Base.PrimaryChromaticities)]
    if grey or len(numbers) == 2:
        return ColourSignalling()
    try:
        x, y = [n or 0.0 for n in numbers[::2]], [n or 0.0 for n in numbers[1::2]]
        white, red, green, blue = zip(x, y, strict=True)
        primaries: Primaries = (white, red, green, blue)
        profile = make_profile("chromaticities of the TIFF", primaries, _SRGB)
    except ValueError:
        return ColourSignalling(
            note=f"its WhitePoint and PrimaryChromaticities are invalid{_AS_SRGB}"
        )
    return ColourSignalling(None if _is_bt709(primaries) else profile)


def _is_bt709(primaries: Sequence[Point]) -> bool:
    return bool(np.abs(np.subtract(primaries, _BT709)).max() < _NEAR)


def _of_numbers(
    numbers: tuple[int, int, int, int], *, grey: bool, with_profile: bool
) -> ColourSignalling:
    primaries, transfer, *_ = numbers
    if transfer in HDR:
        return ColourSignalling(hdr=numbers)
    usual = PRIMARIES.get(primaries) == _BT709 and transfer in (1, 2, 6, 13, 14, 15)
    if with_profile or usual:
        return ColourSignalling()
    if primaries not in PRIMARIES or transfer not in TRANSFER_FUNCTIONS:
        return ColourSignalling(
            note=f"its colours (primaries {primaries}, transfer {transfer}) are not known{_AS_SRGB}"
        )
    name = f"H.273 primaries {primaries}, transfer {transfer}"
    profile = make_profile(name, PRIMARIES[primaries], TRANSFER_FUNCTIONS[transfer], grey=grey)
    return ColourSignalling(profile)


def _of_png(data: bytes, *, grey: bool, with_profile: bool) -> ColourSignalling:
    found: dict[bytes, bytes] = {}
    for kind, body in png_chunks(data):
        if kind == b"IDAT":
            break
        if kind in _COLOUR_CHUNKS:
            found.setdefault(kind, body)
    chunks = tuple(found.items())
    if len(numbers := found.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full = numbers
        meaning = _of_numbers((primaries, transfer, matrix, full), grey=grey, with_profile=False)
        if meaning.hdr is not None or not with_profile:
            narrow = "its cICP states narrow range; its values were taken as full range"
            note = meaning.note or ("" if full or meaning.hdr else narrow)
            return ColourSignalling(meaning.profile, meaning.hdr, chunks, note)
        if not meaning.note and _UNSPECIFIED not in (primaries, transfer):  # it takes precedence
            srgb = make_profile("sRGB", _BT709, _SRGB, grey=grey)
            return ColourSignalling(meaning.profile or srgb, chunks=chunks)
    if with_profile or b"sRGB" in found:
        return ColourSignalling(chunks=chunks)
    try:
        profile = _of_gamma(found.get(b"gAMA"), found.get(b"cHRM"), grey=grey)
    except (ValueError, ZeroDivisionError, struct.error):
        return ColourSignalling(note=f"its gAMA and cHRM are invalid{_AS_SRGB}")
    return ColourSignalling(profile, chunks=chunks)


def _of_gamma(gamma: bytes | None, chromaticities: bytes | None, *, grey: bool) -> bytes | None:
    """Convert gAMA and cHRM (PNG 11.3.2.1 and 11.3.2.2) to a profile; None for sRGB."""
    primaries, curve = _BT709, _SRGB
    near = True
    if chromaticities is not None and not grey:
        numbers = [n / 100_000 for n in struct.unpack(">8I", chromaticities)]
        x = list(zip(numbers[::2], numbers[1::2], strict=True))
        primaries = (x[0], x[1], x[2], x[3])
        near = _is_bt709(primaries)
    if gamma is not None:
        value = struct.unpack(">I", gamma)[0] / 100_000
        if abs(_gamma(value) - _SRGB_GAMMA) > _NEAR or not near:
            return make_profile(f"gamma {1 / value:.4g}", primaries, (1 / value,), grey=grey)
    return None if near else make_profile("chromaticities of cHRM", primaries, curve, grey=grey)
