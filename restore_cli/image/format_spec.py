"""What is known about a picture format: its record, of which `kinds` has one for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from restore_cli.image.colour_signalling import ColourSignalling, adobe_rgb
from restore_cli.image.exif import orientation_of
from restore_cli.image.raw_metadata import Metadata, RawMetadata
from restore_cli.image.vips import field_of, size_with_vips
from restore_cli.image.xmp import Packet

Item = tuple[str, str]  # kind and name of something in a file besides its pixels


def begins_with(*signatures: bytes) -> Callable[[bytes], bool]:
    """Return a test of whether a file begins with one of the signatures."""
    return lambda head: head.startswith(signatures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How files of a format are recognised, read and written, and what they can hold.

    The functions take the content of the file (`data`), libvips' image, which is not decoded
    (`image`), or the content that libvips reads: the file, or a PNG made of it (`content`).
    """

    name: str  # as people write it; its key is in lower case
    recognise: Callable[[bytes], bool]  # whether a file with these first bytes is one
    suffixes: tuple[str, ...] = ()  # of files that are written, the usual one first
    read_suffixes: tuple[str, ...] = ()  # of files that are only read

    # reads (data, name, max_pixels, **options of libvips), returns (image, content)
    load: Callable[..., tuple[Any, bytes]]
    # height and width of the upright picture
    read_size: Callable[[Path], tuple[int, int]] = size_with_vips
    tolerant: bool = False  # whether the decoder recovers from most errors
    shrink: Callable[[int], dict[str, float]] | None = None  # options of `load` that divide sides
    # whether the decoder turns the picture; else this is left to the orientation
    upright: bool = False
    orientation: Callable[[bytes, bytes | None], int] = lambda data, exif: orientation_of(exif)
    # number of frames or pages of (image, data); files of several are refused
    frames: Callable[[Any, bytes], int] = lambda image, data: field_of(image, "n-pages", 1)
    # whether there are other pictures, which are ignored
    has_more: Callable[[Any, bytes], bool] = lambda image, data: False
    # bits per channel, if the image has 16
    bits: Callable[[Any, bytes], int] = lambda image, data: field_of(image, "bits-per-sample", 16)
    # whether the end is missing, as in an interrupted copy
    ends_early: Callable[[bytes], bool] = lambda data: False
    stores_profile: Callable[[bytes], bool] = lambda data: False  # of which the decoder tells
    # colours of (data, exif, grey=.., with_profile=..), described by other means than a profile
    colours: Callable[..., ColourSignalling] = adobe_rgb
    # reads into (metadata, content, data)
    read_metadata: Callable[[RawMetadata, bytes, bytes], object] = lambda *_: None
    exif_resolution: bool = False  # whether the resolution is stored only in EXIF
    notes: Callable[..., tuple[str, ...]] = lambda data, *, alpha: ()
    # what (data, metadata) contains besides pixels and metadata
    inventory: Callable[[bytes, RawMetadata], Iterable[Item]] = lambda *_: ()
    end: Callable[[bytes], int] = len  # where the file ends; other data may follow

    # writes into (file, image, keep, quality, lossless, depth); None if it is only read
    save: Callable[[BytesIO, Any, int, int | None, bool, int], None] | None = None
    # attaches metadata to (image, metadata, XMP), returns further flags of libvips' `keep`
    attach: Callable[[Any, Metadata, Packet | None], int] = lambda *_: 0
    # inserts (metadata, XMP) into a file without
    embed: Callable[[BytesIO, Metadata, Packet | None], None] = lambda *_: None
    longest_side: int = 2**31 - 1  # longest side in pixels
    depth: int = 8  # most bits per channel
    alpha: bool = False  # whether transparency is supported
    cmyk: bool = False  # whether CMYK is supported
    grey: bool = True  # whether one channel is supported; else grey is stored as three equal ones
    colour_chunks: bool = False  # whether the chunks of PNG that describe colours are supported
    has_quality: bool = True  # whether a quality can be chosen
    has_lossless: bool = True  # whether the pixels can be kept exactly
    # smallest ratio of file size to bytes of pixels, for the check of disk space: half of the
    # minimum over 24 photos, blurred and enlarged by bicubic interpolation
    least_bytes: float = 0.0

    @property
    def key(self) -> str:
        """The name by which options and records call it."""
        return self.name.lower()
