"""Datasets that are made from sharp pictures by a recipe, including `blurmini`."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from functools import partial
from pathlib import Path

from restore_cli.datasets.degrade_job import DegradeJob, check_unique_names
from restore_cli.datasets.layouts import Folders, Pair
from restore_cli.datasets.registry import USER_DATA, Dataset
from restore_cli.datasets.synthesize import DegradeOutcome, make_pairs
from restore_cli.degradations.recipe import DegradationRecipe, load_degradation
from restore_cli.errors import PictureError, UsageError
from restore_cli.formatting import format_count
from restore_cli.image import Encoding, Picture, read_image, write_image

SHARP = Path(__file__).parent / "blurmini"
RECIPES = {4: "shake", 1: "handheld"}
_SHARP_PHOTOS = sorted(SHARP.glob("*.png"))


def degraded(
    photos: Sequence[Path],
    recipe: DegradationRecipe,
    *,
    seed: int = 0,
    side: int | None = None,
    motion: bool = True,
) -> Dataset:
    """Return a dataset of sharp pictures that are degraded on demand.

    Args:
        photos: sharp pictures; photo n is degraded with seed [seed, n].
        recipe: the degradation.
        seed: random seed.
        side: side in pixels of the central square that is used; None for whole pictures.
        motion: whether to apply motion blur; if not, only the rest of the recipe is applied.

    Raises:
        UsageError: two photos have the same name, or the recipe makes patches or 32-bit values.
    """
    if recipe.patches or recipe.bits != 8:
        what = "cuts patches" if recipe.patches else "makes 32-bit values"
        raise UsageError(
            f"recipe '{recipe.name}' {what}, which cannot be scored as pictures",
            hint="use a recipe of whole pictures, e.g. shake",
        )
    check_unique_names(photos)
    what = f"{format_count(len(photos), 'sharp picture')} degraded by recipe '{recipe.name}'"
    what += f", seed {seed}"
    what += f", the middle {side} px" * bool(side) + ", without motion" * (not motion)
    options = f"-seed{seed}" * bool(seed) + f"-{side}px" * bool(side) + "-no-motion" * (not motion)
    return Dataset(
        name=recipe.name + options,
        description=what,
        scale=recipe.scale,
        protocol="photos",
        count=len(photos),
        find=partial(_find, names={photo.stem for photo in photos}),
        layout="lr/ and hr/, made by this command",
        home=USER_DATA,
        make=partial(_make, photos=photos, recipe=recipe, seed=seed, side=side, motion=motion),
    )


def _find(folder: Path, names: Container[str]) -> Iterator[Pair]:
    """Find the pairs with the given names: an earlier run may have left others."""
    return (p for p in Folders(folder / "lr", folder / "hr").pairs() if p.name in names)


def _make(
    folder: Path,
    *,
    photos: Sequence[Path],
    recipe: DegradationRecipe,
    seed: int = 0,
    side: int | None = None,
    motion: bool = True,
) -> Iterator[DegradeOutcome]:
    """Degrade photos into `lr` and `hr`, see `degraded`; existing pairs are kept."""
    failed: set[Path] = set()
    if side is not None:
        squares = [folder / "sharp" / f"{photo.stem}.png" for photo in photos]
        for photo, square in zip(photos, squares, strict=True):
            try:
                _write_middle(photo, side, square)
            except PictureError as error:
                failed.add(square)  # it stays in the list: the seed depends on the place there
                yield DegradeOutcome(photo, error=error)
        photos = squares
    job = DegradeJob(tuple(photos), folder, recipe, seed, resume=True, motion=motion, fixed=True)
    yield from (made for made in make_pairs(job) if made.source not in failed)


def _write_middle(path: Path, side: int, target: Path) -> None:
    """Write the central square of a picture to a file."""
    pixels = read_image(path, icc="strip", strict=True).pixels
    height, width = pixels.shape[-2:]
    if min(height, width) < side:
        raise PictureError(
            f"'{path}' is {width}x{height}, smaller than {side} px a side",
            hint="leave it out, or take a larger photo",
        )
    top, left = (height - side) // 2, (width - side) // 2
    pixels = pixels[..., top : top + side, left : left + side]
    write_image(target, Picture(pixels), Encoding())


def _make_miniature(folder: Path, scale: int) -> Iterator[DegradeOutcome]:
    return _make(folder, photos=_SHARP_PHOTOS, recipe=load_degradation(RECIPES[scale]))


MINIATURES: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="blurmini" if scale == 4 else "blurmini-x1",
            description=f"8 pictures that come with restore, degraded by recipe '{recipe}', seed 0",
            scale=scale,
            protocol="cnlrn" if scale == 4 else "rgb",
            count=len(_SHARP_PHOTOS),
            find=partial(_find, names={photo.stem for photo in _SHARP_PHOTOS}),
            layout="lr/ and hr/, made by this command",
            home="restore_cli/datasets/blurmini/README.md",
            make=partial(_make_miniature, scale=scale),
        )
        for scale, recipe in RECIPES.items()
    )
}
