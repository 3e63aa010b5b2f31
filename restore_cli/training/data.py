"""Training batches: random crops of photos, degraded on the fly, or of pairs.

Item number n of a run is a function of (seed, n): items go through the data in an order that is
drawn anew each time around, and every item has random numbers of its own. So a batch does not
depend on how many processes share it, and the position in the data is one number.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import psutil
import torch
from torch import Tensor

from restore_cli.degradations.recipe import DegradationRecipe, Parameters, degrade, draw
from restore_cli.errors import NoInputError, PictureError, UsageError
from restore_cli.image import read_rgb8, read_size
from restore_cli.image.folders import list_pictures
from restore_cli.layouts import Pair, find_pairs
from restore_cli.resample import resize_bicubic
from restore_cli.training.recipe import TrainingRecipe

CACHE_BYTES = 4 << 30  # of decoded pictures, at most, by all processes of a host together
READERS = 8  # threads that read and crop for a GPU


class Batch(NamedTuple):
    """A training batch, float32 in [0, 1]; named targets as in `LossTerm.target`."""

    degraded: Tensor
    targets: dict[str, Tensor]


class Crop(NamedTuple):
    """An item: uint8 (3, H, W), with the margin; parameters of its degradation, or its other half.

    `degraded` is None for photos, `parameters` for pairs.
    """

    sharp: Tensor
    degraded: Tensor | None
    parameters: Parameters | None


class Source(Protocol):
    """What batches are made of.

    Attributes:
        targets: that can be made of it.
    """

    targets: frozenset[str]

    def __len__(self) -> int:
        """Photos or pairs."""

    @property
    def facts(self) -> dict[str, Any]:
        """What a model card says about the data."""

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> Crop:
        """A random crop of one photo or pair, on the CPU."""

    def batch(self, crops: Sequence[Crop], wanted: Collection[str], device: torch.device) -> Batch:
        """The crops with the targets that are wanted, on the device."""


class Pictures:
    """Decoded pictures, kept while they fit in a quarter of the free memory."""

    def __init__(self) -> None:
        self._kept: dict[Path, Tensor] = {}
        self._bytes = 0
        room = min(CACHE_BYTES, psutil.virtual_memory().available // 4)
        self._room = room // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

    def read(self, path: Path) -> Tensor:
        """(3, H, W) uint8.

        Raises:
            PictureError: unreadable.
        """
        if path in self._kept:
            return self._kept[path]
        picture = read_rgb8(path)
        if self._bytes + picture.numel() <= self._room:
            self._kept[path] = picture
            self._bytes += picture.numel()
        return picture


class Photos(Source):
    """A folder of sharp photos, degraded on the device that trains."""

    targets: frozenset[str] = frozenset(
        {"reference", "reference_small", "reference_half", "reference_quarter", "degraded_large"}
    )

    def __init__(
        self, folder: Path, recipe: TrainingRecipe, degradation: DegradationRecipe
    ) -> None:
        """List the photos, searched recursively, sorted by path.

        Raises:
            NoInputError: the folder holds no picture, or none that is large enough.
        """
        self.folder, self.degradation = folder, degradation
        self.margin = recipe.margin * degradation.scale
        self.halve = recipe.halve
        largest = max(side for phase in recipe.phases for side in phase.patches)
        self.paths = list_photos(folder, self._side(largest))
        self.pictures = Pictures()

    def __len__(self) -> int:
        return len(self.paths)

    def _side(self, patch: int) -> int:
        return patch * self.degradation.scale + 2 * self.margin

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "kind": "photos",
            "count": len(self),
            "listing_sha256": _listing(self.paths, self.folder),
            "degradation": self.degradation.name,
        }

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> Crop:
        photo, side = self.pictures.read(self.paths[index]), self._side(patch)
        halved = rng.random() < self.halve and min(photo.shape[1:]) >= 2 * side
        height, width = (length // (1 + halved) for length in photo.shape[1:])
        if min(height, width) < side:
            raise PictureError(f"'{self.paths[index]}' has shrunk since the run began")
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        cut = _cut_halved if halved else _cut
        sharp = cut(photo, top, left, side)
        # Where the crop lies in its picture decides how much roll turns into displacement; flips
        # and turns only mirror that, so the drawn place stands for the turned one.
        turned = _turn([sharp], rng)[0]
        centre = (width / 2 - left, height / 2 - top)
        parameters = draw(self.degradation, rng, picture=(height, width), centre=centre)
        return Crop(turned, None, parameters)

    def batch(self, crops: Sequence[Crop], wanted: Collection[str], device: torch.device) -> Batch:
        sharp = _upload([crop.sharp for crop in crops], device)
        parameters = [crop.parameters for crop in crops if crop.parameters is not None]
        degraded, reference = degrade(sharp, parameters, self.degradation, margin=self.margin)
        large = None
        if "degraded_large" in wanted:
            blurring = self.degradation.before_downscale()
            kept = [drawn[: len(blurring.steps)] for drawn in parameters]
            large = degrade(sharp, kept, blurring, margin=self.margin)[0]
        return Batch(degraded, _targets(wanted, degraded, reference, large))


class PairedPictures(Source):
    """Pairs as they are; where both pictures are of one size, the degraded one is shrunk bicubic.

    As GFN and Chu et al. make LR-GoPro.
    """

    def __init__(self, folder: Path, pairs: Sequence[Pair], layout: str, scale: int) -> None:
        """Look at the first pair.

        Raises:
            UsageError: its sizes do not fit the scale.
        """
        self.folder, self.pairs, self.layout, self.scale = folder, list(pairs), layout, scale
        self.pictures = Pictures()
        sizes = [read_size(path) for path in (pairs[0].degraded, pairs[0].reference)]
        degraded, reference = sizes[0] or (0, 0), sizes[1] or (0, 0)
        self.shrink = scale > 1 and degraded == reference
        ratio = 1 if self.shrink else scale
        if (degraded[0] * ratio, degraded[1] * ratio) != reference:
            raise UsageError(
                f"pair '{pairs[0].name}' is {degraded[0]}x{degraded[1]} and "
                f"{reference[0]}x{reference[1]}, the model enlarges x{scale}",
                hint="use a model and data of one scale",
            )
        self.targets = frozenset(Photos.targets - (set() if self.shrink else {"degraded_large"}))

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "kind": "pairs",
            "count": len(self),
            "layout": self.layout,
            "listing_sha256": _listing([pair.reference for pair in self.pairs], self.folder),
        }

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> Crop:
        pair = self.pairs[index]
        degraded, sharp = self.pictures.read(pair.degraded), self.pictures.read(pair.reference)
        ratio = 1 if self.shrink else self.scale
        height, width = degraded.shape[1:]
        if sharp.shape[1:] != (height * ratio, width * ratio):
            raise PictureError(f"the pictures of pair '{pair.name}' do not fit each other")
        side = patch * (self.scale if self.shrink else 1)
        if min(height, width) < side:
            raise PictureError(
                f"'{pair.degraded}' is {width}x{height}, smaller than a patch of {side} px",
                hint="leave it out, or choose a smaller patch in the recipe",
            )
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        small = degraded[:, top : top + side, left : left + side]
        top, left, side = top * ratio, left * ratio, side * ratio
        large = sharp[:, top : top + side, left : left + side]
        small, large = _turn([small, large], rng)
        return Crop(large, small, None)

    def batch(self, crops: Sequence[Crop], wanted: Collection[str], device: torch.device) -> Batch:
        reference = _upload([crop.sharp for crop in crops], device)
        degraded = _upload([crop.degraded for crop in crops if crop.degraded is not None], device)
        large = degraded if self.shrink else None
        if self.shrink:
            height, width = (side // self.scale for side in degraded.shape[-2:])
            # To 8 bits, as it would be in a file; GFN's authors trained on unrounded values.
            small = resize_bicubic(degraded, height, width).clamp(0, 1)
            degraded = (small * 255).round() / 255
        return Batch(degraded, _targets(wanted, degraded, reference, large))


def open_source(folder: Path, recipe: TrainingRecipe, degradation: DegradationRecipe) -> Source:
    """Pairs where the folder is laid out as one of the datasets, else sharp photos.

    Raises:
        NoInputError: neither, or a layout of which a part is missing.
        UsageError: pairs of another scale, or a target that they cannot give.
    """
    found = find_pairs(folder, gopro_blur=recipe.gopro_blur)
    if found is None:
        return Photos(folder, recipe, degradation)
    source = PairedPictures(folder, found.pairs, found.layout, degradation.scale)
    wanted = {term.target for phase in recipe.phases for term in phase.losses}
    missing = sorted(wanted - source.targets)
    if missing:
        raise UsageError(
            f"the recipe's losses need '{missing[0]}', which the pairs in '{folder}' do not have",
            hint="give pairs of one size (they are shrunk here) or sharp photos",
        )
    return source


class Loader:
    """Batches of this process, read ahead by threads where a GPU computes.

    On a CPU everything happens in the process that trains: threads beside OpenMP's own made a step
    3 to 7 times slower.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        device: torch.device,
        *,
        rank: int = 0,
        processes: int = 1,
        accumulate: int = 1,
        readers: int | None = None,
    ) -> None:
        self.source, self.seed, self.device = source, seed, device
        self.rank, self.processes, self.accumulate = rank, processes, accumulate
        ahead = min(READERS, os.cpu_count() or 1) if device.type == "cuda" else 0
        ahead = ahead if readers is None else readers
        self._pool = ThreadPoolExecutor(ahead, "crop") if ahead else None
        self._ahead: dict[tuple[int, int], Future[Crop]] = {}
        self.waited = 0.0  # seconds in which training had nothing to do but wait

    def share(self, first: int, count: int) -> list[range]:
        """Numbers of this process' items among `count` from `first` on, one range per micro-batch.

        Raises:
            UsageError: the batch cannot be divided.
        """
        parts = self.processes * self.accumulate
        if count % parts:
            raise UsageError(
                f"a batch of {count} cannot be divided by {self.processes} processes"
                f" x {self.accumulate} accumulated parts",
                hint="choose numbers that divide the recipe's batch",
            )
        size, start = count // parts, first + self.rank * count // self.processes
        return [range(start + n * size, start + (n + 1) * size) for n in range(self.accumulate)]

    def refuse_indivisible(self, recipe: TrainingRecipe) -> None:
        """See now, not after the first phase, that every batch can be divided.

        Raises:
            UsageError: one cannot.
        """
        for phase in recipe.phases:
            for batch in (phase.batch, *(larger.batch for larger in phase.progressive)):
                self.share(0, batch)

    def expect(self, first: int, count: int, patch: int) -> None:
        """Begin to read a later batch."""
        if self._pool is not None:
            for numbers in self.share(first, count):
                for number in numbers:
                    if (number, patch) not in self._ahead:
                        future = self._pool.submit(self._crop, number, patch)
                        self._ahead[number, patch] = future

    def batches(self, first: int, count: int, patch: int, wanted: Collection[str]) -> list[Batch]:
        """This process' part of a batch, one for each accumulated part.

        Raises:
            PictureError: a picture cannot be read.
        """
        begun = time.monotonic()
        self.expect(first, count, patch)
        crops = [[self._take(n, patch) for n in numbers] for numbers in self.share(first, count)]
        self.waited += time.monotonic() - begun
        return [self.source.batch(part, wanted, self.device) for part in crops]

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, number: int, patch: int) -> Crop:
        future = self._ahead.pop((number, patch), None)
        return future.result() if future else self._crop(number, patch)

    def _crop(self, number: int, patch: int) -> Crop:
        around, place = divmod(number, len(self.source))
        index = int(_order(self.seed, around, len(self.source))[place])
        return self.source.crop(index, np.random.default_rng([self.seed, 1, number]), patch)


@lru_cache(4)
def _order(seed: int, around: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 0, around]).permutation(count)


def list_photos(folder: Path, minimum: int) -> list[Path]:
    """Pictures below a folder, sorted by path, at least `minimum` pixels a side.

    Raises:
        NoInputError: none.
    """
    # By path, not by number: the order is a part of every run that was begun.
    found = sorted(list_pictures(folder, recursive=True)) if folder.is_dir() else []
    sizes = {path: read_size(path) for path in found}
    paths = [path for path, size in sizes.items() if size and min(size) >= minimum]
    if not paths:
        raise NoInputError(
            f"no picture of {minimum} px a side below '{folder}' ({len(sizes)} in all)",
            hint="give a folder of sharp photos or pairs, or choose a smaller patch in the recipe",
        )
    return paths


def _cut(photo: Tensor, top: int, left: int, side: int) -> Tensor:
    return photo[:, top : top + side, left : left + side]


def _cut_halved(photo: Tensor, top: int, left: int, side: int) -> Tensor:
    """What `_cut` gives of the photo at half its size, without halving all of it."""
    rows, columns = (length // 2 for length in photo.shape[1:])
    border = 4  # halved pixels: more than the bicubic kernel reaches
    first = max(top - border, 0), max(left - border, 0)
    last = min(top + side + border, rows), min(left + side + border, columns)
    window = photo[:, 2 * first[0] : 2 * last[0], 2 * first[1] : 2 * last[1]]
    half = resize_bicubic(window[None].float(), last[0] - first[0], last[1] - first[1])[0]
    half = half.round().clamp(0, 255).byte()
    return _cut(half, top - first[0], left - first[1], side)


def _turn(pictures: list[Tensor], rng: np.random.Generator) -> list[Tensor]:
    """The same one of eight flips and turns for all."""
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    turned = [torch.rot90(picture, turns, (1, 2)) for picture in pictures]
    return [(picture.flip(2) if flip else picture).contiguous() for picture in turned]


def _upload(crops: list[Tensor], device: torch.device) -> Tensor:
    stacked = torch.stack(crops)
    if device.type == "cuda":  # so that the copy does not wait for the network
        stacked = stacked.pin_memory()
    return stacked.to(device, non_blocking=True).float() / 255


def _targets(
    wanted: Collection[str], degraded: Tensor, reference: Tensor, large: Tensor | None
) -> dict[str, Tensor]:
    targets = {"reference": reference}
    if "reference_small" in wanted:
        targets["reference_small"] = resize_bicubic(reference, *degraded.shape[-2:]).clamp(0, 1)
    # attentive-deblur's authors shrink without smoothing: TensorFlow 1's bilinear resizing.
    if "reference_half" in wanted:
        targets["reference_half"] = reference[..., ::2, ::2].contiguous()
    if "reference_quarter" in wanted:
        targets["reference_quarter"] = reference[..., ::4, ::4].contiguous()
    if large is not None:
        targets["degraded_large"] = large
    return targets


def _listing(paths: Sequence[Path], folder: Path) -> str:
    """Digest of names and sizes: of contents it would take minutes for a dataset."""
    lines = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n" for path in paths]
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
