"""Camera response: between the encoded values of a file and linear light."""

from __future__ import annotations

from torch import Tensor


def to_linear(image: Tensor) -> Tensor:
    """sRGB-encoded values in [0, 1] -> linear light in [0, 1] (IEC 61966-2-1)."""
    return (image / 12.92).where(image <= 0.04045, ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def to_encoded(light: Tensor) -> Tensor:
    """Linear light -> sRGB-encoded values; light outside [0, 1] is clipped, as a sensor does."""
    light = light.clamp(0, 1)
    bright = 1.055 * light.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return (light * 12.92).where(light <= 0.0031308, bright)
