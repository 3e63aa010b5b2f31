"""Checkpoint files: safetensors with config and provenance in the header. Executes nothing."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save_file
from torch import Tensor

from restore_cli.errors import WeightsError
from restore_cli.files import write_then_rename, writing
from restore_cli.formatting import first_line, format_list
from restore_cli.toml_file import first_problem
from restore_cli.weights.file_kinds import DamagedFileError, detect_kind

if TYPE_CHECKING:
    from collections.abc import Mapping

_Side = Annotated[int, Field(ge=1, le=16_384)]  # of a training patch, pixels
_KEY = "restore"  # one JSON object: the header holds strings only


@dataclass(frozen=True, slots=True)
class CheckpointHeader:
    """The header of a file that restore wrote."""

    model: str  # name of the network family
    config: dict[str, object]  # all fields of its config
    train_size: tuple[_Side, _Side]  # height and width of the training patches
    provenance: dict[str, object]  # recipe, steps, data and version, for people
    # modules whose weights are those of a listed checkpoint, except for the tensors in this file,
    # as module and sha256: `{"deblur": "9186..."}`. They are not stored again. The module "" is the
    # whole network.
    parts: dict[str, str] = field(default_factory=dict)
    # window of local statistics and overlap of tiles, input pixels, of the weights that training
    # started from; None for what follows from the training size
    tlsc_base: tuple[_Side, _Side] | None = None
    overlap: Annotated[int, Field(ge=0, le=16_384)] | None = None


_HEADER = TypeAdapter(CheckpointHeader)


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """The content of a file of weights."""

    header: CheckpointHeader | None  # its header; None for safetensors that restore did not write
    tensors: dict[str, Tensor]  # tensors by name, those of floats in float32
    sha256: str  # hex digest of the file


def name_in_network(module: str, name: str) -> str:
    """Name of a module's parameter in the whole network, which itself is the module ""."""
    return f"{module}.{name}" if module else name


def read_checkpoint(path: Path) -> CheckpointFile:
    """Read a file once, so that header, tensors and digest belong to the same bytes.

    A broken safetensors file or header, or values that are not finite, raise `WeightsError`.
    """
    try:
        content = path.read_bytes()
        if (kind := detect_kind(path, otherwise="safetensors")) != "safetensors":
            raise WeightsError(
                f"'{path}' is a {'PyTorch file' if kind == 'pickle' else 'NumPy archive'}",
                hint=f"convert it: restore weights import {path} -o NAME.safetensors",
            )
        tensors = load(content)
    except KeyError as error:  # of safetensors' own table
        raise WeightsError(
            f"'{path}' has tensors of type {error.args[0]}, which cannot be read",
            hint="store them as float32 or float16",
        ) from error
    except OSError as error:
        raise WeightsError(f"cannot read '{path}': {error.strerror or error}") from error
    except (SafetensorError, ValueError) as error:
        raise DamagedFileError(
            f"'{path}' is not a valid safetensors file: {error}", hint="copy or fetch it again"
        ) from error
    tensors = {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}
    check_finite(path, tensors)
    header = _parse_header(path, _metadata(content))
    if not tensors and not (header and header.parts):
        raise WeightsError(f"'{path}' contains no tensors", hint="save the weights again")
    return CheckpointFile(
        header=header,
        tensors=tensors,
        sha256=hashlib.sha256(content).hexdigest(),
    )


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise a `WeightsError` that names the tensors with values that are not finite, if any."""
    broken = [n for n, t in tensors.items() if t.is_floating_point() and not _is_finite(t.float())]
    if broken:
        raise WeightsError(
            f"'{path}' has values that are not finite in {format_list(broken, 5)}",
            hint="its training diverged; use an earlier checkpoint",
        )


def _is_finite(tensor: Tensor) -> bool:
    # The sum, in a seventh of the time, is finite only if all values are; but it can overflow.
    return math.isfinite(tensor.sum()) or bool(tensor.isfinite().all())


def _strict_json(text: str) -> object:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def read_header(path: Path) -> CheckpointHeader | None:
    """Read the header alone; None if restore did not write the file, or it is no safetensors.

    A broken header raises `WeightsError`.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
    except (SafetensorError, OSError, ValueError):
        return None
    return _parse_header(path, metadata or {})


def _metadata(content: bytes) -> dict[str, str]:
    """Safetensors files begin with the length of a JSON object, then it."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]).get("__metadata__") or {}


def _parse_header(path: Path, metadata: Mapping[str, str]) -> CheckpointHeader | None:
    raw = metadata.get(_KEY)
    try:
        # Not by pydantic's parser, which refuses names that are not UTF-8.
        return None if raw is None else _HEADER.validate_python(_strict_json(raw))
    except (ValueError, RecursionError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else first_line(error)
        raise WeightsError(f"'{path}' has a broken header: {reason}") from error


def write_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], header: CheckpointHeader | None
) -> None:
    """Write a file atomically; the header is None if the training size is not known.

    Raises `RestoreError` if the file cannot be written, e.g. because the disk is full.
    """
    metadata = None
    if header is not None:
        values = asdict(header)
        for name in ("parts", "tlsc_base", "overlap"):
            if not values[name]:
                del values[name]
        metadata = {_KEY: json.dumps(values, sort_keys=True)}
    plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with writing(path, also=SafetensorError), write_then_rename(path) as temporary:
        save_file(plain, temporary, metadata)
