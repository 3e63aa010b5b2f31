"""Loss terms on (B, 3, H, W) float32 images; each is a mean, independent of the image size.

Recipes take the names from here and are checked without torch, so it is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Average absolute differences over (B, C, H, W)."""
    return (output - target).abs().mean()


def mse(output: Tensor, target: Tensor) -> Tensor:
    """Average squared differences over (B, C, H, W)."""
    return (output - target).square().mean()


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Average sqrt(d^2 + eps^2) over (B, C, H, W), eps = 1e-3 (Zamir et al., MPRNet, 2021)."""
    return ((output - target).square() + 1e-6).sqrt().mean()


def edge(output: Tensor, target: Tensor) -> Tensor:
    """Compare Laplacians of (B, C, H, W) by Charbonnier distance (Zamir et al., MPRNet, 2021)."""
    return charbonnier(laplacian(output), laplacian(target))


def gradient(output: Tensor, target: Tensor) -> Tensor:
    """Average absolute differences of Sobel gradients, horizontal plus vertical (CNLRN).

    Kernels are unnormalised and borders zero-padded, as in the published code.
    """
    from torch.nn.functional import conv2d  # noqa: PLC0415  see the top

    sobel = output.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernels = sobel.new_empty(2, 1, 3, 3)
    kernels[0], kernels[1] = sobel, sobel.T
    # The filter is linear, so the difference is filtered once instead of both pictures.
    filtered = conv2d(output - target, kernels.repeat(3, 1, 1, 1), padding=1, groups=3)
    return 2 * filtered.abs().mean()


def gray_gradient(output: Tensor, target: Tensor) -> Tensor:
    """Average squared differences of the gradients, along x plus along y, of luma of (B, 3, H, W).

    Xu et al., CVIU 2021, as in their published code: luma .2989 R + .5870 G + .1140 B.
    """
    weights = output.new_tensor([0.2989, 0.5870, 0.1140]).reshape(1, 3, 1, 1)
    gray = ((output - target) * weights).sum(1)
    return gray.diff(dim=-1).square().mean() + gray.diff(dim=-2).square().mean()


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Average -log(1 - |output - target|) (Guo et al., MSAN, Entropy 24(10), 2022).

    The logarithm is defined for differences below 1 only, which an unclamped output can exceed.
    Beyond 1 - 1e-3 its tangent is used, so that such values still have a gradient.
    """
    near = 1 - 1e-3
    difference = (output - target).abs()
    inside = -(-difference.clamp(max=near)).log1p()
    return (inside + (difference - near).clamp(min=0) / (1 - near)).mean()


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Return 1 - SSIM of (B, C, H, W), 11x11 Gaussian (Wang et al. 2004).

    Chu et al. omit the 1 -.
    """
    from restore_cli.metrics import ssim as metric  # noqa: PLC0415  see the top

    return 1 - metric(output, target).mean()


def psnr(output: Tensor, target: Tensor, least: float = 1e-8) -> Tensor:
    """Return -PSNR in units of 10 dB, mean over the batch (Chen et al., HINet, arXiv:2105.06086).

    It is computed per image (B, C, H, W), so that easy and hard images have equal weight. The
    gradient is proportional to 1 / RMS error, so an image at 60 dB, nearly a copy, has a hundred
    times the gradient of a blurred one at 20 dB, and an x1 network that starts as the identity
    stays one. `psnr_to_20` to `psnr_to_40` therefore level off above that PSNR: 20 for x1 networks
    and some sharp inputs, 30 for a phase after that, 35 for x4, where few images exceed it, and 40
    for fine-tuning a good x1 network. attentive-deblur lite with `handheld-mixed`, dB over the
    blurry picture after 100 s on two cores: +0.04 when levelling off at 40 dB, +0.21 at 20 dB. The
    squared error of an image at 40 dB weighs 5 times as much as at 23 dB with `psnr_to_30`, 50
    times with `psnr`, 1.5 times with `psnr_to_20`.

    Args:
        output: restored images in [0, 1].
        target: sharp images.
        least: mean squared error that is added, 10 ** (-PSNR / 10) of the level.
    """
    return ((output - target).square().mean((1, 2, 3)) + least).log10().mean()


def laplacian(image: Tensor) -> Tensor:
    """Subtract G(U(G(image))) from an image (B, C, H, W).

    G is a 5x5 Gaussian-like filter; U sets odd rows and columns to 0 and multiplies by 4.
    """
    smooth = _smooth(image)
    sampled = smooth.new_zeros(smooth.shape)
    sampled[..., ::2, ::2] = smooth[..., ::2, ::2] * 4
    return image - _smooth(sampled)


def _smooth(image: Tensor) -> Tensor:
    from torch.nn.functional import conv2d, pad  # noqa: PLC0415  see the top

    line = image.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    kernel = line.outer(line).expand(3, 1, 5, 5)
    return conv2d(pad(image, (2, 2, 2, 2), mode="replicate"), kernel, groups=3)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1,
    "mse": mse,
    "charbonnier": charbonnier,
    "edge": edge,
    "gradient": gradient,
    "gray_gradient": gray_gradient,
    "cross_entropy": cross_entropy,
    "ssim": ssim,
    "psnr": psnr,
    "psnr_to_20": partial(psnr, least=1e-2),
    "psnr_to_30": partial(psnr, least=1e-3),
    "psnr_to_35": partial(psnr, least=3e-4),
    "psnr_to_40": partial(psnr, least=1e-4),
}
