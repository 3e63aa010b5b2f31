"""`restore train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported

if TYPE_CHECKING:
    from restore_cli.training.loop import Progress

EPILOG = """
Examples:

  restore train mprnet-mscam-lite --data photos/ -o runs/mine

  restore train mprnet-mscam-lite --data photos/ -o runs/mine --resume

  restore train mprnet-mscam-lite-3 --data photos/ -w mprnet-mscam-lite.shake -o runs/tuned
"""


@reported
def train(
    recipe: Annotated[str, typer.Argument(help="A shipped recipe's name, or a .toml file.")],
    data: Annotated[Path, opt.option("--data", help="Folder of sharp photos.")],
    output: Annotated[Path, opt.option("--output", "-o", help="Folder of the run.")],
    validation: Annotated[
        Path | None, opt.option(help="Folder of other sharp photos, scored now and then.")
    ] = None,
    weights: Annotated[
        str | None,
        opt.option("--weights", "-w", help="Begin with these instead of fresh ones: fine-tune."),
    ] = None,
    resume: Annotated[bool, opt.option("--resume", help="Go on with the run in --output.")] = False,
    minutes: Annotated[
        float | None, opt.option(help="Stop after so long; --resume goes on.", min=0)
    ] = None,
    device: opt.DeviceOpt = "auto",
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Train a network on sharp photos that are blurred and shrunk on the fly.

    The run's folder gets state.pt for --resume, metrics.jsonl with a line a step,
    and weights.safetensors, which `restore image --weights` takes.
    """
    # Spinning OpenMP threads slow a step 3 to 7 times when anything else runs beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from restore_cli.training.loop import train as run_training
    from restore_cli.training.recipe import load_recipe

    loaded = load_recipe(recipe)
    with out.progress_bar(quiet=quiet, unit="steps") as bar:
        task = bar.add_task(loaded.model, total=loaded.steps)

        def report(progress: Progress) -> None:
            bar.update(
                task,
                completed=progress.step,
                description=f"{loaded.model} loss {progress.loss:.4f}",
            )
            if progress.psnr is not None and not quiet:
                out.talk(
                    f"step {progress.step}: {progress.psnr:.2f} dB, "
                    f"{progress.gain:+.2f} over bicubic"
                )

        try:
            run_training(
                loaded,
                data,
                output,
                device=opt.parse_device(device),
                validation=validation,
                weights=weights,
                resume=resume,
                minutes=minutes,
                report=report,
            )
        except KeyboardInterrupt:
            _export(output)  # the weights belong to the state that was saved
            raise
    _export(output)
    out.data(str(output / "weights.safetensors"))


def _export(run: Path) -> None:
    from restore_cli.training.export import export_checkpoint

    export_checkpoint(run / "state.pt", run / "weights.safetensors")
