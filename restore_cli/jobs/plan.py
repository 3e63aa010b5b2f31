"""Pairing inputs with outputs, and every refusal that can be made before weights are loaded."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from restore_cli.errors import NoInputError, UsageError, unknown_name
from restore_cli.image import FORMATS, MAX_PIXELS, read_size
from restore_cli.image.formats import SUFFIXES, VIDEO_SUFFIXES
from restore_cli.jobs import outputs
from restore_cli.jobs.inputs import STREAM, Source, find, identity

ON_EXISTS = ("error", "skip", "overwrite", "rename")
ALPHA, ICC, METADATA = (
    ("restore", "resize", "drop"),
    ("convert", "keep", "strip"),
    ("all", "safe", "private", "none"),
)
# Bytes of a written file over bytes of its pixels: half of the least that 24 photos, blurred and
# enlarged by bicubic, gave (0.19 PNG, 0.18 TIFF, 0.12 WebP, 0.047 JPEG; 0.019 AVIF of 8), so that a
# disk is called full only where it is.
_LEAST_BYTES = {"png": 0.09, "tiff": 0.09, "webp": 0.06, "jpeg": 0.023, "avif": 0.009}


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """What to restore and where to put it.

    Attributes:
        inputs: files, folders, quoted globs, `inputs.STREAM`.
        output: a file (for one input), a folder, a template, `STREAM`, or None for beside each.
        scale: output pixels per input pixel.
        model: name, for templates.
        format: key of `FORMATS`, or None for the input's (or the output name's).
        quality: of JPEG, WebP and AVIF, or None for the best defaults.
        lossless: WebP and AVIF exactly.
        depth: bits a channel, 8 or 16, or None for the input's.
        alpha: "resize" (bicubic), "restore" (by the network) or "drop".
        icc: "convert", "keep" or "strip"; see `image.read_image`.
        metadata: "all", "safe", "private" or "none"; see `image.Encoding`.
        on_exists: what to do when an output is already there.
        resume: what is there already by the same model, weights and options is done.
        recursive: folders with what is in their folders.
        include: patterns of names in folders.
        exclude: patterns of names in folders to leave out.
        check: whether to look at inputs for what limits the result; see `preflight`.
        shard: part I of N of the pictures, from 1.
        max_pixels: larger inputs are refused.
    """

    inputs: tuple[Path, ...]
    output: Path | None
    scale: int
    model: str = ""
    format: str | None = None
    quality: int | None = None
    lossless: bool = False
    depth: int | None = None
    alpha: str = "resize"
    icc: str = "convert"
    metadata: str = "safe"
    on_exists: str = "error"
    resume: bool = False
    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    check: bool = True
    shard: tuple[int, int] = (1, 1)
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to do; `done` when its output is there already and is to stay."""

    source: Path
    target: Path
    done: bool = False


def plan(job: RestoreJob) -> list[Item]:
    """Pair every input with its output, and refuse what cannot end well.

    Nothing is read but names and headers, nothing written, and no weights are loaded.

    Raises:
        NoInputError: an input does not exist, or no input is a picture.
        UsageError: two inputs share an output, an output is an input or exists, a name is too long,
            a folder cannot be written, a disk is too full, name and format disagree, an unknown
            choice.
    """
    _refuse_choices(job)
    outputs.refuse_name(job.output, job.format)
    try:
        return _plan(job)
    except OSError as error:
        raise UsageError(f"cannot use '{error.filename}': {error.strerror}") from error


def _plan(job: RestoreJob) -> list[Item]:
    sources = find(job.inputs, recursive=job.recursive, include=job.include, exclude=job.exclude)
    one_file = job.output == STREAM or (
        job.output is not None
        and outputs.is_file_name(job.output)
        and not outputs.is_template(job.output)
    )
    if one_file and len(sources) > 1:
        raise UsageError(
            f"--output '{job.output}' is one file, but there are {len(sources)} inputs",
            hint="give a folder",
        )
    items = [Item(source.path, _target(job, source)) for source in sources]
    if any(item.source.suffix.lower() in VIDEO_SUFFIXES for item in items):
        _refuse_for_films(job)
    for item in items:
        outputs.refuse_film(item.source, item.target)
        if item.target != STREAM:
            outputs.refuse_long(item.target)
    listed = {identity(path) for path in job.inputs}
    results = {identity(item.target) for item in items}
    # In a folder that was restored before, the results are not inputs.
    items = [i for i in items if identity(i.source) not in results - listed]
    if not items:
        formats = ", ".join(FORMATS)
        raise NoInputError(f"no pictures among the inputs ({formats}, bmp, gif)")
    outputs.refuse_collisions((item.source, item.target) for item in items)
    part, parts = job.shard
    items = _policy(job, items[part - 1 :: parts])
    _refuse_folders(job, [item for item in items if not item.done and item.target != STREAM])
    return items


def _policy(job: RestoreJob, items: list[Item]) -> list[Item]:
    """What becomes of items whose output is there already."""
    there = [item for item in items if item.target != STREAM and item.target.exists()]
    if job.resume or not there or job.on_exists == "overwrite":
        return items
    if job.on_exists == "error":
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise UsageError(
            f"'{there[0].target}' exists{more}",
            hint="use --resume, or --on-exists skip, overwrite or rename",
        )
    if job.on_exists == "skip":
        present = set(there)
        return [replace(item, done=item in present) for item in items]
    taken: set[Path] = set()
    renamed = []
    for item in items:
        free = item.target if item.target == STREAM else outputs.renamed(item.target, taken)
        taken.add(free)
        renamed.append(replace(item, target=free))
    return renamed


def _refuse_folders(job: RestoreJob, items: list[Item]) -> None:
    folders: dict[Path, list[Item]] = defaultdict(list)
    for item in items:
        folders[item.target.parent].append(item)
    needed: dict[int, int] = defaultdict(int)  # by disk
    first: dict[int, Path] = {}
    for folder, inside in folders.items():
        outputs.refuse_unwritable(folder)
        disk = outputs.existing(folder).stat().st_dev
        needed[disk] += sum(_least_bytes(job, item) for item in inside)
        first.setdefault(disk, folder)
    for disk, number in needed.items():
        outputs.refuse_full(first[disk], number)


def _least_bytes(job: RestoreJob, item: Item) -> int:
    size = read_size(item.source) if item.source != STREAM else None
    if size is None:
        return 0  # it will fail by itself
    key = SUFFIXES.get(item.target.suffix.lower(), "png")
    return int(size[0] * size[1] * job.scale**2 * 3 * _LEAST_BYTES[key])


def _target(job: RestoreJob, source: Source) -> Path:
    if source.path == STREAM and job.output is None:
        raise UsageError(
            "stdin has no name to put the result beside", hint="give --output, or -o -"
        )
    return outputs.target(
        job.output, source, format_key=job.format, scale=job.scale, model=job.model
    )


def _refuse_for_films(job: RestoreJob) -> None:
    asked = {
        "--format": job.format,
        "--quality": job.quality,
        "--lossless": job.lossless,
        "--bit-depth": job.depth,
        "--alpha": job.alpha != "resize",
        "--icc": job.icc != "convert",
    }
    if useless := [name for name, value in asked.items() if value]:
        raise UsageError(
            f"{', '.join(useless)} says nothing to films", hint="leave it out, or the films"
        )


def _refuse_choices(job: RestoreJob) -> None:
    choices = {
        "format": (job.format, (None, *FORMATS)),
        "--on-exists policy": (job.on_exists, ON_EXISTS),
        "--alpha choice": (job.alpha, ALPHA),
        "--icc choice": (job.icc, ICC),
        "--metadata choice": (job.metadata, METADATA),
    }
    for what, (value, known) in choices.items():
        if value not in known:
            raise unknown_name(what, str(value), [name for name in known if name])
    if job.resume and job.metadata == "none":
        raise UsageError(
            "--resume knows what is done by the pictures' own metadata, which --metadata none "
            "leaves out",
            hint="use --on-exists skip",
        )
    if job.resume and job.on_exists == "rename":
        raise UsageError("--resume finds what is done by its name, so --on-exists rename hides it")
    if job.depth == 16 and job.format and FORMATS[job.format].depth < 16:
        raise UsageError(
            f"--bit-depth 16: {job.format} holds {FORMATS[job.format].depth} bits a channel",
            hint="use --format png or tiff",
        )
