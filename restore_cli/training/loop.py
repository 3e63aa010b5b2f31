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
from restore_cli.training.data import PREPARED, Batch, Source
from restore_cli.training.export import export_checkpoint, write_average
from restore_cli.training.interrupt import deferred_interrupt
from restore_cli.training.learner import Execution, Learner
from restore_cli.training.loader import Loader
from restore_cli.training.mixture import open_source
from restore_cli.training.parts import digest
from restore_cli.training.pool import FrozenModule, Pool
from restore_cli.training.recipe import TrainingRecipe, learning_rate
from restore_cli.training.state import SaveError
from restore_cli.training.team import Team, assemble
from restore_cli.training.validation import ValidationSet
from restore_cli.training.watch import (
    MetricsLog,
    Pace,
    Progress,
    Sheet,
    TensorBoard,
    plot_curves,
)

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
        weights: checkpoint to begin with, as `weights.store.locate` takes it; None for fresh ones.
        resume: `no` refuses a run that exists, `must` one that does not, `auto` takes either.
        minutes: stop after so much wall time, filling a pool not counted; the rest is for another
            `resume`.
        device: cpu, cuda or mps; in a team, the kind of device.
        execution: precision, accumulation, compilation.
        tensorboard: the class that writes event files, or None.
    """

    recipe: TrainingRecipe
    data: Sequence[Path]
    run: Path
    recipe_name: str = ""
    pool: Path | None = None
    validation: Path | None = None
    weights: str | None = None
    resume: str = "no"
    minutes: float | None = None
    device: str = "cpu"
    execution: Execution = field(default_factory=Execution)
    tensorboard: Any = None

    @property
    def state(self) -> Path:
        """Everything needed to go on."""
        return self.run / "state.pt"

    @property
    def best(self) -> Path:
        """Averaged float32 weights of the best validation of the phase in progress."""
        return self.run / "best.safetensors"

    @property
    def result(self) -> Path:
        """float16 weights for `restore image`."""
        return self.run / "weights.safetensors"


def train(
    job: TrainJob,
    report: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda message: None,
    filled: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Train, or go on training, and return the file of weights.

    The state is saved every `recipe.save_every` steps, every `recipe.save_minutes` and at the end,
    also after Ctrl-C. With the same data, recipe and machine, a run that was stopped or killed and
    resumed ends as an undisturbed one: items of the data are functions of (seed, number), and
    nothing else is random.

    Args:
        job: what to train.
        report: called after each step, in the first process of a team.
        note: called with what a person should know, likewise.
        filled: called with the items made of a pool, and all, likewise.

    Raises:
        UsageError: the run exists and `resume` is "no", it does not and it is "must", or it was
            made with another recipe.
        PictureError: a picture cannot be read; the steps before it are saved.
        SaveError: the disk was still full at the end; the last state that fitted is whole.
        RestoreError: the loss is not finite; the state of the last good save is kept.
        KeyboardInterrupt: after Ctrl-C, when the step in progress is done and saved.
    """
    recipe = job.recipe
    with ExitStack() as stack:
        team = assemble(torch.device(job.device))
        stack.callback(team.close)
        learner = Learner(recipe, team, job.execution, pooled=job.pool is not None)
        loader = open_loader(job, learner)
        stack.callback(loader.close)
        _begin(job, learner)
        learner.facts |= {"recipe_name": job.recipe_name} | _facts(team, loader.source.facts)
        if job.pool is not None:
            loader.source = fill_pool(job.pool, learner, loader.source, filled)
        watcher = _Watcher(job, learner, report, note) if team.rank == 0 else None
        saver = _Saver(job, learner, note)
        deadline = time.monotonic() + 60 * job.minutes if job.minutes is not None else math.inf
        interrupt = stack.enter_context(deferred_interrupt())

        stopped = False
        while not stopped:
            phase = learner.phase
            wanted: set[str] = {term.target for term in phase.losses}
            wanted |= {PREPARED} if learner.prepared else set()
            while learner.phase_step < phase.steps and not stopped:
                begun, waited = time.monotonic(), loader.waited
                _expect(loader, learner)
                patch, count = phase.sizes(learner.phase_step)
                broken: PictureError | None = None
                try:
                    batches = loader.batches(learner.seen, count, patch, wanted)
                except PictureError as error:
                    broken = error
                if _any(team, broken is not None):
                    learner.save(job.state)
                    raise broken or PictureError("another process could not read a picture")
                terms = _learn(learner, batches)
                late = time.monotonic() > deadline
                if watcher is not None:
                    spent = time.monotonic() - begun
                    watcher.after_step(terms, spent, loader.waited - waited, score_now=late)
                saver.after_step()
                stopped = _any(team, late or interrupt.requested)
            if stopped or learner.phase_index + 1 == len(recipe.phases):
                break
            team.wait()
            learner.advance(job.best)
            # Before this phase writes its first best weights over those of the last one, from
            # which a run that is killed now would have to begin it again.
            learner.save(job.state)
        learner.save(job.state)
        if watcher is not None:
            watcher.close()
            export_checkpoint(job.run, job.result)
        team.wait()
    return job.result


def open_loader(job: TrainJob, learner: Learner) -> Loader:
    """Batches of a job's data, for one process of its team.

    Raises:
        NoInputError: no pictures.
        UsageError: data that does not fit the recipe, or a batch that cannot be divided.
    """
    recipe, team = learner.recipe, learner.team
    largest = recipe.pool_side if job.pool is not None else max(recipe.patches)
    loader = Loader(
        open_source(job.data, recipe, learner.model.scale, largest),
        recipe.seed,
        team.device,
        rank=team.rank,
        processes=team.size,
        accumulate=job.execution.accumulate,
    )
    loader.refuse_indivisible(recipe)
    return loader


def _learn(learner: Learner, batches: list[Batch]) -> dict[str, float]:
    try:
        return learner.learn(batches)
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"out of memory on {learner.team.device} at step {learner.step}",
            hint="compute a batch in parts: --accumulate 2, and --resume auto",
        ) from error


def _begin(job: TrainJob, learner: Learner) -> None:
    """Fresh, from weights, or where the run stands."""
    exists = learner.team.from_first(job.state.exists())
    if exists and job.resume == "no":
        raise UsageError(
            f"'{job.state}' exists", hint="add --resume auto, or choose another --output"
        )
    if not exists and job.resume == "must":
        raise UsageError(f"nothing to resume: no '{job.state}'", hint="use --resume auto to begin")
    if exists:
        learner.restore(job.state)
        if ("pool" in learner.facts) != (job.pool is not None):
            raise UsageError(
                f"'{job.run}' was trained {'from a' if job.pool is None else 'without a'} pool",
                hint="add --pool DIR" if job.pool is None else "leave out --pool",
            )
    elif job.weights is not None:
        learner.start_from(job.weights)
    if not exists and job.pool is not None:
        learner.facts["pool"] = {}
    if learner.team.rank == 0:
        job.run.mkdir(parents=True, exist_ok=True)
        for leftover in job.run.glob(".*.part"):  # of a process that was killed while writing
            leftover.unlink()
        if not exists:
            learner.save(job.state)  # a full disk is found now, not after the first hundred steps


def fill_pool(
    folder: Path, learner: Learner, source: Source, filled: Callable[[int, int], None]
) -> Pool:
    """The pool of a run, made whole.

    Args:
        folder: of the pool.
        learner: with the weights that it stands at.
        source: that items are made of.
        filled: called with items made and in all, in the first process of a team.

    Raises:
        UsageError: it was made from something else, or lacks items that can no longer be made.
        RestoreError: a picture that cannot be read, or a full disk.
    """
    model, team, recipe = learner.model, learner.team, learner.recipe
    part, frozen = model.frozen_part, None
    if part is not None and learner.frozen_in(0):
        module = learner.network.get_submodule(part.name)
        first = learner.facts.setdefault("frozen_part", digest(module))
        frozen = FrozenModule(model, learner.network, first)
    pool = Pool(folder, source, recipe, team.device, frozen)
    if frozen is not None and part is not None and not learner.frozen and pool.missing():
        raise UsageError(
            f"the pool '{folder}' lacks {pool.missing()} items, and '{part.name}' has been trained "
            "since they could be made",
            hint="give the --pool folder that the run began with",
        )
    pool.fill(team, filled if team.rank == 0 else lambda done, total: None)
    learner.facts["pool"] = {"items": len(pool), "bytes": pool.bytes_on_disk()}
    return pool


def _expect(loader: Loader, learner: Learner) -> None:
    """Have the next batches of the phase read ahead."""
    phase, first = learner.phase, learner.seen
    for step in range(learner.phase_step, min(learner.phase_step + AHEAD, phase.steps)):
        patch, count = phase.sizes(step)
        loader.expect(first, count, patch)
        first += count


class _Saver:
    """Saves the state every so many steps, and every so many minutes."""

    def __init__(self, job: TrainJob, learner: Learner, note: Callable[[str], None]) -> None:
        self.job, self.learner, self.note = job, learner, note
        self._last = time.monotonic()

    def after_step(self) -> None:
        """A disk that is full now may have room at the next save: going on loses nothing."""
        recipe = self.job.recipe
        late = time.monotonic() - self._last >= 60 * recipe.save_minutes
        if not late and self.learner.step % recipe.save_every:
            return
        try:
            self.learner.save(self.job.state)
        except SaveError as error:
            self.note(f"{error}; going on, the next try is in {recipe.save_every} steps")
        self._last = time.monotonic()


def _any(team: Team, flag: bool) -> bool:
    """Whether any process wants to stop: all must do so at the same step."""
    if team.size == 1:
        return flag
    wish: Tensor = torch.tensor([float(flag)], device=team.device)
    return bool(team.mean(wish)[0] > 0)


def _facts(team: Team, data: dict[str, Any]) -> dict[str, Any]:
    cuda = team.device.type == "cuda"
    name = torch.cuda.get_device_name(team.device) if cuda else platform.processor()
    return {
        "data": data,
        "hardware": {
            "device": name or platform.machine(),
            "processes": team.size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__.split("+")[0],
        },
    }


class _Watcher:
    """What the first process does beside learning: validate, log, draw, report."""

    def __init__(
        self,
        job: TrainJob,
        learner: Learner,
        report: Callable[[Progress], None],
        note: Callable[[str], None],
    ) -> None:
        self.job, self.learner, self.report, self.note = job, learner, report, note
        model, device = learner.model, learner.team.device
        self.held_out: ValidationSet | None = None
        self.sheet: Sheet | None = None
        if job.validation is not None:
            multiple = model.size.multiple_of
            self.held_out = ValidationSet(job.validation, model.scale, multiple, device, job.recipe)
            self.sheet = Sheet(job.run / "validation", self.held_out, job.run / "validation.png")
        self.pace = Pace(learner.seen)
        try:
            self.log = MetricsLog(job.run / "metrics.jsonl", learner.step)
        except OSError as error:
            raise SaveError(f"cannot write to '{job.run}': {error}", hint="make room") from error
        self.board = (
            TensorBoard(job.run / "tensorboard", job.tensorboard, learner.step)
            if job.tensorboard
            else None
        )

    def after_step(
        self, terms: dict[str, float], seconds: float, waited: float, *, score_now: bool
    ) -> None:
        """Validate where it is due, keep the best weights, tell everyone.

        A score out of turn, when time is up, is told but does not count: where a run is stopped
        must not decide which weights the next phase begins with.
        """
        learner = self.learner
        phase, score = learner.phase, None
        enlarged = learner.model.scale > 1 and phase.losses[0].target == "reference"
        due = learner.step % learner.recipe.validate_every == 0
        due = due or learner.phase_step == phase.steps
        if self.held_out and (due or score_now):
            network, frozen = learner.ema.module, learner.frozen
            score = self.held_out.score(network, phase.losses[0], frozen=frozen)
            if due and (learner.best is None or score.psnr > learner.best["psnr"]):
                self._keep_best(score.psnr, score.gain)
        steps_per_second, patches_per_hour = self.pace.after_step(learner.seen)
        items = learner.facts.get("pool", {}).get("items")
        progress = Progress(
            step=learner.step,
            steps=learner.recipe.steps,
            phase=phase.name,
            loss=sum(terms.values()),
            terms=terms,
            learning_rate=learning_rate(phase, learner.phase_step - 1),
            seconds=seconds,
            waited=waited,
            steps_per_second=steps_per_second,
            patches_per_hour=patches_per_hour,
            pool=items,
            reuse=learner.seen / items if items else None,
            psnr=score.psnr if score else None,
            gain=score.gain if score else None,
            baseline="bicubic" if enlarged else "the input",
        )
        try:
            self.log.add(progress)
            if self.board:
                self.board.add(progress)
            if score and self.sheet:
                self.sheet.add(learner.step, score.gain, score.restored)
                plot_curves(self.log.rows, self.job.run / "curves.png")
        except OSError as error:
            self.note(f"cannot write to '{self.job.run}': {error}; going on")
        self.report(progress)

    def close(self) -> None:
        """Draw the curves a last time."""
        try:
            if self.log.rows:
                plot_curves(self.log.rows, self.job.run / "curves.png")
            if self.board:
                self.board.close()
        except OSError as error:
            self.note(f"cannot write to '{self.job.run}': {error}")

    def _keep_best(self, psnr: float, gain: float) -> None:
        learner = self.learner
        try:
            write_average(learner.state(), self.job.best)
        except RestoreError as error:
            self.note(f"{error}; going on")
            return
        learner.best = {
            "phase": learner.phase.name,
            "step": learner.step,
            "psnr": psnr,
            "gain": gain,
        }
