"""Inventories of everything that a file contains besides its pixels, by parsing its container.

The difference of the inventories of input and output is what was lost, whatever the cause.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import islice

from restore_cli.formatting import format_count, format_list
from restore_cli.image.containers import (
    boxes,
    gif_end,
    is_several_jpeg,
    jpeg_end,
    jpeg_segments,
    png_chunks,
    png_end,
    read_heif,
    riff_chunks,
    tiff_directories,
)
from restore_cli.image.exif import GEO_TAGS, is_private_tag, tag_names
from restore_cli.image.iptc import PHOTOSHOP, iptc_datasets
from restore_cli.image.provenance import NAMESPACE
from restore_cli.image.raw_metadata import RawMetadata
from restore_cli.image.xmp import (
    CONTENT,
    XMP_EXTENSION,
    XMP_HEADER,
    Packet,
    describes_other_content,
    is_preview_property,
    is_private_property,
)

Item = tuple[str, str]  # kind and name
# Chunks of PNG that are pixels, or that other entries describe.
_PNG = frozenset(
    b"IHDR PLTE IDAT IEND tRNS tEXt zTXt iTXt eXIf iCCP gAMA cHRM sRGB cICP pHYs".split()
) | {b"sBIT", b"hIST", b"acTL", b"fcTL"}
_WEBP = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"EXIF", b"XMP "))
_HEIF = frozenset((b"ftyp", b"meta", b"mdat", b"free", b"skip", b"moov", b"mpvd"))
# Where the picture ends in a file; JPEGs often have more behind it, see `_of_jpeg`.
_ENDS: dict[str, Callable[[bytes], int]] = {
    "png": png_end,
    "gif": gif_end,
    "webp": lambda data: 8 + int.from_bytes(data[4:8], "little"),
    "bmp": lambda data: int.from_bytes(data[2:6], "little") or len(data),
    "avif": lambda data: max((stop for _, _, stop in boxes(data)), default=len(data)),
    "heic": lambda data: max((stop for _, _, stop in boxes(data)), default=len(data)),
}
_VIDEO = re.compile(rb"\0\0[\0\1].ftyp", re.DOTALL)  # a box with its size, not a word in text
_GAIN_MAP = b"urn:iso:std:iso:ts:21496"
_MASKS = {b"hdrgainmap": "a gain map", b"gainmap": "a gain map", b"depth": "a depth map"}
# Segments that other entries describe, or that concern the stored pixels only, by marker.
_SEGMENTS: dict[int, tuple[bytes, ...]] = {
    0xE0: (b"JFIF", b"JFXX"),
    0xE1: (b"Exif\0", XMP_HEADER, XMP_EXTENSION),
    0xE2: (b"ICC_PROFILE\0", b"MPF\0", _GAIN_MAP),
    0xED: (PHOTOSHOP,),
    0xEE: (b"Adobe",),
}
_MAX_TRAILING_PICTURES = 64  # pictures behind a JPEG that are counted
_DEFAULT_DPI = 72  # dots per inch, which viewers assume by default
_MAX_NAMES = 6  # most names of one kind that a note lists


def take_inventory(data: bytes, key: str, parts: RawMetadata | None = None) -> frozenset[Item]:
    """Return the inventory of a file; its metadata are read unless they are given."""
    parts = parts or RawMetadata.read(data, key)
    found: set[Item] = set(_described(parts))
    if key == "png":
        kinds = {kind for kind, _ in png_chunks(data)}
        found |= {("chunks", kind.decode("latin-1")) for kind in kinds - _PNG}
    elif key == "tiff":  # its parts lack maker notes, whose offsets would be wrong
        found |= {("EXIF", name) for name in tag_names(tiff_directories(data))}
    elif key == "jpeg":
        found |= set(_of_jpeg(data))
        more = any(body.startswith(XMP_EXTENSION) for _, body in jpeg_segments(data))
        if more and (parts.xmp is None or b"HasExtendedXMP" in parts.xmp):  # it was not merged
            found.add(("XMP", "(extended, broken)"))
    elif key == "webp":
        kinds = {kind for kind, _ in riff_chunks(data)}
        found |= {("chunks", kind.decode("latin-1").strip()) for kind in kinds - _WEBP}
    elif key in ("avif", "heic"):
        found |= set(_of_heif(data))
    end = _ENDS[key](data) if key in _ENDS else len(data)
    if rest := data[end:].strip(b"\0"):
        found.add(("beside it", f"{len(rest)} bytes after its end"))
    return frozenset(found)


def _described(parts: RawMetadata) -> Iterable[Item]:
    yield from _of_exif(parts.exif)
    yield from _of_xmp(parts.xmp)
    for name, value in iptc_datasets(parts.iptc or b"").items():
        if name not in ("1:000", "1:090", "2:000"):
            yield "IPTC", f"{name} ({len(value)} bytes)"
    yield from (("Photoshop", f"resource {number}") for number, *_ in parts.photoshop)
    yield from (("text", key) for key, _, _ in parts.text)
    yield from (("text", f"{key} (unreadable)") for key in parts.unreadable)
    yield from (("GeoTIFF", GEO_TAGS[tag]) for tag in parts.geo)
    if parts.comment is not None:
        yield "comment", ""
    if parts.dots and abs(parts.dots - _DEFAULT_DPI) > 0.5:
        yield "resolution", ""
    if parts.aspect is not None:
        # Whether wide or high: it is swapped if the picture is turned.
        yield "shape of pixels", f"{max(parts.aspect) / min(parts.aspect):.3g}:1"


def _of_exif(block: bytes | None) -> Iterable[Item]:
    directories = tiff_directories(block or b"")
    yield from (("EXIF", name) for name in tag_names(directories))
    if block is not None and not directories:
        yield "EXIF", "(broken)"
    if any(n and not one.parent_tag for n, one in enumerate(directories)):
        yield "preview", ""


def _of_xmp(raw: bytes | None) -> Iterable[Item]:
    packet = None if raw is None else Packet.parse(raw)
    if raw is not None and packet is None:
        yield "XMP", "(broken)"
    for name in packet.names() if packet else ():
        if is_preview_property(name):
            yield "preview", ""
        elif name in CONTENT:
            yield "beside it", CONTENT[name]
        elif not describes_other_content(name) and not name.startswith(f"{{{NAMESPACE}}}"):
            yield "XMP", name.rpartition("}")[2]


def _of_jpeg(data: bytes) -> Iterable[Item]:
    for marker, body in jpeg_segments(data):
        name = body.split(b"\0")[0][:20].decode("latin-1")
        if marker == 0xE0 and body.startswith(b"JFXX"):
            yield "preview", ""
        elif marker == 0xE2 and body.startswith(_GAIN_MAP):
            yield "beside it", "a gain map"
        elif 0xE0 <= marker <= 0xEF and not body.startswith(_SEGMENTS.get(marker, ())):
            yield "segments", f"APP{marker - 0xE0} {name if name.isprintable() else ''}".strip()
    end = jpeg_end(data)
    video = _VIDEO.search(data, end)
    rest = data[end:].strip(b"\0")
    gain_map = _has_gain_map(rest)
    if video:
        yield "beside it", "a video"
    if gain_map:
        yield "beside it", "a gain map"
    pictures = 0
    while rest.startswith(b"\xff\xd8") and pictures < _MAX_TRAILING_PICTURES:
        pictures += 1
        rest = rest[jpeg_end(rest) :].strip(b"\0")
    if pictures and not gain_map and not is_several_jpeg(data):
        yield "beside it", format_count(pictures, "picture")
    if rest and not video and not gain_map:
        yield "beside it", f"{len(rest)} bytes after its end"


def _has_gain_map(rest: bytes) -> bool:
    """Whether a JPEG in the bytes behind the picture is a gain map, by its own segments."""
    for found in islice(re.finditer(b"\xff\xd8\xff", rest), _MAX_TRAILING_PICTURES):
        for _, body in jpeg_segments(rest[found.start() :]):
            if body.startswith(_GAIN_MAP) or (
                body.startswith(XMP_HEADER) and (b"hdrgm" in body or b"HDRGainMap" in body)
            ):
                return True
    return False


def _of_heif(data: bytes) -> Iterable[Item]:
    heif = read_heif(data)
    for kind, origin, _ in heif.references:
        if kind == b"thmb":
            yield "preview", ""
        if kind == b"auxl":
            descriptions = [
                body[4:].lower()
                for name, body in heif.properties.get(origin, [])
                if name == b"auxC"
            ]
            for word, what in _MASKS.items():
                if any(word in body for body in descriptions):
                    yield "beside it", what
            if any(b"auxid:2" in body for body in descriptions):
                yield "beside it", "a depth map"
    if b"tmap" in heif.items.values():
        yield "beside it", "a gain map"
    kinds = [kind for kind, _, _ in boxes(data)]
    live = b"moov" in kinds and data[8:12] != b"avis"  # which has a note of its own
    if live or b"mpvd" in kinds or kinds.count(b"ftyp") > 1:
        yield "beside it", "a video"
    yield from (("boxes", kind.decode("latin-1")) for kind in {*kinds} - _HEIF)


def loss_notes(before: Iterable[Item], after: Iterable[Item], *, level: str) -> tuple[str, ...]:
    """Return one note on what was lost unintentionally between two inventories, or none.

    `level` is "all", "standard", "private" or "none"; see `writing.Encoding`.
    """
    gone: dict[str, list[str]] = {}
    there = set(after)
    for kind, name in sorted(set(before) - there):
        if _wanted(kind, name, level):
            gone.setdefault(kind, []).append(name)
    if not gone:
        return ()
    items = []
    for kind, names in gone.items():
        shown = [name for name in names if name]
        text = format_list(shown, _MAX_NAMES)
        items.append(text if kind == "beside it" else f"{kind} {text}".strip())
    return (f"left out: {'; '.join(items)}",)


def _wanted(kind: str, name: str, level: str) -> bool:
    if kind == "beside it":
        return True
    if level == "none" or (kind == "preview" and level != "all"):
        return False
    private = is_private_tag(name) or is_private_property(name)
    return not (level == "private" and kind in ("EXIF", "XMP", "text") and private)
