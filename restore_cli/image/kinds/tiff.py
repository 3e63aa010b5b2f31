"""tiff: TIFF 6.0, BigTIFF and GeoTIFF; written lossless."""

from __future__ import annotations

import struct
from dataclasses import replace
from io import BytesIO
from typing import Any

from PIL.ExifTags import Base

from restore_cli.errors import PictureError
from restore_cli.image.colour_signalling import (
    AS_SRGB,
    D65,
    SRGB,
    ColourSignalling,
    Primaries,
    adobe_rgb,
    is_bt709,
)
from restore_cli.image.containers import first_directory, tiff_directories
from restore_cli.image.embedding import whole_ratio
from restore_cli.image.exif import (
    Tags,
    add_to_tiff,
    build_exif,
    dots_per_inch,
    geo_tags,
    orientation_of,
    tag_names,
    tags_of,
)
from restore_cli.image.format_spec import Format, Item, begins_with
from restore_cli.image.iptc import (
    PHOTOSHOP,
    RECORDS,
    Resource,
    iptc_datasets,
    join_photoshop,
    split_photoshop,
)
from restore_cli.image.matrix_profile import make_profile
from restore_cli.image.raw import is_lab, is_ycbcr, reduced_copies, tiff_notes
from restore_cli.image.raw_metadata import Metadata, RawMetadata, density
from restore_cli.image.vips import field_of, load_with_vips, save_with_vips
from restore_cli.image.xmp import Packet

_MULTIPLIED, _UNMULTIPLIED = 1, 2  # kinds of alpha in ExtraSamples


def _load(data: bytes, name: str, max_pixels: int, **options: Any) -> tuple[Any, bytes]:
    if is_lab(data):
        raise PictureError(f"'{name}' stores CIELab", hint="convert it to RGB first")
    first = first_directory(data)
    if Base.TileOffsets in first.tags:  # libvips only warns of tiles that it cannot read
        options["fail_on"] = "warning"
    readable, multiplied = data, first.integer(Base.ExtraSamples) == _MULTIPLIED
    if multiplied:  # libvips would divide by alpha, and truncate
        readable = first.changed(Base.ExtraSamples, _UNMULTIPLIED)
    if not 1 <= first.integer(Base.Orientation, 1) <= 8:  # some programs write 0
        readable = replace(first, data=readable).changed(Base.Orientation, 1)
    image, _ = load_with_vips("tiff", readable, name, max_pixels, **options)
    if multiplied and image.hasalpha() and image.format in ("uchar", "ushort"):
        plain = image.unpremultiply(max_alpha=255 if image.format == "uchar" else 65535)
        image = plain.rint().cast(image.format).copy(interpretation=image.interpretation)
    if image.bands == 4 and is_ycbcr(data):
        image = image.extract_band(0, n=3)  # libtiff adds an opaque channel
    elif is_ycbcr(data):
        raise PictureError(f"'{name}' stores plain YCbCr", hint="save it as RGB")
    if first.integer(Base.ResolutionUnit, 2) == 1:
        # There is no unit, which libvips takes for millimetres.
        image = image.copy(xres=1, yres=1)
        image.remove("resolution-unit")
    return image, data


def _read_metadata(parts: RawMetadata, data: bytes, _: bytes) -> None:
    directories = tiff_directories(data)
    if not directories:
        return
    first = directories[0]
    if tags := tags_of(data):
        parts.exif = build_exif(tags)
    parts.xmp = first.value(Base.XMLPacket) or None
    more, parts.photoshop = split_photoshop(first.value(Base.ImageResources))
    records = first.value(Base.IPTCNAA)
    if records[3:4] == b"\x1c" != records[:1]:  # long integers of a program with swapped bytes
        records = b"".join(records[n : n + 4][::-1] for n in range(0, len(records), 4))
    if not records.startswith(b"\x1c"):  # some programs store Photoshop's block there
        records = split_photoshop(records.removeprefix(PHOTOSHOP))[0] or records
    parts.iptc = records or more
    if records and more and not iptc_datasets(more).items() <= iptc_datasets(records).items():
        parts.photoshop += (Resource(RECORDS, more),)  # another program's, perhaps outdated
    parts.geo = geo_tags(data)
    parts.dots = max(dots_per_inch(data)) or None
    if first.integer(Base.ResolutionUnit, 2) == 1:
        parts.aspect = density(
            *(first.number(tag) or 0 for tag in (Base.XResolution, Base.YResolution))
        )


def _chromaticities(data: bytes, grey: bool) -> ColourSignalling:
    """Convert WhitePoint and PrimaryChromaticities (TIFF 6.0, section 20) to a profile."""
    tags = first_directory(data)
    numbers = [*(tags.numbers(Base.WhitePoint) or D65), *tags.numbers(Base.PrimaryChromaticities)]
    if grey or len(numbers) == 2:
        return ColourSignalling()
    try:
        x, y = [n or 0.0 for n in numbers[::2]], [n or 0.0 for n in numbers[1::2]]
        white, red, green, blue = zip(x, y, strict=True)
        primaries: Primaries = (white, red, green, blue)
        profile = make_profile("chromaticities of the TIFF", primaries, SRGB)
    except ValueError:
        return ColourSignalling(
            note=f"its WhitePoint and PrimaryChromaticities are invalid{AS_SRGB}"
        )
    return ColourSignalling(None if is_bt709(primaries) else profile)


def _embed(file: BytesIO, metadata: Metadata, packet: Packet | None) -> None:
    tags: Tags = tags_of(metadata.exif) if metadata.exif is not None else {}
    tags |= metadata.geo
    if packet is not None:
        tags[Base.XMLPacket] = (1, packet.packet())
    if metadata.iptc is not None:
        tags[Base.IPTCNAA] = (7, metadata.iptc + bytes(-len(metadata.iptc) % 4))
    if metadata.photoshop:
        tags[Base.ImageResources] = (1, join_photoshop(None, metadata.photoshop))
    if metadata.aspect is not None:
        across, down = whole_ratio(metadata.aspect, 2**31)
        tags |= {
            Base.XResolution: (5, struct.pack("<II", across, 1)),
            Base.YResolution: (5, struct.pack("<II", down, 1)),
            Base.ResolutionUnit: (3, struct.pack("<H", 1)),
        }
    if tags:
        add_to_tiff(file, tags)


def _colours(
    data: bytes, exif: bytes | None, *, grey: bool, with_profile: bool
) -> ColourSignalling:
    if with_profile:
        return ColourSignalling()
    stated = adobe_rgb(data, data, grey=grey, with_profile=False)
    return stated if stated.profile else _chromaticities(data, grey)


def _inventory(data: bytes, _: RawMetadata) -> set[Item]:
    # Its metadata lack maker notes, whose offsets would be wrong.
    return {("EXIF", name) for name in tag_names(tiff_directories(data))}


def _save(
    file: BytesIO, image: Any, keep: int, quality: int | None, lossless: bool, depth: int
) -> None:
    big = image.width * image.height * image.bands * depth // 8 > 3_900_000_000
    options = {"compression": "deflate", "predictor": "horizontal", "bigtiff": big}
    save_with_vips("tiff", file, image, keep=keep, **options)


FORMAT = Format(
    name="TIFF",
    recognise=begins_with(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    suffixes=(".tif", ".tiff"),
    load=_load,
    orientation=lambda data, _: orientation_of(data),
    frames=lambda image, data: field_of(image, "n-pages", 1) - reduced_copies(data),
    read_metadata=_read_metadata,
    colours=_colours,
    notes=tiff_notes,
    inventory=_inventory,
    save=_save,
    embed=_embed,
    depth=16,
    alpha=True,
    cmyk=True,
    has_quality=False,
    least_bytes=0.09,
)
