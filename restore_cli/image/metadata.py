"""Copies EXIF, XMP, IPTC and text to the new file, updated for the restored picture.

libvips writes only pixels and profile: its EXIF passes through libexif, which loses unknown tags
and blocks over 64 kB, and it truncates IPTC in TIFF.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL.ExifTags import Base

from restore_cli.image.containers import (
    first_directory,
    jpeg_segment,
    jpeg_segments,
    png_chunk,
    png_chunks,
    png_text,
    read_heif,
    riff_chunks,
)
from restore_cli.image.exif import (
    Tags,
    add_to_tiff,
    build_exif,
    dots_per_inch,
    edit_exif,
    orientation_of,
    resolution_block,
    scaled_geo,
    tags_of,
)
from restore_cli.image.geometry import GeometryChange
from restore_cli.image.inventory import take_inventory
from restore_cli.image.iptc import join_photoshop, photoshop_segments
from restore_cli.image.picture import Metadata
from restore_cli.image.provenance import add_to_packet, provenance_in
from restore_cli.image.raw_metadata import density
from restore_cli.image.vips import BLOB, INTEGER, VipsError, VipsImage
from restore_cli.image.xmp import (
    XMP_KEYWORD,
    Packet,
    edited_packet,
    is_private_property,
    packet_segments,
)

MM_PER_INCH = 25.4
_KEEP_EXIF, _KEEP_XMP, _KEEP_PROFILE = 1, 2, 8  # VipsForeignKeep
_DEFAULT_DPI = (72.0, 72.0)  # dots per inch, written by default since viewers assume it
_MAX_DPI = 1e6
_EXIF_ROOM = 65_527  # most bytes of EXIF in a segment of a JPEG
_COMMENT_ROOM = 65_533  # most bytes of a comment in a segment of a JPEG
_LARGE_VALUE = 4096  # values of more bytes are dropped if a block is too large


def read_metadata(header: Any, content: bytes, data: bytes, key: str) -> Metadata:
    """Read the metadata of a file with the content `data` and the format `key`.

    `header` is a libvips image, not decoded. `content` is what libvips reads: the file, or a PNG if
    libvips cannot read it.
    """
    found = Metadata.read(content, "png" if key in ("bmp", "heic") else key)
    heif = read_heif(data) if key in ("avif", "heic") else None
    for shape in heif.of_primary(b"pasp") if heif else ():  # width and height of a pixel
        found.aspect = density(*struct.unpack(">II", shape[:8].ljust(8, b"\0"))[::-1])
    found.inventory = take_inventory(data, key, found)
    orientation = orientation_of(data if key == "tiff" else found.exif)
    # Which libvips takes for millimetres.
    unitless = key == "tiff" and first_directory(data).integer(Base.ResolutionUnit, 2) == 1
    dpi = header.xres * MM_PER_INCH, header.yres * MM_PER_INCH
    if heif:  # of which libvips reads no resolution, and a PNG made of HEIC has another unit
        dpi = dots_per_inch(found.exif or b"")
    elif not header.get_typeof("resolution-unit") and abs(header.xres - 1) < 1e-6:
        unitless = True
    # Others cannot be real, and libvips and EXIF could not hold them.
    real = all(0 < dots <= _MAX_DPI for dots in dpi) and not unitless
    found.dpi = dpi if real and not found.aspect else None
    turned = heif.orientation >= 5 if heif else False
    if turned or orientation >= 5:  # the picture will be turned, and so will be its pixels
        found.dpi = found.dpi and found.dpi[::-1]
    size = (header.height, header.width)
    if heif:  # the decoder has turned them
        orientation = heif.orientation
        size = size[::-1] if orientation >= 5 else size
    if orientation >= 5:
        found.aspect = found.aspect and found.aspect[::-1]
    found.size, found.orientation = size if orientation else None, orientation
    if orientation > 1:  # they refer to rows and columns
        found.geo = {}
    # Not by get_fields, which raises if a name is not UTF-8, e.g. of text in a damaged PNG.
    if header.get_typeof("icc-profile-data"):
        found.icc_profile = header.get("icc-profile-data")
    return found


def update_metadata(
    metadata: Metadata,
    provenance: tuple[tuple[str, str], ...],
    key: str,
    *,
    level: str,
    height: int,
    width: int,
) -> tuple[Metadata, Packet | None]:
    """Return the metadata and the XMP of a restored picture of `height` x `width`.

    `provenance` says how it was made; see `add_to_packet`. `key` is the format of the output.
    `level` is "all", "standard", "private" or "none"; see `writing.Encoding`.
    """
    if level == "none":
        bare = replace(metadata, exif=None, xmp=None, iptc=None, photoshop=(), comment=None)
        return replace(bare, text=[], geo={}), None
    before = metadata.size and metadata.size[::-1]
    change = GeometryChange(before, metadata.orientation, (width, height))
    block = metadata.exif
    if block is not None:
        block = edit_exif(block, level=level, change=change)
    if block is None and metadata.dpi and key in ("webp", "avif"):
        block = resolution_block(*metadata.dpi)  # these formats store it only in EXIF
    packet = None if metadata.xmp is None else Packet.parse(metadata.xmp)
    if packet is not None:
        packet = edited_packet(packet, level=level, change=change)
    if packet is not None or provenance:
        packet = add_to_packet(packet or Packet.empty(), provenance)
    private = level == "private"
    text = metadata.text
    if private:  # a key may name a place, and EXIF that could not be read may hold one
        text = [
            one
            for one in text
            if not (is_private_property(one[0]) or one[0].lower().startswith("raw profile type"))
        ]
    geo: Tags = {}
    if metadata.geo and metadata.size and not private:
        rows, columns = metadata.size
        geo = scaled_geo(metadata.geo, width / columns, height / rows)
    changed = replace(metadata, exif=block, text=text, geo=geo)
    return changed, packet


def attach_metadata(
    image: Any, metadata: Metadata, key: str, packet: Packet | None
) -> tuple[Any, int]:
    """Attach the resolution, and for AVIF all metadata, to a libvips image; also return save flags.

    `metadata` is the result of `update_metadata`, and `key` the format of the output.
    """
    dpi = metadata.dpi or _DEFAULT_DPI
    image = image.copy(xres=dpi[0] / MM_PER_INCH, yres=dpi[1] / MM_PER_INCH)
    keep = _KEEP_PROFILE
    if key == "avif" and metadata.exif is not None:
        _attach_exif(image, metadata.exif)
        keep |= _KEEP_EXIF
    if key == "avif" and packet is not None:
        image.set_type(BLOB, "xmp-data", packet.packet())
        keep |= _KEEP_XMP
    return image, keep


def _attach_exif(image: Any, block: bytes) -> None:
    """Attach EXIF as libvips' fields: libvips writes only the tags that are fields as well."""
    if len(block) > _EXIF_ROOM:
        block = build_exif(tags_of(block), largest=_LARGE_VALUE)
    try:
        small = VipsImage.black(1, 1).jpegsave_buffer(keep=0)
        small = small[:2] + jpeg_segment(0xE1, b"Exif\0\0" + block[:_EXIF_ROOM]) + small[2:]
        there = VipsImage.jpegload_buffer(small)
        for name in there.get_fields():
            if name.startswith("exif-"):
                image.set_type(there.get_typeof(name), name, there.get(name))
    except (VipsError, UnicodeDecodeError):
        return  # the loss shows in the inventories
    image.set_type(INTEGER, "orientation", 1)


def embed(file: BytesIO, key: str, metadata: Metadata, packet: Packet | None) -> None:
    """Insert the result of `update_metadata`, and XMP, into a file without metadata, in place."""
    into = {"png": _into_png, "jpeg": _into_jpeg, "webp": _into_webp, "tiff": _into_tiff}
    if key in into:
        into[key](file, metadata, packet)


def _insert(file: BytesIO, place: int, added: bytes, instead_of: int = 0) -> None:
    """Insert bytes at a place of a file instead of some, without a second copy of the file."""
    size, more = len(file.getbuffer()), len(added) - instead_of
    file.seek(size)
    file.write(bytes(max(0, more)))
    with file.getbuffer() as view:
        view[place + len(added) : size + more] = view[place + instead_of : size]
        view[place : place + len(added)] = added
    file.truncate(size + more)


def _into_png(file: BytesIO, metadata: Metadata, packet: Packet | None) -> None:
    """Text goes into iTXt (PNG 11.3.3.4), which is UTF-8, and is where readers look for XMP."""
    head = 8 + 25  # signature, IHDR
    chunks_by_kind = dict(metadata.colour)
    if metadata.hdr is not None:  # other formats are decoded to RGB of full range
        chunks_by_kind.setdefault(b"cICP", bytes([*metadata.hdr[:2], 0, 1]))
    chunks = [png_chunk(kind, body) for kind, body in chunks_by_kind.items()]
    if metadata.exif is not None:
        chunks.append(png_chunk(b"eXIf", metadata.exif))
    for keyword, value, language in metadata.text:
        chunks.append(png_text(keyword, value.encode("utf-8", "replace"), language))
    if packet:
        chunks.append(png_text(XMP_KEYWORD, packet.packet()))
    if metadata.aspect is not None:
        data = file.getvalue()
        theirs = next(png_chunk(*one) for one in png_chunks(data) if one[0] == b"pHYs")
        place = data.index(theirs)
        del data
        across, down = _whole(metadata.aspect, 2**31 - 1)
        ours = png_chunk(b"pHYs", struct.pack(">IIB", across, down, 0))
        _insert(file, place, ours, len(theirs))
    _insert(file, head, b"".join(chunks))


def _into_jpeg(file: BytesIO, metadata: Metadata, packet: Packet | None) -> None:
    data = file.getvalue()
    parts: list[tuple[int, bytes]] = []
    block = metadata.exif
    if block is not None and len(block) > _EXIF_ROOM:
        block = build_exif(tags_of(block), largest=_LARGE_VALUE)
    if block is not None and len(block) <= _EXIF_ROOM:
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
        unit, shape = (0, metadata.aspect) if metadata.aspect else (1, metadata.dpi or _DEFAULT_DPI)
        across, down = _whole(shape, 65_535) if unit == 0 else map(round, shape)
        numbers = struct.pack(">BHH", unit, min(across, 65_535), min(down, 65_535))
        parts.insert(0, (0xE0, b"JFIF\0\1\1" + numbers + b"\0\0"))
    del data
    _insert(file, 2, b"".join(jpeg_segment(*part) for part in parts), rest - 2)


def _into_webp(file: BytesIO, metadata: Metadata, packet: Packet | None) -> None:
    """Append chunks after the picture, and set their flags in the header."""
    chunks = list(riff_chunks(file.getvalue()))
    added = [(b"EXIF", metadata.exif)] if metadata.exif is not None else []
    added += [(b"XMP ", packet.packet())] if packet is not None else []
    if not added or not chunks:
        return
    if chunks[0][0] != b"VP8X":
        flags, body = 0, chunks[0][1]
        if chunks[0][0] == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
            flags = 0x10 if bits >> 28 & 1 else 0
        else:
            width, height = (n & 0x3FFF for n in struct.unpack("<HH", body[6:10]))
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        chunks.insert(0, (b"VP8X", bytes([flags, 0, 0, 0]) + sides))
    flags = chunks[0][1][0]
    for kind, _ in added:
        flags |= 0x08 if kind == b"EXIF" else 0x04
    chunks[0] = (b"VP8X", bytes([flags]) + chunks[0][1][1:])
    body = b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        for kind, content in [*chunks, *added]
    )
    file.seek(0)
    file.write(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body)


def _into_tiff(file: BytesIO, metadata: Metadata, packet: Packet | None) -> None:
    tags: Tags = tags_of(metadata.exif) if metadata.exif is not None else {}
    tags |= metadata.geo
    if packet is not None:
        tags[Base.XMLPacket] = (1, packet.packet())
    if metadata.iptc is not None:
        tags[Base.IPTCNAA] = (7, metadata.iptc + bytes(-len(metadata.iptc) % 4))
    if metadata.photoshop:
        tags[Base.ImageResources] = (1, join_photoshop(None, metadata.photoshop))
    if metadata.aspect is not None:
        across, down = _whole(metadata.aspect, 2**31)
        tags |= {
            Base.XResolution: (5, struct.pack("<II", across, 1)),
            Base.YResolution: (5, struct.pack("<II", down, 1)),
            Base.ResolutionUnit: (3, struct.pack("<H", 1)),
        }
    if tags:
        add_to_tiff(file, tags)


def _whole(aspect: tuple[float, float], most: int) -> tuple[int, int]:
    """Return a ratio as two integers."""
    across, down = aspect
    if across == int(across) and down == int(down) and max(aspect) <= most:
        return int(across), int(down)
    factor = min(most, 10_000) / max(aspect)
    return max(1, round(across * factor)), max(1, round(down * factor))
