"""One picture from the bytes of one file to the bytes of another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import PurePath

from torch import Tensor

from restore_cli.errors import DeviceError
from restore_cli.image import Encoding, Picture, decode, encode
from restore_cli.image.writing import refuse_impossible, stored_depth
from restore_cli.inference.assemble import Line
from restore_cli.inference.cascade import Report, Stage
from restore_cli.inference.memory import is_out_of_memory
from restore_cli.jobs.plan import RestoreJob
from restore_cli.jobs.preflight import remarks
from restore_cli.resample import resize_bicubic
from restore_cli.version import __version__


@dataclass(frozen=True, slots=True)
class Settings:
    """What decides the pixels and the file of every picture of a job, besides the networks.

    Attributes:
        scale: output pixels per input pixel.
        icc: see `image.read_image`.
        alpha: see `plan.RestoreJob`.
        max_pixels: larger inputs are refused.
        quality: see `image.Encoding`.
        lossless: see `image.Encoding`.
        depth: see `image.Encoding`.
        metadata: see `image.Encoding`.
        model: names joined by +.
        weights: names and sha256 of the weights of each model.
        options: JSON of what was asked for, for people.
        check: whether to look at inputs for what limits the result.
        key: stands for all of the above; equal keys and equal inputs give equal pictures.
    """

    scale: int
    icc: str
    alpha: str
    max_pixels: int
    quality: int | None
    lossless: bool
    depth: int | None
    metadata: str
    model: str
    weights: tuple[tuple[str, str], ...]
    options: str
    check: bool
    key: str

    def provenance(self, input_sha256: str) -> tuple[tuple[str, str], ...]:
        """Facts for the metadata of a picture made from that input."""
        return (
            ("version", __version__),
            ("model", self.model),
            ("weights", "+".join(_public(name) for name, _ in self.weights)),
            ("weightsSha256", "+".join(digest for _, digest in self.weights)),
            ("options", self.options),
            ("inputSha256", input_sha256),
            ("key", self.key),
        )


def _public(weights: str) -> str:
    """A name for pictures that others will see: no path of this machine."""
    return weights if weights.startswith("hf://") else PurePath(weights).name


def settings_of(job: RestoreJob, line: Line) -> Settings:
    """The settings of a job, with the networks' weights and options in its key.

    The automatic size of tiles is not among them: it follows free memory, and results differ by
    less than rounding shows.
    """
    options = {
        "scale": job.scale,
        "tlsc": [fact.tlsc for fact in line.facts],
        "overlap": [fact.overlap for fact in line.facts],
        "precision": str(line.options.dtype).removeprefix("torch."),
        "tile": line.options.tile,  # without TLSC it decides what statistics see
        "self_ensemble": line.options.self_ensemble,
        "format": job.format,
        "quality": job.quality,
        "lossless": job.lossless,
        "bit_depth": job.depth,
        "alpha": job.alpha,
        "icc": job.icc,
        "metadata": job.metadata,
    }
    # Not `in (None, False)`: 0 would be among them, which is --tile off.
    used = {k: value for k, value in options.items() if value is not None and value is not False}
    text = json.dumps(used, separators=(",", ":"), sort_keys=True)
    weights = tuple((fact.weights, fact.sha256) for fact in line.facts)
    model = "+".join(fact.model for fact in line.facts)
    identity = json.dumps([__version__, model, [digest for _, digest in weights], text])
    return Settings(
        scale=job.scale,
        icc=job.icc,
        alpha=job.alpha,
        max_pixels=job.max_pixels,
        quality=job.quality,
        lossless=job.lossless,
        depth=job.depth,
        metadata=job.metadata,
        model=model,
        weights=weights,
        options=text,
        check=job.check,
        key=hashlib.sha256(identity.encode()).hexdigest(),
    )


def load(data: bytes, name: str, settings: Settings, format_key: str | None) -> Picture:
    """Decode a file and refuse what its output could not hold.

    Args:
        data: of the file.
        name: for messages.
        settings: of the job.
        format_key: of the output; None for the input's.

    Raises:
        PictureError: see `image.read_image` and `image.encode`.
    """
    with memory_errors(name):
        return _load(data, name, settings, format_key)


def _load(data: bytes, name: str, settings: Settings, format_key: str | None) -> Picture:
    picture = decode(data, name, max_pixels=settings.max_pixels, icc=settings.icc)
    if settings.alpha == "drop":
        picture = picture.with_alpha(None)
    # Before the work, not after it.
    height, width = (side * settings.scale for side in picture.size)
    key = format_key or picture.own_format
    alpha = picture.alpha is not None
    refuse_impossible(name, height, width, key, alpha=alpha, hdr=picture.hdr)
    if settings.check:
        found = tuple(remarks(picture.pixels, settings.scale))
        picture = replace(picture, notes=(*picture.notes, *found))
    return picture


def restore(
    picture: Picture,
    stage: Stage,
    settings: Settings,
    format_key: str | None,
    name: str,
    report: Report = lambda done, tiles: None,
) -> Picture:
    """Through the network, to the asked-for scale.

    Pixels that go into the file as they are become whole numbers tile by tile: a byte a value
    instead of four. All others stay float until they are encoded.

    Args:
        picture: decoded.
        stage: a network made ready.
        settings: of the job.
        format_key: of the output; None for the input's.
        name: for messages.
        report: called with (tiles done, tiles in all).

    Raises:
        PictureError: the network's output is not finite.
        DeviceError: out of memory.
    """
    as_they_are = (
        picture.colours == "rgb"
        and picture.excess is None
        and not picture.grey
        and stage.scale == settings.scale
    )
    key = format_key or picture.own_format
    depth = stored_depth(settings.depth or picture.depth, key) if as_they_are else None
    with memory_errors(name):
        return _restore(picture, stage, settings, report, depth)


def save(
    restored: Picture, input_sha256: str, settings: Settings, format_key: str | None, name: str
) -> tuple[bytes, tuple[str, ...]]:
    """The file of a restored picture, and notes on what its format could not hold.

    Raises:
        PictureError: it cannot be encoded.
    """
    encoding = Encoding(
        format=format_key or restored.own_format,
        quality=settings.quality,
        lossless=settings.lossless,
        depth=settings.depth,
        metadata=settings.metadata,
        provenance=settings.provenance(input_sha256),
    )
    with memory_errors(name):
        return encode(restored, encoding, name)


@contextmanager
def memory_errors(name: str) -> Iterator[None]:
    """Raise a `DeviceError` when memory runs out inside."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(f"'{name}': out of memory", hint="close other programs") from error


def _restore(
    picture: Picture, stage: Stage, settings: Settings, report: Report, depth: int | None
) -> Picture:
    height, width = (side * settings.scale for side in picture.size)
    restored = _resized(stage(picture.pixels, report, depth), height, width)
    if picture.excess is not None:
        # Networks know sRGB only; what lies outside of it is enlarged by itself and added.
        restored = restored + _resized(picture.excess, height, width)
    alpha = picture.alpha
    if alpha is not None:
        if settings.alpha == "restore":
            alpha = stage(alpha.expand(-1, 3, -1, -1).contiguous(), _silent)
            alpha = alpha.mean(1, keepdim=True)
        alpha = _resized(alpha, height, width)
    return picture.with_pixels(restored, alpha)


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    return image if image.shape[-2:] == (height, width) else resize_bicubic(image, height, width)


def _silent(done: int, tiles: int) -> None:
    """Alpha's tiles are not counted."""
