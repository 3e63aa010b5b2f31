"""Reads what FFmpeg does not report of a container: cropped borders, and whether it was cut off."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from restore_cli.image.containers import boxes

_HEAD = 1 << 22  # bytes of a Matroska file in which its tracks are described
_SAMPLE_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")  # ISO/IEC 14496-12
_SEGMENT = b"\x18\x53\x80\x67"
_VIDEO = (_SEGMENT, b"\x16\x54\xae\x6b", b"\xae", b"\xe0")  # Segment ... Video
_CROPPED = (b"\x54\xaa", b"\x54\xbb", b"\x54\xcc", b"\x54\xdd")  # PixelCropBottom ... Right
_FIELDS = 78  # bytes of a VisualSampleEntry before its boxes


def hides_a_border(path: Path) -> bool:
    """Whether an MP4 or MOV has a clean aperture, or a Matroska or WebM file PixelCrop elements."""
    with path.open("rb") as file:
        matroska = file.read(4) == b"\x1aE\xdf\xa3"
        file.seek(0)
        try:
            return _crops(file.read(_HEAD)) if matroska else _has_aperture(_description(path))
        except (struct.error, IndexError):
            return False


def is_complete(path: Path) -> bool:
    """Whether a Matroska file is as long as it states.

    True for all others: an MP4 or MOV that was cut off cannot be opened, since its index is at its
    end.
    """
    with path.open("rb") as file:
        head = file.read(1 << 12)
    if not head.startswith(b"\x1aE\xdf\xa3"):
        return True
    try:
        stated = (last for kind, _, last in _elements(head, 0, 1 << 62) if kind == _SEGMENT)
        return next(stated) <= path.stat().st_size
    except (IndexError, StopIteration):
        return False


def _description(path: Path) -> bytes:
    """Return the box moov of an MP4 or MOV, without reading its frames; b"" if there is none."""
    left = path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(16)) == 16:
            size, kind = struct.unpack(">I4s", head[:8])
            size = int.from_bytes(head[8:], "big") if size == 1 else size
            file.seek(-16, 1)
            if kind == b"moov":
                return file.read(min(size, left))
            left -= size
            if size < 8 or left < 0:  # it is another kind of file, or cut off
                break
            file.seek(size, 1)
    return b""


def _has_aperture(data: bytes) -> bool:
    for start, stop in _nested(data, 0, len(data), _SAMPLE_ENTRY):
        for _, first, last in boxes(data, start + 8, stop):
            size = struct.unpack_from(">HH", data, first + 24)
            for kind, inner, _ in boxes(data, first + _FIELDS, last):
                if kind == b"clap":
                    wide, across, high, down = struct.unpack_from(">4I", data, inner)
                    return (wide, high) != (size[0] * across, size[1] * down)
    return False


def _nested(
    data: bytes, start: int, stop: int, path: tuple[bytes, ...]
) -> Iterator[tuple[int, int]]:
    for kind, first, last in boxes(data, start, stop):
        if kind == path[0]:
            yield from _nested(data, first, last, path[1:]) if path[1:] else [(first, last)]


def _crops(data: bytes) -> bool:
    places = [(0, len(data))]
    for wanted in _VIDEO:
        places = [
            (first, last)
            for place in places
            for kind, first, last in _elements(data, *place)
            if kind == wanted
        ]
    return any(
        kind in _CROPPED and any(data[first:last])
        for place in places
        for kind, first, last in _elements(data, *place)
    )


def _elements(data: bytes, place: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield identifier, start and end of the content of each EBML element (RFC 8794)."""
    while place < stop:
        length = 9 - data[place].bit_length()
        kind, place = data[place : place + length], place + length
        length = 9 - data[place].bit_length()
        number = int.from_bytes(data[place : place + length], "big") & (1 << 7 * length) - 1
        place += length
        last = stop if number == (1 << 7 * length) - 1 else min(place + number, stop)
        yield kind, place, last
        place = last
