"""Copies EXIF, XMP, IPTC and text to the new file, updated for the restored picture.

libvips writes only pixels and profile: its EXIF passes through libexif, which loses unknown tags
and blocks over 64 kB, and it truncates IPTC in TIFF.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from restore_cli.image.embedding import DEFAULT_DPI
from restore_cli.image.exif import (
    Tags,
    dots_per_inch,
    edit_exif,
    orientation_of,
    resolution_block,
    scaled_geo,
)
from restore_cli.image.format_spec import Format
from restore_cli.image.geometry import GeometryChange
from restore_cli.image.inventory import take_inventory
from restore_cli.image.provenance import add_to_packet
from restore_cli.image.raw_metadata import Metadata
from restore_cli.image.xmp import Packet, edited_packet, is_private_property

MM_PER_INCH = 25.4
_KEEP_PROFILE = 8  # VipsForeignKeep
_MAX_DPI = 1e6


def read_metadata(header: Any, content: bytes, data: bytes, kind: Format) -> Metadata:
    """Read the metadata of a file of a format with the content `data`.

    `header` is a libvips image, not decoded. `content` is what libvips reads: the file, or a PNG if
    libvips cannot read it.
    """
    found = Metadata()
    kind.read_metadata(found, content, data)
    found.inventory = take_inventory(data, kind.key, found)
    orientation = kind.orientation(data, found.exif)
    dpi = header.xres * MM_PER_INCH, header.yres * MM_PER_INCH
    if kind.exif_resolution:
        dpi = dots_per_inch(found.exif or b"")
    elif not header.get_typeof("resolution-unit") and abs(header.xres - 1) < 1e-6:
        dpi = (0, 0)  # unknown
    # Others cannot be real, and libvips and EXIF could not hold them.
    real = all(0 < dots <= _MAX_DPI for dots in dpi)
    found.dpi = dpi if real and not found.aspect else None
    size = (header.height, header.width)
    if max(orientation, orientation_of(found.exif)) >= 5:  # the pixels will be turned, or have been
        found.dpi = found.dpi and found.dpi[::-1]
        size = size[::-1] if kind.upright else size
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
    kind: Format,
    *,
    level: str,
    height: int,
    width: int,
) -> tuple[Metadata, Packet | None]:
    """Return the metadata and the XMP of a restored picture of `height` x `width`.

    `provenance` says how it was made; see `add_to_packet`. `kind` is the format of the output.
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
    if block is None and metadata.dpi and kind.exif_resolution:
        block = resolution_block(*metadata.dpi)
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
    image: Any, metadata: Metadata, kind: Format, packet: Packet | None
) -> tuple[Any, int]:
    """Attach to a libvips image what it writes itself: the resolution; also return save flags.

    `metadata` is the result of `update_metadata`, and `kind` the format of the output.
    """
    dpi = metadata.dpi or DEFAULT_DPI
    image = image.copy(xres=dpi[0] / MM_PER_INCH, yres=dpi[1] / MM_PER_INCH)
    return image, _KEEP_PROFILE | kind.attach(image, metadata, packet)
