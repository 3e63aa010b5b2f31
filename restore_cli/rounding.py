"""Conversion of pixels between float and integers."""

from __future__ import annotations

import torch
from torch import Tensor

from restore_cli.errors import UsageError

_SLACK = 0.01  # tolerated outside [0, 1]: resampled values overshoot


def to_uint(pixels: Tensor, depth: int) -> Tensor:
    """Clip floats of any shape to [0, 1], and round to integers from 0 to 2^depth - 1.

    The depth is 8 or 16 bits per channel; the result is uint8 or uint16, of the same shape.
    """
    whole = pixels.clamp(0, 1).mul_(2**depth - 1).round_()
    return whole.to(torch.uint8 if depth == 8 else torch.uint16)


def to_float(whole: Tensor) -> Tensor:
    """Invert `to_uint`: uint8 or uint16 of any shape to contiguous float32 in [0, 1].

    Float pixels are returned unchanged.
    """
    if whole.is_floating_point():
        return whole
    steps = 255 if whole.dtype == torch.uint8 else 65535
    # Every input of a network is scaled by this float32 factor, so that all results agree.
    factor = torch.tensor(1 / steps, dtype=torch.float32, device=whole.device)
    return whole.to(torch.float32, memory_format=torch.contiguous_format).mul_(factor)


def quantise(image: Tensor) -> Tensor:
    """Clip to [0, 1] and round to multiples of 1/255; the shape and the float dtype are kept."""
    return (image.clamp(0, 1) * 255).round() / 255


def check_range(values: Tensor) -> None:
    """Raise a `UsageError` if floats, of any shape, are not in [0, 1]; its hint is how to scale."""
    if not values.isfinite().all():
        raise UsageError("the picture has values that are not finite")
    low, high = float(values.min()), float(values.max())
    if low >= -_SLACK and high <= 1 + _SLACK:
        return
    peak = next((peak for peak in (2, 255, 65535) if high <= peak), None)
    remedy = f"divide by {peak or high}" if peak != 2 else "clip them"
    if low < -_SLACK:
        remedy = "use (x + 1) / 2" if low >= -1 and high <= 1 else "clip or scale them"
    raise UsageError(f"values from {low:.4g} to {high:.4g} are not in [0, 1]", hint=remedy)
