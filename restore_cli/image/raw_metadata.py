"""Extracts the metadata of a file, as bytes, from every container."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from PIL import Image as Pillow
from PIL.ExifTags import Base

from restore_cli.image.containers import (
    gif_comments,
    gif_xmp,
    jpeg_segments,
    png_chunks,
    riff_chunks,
    tiff_directories,
)
from restore_cli.image.exif import Tags, build_exif, dots_per_inch, geo_tags, tags_of
from restore_cli.image.iptc import (
    PHOTOSHOP,
    RECORDS,
    Resource,
    iptc_datasets,
    split_photoshop,
)
from restore_cli.image.xmp import XMP_EXTENSION, XMP_HEADER, XMP_KEYWORD, packet_of_jpeg

_TEXT = 1 << 24  # most bytes of a decompressed text
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

    @classmethod
    def read(cls, data: bytes, key: str) -> Self:
        """Read the metadata of a file; HEIC and BMP have to be converted to PNG first."""
        parts = cls()
        if key in _READERS:
            _READERS[key](parts, data)
        return parts


def _png(parts: RawMetadata, data: bytes) -> None:
    for kind, body in png_chunks(data):
        if kind == b"eXIf":
            parts.exif = body.removeprefix(b"Exif\0\0")
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            _png_text(parts, kind, body)
        elif kind == b"pHYs" and len(body) == 9:
            across, down = struct.unpack(">II", body[:8])
            parts.aspect = None if body[8] else density(across, down)
            parts.dots = max(across, down) * 0.0254 if body[8] == 1 else None


def _png_text(parts: RawMetadata, kind: bytes, body: bytes) -> None:
    """Read text (PNG 11.3.3), and the hexadecimal profiles that ImageMagick stores in it."""
    key, _, rest = body.partition(b"\0")
    name, language = key.decode("latin-1"), b"\0"
    try:
        if kind == b"tEXt":
            value = rest
        elif kind == b"zTXt":
            value = _inflate(rest[1:])
        else:
            packed = rest[:1] == b"\1"
            tag, translated, value = rest[2:].split(b"\0", 2)
            language = tag + b"\0" + translated
            value = _inflate(value) if packed else value
    except (zlib.error, ValueError):
        parts.unreadable.append(name)
        return
    if name == XMP_KEYWORD:
        parts.xmp = value
        return
    if name.startswith("Raw profile type ") and (raw := _unhexed(value)) is not None:
        kind_of_raw = name.removeprefix("Raw profile type ").strip().lower()
        block = raw.removeprefix(b"Exif\0\0")
        if kind_of_raw in ("exif", "app1") and block.startswith((b"II*\0", b"MM\0*")):
            parts.exif = parts.exif or block
            return
        if kind_of_raw in ("iptc", "8bim"):
            parts.iptc, parts.photoshop = split_photoshop(raw.removeprefix(PHOTOSHOP))
            parts.iptc = parts.iptc or (raw if raw[:1] == b"\x1c" else None)
            return
        if kind_of_raw == "xmp" or raw.startswith(XMP_HEADER):
            parts.xmp = parts.xmp or raw.removeprefix(XMP_HEADER)
            return
    try:
        text = value.decode("utf-8" if kind == b"iTXt" else "latin-1")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    parts.text.append((name, text, language))


def _inflate(packed: bytes) -> bytes:
    stream = zlib.decompressobj()
    value = stream.decompress(packed, _TEXT)
    if not stream.eof:
        raise ValueError(f"text is cut short, or has more than {_TEXT} bytes")
    return value


def _unhexed(value: bytes) -> bytes | None:
    """Decode a hexadecimal profile: a line for the kind, one for the length, then digits."""
    lines = value.split(b"\n", 3)
    try:
        return bytes.fromhex(lines[3].decode("ascii")) if len(lines) == 4 else None
    except ValueError:
        return None


def _jpeg(parts: RawMetadata, data: bytes) -> None:
    blocks, segments = b"", b""
    packets, comments = [], []
    for marker, body in jpeg_segments(data):
        if marker == 0xE1 and body.startswith(b"Exif\0"):  # and a byte of any value
            # Several segments contain one large block; a second block is not that of the picture.
            if not (blocks and body[6:10] in (b"II*\0", b"MM\0*")):
                blocks += body[6:]
        elif marker == 0xE1 and body.startswith((XMP_HEADER, XMP_EXTENSION)):
            packets.append(body)
        elif marker == 0xED and body.startswith(PHOTOSHOP):
            segments += body[len(PHOTOSHOP) :]
        elif marker == 0xFE:
            comments.append(body)
        elif marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            across, down = struct.unpack(">HH", body[8:12])
            parts.aspect = None if body[7] else density(across, down)
            parts.dots = {1: 1.0, 2: 2.54}.get(body[7], 0.0) * max(across, down) or None
    parts.comment = b"\n".join(comments) if comments else None
    parts.exif = blocks or None
    parts.xmp = packet_of_jpeg(packets)
    parts.iptc, parts.photoshop = split_photoshop(segments)


def _webp(parts: RawMetadata, data: bytes) -> None:
    for kind, body in riff_chunks(data):
        if kind == b"EXIF" and parts.exif is None:
            parts.exif = body.removeprefix(b"Exif\0\0")
            parts.dots = max(dots_per_inch(parts.exif)) or None
        elif kind == b"XMP ":
            parts.xmp = body


def _tiff(parts: RawMetadata, data: bytes) -> None:
    directories = tiff_directories(data)
    if not directories:
        return
    first = directories[0]
    if tags := tags_of(data):
        parts.exif = build_exif(tags)
    parts.xmp = first.value(Base.XMLPacket) or None
    more, parts.photoshop = split_photoshop(first.value(Base.ImageResources))
    records = first.value(Base.IPTCNAA)
    if records[3:4] == b"\x1c" != records[:1]:  # long integers of a program with swapped bytes
        records = b"".join(records[n : n + 4][::-1] for n in range(0, len(records), 4))
    if not records.startswith(b"\x1c"):  # some programs store Photoshop's block there
        records = split_photoshop(records.removeprefix(PHOTOSHOP))[0] or records
    parts.iptc = records or more
    if records and more and not iptc_datasets(more).items() <= iptc_datasets(records).items():
        parts.photoshop += (Resource(RECORDS, more),)  # another program's, perhaps outdated
    parts.geo = geo_tags(data)
    parts.dots = max(dots_per_inch(data)) or None
    if first.integer(Base.ResolutionUnit, 2) == 1:
        parts.aspect = density(
            *(first.number(tag) or 0 for tag in (Base.XResolution, Base.YResolution))
        )


def _avif(parts: RawMetadata, data: bytes) -> None:
    with suppress(*BROKEN), open_with_pillow(data, "AVIF") as image:
        parts.exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0") or None
        parts.xmp = image.info.get("xmp")
        parts.dots = max(dots_per_inch(parts.exif or b"")) or None


def _gif(parts: RawMetadata, data: bytes) -> None:
    if data[12:13] > b"\0":  # 64 times the width of a pixel over its height, minus 15
        parts.aspect = density(64, data[12] + 15)
    parts.comment = b"\n".join(gif_comments(data)) or None
    parts.xmp = gif_xmp(data)


_READERS = {"png": _png, "jpeg": _jpeg, "webp": _webp, "tiff": _tiff, "avif": _avif, "gif": _gif}


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
