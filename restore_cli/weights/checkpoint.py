"""The checkpoint file: safetensors with its config and provenance in the header. Never executes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from restore_cli.errors import WeightsError
from restore_cli.files import write_then_rename

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_KEY = "restore"  # one JSON object: the header holds strings only


@dataclass(frozen=True, slots=True)
class Header:
    """What a file of ours says about itself.

    Attributes:
        model: name of the network family.
        config: every field of its config.
        train_size: height, width of the training patches.
        provenance: recipe, steps, data, version; for people.
    """

    model: str
    config: dict[str, object]
    train_size: tuple[int, int]
    provenance: dict[str, object]


def read_header(path: Path) -> Header | None:
    """The header of a file of ours; None for safetensors that others wrote.

    Raises:
        WeightsError: not a safetensors file, or a header of ours that is broken.
    """
    try:
        with safe_open(path, "pt") as file:
            raw = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    if raw is None:
        return None
    try:
        values = json.loads(raw)
        height, width = (int(side) for side in values["train_size"])
        return Header(
            str(values["model"]),
            dict(values["config"]),
            (height, width),
            dict(values["provenance"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"'{path}' has a broken header: {error!r}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors by name, float16 and bfloat16 widened to float32.

    Raises:
        WeightsError: not a whole safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Write atomically."""
    values = {
        "model": header.model,
        "config": header.config,
        "train_size": header.train_size,
        "provenance": header.provenance,
    }
    with write_then_rename(path) as temporary:
        plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(plain, temporary, {_KEY: json.dumps(values, sort_keys=True)})


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"'{path}' is not a whole safetensors file: {error}",
        hint="fetch it again; other formats are read by `restore weights import` only",
    )
