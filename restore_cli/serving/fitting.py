"""Pictures that would become too large: what a visitor may do instead, and doing it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from restore_cli.errors import PictureError
from restore_cli.image import Encoding, read_size, write_image
from restore_cli.image.reading import open_header, read_bytes
from restore_cli.image.views import read_shrunk
from restore_cli.inference.pipeline import own_scale, split_names
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.inference.stages import BICUBIC
from restore_cli.jobs.estimate import listed_seconds
from restore_cli.serving.job_queue import Job, JobSettings
from restore_cli.weights.manifest import default_checkpoint, default_model
from restore_cli.wording import duration

MUCH = 50_000_000  # pixels of a result that is made only when it is asked for twice


@dataclass(frozen=True, slots=True)
class Choice:
    """A button.

    Attributes:
        label: what it does.
        fields: of the form, instead of those that were sent.
    """

    label: str
    fields: dict[str, str]


class TooManyPixelsError(PictureError):
    """The result would be too large, or larger than a visitor may have thought.

    Attributes:
        choices: what may be done instead.
    """

    def __init__(self, message: str, choices: list[Choice]) -> None:
        super().__init__(message)
        self.choices = choices


def fitted(
    job: Job, max_pixels: int, options: RestorerOptions, *, shrink: bool, sure: bool
) -> tuple[Job, tuple[str, ...]]:
    """The job as it may be submitted, and notes on what was done to its picture.

    Args:
        job: with its picture in place.
        max_pixels: of a result.
        options: of the networks; self-ensemble is the job's.
        shrink: whether to make the picture as small as needed.
        sure: whether a large result is wanted.

    Raises:
        TooManyPixelsError: the result would have more than `max_pixels`, or more than `MUCH` and
            the visitor is not `sure`.
        PictureError: it cannot be read.
    """
    size = _size(job)
    if size is None:
        return job, ()  # what is wrong with it shows when it is decoded
    scale = _scale(job.settings)
    most = max_pixels if sure else min(max_pixels, MUCH)
    result = size[0] * size[1] * scale**2
    if result <= most:
        return job, ()
    height, width = _shrunk(size, most, scale)
    if shrink:
        return _replaced(job, height, width), (f"it was made smaller first: {width}x{height}",)
    raise TooManyPixelsError(
        f"'{job.source.name}' is {size[1]}x{size[0]}: the result would be "
        f"{size[1] * scale}x{size[0] * scale}, which is {_millions(result)}"
        + (f"; at most {_millions(max_pixels)} are made here" if result > max_pixels else ""),
        _choices(job.settings, size, max_pixels, options),
    )


def _choices(
    settings: JobSettings, size: tuple[int, int], max_pixels: int, options: RestorerOptions
) -> list[Choice]:
    pixels, scale = size[0] * size[1], _scale(settings)
    options = replace(options, self_ensemble=settings.self_ensemble)
    height, width = _shrunk(size, min(max_pixels, MUCH), scale)
    label = f"Shrink it for me to {width}x{height}; the result is {width * scale}x{height * scale}"
    choices = [Choice(label + _time(settings.model, height * width, options), {"shrink": "1"})]
    same = default_model(1)
    if scale > 1 and pixels <= max_pixels:
        label = f"Deblur only, and keep {size[1]}x{size[0]} (x1 model {same})"
        fields = {"model": same, "scale": "", "sure": "1"}
        choices.append(Choice(label + _time(same, pixels, options), fields))
    if pixels * scale**2 <= max_pixels:
        choices.append(
            Choice("Do it all the same" + _time(settings.model, pixels, options), {"sure": "1"})
        )
    return choices


def _time(model: str, pixels: int, options: RestorerOptions) -> str:
    """How long a model takes for an input, as far as it was measured."""
    if model in (BICUBIC, "") or "+" in model:
        return ""
    seconds = listed_seconds(default_checkpoint(model), pixels, options)
    return "" if seconds is None else f": about {duration(max(1.0, seconds))}"


def _scale(settings: JobSettings) -> int:
    names = split_names(settings.model)
    enlarges = 1 if BICUBIC in names else own_scale(names)  # before it is shrunk to the setting
    return max(settings.scale or own_scale(names), enlarges)


def _shrunk(size: tuple[int, int], most: int, scale: int) -> tuple[int, int]:
    factor = min(1.0, math.sqrt(most / (size[0] * size[1])) / scale)
    return max(1, math.floor(size[0] * factor)), max(1, math.floor(size[1] * factor))


def _size(job: Job) -> tuple[int, int] | None:
    """Height and width, of HEIC too, whose header is read by its decoder only."""
    if (size := read_size(job.source)) is not None:
        return size
    try:
        header = open_header(read_bytes(job.source), job.source.name)
    except PictureError:
        return None
    return header.height, header.width


def _replaced(job: Job, height: int, width: int) -> Job:
    """The same job for a smaller picture, kept without loss; the result's format stays."""
    try:
        picture = read_shrunk(job.source, height, width).picture
    except PictureError as error:  # where it lies on this machine is not its owner's business
        said = str(error).replace(str(job.source), job.source.name)
        raise PictureError(said, hint=error.hint) from error
    job.source.unlink()
    source = job.source.with_suffix(".png")
    write_image(source, picture, Encoding("png", metadata="all"))
    settings = replace(job.settings, format=job.settings.format or picture.own_format)
    return replace(job, source=source, settings=settings)


def _millions(pixels: int) -> str:
    return f"{pixels / 1e6:.0f} megapixels"
