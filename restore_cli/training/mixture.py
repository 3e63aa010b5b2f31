"""Mixtures of several kinds of data in every batch, and the opening of data folders."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restore_cli.datasets.layouts import find_pairs
from restore_cli.degradations.recipe import DegradationRecipe, load_degradation
from restore_cli.errors import UsageError
from restore_cli.training.data import Batch, Item, PairedPictures, Photos, Source
from restore_cli.training.recipe import TrainingRecipe

Kind = Photos | PairedPictures


class MixtureOrder:
    """Assigns every item of a run to a part of the mixture, with a period of a hundred items.

    The parts are spread as evenly as their probabilities allow: in every batch, the number of items
    of each part differs from its expectation by less than one, in every process.
    """

    def __init__(self, hundredths: Sequence[int]) -> None:
        """Distribute a hundred items over the parts; their `hundredths` must have a sum of 100."""
        taken = np.zeros(len(hundredths), dtype=int)
        self._parts, self._before = [], []
        for place in range(100):
            due = np.array(hundredths) * (place + 1) / 100 - taken
            part = int(due.argmax())
            self._parts.append(part)
            self._before.append(int(taken[part]))
            taken[part] += 1
        self._hundredths = list(hundredths)

    def locate(self, number: int) -> tuple[int, int]:
        """Return the part that an item of the run belongs to, and its index within that part."""
        hundreds, place = divmod(number, 100)
        part = self._parts[place]
        return part, hundreds * self._hundredths[part] + self._before[place]

    def before(self, number: int) -> list[int]:
        """Count the items of each part before an item of the run."""
        hundreds, place = divmod(number, 100)
        begun = self._parts[:place]
        return [hundreds * each + begun.count(n) for n, each in enumerate(self._hundredths)]


class Mixture(Source):
    """Parts with probabilities; each iterates over its own data in its own order."""

    def __init__(self, sources: Sequence[Kind], hundredths: Sequence[int]) -> None:
        self.sources, self.hundredths = list(sources), list(hundredths)
        self.order = MixtureOrder(hundredths)
        self.targets = frozenset.intersection(*(source.targets for source in sources))
        self.files = frozenset().union(*(source.files for source in sources))
        self.notes = tuple(dict.fromkeys(note for source in sources for note in source.notes))

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources)

    @property
    def facts(self) -> dict[str, Any]:
        parts = zip(self.hundredths, self.sources, strict=True)
        return {
            "kind": "mixture",
            "count": len(self),
            "parts": [{"probability": part / 100} | source.facts for part, source in parts],
        }

    def item(self, seed: int, number: int, patch: int) -> Item:
        part, own = self.order.locate(number)
        return self.sources[part].item(part_seed(seed, part), own, patch)._replace(part=part)

    def batch(self, crops: Sequence[Item], wanted: Collection[str], device: torch.device) -> Batch:
        present = sorted({crop.part for crop in crops})
        batches = [
            self.sources[part].batch([crop for crop in crops if crop.part == part], wanted, device)
            for part in present
        ]
        return Batch(
            torch.cat([batch.degraded for batch in batches]),
            {
                name: torch.cat([batch.targets[name] for batch in batches])
                for name in batches[0].targets.keys() & ({"reference"} | set(wanted))
            },
        )


def part_seed(seed: int, part: int) -> int:
    """Return the seed of a mixture's part, so that no two parts crop photos at the same places."""
    return int(np.random.SeedSequence([seed, 2, part]).generate_state(1)[0])


def open_source(folders: Sequence[Path], recipe: TrainingRecipe, scale: int, side: int) -> Source:
    """Open the data of a run: pairs, in folders with a known dataset layout, or sharp photos.

    Args:
        folders: one or more folders; of both kinds, if the recipe mixes them.
        recipe: recipe with the mixture and the degradations.
        scale: scale of the model.
        side: side of the largest degraded crop, pixels.

    Raises:
        NoInputError: there are no pictures, or a dataset is incomplete.
        UsageError: the pairs have another scale or lack a target of the losses, or the kinds of
            data are not those of the recipe's mixture.
    """
    found = {folder: find_pairs(folder, gopro_blur=recipe.gopro_blur) for folder in folders}
    pairs = {folder: pairs for folder, pairs in found.items() if pairs is not None}
    photos = [folder for folder in folders if folder not in pairs]
    _check_kinds(recipe, photos, list(pairs))
    paired = PairedPictures(pairs, scale, max(recipe.patches)) if pairs else None
    if paired is not None:
        wanted = {term.target for phase in recipe.phases for term in phase.losses}
        missing = sorted(wanted - paired.targets)
        if missing:
            raise UsageError(
                f"the recipe's losses need '{missing[0]}', which the pairs in "
                f"'{next(iter(pairs))}' do not have",
                hint="give pairs of equal size, which are downscaled here, or sharp photos",
            )

    def degradation(name: str | None) -> DegradationRecipe:
        return load_degradation(name or recipe.degradation).at_scale(scale)

    sharp = Photos(photos, recipe, degradation(None), side) if photos else None
    kinds: list[Kind] = []
    for part in recipe.mixture:
        if part.data == "pairs" and paired is not None:
            kinds.append(paired)
        elif sharp is not None:
            kinds.append(sharp.with_degradation(degradation(part.degradation)))
    if kinds:
        return Mixture(kinds, [part.hundredths for part in recipe.mixture])
    source = paired or sharp
    assert source is not None  # a folder contains one or the other
    return source


def _check_kinds(recipe: TrainingRecipe, photos: Sequence[Path], pairs: Sequence[Path]) -> None:
    given = {kind for kind, folders in (("photos", photos), ("pairs", pairs)) if folders}
    mixed: set[str] = {part.data for part in recipe.mixture}
    if recipe.mixture and mixed - given:
        kind = min(mixed - given)
        raise UsageError(
            f"the recipe's mixture includes {kind}, but no folder of {kind} was given",
            hint=f"add --data FOLDER_OF_{kind.upper()}",
        )
    if recipe.mixture and given - mixed:
        folder = (pairs if "pairs" in given - mixed else photos)[0]
        raise UsageError(
            f"'{folder}' contains {min(given - mixed)}, but the recipe's mixture does not",
            hint="leave it out, or add a [[mixture]] part to the recipe",
        )
    if len(given) > 1 and not recipe.mixture:
        raise UsageError(
            f"'{photos[0]}' contains photos and '{pairs[0]}' pairs, but the recipe has no mixture",
            hint="give one kind of data, or add [[mixture]] parts to the recipe",
        )
