"""What every recipe costs: seconds a step here, and the hours that follow. Prints a Markdown table.

    python benchmarks/training_speed.py PHOTOS [RECIPE ...]

Each phase is rehearsed on this machine as `restore train RECIPE --dry-run` does: one step to warm
up, then timed ones. Operations are counted on the phase's own graph, forward and backward; frozen
parts and outputs nobody asks for are left out. The hours of one GPU are operations divided by a
rate that is assumed, not measured: see SUSTAINED.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from restore_cli.training.learner import freeze, model_and_config
from restore_cli.training.loop import TrainJob
from restore_cli.training.recipe import Phase, TrainingRecipe, load_recipe, shipped_recipes
from restore_cli.training.rehearsal import rehearse

SUSTAINED = 50e12  # operations a second: about a twentieth of what an H100 promises in bf16


def operations(recipe: TrainingRecipe, phase: Phase) -> int:
    """Of one step of a phase: multiply-adds count as two."""
    model, config = model_and_config(recipe)
    with torch.device("meta"):
        network = model.build(config)
        image = torch.empty(1, 3, phase.patch, phase.patch)
    freeze(network, phase)
    wanted = {term.output for term in phase.losses}
    with FlopCounterMode(display=False) as counter:
        outputs = network.outputs(image, wanted)
        torch.stack([output.mean() for output in outputs.values()]).sum().backward()
    return counter.get_total_flops() * phase.batch


def main() -> None:
    """Rehearse every recipe, or those named."""
    photos, *names = sys.argv[1:]
    print("| recipe, phase | trained | steps | s/step | TFLOP/step | hours here | hours, one GPU |")
    print("|---|---|---|---|---|---|---|")
    for name in names or shipped_recipes():
        recipe = load_recipe(name)
        if recipe.model is None or recipe.mixture:  # which needs pairs and a pool as well
            continue
        job = TrainJob(recipe=recipe, data=[Path(photos)], run=Path("unused"))
        for phase, done in zip(recipe.phases, rehearse(job), strict=True):
            work = operations(recipe, phase)
            print(
                f"| {name}, {phase.name} | {done.trained:,} | {phase.steps:,} | {done.step:.2f} "
                f"| {work / 1e12:.2f} | {phase.steps * done.step / 3600:,.1f} "
                f"| {phase.steps * work / SUSTAINED / 3600:,.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
