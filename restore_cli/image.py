"""Pictures in and out of files: pixels as tensors, everything else kept beside them.

Read: orientation applied, palette expanded, grey as three equal channels, alpha apart.
Written: same mode, profile and metadata, orientation 1, through a temporary file and a rename.
8 bits a channel for now; what would lose information silently is refused instead.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from restore_cli.errors import PictureError
from restore_cli.files import write_then_rename

Image.MAX_IMAGE_PIXELS = None  # we check sizes ourselves, before decoding: see `read_image`
MAX_PIXELS = 268_000_000

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}  # option -> Pillow's name
SUFFIXES = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
PHOTO_SUFFIXES = tuple(SUFFIXES)
EXTENSIONS = {"png": "png", "jpeg": "jpg", "webp": "webp"}  # for names we make
HOLDS_ALPHA = frozenset({"png", "webp"})

_WIDTH_TAG, _HEIGHT_TAG = 0xA002, 0xA003  # PixelXDimension, PixelYDimension in the Exif IFD


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says besides its pixels. Orientation is applied on reading and not kept."""

    icc_profile: bytes | None = None
    exif: Image.Exif | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (1, 3, H, W) float32 in [0, 1], encoded values of the file's colour space.
        alpha: (1, 1, H, W) float32 in [0, 1], or None.
        grey: whether the file has one colour channel.
        format: key of `FORMATS`.
        metadata: kept for writing.
    """

    pixels: Tensor
    alpha: Tensor | None
    grey: bool
    format: str
    metadata: Metadata

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
            _refuse(path, image, stream.name, max_pixels)
            metadata = _metadata(image)
            format_key = next(key for key, name in FORMATS.items() if name == image.format)
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
    return Picture(pixels, alpha, grey, format_key, metadata)


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
    image = _to_pillow(picture)
    options = _encoder_options(format_key, quality) | _kept(picture.metadata, image.size)
    buffer = io.BytesIO()
    try:
        image.save(buffer, FORMATS[format_key], **options)
    except (OSError, ValueError) as error:
        raise PictureError(f"cannot encode '{path}': {error}") from error
    try:
        with write_then_rename(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
    except OSError as error:
        raise PictureError(f"cannot write '{path}': {error.strerror or error}") from error


def _refuse(path: Path, image: Image.Image, name: str, max_pixels: int) -> None:
    """Errors for what would be decoded wrongly, too large, or only in part."""
    width, height = image.size
    if width * height > max_pixels:
        raise PictureError(
            f"'{path}' has {width}x{height} = {width * height / 1e6:.0f} Mpx, the limit is "
            f"{max_pixels / 1e6:.0f}",
            hint="raise --max-pixels if you trust it",
        )
    if image.format not in FORMATS.values():
        raise PictureError(f"'{path}' is {image.format}; this version reads PNG, JPEG and WebP")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise PictureError(
            f"'{path}' is animated ({frames} frames)", hint="give its frames one by one"
        )
    if image.mode.startswith(("I", "F")) or _png_depth(name) == 16:
        raise PictureError(
            f"'{path}' has 16 bits a channel; this version keeps 8",
            hint="convert it to 8 bits first",
        )
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"):
        raise PictureError(f"'{path}' is {image.mode}", hint="convert it to RGB first")


def _png_depth(name: str) -> int | None:
    """Bits a channel of a PNG: Pillow opens 16-bit RGB as 8-bit without a word."""
    with Path(name).open("rb") as stream:
        head = stream.read(25)
    return head[24] if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 25 else None


def _metadata(image: Image.Image) -> Metadata:
    exif = image.getexif()
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        exif.get_ifd(directory)  # read while the file is open: Pillow 11 forgets it later
    info = {str(key): value for key, value in image.info.items()}
    dpi = info.get("dpi")
    return Metadata(
        icc_profile=info.get("icc_profile") or None,
        exif=exif if len(exif) else None,
        xmp=info.get("xmp") or None,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi else None,
    )


def _kept(metadata: Metadata, size: tuple[int, int]) -> dict[str, Any]:
    """Metadata as Pillow's options for saving, corrected for the new size and orientation."""
    options: dict[str, Any] = {}
    if metadata.icc_profile:
        options["icc_profile"] = metadata.icc_profile
    if metadata.exif:
        exif = Image.Exif()
        exif.load(metadata.exif.tobytes())  # a copy: the picture may be written more than once
        if ExifTags.Base.Orientation in exif:
            exif[ExifTags.Base.Orientation] = 1
        details = exif.get_ifd(ExifTags.IFD.Exif)
        for tag, side in zip((_WIDTH_TAG, _HEIGHT_TAG), size, strict=True):
            if tag in details:
                details[tag] = side
        options["exif"] = exif
    if metadata.xmp:
        options["xmp"] = metadata.xmp
    if metadata.dpi:
        options["dpi"] = metadata.dpi
    return options


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
