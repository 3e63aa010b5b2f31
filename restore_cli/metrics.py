"""Scores of a restored picture against its reference, with every convention stated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

RADIUS = 5  # radius of the 11x11 window
# Rows that are scored at a time, so that buffers stay in the cache. When whole pictures of 1280x720
# were scored at once, three fifths of the time were page faults.
STRIP = 32


def psnr(restored: Tensor, reference: Tensor, *, crop: int = 0) -> Tensor:
    """Compute the peak signal-to-noise ratio in dB over all RGB values, peak 1; inf if equal.

    Of two (B, C, H, W) in [0, 1], without `crop` pixels along each border -> (B,) float64. Quantise
    first for the score of a saved picture.
    """
    x, y = _inner(restored, crop), _inner(reference, crop)
    strips = [slice(top, top + STRIP) for top in range(0, x.shape[2], STRIP)]
    errors = [(x[:, :, s].double() - y[:, :, s].double()).square().sum((1, 2, 3)) for s in strips]
    return -10 * (torch.stack(errors).sum(0) / x[0].numel()).log10()


def ssim(restored: Tensor, reference: Tensor, *, crop: int = 0) -> Tensor:
    """Compute structural similarity: 11x11 Gaussian, sigma 1.5, valid region, mean over channels.

    Wang et al. 2004 with C1 = 0.01^2, C2 = 0.03^2, peak 1, per channel: the formula of the
    CNLRN and NTIRE REDS scripts. Of two (B, C, H, W) in [0, 1], at least 11 pixels a side without
    `crop` pixels along each border -> (B,) float64.
    """
    return _mean_similarity(_inner(restored, crop), _inner(reference, crop))


def ssim_map(restored: Tensor, reference: Tensor) -> Tensor:
    """Compute SSIM per channel and pixel of the valid region, (B, C, H - 10, W - 10) float64.

    `restored` and `reference` are (B, C, H, W) in [0, 1], with H and W of at least 11.
    """
    scores: Tensor = _similarity(restored.double(), reference.double(), _smooth_valid)
    return scores


def ssim_volume(restored: Tensor, reference: Tensor, *, crop: int = 0) -> Tensor:
    """Compute SSIM like MATLAB's `ssim` on an H x W x 3 array, which it treats as a volume.

    11x11x11 Gaussian, sigma 1.5, replicated borders, mean over the whole map. It is much higher
    than `ssim` on noise, so the two are not comparable. Computed in float64; the Python emulation
    of HINet and TLC, whose float32 sums of 1331 terms round down, gives up to 2.6e-6 more on the
    test pictures. Not checked against MATLAB. Of two (B, 3, H, W) in [0, 1], without `crop` pixels
    along each border -> (B,) float64.
    """
    pairs = zip(_inner(restored, crop).cpu(), _inner(reference, crop).cpu(), strict=True)
    return torch.tensor(
        [_mean_in_strips(*pair, volume=True) for pair in pairs], dtype=torch.float64
    )


MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Analysis low-pass of the biorthogonal 9/7 wavelet (Cohen, Daubechies and Feauveau).
LOW_PASS = (0.0378, -0.0238, -0.1106, 0.3774, 0.8527, 0.3774, -0.1106, -0.0238, 0.0378)


def ms_ssim(restored: Tensor, reference: Tensor) -> Tensor:
    """Compute five-scale SSIM (Wang et al. 2003) with the 9/7 low-pass and symmetric borders.

    As in the evaluation of Koehler et al.: the product of the contrast-structure terms of four
    scales and the full SSIM of the smallest, each to the power of its weight. Of two (B, C, H, W)
    in [0, 1], at least 176 pixels a side -> (B,) float64.
    """
    x, y = restored.double(), reference.double()
    product = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for level, weight in enumerate(MS_WEIGHTS):
        last = level == len(MS_WEIGHTS) - 1
        score = _mean_similarity(x, y, whole=last)
        product = product * score.clamp(min=0) ** weight
        if not last:
            x, y = _halved(x), _halved(y)
    return product


def studio_luma(image: Tensor) -> Tensor:
    """Convert (B, 3, H, W) in [0, 1] to Y' of ITU-R BT.601 in studio range, (B, 1, H, W), peak 1.

    As MATLAB's `rgb2ycbcr`.
    """
    weights = image.new_tensor([65.481, 128.553, 24.966]).reshape(1, 3, 1, 1)
    return ((image * weights).sum(1, keepdim=True) + 16) / 255


def rec601_luma(image: Tensor) -> Tensor:
    """Compute .299 R + .587 G + .114 B of (B, 3, H, W), as (B, 1, H, W)."""
    weights = image.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def _mean_similarity(x: Tensor, y: Tensor, *, whole: bool = True) -> Tensor:
    """Average SSIM over all channels and pixels, (B,) float64."""
    if x.requires_grad or y.requires_grad or x.device.type != "cpu":
        scores: Tensor = _similarity(_wide(x), _wide(y), _smooth_valid, whole=whole)
        return _wide(scores.mean((1, 2, 3)))
    means = [_mean_in_strips(*pair, whole=whole) for pair in zip(x, y, strict=True)]
    return torch.tensor(means, dtype=torch.float64)


def _mean_in_strips(x: Tensor, y: Tensor, *, volume: bool = False, whole: bool = True) -> float:
    """Average SSIM of one pair (C, H, W) on the CPU, in float64, by OpenCV's separable filter."""
    line = _gaussian(torch.empty(0, dtype=torch.float64)).numpy()
    pictures = [image.permute(1, 2, 0).numpy() for image in (x, y)]
    mixing = None
    if volume:  # there are few channels, so the filter along them is a matrix
        channels = pictures[0].shape[2]
        depth = np.pad(np.eye(channels), ((RADIUS, RADIUS), (0, 0)), mode="edge")
        mixing = np.stack([line @ depth[c : c + 2 * RADIUS + 1] for c in range(channels)])
        around = ((RADIUS, RADIUS), (RADIUS, RADIUS), (0, 0))
        pictures = [np.pad(picture, around, mode="edge") for picture in pictures]

    def smooth(strip: Any) -> Any:
        strip = strip if mixing is None else cv2.transform(strip, mixing)
        return cv2.sepFilter2D(strip, -1, line, line)[RADIUS:-RADIUS, RADIUS:-RADIUS]

    total, count = 0.0, 0
    for top in range(0, len(pictures[0]) - 2 * RADIUS, STRIP):
        rows = slice(top, top + STRIP + 2 * RADIUS)
        a, b = (np.ascontiguousarray(picture[rows], np.float64) for picture in pictures)
        scores = _similarity(a, b, smooth, whole=whole)
        total, count = total + float(scores.sum()), count + scores.size
    return total / count


def _similarity(x: Any, y: Any, smooth: Callable[[Any], Any], *, whole: bool = True) -> Any:
    """Compute SSIM of every pixel, for tensors or arrays, depending on the filter."""
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    if not whole:
        return structure
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * structure


def _gaussian(like: Tensor) -> Tensor:
    t = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float64)
    line = torch.exp(-(t**2) / (2 * 1.5**2))
    return (line / line.sum()).to(like.device, like.dtype)


def _smooth_valid(image: Tensor) -> Tensor:
    return _filtered(image, _gaussian(image))


def _filtered(image: Tensor, line: Tensor) -> Tensor:
    """Apply a separable filter, valid region."""
    channels = image.shape[1]
    rows = line.reshape(1, 1, -1, 1).repeat(channels, 1, 1, 1)
    columns = line.reshape(1, 1, 1, -1).repeat(channels, 1, 1, 1)
    return F.conv2d(F.conv2d(image, rows, groups=channels), columns, groups=channels)


def _halved(image: Tensor) -> Tensor:
    """Low-pass filter with half-sample symmetric borders, then subsample by 2."""
    line = torch.tensor(LOW_PASS, dtype=torch.float64, device=image.device)
    for dim in (-2, -1):
        first, last = image.narrow(dim, 0, 4), image.narrow(dim, image.shape[dim] - 4, 4)
        image = torch.cat([first.flip(dim), image, last.flip(dim)], dim)
    return _filtered(image, line / line.sum())[..., ::2, ::2]


def _wide(image: Tensor) -> Tensor:
    """Convert to float64, or to float32 on mps, which lacks float64."""
    return image.float() if image.device.type == "mps" else image.double()


def _inner(image: Tensor, crop: int) -> Tensor:
    return image[..., crop:-crop, crop:-crop] if crop else image
