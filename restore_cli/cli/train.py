"""`restore train`."""

from __future__ import annotations

import math
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli import _terminal
from restore_cli.cli._messages import handle_errors
from restore_cli.cli._signals import exit_status_for
from restore_cli.cli._terminal import Bar
from restore_cli.cli.recipes import Command, show_recipes
from restore_cli.errors import Interrupted, NoInputError, UsageError, lookup, require
from restore_cli.files import check_writable
from restore_cli.formatting import format_clock, format_duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import TaskID

    from restore_cli.training.job import TrainJob
    from restore_cli.training.progress import Progress
    from restore_cli.training.validation import ValidationScore

RESUME = ("no", "auto", "must")
_safety, _compute = opt.panel("Resuming and duration"), opt.panel(opt.COMPUTE)
_print = opt.panel(opt.REPORT)
EPILOG = """
Examples:
  restore train mprnet-mscam-lite --data photos/ -o runs/mine
  restore train mprnet-mscam-lite --data photos/ -o runs/mine --resume auto
  restore train finetune --data photos/ -w gfn-lite.shake -o runs/tuned
  restore train gfn --data GOPRO_Large/ -o runs/gfn --dry-run
  torchrun --nproc-per-node 8 -m restore_cli train gfn --data GOPRO/ -o runs/g
  restore train maxim-mscam --data photos/ --pool pool/ -o runs/large

--data is a folder of sharp photos, which are blurred and shrunk on the fly,
or of pairs: lr/ and hr/, input/ and target/, blur/ and sharp/, or REDS or
GoPro, as unpacked. Recipes with a mixture use both.
"""


@handle_errors
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A shipped recipe's name, or a .toml file.")
    ] = None,
    data: Annotated[
        list[str] | None,
        opt.option(
            "--data",
            help="Folder of sharp photos or of pairs; may be given several times.",
            metavar="DIR",
        ),
    ] = None,
    output: Annotated[
        str | None, opt.option("--output", "-o", help="Folder of the run.", metavar="DIR")
    ] = None,
    validation: Annotated[
        list[str] | None,
        opt.option(
            help="Folder of other photos or pairs, scored at intervals; may be repeated.",
            metavar="DIR",
        ),
    ] = None,
    pool: Annotated[
        str | None,
        opt.option(
            help="Folder for degraded pictures, which are made once, before training, and reused.",
            metavar="DIR",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        opt.option(
            "--weights",
            "-w",
            help="Start from these weights (fine-tuning): a name, a file, or the folder of a run.",
            metavar="WEIGHTS",
        ),
    ] = None,
    resume: Annotated[
        str,
        _safety(
            help="auto: resume the run in --output, or start it; must: only resume an existing "
            "run; no: refuse if one exists.",
            metavar="no|auto|must",
        ),
    ] = "no",
    minutes: Annotated[
        float | None, _safety(help="Stop after N minutes; --resume auto continues the run.", min=0)
    ] = None,
    dry_run: Annotated[
        bool,
        _safety(
            "--dry-run",
            "-n",
            help="Run one step of every phase; print time and memory of the run, or how far "
            "--minutes reach.",
        ),
    ] = False,
    precision: Annotated[
        str,
        _compute(
            help="auto (bf16 on GPUs that support it and CPUs that compute it faster), fp32, bf16 "
            "or fp16.",
            metavar="TYPE",
        ),
    ] = "auto",
    accumulate: Annotated[
        int, _compute(help="Compute a batch in N parts, to save memory.", min=1)
    ] = 1,
    compiled: Annotated[
        bool, _compute("--compile", help="Compile the network with torch.compile.")
    ] = False,
    device: opt.DeviceOpt = "auto",
    tensorboard: Annotated[
        bool, _print("--tensorboard", help="Also write TensorBoard event files.")
    ] = False,
    json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Train a network on your own pictures by a recipe (see `restore recipes`).

    The folder of the run contains weights.safetensors (the result, for
    `restore image --weights`), best.safetensors, state.pt (for --resume),
    metrics.jsonl (one line per step), curves.png and validation.png.
    """
    # Spinning OpenMP threads make a step 3 to 7 times slower if another process is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if recipe is None:
        wanted = (data, output, validation, pool, weights, minutes, dry_run, tensorboard, compiled)
        if any(wanted) or resume != "no":
            raise UsageError("RECIPE is missing", hint="`restore recipes list train` lists them")
        show_recipes([Command.TRAIN], json=json)
        return
    if not data or output is None:
        raise UsageError("--data and --output are needed", hint="restore train --help")
    run = opt.parse_path(output)
    folders, validation_folders = (
        list(map(opt.parse_path, given or ())) for given in (data, validation)
    )
    _check_folders(folders, validation_folders, run)
    pool_folder = opt.parse_path(pool) if pool else None
    if pool_folder is not None:
        opt.check_not_a_file(pool_folder, "--pool")
        check_writable(pool_folder, "--pool")
    lookup("--resume value", resume, dict.fromkeys(RESUME))
    require("train", "accelerate", "matplotlib")
    if tensorboard:
        require("tensorboard", "tensorboard")
    from restore_cli.inference.devices import get_device, get_training_precision
    from restore_cli.inference.loading import load_network
    from restore_cli.inference.memory import keep_freed_memory
    from restore_cli.training.job import TrainJob
    from restore_cli.training.recipe import load_recipe
    from restore_cli.training.trainer import Execution, for_weights
    from restore_cli.weights.store import locate

    keep_freed_memory()
    target = get_device(device)
    loaded = load_recipe(recipe)
    begin = load_network(locate(weights, None)) if weights else None
    job = TrainJob(
        recipe=for_weights(loaded, begin) if begin else loaded,
        data=folders,
        run=run,
        recipe_name=Path(recipe).stem,
        pool=pool_folder,
        validation=validation_folders,
        weights=begin,
        resume=resume,
        minutes=minutes,
        device=str(target),
        execution=Execution(get_training_precision(precision, target), accumulate, compiled),
        tensorboard=tensorboard,
    )
    if dry_run:
        _dry_run(job, json=json)
    else:
        _train(job, json=json)


def _check_folders(data: list[Path], validation: list[Path], output: Path) -> None:
    given = [(folder, "--data") for folder in data]
    given += [(folder, "--validation") for folder in validation]
    for folder, option in given:
        if not folder.exists():
            raise NoInputError(f"no such folder: {option} '{folder}'")
        opt.check_not_a_file(folder, option)
        inner, outer = (Path(os.path.realpath(path)) for path in (output, folder))
        if inner.is_relative_to(outer):
            raise UsageError(
                f"--output '{output}' is inside {option} '{folder}', whose pictures would then "
                "include those of the run",
                hint="choose another --output",
            )
    opt.check_not_a_file(output)
    check_writable(output)


def _train(job: TrainJob, *, json: bool) -> None:
    from restore_cli.inference.devices import name_of
    from restore_cli.training.launch_env import is_main_process
    from restore_cli.training.loop import train as run_training

    first = is_main_process()
    _terminal.quiet |= not first
    precision = name_of(job.execution.precision)
    out.note(f"on {job.device}, convolutions in {precision} (--precision overrules)")
    with Bar("steps") as bar:
        display = _Display(job, bar, json=json)
        note = display.note if first else lambda message: None
        try:
            run_training(job, display.report, note, display.filled)
            stop = None
        except Interrupted as raised:
            stop = raised
    display.say_end()  # after the bar was removed
    if stop:
        if first:
            saved = [f"'{path}'" for path in (job.state, job.result) if path.exists()]
            out.echo_err(f"interrupted; saved: {', '.join(saved) or 'nothing yet'}")
        raise typer.Exit(exit_status_for(stop))
    if first:
        out.echo_json({"weights": str(job.result)}) if json else out.echo(str(job.result))


class _Display:
    """Progress of a run: the bar, messages above it, and the final message."""

    def __init__(self, job: TrainJob, bar: Bar, *, json: bool) -> None:
        self.job, self.bar, self.json = job, bar, json
        self.task = bar.add_task("training", total=job.recipe.steps, visible=job.pool is None)
        self.filling: TaskID | None = None
        self.loss = 0.0  # smoothed
        self.begun: Progress | None = None
        self.last: Progress | None = None
        self.shown = ""  # the last score

    def report(self, progress: Progress) -> None:
        self.loss = 0.95 * self.loss + 0.05 * progress.loss if self.loss else progress.loss
        self.begun, self.last = self.begun or progress, progress
        pace = f"{progress.steps_per_second:.2f} steps/s"
        pace += f", {progress.patches_per_hour / 1000:.1f}k patches/h"
        if progress.seconds_left is not None:
            pace += f", stops in {format_clock(max(0.0, progress.seconds_left))}"
        self.bar.update(
            self.task,
            completed=progress.step,
            total=progress.steps,
            description=f"{progress.phase}: loss {self.loss:.4f}, {pace}",
            visible=True,
        )
        if progress.score is None:
            return
        score = _score(progress.score, progress.baseline)
        self.shown = f"{score} at step {progress.step:,}"
        if self.json:
            out.echo_json({"step": progress.step, **progress.score.facts()})
        out.note(f"step {progress.step:,}: {score}")

    def note(self, message: str) -> None:
        tell = out.echo_err if message.startswith("warning") else out.note
        tell(message)

    def filled(self, done: int, total: int) -> None:
        if self.filling is None:
            self.filling = self.bar.add_task("filling the pool", total=total)
        self.bar.update(self.filling, completed=done, visible=done < total)

    def say_end(self) -> None:
        """Print where the run stopped, its gain, and the command that continues it."""
        begun, last = self.begun, self.last
        if begun is None or last is None:
            return
        gained = self.shown or (
            f"loss {begun.loss:.4f} at step {begun.step:,} and {self.loss:.4f} now; "
            "--validation FOLDER measures dB"
        )
        where = "done" if last.step == last.steps else f"stopped in phase '{last.phase}'"
        out.note(f"{where} at step {last.step:,} of {last.steps:,}: {gained}")
        if last.step < last.steps:
            rest = format_duration((last.steps - last.step) / last.steps_per_second)
            out.note(f"the rest takes about {rest}; continue with:\n  {_resuming(sys.argv[1:])}")


def _resuming(typed: Sequence[str]) -> str:
    """Return the command that was typed, with --resume auto.

    >>> _resuming(["train", "gfn", "--resume", "no", "--data", "my photos"])
    "restore train gfn --data 'my photos' --resume auto"
    """
    given, kept = iter(typed), []
    for word in given:
        if word == "--resume":
            next(given, None)
        elif not word.startswith("--resume="):
            kept.append(word)
    options = kept.index("--") if "--" in kept else len(kept)
    words = [*kept[:options], "--resume", "auto", *kept[options:]]
    several = "WORLD_SIZE" in os.environ
    return ("torchrun ... -m restore_cli " if several else "restore ") + shlex.join(words)


def _score(score: ValidationScore, baseline: str) -> str:
    total = f"{score.psnr:.2f} dB, {score.gain:+.2f} over {baseline}"
    each = ", ".join(f"{name} {gain:+.2f}" for name, gain in score.gains.items())
    return f"{total} ({each})" if each else total


def _dry_run(job: TrainJob, *, json: bool) -> None:
    from restore_cli.training.dry_run import dry_run, steps_within

    every = job.recipe.validate_every
    done = []
    for phase in dry_run(job):
        done.append(phase)
        out.note(f"phase '{phase.phase}': data, step, validation, save and resume work")
    if json:
        for phase in done:
            hours = phase.seconds(every) / 3600
            out.echo_json(
                {
                    "phase": phase.phase,
                    "trained": phase.trained,
                    "steps": phase.steps,
                    "seconds_per_step": round(phase.step, 4),
                    "data_seconds_per_step": round(phase.data, 4),
                    "hours": round(hours, 3),
                    "memory": phase.memory,
                }
            )
        if job.minutes:
            reached = steps_within(60 * job.minutes, done, every)
            out.echo_json({"minutes": job.minutes, "steps_reached": reached})
        return
    total = sum(phase.seconds(every) for phase in done)
    rows = [
        (
            phase.phase,
            f"{phase.trained:,}",
            f"{phase.steps:,}",
            f"{phase.step:.2f}",
            f"{phase.data / phase.step:.0%}",
            format_duration(phase.seconds(every)),
            f"{phase.memory / 2**30:.1f}",
        )
        for phase in done
    ]
    columns = ("phase", "trained", "steps", "s/step", "for data", "time", "GiB")
    out.table(columns, rows)
    out.note(f"{format_duration(total)} in total; nothing was written")
    if job.minutes:
        reached = steps_within(60 * job.minutes, done, every)
        runs = math.ceil(total / 60 / job.minutes)
        out.note(
            f"{job.minutes:g} min reach about step {reached:,} of {job.recipe.steps:,}; "
            f"all steps take about {runs:,} runs of that length"
        )
