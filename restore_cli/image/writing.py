"""Encodes pixels as files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from restore_cli.errors import PictureError, UsageError
from restore_cli.files import write_then_rename, writing
from restore_cli.image.colour import from_srgb, with_profile
from restore_cli.image.formats import FORMATS
from restore_cli.image.inventory import loss_notes, take_inventory
from restore_cli.image.matrix_profile import with_channels
from restore_cli.image.metadata import attach_metadata, update_metadata
from restore_cli.image.picture import Picture
from restore_cli.image.vips import VipsError, VipsImage, first_line, interpreted
from restore_cli.rounding import to_float, to_uint


@dataclass(frozen=True, slots=True)
class Encoding:
    """How to write a picture."""

    format: str = ""  #: key of `formats.FORMATS`; "" for the picture's own
    #: 1 to 100 for JPEG, WebP and AVIF; None for JPEG 95 and AVIF 90, both with full chroma, and
    #: lossless WebP
    quality: int | None = None
    lossless: bool = False  #: whether WebP and AVIF are lossless, whatever the quality
    depth: int | None = None  #: bits per channel, 8 or 16; None for the picture's own
    #: "all"; "standard" for all but the embedded preview, which shows the unrestored picture;
    #: "private" for "standard" without GPS, serial numbers, owners and maker notes; or "none"
    metadata: str = "standard"
    provenance: tuple[tuple[str, str], ...] = ()  #: facts about how the picture was made, for XMP

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise UsageError(f"quality {self.quality} is not from 1 to 100")
        if self.depth not in (None, 8, 16):
            raise UsageError(f"depth {self.depth} is neither 8 nor 16")


def write_image(path: Path, picture: Picture, encoding: Encoding) -> tuple[str, ...]:
    """Encode a picture and write it atomically; return notes on what the format cannot hold.

    The folder is created if needed. Raises `PictureError` if the format cannot hold the picture, or
    the file cannot be written.
    """
    data, notes = encode(picture, encoding, str(path))
    write_file(path, data)
    return notes


def write_file(
    path: Path, data: bytes, commit: Callable[[Path, Path], object] = os.replace
) -> None:
    """Write a file with `write_then_rename`; raises `PictureError` if it cannot be written."""
    with writing(path, PictureError), write_then_rename(path, commit) as temporary:
        temporary.write_bytes(data)


def encode(picture: Picture, encoding: Encoding, name: str) -> tuple[bytes, tuple[str, ...]]:
    """Encode a picture; return the bytes, and notes on what the format cannot hold.

    Values outside [0, 1] are clipped after conversion to the profile, then rounded. Raises
    `PictureError` if the format cannot hold the picture; messages contain `name`.
    """
    encoding = replace(encoding, format=encoding.format or picture.default_format)
    check_fits_format(
        name, *picture.size, encoding.format, alpha=picture.alpha is not None, hdr=picture.hdr
    )
    key, kind = encoding.format, FORMATS[encoding.format]
    wanted = encoding.depth or picture.depth
    depth = stored_depth(wanted, key)
    notes = _limits(picture, encoding)
    if picture.colours == "cmyk" and not kind.cmyk:
        metadata = replace(picture.metadata, icc_profile=None)
        picture = replace(picture, colours="rgb", metadata=metadata)
    if picture.grey and not kind.grey and picture.metadata.icc_profile:
        picture, more = _as_rgb(picture, key)
        notes += more
    try:
        image = _image(picture, depth)
        height, width = picture.size
        metadata, packet = update_metadata(
            picture.metadata,
            encoding.provenance,
            kind,
            level=encoding.metadata,
            height=height,
            width=width,
        )
        image, keep = attach_metadata(image, metadata, kind, packet)
        file = BytesIO()
        assert kind.save is not None  # it is one of FORMATS
        kind.save(file, image, keep, encoding.quality, encoding.lossless, depth)
        kind.embed(file, metadata, packet)
    except VipsError as error:
        raise PictureError(f"cannot encode '{name}': {first_line(error)}") from error
    data = file.getvalue()
    gone = loss_notes(
        picture.metadata.inventory, take_inventory(data, key), level=encoding.metadata
    )
    return data, (*notes, *gone)


def _as_rgb(picture: Picture, key: str) -> tuple[Picture, list[str]]:
    """Return a grey picture with a profile as one of three channels, and notes."""
    profile = with_channels(picture.metadata.icc_profile or b"", 3)
    pixels = to_float(picture.pixels).mean(1, keepdim=True).expand(-1, 3, -1, -1)
    metadata = replace(picture.metadata, icc_profile=profile)
    if profile is not None:
        return replace(picture, grey=False, pixels=pixels, metadata=metadata), []
    converted = picture.colours == "profile"
    how = "it was written as sRGB" if converted else "the profile was left out"
    return replace(picture, grey=False, pixels=pixels, metadata=metadata, colours="rgb"), [
        f"{key} cannot hold its profile for grey; {how}"
    ]


def stored_depth(wanted: int, key: str) -> int:
    """Return the bits per channel, 8 or 16, that a format stores for the wanted depth."""
    return 16 if min(wanted, FORMATS[key].depth) > 8 else 8


def _limits(picture: Picture, encoding: Encoding) -> list[str]:
    """Return notes on options and properties that the format does not support."""
    key, kind, notes = encoding.format, FORMATS[encoding.format], []
    real = encoding.depth or picture.source_bits or picture.depth
    if real > kind.depth:
        notes.append(f"{key} has {kind.depth} bits per channel, not {real}")
    elif (picture.source_bits or 8) > 8 and encoding.depth == 8:
        notes.append(f"{picture.source_bits} bits per channel were reduced to 8")
    if not kind.colour_chunks and picture.metadata.colour and picture.metadata.icc_profile:
        names = ", ".join(chunk.decode("ascii", "replace") for chunk, _ in picture.metadata.colour)
        notes.append(f"its {names} were converted to a colour profile")
    if picture.colours == "cmyk" and not kind.cmyk:
        notes.append(f"{key} cannot hold CMYK; it was written as sRGB")
    if encoding.lossless and not kind.has_lossless:
        notes.append(f"{key} cannot be lossless, so --lossless has no effect")
    if encoding.quality is not None and not kind.has_quality:
        notes.append(f"{key} is lossless, so --quality has no effect")
    return notes


def check_fits_format(
    name: str, height: int, width: int, key: str, *, alpha: bool, hdr: str = ""
) -> None:
    """Raise a `PictureError` if a format cannot hold a picture's size, transparency or HDR."""
    if hdr and not FORMATS[key].colour_chunks:
        raise PictureError(
            f"'{name}' has high dynamic range ({hdr}), which can be written only as PNG",
            hint="use --format png, which keeps its transfer, primaries and depth",
        )
    if max(height, width) > FORMATS[key].longest_side:
        raise PictureError(
            f"'{name}': {width}x{height} is larger than {key} can hold", hint="use --format png"
        )
    if alpha and not FORMATS[key].alpha:
        raise PictureError(
            f"'{name}' has transparency, which {key} cannot hold",
            hint="use --format png or webp, or --alpha drop",
        )


def _image(picture: Picture, depth: int) -> Any:
    """Return the rounded values as a libvips image, converted to the profile."""
    profile = picture.metadata.icc_profile
    if picture.colours == "rgb" or profile is None:
        pixels = picture.pixels
        if picture.grey:
            pixels = to_float(pixels).mean(1, keepdim=True)
        image = VipsImage.new_from_array(_integers(pixels, depth))
        image = interpreted(image, "grey" if picture.grey else "rgb")
        if profile is not None:
            image = with_profile(image, profile)
    else:
        values = picture.pixels[0].permute(1, 2, 0).numpy()
        image = from_srgb(values, profile, depth, grey=picture.grey)
    if picture.alpha is None:
        return image
    return image.bandjoin(VipsImage.new_from_array(_integers(picture.alpha, depth)))


def _integers(pixels: Tensor, depth: int) -> NDArray[Any]:
    """(1, C, H, W), float in [0, 1] or integers -> (H, W, C) integers."""
    if pixels.dtype != (torch.uint8 if depth == 8 else torch.uint16):
        pixels = to_uint(to_float(pixels), depth)
    array: NDArray[Any] = pixels[0].permute(1, 2, 0).numpy()
    return np.ascontiguousarray(array)
