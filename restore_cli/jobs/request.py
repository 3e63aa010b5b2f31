"""What callers ask for: which pictures, where the results go, how they are handled and encoded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from restore_cli.image import MAX_PIXELS, Encoding
from restore_cli.inference.sizing import TargetSize


@dataclass(frozen=True, slots=True)
class Selection:
    """Which pictures are restored.

    Attributes:
        inputs: files, folders, quoted globs, `inputs.STREAM`.
        recursive: whether folders are searched with all folders in them.
        include: patterns that names in folders must match.
        exclude: patterns that names in folders must not match.
        shard: part I of N of the pictures, from 1.
        max_pixels: larger inputs are refused.
    """

    inputs: tuple[Path, ...]
    recursive: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shard: tuple[int, int] = (1, 1)
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the results go.

    Attributes:
        output: a file (for one input), a folder, a template, `inputs.STREAM`, or None for beside
            each input.
        on_exists: "error", "skip", "overwrite" or "rename", when an output is already there.
        resume: whether outputs made by the same model, weights and options count as done.
    """

    output: Path | None = None
    on_exists: str = "error"
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Processing:
    """What happens to a picture besides the pipeline.

    Attributes:
        alpha: transparency: "resize" (bicubic), "restore" (by the pipeline) or "drop".
        icc: "convert", "keep" or "strip"; see `image.read_image`.
        check: whether inputs are examined for what limits the result; see `preflight`.
        size: that the results are to have; None for the pipeline's scale.
    """

    alpha: str = "resize"
    icc: str = "convert"
    check: bool = True
    size: TargetSize | None = None

    def output_size(self, height: int, width: int, scale: int) -> tuple[int, int]:
        """Height and width of the result of an input.

        Args:
            height: of the input.
            width: of the input.
            scale: of the pipeline.
        """
        return (height * scale, width * scale) if self.size is None else self.size.of(height, width)


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """The one record between callers (command line, page, Python) and the work.

    Attributes:
        selection: which pictures.
        destination: where the results go.
        processing: what happens to a picture besides the pipeline.
        encoding: of the files that are written; their provenance is filled in by the work.
    """

    selection: Selection
    destination: Destination = Destination()
    processing: Processing = Processing()
    encoding: Encoding = field(default_factory=Encoding)
