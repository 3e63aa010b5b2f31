"""Colour profiles: to sRGB for the network, back to the file's own profile afterwards.

Values outside of sRGB are kept: they come out below 0 or above 1.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ImageCms

from restore_cli.image.vips import BLOB, VipsError, VipsImage

Array = NDArray[np.float32]

# Linear sRGB to XYZ, adapted to D50 by Bradford: IEC 61966-2-1 with the profile connection space
# of ICC.1:2022; the columns are the colorants of the sRGB profile.
_TO_XYZ = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ],
    np.float32,
)
_FROM_XYZ = np.linalg.inv(_TO_XYZ)
_D50 = np.array([0.9642, 1.0, 0.8249], np.float32)
_KNEE = 6 / 29  # of CIE Lab


def to_srgb(image: Any, profile: bytes | str) -> Array:
    """Values of an image in a profile as sRGB.

    Args:
        image: libvips image of grey, RGB or CMYK, 8 or 16 bits, without alpha.
        profile: ICC profile, or libvips' name of a built-in one ("cmyk").

    Returns:
        (H, W, 3), unbounded.

    Raises:
        VipsError: the profile is broken, or is not for such pixels.
    """
    if isinstance(profile, bytes):
        image = with_profile(image, profile)
        lab = image.icc_import(embedded=True, intent="relative", pcs="lab")
    else:
        lab = image.icc_import(input_profile=profile, intent="relative", pcs="lab")
    values = _srgb_from_lab(lab.numpy())
    if not np.isfinite(values).all():
        raise VipsError("the profile gives values that are not finite")
    return values


def from_srgb(values: Array, profile: bytes, depth: int) -> Any:
    """The opposite of `to_srgb`.

    Args:
        values: (H, W, 3).
        profile: ICC profile.
        depth: bits a channel, 8 or 16.

    Returns:
        libvips image in the colours of the profile, which it carries.

    Raises:
        VipsError: the profile is broken, or works in one direction only.
    """
    lab = VipsImage.new_from_array(_lab_from_srgb(values)).copy(interpretation="lab")
    return with_profile(lab, profile).icc_export(depth=depth, intent="relative", pcs="lab")


@lru_cache(maxsize=8)
def is_srgb(profile: bytes, bands: int) -> bool:
    """Whether a profile says of every colour what sRGB says, to half a step of 8 bits.

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
    image = image.copy(interpretation="b-w" if bands == 1 else "srgb")
    try:
        values = to_srgb(image, profile)
        there = from_srgb(values, profile, 8)
        if there.bands != bands:  # a grey picture under a profile for RGB
            there = there.extract_band(1)
        back = there.numpy().reshape(grid.shape)
    except VipsError:
        return False
    converted = values * 255
    # Converted values err by up to 1 in the darkest colours, so the way back is asked as well.
    return bool(np.abs(converted - grid).max() < 1.5) and bool(
        np.abs(converted - grid).mean() < 0.25 and np.abs(back - grid.astype(float)).max() <= 1
    )


@lru_cache(maxsize=8)
def profile_state(profile: bytes) -> str:
    """What a profile is good for: "both" ways, "in" (only to sRGB, as of scanners), or "broken".

    libvips itself takes another profile for a broken one, without a word.
    """
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
    """A copy of a libvips image that carries a profile."""
    image = image.copy()
    image.set_type(BLOB, "icc-profile-data", profile)
    return image


def _srgb_from_lab(lab: Array) -> Array:
    middle = (lab[..., :1] + 16) / 116
    steps = np.concatenate([middle + lab[..., 1:2] / 500, middle, middle - lab[..., 2:] / 200], -1)
    xyz = np.where(steps > _KNEE, steps**3, 3 * _KNEE**2 * (steps - 4 / 29)) * _D50
    linear = xyz @ _FROM_XYZ.T
    magnitude = np.abs(linear)
    curve = 1.055 * magnitude ** np.float32(1 / 2.4) - 0.055
    encoded = np.where(magnitude <= 0.0031308, 12.92 * magnitude, curve)
    result: Array = np.copysign(encoded, linear).astype(np.float32)
    return result


def _lab_from_srgb(values: Array) -> Array:
    magnitude = np.abs(values)
    curve = ((magnitude + 0.055) / 1.055) ** np.float32(2.4)
    linear = np.copysign(np.where(magnitude <= 0.04045, magnitude / 12.92, curve), values)
    xyz = linear @ _TO_XYZ.T / _D50
    steps = np.where(xyz > _KNEE**3, np.cbrt(xyz), xyz / (3 * _KNEE**2) + 4 / 29)
    x, y, z = np.moveaxis(steps, -1, 0)
    result: Array = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1).astype(np.float32)
    return result
