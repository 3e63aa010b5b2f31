"""Reading and writing of pictures.

Reading applies the orientation, expands palettes, converts profiles to sRGB, turns grey into three
equal channels, separates alpha and keeps 16 bits. Writing keeps mode, depth, profile and metadata,
with orientation 1. What a format cannot hold is noted or refused, never dropped silently.
"""

from restore_cli.image.content import MAX_PIXELS, read_bytes, read_stdin
from restore_cli.image.formats import FORMATS, PHOTO_SUFFIXES
from restore_cli.image.picture import Picture
from restore_cli.image.raw_metadata import Metadata
from restore_cli.image.reading import (
    decode,
    read_image,
    read_rgb8,
    read_size,
)
from restore_cli.image.writing import Encoding, encode, write_image

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "Encoding",
    "Metadata",
    "Picture",
    "decode",
    "encode",
    "read_bytes",
    "read_image",
    "read_rgb8",
    "read_size",
    "read_stdin",
    "write_image",
]
