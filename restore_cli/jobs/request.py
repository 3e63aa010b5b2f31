"""Requests: which pictures to restore, where to write the results, and how to encode them."""

from __future__ import annotations

from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from restore_cli.errors import UsageError
from restore_cli.formatting import for_python
from restore_cli.image import MAX_PIXELS, Encoding
from restore_cli.inference.sizing import TargetSize, parse_size


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pictures are restored."""

    inputs: tuple[Path, ...]  #: files, folders, quoted globs, `inputs.STREAM`
    recursive: bool = False  #: whether folders are searched with all folders in them
    include: tuple[str, ...] = ()  #: patterns that names in folders must match
    exclude: tuple[str, ...] = ()  #: patterns that names in folders must not match
    shard: tuple[int, int] = (1, 1)  #: part I of N of the pictures, counted from 1
    max_pixels: int = MAX_PIXELS  #: larger inputs are refused

    def __post_init__(self) -> None:
        if isinstance(self.inputs, str) and not self.inputs:
            raise UsageError("the path of the inputs is empty", hint="give a file or a folder")
        inputs = (self.inputs,) if isinstance(self.inputs, str | PathLike) else self.inputs
        object.__setattr__(self, "inputs", tuple(Path(path) for path in inputs))
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise UsageError(
                f"shard {self.shard} is not (I, N) with I from 1 to N", hint="e.g. (1, 8) to (8, 8)"
            )


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the results go."""

    #: a file (for one input), a folder, a template, or `inputs.STREAM`; None: each input's folder
    output: Path | None = None
    #: "error", "skip", "overwrite" or "rename", if an output exists already
    on_exists: str = "error"
    #: whether to keep outputs that were made by the same model, weights and options
    resume: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.output, str) and not self.output:
            raise UsageError("the output is empty", hint="give a file or a folder, or None")
        if self.output is not None:
            object.__setattr__(self, "output", Path(self.output))


@dataclass(frozen=True, slots=True)
class Processing:
    """How a picture is processed, besides the pipeline."""

    alpha: str = "resize"  #: transparency: "resize" (bicubic), "restore" (the pipeline) or "drop"
    icc: str = "convert"  #: "convert", "keep" or "strip"; see `image.read_image`
    check: bool = True  #: whether inputs are examined for faults; see `preflight`
    size: TargetSize | None = None  #: size of the results; None for the pipeline's scale

    def __post_init__(self) -> None:
        if isinstance(self.size, str):
            try:
                object.__setattr__(self, "size", parse_size(self.size))
            except UsageError as error:
                raise UsageError(for_python(str(error)), hint=error.hint) from error

    def output_size(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """Return height and width of the result for those of the input and the pipeline's scale."""
        return (height * scale, width * scale) if self.size is None else self.size.of(height, width)


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """A request of the command line, the web page or Python."""

    selection: Selection  #: which pictures are restored
    destination: Destination = Destination()  #: where the results go
    processing: Processing = Processing()  #: how pictures are processed, besides the pipeline
    #: encoding of the results; the run fills in their provenance
    encoding: Encoding = field(default_factory=Encoding)
