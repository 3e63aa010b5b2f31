"""Training batches: random crops of photos, degraded on the fly, or of pairs.

Item number n of a run is a function of (seed, n): the data is shuffled anew in every epoch, and
every item has its own random generator. So a batch does not depend on the number of processes that
share it, and the position in the data is a single number.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np
import psutil
import torch
from torch import Tensor

from restore_cli.datasets.layouts import Pair, Pairs, find_all_folders
from restore_cli.degradations.recipe import DegradationRecipe, Parameters, degrade, draw
from restore_cli.errors import NoInputError, PictureError, UsageError
from restore_cli.formatting import format_count
from restore_cli.image import read_rgb8, read_size
from restore_cli.image.folders import list_pictures
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import quantise
from restore_cli.training.launch_env import world_size
from restore_cli.training.recipe import Target, TrainingRecipe

PREPARED = "prepared"  # requests the outputs of the network's frozen part, besides the targets
CACHE_BYTES = 4 << 30  # limit for the decoded pictures of all processes of a host together


class Batch(NamedTuple):
    """A training batch, float32 in [0, 1]; named targets as in `LossTerm.target`.

    `prepared` holds the outputs of the network's frozen part, if they are wanted and known.
    """

    degraded: Tensor
    targets: dict[str, Tensor]
    prepared: Mapping[str, Tensor] = {}


class Item(NamedTuple):
    """A sharp crop, uint8 (3, H, W), including the margin, with what is needed to degrade it.

    Photos come with the `parameters` of their degradation, pairs with their `degraded` crop; the
    other one is None. Items of a pool also have what was stored: `large` (the degraded picture
    before downscaling) and `prepared`. `part` is the index in a mixture.
    """

    sharp: Tensor
    degraded: Tensor | None
    parameters: Parameters | None
    large: Tensor | None = None
    prepared: Mapping[str, Tensor] = {}
    part: int = 0


class Source(Protocol):
    """A source of training items and batches."""

    targets: frozenset[str]  # names of the targets that it can provide
    notes: tuple[str, ...] = ()  # notes for the user on what was left out
    # the sharp pictures, as absolute paths without links; empty for a pool
    files: frozenset[Path] = frozenset()

    def __len__(self) -> int:
        """Return the number of photos or pairs."""

    @property
    def facts(self) -> dict[str, Any]:
        """Facts about the data, for the model card."""

    def item(self, seed: int, number: int, patch: int) -> Item:
        """Make one item on the CPU, a function of the run's seed and the item's number.

        `patch` is the side of its degraded crop in pixels, without the margin.
        """

    def batch(self, crops: Sequence[Item], wanted: Collection[str], device: torch.device) -> Batch:
        """Collate items into a batch on the device, with the targets that are wanted."""


class ShuffledSource(Source, Protocol):
    """Iterates over all photos or pairs in epochs, each in a new random order."""

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> Item:
        """Crop the photo or pair of that `index` at random, on the CPU.

        `patch` is as in `item`.
        """

    def item(self, seed: int, number: int, patch: int) -> Item:
        epoch, place = divmod(number, len(self))
        index = int(shuffled_order(seed, epoch, len(self))[place])
        return self.crop(index, np.random.default_rng([seed, 1, number]), patch)


class PictureCache:
    """Decoded pictures, kept while they fit in a quarter of the free memory."""

    def __init__(self) -> None:
        self._kept: dict[Path, Tensor] = {}
        self._bytes = 0
        room = min(CACHE_BYTES, psutil.virtual_memory().available // 4)
        self._room = room // world_size("LOCAL_WORLD_SIZE")

    def read(self, path: Path) -> Tensor:
        """Decode a picture, (3, H, W) uint8, or take it from the cache.

        Raises `PictureError` if it cannot be read.
        """
        if path in self._kept:
            return self._kept[path]
        picture = read_rgb8(path)
        # Another thread may have read it meanwhile.
        if path not in self._kept and self._bytes + picture.numel() <= self._room:
            self._kept[path] = picture
            self._bytes += picture.numel()
        return picture

    def clear(self) -> None:
        """Empty the cache."""
        self._kept.clear()
        self._bytes = 0


class Photos(ShuffledSource):
    """Folders of sharp photos, degraded on the training device."""

    targets: frozenset[str] = frozenset(get_args(Target))

    def __init__(
        self,
        folders: Sequence[Path],
        recipe: TrainingRecipe,
        degradation: DegradationRecipe,
        largest: int,
    ) -> None:
        """List the photos, searched recursively, sorted by path.

        `largest` is the side of the largest degraded crop that will be requested.

        Raises:
            NoInputError: a folder contains no picture, or none that is large enough.
        """
        self.degradation = degradation
        self.margin = recipe.margin * degradation.scale
        self.halve = recipe.halve
        side = self._side(largest)
        listed = {folder: list_photos(folder, side) for folder in folders}
        self.notes = tuple(note for _, notes in listed.values() for note in notes)
        found = {folder: paths for folder, (paths, _) in listed.items()}
        self.paths = [path for paths in found.values() for path in paths]
        self.files = frozenset(path.resolve() for path in self.paths)
        self._listing = _listing(found)
        self.pictures = PictureCache()

    def __len__(self) -> int:
        return len(self.paths)

    def _side(self, patch: int) -> int:
        return patch * self.degradation.scale + 2 * self.margin

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "kind": "photos",
            "count": len(self),
            "listing_sha256": self._listing,
            "degradation": self.degradation.name,
        }

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> Item:
        photo, side = self.pictures.read(self.paths[index]), self._side(patch)
        halved = rng.random() < self.halve and min(photo.shape[1:]) >= 2 * side
        height, width = (length // (1 + halved) for length in photo.shape[1:])
        if min(height, width) < side:
            raise PictureError(f"'{self.paths[index]}' has shrunk since the run began")
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        cut = _cut_halved if halved else _cut
        sharp = cut(photo, top, left, side)
        # The crop's position in its picture determines the displacement that camera roll causes.
        # Flips and rotations only mirror it, so the position before them is used.
        augmented = flip_and_rotate([sharp], rng)[0]
        centre = (width / 2 - left, height / 2 - top)
        parameters = draw(self.degradation, rng, picture=(height, width), centre=centre)
        return Item(augmented, None, parameters)

    def with_degradation(self, degradation: DegradationRecipe) -> Photos:
        """Return the same photos with another degradation."""
        other = copy.copy(self)
        other.degradation = degradation
        return other

    def available(self, wanted: int, *, mirrored: bool) -> int:
        """Count the distinct pool items, at most `wanted`; random crops have no other limit."""
        return wanted

    def sample(self, seed: int, number: int, side: int) -> Item:
        """Make a pool item: a crop that is a function of seed and number.

        `side` is that of the degraded crop in pixels.
        """
        return self.item(seed, number, side)

    def batch(self, crops: Sequence[Item], wanted: Collection[str], device: torch.device) -> Batch:
        sharp = upload([crop.sharp for crop in crops], device)
        parameters = [crop.parameters for crop in crops if crop.parameters is not None]
        degraded, reference = degrade(sharp, parameters, self.degradation, margin=self.margin)
        large = None
        if "degraded_large" in wanted:
            blurring = self.degradation.before_downscale()
            kept = [drawn[: len(blurring.steps)] for drawn in parameters]
            large = degrade(sharp, kept, blurring, margin=self.margin)[0]
        return Batch(degraded, make_targets(wanted, degraded, reference, large))


class PairedPictures(ShuffledSource):
    """Pairs of pictures; if both have the same size, the degraded one is downscaled (bicubic).

    GFN and Chu et al. make LR-GoPro in this way.
    """

    def __init__(self, found: Mapping[Path, Pairs], scale: int, largest: int) -> None:
        """Check the sizes of all pairs, and leave out those smaller than the `largest` patch.

        Raises:
            NoInputError: no pair is large enough.
            UsageError: the sizes do not match the scale, or only some pairs need downscaling.
        """
        listed = [pair for pairs in found.values() for pair in pairs.pairs]
        shrinks = {_shrinks(pair, scale): pair.degraded for pair in listed}
        if len(shrinks) > 1:
            raise UsageError(
                f"'{shrinks[True]}' is as large as its sharp partner, but '{shrinks[False]}' is "
                "smaller than its own",
                hint="downscale the former: restore degrade --recipe shrunk",
            )
        (self.shrink,) = shrinks
        side = largest * (scale if self.shrink else 1)
        self.pairs = [pair for pair in listed if min(_size(pair.degraded)) >= side]
        if small := len(listed) - len(self.pairs):
            self.notes = (f"note: {format_count(small, 'pair')} smaller than {side} px left out",)
        if not self.pairs:
            raise NoInputError(
                f"no pair has sides of {side} px or more",
                hint="choose a smaller patch in the recipe",
            )
        self.files = frozenset(pair.reference.resolve() for pair in self.pairs)
        self.layout = ", ".join(dict.fromkeys(pairs.layout for pairs in found.values()))
        self.scale = scale
        self._listing = _listing(
            {folder: [pair.reference for pair in pairs.pairs] for folder, pairs in found.items()}
        )
        self.pictures = PictureCache()
        self.targets = frozenset(Photos.targets - (set() if self.shrink else {"degraded_large"}))

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "kind": "pairs",
            "count": len(self),
            "layout": self.layout,
            "listing_sha256": self._listing,
        }

    def crop(self, index: int, rng: np.random.Generator, patch: int) -> Item:
        pair, (degraded, sharp) = self.pairs[index], self._read(index)
        ratio = 1 if self.shrink else self.scale
        height, width = degraded.shape[1:]
        side = patch * (self.scale if self.shrink else 1)
        if min(height, width) < side:
            raise PictureError(f"'{pair.degraded}' has shrunk since the run began")
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        small = degraded[:, top : top + side, left : left + side]
        top, left, side = top * ratio, left * ratio, side * ratio
        large = sharp[:, top : top + side, left : left + side]
        small, large = flip_and_rotate([small, large], rng)
        return Item(large, small, None)

    def available(self, wanted: int, *, mirrored: bool) -> int:
        """Count the distinct pool items, at most `wanted`; mirror images count if `mirrored`."""
        return min(wanted, len(self) * (2 if mirrored else 1))

    def sample(self, seed: int, number: int, side: int) -> Item:
        """Make a pool item: a whole pair, of any size; numbers beyond the last pair mirror it."""
        mirror, place = divmod(number, len(self))
        degraded, sharp = self._read(int(shuffled_order(seed, 0, len(self))[place]))
        if self.shrink:
            height, width = (length // self.scale * self.scale for length in sharp.shape[1:])
            degraded, sharp = degraded[:, :height, :width], sharp[:, :height, :width]
        if mirror:
            sharp, degraded = sharp.flip(2), degraded.flip(2)
        return Item(sharp, degraded, None)

    def _read(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        degraded, sharp = self.pictures.read(pair.degraded), self.pictures.read(pair.reference)
        ratio = 1 if self.shrink else self.scale
        height, width = degraded.shape[1:]
        if sharp.shape[1:] != (height * ratio, width * ratio):
            raise PictureError(
                f"pair '{pair.name}' is {width}x{height} and {sharp.shape[2]}x{sharp.shape[1]}, "
                f"not {width}x{height} and {width * ratio}x{height * ratio}",
                hint="leave the pair out",
            )
        return degraded, sharp

    def batch(self, crops: Sequence[Item], wanted: Collection[str], device: torch.device) -> Batch:
        reference = upload([crop.sharp for crop in crops], device)
        degraded = upload([crop.degraded for crop in crops if crop.degraded is not None], device)
        large = degraded if self.shrink else None
        if self.shrink:
            height, width = (side // self.scale for side in degraded.shape[-2:])
            # Rounded to 8 bits, as in a file; GFN's authors trained on unrounded values.
            degraded = quantise(resize_bicubic(degraded, height, width))
        return Batch(degraded, make_targets(wanted, degraded, reference, large))


@lru_cache(32)  # one per part of a mixture
def shuffled_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return a random order of the indices below `count` in an epoch, counted from 0."""
    return np.random.default_rng([seed, 0, epoch]).permutation(count)


def list_photos(folder: Path, minimum: int) -> tuple[list[Path], tuple[str, ...]]:
    """List pictures in a folder and below, sorted by path, with sides of `minimum` pixels or more.

    Also returns a note if there are others.

    Raises:
        NoInputError: there is none.
        UsageError: a folder below contains pairs.
    """
    # Sorted by path, not by number: existing runs depend on this order.
    found: list[Path] = []
    if folder.is_dir():
        found = sorted(list_pictures(folder, recursive=True, links=True, dead_links=True))
        if inside := find_all_folders(folder)[0]:
            raise UsageError(
                f"'{folder}' is no folder of pairs but contains one, whose degraded pictures would "
                f"be taken for sharp photos: '{inside[0].degraded}'",
                hint="give the parent folder of the pairs, or move them out of the photos",
            )
    sizes = {path: read_size(path, still=True) for path in found}
    paths = [path for path, size in sizes.items() if size and min(size) >= minimum]
    if not paths:
        raise NoInputError(
            f"no picture in '{folder}' has sides of {minimum} px or more "
            f"({format_count(len(sizes), 'picture')} found)",
            hint="give a folder of sharp photos or pairs, or choose a smaller patch in the recipe",
        )
    left_out = len(found) - len(paths)
    note = (
        f"note: {format_count(left_out, 'picture')} in '{folder}' left out: unreadable, animated, "
        f"or with a side of less than {minimum} px"
    )
    return paths, (note,) * bool(left_out)


def _cut(photo: Tensor, top: int, left: int, side: int) -> Tensor:
    return photo[:, top : top + side, left : left + side]


def _cut_halved(photo: Tensor, top: int, left: int, side: int) -> Tensor:
    """Crop the photo at half size; only the part that is needed is resized."""
    rows, columns = (length // 2 for length in photo.shape[1:])
    border = 4  # pixels of the halved photo: more than the radius of the bicubic kernel
    first = max(top - border, 0), max(left - border, 0)
    last = min(top + side + border, rows), min(left + side + border, columns)
    window = photo[:, 2 * first[0] : 2 * last[0], 2 * first[1] : 2 * last[1]]
    half = resize_bicubic(window[None].float(), last[0] - first[0], last[1] - first[1])[0]
    half = half.round().clamp(0, 255).byte()
    return _cut(half, top - first[0], left - first[1], side)


def flip_and_rotate(pictures: list[Tensor], rng: np.random.Generator) -> list[Tensor]:
    """Apply one of the eight flips and rotations, drawn at random, to all maps (C, H, W).

    A quarter turn swaps H and W.
    """
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    turned = [torch.rot90(picture, turns, (1, 2)) for picture in pictures]
    return [(picture.flip(2) if flip else picture).contiguous() for picture in turned]


def upload(crops: list[Tensor], device: torch.device) -> Tensor:
    """Stack maps (C, H, W) to (B, C, H, W) float32 on the device; uint8 is scaled to [0, 1]."""
    stacked = torch.stack(crops)
    # So that the copy runs while the network computes. From memory that is not pinned, such a copy
    # to MPS reads what has been freed (pytorch#139550).
    if pinned := device.type == "cuda":
        stacked = stacked.pin_memory()
    stacked = stacked.to(device, non_blocking=pinned)
    return stacked.float() / 255 if stacked.dtype == torch.uint8 else stacked.float()


def make_targets(
    wanted: Collection[str], degraded: Tensor, reference: Tensor, large: Tensor | None
) -> dict[str, Tensor]:
    """Return targets by name, (B, 3, H, W) in [0, 1]: `reference`, and those that are wanted.

    `degraded` and `reference` are pictures of the batch, (B, 3, h, w) and (B, 3, H, W); `large` is
    `degraded` before downscaling, or None.
    """
    targets = {"reference": reference}
    if "reference_small" in wanted:
        targets["reference_small"] = resize_bicubic(reference, *degraded.shape[-2:]).clamp(0, 1)
    # attentive-deblur's authors downscale without antialiasing: TensorFlow 1's bilinear resizing.
    if "reference_half" in wanted:
        targets["reference_half"] = reference[..., ::2, ::2].contiguous()
    if "reference_quarter" in wanted:
        targets["reference_quarter"] = reference[..., ::4, ::4].contiguous()
    if large is not None:
        targets["degraded_large"] = large
    return targets


def _shrinks(pair: Pair, scale: int) -> bool:
    """Whether the degraded picture has to be shrunk; raises `UsageError` if sizes do not match."""
    degraded, reference = (_size(path) for path in (pair.degraded, pair.reference))
    shrink = scale > 1 and degraded == reference
    ratio = 1 if shrink else scale
    if (degraded[0] * ratio, degraded[1] * ratio) != reference:
        small, large = (f"{width}x{height}" for height, width in (degraded, reference))
        raise UsageError(
            f"'{pair.degraded}' is {small} and its sharp partner {large}, but the model's scale is "
            f"x{scale}",
            hint="use a model and data of the same scale, or leave the pair out",
        )
    return shrink


def _size(path: Path) -> tuple[int, int]:
    """Return height and width of a picture; raises `UsageError` if it is not a picture."""
    if (size := read_size(path, still=True)) is None:
        raise UsageError(
            f"'{path}' cannot be read as one picture",
            hint="remove the pair; `restore datasets check` states the reason",
        )
    return size


def _listing(found: Mapping[Path, Sequence[Path]]) -> str:
    """Return a digest of file names and sizes; hashing a dataset's contents would take minutes."""
    lines = [
        f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n"
        for folder, paths in found.items()
        for path in paths
    ]
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
