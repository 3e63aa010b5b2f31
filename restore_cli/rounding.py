"""Conversion of pixels between float and integers."""

from __future__ import annotations

import torch
from torch import Tensor


def to_uint(pixels: Tensor, depth: int) -> Tensor:
    """Clip to [0, 1] and round to integers from 0 to 2^depth - 1.

    Args:
        pixels: float of any shape.
        depth: bits per channel, 8 or 16.

    Returns:
        uint8, or uint16 for 16 bits, of the same shape.
    """
    whole = pixels.clamp(0, 1).mul_(2**depth - 1).round_()
    return whole.to(torch.uint8 if depth == 8 else torch.uint16)


def to_float(whole: Tensor) -> Tensor:
    """The inverse of `to_uint`: uint8 or uint16 of any shape -> contiguous float32 in [0, 1].

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
