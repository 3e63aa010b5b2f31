"""From a run's state to a checkpoint that `restore image` takes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from restore_cli import __version__
from restore_cli.models.registry import get_config, get_model
from restore_cli.training.recipe import TrainingRecipe
from restore_cli.weights.checkpoint import Header, write_checkpoint


def export_checkpoint(state_file: Path, target: Path) -> None:
    """Write the averaged weights as float16 safetensors with config and provenance.

    Args:
        state_file: `state.pt` of a run.
        target: the `.safetensors` file to write.
    """
    state = torch.load(state_file, map_location="cpu", weights_only=True)
    recipe = TrainingRecipe.model_validate(state["recipe"])
    config = get_config(get_model(recipe.model), recipe.config)
    prefix = "module."  # AveragedModel wraps the network and counts its updates
    weights = {
        name.removeprefix(prefix): tensor.half()
        for name, tensor in state["ema"].items()
        if name.startswith(prefix)
    }
    header = Header(
        model=recipe.model,
        config=dataclasses.asdict(config),
        train_size=(recipe.patch, recipe.patch),
        provenance={
            "version": __version__,
            "recipe": recipe.model_dump(mode="json"),
            "steps": state["step"],
            "hours": round(state["seconds"] / 3600, 2),
        },
    )
    write_checkpoint(target, weights, header)
