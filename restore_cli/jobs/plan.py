"""Pairs inputs with outputs, and refuses impossible requests before weights are loaded."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path

from restore_cli.errors import NoInputError, UsageError, unknown_name
from restore_cli.files import check_free_space, check_path_length, check_writable, existing
from restore_cli.image import FORMATS, read_size
from restore_cli.image.formats import READ_ONLY, SUFFIXES, VIDEO_SUFFIXES, has_video_suffix
from restore_cli.image.info import provenance_of
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.jobs import outputs
from restore_cli.jobs.inputs import (
    STREAM,
    Source,
    canonical_path,
    find,
    left_out,
    left_out_below,
)
from restore_cli.jobs.request import Destination, RestoreRequest, Selection
from restore_cli.jobs.video_facts import read_comment, size_and_frames
from restore_cli.option_values import OPTION_VALUES


@dataclass(frozen=True)
class Item:
    """One input and its output."""

    source: Path  # file to read
    target: Path  # file to write
    skip: bool = False  # whether the output exists already and is kept

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """Height and width by the header of the file; None for stdin, and if it cannot be read."""
        if self.is_video:
            return self._video and self._video[0]
        return None if self.source == STREAM else read_size(self.source)

    @property
    def frames(self) -> int:
        """Number of frames, about; 1 for a picture."""
        return self._video[1] if self._video else 1

    @cached_property
    def _video(self) -> tuple[tuple[int, int], int] | None:
        return size_and_frames(self.source) if self.is_video else None

    @property
    def is_video(self) -> bool:
        """Whether the input's suffix is that of a video."""
        return has_video_suffix(self.source)


def check_request(request: RestoreRequest) -> None:
    """Refuse requests that are impossible whatever the inputs and the model are.

    Raises `UsageError` for an unknown choice, a name that does not fit the format, or options that
    exclude each other.
    """
    _check_choices(request)
    outputs.check_output_name(request.destination.output, request.encoding.format)


def plan(
    request: RestoreRequest, spec: PipelineSpec, sources: list[Source] | None = None
) -> list[Item]:
    """Pair every input with its output, and refuse impossible requests.

    Only names and headers are read, nothing is written, and no weights are loaded. The scale and
    the name of `spec` may be part of the outputs' names. `sources` is the result of `find`, if it
    is known already.

    Raises:
        NoInputError: an input does not exist, or no input is a picture.
        UsageError: two inputs share an output, an output is an input or exists, a name is too long,
            a folder cannot be written, a disk is too full; or see `check_request`.
    """
    check_request(request)
    try:
        return _plan(request, spec, find(request.selection) if sources is None else sources)
    except OSError as error:
        place = error.filename or "the current folder"
        raise UsageError(
            f"cannot use '{place}': {error.strerror}",
            hint="check its permissions, or choose another --output",
        ) from error


def _plan(request: RestoreRequest, spec: PipelineSpec, sources: list[Source]) -> list[Item]:
    output = request.destination.output
    items = [Item(source.path, outputs.target(request, spec, source)) for source in sources]
    if any(item.is_video for item in items):
        check_video_options(request)
    items = _without_results(request, items)
    one_file = output == STREAM or (
        output is not None and outputs.is_file_name(output) and not outputs.is_template(output)
    )
    if one_file and len(items) > 1:
        raise UsageError(
            f"--output '{output}' is one file, but there are {len(items)} inputs",
            hint="give a folder",
        )
    for item in items:
        outputs.check_video_output(item.source, item.target)
        if item.target != STREAM:
            check_path_length(item.target)
    if not items:
        formats = ", ".join(FORMATS)
        hints = []
        if left_out_below(request.selection)[0]:
            hints.append("add --recursive to search subfolders")
        if left_out(request.selection, VIDEO_SUFFIXES):
            hints.append("name videos, or use --include '*.mp4'")
        raise NoInputError(
            f"no pictures among the inputs ({formats}, bmp, gif)",
            hint="; ".join(hints) or "see what the folder contains, and --include and --exclude",
        )
    outputs.check_collisions((item.source, item.target) for item in items)
    part, parts = request.selection.shard
    items = _policy(request.destination, items[part - 1 :: parts])
    written = [item for item in items if not item.skip and item.target != STREAM]
    _check_folders(request, spec.scale, written)
    return items


def _without_results(request: RestoreRequest, items: list[Item]) -> list[Item]:
    """Leave out results of earlier runs, which lie in the same folder as their inputs.

    If all inputs are results, all are kept. A file with the name of an output, but not made by
    `restore`, may be an original: if overwriting could destroy it, it stays, and
    `outputs.check_collisions` refuses the run.
    """
    destination = request.destination
    listed = {outputs.canonical_name(path) for path in request.selection.inputs}
    names = {outputs.canonical_name(item.target) for item in items} - listed
    made = results_among([item.source for item in items], _below_output(request, items))
    harmless = destination.on_exists != "overwrite" and (
        destination.output is None or destination.output.is_dir()
    )

    def is_result(item: Item) -> bool:
        name = outputs.canonical_name(item.source)
        if name in listed or item.source in made:
            return name not in listed
        if name not in names:
            return False
        own = name == outputs.canonical_name(item.target)
        return (harmless and not own) or bool(file_provenance(item.source))

    return [item for item in items if not is_result(item)] or items


def _below_output(request: RestoreRequest, items: list[Item]) -> list[Path]:
    """Return the inputs in an output folder that itself lies in a folder of inputs."""
    output = request.destination.output
    if output is None or not output.is_dir():
        return []
    folder = canonical_path(output)
    if not any(canonical_path(given) in folder.parents for given in request.selection.inputs):
        return []
    return [item.source for item in items if folder in canonical_path(item.source).parents]


def results_among(paths: Sequence[Path], more: Sequence[Path] = ()) -> set[Path]:
    """Return the files that `restore` made of others among them, and among `more`.

    Of `paths`, only those are read that have the name of a result of another.
    """
    stems = {(path.parent, path.stem) for path in paths}
    like = [path for path in paths if (path.parent, outputs.stem_before(path)) in stems]
    like += more
    return {path for path in like if path.suffix.lower() not in READ_ONLY and file_provenance(path)}


def file_provenance(path: Path) -> dict[str, str]:
    """Return how `restore` made a picture or a video; empty if it did not."""
    return read_comment(path) if has_video_suffix(path) else provenance_of(path)


def _policy(destination: Destination, items: list[Item]) -> list[Item]:
    """Apply the --on-exists policy to items whose output exists."""
    there = [item for item in items if item.target != STREAM and os.path.lexists(item.target)]
    if folder := next((item.target for item in there if item.target.is_dir()), None):
        raise UsageError(
            f"the output '{folder}' is a folder", hint="remove it, or choose another --output"
        )
    if destination.resume or not there or destination.on_exists == "overwrite":
        return items
    if destination.on_exists == "error":
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise UsageError(
            f"'{there[0].target}' exists{more}",
            hint="use --resume, or --on-exists skip, overwrite or rename",
        )
    if destination.on_exists == "skip":
        present = set(there)
        return [replace(item, skip=item in present) for item in items]
    taken: set[Path] = set()
    renamed = []
    for item in items:
        free = item.target if item.target == STREAM else outputs.next_free_name(item.target, taken)
        taken.add(free)
        renamed.append(replace(item, target=free))
    return renamed


def _check_folders(request: RestoreRequest, scale: int, items: list[Item]) -> None:
    folders: dict[Path, list[Item]] = defaultdict(list)
    for item in items:
        folders[item.target.parent].append(item)
    needed: dict[int, int] = defaultdict(int)  # by disk
    first: dict[int, Path] = {}
    for folder, inside in folders.items():
        check_writable(folder)
        disk = existing(folder).stat().st_dev
        needed[disk] += sum(_least_bytes(request, scale, item) for item in inside)
        first.setdefault(disk, folder)
    for disk, number in needed.items():
        check_free_space(first[disk], number)


def _least_bytes(request: RestoreRequest, scale: int, item: Item) -> int:
    if item.is_video or item.size is None:
        return 0  # the error is reported when it is read
    key = SUFFIXES.get(item.target.suffix.lower(), "png")
    height, width = request.processing.output_size(*item.size, scale)
    least = int(height * width * 3 * FORMATS[key].least_bytes)
    kept = request.destination.resume and item.target.is_file()
    return max(0, least - item.target.stat().st_size) if kept else least


def check_video_options(request: RestoreRequest, *, raw: bool = False) -> None:
    """Raise a `UsageError` for options of picture files: videos are H.264, raw frames stay raw.

    `raw` says that the request is for raw frames, which are not files.
    """
    selection, destination = Selection(request.selection.inputs), Destination()
    usual = RestoreRequest(selection, replace(destination, output=request.destination.output))
    parts = ("encoding", "processing", *(("selection", "destination") if raw else ()))
    useless = [
        f"--{field.name.replace('depth', 'bit-depth').replace('_', '-')}"
        for given, default in ((getattr(request, n), getattr(usual, n)) for n in parts)
        for field in fields(given)
        if field.name not in ("metadata", "provenance", "check")
        and getattr(given, field.name) != getattr(default, field.name)
    ]
    if useless:
        what = "raw frames" if raw else "videos"
        raise UsageError(
            f"{', '.join(useless)} {'do' if useless[1:] else 'does'} not apply to {what}",
            hint=f"leave out the option, or {'--raw' if raw else 'the videos'}",
        )


def _check_choices(request: RestoreRequest) -> None:
    encoding, destination = request.encoding, request.destination
    choices = {
        "format": (encoding.format, ("", *FORMATS)),
        "--on-exists policy": (destination.on_exists, OPTION_VALUES["on_exists"]),
        "--alpha choice": (request.processing.alpha, OPTION_VALUES["alpha"]),
        "--icc choice": (request.processing.icc, OPTION_VALUES["icc"]),
        "--metadata choice": (encoding.metadata, OPTION_VALUES["metadata"]),
    }
    for what, (value, known) in choices.items():
        if value not in known:
            raise unknown_name(what, value, [name for name in known if name])
    if destination.resume and encoding.metadata == "none":
        raise UsageError(
            "--resume recognises finished pictures by their metadata, which --metadata none omits",
            hint="use --on-exists skip",
        )
    if destination.resume and destination.on_exists == "rename":
        raise UsageError(
            "--resume finds finished pictures by name, but --on-exists rename gives new names",
            hint="leave one out",
        )
    if encoding.depth == 16 and encoding.format and FORMATS[encoding.format].depth < 16:
        raise UsageError(
            f"--bit-depth 16: {encoding.format} has at most {FORMATS[encoding.format].depth} bits "
            "per channel",
            hint="use --format png or tiff",
        )
