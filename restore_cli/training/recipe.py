"""A training recipe: everything that decides the weights, but for the photos and the hardware."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from restore_cli import toml_file

FOLDER = Path(__file__).parent.parent / "recipes" / "train"
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class LossTerm(BaseModel):
    """weight * loss(output, target).

    `reference` is the sharp picture at the output's size, `reference_small` the same at the size
    of the input, by bicubic downscaling.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    output: str
    target: Literal["reference", "reference_small"]
    loss: Literal["l1", "charbonnier", "edge", "gradient", "psnr"]
    weight: Positive


class TrainingRecipe(BaseModel):
    """Sizes in pixels of the degraded input; counts in optimiser steps."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    config: str
    degradation: str
    seed: int = 0
    steps: Count
    batch: Count
    patch: Annotated[int, Field(ge=16)]
    margin: Annotated[int, Field(ge=0)] = 8  # cut after degrading, so that crops see neighbours
    halve: Annotated[float, Field(ge=0, le=1)] = 0.3  # photos halved first: cleaner than their JPEG
    learning_rate: Positive
    learning_rate_end: Positive
    warm_up: Annotated[int, Field(ge=0)] = 0
    decay: Annotated[int, Field(ge=0)] = 0  # steps of the final cosine
    betas: tuple[float, float] = (0.9, 0.999)
    clip: Positive = 1.0  # norm of the gradient
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    save_every: Count = 100
    validate_every: Count = 500
    losses: Annotated[list[LossTerm], Field(min_length=1)]


def load_recipe(name_or_path: str) -> TrainingRecipe:
    """A shipped recipe by name, or one from a `.toml` file.

    Raises:
        UsageError: unknown name.
        RecipeError: unknown key, wrong type, value out of range.
    """
    return toml_file.load(TrainingRecipe, name_or_path, FOLDER, "training recipe")
