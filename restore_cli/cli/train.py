"""`restore train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported
from restore_cli.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from rich.progress import TaskID

    from restore_cli.training.loop import TrainJob
    from restore_cli.training.watch import Progress

RESUME = ("no", "auto", "must")
SAFETY = "Never lose work"
EPILOG = """
Examples:

  restore train mprnet-mscam-lite --data photos/ -o runs/mine

  restore train mprnet-mscam-lite --data photos/ -o runs/mine --resume auto

  restore train finetune --data photos/ -w gfn-lite.shake -o runs/tuned

  restore train gfn --data GOPRO_Large/ -o runs/gfn --dry-run

  torchrun --nproc-per-node 8 -m restore_cli train gfn --data GOPRO_Large/ -o runs/gfn

  restore train maxim-mscam --data photos/ --pool pool/ -o runs/large

--data is a folder of sharp photos, which are blurred and shrunk on the fly, or of pairs: lr/ and
hr/ (or input/ and target/), or REDS or GoPro as they unpack. Recipes with a mixture take both.
"""


@reported
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A shipped recipe's name, or a .toml file.")
    ] = None,
    data: Annotated[
        list[Path] | None,
        opt.option("--data", help="Folder of sharp photos, or of pairs; may be given again."),
    ] = None,
    output: Annotated[Path | None, opt.option("--output", "-o", help="Folder of the run.")] = None,
    validation: Annotated[
        Path | None, opt.option(help="Folder of other photos or pairs, scored now and then.")
    ] = None,
    pool: Annotated[
        Path | None,
        opt.option(
            help="Folder for degraded pictures, made once and cut ever after; filled first.",
            metavar="DIR",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        opt.option("--weights", "-w", help="Begin with these instead of fresh ones: fine-tune."),
    ] = None,
    resume: Annotated[
        str,
        opt.option(
            help="auto goes on with the run in --output, or begins it; must never begins; "
            "no never goes on.",
            metavar="no|auto|must",
            rich_help_panel=SAFETY,
        ),
    ] = "no",
    minutes: Annotated[
        float | None,
        opt.option(
            help="Stop after so long; --resume auto goes on.", min=0, rich_help_panel=SAFETY
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        opt.option(
            "--dry-run",
            "-n",
            help="One step of every part; time and memory of the whole.",
            rich_help_panel=SAFETY,
        ),
    ] = False,
    precision: Annotated[
        str,
        opt.option(
            help="auto, fp32, bf16 or fp16; auto is bf16 on GPUs that have it.",
            metavar="TYPE",
            rich_help_panel=opt.COMPUTE,
        ),
    ] = "auto",
    accumulate: Annotated[
        int,
        opt.option(
            help="Compute a batch in so many parts: less memory.",
            min=1,
            rich_help_panel=opt.COMPUTE,
        ),
    ] = 1,
    compiled: Annotated[
        bool,
        opt.option(
            "--compile", help="Fuse the network by torch.compile.", rich_help_panel=opt.COMPUTE
        ),
    ] = False,
    device: opt.DeviceOpt = "auto",
    tensorboard: Annotated[
        bool,
        opt.option("--tensorboard", help="Event files as well.", rich_help_panel=opt.REPORT),
    ] = False,
    as_json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Train a network on your own pictures, or by a paper's recipe; without a recipe, list them.

    The run's folder gets state.pt for --resume, metrics.jsonl with a line a step, curves.png,
    validation.png with what it restores so far, best.safetensors, and weights.safetensors, which
    `restore image --weights` takes.
    """
    # Spinning OpenMP threads slow a step 3 to 7 times when anything else runs beside them.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if recipe is None:
        _list_recipes()
        return
    if not data or output is None:
        raise UsageError("--data and --output are needed", hint="restore train --help")
    if resume not in RESUME:
        raise unknown_name("--resume value", resume, RESUME)
    from restore_cli.inference.devices import get_device, get_training_precision
    from restore_cli.inference.memory import keep_freed_memory
    from restore_cli.training.learner import Execution, for_weights
    from restore_cli.training.loop import TrainJob
    from restore_cli.training.recipe import load_recipe

    keep_freed_memory()
    target = get_device(device)
    loaded = load_recipe(recipe)
    job = TrainJob(
        recipe=for_weights(loaded, weights) if weights else loaded,
        data=data,
        run=output,
        recipe_name=Path(recipe).stem,
        pool=pool,
        validation=validation,
        weights=weights,
        resume=resume,
        minutes=minutes,
        device=str(target),
        execution=Execution(get_training_precision(precision, target), accumulate, compiled),
        tensorboard=_tensorboard_writer() if tensorboard else None,
    )
    if dry_run:
        _rehearse(job, as_json=as_json)
    else:
        _train(job, as_json=as_json, quiet=quiet)


def _train(job: TrainJob, *, as_json: bool, quiet: bool) -> None:
    from restore_cli.training.loop import train as run_training

    first = os.environ.get("RANK", "0") == "0"
    quiet = quiet or not first
    with out.progress_bar(quiet=quiet, unit="steps") as bar:
        task = bar.add_task("training", total=job.recipe.steps, visible=job.pool is None)
        filling: TaskID | None = None
        shown = 0.0

        def report(progress: Progress) -> None:
            nonlocal shown
            shown = 0.95 * shown + 0.05 * progress.loss if shown else progress.loss
            pace = f"{progress.steps_per_second:.2f} steps/s"
            pace += f", {progress.patches_per_hour:,.0f} patches/h"
            bar.update(
                task,
                completed=progress.step,
                description=f"{progress.phase}: loss {shown:.4f}, {pace}",
                visible=True,
            )
            if progress.psnr is not None:
                if as_json:
                    out.data_json(
                        {"step": progress.step, "psnr": progress.psnr, "gain": progress.gain}
                    )
                if not quiet:
                    out.talk(
                        f"step {progress.step}: {progress.psnr:.2f} dB, "
                        f"{progress.gain:+.2f} over {progress.baseline}"
                    )

        def note(message: str) -> None:
            if first:
                out.talk(f"warning: {message}")

        def filled(done: int, total: int) -> None:
            nonlocal filling
            if filling is None:
                filling = bar.add_task("filling the pool", total=total)
            bar.update(filling, completed=done, visible=done < total)

        path = run_training(job, report, note, filled)
    if first:
        out.data_json({"weights": str(path)}) if as_json else out.data(str(path))


def _rehearse(job: TrainJob, *, as_json: bool) -> None:
    from restore_cli.training.rehearsal import rehearse

    every = job.recipe.validate_every
    done = []
    for phase in rehearse(job):
        done.append(phase)
        out.talk(f"phase '{phase.phase}': data, step, validation, save and resume work")
    if as_json:
        for phase in done:
            hours = phase.seconds(every) / 3600
            out.data_json(
                {
                    "phase": phase.phase,
                    "trained": phase.trained,
                    "steps": phase.steps,
                    "seconds_a_step": round(phase.step, 4),
                    "of_these_data": round(phase.data, 4),
                    "hours": round(hours, 3),
                    "memory": phase.memory,
                }
            )
        return
    total = sum(phase.seconds(every) for phase in done)
    rows = [
        (
            phase.phase,
            f"{phase.trained:,}",
            f"{phase.steps:,}",
            f"{phase.step:.2f}",
            f"{phase.data / phase.step:.0%}",
            _hours(phase.seconds(every)),
            f"{phase.memory / 2**30:.1f}",
        )
        for phase in done
    ]
    columns = ("phase", "trained", "steps", "s/step", "for data", "time", "GiB")
    out.table(columns, rows)
    out.talk(f"in all {_hours(total)}; nothing was written")


def _list_recipes() -> None:
    from restore_cli.training.recipe import ablations, load_recipe, shipped_recipes

    rows = []
    for name in (*shipped_recipes(), *ablations()):
        recipe = load_recipe(name)
        config = recipe.config or "of --weights"
        if isinstance(config, dict):
            config = ", ".join(f"{key} {value}" for key, value in config.items())
        phases = ", ".join(phase.name for phase in recipe.phases)
        rows.append((name, recipe.model or "any", config, f"{recipe.steps:,}", phases))
    out.table(("recipe", "model", "config", "steps", "phases"), rows)


def _tensorboard_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "--tensorboard needs a package that is not installed",
            hint="pip install 'restore-cli[tensorboard]'",
        ) from error
    return SummaryWriter


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
