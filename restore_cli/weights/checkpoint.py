"""The checkpoint file: safetensors with its config and provenance in the header. Never executes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from restore_cli.errors import RestoreError, WeightsError
from restore_cli.files import write_then_rename
from restore_cli.weights.kinds import HEAD, refuse_other

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_LARGEST = 16_384  # pixels of a side of training patches
_KEY = "restore"  # one JSON object: the header holds strings only


@dataclass(frozen=True, slots=True)
class Header:
    """What a file of ours says about itself.

    Attributes:
        model: name of the network family.
        config: every field of its config.
        train_size: height, width of the training patches.
        provenance: recipe, steps, data, version; for people.
        parts: modules whose weights, but for those in this file, are those of a listed checkpoint,
            by its sha256: `{"deblur": "9186..."}`. So that they are stored once.
    """

    model: str
    config: dict[str, object]
    train_size: tuple[int, int]
    provenance: dict[str, object]
    parts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A file of weights, read.

    Attributes:
        header: what it says about itself; None for safetensors that others wrote.
        tensors: by name, float16 and bfloat16 widened to float32.
        sha256: hex digest of the bytes that were read.
    """

    header: Header | None
    tensors: dict[str, Tensor]
    sha256: str


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read a file once: header, tensors and digest are of the same bytes.

    Raises:
        WeightsError: not a whole safetensors file, or a header of ours that is broken.
    """
    try:
        content = path.read_bytes()
        refuse_other(path, content[:HEAD])
        tensors = load(content)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"'{path}' is not a whole safetensors file: {error}", hint="fetch it again"
        ) from error
    return CheckpointFile(
        header=_parse_header(path, content),
        tensors={name: tensor.float() for name, tensor in tensors.items()},
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _parse_header(path: Path, content: bytes) -> Header | None:
    """Safetensors files begin with the length of a JSON object, then the object."""
    length = int.from_bytes(content[:8], "little")
    try:
        raw = json.loads(content[8 : 8 + length]).get("__metadata__", {}).get(_KEY)
        if raw is None:
            return None
        values = json.loads(raw)
        model, config = str(values["model"]), dict(values["config"])
        parts = {str(module): str(digest) for module, digest in values.get("parts", {}).items()}
        size, provenance = _size(values["train_size"]), dict(values["provenance"])
        return Header(model, config, size, provenance, parts)
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise WeightsError(f"'{path}' has a broken header: {error!r}") from error


def _size(sides: Iterable[float]) -> tuple[int, int]:
    height, width = (int(side) for side in sides)
    if not (1 <= height <= _LARGEST and 1 <= width <= _LARGEST):
        raise ValueError(f"train_size {height}x{width}")
    return height, width


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Header | None) -> None:
    """Write atomically; None for networks that are not ours, of which no header is known.

    Raises:
        RestoreError: the disk is full, or gone.
    """
    metadata = None
    if header is not None:
        values = {
            "model": header.model,
            "config": header.config,
            "train_size": header.train_size,
            "provenance": header.provenance,
        } | ({"parts": header.parts} if header.parts else {})
        metadata = {_KEY: json.dumps(values, sort_keys=True)}
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    try:
        with write_then_rename(path) as temporary:
            save_file(plain, temporary, metadata)
    except (SafetensorError, OSError) as error:
        raise RestoreError(f"cannot write '{path}': {error}", hint="make room") from error
