"""The training loop: one for every model and recipe, to be read from top to bottom."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore_cli.errors import DeviceError, PictureError, RestoreError, UsageError
from restore_cli.inference.loading import LoadedNetwork
from restore_cli.training.data import Batch, Source
from restore_cli.training.distributed import ProcessGroup, open_group
from restore_cli.training.interrupt import deferred_interrupt
from restore_cli.training.loader import Loader
from restore_cli.training.mixture import open_source
from restore_cli.training.package import export_checkpoint, write_average
from restore_cli.training.parts import digest
from restore_cli.training.pool import FrozenModule, Pool
from restore_cli.training.progress import (
    MetricsLog,
    Pace,
    Progress,
    TensorBoard,
    ValidationSheet,
    plot_curves,
)
from restore_cli.training.recipe import TrainingRecipe, learning_rate
from restore_cli.training.refill import BackgroundFiller
from restore_cli.training.state import SaveError
from restore_cli.training.trainer import Execution, Trainer
from restore_cli.training.validation import ValidationSet

AHEAD = 4  # batches that are read while a GPU computes


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What to train, on what, and where to put it.

    Attributes:
        recipe: what decides the weights.
        data: folders of sharp photos, or of pairs, or of both if the recipe mixes them.
        run: folder for everything that is written.
        recipe_name: for the record.
        pool: folder of the pool that is filled first and cut ever after; None for degrading anew.
        validation: folder of other photos or pairs, or None.
        weights: loaded network to begin with; None for a fresh one.
        resume: `no` refuses a run that exists, `must` one that does not, `auto` takes either.
        minutes: stop after so much wall time, filling a pool not counted; the rest is for another
            `resume`.
        device: cpu, cuda or mps; in a group, the kind of device.
        execution: precision, accumulation, compilation.
        tensorboard: the class that writes event files, or None.
    """

    recipe: TrainingRecipe
    data: Sequence[Path]
    run: Path
    recipe_name: str = ""
    pool: Path | None = None
    validation: Path | None = None
    weights: LoadedNetwork | None = None
    resume: str = "no"
    minutes: float | None = None
    device: str = "cpu"
    execution: Execution = field(default_factory=Execution)
    tensorboard: Any = None

    @property
    def state(self) -> Path:
        """The file with everything needed to resume."""
        return self.run / "state.pt"

    @property
    def best(self) -> Path:
        """The file of averaged float32 weights of the best validation of the current phase."""
        return self.run / "best.safetensors"

    @property
    def result(self) -> Path:
        """The file of float16 weights for `restore image`."""
        return self.run / "weights.safetensors"


def train(
    job: TrainJob,
    report: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda message: None,
    filled: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Train, or resume training, and return the file of weights.

    The state is saved every `recipe.save_every` steps, every `recipe.save_minutes` and at the end,
    also after Ctrl-C. With the same data, recipe and machine, a run that was stopped or killed and
    resumed ends as an undisturbed one: items of the data are functions of (seed, number), and
    nothing else is random.

    Args:
        job: what to train.
        report: called after each step, in the first process of a group.
        note: called with lines for people, likewise: warnings, and where a run goes on.
        filled: called with the items made of a pool, and all, likewise.

    Raises:
        UsageError: the run exists and `resume` is "no", it does not and it is "must", or it was
            made with another recipe.
        PictureError: a picture cannot be read; the steps before it are saved.
        SaveError: the disk was still full at the end; the last state that fitted is whole.
        RestoreError: the loss is not finite; the state of the last good save is kept.
        Interrupted: a KeyboardInterrupt, after Ctrl-C, when the step in progress is done and saved.
    """
    recipe = job.recipe
    with ExitStack() as stack:
        group = open_group(torch.device(job.device))
        stack.callback(group.close)
        trainer = Trainer(recipe, group, job.execution, pooled=job.pool is not None)
        loader = open_loader(job, trainer)
        stack.callback(loader.close)
        _begin(job, trainer, note)
        trainer.facts |= {"recipe_name": job.recipe_name} | _facts(group, loader.source.facts)
        if job.pool is not None:
            loader.source = fill_pool(job.pool, trainer, loader.source, filled)
        monitor = _Monitor(job, trainer, report, note) if group.rank == 0 else None
        saver = _Saver(job, trainer, note, loader.source)
        stack.callback(saver.close)
        deadline = time.monotonic() + 60 * (math.inf if job.minutes is None else job.minutes)
        interrupt = stack.enter_context(deferred_interrupt())

        stopped = False
        while not stopped:
            phase = trainer.phase
            while trainer.phase_step < phase.steps and not stopped:
                begun, waited = time.monotonic(), loader.waited
                _expect(loader, trainer)
                patch, count = phase.sizes(trainer.phase_step)
                broken: PictureError | None = None
                try:
                    batches = loader.batches(trainer.seen, count, patch, trainer.wanted)
                except PictureError as error:
                    broken = error
                if _any(group, broken is not None):
                    saver.save()
                    raise broken or PictureError("another process could not read a picture")
                terms = _train_step(trainer, batches)
                saver.refill()
                left = deadline - time.monotonic()
                if monitor is not None:
                    spent = time.monotonic() - begun
                    monitor.after_step(terms, spent, loader.waited - waited, left)
                saver.after_step()
                stopped = _any(group, left < 0 or interrupt.requested)
            if stopped or trainer.phase_index + 1 == len(recipe.phases):
                break
            group.wait()
            trainer.advance(job.best)
            # Before this phase writes its first best weights over those of the last one, from
            # which a run that is killed now would have to begin it again.
            saver.save()
        saver.save()
        if monitor is not None:
            monitor.close()
            export_checkpoint(job.run, job.result)
        group.wait()
    return job.result


def open_loader(job: TrainJob, trainer: Trainer) -> Loader:
    """Batches of a job's data, for one process of its group.

    Raises:
        NoInputError: no pictures.
        UsageError: data that does not fit the recipe, or a batch that cannot be divided.
    """
    recipe, group = trainer.recipe, trainer.group
    largest = recipe.pool_side if job.pool is not None else max(recipe.patches)
    loader = Loader(
        open_source(job.data, recipe, trainer.model.scale, largest),
        recipe.seed,
        group.device,
        rank=group.rank,
        processes=group.size,
        accumulate=job.execution.accumulate,
    )
    loader.refuse_indivisible(recipe)
    return loader


def _train_step(trainer: Trainer, batches: list[Batch]) -> dict[str, float]:
    try:
        return trainer.train_step(batches)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"out of memory on {trainer.group.device} at step {trainer.step}",
            hint="compute a batch in parts: --accumulate 2, and --resume auto",
        ) from error


def _begin(job: TrainJob, trainer: Trainer, note: Callable[[str], None]) -> None:
    """Start fresh, start from weights, or resume."""
    exists = trainer.group.from_first(job.state.exists())
    if exists and job.resume == "no":
        raise UsageError(
            f"'{job.state}' exists", hint="add --resume auto, or choose another --output"
        )
    if not exists and job.resume == "must":
        raise UsageError(f"nothing to resume: no '{job.state}'", hint="use --resume auto to begin")
    if exists:
        _resume(job, trainer, note)
    elif job.weights is not None:
        trainer.start_from(job.weights)
    if not exists and job.pool is not None:
        trainer.facts["pool"] = {}
    if trainer.group.rank == 0:
        job.run.mkdir(parents=True, exist_ok=True)
        for leftover in job.run.glob(".*.part"):  # of a process that was killed while writing
            leftover.unlink()
        if not exists:
            trainer.save(job.state)  # a full disk is found now, not after the first hundred steps


def _resume(job: TrainJob, trainer: Trainer, note: Callable[[str], None]) -> None:
    trainer.restore(job.state)
    if trainer.group.rank == 0:
        note(
            f"'{job.run}' goes on from step {trainer.step:,} of {job.recipe.steps:,} "
            f"(phase '{trainer.phase.name}', {trainer.seconds / 60:.1f} min of training so far)"
        )
    if ("pool" in trainer.facts) != (job.pool is not None):
        raise UsageError(
            f"'{job.run}' was trained {'from a' if job.pool is None else 'without a'} pool",
            hint="add --pool DIR" if job.pool is None else "leave out --pool",
        )


def fill_pool(
    folder: Path, trainer: Trainer, source: Source, filled: Callable[[int, int], None]
) -> Pool:
    """Open the pool of a run, and make the items it lacks.

    Args:
        folder: of the pool.
        trainer: with the weights that it stands at.
        source: that items are made of.
        filled: called with items made and in all, in the first process of a group.

    Raises:
        UsageError: it was made from something else, or lacks items that can no longer be made.
        RestoreError: a picture that cannot be read, or a full disk.
    """
    model, group, recipe = trainer.model, trainer.group, trainer.recipe
    part, frozen = model.frozen_part, None
    if part is not None and trainer.frozen_in(0):
        module = trainer.network.get_submodule(part.name)
        first = trainer.facts.setdefault("frozen_part", digest(module))
        frozen = FrozenModule(model, trainer.network, first)
    if frozen is not None and recipe.pool.reuse is not None:
        raise UsageError(
            f"a pool with outputs of '{frozen.model.name}' cannot be refilled",
            hint="leave pool.reuse out of the recipe, or train all of the network",
        )
    pool = Pool(folder, source, recipe, group.device, frozen)
    if frozen is not None and part is not None and not trainer.frozen and pool.missing():
        raise UsageError(
            f"the pool '{folder}' lacks {pool.missing()} items, and '{part.name}' has been trained "
            "since they could be made",
            hint="give the --pool folder that the run began with",
        )
    pool.fill(group, filled if group.rank == 0 else lambda done, total: None, trainer.seen)
    trainer.facts["pool"] = {"items": len(pool), "bytes": pool.bytes_on_disk()}
    return pool


def _expect(loader: Loader, trainer: Trainer) -> None:
    """Start reading the next batches of the phase."""
    phase, first = trainer.phase, trainer.seen
    for step in range(trainer.phase_step, min(trainer.phase_step + AHEAD, phase.steps)):
        patch, count = phase.sizes(step)
        loader.expect(first, count, patch)
        first += count


class _Saver:
    """Saves the state every so many steps and minutes; keeps a refilled pool in step with it."""

    def __init__(
        self, job: TrainJob, trainer: Trainer, note: Callable[[str], None], source: Source
    ) -> None:
        self.job, self.trainer, self.note = job, trainer, note
        self._last = time.monotonic()
        self._pool = source if isinstance(source, Pool) and source.refilled else None
        self._filler: BackgroundFiller | None = None
        self._kept = 0  # patches seen by the state on disk, which needs the items from there on
        # Items made on a GPU are rounded otherwise; there they are made when they are needed.
        if self._pool and trainer.group.rank == 0 and trainer.group.device.type == "cpu":
            self._filler = BackgroundFiller(self._pool, trainer.seen)

    def close(self) -> None:
        """Stop what refills the pool, and delete what it was late with."""
        if self._filler and self._pool:
            self._filler.close()
            self._pool.drop(self._kept)

    def save(self) -> None:
        """Write the state; items of the pool that it does not need go."""
        self.trainer.save(self.job.state)
        if self._pool and self.trainer.group.rank == 0:
            self._kept = self.trainer.seen
            self._pool.drop(self._kept)

    def refill(self) -> None:
        """Count the items replaced in the pool, and request the next ones."""
        if self._pool:
            replaced = sum(self._pool.first_numbers(self.trainer.seen))
            self.trainer.facts["pool"]["replaced"] = replaced
        if self._filler:
            self._filler.ask(self.trainer.seen)

    def after_step(self) -> None:
        """Save if it is due; if the disk is full, warn and try again at the next save."""
        recipe = self.job.recipe
        late = time.monotonic() - self._last >= 60 * recipe.save_minutes
        if not late and self.trainer.step % recipe.save_every:
            return
        try:
            self.save()
        except SaveError as error:
            self.note(f"warning: {error}; going on, the next try is in {recipe.save_every} steps")
        self._last = time.monotonic()


def _any(group: ProcessGroup, flag: bool) -> bool:
    """Whether any process wants to stop; all must stop at the same step."""
    if group.size == 1:
        return flag
    requested: Tensor = torch.tensor([float(flag)], device=group.device)
    return bool(group.mean(requested)[0] > 0)


def _facts(group: ProcessGroup, data: dict[str, Any]) -> dict[str, Any]:
    cuda = group.device.type == "cuda"
    name = torch.cuda.get_device_name(group.device) if cuda else platform.processor()
    return {
        "data": data,
        "hardware": {
            "device": name or platform.machine(),
            "processes": group.size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__.split("+")[0],
        },
    }


class _Monitor:
    """What the first process does beside training: validate, log, plot, report."""

    def __init__(
        self,
        job: TrainJob,
        trainer: Trainer,
        report: Callable[[Progress], None],
        note: Callable[[str], None],
    ) -> None:
        self.job, self.trainer, self.report, self.note = job, trainer, report, note
        model, device = trainer.model, trainer.group.device
        self.held_out: ValidationSet | None = None
        self.sheet: ValidationSheet | None = None
        if job.validation is not None:
            multiple = model.size.multiple_of
            self.held_out = ValidationSet(job.validation, model.scale, multiple, device, job.recipe)
            self.sheet = ValidationSheet(
                job.run / "validation", self.held_out, job.run / "validation.png"
            )
        self.pace = Pace(trainer.seen)
        try:
            self.log = MetricsLog(job.run / "metrics.jsonl", trainer.step)
        except OSError as error:
            raise SaveError(f"cannot write to '{job.run}': {error}", hint="make room") from error
        self.board = (
            TensorBoard(job.run / "tensorboard", job.tensorboard, trainer.step)
            if job.tensorboard
            else None
        )

    def after_step(
        self, terms: dict[str, float], seconds: float, waited: float, left: float
    ) -> None:
        """Validate where it is due, keep the best weights, log and report.

        A score out of turn, when time is up (`left` < 0 seconds), is recorded but does not count:
        where a run is stopped must not decide which weights the next phase begins with.
        """
        trainer = self.trainer
        phase, score = trainer.phase, None
        enlarged = trainer.model.scale > 1 and phase.losses[0].target == "reference"
        due = trainer.step % trainer.recipe.validate_every == 0
        due = due or trainer.phase_step == phase.steps
        if self.held_out and (due or left < 0):
            network, frozen = trainer.ema.module, trainer.frozen
            score = self.held_out.score(network, phase.losses[0], frozen=frozen)
            trainer.facts["last_score"] = {
                "step": trainer.step,
                "psnr": score.psnr,
                "gain": score.gain,
            }
            if due and (trainer.best is None or score.psnr > trainer.best["psnr"]):
                self._keep_best(score.psnr, score.gain)
        steps_per_second, patches_per_hour = self.pace.after_step(trainer.seen)
        pool = trainer.facts.get("pool", {})
        made = pool.get("items", 0) + pool.get("replaced", 0)
        progress = Progress(
            step=trainer.step,
            steps=trainer.recipe.steps,
            phase=phase.name,
            loss=sum(terms.values()),
            terms=terms,
            learning_rate=learning_rate(phase, trainer.phase_step - 1),
            seconds=seconds,
            waited=waited,
            steps_per_second=steps_per_second,
            patches_per_hour=patches_per_hour,
            pool=pool.get("items"),
            reuse=trainer.seen / made if made else None,
            psnr=score.psnr if score else None,
            gain=score.gain if score else None,
            seconds_left=left if math.isfinite(left) else None,
            baseline="bicubic" if enlarged else "the input",
        )
        try:
            self.log.add(progress)
            if self.board:
                self.board.add(progress)
            if score and self.sheet:
                self.sheet.add(trainer.step, score.gain, score.restored)
                plot_curves(self.log.rows, self.job.run / "curves.png")
        except OSError as error:
            self.note(f"warning: cannot write to '{self.job.run}': {error}; going on")
        self.report(progress)

    def close(self) -> None:
        """Draw the curves a last time."""
        try:
            if self.log.rows:
                plot_curves(self.log.rows, self.job.run / "curves.png")
            if self.board:
                self.board.close()
        except OSError as error:
            self.note(f"warning: cannot write to '{self.job.run}': {error}")

    def _keep_best(self, psnr: float, gain: float) -> None:
        trainer = self.trainer
        try:
            write_average(trainer.state(), self.job.best)
        except RestoreError as error:
            self.note(f"warning: {error}; going on")
            return
        trainer.best = {
            "phase": trainer.phase.name,
            "step": trainer.step,
            "psnr": psnr,
            "gain": gain,
        }
