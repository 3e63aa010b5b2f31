"""png: the third edition of the standard."""

from __future__ import annotations

import struct
import zlib
from functools import partial
from io import BytesIO
from typing import Any

from restore_cli.image.colour_signalling import (
    AS_SRGB,
    BT709,
    NEAR,
    SRGB,
    ColourSignalling,
    checked_gamma,
    is_bt709,
    of_numbers,
)
from restore_cli.image.containers import png_chunk, png_chunks, png_end, png_text
from restore_cli.image.embedding import insert, whole_ratio
from restore_cli.image.format_spec import Format, Item, begins_with
from restore_cli.image.iptc import PHOTOSHOP, split_photoshop
from restore_cli.image.matrix_profile import make_profile
from restore_cli.image.raw_metadata import Metadata, RawMetadata, density
from restore_cli.image.vips import field_of, load_with_vips, save_with_vips
from restore_cli.image.xmp import XMP_HEADER, XMP_KEYWORD, Packet

_TEXT = 1 << 24  # most bytes of a decompressed text


# Chunks of PNG that are pixels, or that other entries describe.
_PNG = frozenset(
    b"IHDR PLTE IDAT IEND tRNS tEXt zTXt iTXt eXIf iCCP gAMA cHRM sRGB cICP pHYs".split()
) | {b"sBIT", b"hIST", b"acTL", b"fcTL"}


_COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI")
_SRGB_GAMMA = 0.45455
_UNSPECIFIED = 2  # primaries or transfer


def read_metadata(parts: RawMetadata, data: bytes, _: bytes) -> None:
    """Read the metadata of a PNG, or of another file that was converted to one."""
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


def _colours(
    data: bytes, exif: bytes | None, *, grey: bool, with_profile: bool
) -> ColourSignalling:
    found: dict[bytes, bytes] = {}
    for kind, body in png_chunks(data):
        if kind == b"IDAT":
            break
        if kind in _COLOUR_CHUNKS:
            found.setdefault(kind, body)
    chunks = tuple(found.items())
    if len(numbers := found.get(b"cICP", b"")) == 4:
        primaries, transfer, matrix, full = numbers
        meaning = of_numbers((primaries, transfer, matrix, full), grey=grey, with_profile=False)
        if meaning.hdr is not None or not with_profile:
            narrow = "its cICP states narrow range; its values were taken as full range"
            note = meaning.note or ("" if full or meaning.hdr else narrow)
            return ColourSignalling(meaning.profile, meaning.hdr, chunks, note)
        if not meaning.note and _UNSPECIFIED not in (primaries, transfer):  # it takes precedence
            srgb = make_profile("sRGB", BT709, SRGB, grey=grey)
            return ColourSignalling(meaning.profile or srgb, chunks=chunks)
    if with_profile or b"sRGB" in found:
        return ColourSignalling(chunks=chunks)
    try:
        profile = _of_gamma(found.get(b"gAMA"), found.get(b"cHRM"), grey=grey)
    except (ValueError, ZeroDivisionError, struct.error):
        return ColourSignalling(note=f"its gAMA and cHRM are invalid{AS_SRGB}")
    return ColourSignalling(profile, chunks=chunks)


def _of_gamma(gamma: bytes | None, chromaticities: bytes | None, *, grey: bool) -> bytes | None:
    """Convert gAMA and cHRM (PNG 11.3.2.1 and 11.3.2.2) to a profile; None for sRGB."""
    primaries, curve = BT709, SRGB
    near = True
    if chromaticities is not None and not grey:
        numbers = [n / 100_000 for n in struct.unpack(">8I", chromaticities)]
        x = list(zip(numbers[::2], numbers[1::2], strict=True))
        primaries = (x[0], x[1], x[2], x[3])
        near = is_bt709(primaries)
    if gamma is not None:
        value = struct.unpack(">I", gamma)[0] / 100_000
        if abs(checked_gamma(value) - _SRGB_GAMMA) > NEAR or not near:
            return make_profile(f"gamma {1 / value:.4g}", primaries, (1 / value,), grey=grey)
    return None if near else make_profile("chromaticities of cHRM", primaries, curve, grey=grey)


def _embed(file: BytesIO, metadata: Metadata, packet: Packet | None) -> None:
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
        across, down = whole_ratio(metadata.aspect, 2**31 - 1)
        ours = png_chunk(b"pHYs", struct.pack(">IIB", across, down, 0))
        insert(file, place, ours, len(theirs))
    insert(file, head, b"".join(chunks))


def _frames(data: bytes) -> int:
    """Return the number of frames that the acTL chunk of a PNG states before its pixels, or 1."""
    for kind, body in png_chunks(data):
        if kind in (b"acTL", b"IDAT"):
            return int.from_bytes(body[:4], "big") if kind == b"acTL" else 1
    return 1


def _inventory(data: bytes, _: RawMetadata) -> set[Item]:
    kinds = {kind for kind, _ in png_chunks(data)}
    return {("chunks", kind.decode("latin-1")) for kind in kinds - _PNG}


def _save(
    file: BytesIO, image: Any, keep: int, quality: int | None, lossless: bool, depth: int
) -> None:
    # Eight enlarged photos of 1280x704: 43 ms and 1.14 MB each; unfiltered 60 ms and 1.98 MB;
    # with paeth 54 ms and 1.06 MB, and at zlib's own level, 6, 140 ms and 0.97 MB.
    save_with_vips("png", file, image, keep=keep, compression=2, filter="up")


FORMAT = Format(
    name="PNG",
    recognise=begins_with(b"\x89PNG\r\n\x1a\n"),
    suffixes=(".png",),
    load=partial(load_with_vips, "png"),
    frames=lambda image, data: max(field_of(image, "n-pages", 1), _frames(data)),
    ends_early=lambda data: all(kind != b"IEND" for kind, _ in png_chunks(data)),
    stores_profile=lambda data: any(kind == b"iCCP" for kind, _ in png_chunks(data)),
    read_metadata=read_metadata,
    colours=_colours,
    inventory=_inventory,
    end=png_end,
    save=_save,
    embed=_embed,
    depth=16,
    alpha=True,
    colour_chunks=True,
    has_quality=False,
    least_bytes=0.09,
)
