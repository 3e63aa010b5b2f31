"""IPTC records, and Photoshop's resource blocks, which contain them in JPEGs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

PHOTOSHOP = b"Photoshop 3.0\0"
RECORDS = 0x0404  # the resource that holds IPTC's plain records
# Resolution, previews, ICC, EXIF, XMP and digests: stored elsewhere, or no longer valid.
_TOLD_ELSEWHERE = frozenset({0x03ED, 0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424, 0x0425})
_SEGMENT = 65_000
_OURS = b"8BIM"
_SIGNATURES = (_OURS, b"MeSa", b"AgHg", b"PHUT", b"DCSR")  # of Adobe's programs


class Resource(NamedTuple):
    """One of Photoshop's image resources."""

    number: int
    content: bytes
    signature: bytes = _OURS


def resources(block: bytes) -> Iterator[Resource]:
    """Yield Photoshop's image resources, without truncated ones."""
    place = 0
    while (signature := block[place : place + 4]) in _SIGNATURES and place + 12 <= len(block):
        (number,) = struct.unpack_from(">H", block, place + 4)
        named = place + 6 + (block[place + 6] + 2) // 2 * 2
        size = int.from_bytes(block[named : named + 4], "big")
        content = block[named + 4 : named + 4 + size]
        if len(content) < size:
            return
        yield Resource(number, content, signature)
        place = named + 4 + size + size % 2


def split_photoshop(block: bytes) -> tuple[bytes | None, tuple[Resource, ...]]:
    """Return the IPTC records, and the other resources that are valid for a restored picture."""
    found = list(resources(block))
    own = [one for one in found if one.signature == _OURS]
    records = join_records(*(one.content for one in own if one.number == RECORDS))
    elsewhere = [one for one in own if one.number == RECORDS or one.number in _TOLD_ELSEWHERE]
    return records, tuple(one for one in found if one not in elsewhere)


def join_photoshop(records: bytes | None, others: Iterable[Resource]) -> bytes:
    """Invert `split_photoshop`; empty if there is nothing to write."""
    held = ([Resource(RECORDS, records)] if records else []) + list(others)
    return b"".join(
        signature + struct.pack(">HHI", number, 0, len(content)) + content + bytes(len(content) % 2)
        for number, content, signature in held
    )


def photoshop_segments(block: bytes) -> Iterator[bytes]:
    """Split a block into pieces that fit into the segments of a JPEG."""
    for start in range(0, len(block), _SEGMENT):
        yield PHOTOSHOP + block[start : start + _SEGMENT]


def iptc_datasets(records: bytes) -> dict[str, bytes]:
    """Return values by number, e.g. 2:120 for the caption; repeated values are joined."""
    found: dict[str, bytes] = {}
    for name, value, _ in _datasets(records):
        found[name] = found.get(name, b"") + value + b"\0"
    return found


def join_records(*blocks: bytes) -> bytes | None:
    """Return the records of all blocks, without those that are in a block before; None if none."""
    filled = [block for block in blocks if block]
    if len(filled) < 2:
        return filled[0] if filled else None
    datasets = dict.fromkeys(one for block in filled for one in _datasets(block))
    return b"".join(raw for *_, raw in datasets)


def _datasets(records: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield number, value and the whole of each data set."""
    place = 0
    while place + 5 <= len(records) and records[place] == 0x1C:
        size = int.from_bytes(records[place + 3 : place + 5], "big")
        start = place + 5
        if size & 0x8000:
            more = size & 0x7FFF
            size = int.from_bytes(records[start : start + more], "big")
            start += more
        name = f"{records[place + 1]}:{records[place + 2]:03d}"
        yield name, records[start : start + size], records[place : start + size]
        place = start + size
