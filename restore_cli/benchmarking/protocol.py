"""Evaluation protocols: the conventions of scores, which papers often do not state.

Two numbers can be compared only if all conventions agree: cropping before and after restoring,
rounding to 8 bits, colour, kind of SSIM, and alignment of the pictures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restore_cli import metrics
from restore_cli.rounding import to_float


class Scores(NamedTuple):
    """Scores of one picture: PSNR in dB, and SSIM, which is NaN if the protocol has none."""

    psnr: float
    ssim: float


@dataclass(frozen=True, slots=True)
class Protocol:
    """All conventions of a score."""

    name: str  # name on the command line
    description: str  # description, one line
    source: str  # authors or programs that use it
    # first and last + 1 row of the reference that are used, cropped before restoring; None for all
    rows: tuple[int, int] | None = None
    # rounding of the result to 8 bits
    rounding: Literal["half-even", "half-up", "truncate"] = "half-even"
    crop: int = 0  # pixels left out along each border of the result
    # rgb, y (BT.601 studio range) or luminance (.299, .587, .114)
    colour: Literal["rgb", "y", "luminance"] = "rgb"
    # `gaussian` per channel, valid region; `volume` as MATLAB treats an RGB array; `ms` of five
    # scales; `none`
    ssim: Literal["gaussian", "volume", "ms", "none"] = "gaussian"
    # `none`; `ecc`: intensity and homography, as in RealBlur; `trajectory`: best of many references
    # after a shift by whole pixels, as in Koehler et al
    alignment: Literal["none", "ecc", "trajectory"] = "none"
    # upper limit of a picture's PSNR, dB, so that pictures with hardly any error do not dominate
    # the mean
    highest: float = math.inf

    @property
    def smallest(self) -> int:
        """Smallest side that it can score, pixels."""
        window = 2 * metrics.RADIUS + 1
        return (16 * window if self.ssim == "ms" else window) + 2 * self.crop

    def prepare(self, degraded: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Crop both pictures, (1, 3, h, w) and (1, 3, H, W), to the rows that are restored.

        H and W are multiples of h and w.
        """
        if self.rows is None:
            return degraded, reference
        scale = reference.shape[-2] // degraded.shape[-2]
        first, last = self.rows
        return degraded[..., first // scale : last // scale, :], reference[..., first:last, :]

    def quantise(self, restored: Tensor) -> Tensor:
        """Clamp and round the result (1, 3, H, W) to 8 bits, like the authors' program."""
        scaled = restored.clamp(0, 1) * 255
        if self.rounding == "half-even":
            whole = scaled.round()
        else:
            whole = (scaled + (0.5 if self.rounding == "half-up" else 0)).floor()
        return to_float(whole.to(torch.uint8))  # as files are read, so that equal values are equal

    def score(self, restored: Tensor, references: Sequence[Tensor]) -> Scores:
        """Score a result of `quantise`, (1, 3, H, W), by PSNR in dB and SSIM.

        The references have the same shape; there are several for a trajectory.
        """
        if self.alignment == "ecc":
            return _score_aligned(restored, references[0])
        if self.alignment == "trajectory":
            return _score_trajectory(restored, references)
        x, y = (self._coloured(image) for image in (restored, references[0]))
        psnr = min(float(metrics.psnr(x, y, crop=self.crop)), self.highest)
        similarity = _SIMILARITIES.get(self.ssim)
        return Scores(psnr, float(similarity(x, y, self.crop)) if similarity else float("nan"))

    def _coloured(self, image: Tensor) -> Tensor:
        if self.colour == "rgb":
            return image
        return (metrics.studio_luma if self.colour == "y" else metrics.rec601_luma)(image.double())


_SIMILARITIES: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "gaussian": lambda x, y, crop: metrics.ssim(x, y, crop=crop),
    "volume": lambda x, y, crop: metrics.ssim_volume(x, y, crop=crop),
    "ms": lambda x, y, crop: metrics.ms_ssim(x, y),
}


def _score_aligned(restored: Tensor, reference: Tensor) -> Scores:
    """Compute RealBlur's score after scaling to the reference's intensity and ECC alignment.

    Homography from 100 iterations with a Gaussian of 5, bicubic warp; PSNR over the pixels with a
    counterpart; SSIM per channel (Gaussian, population variance), without 5 px of border, weighted
    by the mask of those pixels.
    """
    z, x = _array(restored), _array(reference)
    z = z * np.float32((x * z).sum() / max(float((z * z).sum()), 1e-12))
    height, width = x.shape[:2]
    found: Any = np.eye(3, dtype=np.float32)
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 100, 0.0)
    grey: list[Any] = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (x, z)]
    mask: Any = None
    try:
        _, found = cv2.findTransformECC(
            grey[0], grey[1], found, cv2.MOTION_HOMOGRAPHY, stop, mask, 5
        )
    except cv2.error:  # no convergence, e.g. on a flat picture: scored without alignment
        found = np.eye(3, dtype=np.float32)
    back = cv2.WARP_INVERSE_MAP
    size = (width, height)
    z = cv2.warpPerspective(
        z, found, size, flags=cv2.INTER_CUBIC + back, borderMode=cv2.BORDER_REFLECT
    )
    inside = cv2.warpPerspective(np.ones_like(x), found, size, flags=cv2.INTER_NEAREST + back)
    z, x = z * inside, x * inside
    error = float(((z.astype(np.float64) - x) ** 2).sum() / inside.sum())
    tensors = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (z, x))
    similarity = metrics.ssim_map(*tensors)[0].permute(1, 2, 0).numpy()
    radius = metrics.RADIUS
    weights = inside[radius:-radius, radius:-radius].astype(np.float64)
    ssim = float((similarity * weights).sum() / weights.sum())
    return Scores(-10 * float(np.log10(max(error, 1e-12))), ssim)


def _array(image: Tensor) -> Any:
    return image[0].permute(1, 2, 0).cpu().numpy().astype(np.float32)


def _score_trajectory(restored: Tensor, references: Sequence[Tensor]) -> Scores:
    """Compute Koehler's score: best PSNR and best MS-SSIM of luminance over a trajectory's frames.

    For each frame the result is scaled to its intensity and shifted by whole pixels (to the peak of
    the correlation of channel means); pixels outside the shifted result are black in both.
    """
    best = Scores(-float("inf"), -float("inf"))
    for reference in references:
        z, x = restored.double(), reference.double()
        z = z * ((x * z).sum() / z.square().sum().clamp(min=1e-12))
        rows, columns = _shift(z.mean(1)[0], x.mean(1)[0])
        # Shift down and right; negative padding crops.
        shift = (columns, -columns, rows, -rows)
        moved, mask = (F.pad(image, shift) for image in (z, torch.ones_like(z)))
        a, b = metrics.rec601_luma(moved * mask), metrics.rec601_luma(x * mask)
        best = Scores(
            max(best.psnr, float(metrics.psnr(a, b))), max(best.ssim, float(metrics.ms_ssim(a, b)))
        )
    return best


def _shift(image: Tensor, reference: Tensor) -> tuple[int, int]:
    """Return the shift of the image to the reference, in whole pixels, down and right."""
    correlation = torch.fft.ifft2(torch.fft.fft2(reference) * torch.fft.fft2(image).conj()).abs()
    row, column = divmod(int(correlation.argmax()), image.shape[1])
    height, width = image.shape
    return (row if row <= height // 2 else row - height,
            column if column <= width // 2 else column - width)  # fmt: skip


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="rgb",
            description="PSNR and SSIM over RGB, nothing cropped",
            source="DeepDeblur-PyTorch, NTIRE REDS",
        ),
        Protocol(
            name="y",
            description="PSNR and SSIM of luma (BT.601), 4 px cropped: super-resolution's habit",
            source="EDSR, RCAN and others",
            crop=4,
            colour="y",
        ),
        Protocol(
            name="photos",
            description="RGB, 4 px cropped, PSNR above 50 dB counts as 50",
            source="the scores of the bundled weights",
            crop=4,
            highest=50.0,  # rounding to 8 bits alone gives 58.9
        ),
        Protocol(
            name="cnlrn",
            description="RGB, 4 px cropped",
            source="CNLRN (csbhr/CNLRN): inference.py, utils/util.py",
            crop=4,
        ),
        Protocol(
            name="shoyan",
            description="RGB, frames cut to 704 rows before restoring, nothing cropped after",
            source="misakshoyan/joint-motion-deblur-and-sr: test.py",
            rows=(8, 712),
        ),
        Protocol(
            name="gfn",
            description="RGB, truncated to 8 bits, 6 px cropped, SSIM of the RGB volume",
            source="jacquelinelala/GFN: MATLAB evaluation",
            rounding="truncate",
            crop=6,
            ssim="volume",
        ),
        Protocol(
            name="mprnet",
            description="RGB, nothing cropped, SSIM of the RGB volume",
            source="swz30/MPRNet: MATLAB evaluation, and those who follow it",
            ssim="volume",
        ),
        Protocol(
            name="msan",
            description="RGB, rounded half up, nothing cropped, SSIM of the RGB volume",
            source="CaiGuoHS/MSAN writes pictures; no evaluation code: MPRNet's is assumed",
            rounding="half-up",
            ssim="volume",
        ),
        Protocol(
            name="attentive-deblur",
            description="RGB, truncated to 8 bits, nothing cropped, SSIM of the RGB volume",
            source="zhuyeye/Attentive-Deblurring: skimage PSNR; its MATLAB SSIM is not published",
            rounding="truncate",
            ssim="volume",
        ),
        Protocol(
            name="realblur",
            description="aligned to the reference by intensity and homography, RGB",
            source="rimchang/RealBlur, swz30/MPRNet: ECC alignment",
            alignment="ecc",
        ),
        Protocol(
            name="kohler",
            description="best of the frames of a camera path, luminance, MS-SSIM",
            source="Koehler et al., ECCV 2012, as shipped in codeslake/PVDNet",
            colour="luminance",
            ssim="ms",
            alignment="trajectory",
        ),
    )
}
