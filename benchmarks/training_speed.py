"""What every recipe costs: seconds a step here, and the hours that follow. Prints a Markdown table.

    python benchmarks/training_speed.py PHOTOS [RECIPE ...]

Each phase is tried on this machine as `restore train RECIPE --dry-run` does: one step to warm
up, then timed ones. Operations are counted on the phase's own graph, forward and backward; frozen
parts and outputs nobody asks for are left out. "/ conv" is the rate of the whole step, degrading
included, over that of one 3x3 convolution here, forward and backward: what is lost to everything
else (aim: 0.7 or more). The hours of one GPU are operations divided by a rate that is assumed, not
measured: see SUSTAINED.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from restore_cli.training.dry_run import dry_run
from restore_cli.training.job import TrainJob
from restore_cli.training.recipe import Phase, TrainingRecipe, load_recipe, shipped_recipes
from restore_cli.training.trainer import freeze, model_and_config

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


def convolution_rate(seconds: float = 2.0) -> float:
    """Operations per second of a 3x3 convolution of 64 channels, channels_last, float32.

    Args:
        seconds: to measure for.
    """
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image = torch.rand(8, 64, 64, 64).contiguous(memory_format=torch.channels_last)
    image.requires_grad_()
    with FlopCounterMode(display=False) as counter:
        layer(image).sum().backward()
    best, begun = float("inf"), time.perf_counter()
    while time.perf_counter() - begun < seconds:
        first = time.perf_counter()
        layer(image).sum().backward()
        best = min(best, time.perf_counter() - first)
    return counter.get_total_flops() / best


def main() -> None:
    """Try every recipe, or those named."""
    photos, *names = sys.argv[1:]
    columns = ("recipe, phase", "trained", "steps", "s/step", "TFLOP/step", "/ conv", "hours here")
    print("|", " | ".join([*columns, "hours, one GPU"]), "|")
    print("|---|---|---|---|---|---|---|---|")
    for name in names or shipped_recipes():
        recipe = load_recipe(name)
        if recipe.model is None or recipe.mixture:  # which needs pairs and a pool as well
            continue
        job = TrainJob(recipe=recipe, data=[Path(photos)], run=Path("unused"))
        for phase, done in zip(recipe.phases, dry_run(job), strict=True):
            work = operations(recipe, phase)
            rate = work / done.step / convolution_rate()
            print(
                f"| {name}, {phase.name} | {done.trained:,} | {phase.steps:,} | {done.step:.2f} "
                f"| {work / 1e12:.2f} | {rate:.2f} | {phase.steps * done.step / 3600:,.1f} "
                f"| {phase.steps * work / SUSTAINED / 3600:,.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
