"""The training loop, the same for every model and recipe."""

from __future__ import annotations

import math
import platform
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from filecmp import cmp
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restore_cli.errors import (
    Interrupted,
    PictureError,
    RestoreError,
    UsageError,
    WeightsError,
)
from restore_cli.files import locked, remove_abandoned
from restore_cli.formatting import format_count
from restore_cli.training.data import Batch, Source
from restore_cli.training.distributed import ProcessGroup, init_process_group
from restore_cli.training.job import TrainJob
from restore_cli.training.loader import Loader
from restore_cli.training.mixture import open_source
from restore_cli.training.monitor import Monitor
from restore_cli.training.package import export_checkpoint
from restore_cli.training.pool import Pool
from restore_cli.training.progress import Progress
from restore_cli.training.refill import BackgroundFiller, fill_pool
from restore_cli.training.state import SaveError
from restore_cli.training.trainer import Trainer, out_of_memory
from restore_cli.training.validation import ValidationSet
from restore_cli.weights.checkpoint import read_checkpoint

AHEAD = 4  # batches that are prefetched while a GPU computes


def train(
    job: TrainJob,
    report: Callable[[Progress], None] = lambda progress: None,
    note: Callable[[str], None] = lambda message: None,
    filled: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Train, or resume training, and return the file of weights.

    The state is saved every `recipe.save_every` steps, every `recipe.save_minutes` and at the end,
    also after Ctrl-C. With the same data, recipe and machine, a run that was stopped or killed and
    resumed gives the same weights as an uninterrupted run: items are functions of (seed, number),
    and nothing else is random.

    Args:
        job: what to train.
        report: called after each step; like all callbacks, in the first process of a group only.
        note: called with warnings and notes for the user, one line each.
        filled: called with the number of finished items of a pool and the number of all.

    Raises:
        UsageError: the run exists and `resume` is "no", or does not exist and `resume` is "must",
            or the run was started with another recipe, or another process is training it.
        PictureError: a picture cannot be read; the steps before it are saved.
        SaveError: the disk was still full at the end; the last saved state is intact.
        RestoreError: the loss is not finite; the last saved state is kept.
        Interrupted: a KeyboardInterrupt, after Ctrl-C, when the current step is complete and saved.
    """
    recipe = job.recipe
    with ExitStack() as stack:
        group = init_process_group(torch.device(job.device))
        stack.callback(group.close)
        trainer = Trainer(recipe, group, job.execution, pooled=job.pool is not None)
        loader = stack.enter_context(closing(open_loader(job, trainer)))
        validation_set = _check_and_lock(job, trainer, loader, note, stack)
        if not _begin(job, trainer, loader.source.facts, note):
            stack.push(partial(_forget_unstarted, job, trainer))
        stack.enter_context(out_of_memory(trainer))
        _forget_useless_best(job, trainer, validation_set, note)
        trainer.facts |= {"recipe_name": job.recipe_name} | _facts(job, group, loader.source.facts)
        if job.pool is not None:
            loader.source = fill_pool(job.pool, trainer, loader.source, filled)
        monitor = Monitor(job, trainer, validation_set, report, note) if group.rank == 0 else None
        saver = _Saver(job, trainer, note, loader.source)
        stack.callback(saver.close)
        deadline = time.monotonic() + 60 * (math.inf if job.minutes is None else job.minutes)
        interrupt = stack.enter_context(deferred_interrupt())

        stopped = False
        while not stopped:
            phase = trainer.phase
            while trainer.phase_step < phase.steps and not stopped:
                begun, waited = time.monotonic(), loader.waited
                _prefetch(loader, trainer)
                patch, count = phase.sizes(trainer.phase_step)
                batches = _read(loader, trainer, saver, count, patch)
                terms = trainer.train_step(batches)
                saver.refill()
                left = deadline - time.monotonic()
                if monitor is not None:
                    spent = time.monotonic() - begun
                    monitor.after_step(terms, spent, loader.waited - waited, left)
                saver.after_step()
                stopped = _any(group, left < 0 or interrupt.is_set())
            if stopped or trainer.phase_index + 1 == len(recipe.phases):
                break
            group.barrier()
            trainer.next_phase(job.best)
            # Save before the new phase overwrites the best weights of the previous one, from which
            # a run that is killed now would have to start the phase again.
            saver.save()
        saver.save()
        if monitor is not None:
            export_checkpoint(job.run, job.result)
            monitor.close()
        group.barrier()
    return job.result


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Set an event at the first SIGINT, SIGTERM or SIGHUP; a second signal has its usual effect.

    Raises `Interrupted` at the end of the block, if there was a signal.
    """
    requested, received = threading.Event(), []
    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread receives signals
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Windows has no SIGHUP, and under nohup it stays ignored.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        received.append(number)
        restore()  # first: a second signal inside `set` would wait for its lock forever
        requested.set()

    for number in previous:
        signal.signal(number, note)
    try:
        yield requested
    finally:
        restore()
    if requested.is_set():
        raise Interrupted(received[0])


def _read(loader: Loader, trainer: Trainer, saver: _Saver, count: int, patch: int) -> list[Batch]:
    """Read the next batches; if that fails in any process, save and export first."""
    broken: PictureError | None = None
    batches: list[Batch] = []
    try:
        batches = loader.batches(trainer.seen, count, patch, trainer.wanted)
    except PictureError as error:
        broken = error
        another = ", and begin another run with --weights RUN" * bool(trainer.step)
        broken.hint = broken.hint or f"leave it out{another}"
    if _any(trainer.group, broken is not None):
        saver.save()
        if trainer.group.rank == 0 and trainer.step:
            with suppress(RestoreError):  # so that another run can begin with these weights
                export_checkpoint(saver.job.run, saver.job.result)
        raise broken or PictureError("another process could not read a picture")
    return batches


def open_loader(job: TrainJob, trainer: Trainer) -> Loader:
    """Return a loader of the job's data for this process.

    Raises:
        NoInputError: there are no pictures.
        UsageError: the data does not fit the recipe, or a batch cannot be divided evenly.
    """
    recipe = trainer.recipe
    largest = recipe.pool_side if job.pool is not None else max(recipe.patches)
    source = open_source(job.data, recipe, trainer.model.scale, largest)
    loader = Loader(source, recipe.seed, trainer.group, job.execution.accumulate)
    loader.check_batches(recipe)
    return loader


def load_validation_set(job: TrainJob, trainer: Trainer) -> ValidationSet | None:
    """Read the held-out pictures of `job` for the trainer's model and device; None without any.

    Raises:
        NoInputError: no picture of a folder is large enough.
        PictureError: see `ValidationSet`.
    """
    if not job.validation:
        return None
    model, device = trainer.model, trainer.group.device
    return ValidationSet(job.validation, model.scale, model.size.multiple_of, device, job.recipe)


def _check_and_lock(
    job: TrainJob,
    trainer: Trainer,
    loader: Loader,
    note: Callable[[str], None],
    stack: ExitStack,
) -> ValidationSet | None:
    """In the first process, read the held-out pictures, lock the run, and say what is left out."""
    if trainer.group.rank:
        return None
    validation_set = load_validation_set(job, trainer)
    if job.resume != "must" or job.state.exists():  # else `_begin` refuses, and makes no folder
        stack.enter_context(_only_process(job.run))
    for text in loader.source.notes:
        note(text)
    if validation_set is not None:
        for text in validation_set.notes:
            note(text)
        if both := _count_shared(validation_set.files, loader.source.files):
            note(
                f"warning: {format_count(both, 'picture')} of --validation "
                f"{'is' if both == 1 else 'are'} also in --data, so the gain is overstated"
            )
    return validation_set


def _count_shared(held_out: Collection[Path], trained: Collection[Path]) -> int:
    """Count the held-out pictures of which the trained ones have the file, or a copy."""
    by_size: dict[int, list[Path]] = {}
    for path in trained:
        by_size.setdefault(path.stat().st_size, []).append(path)
    return sum(
        any(cmp(path, other, shallow=False) for other in by_size.get(path.stat().st_size, ()))
        for path in held_out
    )


def _only_process(run: Path) -> AbstractContextManager[None]:
    """Refuse to train in a folder in which another process trains."""
    run.mkdir(parents=True, exist_ok=True)
    what = f"another process is training in '{run}'"
    hint = "wait until it ends, or choose another --output"
    return locked(run, UsageError(what, hint=hint))


def _forget_useless_best(
    job: TrainJob,
    trainer: Trainer,
    validation_set: ValidationSet | None,
    note: Callable[[str], None],
) -> None:
    """Forget the best weights so far if they cannot be read, or were scored on other pictures."""
    before = trainer.facts.get("held_out")  # None in runs of earlier versions
    now = trainer.group.broadcast(validation_set.sha256 if validation_set else "")
    trainer.facts["held_out"] = now
    if trainer.best is None:
        return
    reason = ""
    if before != now and not (before is None and now):
        reason = (
            f"note: --validation has changed since the earlier steps of '{job.run}'; the best "
            "weights so far cannot be compared, and are ignored"
        )
    elif trainer.group.rank == 0:
        try:
            read_checkpoint(job.best)
        except WeightsError as error:  # else it would end the run, after the last step
            reason = f"warning: {error}; the best weights so far are lost"
    if reason := trainer.group.broadcast(reason):
        trainer.best = None
        trainer.facts.pop("last_score", None)
        if trainer.group.rank == 0:
            note(reason)


def _begin(
    job: TrainJob, trainer: Trainer, data: dict[str, Any], note: Callable[[str], None]
) -> bool:
    """Start with random or given weights, or resume; return whether the run was resumed."""
    exists = trainer.group.broadcast(job.state.exists())
    if exists and job.resume == "no":
        raise UsageError(
            f"'{job.state}' already exists", hint="add --resume auto, or choose another --output"
        )
    if not exists and job.resume == "must":
        raise UsageError(
            f"cannot resume: '{job.state}' does not exist", hint="start with --resume auto"
        )
    if exists:
        _resume(job, trainer, note)
        _check_same_data(job, trainer, data)
    elif job.weights is not None:
        trainer.start_from(job.weights)
    if not exists and job.pool is not None:
        trainer.facts["pool"] = {}
    if trainer.group.rank == 0:
        job.run.mkdir(parents=True, exist_ok=True)
        remove_abandoned(job.run)
        if not exists:
            trainer.save(job.state)  # detects a full disk now, not after the first hundred steps
    return bool(exists)


def _forget_unstarted(job: TrainJob, trainer: Trainer, *raised: object) -> None:
    """Delete the state of a new run that a wrong recipe or picture ended before its first step.

    Else the corrected command is refused, since its recipe or pictures differ.
    """
    wrong = isinstance(raised[1], UsageError | PictureError)
    if wrong and not trainer.step and trainer.group.rank == 0:
        job.state.unlink(missing_ok=True)


def _resume(job: TrainJob, trainer: Trainer, note: Callable[[str], None]) -> None:
    trainer.resume_from(job.state)
    if trainer.group.rank == 0:
        note(
            f"resuming '{job.run}' at step {trainer.step:,} of {trainer.steps:,} "
            f"(phase '{trainer.phase.name}', {trainer.seconds / 60:.1f} min of training so far)"
        )
        base = trainer.facts.get("base", {})
        if job.weights is not None and job.weights.file.sha256 != base.get("sha256"):
            note(
                f"note: '{job.run}' began with {base.get('weights') or 'random weights'}, and "
                f"continues from its own state; --weights '{job.weights.file.name}' is not used"
            )
    if ("pool" in trainer.facts) != (job.pool is not None):
        raise UsageError(
            f"'{job.run}' was trained {'with' if job.pool is None else 'without'} a pool",
            hint="add --pool DIR" if job.pool is None else "leave out --pool",
        )


def _check_same_data(job: TrainJob, trainer: Trainer, data: dict[str, Any]) -> None:
    if trainer.facts.get("data", data) != data:
        raise UsageError(
            f"'{job.run}' was trained on other pictures than --data",
            hint=f"give the same, or begin another run with --weights '{job.run}'",
        )


def _prefetch(loader: Loader, trainer: Trainer) -> None:
    """Start reading the next batches of the phase."""
    phase, first = trainer.phase, trainer.seen
    for step in range(trainer.phase_step, min(trainer.phase_step + AHEAD, phase.steps)):
        patch, count = phase.sizes(step)
        loader.prefetch(first, count, patch)
        first += count


class _Saver:
    """Saves the state at regular intervals, and keeps a refilled pool consistent with it."""

    def __init__(
        self, job: TrainJob, trainer: Trainer, note: Callable[[str], None], source: Source
    ) -> None:
        self.job, self.trainer, self.note = job, trainer, note
        self._last = time.monotonic()
        self._pool = source if isinstance(source, Pool) and source.refilled else None
        self._filler: BackgroundFiller | None = None
        self._kept = 0  # patches seen by the saved state, which needs the items from there on
        # Items are rounded differently on a GPU; there the training process makes them itself.
        if self._pool and trainer.group.rank == 0 and trainer.group.device.type == "cpu":
            self._filler = BackgroundFiller(self._pool, trainer.seen)

    def close(self) -> None:
        """Stop refilling the pool, and delete items that were made too late."""
        if self._filler and self._pool:
            self._filler.close()
            self._pool.drop(self._kept)

    def save(self) -> None:
        """Write the state, and delete items of the pool that are no longer needed."""
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
            self._filler.request(self.trainer.seen)

    def after_step(self) -> None:
        """Save if due; if the disk is full, warn and try again at the next save."""
        recipe = self.job.recipe
        due = time.monotonic() - self._last >= 60 * recipe.save_minutes
        if not due and self.trainer.step % recipe.save_every:
            return
        try:
            self.save()
        except SaveError as error:
            self.note(
                f"warning: {error}; training continues, the next attempt to save is in "
                f"{recipe.save_every} steps"
            )
        self._last = time.monotonic()


def _any(group: ProcessGroup, flag: bool) -> bool:
    """Whether the flag is set in any process, so that all processes stop at the same step."""
    if group.size == 1:
        return flag
    flags: Tensor = torch.tensor([float(flag)], device=group.device)
    return bool(group.all_reduce_mean(flags)[0] > 0)


def _facts(job: TrainJob, group: ProcessGroup, data: dict[str, Any]) -> dict[str, Any]:
    cuda = group.device.type == "cuda"
    name = torch.cuda.get_device_name(group.device) if cuda else platform.processor()
    return {
        "data": data,
        "hardware": {
            "device": name or platform.machine(),
            "processes": group.size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__.split("+")[0],
            "precision": str(job.execution.precision).removeprefix("torch."),
        },
    }
