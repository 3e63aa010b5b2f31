"""avif: 8, 10 and 12 bits."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import Any

from restore_cli.image import heif
from restore_cli.image.containers import jpeg_segment, read_heif
from restore_cli.image.embedding import EXIF_ROOM, fitting_exif
from restore_cli.image.exif import dots_per_inch
from restore_cli.image.format_spec import Format
from restore_cli.image.raw_metadata import BROKEN, Metadata, RawMetadata, open_with_pillow
from restore_cli.image.vips import (
    BLOB,
    INTEGER,
    VipsError,
    VipsImage,
    field_of,
    load_with_vips,
    save_with_vips,
)
from restore_cli.image.xmp import Packet

AVIF_QUALITY = 90
_KEEP_EXIF, _KEEP_XMP = 1, 2  # VipsForeignKeep


def _load(data: bytes, name: str, max_pixels: int, **options: Any) -> tuple[Any, bytes]:
    image, _ = load_with_vips("heif", data, name, max_pixels, **options)
    if image.hasalpha() and read_heif(data).is_premultiplied:
        low = 16 - field_of(image, "bits-per-sample", 16)  # so many bits of 16 are left at zero
        opaque = 255 if image.format == "uchar" else (2**16 - 1) >> low << low
        plain = image.unpremultiply(max_alpha=opaque)
        image = plain.rint().cast(image.format).copy(interpretation=image.interpretation)
    return image, data


def _read_metadata(parts: RawMetadata, data: bytes, _: bytes) -> None:
    heif.read_aspect(parts, data)
    with suppress(*BROKEN), open_with_pillow(data, "AVIF") as image:
        parts.exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0") or None
        parts.xmp = image.info.get("xmp")
        parts.dots = max(dots_per_inch(parts.exif or b"")) or None


def _attach_exif(image: Any, block: bytes) -> None:
    """Attach EXIF as libvips' fields: libvips writes only the tags that are fields as well."""
    block = fitting_exif(block)
    try:
        small = VipsImage.black(1, 1).jpegsave_buffer(keep=0)
        small = small[:2] + jpeg_segment(0xE1, b"Exif\0\0" + block[:EXIF_ROOM]) + small[2:]
        there = VipsImage.jpegload_buffer(small)
        for name in there.get_fields():
            if name.startswith("exif-"):
                image.set_type(there.get_typeof(name), name, there.get(name))
    except (VipsError, UnicodeDecodeError):
        return  # the loss shows in the inventories
    image.set_type(INTEGER, "orientation", 1)


def _attach(image: Any, metadata: Metadata, packet: Packet | None) -> int:
    if metadata.exif is not None:
        _attach_exif(image, metadata.exif)
    if packet is not None:
        image.set_type(BLOB, "xmp-data", packet.packet())
    return _KEEP_EXIF * (metadata.exif is not None) + _KEEP_XMP * (packet is not None)


def _save(
    file: BytesIO, image: Any, keep: int, quality: int | None, lossless: bool, depth: int
) -> None:
    if depth == 16:  # libvips would truncate the low bits, not round
        image = (image.linear(4095 / 65535, 0.5).cast("ushort") << 4).copy(
            interpretation=image.interpretation
        )
    options = {"compression": "av1", "subsample_mode": "off", "bitdepth": min(depth, 12)}
    options |= {"lossless": True} if lossless else {"Q": quality or AVIF_QUALITY}
    save_with_vips("heif", file, image, keep=keep, **options)


FORMAT = Format(
    name="AVIF",
    recognise=lambda head: heif.brand(head) == "avif",
    suffixes=(".avif",),
    load=_load,
    upright=True,
    orientation=heif.orientation,
    frames=lambda image, data: 1,
    has_more=heif.has_more,
    ends_early=heif.ends_early,
    read_metadata=_read_metadata,
    exif_resolution=True,
    colours=heif.colours,
    inventory=heif.inventory,
    end=heif.end,
    save=_save,
    attach=_attach,
    longest_side=16_384,
    depth=12,
    alpha=True,
    grey=False,
    least_bytes=0.009,
)
