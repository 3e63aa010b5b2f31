"""Recognises raw files of cameras: picture readers would decode only their preview."""

from __future__ import annotations

from PIL import TiffTags

from restore_cli.image.containers import Directory, first_directory, tiff_directories
from restore_cli.wording import counted

# Signatures: offset, bytes, maker.
_MAGIC = (
    (0, b"IIRO", "Olympus"),
    (0, b"IIRS", "Olympus"),
    (0, b"MMOR", "Olympus"),
    (0, b"IIU\0", "Panasonic"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm"),
    (0, b"FOVb", "Sigma"),
    (0, b"\0MRM", "Minolta"),
    (4, b"ftypcrx ", "Canon"),
    (6, b"HEAPCCDR", "Canon"),
    (8, b"CR\x02", "Canon"),
)
_NEW_SUBFILE, _WIDTH, _HEIGHT, _PHOTOMETRIC, _MAKE, _EXTRA = 254, 256, 257, 262, 271, 338
_MOSAIC = (32803, 34892)  # colour filter array; LinearRaw of DNG
_RAW_TAGS = (33422, 50706)  # CFAPattern of TIFF/EP; DNGVersion
_REDUCED = 1
_COMPRESSION, _YCBCR, _JPEG = 259, 6, 7
# GrayResponseUnit and -Curve, HalftoneHints, DotRange, ReferenceBlackWhite
_MEANING = (290, 291, 321, 336, 532)
_TRANSFER, _PROFILE, _SUB_IFDS, _LAYERS = 301, 34675, 330, 37724


def camera_of_raw(data: bytes) -> str | None:
    """Return the camera maker of a raw file, or "a camera" if it is not stated.

    Args:
        data: content of the file.

    Returns:
        None if it is not a raw file.
    """
    for place, magic, maker in _MAGIC:
        if data[place : place + len(magic)] == magic:
            return maker
    directories = tiff_directories(data)
    if not any(_is_raw(directory) for directory in directories):
        return None
    maker = directories[0].value(_MAKE).split(b"\0")[0].decode("ascii", "replace").strip()
    return maker if maker.isprintable() and maker else "a camera"


def _is_raw(directory: Directory) -> bool:
    return directory.integer(_PHOTOMETRIC) in _MOSAIC or any(
        tag in directory.tags for tag in _RAW_TAGS
    )


def larger_inside(data: bytes) -> tuple[int, int] | None:
    """If the first picture of a TIFF is a reduced copy, return width and height of the original."""
    directories = tiff_directories(data)
    if not directories or not directories[0].integer(_NEW_SUBFILE) & _REDUCED:
        return None
    first, *others = directories
    size = (first.integer(_WIDTH), first.integer(_HEIGHT))
    sizes = [(one.integer(_WIDTH), one.integer(_HEIGHT)) for one in others]
    return max((one for one in sizes if one[0] * one[1] > size[0] * size[1]), default=None)


def is_ycbcr(data: bytes) -> bool:
    """Whether a TIFF stores YCbCr without JPEG compression.

    libvips would take its values for RGB, unless chroma is subsampled.
    """
    first = first_directory(data)
    return first.integer(_PHOTOMETRIC) == _YCBCR and first.integer(_COMPRESSION) != _JPEG


def is_lab(data: bytes) -> bool:
    """Whether a TIFF stores CIELab, ICCLab or ITULab."""
    return first_directory(data).integer(_PHOTOMETRIC) in (8, 9, 10)


def reduced_copies(data: bytes) -> int:
    """Return the number of reduced copies that follow a TIFF's picture, e.g. GeoTIFF overviews."""
    others = tiff_directories(data)[1:]
    return sum(not one.below and bool(one.integer(_NEW_SUBFILE) & _REDUCED) for one in others)


def tiff_notes(data: bytes, *, alpha: bool) -> tuple[str, ...]:
    """Return notes on what a TIFF has besides its colours; none for other files.

    Args:
        data: content of the file.
        alpha: whether its last channel was read as transparency.
    """
    copies, first = reduced_copies(data), first_directory(data)
    notes = (f"left out: {counted(copies, 'reduced copy', 'reduced copies')} of it",) * bool(copies)
    inside = sum(one.below == _SUB_IFDS and _WIDTH in one.tags for one in tiff_directories(data))
    notes += (f"left out: {counted(inside, 'picture')} below the first one",) * bool(inside)
    notes += ("left out: the layers of Photoshop",) * (_LAYERS in first.tags)
    if alpha and first.tags and not first.integer(_EXTRA):  # 0 is an unspecified channel
        notes += ("its extra channel is not declared as transparency, but was treated as such",)
    if _TRANSFER in first.tags and _PROFILE not in first.tags:  # which takes precedence
        notes += ("its transfer function was left out; its values were taken as sRGB",)
    stated = [TiffTags.lookup(tag).name for tag in _MEANING if tag in first.tags]
    if stated and first.integer(_PHOTOMETRIC) != _YCBCR:  # which has them, and libtiff applies them
        notes += (f"left out: {', '.join(stated)}",)
    return notes
