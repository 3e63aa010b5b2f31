"""Sensor noise and the 8-bit grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def add_noise(light: Tensor, shot: Tensor, read: Tensor, seeds: list[int]) -> Tensor:
    """Poisson-Gaussian noise in its normal approximation: variance shot * light + read^2.

    Args:
        light: (B, C, H, W) linear light.
        shot: (B,) variance per unit of light.
        read: (B,) standard deviation in the dark.
        seeds: one per image, for the noise field.

    Returns:
        (B, C, H, W), may leave [0, 1].
    """
    shape = tuple(light.shape[1:])
    fields = [np.random.default_rng(seed).standard_normal(shape, np.float32) for seed in seeds]
    field = torch.from_numpy(np.stack(fields)).to(light)
    variance = shot[:, None, None, None] * light.clamp_min(0) + read[:, None, None, None] ** 2
    return light + field * variance.sqrt()


def quantise(image: Tensor) -> Tensor:
    """Clip to [0, 1] and round to the 8-bit grid; any shape."""
    return (image.clamp(0, 1) * 255).round() / 255
