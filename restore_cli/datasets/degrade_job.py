"""The job of `restore degrade`: its options, the checks before any work, and the output paths."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from restore_cli.datasets.layouts import LAYOUTS, SPLIT
from restore_cli.degradations.recipe import DegradationRecipe
from restore_cli.errors import NoInputError, UsageError, lookup
from restore_cli.files import absolute, check_path_length, check_writable, fold
from restore_cli.image import FORMATS
from restore_cli.image.formats import OTHER_SUFFIXES, READ_ONLY, SUFFIXES, has_video_suffix

REDS_SEQUENCE = 100  # frames per sequence of REDS; photos are grouped in the same way


@dataclass(frozen=True, slots=True)
class DegradeJob:
    """What to degrade, how, and where to write it."""

    # sharp pictures, videos and folders of frames, in order; an input's index is part of its seed
    inputs: tuple[Path, ...]
    output: Path  # a folder; or, for one picture, a file for the degraded picture only
    recipe: DegradationRecipe  # the degradation
    seed: int  # random seed
    layout: str = "plain"  # layout of the folder, a name in `layouts.LAYOUTS`
    split: str | None = None  # name of the split, in layouts that have splits; None: train
    resume: bool = False  # whether to keep pairs that have a record
    device: str = "cpu"  # device of the computation
    # whether to apply motion blur; if not, only the rest of the recipe is applied
    motion: bool = True
    # whether existing pairs must have been made for the same index; if not, pictures may be added
    # to a set whose pairs are named after them
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class PairPaths:
    """The paths of one pair, relative to the output, without suffix."""

    degraded: Path
    reference: Path

    @property
    def record(self) -> Path:
        return Path("records", f"{self.degraded}.json")  # not with_suffix: names may have dots


def plan_pairs(job: DegradeJob) -> None:
    """Refuse impossible jobs before anything is read.

    Raises:
        NoInputError: no input.
        UsageError: one output file for several inputs, an output that exists or cannot be written,
            inputs with the same name, a name that is too long, or frames with a recipe that does
            not average them.
    """
    layout = lookup("layout", job.layout, LAYOUTS)
    if job.split is not None and not re.fullmatch(SPLIT, job.split):
        raise UsageError(f"--split '{job.split}' is not a name", hint="use letters, digits and _")
    if job.split is not None and "{split}" not in layout.roots[0]:
        raise UsageError(
            f"--split '{job.split}' does not fit: layout '{layout.name}' has no splits",
            hint="leave it out, or use --layout reds or gopro",
        )
    if not job.inputs:
        raise NoInputError("no pictures among the inputs", hint="give PNG, JPEG or WebP files")
    if job.output.suffix.lower() in OTHER_SUFFIXES | set(READ_ONLY):
        raise UsageError(
            f"cannot write '{job.output}'", hint=f"this version writes {', '.join(FORMATS)}"
        )
    sequence = next((source for source in job.inputs if is_sequence(source)), None)
    if sequence and job.recipe.frames is None:
        raise UsageError(
            f"recipe '{job.recipe.name}' does not say how to average the frames of '{sequence}'",
            hint="use a recipe with [frames]: reds, gopro, gopro-gamma, gfn",
        )
    check_writable(job.output.parent if is_single_file(job) else job.output)
    if is_single_file(job):
        _plan_single(job)
        return
    if job.layout == "plain":
        check_unique_names(job.inputs)
    elif sequence and not (job.recipe.patches or all(map(is_sequence, job.inputs))):
        raise UsageError(
            f"layout '{job.layout}' numbers the frames of '{sequence}' like single pictures",
            hint="degrade videos and pictures into two folders",
        )
    _check_path_lengths(job)
    records = job.output / "records"
    if not job.resume and records.is_dir() and any(records.iterdir()):
        raise UsageError(
            f"'{job.output}/records' exists", hint="add --resume, or choose another --output"
        )
    _check_overwriting(job)


def _plan_single(job: DegradeJob) -> None:
    if len(job.inputs) > 1 or is_sequence(job.inputs[0]) or job.recipe.patches:
        raise UsageError(
            f"--output '{job.output}' is one file, but there are several pictures",
            hint="give a folder",
        )
    if job.layout != "plain" or job.resume:
        raise UsageError(
            f"--output '{job.output}' is one file", hint="leave out --layout and --resume"
        )
    check_degraded_file(job.output, job.recipe.bits)


def _check_overwriting(job: DegradeJob) -> None:
    """Refuse folders of pairs that contain inputs or, if no run to resume began there, any file."""
    new = not (job.resume and (job.output / "records").exists())  # made before the first pair
    files = [Path(os.path.realpath(path)) for path in job.inputs]  # also of links in a circle
    read = {*files, *(path.parent for path in files)}
    places = [pair_paths(job, index, 0, 1.0, None) for index in range(len(job.inputs))]
    halves = {half.parent for place in places for half in (place.degraded, place.reference)}
    for folder in sorted(job.output / half for half in halves):
        used = folder.resolve() in read
        if used or (new and folder.is_dir() and any(folder.iterdir())):
            what = "contains inputs" if used else "is not empty"
            raise UsageError(f"'{folder}' is for pairs, but {what}", hint="use another --output")


def _check_path_lengths(job: DegradeJob) -> None:
    patch = (99_999, 99_999) if job.recipe.patches else None
    for index in range(len(job.inputs)):
        longest = pair_paths(job, index, 99_999_999, 1.0, patch)
        check_path_length(job.output / longest.record)


def check_degraded_file(output: Path, bits: int) -> None:
    """Raise a `UsageError` if a file exists, or its suffix does not fit a degraded picture."""
    suffix = output.suffix.lower()
    if suffix != ".npy" if bits == 32 else suffix not in SUFFIXES:
        wanted = ".npy, since the recipe keeps 32-bit values" if bits == 32 else "a picture's"
        raise UsageError(f"cannot write '{output}'", hint=f"its suffix must be {wanted}")
    if output.exists():
        raise UsageError(f"'{output}' exists", hint="remove it or choose another --output")


def is_sequence(path: Path) -> bool:
    """Whether an input is a sequence of frames: a video, or a folder of pictures."""
    return has_video_suffix(path) or path.is_dir()


def name_of(source: Path) -> str:
    """Return the name of the pairs of an input."""
    return absolute(source).name if source.is_dir() else source.stem


def pair_paths(
    job: DegradeJob, index: int, number: int, size: float, patch: tuple[int, int] | None
) -> PairPaths:
    """Return the paths of a pair in the layout; `number` counts the pairs of one input."""
    source, split = job.inputs[index], job.split or "train"
    frames = is_sequence(source)
    if frames or job.recipe.patches is not None:
        sequence, frame = index, number
    else:
        sequence, frame = divmod(index, REDS_SEQUENCE)
    name = name_of(source)
    if frames:
        name += f"/{number:08d}"
    elif patch is not None:
        name += f"_{size:g}_{patch[0]}_{patch[1]}"
    degraded, reference = LAYOUTS[job.layout].paths(
        name=name,
        split=split,
        scale=job.recipe.scale,
        blur="blur" if job.recipe.response == "linear" else "blur_gamma",
        sequence=sequence,
        frame=frame,
    )
    return PairPaths(degraded, reference)


def pair_files(job: DegradeJob, place: PairPaths) -> tuple[Path, Path]:
    """Return the files of a pair: the degraded picture and the sharp one."""
    suffix = ".npy" if job.recipe.bits == 32 else ".png"
    return job.output / f"{place.degraded}{suffix}", job.output / f"{place.reference}.png"


def is_single_file(job: DegradeJob) -> bool:
    """Whether the output is one file, for a degraded picture without its sharp half."""
    return job.output.suffix.lower() in {*SUFFIXES, ".npy"}


def check_unique_names(inputs: Sequence[Path]) -> None:
    """Raise a `UsageError` if inputs differ only in folder and suffix: their pairs would clash."""
    names = Counter(fold(name_of(path)) for path in inputs)
    twice = next((name for name, n in names.items() if n > 1), None)
    if twice is not None:
        raise UsageError(
            f"two inputs are called '{twice}', but pairs are named after their input",
            hint="rename one of them",
        )
