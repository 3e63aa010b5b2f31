"""Colours that a file describes by other means than a profile: gAMA, cHRM, cICP, nclx.

Profiles that the decoders do not look for (GIF, BMP) are found here as well.

They are converted to a profile, which every format can hold. High dynamic range (PQ, HLG) has no
profile: its values are kept unchanged together with their description, or refused. Numbers are
those of ITU-T H.273; the precedence in a PNG is that of its third edition, 4.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from restore_cli.image.containers import gif_extension, png_chunks, read_heif
from restore_cli.image.formats import HDR
from restore_cli.image.matrix_profile import make_profile

Corners = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]

_D65, _C, _DCI = (0.3127, 0.329), (0.31, 0.316), (0.314, 0.351)
_BT709: Corners = (_D65, (0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
_SMPTE: Corners = (_D65, (0.63, 0.34), (0.31, 0.595), (0.155, 0.07))
PRIMARIES: dict[int, Corners] = {
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
CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 14, 15), _VIDEO),
    **dict.fromkeys((2, 13), _SRGB),
    **{4: (2.2,), 5: (2.8,), 8: (1.0,)},
}
_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_USUAL_GAMMA, _NEAR = 0.45455, 0.01
_UNSPECIFIED = 2  # primaries or transfer


@dataclass(frozen=True, slots=True)
class Signalled:
    """A file's description of its colours besides a profile.

    Attributes:
        profile: equivalent profile; None for sRGB, or if there is no description.
        hdr: primaries, transfer, matrix and full range if of high dynamic range; else None.
        chunks: the chunks of a PNG, unchanged.
        note: note on an unknown description, or "".
    """

    profile: bytes | None = None
    hdr: tuple[int, int, int, int] | None = None
    chunks: tuple[tuple[bytes, bytes], ...] = ()
    note: str = ""


def read_signalled(data: bytes, key: str, *, grey: bool, with_profile: bool) -> Signalled:
    """Read a file's description of its colours.

    Args:
        data: content of the file.
        key: its format.
        grey: whether the picture is grey.
        with_profile: whether it has a profile, which takes precedence over all but cICP.
    """
    if key == "png":
        return _of_png(data, grey=grey, with_profile=with_profile)
    if key in ("gif", "bmp"):
        return Signalled(None if with_profile else _hidden_profile(data, key))
    if key in ("avif", "heic"):
        for body in read_heif(data).of_primary(b"colr"):
            if body[:4] == b"nclx" and len(body) >= 11:
                numbers = (*struct.unpack(">HHH", body[4:10]), body[10] >> 7)
                return _of_numbers(numbers, grey=grey, with_profile=with_profile)
    return Signalled()


def _hidden_profile(data: bytes, key: str) -> bytes | None:
    """Find the profile in an application extension of a GIF, or behind the header of a BMP."""
    if key == "gif":
        return gif_extension(data, b"ICCRGBG1012")
    if int.from_bytes(data[14:18], "little") < 124 or data[70:74] != b"DEBM":
        return None
    start, length = struct.unpack("<II", data[126:134])
    return data[14 + start : 14 + start + length] or None


def _of_numbers(numbers: tuple[int, int, int, int], *, grey: bool, with_profile: bool) -> Signalled:
    primaries, transfer, *_ = numbers
    if transfer in HDR:
        return Signalled(hdr=numbers)
    usual = PRIMARIES.get(primaries) == _BT709 and transfer in (1, 2, 6, 13, 14, 15)
    if with_profile or usual:
        return Signalled()
    if primaries not in PRIMARIES or transfer not in CURVES:
        return Signalled(
            note=f"its colours (primaries {primaries}, transfer {transfer}) are not known; its "
            "values were taken as sRGB"
        )
    name = f"H.273 primaries {primaries}, transfer {transfer}"
    profile = make_profile(name, PRIMARIES[primaries], CURVES[transfer], grey=grey)
    return Signalled(profile)


def _of_png(data: bytes, *, grey: bool, with_profile: bool) -> Signalled:
    found: dict[bytes, bytes] = {}
    for kind, body in png_chunks(data):
        if kind == b"IDAT":
            break
        if kind in _COLOUR_CHUNKS:
            found.setdefault(kind, body)
    chunks = tuple(found.items())
    if len(numbers := found.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full = numbers
        said = _of_numbers((primaries, transfer, matrix, full), grey=grey, with_profile=False)
        if said.hdr is not None or not with_profile:
            return Signalled(said.profile, said.hdr, chunks, said.note)
        if not said.note and _UNSPECIFIED not in (primaries, transfer):  # it takes precedence
            srgb = make_profile("sRGB", _BT709, _SRGB, grey=grey)
            return Signalled(said.profile or srgb, chunks=chunks)
    if with_profile or b"sRGB" in found:
        return Signalled(chunks=chunks)
    try:
        profile = _of_gamma(found.get(b"gAMA"), found.get(b"cHRM"), grey=grey)
    except (ValueError, ZeroDivisionError, struct.error):
        note = "its gAMA and cHRM are invalid; its values were taken as sRGB"
        return Signalled(note=note)
    return Signalled(profile, chunks=chunks)


def _of_gamma(gamma: bytes | None, chromaticities: bytes | None, *, grey: bool) -> bytes | None:
    """Convert gAMA and cHRM (PNG 11.3.2.1 and 11.3.2.2) to a profile; None for sRGB."""
    corners, curve = _BT709, _SRGB
    near = True
    if chromaticities is not None and not grey:
        numbers = [n / 100_000 for n in struct.unpack(">8I", chromaticities)]
        x = list(zip(numbers[::2], numbers[1::2], strict=True))
        corners = (x[0], x[1], x[2], x[3])
        flat = [
            abs(a - b)
            for one, two in zip(corners, _BT709, strict=True)
            for a, b in zip(one, two, strict=True)
        ]
        near = max(flat) < _NEAR
    if gamma is not None:
        value = struct.unpack(">I", gamma)[0] / 100_000
        if not 0.1 < value < 10:
            raise ValueError("no such gamma")
        if abs(value - _USUAL_GAMMA) > _NEAR or not near:
            return make_profile(f"gamma {1 / value:.4g}", corners, (1 / value,), grey=grey)
    return None if near else make_profile("chromaticities of cHRM", corners, curve, grey=grey)
