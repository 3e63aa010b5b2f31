"""libvips, set up once: one thread, no cache, no chatter.

libvips does what Pillow and OpenCV each do by half: 16 bits, profiles, orientation and metadata of
every format in one decoder.
"""

from __future__ import annotations

import logging
import os

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
TEXT: int = pyvips.GValue.gstr_type
INTEGER: int = pyvips.GValue.gint_type
VipsError = pyvips.Error


def first_line(error: Exception) -> str:
    """What went wrong; libvips repeats itself over several lines."""
    text = getattr(error, "detail", "") or getattr(error, "message", "") or str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "it cannot be decoded"
