"""What AVIF and HEIC have in common: boxes, items and their properties."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from restore_cli.image.colour_signalling import AS_SRGB, ColourSignalling, of_numbers
from restore_cli.image.containers import ZEROS, Heif, boxes, read_heif
from restore_cli.image.format_spec import Item
from restore_cli.image.raw_metadata import RawMetadata, density
from restore_cli.image.vips import field_of

_BRANDS = {b"avif": "avif", b"avis": "avif"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "heic"
)
_HEIF = frozenset((b"ftyp", b"meta", b"mdat", b"free", b"skip", b"moov", b"mpvd"))
_MASKS = {b"hdrgainmap": "a gain map", b"gainmap": "a gain map", b"depth": "a depth map"}


def _brightness(heif: Heif) -> tuple[tuple[bytes, bytes], ...]:
    """Return the chunks of PNG (11.3.2.7 and 11.3.2.8) for mdcv and clli of a HEIC or AVIF."""
    chunks = []
    for body in heif.of_primary(b"mdcv"):
        if len(body) == 24:  # green, blue and red, where a PNG has red, green and blue
            chunks.append((b"mDCV", body[8:12] + body[:8] + body[12:]))
    for body in heif.of_primary(b"clli"):
        if len(body) == 4:  # cd/m2, where a PNG has 0.0001 cd/m2
            levels = (10_000 * n for n in struct.unpack(">HH", body))
            chunks.append((b"cLLI", struct.pack(">II", *levels)))
    return tuple(chunks)


def inventory(data: bytes, parts: RawMetadata) -> Iterable[Item]:
    """Yield masks, gain maps, videos and unknown boxes."""
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


def brand(head: bytes) -> str:
    """Return "avif" or "heic" by the first bytes of a file; "" if it is neither."""
    if head[4:8] != b"ftyp":
        return ""
    # The major brand may be generic; the specific one is then among the compatible brands.
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[n : n + 4] for n in range(16, end, 4))]
    known = [_BRANDS[one] for one in brands if one in _BRANDS]
    return "avif" if "avif" in known else "".join(known[:1])


def has_more(image: Any, data: bytes) -> bool:
    """Whether a file has other pictures than the primary one."""
    animated = field_of(image, "n-pages", 1) > 1 or data[8:12] == b"avis"
    return animated or len(read_heif(data).pictures()) > 1


def orientation(data: bytes, _: bytes | None) -> int:
    """Return the EXIF orientation that equals the rotation; see `Heif.orientation`."""
    return read_heif(data).orientation


def read_aspect(parts: RawMetadata, data: bytes) -> None:
    """Read width and height of a pixel."""
    for shape in read_heif(data).of_primary(b"pasp"):
        parts.aspect = density(*struct.unpack(">II", shape[:8].ljust(8, b"\0"))[::-1])


def ends_early(data: bytes) -> bool:
    """Whether the pictures end in zeros."""
    return any(kind == b"mdat" and data[a:b].endswith(ZEROS) for kind, a, b in boxes(data))


def end(data: bytes) -> int:
    """Return the end of the last box."""
    return max((stop for _, _, stop in boxes(data)), default=len(data))


def colours(data: bytes, exif: bytes | None, *, grey: bool, with_profile: bool) -> ColourSignalling:
    """Read the colours that nclx states."""
    heif = read_heif(data)
    for body in heif.of_primary(b"colr"):
        if body[:4] == b"nclx" and len(body) >= 11:
            numbers = (*struct.unpack(">HHH", body[4:10]), body[10] >> 7)
            meaning = of_numbers(numbers, grey=grey, with_profile=with_profile)
            return replace(meaning, chunks=_brightness(heif)) if meaning.hdr else meaning
    if heif.of_primary(b"colr") or with_profile:
        return ColourSignalling()
    return ColourSignalling(note=f"its container does not state its colours{AS_SRGB}")
