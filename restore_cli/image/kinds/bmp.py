"""bmp, read only: Windows bitmaps."""

from __future__ import annotations

import struct
from functools import partial

from restore_cli.image.colour_signalling import AS_SRGB, ColourSignalling, checked_gamma, is_bt709
from restore_cli.image.format_spec import Format, begins_with
from restore_cli.image.kinds.png import read_metadata
from restore_cli.image.matrix_profile import make_profile
from restore_cli.image.to_png import load_as_png, size_with_pillow


def _colours(
    data: bytes, exif: bytes | None, *, grey: bool, with_profile: bool
) -> ColourSignalling:
    """Read the colour space of a BMP of version 4 or 5 ([MS-WMF]: BitmapV4Header and 5)."""
    if with_profile:
        return ColourSignalling()
    length, space = int.from_bytes(data[14:18], "little"), data[70:74]
    if length >= 124 and space == b"DEBM":
        start, size = struct.unpack("<II", data[126:134])
        return ColourSignalling(data[14 + start : 14 + start + size] or None)
    if length >= 124 and space == b"KNIL":
        return ColourSignalling(note=f"its profile is another file, which was not read{AS_SRGB}")
    if length < 108 or space != bytes(4) or not any(data[74:122]):
        return ColourSignalling()
    ends = list(struct.iter_unpack("<3i", data[74:110]))  # X, Y, Z of red, green and blue
    white = [sum(column) for column in zip(*ends, strict=True)]
    gammas = [n / 65536 for n in struct.unpack("<3I", data[110:122])]
    try:
        primaries = [(x / (x + y + z), y / (x + y + z)) for x, y, z in (white, *ends)]
        profile = make_profile(
            "calibrated RGB", tuple(primaries), (checked_gamma(*gammas),), grey=grey
        )
    except (ValueError, ZeroDivisionError):
        return ColourSignalling(note=f"its calibrated colours are invalid{AS_SRGB}")
    return ColourSignalling(
        None if is_bt709(primaries) and abs(gammas[0] - 2.2) < 0.05 else profile
    )


FORMAT = Format(
    name="BMP",
    recognise=begins_with(b"BM"),
    read_suffixes=(".bmp",),
    load=partial(load_as_png, "BMP"),
    read_size=partial(size_with_pillow, "BMP"),
    read_metadata=read_metadata,
    colours=_colours,
    end=lambda data: int.from_bytes(data[2:6], "little") or len(data),
)
