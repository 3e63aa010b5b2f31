"""Validation during training on a few held-out pictures, degraded once with fixed seeds."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from restore_cli.datasets.layouts import Pair, find_pairs
from restore_cli.degradations.recipe import degrade, draw, load_degradation
from restore_cli.image import read_rgb8
from restore_cli.metrics import psnr
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import quantise
from restore_cli.training.data import list_photos
from restore_cli.training.recipe import LossTerm, TrainingRecipe

PICTURES, SIDE, CROP = 12, 512, 4


class ValidationScore(NamedTuple):
    """Mean PSNR and its gain over bicubic (at x1: over the input), dB; the restored pictures."""

    psnr: float
    gain: float
    restored: list[Tensor]


class ValidationSet:
    """Centre crops of photos, degraded by the recipe, or of pairs, scored by PSNR on 8-bit RGB.

    Borders of 4 px are not scored. TLSC is off: crops are close to the training size, and the
    scores are for the learning curve, not results.
    """

    def __init__(
        self,
        folder: Path,
        scale: int,
        multiple: int,
        device: torch.device,
        recipe: TrainingRecipe,
    ) -> None:
        """Read up to 12 pictures, spread over the folder.

        Args:
            folder: folder of photos or pairs, as for training.
            scale: scale of the model.
            multiple: sides of the degraded crops are multiples of it.
            device: device that stores the crops.
            recipe: recipe with the validation degradation and the kind of GoPro blur.

        Raises:
            NoInputError: no picture is large enough.
        """
        self.scale, self.multiple, self.device = scale, multiple, device
        self._prepared: list[dict[str, Tensor]] | None = None
        self.degradation = load_degradation(recipe.validation_degradation).at_scale(scale)
        splits = ("val", "test", "validation", "train")
        found = next(filter(None, (find_pairs(folder, s, recipe.gopro_blur) for s in splits)), None)
        if found is None:
            photos = list_photos(folder, minimum=64 * scale)
            self.pairs = [self._photo(path, n) for n, path in enumerate(photos[:PICTURES])]
        else:
            step = max(len(found.pairs) // PICTURES, 1)
            self.pairs = [self._pair(pair) for pair in found.pairs[::step][:PICTURES]]

    def score(self, network: nn.Module, term: LossTerm, *, frozen: bool = False) -> ValidationScore:
        """Run the network on every crop.

        Args:
            network: the network; it is run in eval mode.
            term: the loss term whose output is scored against its target.
            frozen: whether the frozen part is unchanged since the last call; then its stored
                outputs are used.
        """
        training = network.training
        network.eval()
        with torch.inference_mode():
            wanted = (term.output,)
            if not frozen:
                self._prepared = None
            elif self._prepared is None:
                self._prepared = [network.prepare(x) for x, _ in self.pairs]  # type: ignore[operator]
            known = (
                [(maps,) for maps in self._prepared] if self._prepared else [()] * len(self.pairs)
            )
            restored = [
                quantise(network.outputs(x, wanted, *maps)[term.output].float())  # type: ignore[operator]
                for (x, _), maps in zip(self.pairs, known, strict=True)
            ]
        network.train(training)
        scores, baselines = [], []
        for image, (degraded, reference) in zip(restored, self.pairs, strict=True):
            size = image.shape[-2:]
            sharp = reference
            if size != reference.shape[-2:]:
                sharp = quantise(resize_bicubic(reference, *size))
            bicubic = quantise(resize_bicubic(degraded, *size))
            sharp = sharp.cpu()  # scores are float64, which not every device supports
            scores.append(psnr(image.cpu(), sharp, crop=CROP))
            baselines.append(psnr(bicubic.cpu(), sharp, crop=CROP))
        mean, baseline = torch.cat(scores).mean(), torch.cat(baselines).mean()
        return ValidationScore(float(mean), float(mean - baseline), restored)

    def _photo(self, path: Path, index: int) -> tuple[Tensor, Tensor]:
        recipe = self.degradation
        photo = read_rgb8(path)
        height, width = photo.shape[1:]
        crop = self._centre(photo, self.scale)
        rows, columns = crop.shape[-2:]
        rng = np.random.default_rng([0, index])
        drawn = draw(recipe, rng, picture=(height, width), centre=(columns / 2, rows / 2))
        return degrade(crop, [drawn], recipe)

    def _pair(self, pair: Pair) -> tuple[Tensor, Tensor]:
        degraded, sharp = read_rgb8(pair.degraded), read_rgb8(pair.reference)
        same = degraded.shape == sharp.shape
        crop = self._centre(degraded, self.scale if same else 1)
        if same and self.scale > 1:
            height, width = (side // self.scale for side in crop.shape[-2:])
            crop = quantise(resize_bicubic(crop, height, width))
        return crop, self._centre(sharp, self.scale)

    def _centre(self, picture: Tensor, scale: int) -> Tensor:
        """A crop with sides up to SIDE at full size, and a size that the model accepts."""
        whole = self.multiple * scale
        longest = SIDE if scale == self.scale else SIDE // self.scale
        height, width = picture.shape[1:]
        rows, columns = (max(min(longest, s) // whole, 1) * whole for s in (height, width))
        top, left = (height - rows) // 2 // scale * scale, (width - columns) // 2 // scale * scale
        crop = picture[None, :, top : top + rows, left : left + columns]
        return crop.to(self.device).float() / 255
