"""Pictures in and out of files: pixels as tensors, everything else kept beside them.

Read: orientation applied, palette expanded, grey as three equal channels, alpha apart.
Written: same mode, profile and metadata, orientation 1, through a temporary file and a rename.
8 bits a channel for now; what would lose information silently is refused instead, and what had to
be left out is noted.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

from restore_cli.errors import PictureError
from restore_cli.files import write_then_rename

Image.MAX_IMAGE_PIXELS = None  # we check sizes ourselves, before decoding: see `read_image`
MAX_PIXELS = 268_000_000

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}  # option -> Pillow's name
SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
PHOTO_SUFFIXES = tuple(SUFFIXES)
OTHER_SUFFIXES = frozenset(
    [".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".tga", ".tif", ".tiff"]
)  # pictures, but not ours to write
EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}  # for names we make
LONGEST_SIDE = {"png": 2**31 - 1, "jpeg": 65_535, "webp": 16_383}
HOLDS_ALPHA = frozenset({"png", "webp"})

# Phones write MPO: a JPEG with further pictures (depth, gain map) behind it.
_PILLOW_FORMATS = {name: key for key, name in FORMATS.items()} | {"MPO": "jpeg"}
_WIDTH_TAG, _HEIGHT_TAG = 0xA002, 0xA003  # PixelXDimension, PixelYDimension in the Exif IFD


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says besides its pixels. Orientation is applied on reading and not kept."""

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    text: tuple[tuple[str, str], ...] = ()  # PNG's
    comment: bytes | None = None  # JPEG's


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (1, 3, H, W) float32 in [0, 1], encoded values of the file's colour space.
        alpha: (1, 1, H, W) float32 in [0, 1], or None.
        grey: whether the file has one colour channel.
        format: key of `FORMATS`.
        metadata: kept for writing.
        notes: what had to be left out, for people.
    """

    pixels: Tensor
    alpha: Tensor | None
    grey: bool
    format: str
    metadata: Metadata
    notes: tuple[str, ...] = ()

    def with_pixels(self, pixels: Tensor, alpha: Tensor | None) -> Picture:
        """The same picture with other pixels, of any size."""
        return replace(self, pixels=pixels, alpha=alpha)


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture.

    Args:
        path: PNG, JPEG or WebP, recognised by content, whatever its name.
        max_pixels: larger pictures are refused before they are decoded.

    Raises:
        PictureError: unreadable, truncated, too large, animated, or of a kind (more than 8 bits,
            CMYK, another format) that cannot be kept yet.
    """
    try:
        with warnings.catch_warnings(), path.open("rb") as stream, Image.open(stream) as image:
            warnings.simplefilter("ignore")  # Pillow warns about broken EXIF, which we drop
            _refuse(path, image, max_pixels)
            metadata, notes = _metadata(image)
            format_key = _PILLOW_FORMATS[str(image.format)]
            image.load()
            upright = ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise PictureError(
            f"'{path}' is not a picture this version reads (PNG, JPEG, WebP)"
        ) from error
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        raise PictureError(f"cannot read '{path}': {error}") from error

    grey = upright.mode in ("1", "L", "LA", "La")
    has_alpha = upright.has_transparency_data
    mode = ("LA" if grey else "RGBA") if has_alpha else ("L" if grey else "RGB")
    values = np.array(upright.convert(mode))
    values = values[..., None] if values.ndim == 2 else values
    tensor = torch.from_numpy(values).permute(2, 0, 1)[None].float() / 255
    pixels, alpha = (tensor[:, :-1], tensor[:, -1:]) if has_alpha else (tensor, None)
    pixels = pixels.expand(-1, 3, -1, -1).contiguous()
    if alpha is not None:
        pixels = _fill_transparent(pixels, alpha)
    return Picture(pixels, alpha, grey, format_key, metadata, notes)


def read_size(path: Path) -> tuple[int, int] | None:
    """Height and width from the header, or None where it is no picture."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError):
        return None


def read_rgb8(path: Path) -> Tensor:
    """(3, H, W) uint8 of an opaque photo; alpha is ignored.

    Raises:
        PictureError: as `read_image`.
    """
    return (read_image(path).pixels[0] * 255).round().byte()


def write_image(
    path: Path, picture: Picture, *, format_key: str, quality: int | None = None
) -> None:
    """Encode a picture and put it at `path`, whole or not at all.

    Args:
        path: where; its folder is made.
        picture: values outside [0, 1] are clipped, then rounded to 8 bits.
        format_key: key of `FORMATS`.
        quality: 1 to 100 for JPEG and WebP; None for JPEG 95 with full chroma, lossless WebP.

    Raises:
        PictureError: the format cannot hold the picture, or the disk cannot take it.
    """
    if picture.alpha is not None and format_key not in HOLDS_ALPHA:
        raise PictureError(
            f"'{path}': {format_key} cannot hold transparency", hint="use --format png or webp"
        )
    check_size(path, picture.pixels.shape[-2], picture.pixels.shape[-1], format_key)
    image = _to_pillow(picture)
    options = _encoder_options(format_key, quality)
    options |= _kept(picture.metadata, image.size, format_key)
    buffer = io.BytesIO()
    try:
        image.save(buffer, FORMATS[format_key], **options)
    except (OSError, ValueError, struct.error) as error:
        raise PictureError(f"cannot encode '{path}': {error}") from error
    try:
        with write_then_rename(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise PictureError(f"cannot write '{path}': {error.strerror or error}") from error


def check_size(path: Path, height: int, width: int, format_key: str) -> None:
    """Refuse a picture that a format cannot hold.

    Raises:
        PictureError: a side is too long.
    """
    if max(height, width) > LONGEST_SIDE[format_key]:
        raise PictureError(
            f"'{path}': {width}x{height} is larger than {format_key} can hold",
            hint="use --format png",
        )


def _refuse(path: Path, image: Image.Image, max_pixels: int) -> None:
    """Errors for what would be decoded wrongly, too large, or only in part."""
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(
            f"'{path}' has {width}x{height} = {width * height:,} pixels, the limit is "
            f"{max_pixels:,}",
            hint="raise --max-pixels if you trust it",
        )
    if image.format not in _PILLOW_FORMATS:
        raise PictureError(f"'{path}' is {image.format}; this version reads PNG, JPEG and WebP")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise PictureError(
            f"'{path}' is animated ({frames} frames)", hint="give its frames one by one"
        )
    if image.mode.startswith(("I", "F")) or _png_depth(path) == 16:
        raise PictureError(
            f"'{path}' has 16 bits a channel; this version keeps 8",
            hint="convert it to 8 bits first",
        )
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise PictureError(f"'{path}' is {image.mode}", hint="convert it to RGB first")


def _png_depth(path: Path) -> int | None:
    """Bits a channel of a PNG: Pillow opens 16-bit RGB as 8-bit without a word."""
    with path.open("rb") as stream:
        head = stream.read(25)
    return head[24] if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 25 else None


def _metadata(image: Image.Image) -> tuple[Metadata, tuple[str, ...]]:
    """What is kept, with the orientation set to 1, and notes on what is not."""
    info = {str(key): value for key, value in image.info.items()}
    notes = []
    if image.format == "MPO":
        notes.append("only the first picture in the file was taken")
    exif: bytes | None = None
    try:
        tags = image.getexif()
        for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            tags.get_ifd(directory)  # read while the file is open: Pillow 11 forgets it later
        exif = _upright(tags) if len(tags) else None
    except (struct.error, OSError, SyntaxError, ValueError, TypeError, KeyError):
        notes.append("its EXIF data are broken and were left out")
    dpi, xmp = info.get("dpi"), info.get("xmp")
    # What image viewers may trust instead of EXIF's.
    xmp = re.sub(rb'(tiff:Orientation(?:="|>))[2-8]', rb"\g<1>1", xmp) if xmp else None
    texts = getattr(image, "text", {}) if image.format == "PNG" else {}
    texts = {str(k): str(v) for k, v in texts.items() if k != "XML:com.adobe.xmp"}
    comment = info.get("comment")
    metadata = Metadata(
        icc_profile=info.get("icc_profile") or None,
        exif=exif,
        xmp=xmp,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi else None,
        text=tuple(texts.items()),
        comment=comment if isinstance(comment, bytes) else None,
    )
    return metadata, tuple(notes)


def _upright(tags: Image.Exif) -> bytes:
    """The tags with orientation 1; a copy, since the image's own decide how it is turned."""
    copy = Image.Exif()
    copy.load(tags.tobytes())
    if ExifTags.Base.Orientation in copy:
        copy[ExifTags.Base.Orientation] = 1
    return copy.tobytes()


def _kept(metadata: Metadata, size: tuple[int, int], format_key: str) -> dict[str, Any]:
    """Metadata as Pillow's options for saving, corrected for the new size."""
    options: dict[str, Any] = {}
    if metadata.icc_profile:
        options["icc_profile"] = metadata.icc_profile
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif)
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for tag, side in zip((_WIDTH_TAG, _HEIGHT_TAG), size, strict=True):
            if tag in details:
                details[tag] = side
        options["exif"] = exif
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    if format_key == "png":
        options["pnginfo"] = _png_text(metadata)
    elif metadata.xmp:
        options["xmp"] = metadata.xmp
    if format_key == "jpeg" and metadata.comment:
        options["comment"] = metadata.comment
    return options


def _png_text(metadata: Metadata) -> PngImagePlugin.PngInfo:
    """Text chunks; Pillow's PNG writer ignores `xmp=`."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in metadata.text:
        chunks.add_itxt(key, value)
    if metadata.xmp:
        chunks.add_itxt("XML:com.adobe.xmp", metadata.xmp.decode("utf-8", "replace"))
    return chunks


def _encoder_options(format_key: str, quality: int | None) -> dict[str, Any]:
    if format_key == "jpeg":
        return {"quality": quality or 95, "subsampling": 0, "optimize": True}
    if format_key == "webp":
        return {"quality": quality, "method": 4} if quality else {"lossless": True, "exact": True}
    return {"compress_level": 6}


def _to_pillow(picture: Picture) -> Image.Image:
    pixels = picture.pixels.mean(1, keepdim=True) if picture.grey else picture.pixels
    channels = [pixels] if picture.alpha is None else [pixels, picture.alpha]
    values = (torch.cat(channels, 1)[0].clamp(0, 1) * 255).round().byte()
    array = values.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)


def _fill_transparent(pixels: Tensor, alpha: Tensor) -> Tensor:
    """Give fully transparent pixels the colour of the nearest visible one.

    What lies under alpha 0 is arbitrary, often black, and would bleed into the edge as a fringe.
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
