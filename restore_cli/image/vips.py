"""Sets up libvips: one thread, no cache, no log messages.

Unlike Pillow and OpenCV, libvips supports 16 bits, profiles, orientation and metadata for all
formats.
"""

from __future__ import annotations

import logging
import os
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
    if text.startswith("unable to call "):  # libvips gave no reason
        text = ""
    return next(iter(text.strip().splitlines()), "it cannot be decoded").strip()
