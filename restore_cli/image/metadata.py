"""EXIF, XMP, IPTC and text: what is kept from one file for another."""

from __future__ import annotations

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image as Pillow

from restore_cli.image.containers import png_chunk
from restore_cli.image.picture import Metadata
from restore_cli.image.vips import INTEGER, TEXT, VipsError

_EXIF, _XMP, _IPTC, _PHOTOSHOP = "exif-data", "xmp-data", "iptc-data", "photoshop-data"
_COMMENT = "png-comment-"
_PNG_XMP = "XML:com.adobe.xmp"
_ORIENTATION = "exif-ifd0-Orientation"
MM_PER_INCH = 25.4
# What Pillow raises on headers that somebody bent on purpose.
_BROKEN = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, EOFError),
    *(ArithmeticError, RuntimeError, struct.error),
)
_TIFF_TAGS = {
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    33432: "Copyright",
}
_KEEP = {_EXIF: 1, _XMP: 2, _IPTC: 4, "icc": 8, "other": 16}  # VipsForeignKeep


def read_metadata(header: Any, data: bytes, key: str) -> tuple[Metadata, tuple[str, ...]]:
    """What a file says besides pixels, and notes on what cannot be kept.

    Args:
        header: libvips image, not decoded.
        data: the file's bytes.
        key: its format.
    """
    names = header.get_fields()
    notes: list[str] = []
    fields: list[tuple[str, int, Any]] = []
    text: list[tuple[str, str]] = []
    for name in names:
        kept = name.startswith(("exif-", "iptc-")) or name in (_XMP, _PHOTOSHOP)
        if not kept or name == _ORIENTATION:
            continue
        try:
            value = header.get(name)
        except (UnicodeDecodeError, VipsError):
            notes.append(f"its {name} cannot be read and was left out")
            continue
        fields.append((name, header.get_typeof(name), _upright(name, value)))
    if key == "tiff":
        fields += _tiff_tags(data)
    profile = header.get("icc-profile-data") if "icc-profile-data" in names else None
    if any(name.startswith(_COMMENT) for name in names):
        text = _png_text(data)
    comment = _jpeg_comment(data) if key == "jpeg" else None
    metadata = Metadata(
        tuple(fields), profile, _dpi(header, names), text=tuple(text), comment=comment
    )
    return metadata, tuple(notes)


def attach(image: Any, metadata: Metadata, *, level: str, xmp: bool) -> tuple[Any, int]:
    """A copy of a libvips image that carries the metadata, and what of it is to be saved.

    Args:
        image: to be saved.
        metadata: to be kept.
        level: "all"; "safe" for all but the embedded preview, which shows the picture as it was;
            "none".
        xmp: whether libvips writes it; else `png_text` does.

    Returns:
        The copy, and libvips' flags for saving.
    """
    dpi = metadata.dpi or (72.0, 72.0)  # libvips writes some number in any case; viewers assume 72
    image = image.copy(xres=dpi[0] / MM_PER_INCH, yres=dpi[1] / MM_PER_INCH)
    flags = _KEEP["icc"]
    if level == "none":
        return image, flags
    for name, kind, value in metadata.fields:
        if name == _XMP and not xmp:
            continue
        kept = _without_preview(value) if name == _EXIF and level == "safe" else value
        if kept is not None:
            image.set_type(kind, name, kept)
        if name == _EXIF:
            image.set_type(INTEGER, "orientation", 1)
        if name in (_XMP, _IPTC):
            flags |= _KEEP[name]
        if name.startswith("exif-"):
            flags |= _KEEP[_EXIF]
    if any(name == _PHOTOSHOP for name, _, _ in metadata.fields):
        flags |= _KEEP["other"]
    return image, flags


def png_text(data: bytes, metadata: Metadata) -> bytes:
    """A PNG with text and XMP after its header.

    libvips writes UTF-8 into chunks that are Latin-1 by the PNG specification (11.3.3.2); iTXt
    (11.3.3.4) is the one for UTF-8, and the only one in which other programs look for XMP.
    """
    head = 8 + 25  # signature, IHDR
    said = dict(metadata.colour)
    if metadata.hdr is not None:  # PNG is RGB of full range
        said[b"cICP"] = bytes([*metadata.hdr[:2], 0, 1])
    colour = b"".join(png_chunk(kind, body) for kind, body in said.items())
    text = [(key, value.encode()) for key, value in metadata.text]
    text += [(_PNG_XMP, bytes(value)) for name, _, value in metadata.fields if name == _XMP]
    chunks = b"".join(png_chunk(b"iTXt", _itxt(key, value)) for key, value in text)
    return data[:head] + colour + chunks + data[head:]


def jpeg_comment(data: bytes, comment: bytes) -> bytes:
    """A JPEG with a comment behind its first marker segment; libvips does not write any."""
    if data[2:4] not in (b"\xff\xe0", b"\xff\xe1"):
        first = 2
    else:
        first = 4 + int.from_bytes(data[4:6], "big")
    segment = b"\xff\xfe" + struct.pack(">H", min(len(comment), 65_533) + 2) + comment[:65_533]
    return data[:first] + segment + data[first:]


def _upright(name: str, value: Any) -> Any:
    """XMP repeats the orientation, and some viewers believe it rather than EXIF."""
    if name != _XMP:
        return value
    return re.sub(rb'(tiff:Orientation(?:="|>))[2-8]', rb"\g<1>1", value)


def _without_preview(exif: bytes) -> bytes | None:
    """EXIF that ends after its first directory: the second holds the preview. None if it is broken.

    Nothing else is touched: to write it anew would cost text that is not ASCII.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, start + 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start + first)
        place = start + first + 2 + 12 * count
        struct.unpack_from(f"{order}I", exif, place)
    except struct.error:
        return None
    return exif[:place] + bytes(4) + exif[place + 4 :]


def _dpi(header: Any, names: list[str]) -> tuple[float, float] | None:
    unknown = "resolution-unit" not in names and abs(header.xres - 1) < 1e-6
    if unknown or header.xres <= 0:
        return None
    return header.xres * MM_PER_INCH, header.yres * MM_PER_INCH


def _tiff_tags(data: bytes) -> list[tuple[str, int, Any]]:
    """Who took a TIFF, with what and when, by Pillow, as EXIF for other formats."""
    try:
        with _by_pillow(data, "TIFF") as image:
            tags = image.getexif()
            found = {name: tags.get(tag) for tag, name in _TIFF_TAGS.items()}
    except _BROKEN:
        return []
    return [
        (f"exif-ifd0-{name}", TEXT, f"{value} ({value}, ASCII, 1 components, 1 bytes)")
        for name, value in found.items()
        if isinstance(value, str) and value.strip("\0 ")
    ]


def lost(metadata: Metadata, key: str) -> list[str]:
    """What of the metadata a format has no place for, as notes."""
    names = {name for name, _, _ in metadata.fields}
    notes = []
    if key == "tiff" and any(name.startswith("exif-") for name in names):
        notes.append("its EXIF data were left out: they are not written into TIFF")
    if key not in ("jpeg", "tiff") and _IPTC in names:
        notes.append(f"its IPTC data were left out: {key} has no place for them")
    if key != "png" and metadata.text:
        notes.append(f"its text was left out: {key} has no place for it")
    if key != "jpeg" and metadata.comment:
        notes.append(f"its comment was left out: {key} has no place for it")
    return notes


@contextmanager
def _by_pillow(data: bytes, kind: str) -> Iterator[Any]:
    """The header of a picture as Pillow reads it, without its warnings on what is broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Pillow.open(io.BytesIO(data), formats=(kind,)) as image:
            yield image


def _png_text(data: bytes) -> list[tuple[str, str]]:
    """By Pillow, since libvips takes Latin-1 chunks for UTF-8; XMP comes another way."""
    try:
        with _by_pillow(data, "PNG") as image:
            # `.text` would decode the pixels first.
            found = dict(image.png.im_text)
    except _BROKEN:
        return []
    return [(str(k), str(v)) for k, v in found.items() if k != _PNG_XMP]


def _jpeg_comment(data: bytes) -> bytes | None:
    try:
        with _by_pillow(data, "JPEG") as image:
            comment = image.info.get("comment")
    except _BROKEN:
        return None
    return comment if isinstance(comment, bytes) else None


def _itxt(key: str, value: bytes) -> bytes:
    """Keyword, no compression, no language, no translation, text."""
    return key.encode("latin-1", "replace")[:79] + b"\0\0\0\0\0" + value
