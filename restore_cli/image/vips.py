"""Sets up libvips: one thread, no cache, no log messages.

Unlike Pillow and OpenCV, libvips supports 16 bits, profiles, orientation and metadata for all
formats.
"""

from __future__ import annotations

import logging
import os
from io import BytesIO
from pathlib import Path
from typing import Any

# Decoding must not compete with the network for the cores: torch's threads spin at barriers, and
# one busy core made a step 3 to 7 times slower.
os.environ.setdefault("VIPS_CONCURRENCY", "1")

import pyvips

pyvips.cache_set_max(0)
_log = logging.getLogger("pyvips")
_log.addHandler(logging.NullHandler())
_log.propagate = False

VipsImage = pyvips.Image
VipsSource = pyvips.Source
VipsTarget = pyvips.TargetCustom
BLOB: int = pyvips.GValue.blob_type
INTEGER: int = pyvips.GValue.gint_type
VipsError = pyvips.Error
UNREADABLE = "if another program opens it, save it there as PNG; else copy it again: it is damaged"
_BANDS = {"grey": 1, "rgb": 3, "cmyk": 4}
_INTERPRETATIONS = {  # libvips' names by kind of colours and type of values
    ("grey", "uchar"): "b-w",
    ("grey", "ushort"): "grey16",
    ("rgb", "uchar"): "srgb",
    ("rgb", "ushort"): "rgb16",
    ("cmyk", "uchar"): "cmyk",
    ("cmyk", "ushort"): "cmyk",
}


def interpreted(image: Any, kind: str) -> Any:
    """Return a copy of an image that is marked as "grey", "rgb" or "cmyk"."""
    return image.copy(interpretation=_INTERPRETATIONS[kind, image.format])


def kind_of(image: Any) -> str | None:
    """Return "grey", "rgb" or "cmyk" for an image with or without alpha; None for others."""
    bands = image.bands - bool(image.hasalpha())
    for (kind, _), interpretation in _INTERPRETATIONS.items():
        if image.interpretation == interpretation and bands == _BANDS[kind]:
            return kind
    return None


def first_line(error: Exception) -> str:
    """Return the first line of a message of libvips, which may repeat itself on several lines."""
    text = getattr(error, "detail", "") or getattr(error, "message", "") or str(error)
    if text.startswith(("unable to call ", "unable to write to memory")):  # libvips gave no reason
        text = ""
    return next(iter(text.strip().splitlines()), "it cannot be decoded").strip()


def field_of(image: Any, name: str, default: int) -> int:
    """Return an integer field of an image's header."""
    return int(image.get(name)) if image.get_typeof(name) else default


def open_with_vips(path: Path) -> Any:
    """Read the header of a file; raises `VipsError` if it is unreadable."""
    source = VipsSource.new_from_file(os.fsencode(path))  # names may not be UTF-8
    return VipsImage.new_from_source(source, "", access="sequential")


def size_with_vips(path: Path) -> tuple[int, int]:
    """Return height and width of the upright picture; raises `VipsError` if it is unreadable."""
    header = open_with_vips(path)
    turned = field_of(header, "orientation", 1) >= 5
    return (header.width, header.height) if turned else (header.height, header.width)


def load_with_vips(
    loader: str, data: bytes, name: str, max_pixels: int, **options: Any
) -> tuple[Any, bytes]:
    """Read a header by libvips' loader, for `Format.load`; sizes are checked by the caller."""
    load = getattr(VipsImage, f"{loader}load_buffer")
    return load(data, access="sequential", **options), data


def save_with_vips(saver: str, file: BytesIO, image: Any, **options: Any) -> None:
    """Encode an image into memory; libvips' own buffers would hold the file twice."""
    target = VipsTarget()
    target.on_write(file.write)
    target.on_read(file.read)  # needed for TIFF, as is seeking
    target.on_seek(file.seek)
    getattr(image, f"{saver}save_target")(target, **options)
