"""Reads a shrunken picture, or a part of one, without keeping the whole in memory.

For display, not for restoring: libvips streams the rows, and only the result is kept. A PNG of
16000x12000 would take 600 MB as 8-bit RGB, and 2.3 GB as floats. Some decoders keep the whole
picture in memory: AVIF, HEIC, BMP, and interlaced PNG.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from restore_cli.errors import PictureError
from restore_cli.image.content import read_bytes
from restore_cli.image.picture import Picture
from restore_cli.image.reading import (
    ImageHeader,
    UnreadableError,
    decoded,
    open_header,
    read_tolerantly,
)
from restore_cli.image.vips import INTEGER, VipsError, VipsImage, first_line
from restore_cli.rounding import to_float

_ANY = 2**62  # no limit on pixels: only the result is kept in memory


@dataclass(frozen=True, slots=True)
class View:
    """A shrunken picture, or a part of one."""

    picture: Picture  # the shrunken picture or the part
    height: int  # height of the whole picture, upright
    width: int  # width of the whole picture, upright
    notes: tuple[str, ...] = ()  # notes on what was left out, and on damage

    @property
    def on_white(self) -> Tensor:
        """The picture on a white background, (1, 3, h, w) in [0, 1]."""
        if self.picture.alpha is None:
            return self.picture.pixels
        return self.picture.pixels * self.picture.alpha + 1 - self.picture.alpha


def read_thumbnail(path: Path, height: int, width: int) -> View:
    """Read a whole picture, shrunk to at most the given size.

    Args:
        path: picture file.
        height: most rows.
        width: most columns.

    Raises:
        PictureError: see `image.read_image`; the number of pixels is not limited.
    """
    data = read_bytes(path)
    picture, notes = read_tolerantly(data, partial(_shrunk, data, str(path), height, width))
    return replace(picture, notes=(*notes, *picture.notes))


def _shrunk(data: bytes, name: str, height: int, width: int, fail_on: str) -> View:
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
        return _view(image, header)
    except VipsError as error:
        raise UnreadableError.of(name, error) from error


def read_region(path: Path, top: int, left: int, height: int, width: int) -> View:
    """Read a part of a picture at full resolution.

    Args:
        path: picture file.
        top: first row of the upright picture.
        left: first column.
        height: number of rows; all must lie inside the picture.
        width: number of columns; likewise.

    Raises:
        PictureError: see `read_thumbnail`; or the part is not inside the picture.
    """
    header = open_header(read_bytes(path), str(path), max_pixels=_ANY)
    turn = header.orientation
    if turn in (2, 3, 6, 7):
        left = header.width - left - width
    if turn in (3, 4, 7, 8):
        top = header.height - top - height
    box = (top, left, height, width) if turn >= 5 else (left, top, width, height)
    try:
        return _view(header.image.crop(*box), header)
    except VipsError as error:
        raise PictureError(f"cannot read '{path}': {first_line(error)}") from error


def _shrink_on_load(data: bytes, header: ImageHeader, rows: int, columns: int, fail_on: str) -> Any:
    """Decode the stored picture, if possible shrunk by the decoder to at least twice the size."""
    longest = max(header.height, header.width)
    factor = next((f for f in (8, 4, 2) if longest >= 2 * f * max(rows, columns)), 1)
    named: dict[str, dict[str, float]] = {"jpeg": {"shrink": factor}, "webp": {"scale": 1 / factor}}
    options = named.get(header.format)
    if factor == 1 or options is None:
        return header.image
    load = getattr(VipsImage, f"{header.format}load_buffer")
    image = load(data, access="sequential", fail_on=fail_on, **options).copy()
    image.set_type(INTEGER, "orientation", header.orientation)
    return image


def _view(image: Any, header: ImageHeader) -> View:
    picture = decoded(image.copy_memory().autorot(), header)
    picture = replace(picture, pixels=to_float(picture.pixels))
    return View(picture, header.height, header.width, (*header.notes, *picture.notes))
