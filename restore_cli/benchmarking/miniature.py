"""`blurmini`: eight pictures that come with the package, degraded from a seed when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from restore_cli.benchmarking.datasets import Dataset, Sample
from restore_cli.degradations.recipe import load_degradation
from restore_cli.pairs import DegradeJob, make_pairs

SHARP = Path(__file__).parent / "blurmini"
RECIPES = {4: "shake", 1: "handheld"}
HOME = "restore_cli/benchmarking/blurmini/README.md"


def _find(folder: Path) -> Iterator[Sample]:
    for path in sorted(folder.glob("lr/*.png")):
        yield Sample(path.stem, path, (folder / "hr" / path.name,))


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
