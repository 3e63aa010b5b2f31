"""jpeg: written with full chroma."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from io import BytesIO
from itertools import islice
from typing import Any

from restore_cli.formatting import format_count
from restore_cli.image.containers import jpeg_end, jpeg_segment, jpeg_segments
from restore_cli.image.embedding import DEFAULT_DPI, EXIF_ROOM, fitting_exif, insert, whole_ratio
from restore_cli.image.format_spec import Format, Item, begins_with
from restore_cli.image.iptc import PHOTOSHOP, join_photoshop, photoshop_segments, split_photoshop
from restore_cli.image.provenance import add_to_packet, provenance_in
from restore_cli.image.raw_metadata import Metadata, RawMetadata, density
from restore_cli.image.vips import load_with_vips, save_with_vips
from restore_cli.image.xmp import XMP_EXTENSION, XMP_HEADER, Packet, packet_of_jpeg, packet_segments

JPEG_QUALITY = 95
_VIDEO = re.compile(rb"\0\0[\0\1].ftyp", re.DOTALL)  # a box with its size, not a word in text
_GAIN_MAP = b"urn:iso:std:iso:ts:21496"
# Segments that other entries describe, or that concern the stored pixels only, by marker.
_SEGMENTS: dict[int, tuple[bytes, ...]] = {
    0xE0: (b"JFIF", b"JFXX"),
    0xE1: (b"Exif\0", XMP_HEADER, XMP_EXTENSION),
    0xE2: (b"ICC_PROFILE\0", b"MPF\0", _GAIN_MAP),
    0xED: (PHOTOSHOP,),
    0xEE: (b"Adobe",),
}
_MAX_TRAILING_PICTURES = 64  # pictures behind a JPEG that are counted
_COMMENT_ROOM = 65_533  # most bytes of a comment in a segment of a JPEG


_OPTIMAL_JPEG = 12_000_000  # pixels


def _ends_early(data: bytes) -> bool:
    return not data.endswith(b"\xff\xd9", 0, jpeg_end(data))


def _load(data: bytes, name: str, max_pixels: int, **options: Any) -> tuple[Any, bytes]:
    whole = data
    if options.get("fail_on") == "warning" and _ends_early(data):
        whole += b"\xff\xd9"  # libjpeg warns if more than this is missing
    return load_with_vips("jpeg", whole, name, max_pixels, **options)[0], data


def _read_metadata(parts: RawMetadata, data: bytes, _: bytes) -> None:
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


def _inventory(data: bytes, parts: RawMetadata) -> Iterable[Item]:
    for marker, body in jpeg_segments(data):
        name = body.split(b"\0")[0][:20].decode("latin-1")
        if marker == 0xE0 and body.startswith(b"JFXX"):
            yield "preview", ""
        elif marker == 0xE2 and body.startswith(_GAIN_MAP):
            yield "beside it", "a gain map"
        elif 0xE0 <= marker <= 0xEF and not body.startswith(_SEGMENTS.get(marker, ())):
            yield "segments", f"APP{marker - 0xE0} {name if name.isprintable() else ''}".strip()
    more = any(body.startswith(XMP_EXTENSION) for _, body in jpeg_segments(data))
    if more and (parts.xmp is None or b"HasExtendedXMP" in parts.xmp):  # it was not merged
        yield "XMP", "(extended, broken)"
    yield from _behind_picture(data)


def _behind_picture(data: bytes) -> Iterable[Item]:
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
    if pictures and not gain_map and not _lists_more(data):
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


def _embed(file: BytesIO, metadata: Metadata, packet: Packet | None) -> None:
    data = file.getvalue()
    parts: list[tuple[int, bytes]] = []
    block = metadata.exif and fitting_exif(metadata.exif)
    if block is not None and len(block) <= EXIF_ROOM:
        parts.append((0xE1, b"Exif\0\0" + block))
    if packet is not None:
        first = Packet.empty()
        add_to_packet(first, provenance_in(packet))
        parts += [(0xE1, body) for body in packet_segments(packet, first)]
    joined = join_photoshop(metadata.iptc, metadata.photoshop)
    parts += [(0xED, body) for body in photoshop_segments(joined)]
    comment = metadata.comment or b""
    starts = range(0, len(comment), _COMMENT_ROOM)
    parts += [(0xFE, comment[start : start + _COMMENT_ROOM]) for start in starts]
    inks = any(0xC0 <= marker <= 0xC2 and body[5] == 4 for marker, body in jpeg_segments(data))
    rest = 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2
    if not inks:  # JFIF knows grey and YCbCr only
        unit, shape = (0, metadata.aspect) if metadata.aspect else (1, metadata.dpi or DEFAULT_DPI)
        across, down = whole_ratio(shape, 65_535) if unit == 0 else map(round, shape)
        numbers = struct.pack(">BHH", unit, min(across, 65_535), min(down, 65_535))
        parts.insert(0, (0xE0, b"JFIF\0\1\1" + numbers + b"\0\0"))
    del data
    insert(file, 2, b"".join(jpeg_segment(*part) for part in parts), rest - 2)


def _lists_more(data: bytes) -> bool:
    """Whether a JPEG lists further pictures of the file (MPF, CIPA DC-007)."""
    return any(marker == 0xE2 and body.startswith(b"MPF\0") for marker, body in jpeg_segments(data))


def _stores_profile(data: bytes) -> bool:
    return any(m == 0xE2 and body.startswith(b"ICC_PROFILE\0") for m, body in jpeg_segments(data))


def _save(
    file: BytesIO, image: Any, keep: int, quality: int | None, lossless: bool, depth: int
) -> None:
    # Optimised Huffman tables need all coefficients in memory: for 192 megapixels 2.3 GB, 6.0 s
    # and a file of 74.7 MB; without, 0.1 GB, 1.5 s and 78.5 MB.
    optimal = image.width * image.height <= _OPTIMAL_JPEG
    options = {"Q": quality or JPEG_QUALITY, "subsample_mode": "off", "optimize_coding": optimal}
    save_with_vips("jpeg", file, image, keep=keep, **options)


FORMAT = Format(
    name="JPEG",
    recognise=begins_with(b"\xff\xd8\xff"),
    suffixes=(".jpg", ".jpeg", ".jpe", ".jfif"),
    read_suffixes=(".mpo",),
    load=_load,
    tolerant=True,
    shrink=lambda factor: {"shrink": factor},
    has_more=lambda _, data: _lists_more(data),
    ends_early=_ends_early,
    stores_profile=_stores_profile,
    read_metadata=_read_metadata,
    inventory=_inventory,
    save=_save,
    embed=_embed,
    longest_side=65_535,
    cmyk=True,
    has_lossless=False,
    least_bytes=0.023,
)
