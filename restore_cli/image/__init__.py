"""Pictures in and out of files.

Read: orientation applied, palettes expanded, profiles converted to sRGB, grey as three equal
channels, alpha apart, 16 bits kept. Written: the same mode, depth, profile and metadata,
orientation 1. What a format cannot hold is noted or refused, never dropped in silence.
"""

from restore_cli.image.formats import FORMATS, MAX_PIXELS, PHOTO_SUFFIXES
from restore_cli.image.picture import Metadata, Picture
from restore_cli.image.reading import (
    decode,
    read_bytes,
    read_image,
    read_rgb8,
    read_size,
    read_stdin,
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
