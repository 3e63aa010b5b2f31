"""webp: lossless unless a quality is chosen."""

from __future__ import annotations

import struct
from functools import partial
from io import BytesIO
from typing import Any

from restore_cli.image.containers import ZEROS, riff_chunks
from restore_cli.image.exif import dots_per_inch
from restore_cli.image.format_spec import Format, Item
from restore_cli.image.raw_metadata import Metadata, RawMetadata
from restore_cli.image.vips import load_with_vips, save_with_vips
from restore_cli.image.xmp import Packet

_WEBP = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"EXIF", b"XMP "))


def _read_metadata(parts: RawMetadata, data: bytes, _: bytes) -> None:
    for kind, body in riff_chunks(data):
        if kind == b"EXIF" and parts.exif is None:
            parts.exif = body.removeprefix(b"Exif\0\0")
            parts.dots = max(dots_per_inch(parts.exif)) or None
        elif kind == b"XMP ":
            parts.xmp = body


def _embed(file: BytesIO, metadata: Metadata, packet: Packet | None) -> None:
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


def _save(
    file: BytesIO, image: Any, keep: int, quality: int | None, lossless: bool, depth: int
) -> None:
    lossy = quality is not None and not lossless
    options = {"Q": quality, "effort": 4} if lossy else {"lossless": True, "exact": True}
    save_with_vips("webp", file, image, keep=keep, **options)


def _inventory(data: bytes, _: RawMetadata) -> set[Item]:
    kinds = {kind for kind, _ in riff_chunks(data)}
    return {("chunks", kind.decode("latin-1").strip()) for kind in kinds - _WEBP}


def _ends_early(data: bytes) -> bool:
    return any(k in (b"VP8 ", b"VP8L") and body.endswith(ZEROS) for k, body in riff_chunks(data))


FORMAT = Format(
    name="WebP",
    recognise=lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    suffixes=(".webp",),
    load=partial(load_with_vips, "webp"),
    shrink=lambda factor: {"scale": 1 / factor},
    ends_early=_ends_early,
    read_metadata=_read_metadata,
    exif_resolution=True,
    inventory=_inventory,
    end=lambda data: 8 + int.from_bytes(data[4:8], "little"),
    save=_save,
    embed=_embed,
    longest_side=16_383,
    alpha=True,
    grey=False,
    least_bytes=0.06,
)
