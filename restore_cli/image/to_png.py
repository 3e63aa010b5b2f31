"""Converts pictures that libvips cannot read to PNG."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL.PngImagePlugin import PngInfo

from restore_cli.errors import PictureError
from restore_cli.image.content import MAX_PIXELS
from restore_cli.image.raw_metadata import BROKEN, open_with_pillow, register_heic
from restore_cli.image.vips import UNREADABLE, first_line, load_with_vips
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


def load_as_png(
    plugin: str, data: bytes, name: str, max_pixels: int, **options: Any
) -> tuple[Any, bytes]:
    """Convert a file to PNG by a plugin of Pillow, and read its header, for `Format.load`.

    Raises `PictureError` if it is unreadable or too large.
    """
    try:
        with open_with_pillow(data, plugin) as image:
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
        reason = first_line(error)
        raise PictureError(f"cannot read '{name}': {reason}", hint=UNREADABLE) from error
    return load_with_vips("png", buffer.getvalue(), name, max_pixels, **options)


def size_with_pillow(plugin: str, path: Path) -> tuple[int, int]:
    """Return height and width of a file, by a plugin of Pillow; raises `BROKEN` errors."""
    register_heic()
    with open_with_pillow(path, plugin) as image:
        return image.height, image.width
