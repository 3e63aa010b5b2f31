"""Matrix/TRC colour profiles in float64, so that a conversion and its inverse are lossless.

libvips and LittleCMS pass CIE Lab in 16 bits, whose steps correspond to 150 of 65535 in the
shadows. Layout and arithmetic: ICC.1:2022, 8.3, 10.6 (curv), 10.18 (para), Annex F.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Linear sRGB to XYZ, adapted to D50 by Bradford: IEC 61966-2-1 with the profile connection space
# of ICC.1:2022; the columns are the colorants of the sRGB profile.
TO_XYZ = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
FROM_XYZ = np.linalg.inv(TO_XYZ)
D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_WHITE = TO_XYZ.sum(1, keepdims=True)  # sRGB's white in XYZ, which is D50 up to rounding
_STEPS = 65536  # entries of an evaluated curve: one for every 16-bit value
_ROWS = 1 << 20  # pixels that are converted at once
_MAX_TAGS = 1000
# Parameters of a parametric curve by its type: ICC.1:2022, table 68.
_PARAMETERS = {0: "g", 1: "gab", 2: "gabc", 3: "gabcd", 4: "gabcdef"}


@dataclass(frozen=True, eq=False)
class MatrixProfile:
    """A profile with a matrix and curves, or with one curve for grey."""

    matrix: Array  # (3, channels), from linear device values to XYZ at D50
    # (channels, 65536), linear value in [0, 1] of every encoded value; non-decreasing
    curves: Array

    @property
    def channels(self) -> int:
        """Number of channels: 3, or 1 for grey."""
        return len(self.curves)

    def of_grey(self) -> MatrixProfile:
        """Return the profile for grey pictures, which has the curve of green."""
        return MatrixProfile(_WHITE, self.curves[self.channels // 2 :][:1])

    def to_srgb(self, values: NDArray[Any]) -> Array:
        """(H, W, channels) integers of 8 or 16 bits -> sRGB (H, W, 3), unbounded."""
        step = 257 if values.dtype == np.uint8 else 1
        tables = self.curves[:, ::step]
        mixed = (FROM_XYZ @ self.matrix).T
        result = np.empty((*values.shape[:2], 3))
        for rows in _strips(values.shape):
            part = values[rows]
            linear = np.stack([table[part[..., n]] for n, table in enumerate(tables)], -1)
            result[rows] = encode_srgb(linear @ mixed)
        return result

    def from_srgb(self, values: NDArray[Any], depth: int) -> NDArray[Any]:
        """Convert back: sRGB (H, W, 3) -> (H, W, channels) integers of `depth` bits."""
        top, kind = (255, np.uint8) if depth == 8 else (65535, np.uint16)
        luminance = TO_XYZ[1:2].T
        grey = self.channels == 1
        mixed = luminance if grey else (np.linalg.inv(self.matrix) @ TO_XYZ).T
        inverses = [_inverse(curve) for curve in self.curves]
        result = np.empty((*values.shape[:2], self.channels), kind)
        for rows in _strips(values.shape):
            linear = decode_srgb(values[rows].astype(np.float64)) @ mixed
            for n, (levels, codes) in enumerate(inverses):
                result[rows][..., n] = top * np.interp(linear[..., n], levels, codes) + 0.5
        return result


def _inverse(curve: Array) -> tuple[Array, Array]:
    """Return the levels of a curve, increasing, and the encoded value in [0, 1] of each.

    Of several values with the same level, as tables of 8-bit gamma curves have near black, it is
    the lowest for the lowest level, so that black stays black, the highest for the highest, and
    the middle one for others.
    """
    levels, first = np.unique(curve, return_index=True)
    last = np.append(first[1:], len(curve)) - 1
    codes = (first + last) / 2
    codes[0], codes[-1] = first[0], last[-1]
    return levels, codes / (len(curve) - 1)


def _strips(shape: tuple[int, ...]) -> list[slice]:
    rows = max(1, _ROWS // max(1, shape[1]))
    return [slice(top, top + rows) for top in range(0, shape[0], rows)]


def encode_srgb(linear: Array) -> Array:
    """Encode linear light (..., channels), unbounded, as sRGB of the same shape."""
    size = np.abs(linear)
    curve = 1.055 * size ** (1 / 2.4) - 0.055
    return np.copysign(np.where(size <= 0.0031308, 12.92 * size, curve), linear)


def decode_srgb(values: Array) -> Array:
    """Invert `encode_srgb`: sRGB (..., channels), unbounded, as linear light."""
    size = np.abs(values)
    curve = ((size + 0.055) / 1.055) ** 2.4
    return np.copysign(np.where(size <= 12.92 * 0.0031308, size / 12.92, curve), values)


@lru_cache(maxsize=8)
def matrix_profile(profile: bytes) -> MatrixProfile | None:
    """Parse a matrix/TRC profile; None if it is of another kind, or broken."""
    tags = _tags(profile)
    space, connection = profile[16:20], profile[20:24]
    if any(name in tags for name in (b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1")):
        return None
    try:
        if space == b"GRAY" and connection == b"XYZ ":  # with Lab, the curve gives lightness
            curves = [_curve(tags[b"kTRC"])]
            matrix = _WHITE
        elif space == b"RGB " and connection == b"XYZ ":
            curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
            matrix = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], 1)
        else:
            return None
    except (KeyError, struct.error, ValueError):
        return None
    whole = np.stack(curves)
    falls = bool((np.diff(whole) < 0).any() or (whole[:, -1] <= whole[:, 0]).any())
    flat = len(curves) == 3 and abs(np.linalg.det(matrix)) < 1e-6
    if falls or flat or not np.isfinite(whole).all():
        return None
    return MatrixProfile(matrix, whole)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    count = int.from_bytes(profile[128:132], "big")
    for n in range(min(count, _MAX_TAGS)):
        entry = profile[132 + 12 * n : 144 + 12 * n]
        if len(entry) < 12:
            break
        name, start, size = struct.unpack(">4sII", entry)
        if size <= len(profile):
            found[name] = profile[start : start + size]
    return found


def _xyz(body: bytes) -> Array:
    if body[:4] != b"XYZ ":
        raise ValueError("no XYZ")
    return np.array(struct.unpack(">3i", body[8:20])) / 65536


def _curve(body: bytes) -> Array:
    """Return the curve's linear values at 65536 equally spaced steps."""
    x: Array = np.linspace(0, 1, _STEPS)
    if body[:4] == b"curv":
        (count,) = struct.unpack(">I", body[8:12])
        if count > _STEPS:
            raise ValueError("a curve of too many entries")
        entries = np.array(struct.unpack(f">{count}H", body[12 : 12 + 2 * count]), np.float64)
        if count == 0:
            return x
        if count == 1:
            gamma: Array = np.power(x, entries[0] / 256)
            return gamma
        table: Array = np.interp(x, np.linspace(0, 1, count), entries / 65535)
        return table
    if body[:4] != b"para":
        raise ValueError("no curve")
    (kind,) = struct.unpack(">H", body[8:10])
    names = _PARAMETERS.get(kind, "")
    numbers = struct.unpack(f">{len(names)}i", body[12 : 12 + 4 * len(names)])
    p = dict.fromkeys("abcdefg", 0.0) | {k: v / 65536 for k, v in zip(names, numbers, strict=True)}
    if not names or p["g"] <= 0:
        raise ValueError("no such curve")
    if kind == 0:
        plain: Array = np.power(x, p["g"])
        return plain
    if kind in (1, 2):
        p["d"] = -p["b"] / p["a"] if p["a"] else 0.0
        p["e"] = p["f"] = p.pop("c")
        p["c"] = 0.0
    power = np.maximum(p["a"] * x + p["b"], 0) ** p["g"] + p["e"]
    linear: Array = np.clip(np.where(x >= p["d"], power, p["c"] * x + p["f"]), 0, 1)
    return linear


def make_profile(
    name: str,
    chromaticities: tuple[tuple[float, float], ...],
    curve: tuple[float, ...],
    *,
    grey: bool = False,
) -> bytes:
    """Make a profile for colours that a file describes by other means.

    Args:
        name: description, ASCII.
        chromaticities: x, y of white, red, green and blue.
        curve: an exponent, or the parameters g, a, b, c, d of ICC's parametric curve 3.
        grey: whether the profile is for grey pictures.

    Raises:
        ValueError: the chromaticities are degenerate.
    """
    linear = np.array([_lift(x, y) for x, y in chromaticities]).T
    white, primaries = linear[:, 0], linear[:, 1:]
    if abs(np.linalg.det(primaries)) < 1e-9:
        raise ValueError("chromaticities on one line")
    matrix = primaries * np.linalg.solve(primaries, white)
    cones = (_BRADFORD @ D50) / (_BRADFORD @ white)
    matrix = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 100:
        raise ValueError("chromaticities span no colours")
    shape = 0 if len(curve) == 1 else 3
    parametric = struct.pack(">4sIHH", b"para", 0, shape, 0) + b"".join(map(_s15, curve))
    tags = {
        b"desc": _text(name),
        b"cprt": _text("CC0"),
        b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(_s15, D50)),
    }
    colours = _colour_tags(matrix, parametric)
    return _assembled(tags | ({b"kTRC": parametric} if grey else colours), 0x04300000)


def with_channels(profile: bytes, channels: int) -> bytes | None:
    """Return an equivalent profile for 1 or 3 channels, in which greys keep their appearance.

    Decoders and encoders silently drop a profile that does not match the number of channels. The
    result is the profile itself if it matches, and None if it is not a matrix/TRC profile.
    """
    if profile[16:20] == {1: b"GRAY", 3: b"RGB "}[channels]:
        return profile
    if (parsed := matrix_profile(profile)) is None:
        return None
    tags = _tags(profile)
    curve = tags[b"gTRC" if parsed.channels == 3 else b"kTRC"]
    kept: dict[bytes, bytes] = {n: tags[n] for n in (b"desc", b"cprt", b"wtpt") if n in tags}
    kept |= {b"kTRC": curve} if channels == 1 else _colour_tags(TO_XYZ, curve)
    return _assembled(kept, int.from_bytes(profile[8:12], "big"))


def _colour_tags(matrix: Array, curve: bytes) -> dict[bytes, bytes]:
    columns = zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)
    return {name: b"XYZ \0\0\0\0" + b"".join(map(_s15, column)) for name, column in columns} | (
        dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    )


def _assembled(tags: dict[bytes, bytes], version: int) -> bytes:
    space = b"GRAY" if b"kTRC" in tags else b"RGB "
    table, body = b"", b""
    for key, value in tags.items():
        table += struct.pack(">4sII", key, 132 + 12 * len(tags) + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    size = 132 + len(table) + len(body)
    header = struct.pack(">I4xI4s4s4s", size, version, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + b"".join(map(_s15, D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def _lift(x: float, y: float) -> tuple[float, float, float]:
    if y < 1e-6:
        raise ValueError("a chromaticity without light")
    return x / y, 1.0, (1 - x - y) / y


def _s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _text(value: str) -> bytes:
    body = value.encode("utf-16-be")
    return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(body), 28) + body
