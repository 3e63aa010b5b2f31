"""Training batches: photos cropped and degraded on the fly, a function of (seed, step)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from restore_cli.degradations.recipe import DegradationRecipe, Parameters, degrade, draw
from restore_cli.errors import NoInputError
from restore_cli.image import PHOTO_SUFFIXES, read_rgb8, read_size
from restore_cli.resample import resize_bicubic
from restore_cli.training.recipe import TrainingRecipe

CACHE_BYTES = 4 << 30


class Batch(NamedTuple):
    """A training batch, all in [0, 1]; named targets as in `LossTerm.target`."""

    degraded: Tensor
    targets: dict[str, Tensor]


class Photos:
    """A folder of sharp photos, decoded once and kept while they fit in `CACHE_BYTES`."""

    def __init__(self, folder: Path, minimum: int) -> None:
        """List the photos.

        Args:
            folder: searched recursively, sorted by path.
            minimum: shortest side that can be cropped; smaller photos are left out.

        Raises:
            NoInputError: the folder holds no picture, or none that is large enough.
        """
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
        sizes = {path: read_size(path) for path in found if path.is_file()}
        self.paths = [path for path, size in sizes.items() if size and min(size) >= minimum]
        if not self.paths:
            raise NoInputError(
                f"no picture of {minimum} px a side below '{folder}' ({len(sizes)} in all)",
                hint="give a folder of sharp photos, or choose a smaller patch in the recipe",
            )
        self._kept: dict[int, Tensor] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Tensor:
        """(3, H, W) uint8 of one photo.

        Raises:
            PictureError: unreadable.
        """
        if index in self._kept:
            return self._kept[index]
        photo = read_rgb8(self.paths[index])
        if self._bytes + photo.numel() <= CACHE_BYTES:
            self._kept[index] = photo
            self._bytes += photo.numel()
        return photo


class DegradedCrops:
    """Random crops of photos, flipped, turned and degraded on `device`."""

    def __init__(
        self,
        photos: Path,
        recipe: TrainingRecipe,
        degradation: DegradationRecipe,
        device: torch.device,
    ) -> None:
        self.recipe, self.degradation, self.device = recipe, degradation, device
        self.margin = recipe.margin * degradation.scale
        self.side = recipe.patch * degradation.scale + 2 * self.margin
        self.photos = Photos(photos, self.side)

    def batch(self, step: int) -> Batch:
        """The batch of one step: the same for the same seed, step, photos and recipe."""
        rng = np.random.default_rng([self.recipe.seed, step])
        chosen = rng.choice(
            len(self.photos), self.recipe.batch, len(self.photos) < self.recipe.batch
        )
        drawn = [self._crop(int(index), rng) for index in chosen]
        sharp = torch.stack([crop for crop, _ in drawn]).to(self.device).float() / 255
        degraded, reference = degrade(
            sharp, [p for _, p in drawn], self.degradation, margin=self.margin
        )
        small = resize_bicubic(reference, *degraded.shape[-2:]).clamp(0, 1)
        return Batch(degraded, {"reference": reference, "reference_small": small})

    def _crop(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Parameters]:
        photo = self.photos.read(index)
        if rng.random() < self.recipe.halve and min(photo.shape[1:]) >= 2 * self.side:
            height, width = photo.shape[1] // 2, photo.shape[2] // 2
            halved = resize_bicubic(photo[None].float(), height, width)[0]
            photo = halved.round().clamp(0, 255).byte()
        height, width = photo.shape[1:]
        top = int(rng.integers(height - self.side + 1))
        left = int(rng.integers(width - self.side + 1))
        crop = photo[:, top : top + self.side, left : left + self.side]
        crop = torch.rot90(crop, int(rng.integers(4)), (1, 2))
        if rng.random() < 0.5:
            crop = crop.flip(2)
        # Where the crop lies in its picture decides how much roll turns into displacement; flips
        # and turns only mirror that, so the drawn place stands for the turned one.
        parameters = draw(
            self.degradation,
            rng,
            picture=(height, width),
            centre=(width / 2 - left, height / 2 - top),
        )
        return crop.contiguous(), parameters
