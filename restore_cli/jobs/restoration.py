"""Decodes, restores and encodes one picture."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePath

from torch import Tensor

from restore_cli.errors import HOSTILE, PictureError
from restore_cli.formatting import first_line
from restore_cli.image import Picture, decode, encode
from restore_cli.image.writing import check_fits_format, stored_depth
from restore_cli.inference.memory import memory_errors
from restore_cli.inference.pipeline import Pipeline
from restore_cli.inference.sizing import restore_to_size
from restore_cli.inference.stages import ProgressCallback, no_progress
from restore_cli.jobs.inputs import STREAM
from restore_cli.jobs.plan import Item
from restore_cli.jobs.preflight import input_notes
from restore_cli.jobs.request import RestoreRequest
from restore_cli.resample import resize_bicubic
from restore_cli.version import __version__


@dataclass(frozen=True, slots=True)
class Task:
    """One picture to restore."""

    item: Item  # its input and output
    data: bytes  # bytes of the input
    sha256: str  # digest of the data
    format: str  # format of the output; "" for the input's

    @property
    def name(self) -> str:
        """The input's name, for messages."""
        return "stdin" if self.item.source == STREAM else str(self.item.source)


@dataclass(frozen=True)
class Restoration:
    """A request with its pipeline."""

    request: RestoreRequest  # the request
    pipeline: Pipeline  # the loaded pipeline

    @cached_property
    def options(self) -> dict[str, object]:
        """All options that affect the pixels or the file; unused ones are left out."""
        identity = self.pipeline.identity
        stages = identity.pop("stages")
        encoding = dataclasses.asdict(self.request.encoding)
        del encoding["provenance"]
        encoding["bit_depth"] = encoding.pop("depth")
        options = {
            "scale": self.pipeline.scale,
            "tlsc": [stage["tlsc"] for stage in stages],
            "overlap": [stage["overlap"] for stage in stages],
            **identity,
            **encoding,
            "format": self.request.encoding.format or None,
            "alpha": self.request.processing.alpha,
            "icc": self.request.processing.icc,
            "size": str(self.request.processing.size) if self.request.processing.size else None,
        }
        # Not `in (None, False)`: this would drop 0, which means --tile off.
        return {k: v for k, v in options.items() if v is not None and v is not False}

    @cached_property
    def key(self) -> str:
        """A digest of version, weights and options: equal keys and inputs give equal files."""
        digests = [stage.sha256 for stage in self.pipeline.stages]
        identity = json.dumps([__version__, self.pipeline.spec.name, digests, self._options_text])
        return hashlib.sha256(identity.encode()).hexdigest()

    @property
    def _options_text(self) -> str:
        return json.dumps(self.options, separators=(",", ":"), sort_keys=True)

    def provenance(self, input_sha256: str) -> dict[str, str]:
        """Return the facts for the metadata of a result; none with `--metadata none`."""
        if self.request.encoding.metadata == "none":
            return {}
        stages = self.pipeline.stages
        return {
            "version": __version__,
            "model": self.pipeline.spec.name,
            "weights": "+".join(_public(stage.weights) for stage in stages),
            "weightsSha256": "+".join(stage.sha256 for stage in stages),
            "options": self._options_text,
            "inputSha256": input_sha256,
            "key": self.key,
        }

    def load(self, task: Task) -> Picture:
        """Decode a file, and refuse it if the output's format cannot hold the result.

        Raises:
            PictureError: see `image.read_image` and `image.encode`.
            DeviceError: out of memory.
        """
        how, scale, name = self.request.processing, self.pipeline.scale, task.name
        with memory_errors(lambda: f"'{name}': out of memory"):
            most = self.request.selection.max_pixels
            try:
                picture = decode(task.data, name, max_pixels=most, icc=how.icc)
            except HOSTILE as error:  # whatever a header breaks, the batch goes on
                raise PictureError(
                    f"cannot read '{name}': {first_line(error)}",
                    hint="it may be damaged: copy or fetch it again",
                ) from error
            if how.alpha == "drop":
                picture = replace(picture, alpha=None)
            height, width = how.output_size(*picture.size, scale)
            key, alpha = task.format or picture.default_format, picture.alpha is not None
            check_fits_format(name, height, width, key, alpha=alpha, hdr=picture.hdr)
            found = tuple(input_notes(picture.pixels)) if how.check else ()
            return replace(picture, notes=(*picture.notes, *found))

    def restore(
        self, picture: Picture, task: Task, report: ProgressCallback = no_progress
    ) -> Picture:
        """Run the pipeline on a picture.

        Pixels that need no conversion for the file are rounded to integers tile by tile, which
        needs a quarter of the memory. All others stay float until they are encoded. `report` is
        called with (finished tiles, all tiles).

        Raises:
            PictureError: the network's output is not finite.
            DeviceError: out of memory.
        """
        plain = picture.colours == "rgb" and picture.out_of_gamut is None and not picture.grey
        bits = self.request.encoding.depth or picture.depth
        depth = stored_depth(bits, task.format or picture.default_format) if plain else None
        alpha = picture.alpha
        with memory_errors(lambda: f"'{task.name}': out of memory"):
            restored = self._resized_pipeline(picture.pixels, report, depth)
            height, width = restored.shape[-2:]
            if picture.out_of_gamut is not None:
                # Networks work in sRGB; the part of the colours outside is resized and added.
                restored = restored + resize_bicubic(picture.out_of_gamut, height, width)
            if alpha is not None and self.request.processing.alpha == "restore":
                pixels = alpha.expand(-1, 3, -1, -1).contiguous()
                alpha = self._resized_pipeline(pixels, no_progress, None).mean(1, keepdim=True)
            elif alpha is not None:
                alpha = resize_bicubic(alpha, height, width)
        return picture.with_pixels(restored, alpha)

    def _resized_pipeline(
        self, image: Tensor, report: ProgressCallback, depth: int | None
    ) -> Tensor:
        """Run the pipeline, and resample to the requested size."""
        size = self.request.processing.size
        if size is None:
            return self.pipeline(image, report, depth)
        height, width = image.shape[-2:]
        return restore_to_size(self.pipeline, image, size.of(height, width), report, depth)

    def save(self, restored: Picture, task: Task) -> tuple[bytes, tuple[str, ...]]:
        """Encode a restored picture; also return notes on what the format cannot hold.

        Raises:
            PictureError: the picture cannot be encoded.
            DeviceError: out of memory.
        """
        name, provenance = str(task.item.target), tuple(self.provenance(task.sha256).items())
        encoding = replace(self.request.encoding, format=task.format, provenance=provenance)
        with memory_errors(lambda: f"'{name}': out of memory"):
            return encode(restored, encoding, name)


def _public(weights: str) -> str:
    """Return the name of weights for published pictures, without local paths."""
    return weights if weights.startswith("hf://") else PurePath(weights).name
