"""The metadata of files, as bytes; and Pillow, which reads some of them."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from restore_cli.image.exif import Tags
from restore_cli.image.iptc import Resource

# All exceptions that Pillow raises on manipulated headers.
BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, EOFError),
    *(ArithmeticError, RuntimeError, struct.error, zlib.error, Pillow.DecompressionBombError),
)


@dataclass(slots=True)
class RawMetadata:
    """The metadata of a file, unchanged."""

    # block, beginning with the byte order; for a TIFF, built from its tags
    exif: bytes | None = None
    xmp: bytes | None = None  # packet
    iptc: bytes | None = None  # plain records
    photoshop: tuple[Resource, ...] = ()  # resources besides IPTC: number and content
    # keys, values and languages of a PNG's text; see `containers.png_text`
    text: list[tuple[str, str, bytes]] = field(default_factory=list)
    # keys of a PNG's text that cannot be read, or that is too large
    unreadable: list[str] = field(default_factory=list)
    comment: bytes | None = None  # comment of a JPEG or a GIF
    # horizontal and vertical density without a unit; None for square pixels
    aspect: tuple[float, float] | None = None
    geo: Tags = field(default_factory=dict)  # tags of GeoTIFF
    # the larger resolution in dots per inch, which stays so if the picture is turned; None if it is
    # not stated
    dots: float | None = None


@dataclass(slots=True)
class Metadata(RawMetadata):
    """The metadata of a picture. The orientation is applied on reading, and written as 1."""

    icc_profile: bytes | None = None  # colour profile of the pixels that will be written
    # horizontal and vertical resolution in pixels per inch; None if it is not stated
    dpi: tuple[float, float] | None = None
    # primaries, transfer, matrix and full range (ITU-T H.273) if the picture has high dynamic
    # range; else None
    hdr: tuple[int, int, int, int] | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()  # chunks of PNG that describe colours, by type
    # height and width in the file, to which metadata refers; None if unknown
    size: tuple[int, int] | None = None
    # EXIF orientation that was applied, or the equal one that the decoder has applied; 0 if unknown
    orientation: int = 1
    # everything that the file contains besides pixels; see `inventory.take_inventory`
    inventory: frozenset[tuple[str, str]] = frozenset()


def density(across: float, down: float) -> tuple[float, float] | None:
    """Return horizontal and vertical density; None if pixels are square or nothing is stated."""
    low, high = sorted((across, down))
    if not 1e-10 < low < high < 1e12:  # others cannot be real
        return None
    return across, down


def register_heic() -> Any:
    """Let Pillow read HEIC; return the extra's module, or None if it is not installed."""
    try:
        import pillow_heif  # noqa: PLC0415 — an extra
    except ImportError:
        return None
    pillow_heif.register_heif_opener()
    return pillow_heif


@contextmanager
def open_with_pillow(source: bytes | Path, kind: str) -> Iterator[Any]:
    """Open a picture with Pillow, as the format that Pillow calls `kind`, without its warnings.

    As `Image.open` does, but without its limit of pixels, which belongs to the whole process: sizes
    are checked by the callers.
    """
    Pillow.preinit()
    if kind not in Pillow.OPEN:
        Pillow.init()
    factory, _ = Pillow.OPEN[kind]
    file: Any = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    with warnings.catch_warnings(action="ignore"), factory(file, "") as image:
        yield image
