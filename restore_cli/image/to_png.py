"""Converts pictures that libvips cannot read to PNG."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from restore_cli.errors import PictureError
from restore_cli.image.colour import with_profile
from restore_cli.image.containers import png_chunk, png_text
from restore_cli.image.formats import MAX_PIXELS
from restore_cli.image.raw_metadata import BROKEN, open_with_pillow, register_heic
from restore_cli.image.vips import VipsImage, interpreted
from restore_cli.image.xmp import XMP_KEYWORD

_PREMULTIPLIED = {"RGBa": "RGBA", "La": "LA"}


def check_pixel_count(width: int, height: int, name: str, max_pixels: int) -> None:
    """Raise a `PictureError` if a picture has too many pixels."""
    if width * height > max_pixels:
        raise PictureError(
            f"'{name}' has {width}x{height} = {width * height:,} pixels, the limit is "
            f"{max_pixels:,}",
            hint="raise --max-pixels if you trust it",
        )


def as_png(data: bytes, key: str, name: str, max_pixels: int) -> bytes:
    """Convert BMP or HEIC to PNG, with Pillow; raises `PictureError` if unreadable or too large."""
    if key == "heic" and (pillow_heif := register_heic()) is None:
        raise PictureError(
            f"'{name}' is HEIC, which needs pillow-heif", hint='pip install "restore-cli[heif]"'
        )
    try:
        if key == "heic" and (deep := _deep_heic(pillow_heif, data, name, max_pixels)):
            return deep
        with open_with_pillow(data, {"bmp": "BMP", "heic": "HEIF"}[key]) as image:
            check_pixel_count(image.width, image.height, name, min(max_pixels, MAX_PIXELS))
            kept = {k: v for k, v in image.info.items() if k in ("icc_profile", "exif", "dpi")}
            if xmp := image.info.get("xmp"):
                kept["pnginfo"] = PngInfo()
                kept["pnginfo"].add_itxt(XMP_KEYWORD, bytes(xmp).decode("utf-8", "replace"))
            buffer = io.BytesIO()
            other = _PREMULTIPLIED.get(image.mode)
            plain = image.convert(other) if other else image
            mode = plain.mode if plain.mode in ("1", "L", "LA", "RGB", "RGBA", "I;16") else "RGB"
            plain.convert(mode).save(buffer, "PNG", compress_level=1, **kept)
    except BROKEN as error:
        raise PictureError(f"cannot read '{name}': {error}") from error
    return buffer.getvalue()


def _deep_heic(pillow_heif: Any, data: bytes, name: str, max_pixels: int) -> bytes | None:
    """Convert a HEIC of more than 8 bits to a 16-bit PNG, as Pillow cannot; None for others."""
    heif = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    if heif.info["bit_depth"] <= 8:
        return None
    width, height = heif.size
    check_pixel_count(width, height, name, min(max_pixels, MAX_PIXELS))
    values = np.asarray(heif)
    if heif.mode.startswith("RGBa"):
        low = 16 - heif.info["bit_depth"]
        values = _unmultiplied(values, (2**16 - 1) >> low << low)
    pillow_heif.set_orientation(heif.info)  # the decoder has applied the orientation
    dots = 72 / 25.4  # dots per millimetre, as viewers assume
    image = interpreted(VipsImage.new_from_array(values), "grey" if values.ndim == 2 else "rgb")
    image = image.copy(xres=dots, yres=dots)
    if profile := heif.info.get("icc_profile"):
        image = with_profile(image, bytes(profile))
    png: bytes = image.pngsave_buffer(compression=1, keep=8)
    exif = bytes(heif.info.get("exif") or b"").removeprefix(b"Exif\0\0")
    chunks = png_chunk(b"eXIf", exif) if exif else b""
    if xmp := heif.info.get("xmp"):
        chunks += png_text(XMP_KEYWORD, bytes(xmp))
    return png[:33] + chunks + png[33:]


def _unmultiplied(values: NDArray[Any], most: int) -> NDArray[Any]:
    """Divide colours (H, W, 4) by alpha, whose largest value is `most`."""
    alpha = np.maximum(values[..., 3:], 1).astype(np.float64)
    colours = np.minimum(values[..., :3] * (most / alpha) + 0.5, most).astype(values.dtype)
    return np.concatenate([colours, values[..., 3:]], -1)
