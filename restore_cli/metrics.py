"""Scores of a restored picture against its reference, with every convention stated."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def psnr(restored: Tensor, reference: Tensor, *, crop: int = 0) -> Tensor:
    """Peak signal-to-noise ratio in dB over all RGB values, peak 1; inf for equal images.

    Args:
        restored: (B, C, H, W) in [0, 1]; quantise first for the score of a saved picture.
        reference: same shape.
        crop: pixels left out along each border.

    Returns:
        (B,) float64.
    """
    error = _inner(restored, crop).double() - _inner(reference, crop).double()
    return -10 * error.square().mean((1, 2, 3)).log10()


def ssim(restored: Tensor, reference: Tensor, *, crop: int = 0) -> Tensor:
    """Structural similarity: 11x11 Gaussian, sigma 1.5, valid region, mean over RGB channels.

    Wang et al. 2004 with C1 = 0.01^2, C2 = 0.03^2, peak 1, per channel: the formula of the
    CNLRN and NTIRE REDS scripts.

    Args:
        restored: (B, C, H, W) in [0, 1], at least 11 pixels a side after the crop.
        reference: same shape.
        crop: pixels left out along each border.

    Returns:
        (B,) float64.
    """
    x, y = _inner(restored, crop).double(), _inner(reference, crop).double()
    t = torch.arange(-5, 6, dtype=torch.float64, device=x.device)
    line = torch.exp(-(t**2) / (2 * 1.5**2))
    line /= line.sum()
    channels = x.shape[1]
    rows = line.reshape(1, 1, -1, 1).repeat(channels, 1, 1, 1)
    columns = line.reshape(1, 1, 1, -1).repeat(channels, 1, 1, 1)

    def smooth(image: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(image, rows, groups=channels), columns, groups=channels)

    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean((1, 2, 3))


def _inner(image: Tensor, crop: int) -> Tensor:
    return image[..., crop:-crop, crop:-crop] if crop else image
