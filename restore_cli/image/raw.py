"""Recognises raw files of cameras: picture readers would decode only their preview."""

from __future__ import annotations

from PIL.ExifTags import Base

from restore_cli.formatting import format_count
from restore_cli.image.containers import first_directory, tiff_directories

RAW_SUFFIXES = frozenset(  # of cameras
    {
        *(".3fr", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff"),
        *(".gpr", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf"),
        *(".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"),
    }
)
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
    (4, b"\x10\0\0\0CR\x02", "Canon"),
)
_MOSAIC = (32803, 34892)  # colour filter array; LinearRaw of DNG
_RAW_TAGS = (33422, Base.DNGVersion)  # CFAPattern of TIFF/EP
_REDUCED = 1
_YCBCR, _JPEG = 6, 7  # values of PhotometricInterpretation and Compression
_MEANING = (
    *(Base.GrayResponseUnit, Base.GrayResponseCurve, Base.HalftoneHints, Base.DotRange),
    *(Base.ReferenceBlackWhite, Base.ClipPath),
)
# Least and largest value; the default is the whole range.
_EXTREMES = {
    Base.MinSampleValue: 0,
    Base.MaxSampleValue: 1,
    Base.SMinSampleValue: 0,
    Base.SMaxSampleValue: 1,
}
_LAYERS = 37724  # of Photoshop


def camera_of_raw(data: bytes, suffix: str = "") -> str | None:
    """Return the camera maker of a raw file, or "a camera"; None if it is not a raw file.

    A TIFF with the suffix of one is taken for one: some makers store the mosaic in tags of their
    own.
    """
    for place, magic, maker in _MAGIC:
        if data[place : place + len(magic)] == magic:
            return maker
    directories = tiff_directories(data)
    named = bool(directories) and suffix.lower() in RAW_SUFFIXES
    if not named and not any(
        one.integer(Base.PhotometricInterpretation) in _MOSAIC or one.tags.keys() & _RAW_TAGS
        for one in directories
    ):
        return None
    maker = directories[0].value(Base.Make).split(b"\0")[0].decode("ascii", "replace").strip()
    return maker if maker.isprintable() and maker else "a camera"


def larger_inside(data: bytes) -> tuple[int, int] | None:
    """If the first picture of a TIFF is a reduced copy, return width and height of the original."""
    directories = tiff_directories(data)
    if not directories or not directories[0].integer(Base.NewSubfileType) & _REDUCED:
        return None
    first, *others = directories
    size = (first.integer(Base.ImageWidth), first.integer(Base.ImageLength))
    sizes = [(one.integer(Base.ImageWidth), one.integer(Base.ImageLength)) for one in others]
    return max((one for one in sizes if one[0] * one[1] > size[0] * size[1]), default=None)


def is_ycbcr(data: bytes) -> bool:
    """Whether a TIFF stores YCbCr without JPEG compression.

    libvips would take its values for RGB, unless chroma is subsampled.
    """
    first = first_directory(data)
    return (
        first.integer(Base.PhotometricInterpretation) == _YCBCR
        and first.integer(Base.Compression) != _JPEG
    )


def is_lab(data: bytes) -> bool:
    """Whether a TIFF stores CIELab, ICCLab or ITULab."""
    return first_directory(data).integer(Base.PhotometricInterpretation) in (8, 9, 10)


def reduced_copies(data: bytes) -> int:
    """Return the number of reduced copies that follow a TIFF's picture, e.g. GeoTIFF overviews."""
    others = tiff_directories(data)[1:]
    return sum(
        not one.parent_tag and bool(one.integer(Base.NewSubfileType) & _REDUCED) for one in others
    )


def tiff_notes(data: bytes, *, alpha: bool) -> tuple[str, ...]:
    """Return notes on what a TIFF has besides its colours; none for other files."""
    notes, first = [], first_directory(data)
    if copies := reduced_copies(data):
        notes.append(f"left out: {format_count(copies, 'reduced copy', 'reduced copies')} of it")
    subs = [one for one in tiff_directories(data) if one.parent_tag == Base.SubIFDs]
    if inside := sum(Base.ImageWidth in one.tags for one in subs):
        notes.append(f"left out: {format_count(inside, 'picture')} in its subdirectories")
    if _LAYERS in first.tags:
        notes.append("left out: the layers of Photoshop")
    if alpha and first.tags and not first.integer(Base.ExtraSamples):  # 0 is an unspecified channel
        notes.append("its extra channel is not declared as transparency, but was treated as such")
    # A profile takes precedence over the transfer function.
    if Base.TransferFunction in first.tags and Base.InterColorProfile not in first.tags:
        notes.append("its transfer function was left out; its values were taken as sRGB")
    white = 2 ** first.integer(Base.BitsPerSample, 1) - 1
    limits = [tag for tag, end in _EXTREMES.items() if {*first.numbers(tag)} - {end * white}]
    tags = (*(tag for tag in _MEANING if tag in first.tags), *limits)
    stated = [Base(tag).name for tag in tags]
    # YCbCr has them, and libtiff applies them.
    if stated and first.integer(Base.PhotometricInterpretation) != _YCBCR:
        notes.append(f"left out: {', '.join(stated)}")
    return tuple(notes)
