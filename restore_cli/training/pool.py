"""A pool of degraded pictures on disk, made once and cropped at random during training.

Degrading took 0.35 s of a 1.2 s step of the small networks on two cores, and a frozen part may cost
many times more than the trained part. So items are made beforehand: the degraded picture, its
reference, and, if the network has a part that is frozen in the first phase, that part's outputs as
float16. An item is a function of (seed, part of the mixture, number), so an interrupted pool can be
completed, and an enlarged pool keeps its items.

With `reuse` in the recipe, the items of photos are replaced one by one during training: every
`reuse` patches, the window of item numbers moves by one. The window is a function of the patch
number, so a resumed run crops the same items. A background process makes the new items (`refill`),
or the training process itself if an item is not ready. If outputs of a frozen part are stored, no
phase may train that part.

| file | content |
|---|---|
| `pool.json` | everything the items depend on; a run with other values is refused |
| `P-NNNNNN.safetensors` | an item of part P of the mixture |

An item has `degraded`, `reference` and, if a loss needs it, `degraded_large`, uint8 (3, H, W); a
degraded picture that its recipe does not round is float32. `prepared.NAME` is float16 (C, H, W).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from restore_cli.degradations.recipe import DESCRIPTIVE_FIELDS
from restore_cli.errors import PictureError, RestoreError, UsageError
from restore_cli.files import remove_abandoned, write_then_rename
from restore_cli.inference.tiling import pad
from restore_cli.models.layers import memory_format
from restore_cli.models.spec import SizeRequirement
from restore_cli.rounding import to_uint
from restore_cli.training.data import (
    PREPARED,
    Batch,
    Item,
    PairedPictures,
    Photos,
    Source,
    flip_and_rotate,
    make_targets,
    shuffled_order,
    upload,
)
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.mixture import Mixture, MixtureOrder, part_seed
from restore_cli.training.recipe import TrainingRecipe
from restore_cli.weights.checkpoint import write_checkpoint

RECORD = "pool.json"
# What reading a broken record raises.
_BROKEN = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


class FrozenModule(NamedTuple):
    """The part of a network whose outputs are stored."""

    model: str  # model of the network
    size: SizeRequirement  # sizes the network accepts
    network: nn.Module  # the network; it is run in eval mode
    sha256: str  # sha256 of the part's weights


class Pool(Source):
    """Items on disk; a patch is a random crop of an item, flipped and rotated."""

    def __init__(
        self,
        folder: Path,
        source: Source,
        recipe: TrainingRecipe,
        device: torch.device,
        frozen: FrozenModule | None,
    ) -> None:
        """Open a new or empty folder, or a pool that was made with the same data and settings.

        Raises `UsageError` for any other folder.
        """
        self.folder, self.recipe, self.device, self.frozen = folder, recipe, device, frozen
        self.source, self.targets = source, source.targets
        parts = source.sources if isinstance(source, Mixture) else [source]
        self.parts = [part for part in parts if isinstance(part, Photos | PairedPictures)]
        hundredths = source.hundredths if isinstance(source, Mixture) else [100]
        self.order = MixtureOrder(hundredths)
        wanted = [max(round(recipe.pool.size * part / 100), 1) for part in hundredths]
        mirrored = frozen is not None
        # number of items of each part of the mixture, at a time
        self.counts = [
            part.available(count, mirrored=mirrored)
            for part, count in zip(self.parts, wanted, strict=True)
        ]
        targets = {term.target for phase in recipe.phases for term in phase.losses}
        self._stored = {"degraded_large"} & targets
        # for each part, whether its items are replaced during training
        self.replaceable = [self.refilled and isinstance(part, Photos) for part in self.parts]
        self._check()

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def facts(self) -> dict[str, Any]:
        return self.source.facts

    def fill(self, group: ProcessGroup, report: Callable[[int, int], None], seen: int = 0) -> None:
        """Make the items that are missing after `seen` patches, shared by the processes of a group.

        `report` is called with the numbers of finished and of all items. Raises `PictureError` and
        `RestoreError` as `make` does.
        """
        missing = self._missing(seen)  # before any process makes one, so that all share one list
        group.barrier()  # until all processes have checked the record: a new pool must be empty
        for place, (part, number) in enumerate(missing):
            if place % group.size == group.rank:
                report(len(self) - len(missing) + place, len(self))
                self.make(part, number)
        group.barrier()
        for part, number in self._missing(seen):  # made by processes of hosts with another disk
            self.make(part, number)
        for source in self.parts:
            source.pictures.clear()  # leaves the memory to the file cache of the items
        report(len(self), len(self))

    def bytes_on_disk(self) -> int:
        """Sum the sizes of all items in the folder, in bytes."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def missing(self) -> int:
        """Count the items that the initial pool still lacks."""
        return len(self._missing(0))

    @property
    def refilled(self) -> bool:
        """Whether items are replaced during training."""
        return self.recipe.pool.reuse is not None

    def first_numbers(self, seen: int) -> list[int]:
        """Return the number of each part's oldest item after `seen` patches were cropped.

        The pool contains `counts` items from that number on; earlier ones were replaced.
        """
        return [self._first(part, own) for part, own in enumerate(self.order.before(seen))]

    def drop(self, seen: int) -> None:
        """Delete all items that are no longer needed after `seen` patches.

        It looks at the files, since the background process may have finished an item late.
        """
        for part, first in enumerate(self.first_numbers(seen)):
            for path in self.folder.glob(f"{part}-*.safetensors"):
                number = path.stem.partition("-")[2]
                if number.isdecimal() and int(number) < first:
                    path.unlink(missing_ok=True)

    def item(self, seed: int, number: int, patch: int) -> Item:
        part, own = self.order.locate(number)
        seed = part_seed(seed, part)
        epoch, place = divmod(own, self.counts[part])
        index = int(shuffled_order(seed, epoch, self.counts[part])[place])
        first = self._first(part, own)
        rng = np.random.default_rng([seed, 1, own])
        number = first + (index - first) % self.counts[part]
        path = self.path(part, number)
        if self.refilled and not path.is_file():
            self.make(part, number)
        try:
            return _cut(path, rng, patch)
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise PictureError(
                f"'{path}' is not a valid pool item for patches of {patch} px: {error}",
                hint="delete the file; it will be made again",
            ) from error

    def batch(self, crops: Sequence[Item], wanted: Collection[str], device: torch.device) -> Batch:
        reference = upload([crop.sharp for crop in crops], device)
        degraded = _stacked([crop.degraded for crop in crops if crop.degraded is not None], device)
        large = [crop.large for crop in crops if crop.large is not None]
        enlarged = _stacked(large, device) if large else None
        prepared = {}
        if PREPARED in wanted:
            for name in crops[0].prepared:
                prepared[name] = upload([crop.prepared[name] for crop in crops], device)
        return Batch(degraded, make_targets(wanted, degraded, reference, enlarged), prepared)

    def path(self, part: int, number: int) -> Path:
        """Name the file of an item by its part and its number in that part, both from 0."""
        return self.folder / f"{part}-{number:06d}.safetensors"

    def _first(self, part: int, own: int) -> int:
        """Return the number of a part's oldest item at its patch `own`; pairs are not replaced."""
        reuse = self.recipe.pool.reuse
        return own // reuse if reuse and self.replaceable[part] else 0

    def _missing(self, seen: int) -> list[tuple[int, int]]:
        there = {path.name for path in self.folder.glob("*.safetensors")}
        return [
            (part, number)
            for part, first in enumerate(self.first_numbers(seen))
            for number in range(first, first + self.counts[part])
            if self.path(part, number).name not in there
        ]

    def _check(self) -> None:
        """Compare the pool with its record, or write the record."""
        path, now = self.folder / RECORD, self._origin()
        if path.is_file():
            try:
                before = json.loads(path.read_text("utf-8"))
                changed = sorted(k for k in now | before if now.get(k) != before.get(k))
            except _BROKEN as error:
                raise UsageError(
                    f"'{path}' is not a valid pool record: {error}",
                    hint="choose another --pool folder, or delete this one",
                ) from error
            if changed:
                raise UsageError(
                    f"the pool '{self.folder}' was made with other data or settings "
                    f"({', '.join(changed)})",
                    hint="choose another --pool folder, or delete this one",
                )
            remove_abandoned(self.folder)
            return
        try:
            others = (entry.name for entry in self.folder.glob("*"))
            if any(not name.startswith(".") and name != RECORD for name in others):
                raise UsageError(
                    f"'{self.folder}' is neither empty nor a pool",
                    hint="choose another --pool folder",
                )
            with write_then_rename(path) as temporary:
                temporary.write_text(json.dumps(now, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise RestoreError(f"cannot write to the pool '{self.folder}': {error}") from error

    def _origin(self) -> dict[str, Any]:
        """Return everything the items depend on; pool size and probabilities do not affect them."""
        parts = []
        for part in self.parts:
            facts = part.facts
            if isinstance(part, Photos):
                facts["degradation"] = part.degradation.model_dump(
                    mode="json", exclude=DESCRIPTIVE_FIELDS
                )
            if isinstance(part, PairedPictures):
                facts |= {"scale": part.scale, "shrink": part.shrink}
            parts.append(facts)
        frozen = self.frozen
        return {
            "seed": self.recipe.seed,
            "side": self.recipe.pool_side,
            "margin": self.recipe.margin,
            "halve": self.recipe.halve,
            "gopro_blur": self.recipe.gopro_blur,
            "data": parts,
            "stored": sorted(self._stored),
            "frozen part": f"{frozen.model} sha256 {frozen.sha256}" if frozen else "none",
        } | ({"refilled": True} if self.refilled else {})  # other runs would lack deleted items

    def make(self, part: int, number: int) -> None:
        """Make an item: a function of the recipe's seed, part and number.

        Raises `PictureError` if a picture cannot be read, and `RestoreError` if the disk is full.
        """
        source, seed = self.parts[part], part_seed(self.recipe.seed, part)
        crop = source.sample(seed, number, self.recipe.pool_side)
        batch = source.batch([crop], self._stored, self.device)
        degraded = batch.degraded
        prepared, stride = self._prepare(degraded)
        height, width = (side // stride * stride for side in degraded.shape[-2:])
        pictures = {name: batch.targets[name] for name in ("reference", *self._stored)}
        kept = {"degraded": _exact(degraded[0, :, :height, :width])}
        for name, picture in pictures.items():
            ratio = picture.shape[-1] // degraded.shape[-1]
            kept[name] = to_uint(picture[0, :, : height * ratio, : width * ratio], 8)
        for name, (map_, factor) in prepared.items():
            kept[f"{PREPARED}.{name}"] = map_[0, :, : height // factor, : width // factor].half()
        on_the_cpu = {name: tensor.cpu() for name, tensor in kept.items()}
        write_checkpoint(self.path(part, number), on_the_cpu, None)

    def _prepare(self, degraded: Tensor) -> tuple[dict[str, tuple[Tensor, int]], int]:
        """Run the frozen part: outputs with their downscaling factors, and the largest factor."""
        if self.frozen is None:
            return {}, 1
        network = self.frozen.network
        padded = pad(degraded, self.frozen.size)
        training = network.training
        network.eval()
        with torch.inference_mode():
            image = padded.contiguous(memory_format=memory_format(padded.device))
            maps: dict[str, Tensor] = network.prepare(image)  # type: ignore[operator]
        network.train(training)
        factors = {name: padded.shape[-1] // map_.shape[-1] for name, map_ in maps.items()}
        return {name: (maps[name], factors[name]) for name in maps}, max(factors.values())


def _cut(path: Path, rng: np.random.Generator, patch: int) -> Item:
    """Crop all maps of an item at the same place; only that part is read.

    Raises:
        SafetensorError: the file is incomplete.
        KeyError: a map is missing.
        ValueError: the item is smaller than the patch.
    """
    with safe_open(path, framework="pt") as file:
        maps = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no mapping
        shapes = {name: map_.get_shape() for name, map_ in maps.items()}
        _, height, width = shapes["degraded"]
        if min(height, width) < patch:
            raise ValueError(f"it is only {width}x{height}")
        # Crops start at multiples of the smallest map's downscaling factor.
        stride = max(max(height // rows, 1) for _, rows, _ in shapes.values())
        top = int(rng.integers((height - patch) // stride + 1)) * stride
        left = int(rng.integers((width - patch) // stride + 1)) * stride
        cut = {}
        for name, map_ in maps.items():
            _, rows, columns = shapes[name]
            above, below = (line * rows // height for line in (top, top + patch))
            before, behind = (line * columns // width for line in (left, left + patch))
            cut[name] = map_[:, above:below, before:behind]
    cut = dict(zip(cut, flip_and_rotate(list(cut.values()), rng), strict=True))
    prefix = f"{PREPARED}."
    prepared = {n.removeprefix(prefix): t for n, t in cut.items() if n.startswith(prefix)}
    return Item(cut["reference"], cut["degraded"], None, cut.get("degraded_large"), prepared)


def _exact(picture: Tensor) -> Tensor:
    """Convert to uint8 if that is exact, because the degradation rounds to 8 bits."""
    whole = to_uint(picture, 8)
    return whole if torch.equal(whole.float() / 255, picture) else picture


def _stacked(pictures: Sequence[Tensor], device: torch.device) -> Tensor:
    """Make a batch of uint8 pictures, float32 pictures, or both."""
    if len({picture.dtype for picture in pictures}) > 1:
        pictures = [p.float() / 255 if p.dtype == torch.uint8 else p for p in pictures]
    return upload(list(pictures), device)
