"""The state that a run is resumed from: one file, written atomically."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any
from zipfile import BadZipFile, ZipFile

import torch
from pydantic import AfterValidator, Field, SkipValidation, ValidationError

from restore_cli.errors import RestoreError, UsageError
from restore_cli.files import remedy, write_then_rename
from restore_cli.formatting import first_line, reason_of
from restore_cli.toml_file import Record, first_problem
from restore_cli.training.recipe import TrainingRecipe

# A resumed run may have other lengths and learning rates; any other change needs a new run.
CHANGEABLE = ("steps", "schedule", "learning_rate", "warm_up", "clip")
STATE = "state.pt"  # file in the folder of a run
_NEW_RUN = "start a new run in another --output, with this one's weights.safetensors as --weights"


Count = Annotated[int, Field(strict=True, ge=0, lt=10**15)]
StateDict = SkipValidation[dict[str, Any]]  # validation would copy it; the trainer checks it


def _check_best(best: dict[str, Any] | None) -> dict[str, Any] | None:
    keys = ("step", "psnr", "gain")
    if best is not None and not all(isinstance(best.get(key), int | float) for key in keys):
        raise ValueError("lacks its step, PSNR or gain")
    return best


class TrainingState(Record):
    """The state of a training run."""

    phase: Count  # index of the phase
    phase_step: Count  # finished steps of this phase
    step: Count  # finished steps of all phases
    seen: Count  # number of data items seen so far
    network: StateDict  # state dict of the network
    ema: StateDict  # state dict of the averaged network
    optimizer: StateDict  # state dict of the optimiser
    scaler: StateDict  # state dict of the gradient scaler; empty except in float16
    # phase, step, psnr and gain of the best validation of this phase; None before it
    best: Annotated[dict[str, Any] | None, AfterValidator(_check_best)]
    recipe: dict[str, Any]  # content of the recipe
    facts: dict[str, Any]  # data and hardware, for the model card
    seconds: Annotated[float, Field(ge=0, lt=10**15)]  # training time so far


class SaveError(RestoreError):
    """The state cannot be written; the previous one is intact."""


def save_state(state: TrainingState, path: Path) -> None:
    """Write a state atomically; an existing file is replaced when the new one is complete.

    Raises `SaveError` if the disk is full or not available.
    """
    try:
        with write_then_rename(path) as temporary, temporary.open("wb") as stream:
            torch.save(dict(state), stream)
            stream.flush()
            os.fsync(stream.fileno())  # before the rename: a power cut could leave an empty file
    except (OSError, RuntimeError) as error:
        # torch replaces errors of its stream by one about the position in it.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        raise SaveError(
            f"cannot save step {state.step} to '{path}': {reason_of(cause)}",
            hint=f"the previous state is intact; {remedy(cause)}, then --resume auto",
        ) from error


def read_state(path: Path) -> TrainingState:
    """Read a state, executing nothing in it; raises `UsageError` if this version cannot read it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols; what cannot be read fails
            _check_archive(path)
            values = torch.load(path, map_location="cpu", weights_only=True)
        state = TrainingState.model_validate(values)
    except (
        RuntimeError,
        OSError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        UnpicklingError,
        BadZipFile,
    ) as error:
        # torch's own message, on several lines, advises to load such files as code.
        other = isinstance(error, UnpicklingError)
        invalid = first_problem(error) if isinstance(error, ValidationError) else first_line(error)
        reason = "it holds other objects" if other else invalid
        raise UsageError(
            f"'{path}' is not a training state that this version can read: {reason}", hint=_NEW_RUN
        ) from error
    try:
        phases = TrainingRecipe.model_validate(state.recipe).phases
        if state.phase >= len(phases):
            what = f"its recipe has no phase {state.phase + 1}"
            raise UsageError(f"'{path}' is incomplete: {what}", hint=_NEW_RUN)
    except ValidationError as error:
        raise UsageError(
            f"'{path}' was trained with a recipe that this version cannot read", hint=_NEW_RUN
        ) from error
    return state


def _check_archive(path: Path) -> None:
    """Raise a `ValueError` if the content is not what was written, which torch does not check."""
    with ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"its part '{damaged}' is damaged")


def load_state(path: Path, recipe: dict[str, Any]) -> TrainingState:
    """Read the state of a run of this recipe; raises `UsageError` if the file is anything else."""
    state = read_state(path)
    trained = TrainingRecipe.model_validate(state.recipe)  # adds the defaults of newer keys
    before, now = _comparable(trained.content()), _comparable(recipe)
    changed = sorted(key for key in now.keys() | before.keys() if now.get(key) != before.get(key))
    if changed:
        raise UsageError(
            f"'{path}' was trained with another recipe: {', '.join(changed)} differ",
            hint="choose another --output folder, or undo the changes to the recipe",
        )
    return state


def _comparable(recipe: dict[str, Any]) -> dict[str, Any]:
    flat = recipe | {"phases": [phase["name"] for phase in recipe["phases"]]}
    del flat["save_minutes"], flat["save_every"]
    flat["pool"] = recipe["pool"] | {"size": None}  # a pool may grow
    for phase in recipe["phases"]:
        for key, value in phase.items():
            if key not in CHANGEABLE:
                flat[f"phases.{phase['name']}.{key}"] = value
    return flat
