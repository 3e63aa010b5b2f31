"""Results that are too large or take long: offers alternatives to the visitor, and applies them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from restore_cli.errors import PictureError
from restore_cli.formatting import format_duration, format_pixels
from restore_cli.image import Encoding, read_size, write_image
from restore_cli.image.views import read_thumbnail
from restore_cli.inference.pipeline import default_scale, split_names
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.inference.sizing import input_size
from restore_cli.inference.stages import BICUBIC
from restore_cli.jobs.estimate import LARGE_PIXELS, LONG_SECONDS, listed_seconds
from restore_cli.jobs.task_choice import TaskChoice, choose_for_run, preset_for
from restore_cli.models.spec import Size
from restore_cli.serving.job_queue import Job, JobQueue, JobSettings
from restore_cli.weights.manifest import default_checkpoint, default_model


@dataclass(frozen=True, slots=True)
class Button:
    """A button."""

    label: str  # text of the button
    fields: dict[str, str]  # fields of the form that replace the submitted ones


class ConfirmationRequiredError(PictureError):
    """The result would be too large, or the visitor must confirm its size or time."""

    def __init__(self, message: str, choices: Sequence[Button] = ()) -> None:
        super().__init__(message)
        self.choices = choices  # alternatives for the visitor


def fit_to_limits(
    job: Job, queue: JobQueue, *, automatic: bool, shrink: bool, sure: bool
) -> tuple[Job, tuple[str, ...]]:
    """Return a job that may be submitted, and notes on what was done to its picture.

    The job's picture is in place. Model, scale and size are chosen for it if `automatic`; it is
    shrunk if that is necessary and allowed by `shrink`. A visitor who is `sure` has confirmed a
    large result or a long time.

    Raises:
        ConfirmationRequiredError: the result would have more pixels than the limit; or more than
            `LARGE_PIXELS`, or take longer than `LONG_SECONDS`, and the visitor is not `sure`.
        PictureError: the picture cannot be read.
    """
    size = read_size(job.source)
    if size is None:
        return job, ()  # the error is reported when it is decoded
    max_pixels = queue.max_pixels
    advice: TaskChoice | None = None
    notes: tuple[str, ...] = ()
    if automatic:
        advice = choose_for_run([job.source], max_pixels=max_pixels, restore=queue.restore_part)
    if advice is not None:
        chosen = preset_for(advice.task)
        settings = replace(job.settings, model=chosen.model, scale=chosen.scale, keep=chosen.keep)
        job, notes = replace(job, settings=settings), (f"{chosen.model}: {advice.reason}",)
    settings = job.settings
    options = replace(queue.options, self_ensemble=settings.self_ensemble)
    scale = settings.largest_scale
    most = max_pixels if sure else min(max_pixels, LARGE_PIXELS)
    result = size[0] * size[1] * scale**2
    seconds = _seconds(settings, size, options) or 0.0
    if result <= most and (sure or shrink or seconds <= LONG_SECONDS):
        return job, notes
    height, width = _shrunk(size, most, scale)
    if shrink:
        job, lost = _replaced(job, height, width)
        return job, (*notes, f"it was shrunk to {width}x{height} first", *lost)
    would = [f"be {size[1] * scale}x{size[0] * scale}, which is {format_pixels(result)}"]
    would += [f"take about {format_duration(max(1.0, seconds))}"] * (seconds > LONG_SECONDS)
    message = f"The result of '{job.source.name}' would {', and '.join(would)}"
    if result > max_pixels:
        message += f"; the limit here is {format_pixels(max_pixels)}"
    choices = _choices(settings, size, max_pixels, options)
    first = "all"  # what was chosen for the picture
    if advice is None and (advice := choose_for_run([job.source], max_pixels=max_pixels)):
        first = advice.task
    if advice is not None and first in choices:
        message += f". The first choice is recommended: {advice.reason}"
        choices = {first: choices[first]} | choices
    raise ConfirmationRequiredError(message, list(choices.values()))


def _choices(
    settings: JobSettings, size: Size, max_pixels: int, options: RestorerOptions
) -> dict[str, Button]:
    """Return the buttons by task; "keep" and "x1" as in `jobs.task_choice`."""
    pixels, scale = size[0] * size[1], settings.largest_scale
    whole, choices = f"{size[1]}x{size[0]}", {}

    def offer(key: str, label: str, given: Size, **changes: str) -> None:
        keep = changes["scale"] == "keep" if "scale" in changes else settings.keep
        changed = replace(settings, model=changes.get("model", settings.model), keep=keep)
        seconds = _seconds(changed, given, options)
        time = "" if seconds is None else f": about {format_duration(max(1.0, seconds))}"
        choices[key] = Button(label + time, changes)

    smaller = height, width = _shrunk(size, min(max_pixels, LARGE_PIXELS), scale)
    if smaller != size:
        result = f"{width * scale}x{height * scale}"
        label = f"Shrink it to {width}x{height} first; the result is {result}"
        offer("shrink", label, smaller, shrink="1")
    if pixels <= max_pixels:
        same, enlarging = default_model(1), settings.model
        if default_scale(split_names(enlarging)) == 1:
            enlarging = default_model()
        if not settings.keep:
            label = f"Keep {whole}: shrink it to a quarter, and enlarge it with {enlarging}"
            offer("keep", label, size, model=enlarging, scale="keep", sure="1")
        if scale > 1 or settings.keep:
            label = f"Deblur only, and keep {whole} (x1 model {same})"
            offer("x1", label, size, model=same, scale="", sure="1")
    if pixels * scale**2 <= max_pixels:
        offer("all", "Continue anyway", size, sure="1")
    return choices


def _seconds(settings: JobSettings, size: Size, options: RestorerOptions) -> float | None:
    """Return the seconds that a model takes for an input; None if not measured."""
    names = split_names(settings.model)
    if names[0] == BICUBIC:
        return None
    factor = settings.scale or default_scale(names)
    height, width = input_size(factor, size, size) if settings.keep else size
    return listed_seconds(default_checkpoint(names[0]), height * width, options)


def _shrunk(size: Size, most: int, scale: int) -> Size:
    factor = min(1.0, math.sqrt(most / (size[0] * size[1])) / scale)
    return max(1, math.floor(size[0] * factor)), max(1, math.floor(size[1] * factor))


def _replaced(job: Job, height: int, width: int) -> tuple[Job, tuple[str, ...]]:
    """Return the job with a shrunken picture, as PNG, and notes; the result's format is kept."""
    source = job.source.with_suffix(".png")
    try:
        picture, _ = read_thumbnail(job.source, height, width)
        job.source.unlink()
        notes = write_image(source, picture, Encoding("png", metadata="all"))
    except PictureError as error:  # visitors must not see paths of this machine
        message = str(error).replace(f"{job.source.parent}{os.sep}", "")
        raise PictureError(message, hint=error.hint) from error
    settings = replace(job.settings, format=job.settings.format or picture.default_format)
    return replace(job, source=source, settings=settings), (*picture.notes, *notes)
