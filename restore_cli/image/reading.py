"""Decodes files to pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_cli.errors import PictureError
from restore_cli.formatting import format_list
from restore_cli.image.colour import is_srgb, profile_state, to_srgb
from restore_cli.image.content import MAX_PIXELS, read_bytes
from restore_cli.image.exif import with_srgb
from restore_cli.image.format_spec import Format
from restore_cli.image.formats import HEAD, KINDS, is_video, recognise
from restore_cli.image.matrix_profile import with_channels
from restore_cli.image.metadata import read_metadata
from restore_cli.image.picture import Picture
from restore_cli.image.raw import camera_of_raw, larger_inside
from restore_cli.image.raw_metadata import BROKEN, Metadata
from restore_cli.image.to_png import check_pixel_count
from restore_cli.image.vips import (
    INTEGER,
    UNREADABLE,
    VipsError,
    VipsImage,
    field_of,
    first_line,
    interpreted,
    kind_of,
    open_with_vips,
    size_with_vips,
)
from restore_cli.rounding import to_float, to_uint

T = TypeVar("T")
_KINDS = format_list([kind.name for kind in KINDS.values()], len(KINDS))
_HALF_STEP = 0.5 / 255
_BEFORE_PIXELS = 1 << 18  # bytes in which a PNG says that it is animated
_BROKEN_PROFILE = "its colour profile is broken and was left out"
_UNFIT_PROFILE = "its colour profile does not fit its values and was left out"


def read_image(
    path: Path, *, max_pixels: int = MAX_PIXELS, icc: str = "convert", strict: bool = False
) -> Picture:
    """Decode a picture to float pixels.

    Args:
        path: picture file; its format is recognised by content.
        max_pixels: larger pictures are refused before they are decoded.
        icc: "convert" to sRGB for the network and back for the file, "keep" the profile's values
            without conversion, or "strip": convert to sRGB, and write sRGB.
        strict: refuse transparency and damage, which make no sense where pictures are compared or
            degraded.

    Raises:
        PictureError: unreadable, truncated, too large, animated, or of a kind that would be
            decoded incorrectly; or with `strict`, transparent or damaged.
    """
    picture = decode(read_bytes(path), str(path), max_pixels=max_pixels, icc=icc, strict=strict)
    return replace(picture, pixels=to_float(picture.pixels))


def decode(
    data: bytes,
    name: str,
    *,
    max_pixels: int = MAX_PIXELS,
    icc: str = "convert",
    strict: bool = False,
) -> Picture:
    """`read_image` from bytes, but pixels that need no conversion stay integers.

    Raises `PictureError` as `read_image` does; messages contain `name`.
    """
    picture, damage = read_tolerantly(data, partial(_decode, data, name, max_pixels, icc))
    if strict and damage:
        raise PictureError(f"'{name}': {damage[0]}", hint="replace it, or leave it out")
    if strict and picture.is_transparent:
        raise PictureError(f"'{name}' has transparency", hint="flatten it first")
    return replace(picture, notes=(*damage, *picture.notes))


def read_tolerantly(data: bytes, read: Callable[[str], T]) -> tuple[T, tuple[str, ...]]:
    """Read a picture; also return a note if it is damaged, else none.

    libjpeg recovers from most errors; a partly wrong picture with a note is better than none.
    `read` is called with the `fail_on` of `open_header`. Raises `PictureError` as `read_image`
    does.
    """
    key = recognise(data[:HEAD])
    kind = KINDS[key] if key else None
    try:
        picture = read("warning")
        fault = "its end is missing" if kind and kind.ends_early(data) else ""
    except UnreadableError as error:
        if kind is None or not kind.tolerant:
            raise
        picture, fault = read("error"), error.reason
    note = f"it is damaged, so parts of the picture can be wrong ({fault})"
    return picture, (note,) * bool(fault)


class UnreadableError(PictureError):
    """The decoder gave up."""

    reason = ""  # its first line

    @classmethod
    def of(cls, name: str, error: VipsError) -> UnreadableError:
        """Return the error for a file.

        Its `__init__` keeps the signature of all errors, so that pickling to other processes works.
        """
        reason = first_line(error)
        unreadable = cls(f"cannot read '{name}': {reason}", hint=UNREADABLE)
        unreadable.reason = reason
        return unreadable


def _decode(data: bytes, name: str, max_pixels: int, icc: str, fail_on: str) -> Picture:
    header = open_header(data, name, max_pixels=max_pixels, fail_on=fail_on)
    image = header.image
    if header.metadata.hdr is not None and icc == "strip":
        raise PictureError(
            f"'{name}' has high dynamic range, which --icc strip cannot convert to sRGB",
            hint="use --icc convert, and --format png, which keeps it",
        )
    try:
        if field_of(image, "orientation", 1) > 1:  # rotating needs random access
            image = image.copy_memory()
        picture = decoded(image.autorot(), header, icc)
    except VipsError as error:
        raise UnreadableError.of(name, error) from error
    return replace(picture, notes=(*header.notes, *picture.notes))


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """A picture that is not decoded yet."""

    image: Any  # libvips image, which is decoded once, when its values are accessed
    format: str  # format, recognised by content
    width: int  # width of the upright picture
    height: int  # height of the upright picture
    depth: int  # bits per channel of the decoded picture, 8 or 16
    source_bits: int  # bits per channel in the file
    kind: str  # "grey", "rgb" or "cmyk"
    alpha: bool  # whether there is transparency
    orientation: int  # EXIF orientation; 1 is upright
    metadata: Metadata  # metadata of the file
    notes: tuple[str, ...]  # notes on what cannot be kept


def open_header(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, fail_on: str = "error"
) -> ImageHeader:
    """Recognise a file and read everything but its pixels.

    `fail_on` is "error", or "warning" if decoders that recover from errors should not. Raises
    `PictureError` as `read_image` does; messages contain `name`.
    """
    _check_not_raw(data, name)
    key = recognise(data[:HEAD])
    if key is None:
        if is_video(data[:HEAD]):
            raise PictureError(
                f"'{name}' looks like a video, but does not have the suffix of one",
                hint="videos are read from files named e.g. .mp4, .mov or .mkv",
            )
        what = "is empty" if not data else f"is not a picture this version reads ({_KINDS})"
        raise PictureError(f"'{name}' {what}")
    kind = KINDS[key]
    try:
        image, content = kind.load(
            data, name, max_pixels, fail_on=fail_on if kind.tolerant else "error"
        )
        _check_supported(image, data, kind, name, max_pixels)
        metadata = read_metadata(image, content, data, kind)
        colours = _colours_of(image, name)
        if not kind.upright:
            # Of the EXIF block that is kept; the decoder may have found another block, or none.
            image = image.copy()
            image.set_type(INTEGER, "orientation", metadata.orientation)
    except VipsError as error:
        raise UnreadableError.of(name, error) from error
    orientation = field_of(image, "orientation", 1)
    width, height = image.width, image.height
    if orientation >= 5:
        width, height = height, width
    with_profile = metadata.icc_profile is not None
    grey, known = colours == "grey", with_profile or colours == "cmyk"
    signalled = kind.colours(data, metadata.exif, grey=grey, with_profile=known)
    metadata = replace(metadata, hdr=signalled.hdr, colour=signalled.chunks)
    if signalled.profile is not None:
        metadata = replace(metadata, icc_profile=signalled.profile)
    alpha = bool(image.hasalpha())
    notes = (signalled.note,) * bool(signalled.note) + kind.notes(data, alpha=alpha)
    if not with_profile and kind.stores_profile(data):  # the decoder has dropped it
        notes += (_BROKEN_PROFILE,)
    notes += ("only the main picture in the file was used",) * kind.has_more(image, data)
    depth = 8 if image.format == "uchar" else 16
    bits = 8 if depth == 8 else min(16, max(8, kind.bits(image, data)))
    return ImageHeader(
        image, key, width, height, depth, bits, colours, alpha, orientation, metadata, notes
    )


def read_size(path: Path, *, still: bool = False) -> tuple[int, int] | None:
    """Return height and width of the upright picture, from its header; None if not a picture.

    With `still`, also None if it has several frames or pages, which `read_image` refuses.
    """
    try:
        if not path.is_file():
            return None
        with path.open("rb") as stream:
            head = stream.read(_BEFORE_PIXELS if still else HEAD)
        key = recognise(head[:HEAD])
        if key is None or (still and _has_frames(path, KINDS[key], head)):
            return None
        return KINDS[key].read_size(path)
    except (*BROKEN, VipsError):
        return None


def _has_frames(path: Path, kind: Format, head: bytes) -> bool:
    if kind.read_size is not size_with_vips:
        return False  # formats of which other readers take the main picture
    header = open_with_vips(path)
    pages = field_of(header, "n-pages", 1) > 1
    return kind.frames(header, read_bytes(path) if pages else head) > 1


def read_rgb8(path: Path, *, strict: bool = False) -> Tensor:
    """(3, H, W) uint8 sRGB of a photo; transparency and damage are ignored, or refused if `strict`.

    Raises `PictureError` as `read_image` does.
    """
    return to_uint(read_image(path, strict=strict).pixels[0], 8)


def _check_not_raw(data: bytes, name: str) -> None:
    """Refuse files of which only a preview would be read."""
    if (maker := camera_of_raw(data, Path(name).suffix)) is not None:
        raise PictureError(
            f"'{name}' is a raw file of {maker}, of which only the preview could be read",
            hint="develop it to TIFF or PNG first, e.g. with darktable or RawTherapee",
        )
    if (larger := larger_inside(data)) is not None:
        raise PictureError(
            f"'{name}' begins with a reduced copy; the full picture ({larger[0]}x{larger[1]}) is "
            "in a later directory",
            hint="save it as a plain TIFF first",
        )


def _check_supported(header: Any, data: bytes, kind: Format, name: str, max_pixels: int) -> None:
    """Refuse pictures that are too large, or would be decoded incorrectly or only in part."""
    check_pixel_count(header.width, header.height, name, max_pixels)
    if (frames := kind.frames(header, data)) > 1:
        raise PictureError(
            f"'{name}' contains several pictures ({kind.key}, {frames} frames or pages)",
            hint="save them as separate files",
        )
    if header.format not in ("uchar", "ushort"):
        raise PictureError(
            f"'{name}' has values of type {header.format}", hint="save it with 8 or 16 bits"
        )


def decoded(image: Any, header: ImageHeader, icc: str = "convert") -> Picture:
    """Decode the upright image (or a smaller version): separate alpha and convert colours.

    Unconverted pixels stay integers, which need a quarter of the memory.
    """
    kind, depth = header.kind, header.depth
    values = image.numpy().reshape(image.height, image.width, image.bands)
    alpha = None
    if header.source_bits < depth:
        # Decoders shift 10 and 12 bits up and leave zeros below, so that white is not 65535.
        low = 16 - header.source_bits
        values = ((values >> low) * (65535 / (2 ** (16 - low) - 1)) + 0.5).astype(np.uint16)
    if header.alpha:
        values, alpha = np.ascontiguousarray(values[..., :-1]), to_float(_planes(values[..., -1:]))
    srgb, metadata, colours, notes = _colours(values, kind, icc, header.metadata)
    excess: Tensor | None = None
    if srgb is None:
        pixels = _planes(values)
    else:
        unbounded = torch.from_numpy(srgb).permute(2, 0, 1)[None]
        if kind == "grey":
            unbounded = unbounded.mean(1, keepdim=True)
        pixels = unbounded.clamp(0, 1).float()
        # For 16 bits this includes the rounding to float32; without it, the dark channel of a
        # saturated colour would be off by 40 of 65535.
        excess = unbounded - pixels
        excess = excess if depth == 16 or excess.abs().max() > _HALF_STEP else None
    pixels = pixels.expand(-1, 3, -1, -1).contiguous()
    if alpha is not None:
        pixels = fill_transparent(pixels, alpha)
    return Picture(
        pixels,
        alpha,
        grey=kind == "grey",
        format=header.format,
        depth=depth,
        colours=colours,
        out_of_gamut=excess,
        metadata=metadata,
        notes=tuple(notes),
        source_bits=header.source_bits,
    )


def fill_transparent(pixels: Tensor, alpha: Tensor) -> Tensor:
    """Give pixels (1, C, H, W) where alpha (1, 1, H, W) is 0 the colour of the nearest visible one.

    Their own colour is arbitrary, often black, and would bleed into edges.
    """
    hidden = (alpha[0, 0] == 0).numpy()
    if not hidden.any() or hidden.all():
        return pixels
    _, labels = cv2.distanceTransformWithLabels(
        hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, columns = np.nonzero(~hidden)
    nearest = np.zeros(labels.max() + 1, np.int64)
    nearest[labels[rows, columns]] = np.arange(len(rows))
    source = nearest[labels]
    return pixels[:, :, rows[source], columns[source]]


def _colours(
    values: NDArray[Any], kind: str, icc: str, metadata: Metadata
) -> tuple[NDArray[Any] | None, Metadata, str, list[str]]:
    """Return values as sRGB, or None to use them unconverted; metadata to write; kind; notes."""
    profile, channels, notes = metadata.icc_profile, values.shape[-1], []
    if profile is not None and (fault := _fault(profile, channels)):
        notes.append(fault)
        profile, metadata = None, replace(metadata, icc_profile=None)
    if metadata.hdr is not None:
        return None, metadata, "rgb", notes
    unconverted = profile is None or icc == "keep" or is_srgb(profile, channels)
    if channels == 1 and profile is not None:  # it may be for RGB, which files of grey cannot hold
        metadata = replace(metadata, icc_profile=with_channels(profile, 1))
        notes += [_UNFIT_PROFILE] * (metadata.icc_profile is None and icc == "keep")
    if unconverted and kind != "cmyk":
        return None, _untagged(metadata) if icc == "strip" else metadata, "rgb", notes
    image = interpreted(VipsImage.new_from_array(values), kind)
    try:
        srgb = to_srgb(image, profile or "cmyk")
    except VipsError:
        notes.append(_UNFIT_PROFILE)
        metadata = replace(metadata, icc_profile=None)
        if kind != "cmyk":
            return None, metadata, "rgb", notes
        profile, srgb = None, to_srgb(image, "cmyk")
    if kind == "cmyk" and profile is None:
        notes.append("it is CMYK without a profile; it was read as generic CMYK, written as sRGB")
    one_way = metadata.icc_profile is None or profile_state(metadata.icc_profile) == "in"
    if profile is not None and icc != "strip" and one_way:
        notes.append("its colours cannot be converted back to its profile; it was written as sRGB")
        profile = None
    if icc == "strip" or profile is None:
        return srgb, _untagged(metadata), "rgb", notes
    return srgb, metadata, "cmyk" if kind == "cmyk" else "profile", notes


def _fault(profile: bytes, channels: int) -> str:
    """Return a note on a profile that cannot be used for so many channels, or ""."""
    if profile_state(profile) == "broken":
        return _BROKEN_PROFILE
    fitting = {b"GRAY": (1,), b"RGB ": (1, 3), b"CMYK": (4,)}.get(profile[16:20], ())
    return "" if channels in fitting else _UNFIT_PROFILE


def _untagged(metadata: Metadata) -> Metadata:
    """Return metadata for values that are sRGB now, whatever described the colours before."""
    exif = metadata.exif and with_srgb(metadata.exif)
    return replace(metadata, icc_profile=None, colour=(), exif=exif)


def _colours_of(image: Any, name: str) -> str:
    """Return the kind of colours: "grey", "rgb" or "cmyk"; raises `PictureError` for any other."""
    if (kind := kind_of(image)) is None:
        raise PictureError(
            f"'{name}' is {image.interpretation} with {image.bands} channels",
            hint="convert it to RGB first",
        )
    return kind


def _planes(values: NDArray[Any]) -> Tensor:
    """(H, W, C) integers -> (1, C, H, W)."""
    return torch.from_numpy(np.require(values, requirements="W")).permute(2, 0, 1)[None]
