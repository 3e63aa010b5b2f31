"""Validation during training on a few held-out pictures, degraded once with fixed seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from restore_cli.datasets.layouts import Pair, find_pairs
from restore_cli.degradations.recipe import degrade, draw, load_degradation
from restore_cli.errors import PictureError
from restore_cli.image import read_rgb8
from restore_cli.metrics import psnr
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import quantise
from restore_cli.training.data import list_photos
from restore_cli.training.recipe import LossTerm, TrainingRecipe

PICTURES, SIDE, CROP = 12, 512, 4
_MAX_PSNR = 100.0  # dB; equal pictures, e.g. black ones, would make every mean infinite


class ValidationScore(NamedTuple):
    """PSNR and gain of the averaged network on the held-out pictures."""

    psnr: float  # mean over the folders of their mean PSNR, dB
    gain: float  # its difference to bicubic (at x1: to the input), dB
    gains: dict[str, float]  # the gain of each folder, dB; empty if there is only one
    restored: list[Tensor]  # the restored pictures, each (1, 3, H, W) in 0 to 1

    def facts(self) -> dict[str, Any]:
        """Return the numbers, as metrics.jsonl and the weights record them."""
        facts: dict[str, Any] = {"psnr": self.psnr, "gain": self.gain}
        return facts | ({"gains": self.gains} if self.gains else {})


class ValidationSet:
    """Centre crops of photos, degraded by the recipe, or of pairs, scored by PSNR on 8-bit RGB.

    Borders of 4 px are not scored. TLSC is off: crops are close to the training size, and the
    scores are for the learning curve, not results.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        scale: int,
        multiple: int,
        device: torch.device,
        recipe: TrainingRecipe,
    ) -> None:
        """Read up to 12 pictures of every folder: of photos the first, of pairs spread over it.

        Args:
            folders: at least one folder of photos or pairs, as for training.
            scale: scale of the model.
            multiple: sides of the degraded crops are multiples of it.
            device: device that stores the crops.
            recipe: recipe with the validation degradation and the kind of GoPro blur.

        Raises:
            NoInputError: no picture is large enough.
            PictureError: a picture cannot be read, or a pair does not have the scale of the model.
        """
        self.scale, self.multiple, self.device = scale, multiple, device
        self._prepared: list[dict[str, Tensor]] | None = None
        self.degradation = load_degradation(recipe.validation_degradation).at_scale(scale)
        self.files: frozenset[Path] = frozenset()  # sharp pictures, without links
        self.notes: tuple[str, ...] = ()
        different = len({folder.name for folder in folders}) == len(folders)
        names = [folder.name if different else str(folder) for folder in folders]
        read = [
            [(name, pair) for pair in self._read(folder, recipe.gopro_blur)]
            for name, folder in zip(names, folders, strict=True)
        ]
        # In turns, because the sheet of restored pictures shows the first ones.
        turns = list(filter(None, chain.from_iterable(zip_longest(*read))))
        self.names = [name for name, _ in turns]
        self.pairs = [pair for _, pair in turns]

    @property
    def sha256(self) -> str:
        """Digest of all crops: scores on the same crops can be compared."""
        whole = hashlib.sha256()
        for crop in chain.from_iterable(self.pairs):
            whole.update(f"{tuple(crop.shape)}".encode() + crop.cpu().numpy().tobytes())
        return whole.hexdigest()

    def score(self, network: nn.Module, term: LossTerm, *, frozen: bool = False) -> ValidationScore:
        """Run the network, in eval mode, on every crop; score the term's output by its target.

        `frozen` says whether the frozen part is unchanged since the last call, so that its stored
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
        scores: dict[str, list[float]] = {name: [] for name in self.names}
        gains: dict[str, list[float]] = {name: [] for name in self.names}
        for name, image, (degraded, reference) in zip(
            self.names, restored, self.pairs, strict=True
        ):
            size = image.shape[-2:]
            sharp = reference
            if size != reference.shape[-2:]:
                sharp = quantise(resize_bicubic(reference, *size))
            bicubic = quantise(resize_bicubic(degraded, *size))
            sharp = sharp.cpu()  # scores are float64, which not every device supports
            scores[name].append(min(_MAX_PSNR, float(psnr(image.cpu(), sharp, crop=CROP))))
            baseline = min(_MAX_PSNR, float(psnr(bicubic.cpu(), sharp, crop=CROP)))
            gains[name].append(scores[name][-1] - baseline)
        of_folders = {name: fmean(gain) for name, gain in gains.items()}
        mean, gain = fmean(map(fmean, scores.values())), fmean(of_folders.values())
        return ValidationScore(mean, gain, of_folders if len(of_folders) > 1 else {}, restored)

    def _read(self, folder: Path, gopro_blur: str) -> list[tuple[Tensor, Tensor]]:
        splits = ("val", "test", "validation", "train")
        found = next(filter(None, (find_pairs(folder, s, gopro_blur) for s in splits)), None)
        if found is None:
            photos, notes = list_photos(folder, minimum=64 * self.scale)
            self.files |= {path.resolve() for path in photos[:PICTURES]}
            self.notes += notes
            return [self._photo(path, n) for n, path in enumerate(photos[:PICTURES])]
        pairs = found.pairs[:: max(len(found.pairs) // PICTURES, 1)][:PICTURES]
        self.files |= {pair.reference.resolve() for pair in pairs}
        return [self._pair(pair) for pair in pairs]

    def _photo(self, path: Path, index: int) -> tuple[Tensor, Tensor]:
        recipe = self.degradation
        photo = read_rgb8(path)
        height, width = photo.shape[1:]
        crop = self._centre(photo, self.scale, path)
        rows, columns = crop.shape[-2:]
        rng = np.random.default_rng([0, index])
        drawn = draw(recipe, rng, picture=(height, width), centre=(columns / 2, rows / 2))
        return degrade(crop, [drawn], recipe)

    def _pair(self, pair: Pair) -> tuple[Tensor, Tensor]:
        degraded, sharp = read_rgb8(pair.degraded), read_rgb8(pair.reference)
        same = degraded.shape == sharp.shape
        given, wanted = degraded.shape[1:], sharp.shape[1:]
        if not same and tuple(side * self.scale for side in given) != tuple(wanted):
            raise PictureError(
                f"'{pair.degraded}' is {given[1]}x{given[0]} and its sharp partner "
                f"{wanted[1]}x{wanted[0]}: neither equal nor x{self.scale}",
                hint="leave the pair out of --validation",
            )
        crop = self._centre(degraded, self.scale if same else 1, pair.degraded)
        if same and self.scale > 1:
            height, width = (side // self.scale for side in crop.shape[-2:])
            crop = quantise(resize_bicubic(crop, height, width))
        return crop, self._centre(sharp, self.scale, pair.reference)

    def _centre(self, picture: Tensor, scale: int, path: Path) -> Tensor:
        """Crop a picture to sides up to SIDE at full size, and a size that the model accepts."""
        whole = self.multiple * scale
        longest = SIDE if scale == self.scale else SIDE // self.scale
        height, width = picture.shape[1:]
        if min(height, width) < whole:
            raise PictureError(
                f"'{path}' is {width}x{height}, but validation needs sides of {whole} px",
                hint="leave it out of --validation",
            )
        rows, columns = (min(longest, side) // whole * whole for side in (height, width))
        top, left = (height - rows) // 2 // scale * scale, (width - columns) // 2 // scale * scale
        crop = picture[None, :, top : top + rows, left : left + columns]
        return crop.to(self.device).float() / 255
