"""What a run needs to resume: one file, written whole or not at all."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import ValidationError

from restore_cli.errors import RestoreError, UsageError
from restore_cli.files import write_then_rename
from restore_cli.training.recipe import TrainingRecipe

# Names in states and pools of earlier versions; they go on under the new ones.
RENAMED = {
    "start": "initialisation",
    "share": "probability",
    "freedom": "degrees_of_freedom",
}
# A run may be prolonged, cut short, cooled down or calmed; anything else makes another run of it.
CHANGEABLE = ("steps", "schedule", "learning_rate", "warm_up", "clip")


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Everything that is not in the recipe and the data.

    Attributes:
        phase: index of the phase.
        phase_step: steps done in it.
        step: steps done in all.
        seen: items of the data taken so far.
        network: state dict.
        ema: state dict of the averaged network.
        optimizer: state dict.
        scaler: state dict of the gradient scaler; empty but for float16.
        best: phase, step, psnr and gain of the best validation of this phase; None before it.
        recipe: its content.
        facts: data and hardware, for people.
        seconds: trained so far.
    """

    phase: int
    phase_step: int
    step: int
    seen: int
    network: dict[str, Any]
    ema: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    best: dict[str, Any] | None
    recipe: dict[str, Any]
    facts: dict[str, Any]
    seconds: float


class SaveError(RestoreError):
    """The state cannot be written; the one before it is whole."""


def save_state(state: TrainingState, path: Path) -> None:
    """Write atomically; an earlier file of that name stays until the new one is whole.

    Raises:
        SaveError: the disk is full, or gone.
    """
    values = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    try:
        with write_then_rename(path) as temporary, temporary.open("wb") as stream:
            torch.save(values, stream)
            stream.flush()
            os.fsync(stream.fileno())  # before the name: else a power cut may leave an empty file
    except (OSError, RuntimeError) as error:  # torch wraps what its stream raises
        raise SaveError(
            f"cannot save step {state.step} to '{path}': {error}",
            hint="the state saved before it is whole; make room, then --resume auto",
        ) from error


def read_state(path: Path) -> TrainingState:
    """Read a state; nothing in the file is executed.

    Raises:
        UsageError: not a state of this version.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("recipe", "facts"):
            values[key] = current_names(values[key])
        return TrainingState(**values)
    except (
        TypeError,
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        UnpicklingError,
    ) as error:
        raise UsageError(
            f"'{path}' is not a state of this version's `restore train`: {error}",
            hint="begin anew in another --output, with the run's weights.safetensors as --weights",
        ) from error


def load_state(path: Path, recipe: dict[str, Any]) -> TrainingState:
    """Read the state of a run of this recipe.

    Raises:
        UsageError: not a state, or the run was started with another recipe.
    """
    state = read_state(path)
    try:
        # Defaults for keys that have come since.
        trained = TrainingRecipe.model_validate(state.recipe)
    except ValidationError as error:
        raise UsageError(
            f"'{path}' was trained with a recipe that means nothing to this version",
            hint="begin anew in another --output, with the run's weights.safetensors as --weights",
        ) from error
    before, now = _comparable(trained.content()), _comparable(recipe)
    changed = sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key))
    if changed:
        raise UsageError(
            f"'{path}' was trained with another recipe: {', '.join(changed)} differ",
            hint="choose another --output folder, or restore the recipe",
        )
    return state


def current_names(value: Any) -> Any:
    """JSON values of an earlier version with the names of this one."""
    if isinstance(value, list):
        return [current_names(one) for one in value]
    if isinstance(value, dict):
        renamed = {RENAMED.get(key, key): current_names(one) for key, one in value.items()}
        return renamed | ({"kind": "step"} if value.get("kind") == "stairs" else {})
    return value


def _comparable(recipe: dict[str, Any]) -> dict[str, Any]:
    flat = recipe | {"phases": [phase["name"] for phase in recipe["phases"]]}
    del flat["save_minutes"]
    flat["pool"] = recipe["pool"] | {"size": None}  # a pool may grow
    for phase in recipe["phases"]:
        for key, value in phase.items():
            if key not in CHANGEABLE:
                flat[f"phases.{phase['name']}.{key}"] = value
    return flat
