"""A few held-out photos, degraded by fixed seeds once, scored during training."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from restore_cli.degradations.recipe import degrade, draw, load_degradation
from restore_cli.degradations.sensor import quantise
from restore_cli.metrics import psnr
from restore_cli.resample import resize_bicubic
from restore_cli.training.data import Photos

PICTURES, SIDE, CROP = 12, 512, 4


class Score(NamedTuple):
    """Mean PSNR and its gain over bicubic, dB."""

    psnr: float
    gain: float


class ValidationSet:
    """Centre crops under the `shake` degradation; PSNR on 8-bit RGB, 4 px cropped.

    Without TLSC: a crop is close to the training size, and this is a curve, not a result.
    """

    def __init__(self, folder: Path, scale: int, device: torch.device) -> None:
        recipe = load_degradation("shake").at_scale(scale)
        photos = Photos(folder, minimum=64 * scale)
        self.pairs: list[tuple[Tensor, Tensor]] = []
        for index in range(min(PICTURES, len(photos))):
            photo = photos.read(index)
            height, width = photo.shape[1:]
            rows, columns = (min(SIDE, side // (8 * scale) * 8 * scale) for side in (height, width))
            top, left = (height - rows) // 2, (width - columns) // 2
            crop = photo[None, :, top : top + rows, left : left + columns].to(device).float() / 255
            rng = np.random.default_rng([0, index])
            drawn = draw(recipe, rng, picture=(height, width), centre=(columns / 2, rows / 2))
            self.pairs.append(degrade(crop, [drawn], recipe))
        bicubic = [resize_bicubic(x, *reference.shape[-2:]) for x, reference in self.pairs]
        self.baseline = torch.stack([self._psnr(x, n) for n, x in enumerate(bicubic)])

    def score(self, network: nn.Module) -> Score:
        """Run the network on every crop."""
        with torch.inference_mode():
            restored = [network(degraded) for degraded, _ in self.pairs]
        values = torch.stack([self._psnr(x, n) for n, x in enumerate(restored)])
        return Score(float(values.mean()), float((values - self.baseline).mean()))

    def _psnr(self, restored: Tensor, index: int) -> Tensor:
        return psnr(quantise(restored), self.pairs[index][1], crop=CROP)[0]
