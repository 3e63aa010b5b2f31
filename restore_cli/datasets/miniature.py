"""`blurmini`: eight pictures that come with the package, degraded from a seed when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from restore_cli.datasets.layouts import Folders, Pair
from restore_cli.datasets.registry import Dataset
from restore_cli.datasets.synthesize import DegradeJob, make_pairs
from restore_cli.degradations.recipe import load_degradation

SHARP = Path(__file__).parent / "blurmini"
RECIPES = {4: "shake", 1: "handheld"}
HOME = "restore_cli/datasets/blurmini/README.md"


def _find(folder: Path) -> Iterator[Pair]:
    yield from Folders(folder / "lr", folder / "hr").pairs()


MINIATURES: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="blurmini" if scale == 4 else "blurmini-x1",
            description=f"8 pictures that come with restore, degraded by recipe '{recipe}', seed 0",
            scale=scale,
            protocol="cnlrn" if scale == 4 else "rgb",
            count=8,
            find=_find,
            layout="lr/ and hr/, made by this command",
            home=HOME,
        )
        for scale, recipe in RECIPES.items()
    )
}


def make(dataset: Dataset, folder: Path) -> None:
    """Degrade the pictures into `folder/lr` and `folder/hr`; those that are there stay."""
    sharp = tuple(sorted(SHARP.glob("*.png")))
    recipe = load_degradation(RECIPES[dataset.scale])
    job = DegradeJob(inputs=sharp, output=folder, recipe=recipe, seed=0, resume=True)
    for made in make_pairs(job):
        if made.error:
            raise made.error
