"""Edits EXIF and TIFF tags in place, or builds new blocks; unknown tags are kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL.ExifTags import GPSTAGS, IFD, TAGS, Base

from restore_cli.image.containers import TYPE_SIZES, Directory, first_directory, tiff_directories
from restore_cli.image.geometry import GeometryChange

# Bytes of the units that are reversed if the byte order changes; rationals have two units.
_UNITS = TYPE_SIZES | {5: 4, 10: 4}
_UNCALIBRATED = 65535  # a ColorSpace
_DENSITIES = (Base.XResolution, Base.YResolution)  # pixels per unit
_SIDES = {  # width, height; of TIFF and of EXIF
    **{Base.ImageWidth: 0, Base.ImageLength: 1},
    **{Base.ExifImageWidth: 0, Base.ExifImageHeight: 1},
}
_INTEROP_SIDES = {Base.RelatedImageWidth: 0, Base.RelatedImageLength: 1}
_PLACES = (37396, 41492)  # SubjectArea and SubjectLocation, in pixels
# Owner's name and serial numbers, of EXIF 2.3, of DNG and of Adobe's converter.
_PRIVATE = frozenset(
    {
        *(Base.MakerNote, IFD.GPSInfo, Base.CameraOwnerName, Base.BodySerialNumber),
        *(Base.LensSerialNumber, Base.CameraSerialNumber, Base.RawDataUniqueID),
        *(65000, 65001, 65002),
    }
)
GEO_TAGS = {
    33550: "ModelPixelScale",
    33920: "IntergraphMatrix",
    33922: "ModelTiepoint",
    34264: "ModelTransformation",
    34735: "GeoKeyDirectory",
    34736: "GeoDoubleParams",
    34737: "GeoAsciiParams",
    42112: "GDAL_METADATA",
    42113: "GDAL_NODATA",
    50844: "RPCCoefficients",
}
_UNSCALED = (33920, 50844)  # of GEO_TAGS; they are left out
# Tags on the storage of pixels, and tags that are handled elsewhere; others describe the picture.
_STORAGE = frozenset(
    {
        *range(254, 260),
        *(262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284, 288, 289, 290, 291),
        *(292, 293, 296, 301, 317, 320, 321, 322, 323, 324, 325, 326, 327, 328, 330, 332),
        *(333, 334, 336, 338, 339, 340, 341, 342, 343, 344, 345, 346, 347, 512, 513, 514, 515),
        *(517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675, IFD.Exif),
        *(IFD.GPSInfo, IFD.Interop, 40962, 40963),
        37724,  # layers of Photoshop, which would be opened instead of the restored picture
        *GEO_TAGS,
    }
)

Tags = dict[int, Any]  # (type, bytes of the values), or the Tags of a subdirectory


def edit_exif(exif: bytes, *, level: str, change: GeometryChange) -> bytes | None:
    """Update an EXIF block for a restored picture; None if it is broken.

    The block begins with the byte order. `level` is "all", "standard" or "private"; see
    `writing.Encoding`. Values keep their offsets, so that maker notes, which point into the block,
    stay valid.
    """
    directories = tiff_directories(exif)
    if not directories or exif[2:4] not in (b"*\0", b"\0*"):
        return None
    block, order = bytearray(exif), directories[0].order
    removed = _PRIVATE if level == "private" else frozenset()
    # Programs for microscopes describe the size of the array and of its pixels.
    described = directories[0].value(Base.ImageDescription).lstrip()
    sized = described.startswith((b"ImageJ=", b'{"shape":')) or b"<OME" in described[:4096]
    resized = change.before not in (None, change.after)
    stale = frozenset({Base.ImageDescription} if sized and resized else ())
    previews = [one for one in directories[1:] if not one.parent_tag]
    gone = [] if level == "all" else list(previews)
    gone += [one for one in directories if one.parent_tag == IFD.GPSInfo and IFD.GPSInfo in removed]
    kept = [one for one in directories if one not in gone]
    _blank(block, gone, kept, removed)
    first = directories[0]
    turned = change.transposed or 5 <= first.integer(Base.Orientation) <= 8
    if turned and first.tags.keys() >= set(_DENSITIES):
        # The picture is turned: horizontal and vertical resolution change places.
        x, y = (first.tags[tag].entry_offset + 2 for tag in _DENSITIES)
        block[x : x + 10], block[y : y + 10] = block[y : y + 10], block[x : x + 10]
    for directory in kept:
        for tag, side in (
            _INTEROP_SIDES if directory.parent_tag == IFD.Interop else _SIDES
        ).items():
            if tag in directory.tags and directory not in previews:
                _set(block, directory, tag, 4, change.after[side])
        if Base.Orientation in directory.tags:
            _set(block, directory, Base.Orientation, 3, 1)
        _remove(block, directory, removed | stale | _move(block, directory, change))
    if level != "all":
        (count,) = struct.unpack_from(f"{order}H", block, first.offset)
        place = first.offset + 2 + 12 * count
        block[place : place + 4] = bytes(len(block[place : place + 4]))
    return bytes(block)


def _move(block: bytearray, directory: Directory, change: GeometryChange) -> frozenset[int]:
    """Convert positions to the restored picture; return the tags whose values do not fit."""
    unfit = set()
    for tag in directory.tags.keys() & _PLACES:
        found, values = directory.tags[tag], directory.integers(tag)
        if change.before is None or found.kind != 3 or not 2 <= len(values) <= 4:
            continue
        moved = list(change.point(*values[:2]))
        if len(values) == 3:  # a circle
            moved += [round(sum(change.extent(values[2], values[2])) / 2)]
        elif len(values) == 4:
            moved += change.extent(*values[2:])
        if all(0 <= value <= 0xFFFF for value in moved):
            struct.pack_into(f"{directory.order}{len(moved)}H", block, found.start, *moved)
        else:
            unfit.add(tag)
    return frozenset(unfit)


def _set(block: bytearray, directory: Directory, tag: int, kind: int, value: int) -> None:
    place = directory.tags[tag].entry_offset
    order = directory.order
    number = struct.pack(f"{order}HHI", tag, kind, 1)
    block[place : place + 12] = number + struct.pack(
        f"{order}{'H' if kind == 3 else 'I'}", value
    ).ljust(4, b"\0")


def _blank(
    block: bytearray, gone: list[Directory], kept: list[Directory], removed: frozenset[int]
) -> None:
    """Overwrite the values of directories, so that they cannot be recovered from the file.

    Some programs store equal values only once, so bytes shared with a kept tag are left alone.
    """
    before = bytes(block)
    spans = [(tag.start, tag.size) for one in gone for tag in one.tags.values()]
    spans += [(one.integer(Base.JpegIFOffset), one.integer(Base.JpegIFByteCount)) for one in gone]
    for span in _disjoint(spans):
        block[span] = bytes(len(block[span]))
    tags = [tag for one in kept for n, tag in one.tags.items() if n not in removed]
    spans = [(one.offset, 2) for one in kept] + [(tag.entry_offset, 12) for tag in tags]
    for span in _disjoint(spans + [(tag.start, tag.size) for tag in tags]):
        block[span] = before[span]


def _disjoint(spans: list[tuple[int, int]]) -> Iterator[slice]:
    """Yield every byte of spans (start and length) once, but not the header's.

    Hostile files have thousands of tags that share large values.
    """
    reach = 8
    for start, length in sorted(spans):
        if start + length > reach:
            yield slice(max(start, reach), start + length)
            reach = start + length


def _remove(block: bytearray, directory: Directory, removed: frozenset[int]) -> None:
    order = directory.order
    (count,) = struct.unpack_from(f"{order}H", block, directory.offset)
    first = directory.offset + 2
    entries = [bytes(block[first + 12 * n : first + 12 * n + 12]) for n in range(count)]
    kept = [
        e
        for e in entries
        if int.from_bytes(e[:2], "little" if order == "<" else "big") not in removed
    ]
    if len(kept) == count:
        return
    for tag in removed & directory.tags.keys():
        found = directory.tags[tag]
        block[found.start : found.start + found.size] = bytes(found.size)
    following = bytes(block[first + 12 * count : first + 12 * count + 4])
    whole = b"".join(kept) + following
    block[first : first + 12 * count + 4] = whole.ljust(12 * count + 4, b"\0")[: 12 * count + 4]
    struct.pack_into(f"{order}H", block, directory.offset, len(kept))


def is_private_tag(name: str) -> bool:
    """Whether `--metadata private` leaves out the tag of that name."""
    return name.startswith("GPS") or name in {tag_name(tag, 0) for tag in _PRIVATE}


def tag_name(tag: int, below: int) -> str:
    """Return the name of a tag; its number if it has none.

    >>> tag_name(271, 0), tag_name(1, 34853), tag_name(64000, 0)
    ('Make', 'GPSLatitudeRef', 'tag 64000')
    """
    known = GPSTAGS if below == IFD.GPSInfo else TAGS
    return str(known.get(tag, f"tag {tag}"))


def tag_names(directories: list[Directory]) -> set[str]:
    """Return the names of the tags that describe a picture, of a TIFF or an EXIF block."""
    first = directories[:1] + [
        one for one in directories if one.parent_tag in (IFD.Exif, IFD.GPSInfo)
    ]
    return {
        tag_name(tag, directory.parent_tag)
        for directory in first
        for tag in directory.tags
        if directory.parent_tag == IFD.GPSInfo or tag not in _STORAGE
    }


def tags_of(data: bytes) -> Tags:
    """Return the tags that describe a picture, of a TIFF or an EXIF block, little-endian.

    Maker notes are left out, since they contain offsets into their file.
    """
    directories = tiff_directories(data)
    if not directories:
        return {}
    result = _own(directories[0], _STORAGE)
    for directory in directories:
        if directory.parent_tag == IFD.Exif:
            result[IFD.Exif] = _own(directory, {Base.MakerNote, IFD.Interop})
        elif directory.parent_tag == IFD.GPSInfo:
            result[IFD.GPSInfo] = _own(directory, set())
    return {tag: value for tag, value in result.items() if value}


def _own(directory: Directory, without: Any) -> Tags:
    return {
        tag: (one.kind, _turned(directory.value(tag), one.kind, directory.order))
        for tag, one in directory.tags.items()
        if tag not in without
    }


def _turned(value: bytes, kind: int, order: str) -> bytes:
    unit = _UNITS.get(kind, 1)
    if order == "<" or unit == 1:
        return value
    return b"".join(value[n : n + unit][::-1] for n in range(0, len(value), unit))


def geo_tags(data: bytes) -> Tags:
    """Return the tags of GeoTIFF and GDAL, little-endian."""
    own = _own(first_directory(data), set())
    return {tag: value for tag, value in own.items() if tag in GEO_TAGS}


def scaled_geo(tags: Tags, across: float, down: float) -> Tags:
    """Return the result of `geo_tags` for an enlarged picture; GeoTIFF 1.1, annex B.6.

    `across` and `down` are the ratios of new to old columns and rows.
    """
    result = {tag: value for tag, value in tags.items() if tag not in _UNSCALED}
    keys = _numbers(tags.get(34735), "H")
    # Whether pixel coordinates refer to corners (1, or absent) or centres (2).
    centres = any(keys[n] == 1025 and keys[n + 3] == 2 for n in range(4, len(keys) - 3, 4))
    shift = 0.5 if centres else 0.0
    if scale := _numbers(tags.get(33550), "d"):
        result[33550] = (
            _doubles([scale[0] / across, scale[1] / down, *scale[2:]])
            if len(scale) > 1
            else tags[33550]
        )
    if ties := _numbers(tags.get(33922), "d"):
        for n in range(0, len(ties) - 5, 6):
            ties[n] = (ties[n] + shift) * across - shift
            ties[n + 1] = (ties[n + 1] + shift) * down - shift
        result[33922] = _doubles(ties)
    if len(matrix := _numbers(tags.get(34264), "d")) == 16:
        for row in range(0, 16, 4):
            matrix[row] /= across
            matrix[row + 1] /= down
            matrix[row + 3] += shift * (matrix[row] + matrix[row + 1]) - shift * (
                matrix[row] * across + matrix[row + 1] * down
            )
        result[34264] = _doubles(matrix)
    return result


def _numbers(value: Any, kind: str) -> list[Any]:
    expected = {"H": 3, "d": 12}[kind]
    if value is None or value[0] != expected:
        return []
    return list(struct.unpack(f"<{len(value[1]) // struct.calcsize(kind)}{kind}", value[1]))


def _doubles(values: list[float]) -> tuple[int, bytes]:
    return 12, struct.pack(f"<{len(values)}d", *values)


def build_exif(tags: Tags, *, largest: int | None = None) -> bytes:
    """Build a little-endian EXIF block, without values of more than `largest` bytes if given."""
    return b"II*\0\x08\0\0\0" + _directory(_small(tags, largest), 8)


def _small(tags: Tags, largest: int | None) -> Tags:
    if largest is None:
        return tags
    return {
        tag: _small(value, largest) if isinstance(value, dict) else value
        for tag, value in tags.items()
        if isinstance(value, dict) or len(value[1]) <= largest
    }


def resolution_block(across: float, down: float) -> bytes:
    """Build a block that contains only the resolution, in dots per inch."""
    numbers = [struct.pack("<II", round(dots * 100), 100) for dots in (across, down)]
    return build_exif(
        {
            Base.XResolution: (5, numbers[0]),
            Base.YResolution: (5, numbers[1]),
            Base.ResolutionUnit: (3, b"\2\0"),
        }
    )


def text_of(block: bytes, tag: int) -> str:
    """Return the printable text of a tag of the first directory; "" if there is no such tag."""
    value = first_directory(block).value(tag)
    text = value.split(b"\0")[0].decode("utf-8", "replace").strip()
    return "".join(letter for letter in text if letter.isprintable())


def is_adobe_rgb(block: bytes) -> bool:
    """Whether a TIFF or an EXIF block states Adobe RGB (1998), as cameras do (DCF 2.0)."""
    found = tiff_directories(block)
    spaces = {one.integer(Base.ColorSpace) for one in found if one.parent_tag == IFD.Exif}
    option = any(one.value(1)[:3] == b"R03" for one in found if one.parent_tag == IFD.Interop)
    return option and _UNCALIBRATED in spaces


def with_srgb(block: bytes) -> bytes:
    """Return an EXIF block that states sRGB if it stated Adobe RGB; others are not changed."""
    if not is_adobe_rgb(block):
        return block
    changed = bytearray(block)
    for one in tiff_directories(block):
        if one.parent_tag == IFD.Exif and Base.ColorSpace in one.tags:
            _set(changed, one, Base.ColorSpace, 3, 1)
        elif one.parent_tag == IFD.Interop and 1 in one.tags:
            changed[one.tags[1].start : one.tags[1].start + 3] = b"R98"
    return bytes(changed)


def orientation_of(block: bytes | None) -> int:
    """Return the EXIF orientation; 1 (upright) if it is missing or invalid."""
    found = first_directory(block or b"").integer(Base.Orientation, 1)
    return found if 1 <= found <= 8 else 1


def dots_per_inch(block: bytes) -> tuple[float, float]:
    """Return the resolution of an EXIF block or a TIFF; zeros without a unit."""
    first = first_directory(block)
    unit = {2: 1.0, 3: 2.54}.get(first.integer(Base.ResolutionUnit, 2), 0.0)
    x, y = (unit * (first.number(tag) or 0) for tag in _DENSITIES)
    return x, y


def add_to_tiff(file: BytesIO, tags: Tags) -> None:
    """Add or replace tags in a TIFF's first directory, which is rewritten at the end of the file.

    Only little-endian TIFFs under 4 GB are changed.
    """
    data = file.getvalue()
    directories, size = tiff_directories(data), len(data)
    if data[:4] != b"II*\0" or not directories or size > 2**32 - 2**24:
        return
    kept = {
        tag: data[one.entry_offset : one.entry_offset + 12]
        for tag, one in directories[0].tags.items()
        if tag not in tags
    }
    del data, directories  # while the file is referenced, writing copies it
    place = size + size % 2
    file.seek(4)
    file.write(struct.pack("<I", place))
    file.seek(size)
    file.write(bytes(size % 2) + _directory(tags, place, kept))


def _directory(tags: Tags, start: int, kept: dict[int, bytes] | None = None) -> bytes:
    """Return a directory and its values, to be stored at the offset `start`."""
    entries = dict(kept or {})
    count = len(entries) + len(tags)
    values = bytearray()
    for tag, value in tags.items():
        place = start + 2 + 12 * count + 4 + len(values)
        if isinstance(value, dict):
            kind, number, content = 4, 1, struct.pack("<I", place)
            values += _directory(value, place)
        else:
            kind, content = value
            number = len(content) // TYPE_SIZES.get(kind, 1)
            if len(content) > 4:
                values += content + bytes(len(content) % 2)
                content = struct.pack("<I", place)
        entries[tag] = struct.pack("<HHI", tag, kind, number) + content.ljust(4, b"\0")
    whole = b"".join(entry for _, entry in sorted(entries.items()))
    return struct.pack("<H", count) + whole + bytes(4) + values
