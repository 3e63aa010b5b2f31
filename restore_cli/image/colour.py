"""Colour profiles: conversion to sRGB for the network, and back to the file's own profile.

Colours outside of sRGB are kept as values below 0 or above 1.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

from restore_cli.image.matrix_profile import (
    D50,
    FROM_XYZ,
    TO_XYZ,
    decode_srgb,
    encode_srgb,
    matrix_profile,
)
from restore_cli.image.vips import BLOB, VipsError, VipsImage, interpreted

Array = NDArray[Any]

_KNEE = 6 / 29  # of CIE Lab


def to_srgb(image: Any, profile: bytes | str) -> Array:
    """Convert the values of a libvips image from a profile to sRGB: (H, W, 3), unbounded.

    The image is grey, RGB or CMYK, of 8 or 16 bits, without alpha. The profile is an ICC profile,
    or libvips' name of a built-in one ("cmyk"). The result is float64 for 16 bits, else float32.
    Raises `VipsError` if the profile is broken, or is for another kind of pixels.
    """
    kind = np.float64 if image.format == "ushort" else np.float32
    matrix = matrix_profile(profile) if isinstance(profile, bytes) else None
    if matrix is not None and image.bands in (1, matrix.channels):
        matrix = matrix.of_grey() if image.bands == 1 else matrix
        numbers = image.numpy().reshape(image.height, image.width, image.bands)
        return matrix.to_srgb(numbers).astype(kind, copy=False)
    if isinstance(profile, bytes):
        image = with_profile(image, profile)
        lab = image.icc_import(embedded=True, intent="relative", pcs="lab")
    else:
        lab = image.icc_import(input_profile=profile, intent="relative", pcs="lab")
    values = _srgb_from_lab(lab.numpy()).astype(kind, copy=False)
    if not np.isfinite(values).all():
        raise VipsError("the profile gives values that are not finite")
    return values


def from_srgb(values: Array, profile: bytes, depth: int, *, grey: bool = False) -> Any:
    """Invert `to_srgb`: (H, W, 3) -> a libvips image of 8 or 16 bits with the profile.

    It has one channel if the original was grey. Raises `VipsError` if the profile is broken, or
    supports only one direction.
    """
    if (matrix := matrix_profile(profile)) is not None:
        matrix = matrix.of_grey() if grey else matrix
        image = VipsImage.new_from_array(matrix.from_srgb(values, depth))
        return with_profile(interpreted(image, "grey" if matrix.channels == 1 else "rgb"), profile)
    lab = VipsImage.new_from_array(_lab_from_srgb(values)).copy(interpretation="lab")
    image = with_profile(lab, profile).icc_export(depth=depth, intent="relative", pcs="lab")
    if grey and image.bands == 3:
        image = interpreted(image.extract_band(1), "grey")
    return image


@lru_cache(maxsize=8)
def is_srgb(profile: bytes, bands: int) -> bool:
    """Whether a profile equals sRGB to within half a step of 8 bits.

    Such pictures need no conversion and keep their exact values.
    """
    if bands == 1:
        grid = np.arange(256, dtype=np.uint8)[None, :, None]
    elif bands == 3:
        steps = np.linspace(0, 255, 9).round().astype(np.uint8)
        grid = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
    else:
        return False
    image = VipsImage.new_from_array(np.ascontiguousarray(grid))
    image = interpreted(image, "grey" if bands == 1 else "rgb")
    try:
        values = to_srgb(image, profile)
        there = from_srgb(values, profile, 8, grey=bands == 1)
        back = there.numpy().reshape(grid.shape)
    except VipsError:
        return False
    converted = values * 255
    # Converted values err by up to 1 in the darkest colours, so the inverse is checked as well.
    return bool(np.abs(converted - grid).max() < 1.5) and bool(
        np.abs(converted - grid).mean() < 0.25 and np.abs(back - grid.astype(float)).max() <= 1
    )


@lru_cache(maxsize=8)
def profile_state(profile: bytes) -> str:
    """Return the directions of a profile: "both", "in" (only to sRGB, e.g. scanners) or "broken".

    libvips silently replaces a broken profile by another one. LittleCMS accepts truncated ones.
    """
    if int.from_bytes(profile[:4], "big") > len(profile) + 3:  # 3 for forgotten padding
        return "broken"
    try:
        ImageCms.ImageCmsProfile(io.BytesIO(profile))
    except (OSError, ImageCms.PyCMSError):
        return "broken"
    try:
        from_srgb(np.full((1, 1, 3), 0.5, np.float32), profile, 8).numpy()
    except VipsError:
        return "in"
    return "both"


def with_profile(image: Any, profile: bytes) -> Any:
    """Return a copy of a libvips image with a profile attached."""
    image = image.copy()
    image.set_type(BLOB, "icc-profile-data", profile)
    return image


def _srgb_from_lab(lab: NDArray[np.float32]) -> Array:
    middle = (lab[..., :1] + 16) / 116
    steps = np.concatenate([middle + lab[..., 1:2] / 500, middle, middle - lab[..., 2:] / 200], -1)
    xyz = np.where(steps > _KNEE, steps**3, 3 * _KNEE**2 * (steps - 4 / 29)) * D50
    return encode_srgb(xyz @ FROM_XYZ.T)


def _lab_from_srgb(values: Array) -> NDArray[np.float32]:
    xyz = decode_srgb(values) @ TO_XYZ.T / D50
    steps = np.where(xyz > _KNEE**3, np.cbrt(xyz), xyz / (3 * _KNEE**2) + 4 / 29)
    x, y, z = np.moveaxis(steps, -1, 0)
    lab: NDArray[np.float32] = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(
        np.float32
    )
    return lab
