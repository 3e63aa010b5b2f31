"""libvips, set up once: one thread, no cache, no chatter.

libvips does what Pillow and OpenCV each do by half: 16 bits, profiles, orientation and metadata of
every format in one decoder.
"""

from __future__ import annotations

import logging
import os
from typing import Any

# Decoding must never fight the network for the cores: torch's threads spin at barriers, and one
# busy neighbour made a step 3 to 7 times slower.
os.environ.setdefault("VIPS_CONCURRENCY", "1")

import pyvips

pyvips.cache_set_max(0)
_log = logging.getLogger("pyvips")
_log.addHandler(logging.NullHandler())
_log.propagate = False

VipsImage = pyvips.Image
BLOB: int = pyvips.GValue.blob_type
INTEGER: int = pyvips.GValue.gint_type
VipsError = pyvips.Error
_BANDS = {"grey": 1, "rgb": 3, "cmyk": 4}
_INTERPRETATIONS = {  # libvips' names, by kind of colours and type of the values
    ("grey", "uchar"): "b-w",
    ("grey", "ushort"): "grey16",
    ("rgb", "uchar"): "srgb",
    ("rgb", "ushort"): "rgb16",
    ("cmyk", "uchar"): "cmyk",
    ("cmyk", "ushort"): "cmyk",
}


def interpreted(image: Any, kind: str) -> Any:
    """A copy of an image whose values are said to be "grey", "rgb" or "cmyk"."""
    return image.copy(interpretation=_INTERPRETATIONS[kind, image.format])


def kind_of(image: Any) -> str | None:
    """Whether an image is "grey", "rgb" or "cmyk", with or without alpha; None for others."""
    bands = image.bands - bool(image.hasalpha())
    for (kind, _), interpretation in _INTERPRETATIONS.items():
        if image.interpretation == interpretation and bands == _BANDS[kind]:
            return kind
    return None


def first_line(error: Exception) -> str:
    """What went wrong; libvips repeats itself over several lines."""
    text = getattr(error, "detail", "") or getattr(error, "message", "") or str(error)
    return next(iter(text.strip().splitlines()), "it cannot be decoded").strip()
