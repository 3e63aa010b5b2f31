"""What a run needs to go on after a stop: one file, written whole or not at all."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from restore_cli.errors import UsageError
from restore_cli.files import write_then_rename


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Attributes: next step to run, state dicts, the recipe's content, seconds trained so far."""

    step: int
    network: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    recipe: dict[str, Any]
    seconds: float


def save_state(state: TrainingState, path: Path) -> None:
    """Write atomically; an earlier file of that name stays until the new one is whole."""
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    with write_then_rename(path) as temporary:
        torch.save(values, temporary)


def load_state(path: Path, recipe: dict[str, Any]) -> TrainingState:
    """Read a state; nothing in the file is executed.

    Raises:
        UsageError: the run was started with another recipe. `steps` may differ: a run may be
            prolonged or cut short.
    """
    state = TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
    changed = sorted(
        key
        for key in recipe.keys() | state.recipe.keys()
        if key != "steps" and recipe.get(key) != state.recipe.get(key)
    )
    if changed:
        raise UsageError(
            f"'{path}' was trained with another recipe: {', '.join(changed)} differ",
            hint="choose another --output folder, or restore the recipe",
        )
    return state
