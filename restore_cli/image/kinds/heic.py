"""heic, read only: needs the extra `heif`."""

from __future__ import annotations

import io
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_cli.errors import PictureError
from restore_cli.image import heif
from restore_cli.image.colour import with_profile
from restore_cli.image.containers import png_chunk, png_text, read_heif
from restore_cli.image.content import MAX_PIXELS
from restore_cli.image.format_spec import Format
from restore_cli.image.kinds import png
from restore_cli.image.raw_metadata import BROKEN, RawMetadata, register_heic
from restore_cli.image.to_png import check_pixel_count, load_as_png, size_with_pillow
from restore_cli.image.vips import UNREADABLE, VipsImage, first_line, interpreted, load_with_vips
from restore_cli.image.xmp import XMP_KEYWORD


def _load(data: bytes, name: str, max_pixels: int, **options: Any) -> tuple[Any, bytes]:
    if (pillow_heif := register_heic()) is None:
        raise PictureError(
            f"'{name}' is HEIC, which needs pillow-heif", hint='pip install "restore-cli[heif]"'
        )
    try:
        deep = _deep_heic(pillow_heif, data, name, max_pixels)
    except BROKEN as error:
        reason = first_line(error)
        raise PictureError(f"cannot read '{name}': {reason}", hint=UNREADABLE) from error
    if deep is None:
        return load_as_png("HEIF", data, name, max_pixels, **options)
    return load_with_vips("png", deep, name, max_pixels, **options)


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


def _read_metadata(parts: RawMetadata, content: bytes, data: bytes) -> None:
    png.read_metadata(parts, content, data)
    heif.read_aspect(parts, data)


def _bits(_: Any, data: bytes) -> int:
    pixi = next(iter(read_heif(data).of_primary(b"pixi")), b"")
    return pixi[5] if len(pixi) > 5 else 16


FORMAT = Format(
    name="HEIC",
    recognise=lambda head: heif.brand(head) == "heic",
    read_suffixes=(".heic", ".heif", ".hif"),  # the last is of cameras
    load=_load,
    read_size=partial(size_with_pillow, "HEIF"),
    upright=True,
    orientation=heif.orientation,
    has_more=heif.has_more,
    bits=_bits,
    ends_early=heif.ends_early,
    read_metadata=_read_metadata,
    exif_resolution=True,
    colours=heif.colours,
    inventory=heif.inventory,
    end=heif.end,
)
