"""One run over many pictures: every refusal first, then picture after picture."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from restore_cli.errors import NoInputError, PictureError, RestoreError, UsageError, unknown_name
from restore_cli.image import (
    EXTENSIONS,
    FORMATS,
    HOLDS_ALPHA,
    MAX_PIXELS,
    SUFFIXES,
    Picture,
    read_image,
    write_image,
)
from restore_cli.inference.restorer import Restorer
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


def plan(job: RestoreJob) -> list[Item]:
    """Pair every input with its output, and refuse what cannot end well.

    Nothing is read or written but names, and no weights are loaded.

    Raises:
        NoInputError: an input does not exist, or no input is a picture.
        UsageError: two inputs share an output, an output exists, a folder cannot be written, the
            format is not known.
    """
    if job.format is not None and job.format not in FORMATS:
        raise unknown_name("format", job.format, FORMATS)
    if job.on_exists not in ON_EXISTS:
        raise unknown_name("--on-exists policy", job.on_exists, ON_EXISTS)
    sources = [source for path in job.inputs for source in _pictures(path)]
    if not sources:
        raise NoInputError("no pictures among the inputs", hint="give PNG, JPEG or WebP files")
    items = [Item(source, _target(job, source, len(sources))) for source in dict.fromkeys(sources)]
    _refuse_collisions(items)
    existing = [item for item in items if item.target.exists()]
    if existing and job.on_exists == "error":
        raise UsageError(
            f"'{existing[0].target}' exists"
            + (f", and {len(existing) - 1} more" if len(existing) > 1 else ""),
            hint="use --on-exists skip or --on-exists overwrite",
        )
    for folder in {item.target.parent for item in items}:
        _refuse_unwritable(folder)
    skip = job.on_exists == "skip"
    return [Item(i.source, i.target, done=skip and i.target.exists()) for i in items]


def run(
    job: RestoreJob,
    items: list[Item],
    restorer: Restorer,
    report: Callable[[Item, int, int], None] = lambda item, done, tiles: None,
) -> Iterator[Outcome]:
    """Restore each picture; one that fails does not stop the others.

    Args:
        job: as planned.
        items: from `plan`.
        restorer: the network.
        report: called with (item, tiles done, tiles in all).

    Raises:
        DeviceError: the device failed for good; the rest would fail as well.
    """
    for item in items:
        if item.done:
            yield Outcome(item, "skipped")
            continue
        try:
            _restore(job, item, restorer, report)
        except PictureError as error:
            yield Outcome(item, "failed", error)
        else:
            yield Outcome(item, "restored")


def _restore(
    job: RestoreJob,
    item: Item,
    restorer: Restorer,
    report: Callable[[Item, int, int], None],
) -> None:
    picture = read_image(item.source, max_pixels=job.max_pixels)
    format_key = job.format or SUFFIXES.get(item.target.suffix.lower()) or picture.format
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


def _resize(picture: Picture, restored: Tensor, scale: int) -> Picture:
    """To the asked-for scale, in float before any rounding; alpha by bicubic."""
    height, width = (side * scale for side in picture.pixels.shape[-2:])
    if restored.shape[-2:] != (height, width):
        restored = resize_bicubic(restored, height, width)
    alpha = picture.alpha
    if alpha is not None:
        alpha = resize_bicubic(alpha, height, width)
    return picture.with_pixels(restored, alpha)


def _pictures(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not path.exists():
        raise NoInputError(f"no such file or folder: '{path}'")
    return [path]


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
    name = f"{source.stem}_x{job.scale}{extension}"
    return (source.parent if output is None else output) / name


def _refuse_collisions(items: list[Item]) -> None:
    by_target: dict[Path, Item] = {}
    for item in items:
        # One name on file systems that ignore case, so refused everywhere.
        key = Path(str(item.target.absolute()).lower())
        if key in by_target:
            raise UsageError(
                f"'{by_target[key].source}' and '{item.source}' would both become '{item.target}'",
                hint="restore them into different folders with --output",
            )
        by_target[key] = item


def _refuse_unwritable(folder: Path) -> None:
    nearest = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into '{folder}'", hint="choose another --output")
