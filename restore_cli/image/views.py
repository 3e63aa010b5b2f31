"""Reads a shrunken picture, or a part of one, without keeping the whole in memory.

For display, not for restoring: libvips streams the rows, and only the result is kept. A PNG of
16000x12000 would take 600 MB as 8-bit RGB, and 2.3 GB as floats. Some decoders keep the whole
picture in memory: AVIF, HEIC, BMP, and interlaced PNG.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from restore_cli.errors import PictureError
from restore_cli.image.content import read_bytes
from restore_cli.image.formats import KINDS
from restore_cli.image.geometry import mirrored
from restore_cli.image.picture import Picture
from restore_cli.image.reading import (
    ImageHeader,
    UnreadableError,
    decoded,
    open_header,
    read_tolerantly,
)
from restore_cli.image.vips import INTEGER, VipsError, first_line
from restore_cli.rounding import to_float

Size = tuple[int, int]  # height, width

_ANY = 2**62  # no limit on pixels: only the result is kept in memory


def read_thumbnail(path: Path, height: int, width: int) -> tuple[Picture, Size]:
    """Read a whole picture of any number of pixels, shrunk to at most `height` x `width`.

    Also return height and width of the whole picture, upright. Raises `PictureError` as
    `image.read_image` does.
    """
    data = read_bytes(path)
    shrink = partial(_shrunk, data, str(path), height, width)
    (picture, size), notes = read_tolerantly(data, shrink)
    return replace(picture, notes=(*notes, *picture.notes)), size


def _shrunk(data: bytes, name: str, height: int, width: int, fail_on: str) -> tuple[Picture, Size]:
    header = open_header(data, name, max_pixels=_ANY, fail_on=fail_on)
    height, width = min(height, header.height), min(width, header.width)
    rows, columns = (width, height) if header.orientation >= 5 else (height, width)
    try:
        image = _shrink_on_load(data, header, rows, columns, fail_on)
        if (image.width, image.height) != (columns, rows):
            kind = image.format
            image = image.premultiply() if header.alpha else image
            image = image.resize(columns / image.width, vscale=rows / image.height)
            image = image.unpremultiply().cast(kind) if header.alpha else image
        return _picture(image, header), (header.height, header.width)
    except VipsError as error:
        raise UnreadableError.of(name, error) from error


def read_region(path: Path, top: int, left: int, height: int, width: int) -> Picture:
    """Read a part of a picture at full resolution; rows and columns are of the upright picture.

    Raises `PictureError` as `image.read_image` does, and if the part is not inside the picture.
    """
    header = open_header(read_bytes(path), str(path), max_pixels=_ANY)
    right, bottom = mirrored(header.orientation)
    left = header.width - left - width if right else left
    top = header.height - top - height if bottom else top
    box = (left, top, width, height)
    if header.orientation >= 5:
        box = (top, left, height, width)
    try:
        return _picture(header.image.crop(*box), header)
    except VipsError as error:
        raise PictureError(f"cannot read '{path}': {first_line(error)}") from error


def _shrink_on_load(data: bytes, header: ImageHeader, rows: int, columns: int, fail_on: str) -> Any:
    """Decode the stored picture, if possible shrunk by the decoder to at least twice the size."""
    longest = max(header.height, header.width)
    factor = next((f for f in (8, 4, 2) if longest >= 2 * f * max(rows, columns)), 1)
    kind = KINDS[header.format]
    if factor == 1 or kind.shrink is None:
        return header.image
    image, _ = kind.load(data, "", _ANY, fail_on=fail_on, **kind.shrink(factor))
    image = image.copy()
    image.set_type(INTEGER, "orientation", header.orientation)
    return image


def _picture(image: Any, header: ImageHeader) -> Picture:
    made = decoded(image.copy_memory().autorot(), header)
    notes = (*header.notes, *made.notes)
    return replace(made, pixels=to_float(made.pixels), notes=notes)
