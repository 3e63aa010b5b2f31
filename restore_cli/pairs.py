"""Pairs of a degraded and a sharp picture; each is a function of (recipe, seed, index)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore_cli.degradations.recipe import DegradationRecipe, degrade, draw
from restore_cli.errors import NoInputError, PictureError, UsageError
from restore_cli.files import write_then_rename
from restore_cli.image import (
    FORMATS,
    OTHER_SUFFIXES,
    SUFFIXES,
    Metadata,
    Picture,
    read_image,
    write_image,
)
from restore_cli.jobs import refuse_unwritable


@dataclass(frozen=True, slots=True)
class DegradeJob:
    """What to degrade and where to put it.

    Attributes:
        inputs: sharp pictures, in order; a picture's index is part of its seed.
        output: a folder for `lr/`, `hr/` and `records/`, or, for one input, a picture file that
            gets the degraded picture only.
        recipe: what to do to them.
        seed: of all random numbers.
    """

    inputs: tuple[Path, ...]
    output: Path
    recipe: DegradationRecipe
    seed: int


def plan_pairs(job: DegradeJob) -> None:
    """Refuse what cannot end well, before anything is read.

    Raises:
        NoInputError: no input.
        UsageError: one output file for several inputs, an output that exists or cannot be written,
            inputs of one name.
    """
    if not job.inputs:
        raise NoInputError("no pictures among the inputs", hint="give PNG, JPEG or WebP files")
    if job.output.suffix.lower() in OTHER_SUFFIXES:
        raise UsageError(
            f"cannot write '{job.output}'", hint=f"this version writes {', '.join(FORMATS)}"
        )
    refuse_unwritable(job.output.parent if _single(job) else job.output)
    if _single(job):
        if len(job.inputs) > 1:
            raise UsageError(f"--output '{job.output}' is one file for {len(job.inputs)} inputs")
        if job.output.exists():
            raise UsageError(f"'{job.output}' exists", hint="remove it or choose another --output")
        return
    stems = [source.stem for source in job.inputs]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice:
        raise UsageError(
            f"two inputs are called '{twice}'", hint="pairs are named after their input"
        )
    if (job.output / "lr").exists():
        raise UsageError(f"'{job.output}/lr' exists", hint="choose another --output")


def make_pairs(job: DegradeJob) -> Iterator[tuple[Path, PictureError | None]]:
    """Degrade every input; yields (degraded file or failed input, error or None)."""
    for index, source in enumerate(job.inputs):
        try:
            yield _make_pair(job, index, source), None
        except PictureError as error:
            yield source, error


def _make_pair(job: DegradeJob, index: int, source: Path) -> Path:
    sharp = read_image(source)
    if sharp.alpha is not None:
        raise PictureError(f"'{source}' has transparency", hint="flatten it first")
    height, width = sharp.pixels.shape[-2:]
    if min(height, width) < 16 * job.recipe.scale:
        raise PictureError(
            f"'{source}' is {width}x{height}, too small to shrink x{job.recipe.scale}",
            hint=f"at least {16 * job.recipe.scale} px a side",
        )
    rng = np.random.default_rng([job.seed, index])
    centre = (width / 2, height / 2)
    parameters = draw(job.recipe, rng, picture=(height, width), centre=centre)
    degraded, reference = degrade(sharp.pixels, [parameters], job.recipe.scale)
    # The profile says what the values mean; nothing else of the file is true of the new picture.
    profile = Metadata(icc_profile=sharp.metadata.icc_profile)
    small = Picture(degraded, None, grey=False, format="png", metadata=profile)
    if _single(job):
        write_image(job.output, small, format_key=SUFFIXES[job.output.suffix.lower()])
        return job.output
    name = f"{source.stem}.png"
    target = job.output / "lr" / name
    write_image(job.output / "hr" / name, small.with_pixels(reference, None), format_key="png")
    record = {"source": source.name, "recipe": job.recipe.name, "seed": job.seed, "index": index}
    with write_then_rename(job.output / "records" / f"{source.stem}.json") as temporary:
        temporary.write_text(json.dumps(record | parameters.record()), "utf-8")
    write_image(target, small, format_key="png")
    return target


def _single(job: DegradeJob) -> bool:
    return job.output.suffix.lower() in SUFFIXES
