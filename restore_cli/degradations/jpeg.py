"""JPEG as torch functions: colour transform, 4:2:0, 8x8 DCT, quantisation and back.

Entropy coding is lossless and omitted, so the whole batch stays on its device, with a quality per
image. Tables and quality scaling are those of libjpeg (ITU-T T.81 annex K).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_LUMINANCE = """
16 11 10 16 24 40 51 61    12 12 14 19 26 58 60 55    14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62    18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
_CHROMINANCE = """
17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99  99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
99 99 99 99 99 99 99 99  99 99 99 99 99 99 99 99
"""
_TO_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def compress_jpeg(image: Tensor, quality: Tensor) -> Tensor:
    """Compress images (B, 3, H, W) in [0, 1] as JPEG with 4:2:0 chroma, to the 8-bit grid.

    They are rounded to 8 bits first, as an encoder receives them. `quality` (B,) is libjpeg's, 1 to
    100.
    """
    height, width = image.shape[-2:]
    x = (image.clamp(0, 1) * 255).round()
    x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    to_ycc = _TO_YCC.to(x)
    ycc = torch.einsum("ij,bjhw->bihw", to_ycc, x) - x.new_tensor([128.0, 0, 0])[:, None, None]
    luminance = _quantise(ycc[:, :1], _table(_LUMINANCE, quality))
    chroma = _quantise(F.avg_pool2d(ycc[:, 1:], 2), _table(_CHROMINANCE, quality))
    chroma = F.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    ycc = torch.cat([luminance + 128, chroma], 1)
    rgb = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(to_ycc), ycc)
    return (rgb.round().clamp(0, 255) / 255)[..., :height, :width]


def _quantise(planes: Tensor, table: Tensor) -> Tensor:
    """Apply the blockwise DCT, round to multiples of `table` (B, 8, 8), and invert the DCT."""
    batch, channels, height, width = planes.shape
    dct = _dct_matrix().to(planes)
    blocks = planes.reshape(batch, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    step = table[:, None, None, None]
    coefficients = (dct @ blocks @ dct.mT / step).round() * step
    restored = (dct.mT @ coefficients @ dct).transpose(3, 4)
    return restored.reshape(batch, channels, height, width)


def _table(text: str, quality: Tensor) -> Tensor:
    """Map qualities (B,) to quantisation steps (B, 8, 8)."""
    base = torch.tensor([float(v) for v in text.split()]).reshape(8, 8).to(quality)
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality)
    return ((base * percent[:, None, None] + 50) / 100).floor().clamp(1, 255)


def _dct_matrix() -> Tensor:
    """Return the orthonormal 8-point DCT-II."""
    k, n = np.mgrid[0:8, 0:8]
    matrix = np.cos(np.pi * (2 * n + 1) * k / 16) / 2
    matrix[0] /= np.sqrt(2)
    return torch.from_numpy(matrix.astype(np.float32))
