"""Pixels as whole numbers, the way every file holds them."""

from __future__ import annotations

import torch
from torch import Tensor


def rounded(pixels: Tensor, depth: int) -> Tensor:
    """Clipped to [0, 1] and rounded to the nearest of 2^depth - 1 steps.

    Args:
        pixels: float of any shape.
        depth: bits a channel, 8 or 16.

    Returns:
        uint8, or uint16 for 16 bits, of the same shape.
    """
    whole = pixels.clamp(0, 1).mul_(2**depth - 1).round_()
    return whole.to(torch.uint8 if depth == 8 else torch.uint16)


def as_float(whole: Tensor) -> Tensor:
    """The opposite of `rounded`: uint8 or uint16 of any shape -> contiguous float32 in [0, 1].

    Pixels that are float already come back as they are.
    """
    if not is_rounded(whole):
        return whole
    steps = 255 if whole.dtype == torch.uint8 else 65535
    # The nearest float32 of 1 / steps, on every way into the networks, so that all agree.
    factor = torch.tensor(1 / steps, dtype=torch.float32, device=whole.device)
    return whole.to(torch.float32, memory_format=torch.contiguous_format).mul_(factor)


def quantise(image: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the 8-bit grid; any shape, float as it was."""
    return (image.clamp(0, 1) * 255).round() / 255


def is_rounded(pixels: Tensor) -> bool:
    """Whether pixels, of any shape, are whole numbers already."""
    return not pixels.is_floating_point()
