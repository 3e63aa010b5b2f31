"""Scores of a restored picture against its reference, with every convention stated."""

from __future__ import annotations

from collections.abc import Callable

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
    """Structural similarity: 11x11 Gaussian, sigma 1.5, valid region, mean over channels.

    Wang et al. 2004 with C1 = 0.01^2, C2 = 0.03^2, peak 1, per channel: the formula of the
    CNLRN and NTIRE REDS scripts.

    Args:
        restored: (B, C, H, W) in [0, 1], at least 11 pixels a side after the crop.
        reference: same shape.
        crop: pixels left out along each border.

    Returns:
        (B,) float64.
    """
    x, y = (_wide(_inner(image, crop)) for image in (restored, reference))
    return _similarity(x, y, _smooth_valid).mean((1, 2, 3))


def ssim_map(restored: Tensor, reference: Tensor) -> Tensor:
    """SSIM per channel and pixel of the valid region, (B, C, H - 10, W - 10) float64."""
    return _similarity(restored.double(), reference.double(), _smooth_valid)


def ssim_volume(restored: Tensor, reference: Tensor, *, crop: int = 0) -> Tensor:
    """SSIM of MATLAB's `ssim` on an H x W x 3 array, which it takes for a volume.

    11x11x11 Gaussian, sigma 1.5, replicated borders, the mean over the whole map. Much higher than
    `ssim` on noise: the two are not comparable. As HINet's and TLC's Python emulation (float32,
    peak 255: float64 gives 2.5e-6 less on the unit pictures); not checked against MATLAB.

    Args:
        restored: (B, 3, H, W) in [0, 1].
        reference: same shape.
        crop: pixels left out along each border.

    Returns:
        (B,) float64.
    """
    x, y = (_inner(image, crop).float() * 255 for image in (restored, reference))
    return _similarity(x, y, _smooth_volume, peak=255).mean((1, 2, 3)).double()


MS_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
# Analysis low-pass of the biorthogonal 9/7 wavelet (Cohen, Daubechies and Feauveau).
LOW_PASS = (0.0378, -0.0238, -0.1106, 0.3774, 0.8527, 0.3774, -0.1106, -0.0238, 0.0378)


def ms_ssim(restored: Tensor, reference: Tensor) -> Tensor:
    """Five-scale SSIM (Wang et al. 2003), shrunk by the 9/7 low-pass with symmetric borders.

    As the evaluation of Koehler et al. has it: contrast-structure of four scales, the whole SSIM of
    the smallest, each to its weight.

    Args:
        restored: (B, C, H, W) in [0, 1], at least 176 pixels a side.
        reference: same shape.

    Returns:
        (B,) float64.
    """
    x, y = restored.double(), reference.double()
    product = torch.ones(len(x), dtype=torch.float64, device=x.device)
    for level, weight in enumerate(MS_WEIGHTS):
        last = level == len(MS_WEIGHTS) - 1
        score = _similarity(x, y, _smooth_valid, whole=last).mean((1, 2, 3))
        product = product * score.clamp(min=0) ** weight
        if not last:
            x, y = _halved(x), _halved(y)
    return product


def luma(image: Tensor) -> Tensor:
    """Y' of ITU-R BT.601 in studio range, (B, 1, H, W): MATLAB's `rgb2ycbcr`, peak 1.

    Args:
        image: (B, 3, H, W) in [0, 1].
    """
    weights = image.new_tensor([65.481, 128.553, 24.966]).reshape(1, 3, 1, 1)
    return ((image * weights).sum(1, keepdim=True) + 16) / 255


def luminance(image: Tensor) -> Tensor:
    """.299 R + .587 G + .114 B, (B, 1, H, W)."""
    weights = image.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def _similarity(
    x: Tensor,
    y: Tensor,
    smooth: Callable[[Tensor], Tensor],
    *,
    whole: bool = True,
    peak: float = 1.0,
) -> Tensor:
    mean_x, mean_y = smooth(x), smooth(y)
    var_x, var_y = smooth(x * x) - mean_x**2, smooth(y * y) - mean_y**2
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    if not whole:
        return structure
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * structure


def _gaussian(like: Tensor) -> Tensor:
    t = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(t**2) / (2 * 1.5**2))
    return (line / line.sum()).to(like.device, like.dtype)


def _smooth_valid(image: Tensor) -> Tensor:
    line, channels = _gaussian(image), image.shape[1]
    rows = line.reshape(1, 1, -1, 1).repeat(channels, 1, 1, 1)
    columns = line.reshape(1, 1, 1, -1).repeat(channels, 1, 1, 1)
    return F.conv2d(F.conv2d(image, rows, groups=channels), columns, groups=channels)


def _smooth_volume(image: Tensor) -> Tensor:
    line = _gaussian(image)
    kernel = torch.einsum("i,j,k->ijk", line, line, line)[None, None]
    volume = image.permute(0, 2, 3, 1)[:, None]  # (B, 1, H, W, C)
    padded = F.pad(volume, (5, 5, 5, 5, 5, 5), mode="replicate")
    return F.conv3d(padded, kernel)[:, 0].permute(0, 3, 1, 2)


def _halved(image: Tensor) -> Tensor:
    """Low-passed with half-sample symmetric borders, then every second pixel."""
    line = torch.tensor(LOW_PASS, dtype=torch.float64, device=image.device)
    line, channels = line / line.sum(), image.shape[1]
    rows = line.reshape(1, 1, -1, 1).repeat(channels, 1, 1, 1)
    columns = line.reshape(1, 1, 1, -1).repeat(channels, 1, 1, 1)
    for dim in (-2, -1):
        first, last = image.narrow(dim, 0, 4), image.narrow(dim, image.shape[dim] - 4, 4)
        image = torch.cat([first.flip(dim), image, last.flip(dim)], dim)
    smooth = F.conv2d(F.conv2d(image, rows, groups=channels), columns, groups=channels)
    return smooth[..., ::2, ::2]


def _wide(image: Tensor) -> Tensor:
    """float64, but where a device has none (mps)."""
    return image.float() if image.device.type == "mps" else image.double()


def _inner(image: Tensor, crop: int) -> Tensor:
    return image[..., crop:-crop, crop:-crop] if crop else image
