"""Names the outputs, and refuses outputs that cannot be written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from string import Formatter

from restore_cli.errors import UsageError, nearest_name
from restore_cli.files import check_path_length, check_writable, fold
from restore_cli.image.formats import (
    CONTAINERS,
    FORMATS,
    OTHER_SUFFIXES,
    READ_ONLY,
    SIMILAR_CONTAINERS,
    SUFFIXES,
    VIDEO_SUFFIXES,
    has_video_suffix,
)
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.sizing import KEEP
from restore_cli.jobs.inputs import STREAM, Source, canonical_path
from restore_cli.jobs.request import RestoreRequest

SAME_SIZE_SUFFIX = "deblurred"  # suffix of the names of results that have their input's size
FIELDS = ("dir", "name", "scale", "model", "ext")


def check_output_name(output: Path | None, format_key: str) -> None:
    """Refuse the name of an output that does not fit its format.

    Raises `UsageError` if the suffix is of a format that cannot be written, or not of the requested
    format, if a template has unknown fields, if the name is too long, or is that of something
    else, e.g. of a pipe.
    """
    if output is None or output == STREAM:
        return
    check_path_length(output)
    if output.is_dir():
        return
    suffix = output.suffix.lower()
    if is_template(output):
        _check_template(output)
    if suffix in OTHER_SUFFIXES or suffix in READ_ONLY:
        raise UsageError(
            f"cannot write '{output}'", hint=f"this version writes {', '.join(FORMATS)}"
        )
    if suffix in VIDEO_SUFFIXES and suffix not in CONTAINERS:
        raise UsageError(f"cannot write '{output}'", hint=f"videos: {', '.join(CONTAINERS)}")
    if format_key and SUFFIXES.get(suffix, format_key) != format_key:
        raise UsageError(
            f"--output '{output}' does not have a suffix of --format {format_key}",
            hint=f"use {' or '.join(FORMATS[format_key].suffixes)}",
        )
    if output.exists() and not (output.is_file() and is_file_name(output)):
        raise UsageError(
            f"--output '{output}' is neither a folder nor a picture file",
            hint=f"for a pipe or a device, use -o - > '{output}'",
        )


def _check_template(output: Path) -> None:
    reason = ""
    try:
        # Not parts of fields: {name.upper} would be the name of a function.
        fields = {field for _, field, _, _ in Formatter().parse(str(output))} - {None, *FIELDS}
        if fields:
            reason = f"unknown field '{min(map(str, fields))}'"
        else:
            _filled(output, dir=Path("x"), name="x", scale=4, model="x", ext="png")
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        reason = f"unknown field {error}" if isinstance(error, KeyError) else str(error)
    if reason:
        known = ", ".join(f"{{{field}}}" for field in FIELDS)
        hint = f"fields: {known}; write {{{{ and }}}} for braces"
        raise UsageError(f"--output '{output}' is not a valid template: {reason}", hint=hint)


def target(request: RestoreRequest, spec: PipelineSpec, source: Source) -> Path:
    """Return the output of one input; raises `UsageError` if it is stdin and no output is given."""
    output, format_key = request.destination.output, request.encoding.format
    if output == STREAM:
        return STREAM
    if source.path == STREAM and output is None:
        raise UsageError(
            "the picture from stdin has no name to derive the output from",
            hint="give --output FILE, or -o - for stdout",
        )
    extension = FORMATS[format_key].suffixes[0] if format_key else source.path.suffix
    if has_video_suffix(source.path):
        known = source.path.suffix.lower()
        similar = SIMILAR_CONTAINERS.get(known, ".mkv")
        extension = source.path.suffix if known in CONTAINERS else similar
    elif extension.lower() not in SUFFIXES:
        extension = ".png"
    stem = "stdin" if source.path == STREAM else source.path.stem
    if output is not None and is_template(output):
        folder, ext = source.path.parent, extension[1:]
        return _filled(output, dir=folder, name=stem, scale=spec.scale, model=spec.name, ext=ext)
    if output is not None and is_file_name(output):
        return output
    name = f"{stem}_{_suffix(request, spec)}{extension}"
    return (source.path.parent if output is None else output / source.relative) / name


def _suffix(request: RestoreRequest, spec: PipelineSpec) -> str:
    """Return the suffix that is added to the stem of the input."""
    size = request.processing.size
    if size is None:
        return f"x{spec.scale}" if spec.scale > 1 else SAME_SIZE_SUFFIX
    return SAME_SIZE_SUFFIX if size == KEEP else str(size)


def _filled(template: Path, *, dir: Path, **fields: str | int) -> Path:
    return Path(str(template).format(dir=str(dir), **fields))


def check_video_output(source: Path, output: Path) -> None:
    """Raise a `UsageError` if a video would become a picture, or vice versa, or is a pipe."""
    video = has_video_suffix(source)
    if video and source.exists() and not source.is_file():  # it is opened several times
        raise UsageError(f"'{source}' is not a regular file", hint="save it first, or use --raw")
    if video and output == STREAM:
        raise UsageError("a video cannot be written to stdout", hint="use --raw for raw frames")
    if output != STREAM and video != (output.suffix.lower() in CONTAINERS):
        raise UsageError(
            f"cannot write '{source}' as '{output}'",
            hint="videos are written as .mp4, .mov or .mkv, pictures as pictures",
        )


def is_file_name(output: Path) -> bool:
    """Whether an output is a file rather than a folder."""
    known = output.suffix.lower() in SUFFIXES or output.suffix.lower() in CONTAINERS
    return known and not output.is_dir()


def check_known_suffix(text: str) -> None:
    """Refuse a new name with an unknown suffix, which would become a folder.

    Raises `UsageError` if the suffix looks like a format but is not known, e.g. `sharp.jepg`, or if
    a new folder has the suffix of a file, e.g. `sharp.png/`.
    """
    template = is_template(Path(text))
    if text.endswith(("/", os.sep)) and template:
        raise UsageError(
            f"--output '{text}' is a template without the name of a file",
            hint=f"use '{text}{{name}}.{{ext}}'",
        )
    if text.endswith(("/", os.sep)) and is_file_name(Path(text)):
        raise UsageError(
            f"--output '{text}' is a folder with the suffix of a file",
            hint="remove the slash, or make the folder first",
        )
    suffix, known = Path(text).suffix.lower(), {*SUFFIXES, *CONTAINERS}
    named = {*known, *OTHER_SUFFIXES, *READ_ONLY, *VIDEO_SUFFIXES}  # have their own messages
    if text.endswith(("/", os.sep)) or is_template(Path(suffix)) or suffix in named:
        return
    if re.fullmatch(r"\.[a-z]{3,5}", suffix) and not Path(text).exists():
        near = nearest_name(suffix, sorted(known))
        guess = f"did you mean '{Path(text).with_suffix(near)}'? " if near else ""
        folder = "" if template else f"For a folder of that name, use '{text}/'"
        raise UsageError(
            f"--output '{text}': the suffix '{suffix}' is not known",
            hint=f"{guess}{folder}".strip() or "end the template in .{ext}",
        )


def is_template(output: Path) -> bool:
    """Whether an output is a template: it has fields in braces and is not an existing folder."""
    return ("{" in str(output) or "}" in str(output)) and not output.is_dir()


def stem_before(path: Path) -> str | None:
    """Return the stem of the input of a result, by their usual names; None for other names.

    >>> [stem_before(Path(name)) for name in ("a_x4.png", "a_1.5x-1.jpg", "a.png")]
    ['a', 'a', None]
    """
    found = re.fullmatch(rf"(.+)_(x\d+|[\d.e+-]+x\d*|{SAME_SIZE_SUFFIX})(-\d+)*", path.stem)
    return found[1] if found else None


def next_free_name(path: Path, taken: set[Path]) -> Path:
    """Return the first free name of `a.png`, `a-1.png`, `a-2.png` and so on."""
    candidate, n = path, 0
    while os.path.lexists(candidate) or candidate in taken:
        n += 1
        candidate = path.with_stem(f"{path.stem}-{n}")
    return candidate


def check_collisions(pairs: Iterable[tuple[Path, Path]]) -> None:
    """Raise a `UsageError` if pairs (input, output) share an output, or an output is an input."""
    pairs = [pair for pair in pairs if pair[1] != STREAM]
    inputs = {canonical_name(source) for source, _ in pairs if source != STREAM}
    by_target: dict[str, Path] = {}
    for source, output in pairs:
        key = canonical_name(output)
        if key in inputs:
            raise UsageError(
                f"the output '{output}' of '{source}' is one of the inputs",
                hint="write into another folder with --output",
            )
        if key in by_target:
            raise UsageError(
                f"'{by_target[key]}' and '{source}' would both be written to '{output}'",
                hint="leave one out with --exclude, or use a template with {dir} or {name}",
            )
        by_target[key] = source


def canonical_name(path: Path) -> str:
    """Return one name for all names of a file, where case or accents make no difference."""
    return fold(str(canonical_path(path)))


def check_not_in_run(path: Path, places: Iterable[tuple[Path, ...]], option: str) -> None:
    """Raise a `UsageError` if an option's file is one of the run's inputs or outputs."""
    own = {canonical_name(place) for some in places for place in some}
    if canonical_name(path) in own:
        raise UsageError(
            f"{option} '{path}' is one of the inputs or outputs", hint="choose another file"
        )


def check_output_file(path: Path, option: str) -> None:
    """Raise a `UsageError` if an option's file is a folder, or is in one that is not writable."""
    if path.is_dir():
        raise UsageError(f"{option} '{path}' is a folder", hint="give a file")
    if not path.exists():  # an existing file can be writable even if its folder is not
        check_writable(path.parent, option)
