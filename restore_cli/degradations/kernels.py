"""Uniform blur by a kernel: given, random, Gaussian or a defocus disc."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restore_cli.errors import PictureError, UsageError
from restore_cli.files import read_mat, read_npy
from restore_cli.formatting import reason_of
from restore_cli.image import read_image
from restore_cli.image.raw_metadata import BROKEN

_DIRECT = 15  # side up to which a direct convolution is faster than one by Fourier transform
_MAX_VALUES = 2**24  # of a matrix in a file
_TOLERANCE = 1e-3  # for a kernel's sum, since published kernels are rounded
_OVERSAMPLING = 8  # sub-pixels per pixel and axis of analytic kernels


def convolve(linear: Tensor, kernels: list[np.ndarray]) -> Tensor:
    """Convolve each image (B, C, H, W) with its own kernel; border values are replicated outwards.

    The B kernels have odd sides in pixels and a sum of 1. This is a convolution, not a correlation:
    a single bright point becomes the kernel.
    """
    return torch.cat([_convolve(linear[n : n + 1], k) for n, k in enumerate(kernels)])


def _convolve(image: Tensor, kernel: np.ndarray) -> Tensor:
    weights = torch.from_numpy(np.ascontiguousarray(kernel)).to(image)
    rows, columns = weights.shape
    padded = F.pad(image, (columns // 2, columns // 2, rows // 2, rows // 2), mode="replicate")
    if max(rows, columns) <= _DIRECT:
        channels = image.shape[1]
        turned = weights.flip(0, 1).expand(channels, 1, rows, columns)
        return F.conv2d(padded, turned, groups=channels)
    size = padded.shape[-2:]
    spectrum = torch.fft.rfft2(padded) * torch.fft.rfft2(weights, size)
    whole: Tensor = torch.fft.irfft2(spectrum, size)
    return whole[..., rows - 1 :, columns - 1 :]  # the part that did not wrap around


def gaussian_kernel(sigma: float) -> np.ndarray:
    """Sample a Gaussian of `sigma` pixels out to 3 sigma; (N, N), sum 1."""
    radius = max(1, int(np.ceil(3 * sigma)))
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    line /= line.sum()
    return np.outer(line, line)


def disc_kernel(radius: float) -> np.ndarray:
    """Return the point spread function (N, N) of defocus: a disc with antialiased edge, sum 1."""
    radius = max(radius, 1 / _OVERSAMPLING)  # of smaller discs no sub-pixel has its centre inside
    side = int(np.ceil(radius))
    grid = (np.arange((2 * side + 1) * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - side - 0.5
    inside = (grid[:, None] ** 2 + grid[None] ** 2 <= radius**2).astype(np.float64)
    cells = inside.reshape(2 * side + 1, _OVERSAMPLING, 2 * side + 1, _OVERSAMPLING).sum((1, 3))
    return np.asarray(cells / cells.sum())


def path_kernel(path: np.ndarray, side: int) -> np.ndarray:
    """Draw a path (T, 2) of points x, y as a kernel (side, side), scaled to fill it, sum 1.

    The side is odd; the path's larger extent becomes side - 1 pixels.
    """
    middle = (path.min(0) + path.max(0)) / 2
    extent = max(float(np.ptp(path, axis=0).max()), 1e-12)
    points = (path - middle) * ((side - 1) / extent) + (side - 1) / 2
    # Twice as many steps as pixels, so that the line has no gaps.
    steps = np.linspace(0, len(points) - 1, 4 * side)
    x, y = (np.interp(steps, np.arange(len(points)), points[:, axis]) for axis in (0, 1))
    kernel = np.zeros((side + 1, side + 1))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - (y - top)) * np.abs(1 - right - (x - left))
            np.add.at(kernel, (top + down, left + right), weight)
    return np.asarray(kernel[:side, :side] / kernel[:side, :side].sum())


def read_kernel(path: Path) -> np.ndarray:
    """Read a kernel (H, W) from `.npy`, `.mat` (its only matrix) or a grey picture.

    The values of a picture are rounded, so they are normalised to a sum of 1. Raises `UsageError`
    if the file cannot be read, is not a matrix, has negative values or an even side, or its numbers
    do not sum to 1.
    """
    picture = path.suffix.lower() not in (".npy", ".mat")
    try:
        if picture:
            kernel = read_image(path, icc="keep").pixels[0].mean(0).double().numpy()
        else:
            kernel = _read_numbers(path)
    except (*BROKEN, NotImplementedError, MemoryError, PictureError) as error:
        raise UsageError(f"cannot read the kernel '{path}': {reason_of(error)}") from error
    if kernel.ndim != 2 or min(kernel.shape) < 1:
        raise UsageError(f"the kernel '{path}' is not a matrix: its shape is {kernel.shape}")
    if not np.isfinite(kernel).all() or kernel.min() < 0:
        raise UsageError(f"the kernel '{path}' has values that are negative or not finite")
    if not all(side % 2 for side in kernel.shape):
        raise UsageError(
            f"the kernel '{path}' is {kernel.shape[1]}x{kernel.shape[0]}, but needs odd sides",
            hint="pad it with zeros to odd sides",
        )
    total = float(kernel.sum())
    if total == 0 or not (picture or abs(total - 1) < _TOLERANCE):
        raise UsageError(
            f"the kernel '{path}' sums to {total:.6g}, not to 1", hint="divide it by its sum"
        )
    return np.asarray(kernel / total)


def _read_numbers(path: Path) -> np.ndarray:
    if path.suffix.lower() == ".npy":
        return np.asarray(read_npy(path), np.float64)
    found = read_mat(path, _MAX_VALUES).values()
    matrices = [v for v in found if isinstance(v, np.ndarray) and v.dtype.kind in "fiu"]
    if len(matrices) != 1:
        raise ValueError(f"it contains {len(matrices)} matrices of numbers, not one")
    return np.asarray(matrices[0], np.float64)
