"""Parsers of file structures: chunks, segments, directories and boxes.

All of them accept hostile input: they terminate, read only inside the given bytes, and ignore
truncated parts.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from PIL.ExifTags import IFD, Base

_MAX_ITEMS = 10_000  # chunks, segments, boxes or tags; real files have fewer than a thousand
_DIRECTORIES = 200
# The end of compressed data in interrupted copies, which decoders may turn into pixels; real ones
# do not end in that many zeros. Uncompressed data are not checked: their zeros can be black pixels.
ZEROS = bytes(256)

# Bytes of one value by type, of TIFF 6.0 and BigTIFF.
TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
TYPE_SIZES |= {16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_NUMBERS = _INTEGERS | {5: "II", 10: "ii", 11: "f", 12: "d"}


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield types and bodies of the chunks of a PNG; the bodies of IDAT are left empty."""
    for kind, start, stop in _png_places(data):
        # One IDAT may have hundreds of megabytes, which would be copied at every call.
        yield kind, b"" if kind == b"IDAT" else data[start:stop]


def png_end(data: bytes) -> int:
    """Return the end of a PNG; other data may follow."""
    ends = (stop + 4 for kind, _, stop in _png_places(data) if kind == b"IEND")
    return next(ends, len(data))


def _png_places(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield types, starts and ends of the bodies of the chunks, to IEND."""
    place = 8
    for _ in range(_MAX_ITEMS * 100):  # IDAT can have many small chunks
        head = data[place : place + 8]
        if len(head) < 8:
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if place + 8 + length > len(data):
            return
        yield kind, place + 8, place + 8 + length
        if kind == b"IEND":
            return
        place += 12 + length


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk as it is stored in a file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_text(keyword: str, value: bytes, language: bytes = b"\0") -> bytes:
    """Return an iTXt chunk without compression (PNG 11.3.3.4); its value is UTF-8.

    `language` is the language's tag, a zero, and the keyword in it (UTF-8); both can be empty.
    """
    name = keyword.encode("latin-1", "replace")[:79]
    return png_chunk(b"iTXt", name + b"\0\0\0" + language + b"\0" + value)


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield markers and bodies of the segments of a JPEG before its pixels."""
    place = 2
    for _ in range(_MAX_ITEMS):
        while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] == b"\xff":
            place += 1  # fill bytes
        head = data[place : place + 4]
        if len(head) < 4 or head[0] != 0xFF or head[1] == 0xDA:
            return
        length = int.from_bytes(head[2:4], "big")
        body = data[place + 4 : place + 2 + length]
        if length < 2 or len(body) < length - 2:
            return
        yield head[1], body
        place += 2 + length


def jpeg_end(data: bytes) -> int:
    """Return the end of the first picture of a JPEG; other pictures or a video may follow."""
    place, within = 2, False
    while 0 <= place < len(data) - 1:
        if within or data[place] != 0xFF:
            place = data.find(b"\xff", place)
            if place < 0 or place + 1 >= len(data):
                return len(data)
        marker = data[place + 1]
        if marker == 0xD9:
            return place + 2
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD7:
            place += 1 if marker == 0xFF else 2
            continue
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        within = marker == 0xDA
    return len(data)


def gif_end(data: bytes) -> int:
    """Return the end of a GIF, after its trailer."""
    *_, (_, place) = _gif_blocks(data)
    return place + 1 if data[place : place + 1] == b";" else len(data)


def gif_comments(data: bytes) -> list[bytes]:
    """Return the comments of a GIF."""
    return [
        b"".join(_sub_blocks(data, start + 2))
        for start, _ in _gif_blocks(data)
        if data[start : start + 2] == b"!\xfe"
    ]


def _gif_blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield start and end of the header, of every extension and of every picture."""

    def after_table(place: int, flags: int) -> int:
        return place + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    place = after_table(13, data[10] if len(data) > 10 else 0)
    yield 0, place
    while place < len(data) - 1 and data[place] in (0x21, 0x2C):
        start = place
        if data[place] == 0x2C and place + 9 < len(data):
            place = after_table(place + 10, data[place + 9]) + 1
        else:
            place += 2
        place += sum(len(block) + 1 for block in _sub_blocks(data, place)) + 1
        yield start, place


def _sub_blocks(data: bytes, place: int) -> Iterator[bytes]:
    while place < len(data) and data[place]:
        yield data[place + 1 : place + 1 + data[place]]
        place += data[place] + 1


def gif_profile(data: bytes) -> bytes | None:
    """Return the colour profile of a GIF; None without one."""
    return b"".join(_sub_blocks(_gif_extension(data, b"ICCRGBG1012"), 0)) or None


def gif_xmp(data: bytes) -> bytes | None:
    """Return the XMP packet of a GIF, which is not in blocks; None without one."""
    packet, trailer, _ = _gif_extension(data, b"XMP DataXMP").partition(b"\1\xff\xfe")
    return packet if trailer else None  # the trailer of the XMP Specification, part 3


def _gif_extension(data: bytes, name: bytes) -> bytes:
    head = b"!\xff\x0b" + name
    found = (data[a + len(head) : b] for a, b in _gif_blocks(data) if data.startswith(head, a))
    return next(found, b"")


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """Return a segment as it is stored in a file; the body has at most 65,533 bytes."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield types and bodies of the chunks of a WebP."""
    place = 12
    for _ in range(_MAX_ITEMS):
        head = data[place : place + 8]
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        body = data[place + 8 : place + 8 + length]
        if len(body) < length:
            return
        yield head[:4], body
        place += 8 + length + length % 2


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag of a TIFF directory; its values are not copied, since many tags may share them."""

    kind: int  # TIFF's number of the type of its values
    count: int  # number of values
    entry_offset: int  # offset of its entry in the directory
    start: int  # offset of its values
    size: int  # bytes of its values


@dataclass(slots=True)
class Directory:
    """A directory of a TIFF, or of EXIF."""

    data: bytes  # content of the whole file
    order: str  # byte order, "<" or ">"
    offset: int  # its offset in the file
    # tag that points to it (330, 34665, 34853, 40965), or 0 in the chain of pictures
    parent_tag: int
    tags: dict[int, Tag] = field(default_factory=dict)  # tags by number

    def value(self, tag: int) -> bytes:
        """Return the bytes of the values of a tag; empty if there is no such tag."""
        found = self.tags.get(tag)
        return b"" if found is None else self.data[found.start : found.start + found.size]

    def integers(self, tag: int) -> tuple[int, ...]:
        """Return the values of an integer tag; empty if there is no such tag."""
        found = self.tags.get(tag)
        if found is None or found.kind not in _INTEGERS:
            return ()
        return struct.unpack(f"{self.order}{found.count}{_INTEGERS[found.kind]}", self.value(tag))

    def integer(self, tag: int, default: int = 0) -> int:
        """Return the first value of an integer tag."""
        return next(iter(self.integers(tag)), default)

    def changed(self, tag: int, value: int) -> bytes:
        """Return the whole file with another first value of an integer tag that is there."""
        place = self.tags[tag].start
        end = place + TYPE_SIZES[self.tags[tag].kind]
        number = value.to_bytes(end - place, "little" if self.order == "<" else "big")
        return self.data[:place] + number + self.data[end:]

    def number(self, tag: int) -> float | None:
        """Return the first value of a tag of any numeric type; None if it is not a number."""
        return next(iter(self.numbers(tag)), None)

    def numbers(self, tag: int) -> tuple[float | None, ...]:
        """Return the values of a tag of any numeric type; None for those that are not numbers."""
        found = self.tags.get(tag)
        if found is None or found.kind not in _NUMBERS:
            return ()
        values = struct.iter_unpack(f"{self.order}{_NUMBERS[found.kind]}", self.value(tag))
        parts = [(*value, 1)[:2] for value in values]
        return tuple(a / b if b and math.isfinite(a) else None for a, b in parts)


POINTERS = (Base.SubIFDs, IFD.Exif, IFD.GPSInfo, IFD.Interop)


def tiff_directories(data: bytes) -> list[Directory]:
    """Return the directories of a TIFF, BigTIFF or EXIF block: the chain, then subdirectories."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return []
    version = struct.unpack_from(f"{order}H", data, 2)[0]
    big = version == 43
    found: list[Directory] = []
    try:
        start = struct.unpack_from(f"{order}Q", data, 8) if big else ()
        waiting = [(*(start or struct.unpack_from(f"{order}I", data, 4)), 0)]
    except struct.error:
        return []
    seen: set[int] = set()
    while waiting and len(found) < _DIRECTORIES:
        offset, below = waiting.pop(0)
        if not offset or offset in seen:
            continue
        seen.add(offset)
        try:
            directory, following = _directory(data, order, offset, below, big=big)
        except struct.error:
            continue
        found.append(directory)
        if not below:
            waiting.insert(0, (following, 0))
        for tag in POINTERS:
            waiting += [(place, tag) for place in directory.integers(tag)[:_DIRECTORIES]]
    return found


def first_directory(data: bytes) -> Directory:
    """Return the first of `tiff_directories`, or an empty one if there is none."""
    return next(iter(tiff_directories(data)), Directory(b"", "<", 0, 0))


def _directory(
    data: bytes, order: str, offset: int, below: int, *, big: bool
) -> tuple[Directory, int]:
    (count,) = struct.unpack_from(f"{order}{'Q' if big else 'H'}", data, offset)
    entry, inline = (20, 8) if big else (12, 4)
    first = offset + (8 if big else 2)
    directory = Directory(data, order, offset, below)
    for n in range(min(count, _MAX_ITEMS)):
        place = first + n * entry
        tag, kind, number = struct.unpack_from(f"{order}HH{'Q' if big else 'I'}", data, place)
        size = TYPE_SIZES.get(kind, 0) * number
        where = place + entry - inline
        if size > inline:
            (where,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, where)
        if size and where + size <= len(data) and tag not in directory.tags:
            directory.tags[tag] = Tag(kind, number, place, where, size)
    try:
        (following,) = struct.unpack_from(
            f"{order}{'Q' if big else 'I'}", data, first + count * entry
        )
    except struct.error:
        following = 0
    return directory, following


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the boxes of ISO/IEC 14496-12: type, start and end of the body."""
    end = len(data) if end is None else min(end, len(data))
    for _ in range(_MAX_ITEMS):
        if start + 8 > end:
            return
        size, body = int.from_bytes(data[start : start + 4], "big"), start + 8
        if size == 1:
            size, body = int.from_bytes(data[start + 8 : start + 16], "big"), start + 16
        stop = end if size == 0 else start + size
        if stop < body or stop > end:
            return
        yield data[start + 4 : start + 8], body, stop
        start = stop


@dataclass(slots=True)
class Heif:
    """The items of an AVIF or HEIC, by ISO/IEC 23008-12."""

    primary: int = 0  # number of the primary picture
    # type of every item by number; pictures are hvc1, av01, grid, iden, ..
    items: dict[int, bytes] = field(default_factory=dict)
    # properties of every item, as (type, body)
    properties: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    # references (type, from, to), e.g. thmb, auxl, cdsc, dimg.
    references: list[tuple[bytes, int, int]] = field(default_factory=list)

    def pictures(self) -> list[int]:
        """Return the pictures, without thumbnails, masks and tiles of other pictures."""
        parts = {
            origin for kind, origin, _ in self.references if kind in (b"thmb", b"auxl", b"prem")
        }
        parts |= {target for kind, _, target in self.references if kind == b"dimg"}
        kinds = (b"av01", b"hvc1", b"grid", b"iden", b"iovl", b"jpeg", b"avc1")
        return [n for n, kind in self.items.items() if kind in kinds and n not in parts]

    @property
    def is_premultiplied(self) -> bool:
        """Whether the primary picture's colours are multiplied by its alpha."""
        return any(k == b"prem" and self.primary in (one, two) for k, one, two in self.references)

    @property
    def orientation(self) -> int:
        """The EXIF orientation that equals the primary picture's rotation; 0 if it is mirrored."""
        angle = next(iter(self.of_primary(b"irot")), b"")[:1] or b"\0"  # quarters, anticlockwise
        return 0 if self.of_primary(b"imir") else (1, 8, 3, 6)[angle[0] & 3]

    def of_primary(self, kind: bytes) -> list[bytes]:
        """Return the bodies of the primary picture's properties of a type."""
        return [body for name, body in self.properties.get(self.primary, []) if name == kind]


def read_heif(data: bytes) -> Heif:
    """Read the items of an AVIF or HEIC; broken parts are left out."""
    heif = Heif()
    for kind, start, stop in boxes(data):
        if kind == b"meta":
            for inner, first, last in boxes(data, start + 4, stop):
                try:
                    _read_meta(heif, inner, data[first:last])
                except (struct.error, IndexError):
                    continue
    return heif


def _read_meta(heif: Heif, kind: bytes, body: bytes) -> None:
    version = body[0]
    if kind == b"pitm":
        (heif.primary,) = struct.unpack_from(">I" if version else ">H", body, 4)
    elif kind == b"iinf":
        for name, start, stop in boxes(body, 8 if version else 6):
            if name == b"infe" and body[start] >= 2:
                _read_item(heif, body[start:stop])
    elif kind == b"iref":
        for name, start, stop in boxes(body, 4):
            _read_reference(heif, name, body[start:stop], "I" if version else "H")
    elif kind == b"iprp":
        _read_properties(heif, body)


def _read_item(heif: Heif, body: bytes) -> None:
    wide = body[0] > 2
    (item,) = struct.unpack_from(">I" if wide else ">H", body, 4)
    place = 10 if wide else 8
    heif.items[item] = body[place : place + 4]


def _read_properties(heif: Heif, body: bytes) -> None:
    known: list[tuple[bytes, bytes]] = []
    for name, start, stop in boxes(body):
        if name == b"ipco":
            known = [(one, body[first:last]) for one, first, last in boxes(body, start, stop)]
        elif name == b"ipma":
            _associate(heif, known, body[start:stop])


def _read_reference(heif: Heif, kind: bytes, body: bytes, size: str) -> None:
    origin, count = struct.unpack_from(f">{size}H", body)
    first = struct.calcsize(f">{size}H")
    count = min(count, (len(body) - first) // struct.calcsize(size))
    targets = struct.unpack_from(f">{count}{size}", body, first)
    heif.references += [(kind, origin, target) for target in targets]


def _associate(heif: Heif, known: list[tuple[bytes, bytes]], body: bytes) -> None:
    (count,) = struct.unpack_from(">I", body, 4)
    wide, place = bool(body[3] & 1), 8
    for _ in range(min(count, _MAX_ITEMS)):
        (item,) = struct.unpack_from(">I" if body[0] else ">H", body, place)
        place += 4 if body[0] else 2
        number, place = body[place], place + 1
        for _ in range(number):
            (index,) = struct.unpack_from(">H" if wide else ">B", body, place)
            place += 2 if wide else 1
            index &= 0x7FFF if wide else 0x7F
            if 0 < index <= len(known):
                heif.properties.setdefault(item, []).append(known[index - 1])
