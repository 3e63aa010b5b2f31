"""One run over many pictures: every refusal first, then picture after picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from restore_cli.errors import (
    DeviceError,
    NoInputError,
    PictureError,
    RestoreError,
    UsageError,
    unknown_name,
)
from restore_cli.image import (
    EXTENSIONS,
    FORMATS,
    HOLDS_ALPHA,
    MAX_PIXELS,
    OTHER_SUFFIXES,
    SUFFIXES,
    Picture,
    check_size,
    read_image,
    write_image,
)
from restore_cli.inference.cascade import Stage
from restore_cli.inference.restorer import is_out_of_memory
from restore_cli.resample import resize_bicubic

ON_EXISTS = ("error", "skip", "overwrite")


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """What to restore and where to put it.

    Attributes:
        inputs: files and folders; of a folder, the pictures directly in it.
        output: a file (for one input), a folder, or None for beside each input.
        scale: output pixels per input pixel.
        format: key of `image.FORMATS`, or None for the input's (or the output name's).
        quality: of JPEG and WebP, or None for the best defaults.
        on_exists: what to do when an output is already there: error, skip or overwrite.
        max_pixels: larger inputs are refused.
    """

    inputs: tuple[Path, ...]
    output: Path | None
    scale: int
    format: str | None = None
    quality: int | None = None
    on_exists: str = "error"
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to do; `done` when its output is there already and is to stay."""

    source: Path
    target: Path
    done: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture; `error` is None unless it failed."""

    item: Item
    status: str  # restored | skipped | failed
    error: RestoreError | None = None
    notes: tuple[str, ...] = ()  # what had to be left out


def plan(job: RestoreJob) -> list[Item]:
    """Pair every input with its output, and refuse what cannot end well.

    Nothing is read or written but names, and no weights are loaded.

    Raises:
        NoInputError: an input does not exist, or no input is a picture.
        UsageError: two inputs share an output, an output is an input or exists, a folder cannot be
            written, name and format disagree.
    """
    if job.format is not None and job.format not in FORMATS:
        raise unknown_name("format", job.format, FORMATS)
    if job.on_exists not in ON_EXISTS:
        raise unknown_name("--on-exists policy", job.on_exists, ON_EXISTS)
    _refuse_output(job)
    try:
        return _plan(job)
    except OSError as error:
        raise UsageError(f"cannot use '{error.filename}': {error.strerror}") from error


def run(
    job: RestoreJob,
    items: list[Item],
    restorer: Stage,
    report: Callable[[Item, int, int], None] = lambda item, done, tiles: None,
) -> Iterator[Outcome]:
    """Restore each picture; one that fails, for lack of memory too, does not stop the others.

    Args:
        job: as planned.
        items: from `plan`.
        restorer: a network made ready, or several in a row.
        report: called with (item, tiles done, tiles in all).
    """
    for item in items:
        if item.done:
            yield Outcome(item, "skipped")
            continue
        try:
            notes = _restore(job, item, restorer, report)
        except (PictureError, DeviceError) as error:
            yield Outcome(item, "failed", error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            failure = DeviceError(f"'{item.source}': out of memory", hint="close other programs")
            yield Outcome(item, "failed", failure)
        else:
            yield Outcome(item, "restored", notes=notes)


def pictures(path: Path) -> list[Path]:
    """The file itself, or the pictures directly in a folder, sorted.

    Raises:
        NoInputError: it does not exist.
    """
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not path.exists():
        raise NoInputError(f"no such file or folder: '{path}'")
    return [path]


def _plan(job: RestoreJob) -> list[Item]:
    found: dict[Path, Path] = {}
    for path in job.inputs:
        for source in pictures(path):
            found.setdefault(source.resolve(), source)
    sources = list(found.values())
    listed = {path.resolve() for path in job.inputs}
    items = [Item(source, _target(job, source, len(sources))) for source in sources]
    outputs = {item.target.resolve() for item in items}
    # In a folder that was restored before, the results are not inputs.
    items = [i for i in items if i.source.resolve() not in outputs - listed]
    if not items:
        raise NoInputError("no pictures among the inputs", hint="give PNG, JPEG or WebP files")
    _refuse_collisions(items)
    existing = [item for item in items if item.target.exists()]
    if existing and job.on_exists == "error":
        more = f", and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise UsageError(
            f"'{existing[0].target}' exists{more}",
            hint="use --on-exists skip or --on-exists overwrite",
        )
    for folder in {item.target.parent for item in items}:
        refuse_unwritable(folder)
    skip = job.on_exists == "skip"
    return [Item(i.source, i.target, done=skip and i.target.exists()) for i in items]


def _restore(
    job: RestoreJob,
    item: Item,
    restorer: Stage,
    report: Callable[[Item, int, int], None],
) -> tuple[str, ...]:
    picture = read_image(item.source, max_pixels=job.max_pixels)
    format_key = SUFFIXES[item.target.suffix.lower()]
    # Before the work, not after it.
    height, width = (side * job.scale for side in picture.pixels.shape[-2:])
    check_size(item.target, height, width, format_key)
    if picture.alpha is not None and format_key not in HOLDS_ALPHA:
        raise PictureError(
            f"'{item.source}' has transparency, which {format_key} cannot hold",
            hint="use --format png or webp",
        )
    restored = restorer(picture.pixels, lambda done, tiles: report(item, done, tiles))
    write_image(
        item.target,
        _resize(picture, restored, job.scale),
        format_key=format_key,
        quality=job.quality,
    )
    return picture.notes


def _resize(picture: Picture, restored: Tensor, scale: int) -> Picture:
    """To the asked-for scale, in float before any rounding; alpha by bicubic."""
    height, width = (side * scale for side in picture.pixels.shape[-2:])
    if restored.shape[-2:] != (height, width):
        restored = resize_bicubic(restored, height, width)
    alpha = picture.alpha
    if alpha is not None:
        alpha = resize_bicubic(alpha, height, width)
    return picture.with_pixels(restored, alpha)


def _refuse_output(job: RestoreJob) -> None:
    """Names of outputs that say one thing and would be another."""
    suffix = job.output.suffix.lower() if job.output else ""
    if str(job.output) == "-":
        raise UsageError("this version does not write to a pipe", hint="give a file or a folder")
    if suffix in OTHER_SUFFIXES:
        raise UsageError(
            f"cannot write '{job.output}'", hint=f"this version writes {', '.join(FORMATS)}"
        )
    if job.format and SUFFIXES.get(suffix, job.format) != job.format:
        raise UsageError(f"--output '{job.output}' is not a {job.format} file by its name")


def _target(job: RestoreJob, source: Path, count: int) -> Path:
    """Where one output goes; a folder when it exists as one or has no picture's suffix."""
    output = job.output
    if output is not None and output.suffix.lower() in SUFFIXES and not output.is_dir():
        if count > 1:
            raise UsageError(
                f"--output '{output}' is one file, but there are {count} inputs",
                hint="give a folder",
            )
        return output
    extension = f".{EXTENSIONS[job.format]}" if job.format else source.suffix
    if extension.lower() not in SUFFIXES:
        extension = ".png"
    name = f"{source.stem}_x{job.scale}{extension}"
    return (source.parent if output is None else output) / name


def _refuse_collisions(items: list[Item]) -> None:
    by_target: dict[str, Item] = {}
    inputs = {item.source.resolve() for item in items}
    for item in items:
        if item.target.resolve() in inputs:
            raise UsageError(
                f"the output '{item.target}' of '{item.source}' is one of the inputs",
                hint="write into another folder with --output",
            )
        key = str(item.target.absolute())
        key = key.casefold() if sys.platform in ("darwin", "win32") else key
        if key in by_target:
            raise UsageError(
                f"'{by_target[key].source}' and '{item.source}' would both become '{item.target}'",
                hint="restore them into different folders with --output",
            )
        by_target[key] = item


def refuse_unwritable(folder: Path) -> None:
    """Raise a `UsageError` when nothing can be written into a folder, existing or to be made."""
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into '{folder}'", hint="choose another --output")
