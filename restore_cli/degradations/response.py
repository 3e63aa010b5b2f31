"""Camera responses: conversion between the encoded values of a file and linear light.

Blur is a mean of light, so it is computed in linear light, where white is 1.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Response = Literal["linear", "gamma2.2", "srgb", "reds"]

_REDS = Path(__file__).parent / "reds_response.csv"


def to_linear(image: Tensor, response: Response = "srgb") -> Tensor:
    """Convert encoded values to linear light in [0, 1].

    Args:
        image: (B, 3, H, W); clipped to [0, 1].
        response: `linear`: none, as in GoPro's `blur`; `gamma2.2`: as in its `blur_gamma`; `srgb`:
            IEC 61966-2-1; `reds`: the camera of REDS, as measured by its authors.
    """
    image = image.clamp(0, 1)
    if response == "gamma2.2":
        return image**2.2
    if response == "srgb":
        return (image / 12.92).where(image <= 0.04045, ((image + 0.055) / 1.055) ** 2.4)
    if response == "reds":
        return _look_up(image, *_reds_table())
    return image


def to_encoded(linear: Tensor, response: Response = "srgb") -> Tensor:
    """Invert `to_linear`, for any shape; light is clipped to [0, 1], as by a sensor."""
    linear = linear.clamp(0, 1)
    if response == "gamma2.2":
        return linear ** (1 / 2.2)
    if response == "srgb":
        bright = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
        return (linear * 12.92).where(linear <= 0.0031308, bright)
    if response == "reds":
        encoded, table = _reds_table()
        return _look_up(linear, table, encoded)
    return linear


@cache
def _reds_table() -> tuple[Tensor, Tensor]:
    """Return (3, 256) encoded values and linear light, both increasing.

    The measured curve is noisy: where it does not increase (2 of 768 steps), it is interpolated
    linearly.
    """
    exposure = np.loadtxt(_REDS, delimiter=",").T
    codes = np.arange(256)
    linear = np.empty(exposure.shape)
    for channel, curve in enumerate(exposure):
        after = np.append(np.minimum.accumulate(curve[::-1])[::-1][1:], np.inf)
        rising = curve < after
        linear[channel] = np.interp(codes, codes[rising], curve[rising]) / curve.max()
    encoded = np.ascontiguousarray(np.broadcast_to(codes / 255, linear.shape))
    return torch.from_numpy(encoded), torch.from_numpy(linear)


def _look_up(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Interpolate linearly in a table (3, N) per channel of (B, 3, H, W), clamped at its ends."""
    exact = torch.float32 if x.device.type == "mps" else torch.float64  # which MPS lacks
    places, values = places.to(x.device, exact), values.to(x.device, exact)
    channels = x.transpose(0, 1).reshape(3, -1).to(places.dtype)
    high = torch.searchsorted(places, channels.contiguous()).clamp(1, places.shape[1] - 1)
    low = high - 1
    start, stop = places.gather(1, low), places.gather(1, high)
    weight = ((channels - start) / (stop - start)).clamp(0, 1)
    found = torch.lerp(values.gather(1, low), values.gather(1, high), weight).to(x.dtype)
    return found.reshape(3, x.shape[0], *x.shape[2:]).transpose(0, 1).contiguous()
