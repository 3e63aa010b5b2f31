"""A dry run: tries every phase for a few steps, and estimates the duration of the training."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from restore_cli.errors import RestoreError, UsageError
from restore_cli.files import existing
from restore_cli.inference.memory import settle
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.job import TrainJob
from restore_cli.training.launch_env import world_size
from restore_cli.training.loader import Loader
from restore_cli.training.loop import load_validation_set, open_loader
from restore_cli.training.package import write_ema_weights
from restore_cli.training.refill import fill_pool
from restore_cli.training.state import STATE
from restore_cli.training.trainer import Trainer, out_of_memory
from restore_cli.training.validation import ValidationSet
from restore_cli.weights.store import BEST

POOLED = 8  # items in the pool of a dry run
TIMED = 2  # timed steps; the first step is slower and not counted


@dataclass(frozen=True, slots=True)
class PhaseEstimate:
    """Measured cost of one phase."""

    phase: str  # name of the phase
    trained: int  # number of trainable parameters
    steps: int  # steps of the phase
    data: float  # seconds per step for reading and degrading
    step: float  # seconds per step in total
    validation: float  # seconds per validation; 0 without validation
    memory: int  # memory in use at the largest patch, bytes; on a GPU, its own

    def seconds(self, validate_every: int) -> float:
        """Estimate the duration of the whole phase, validating every `validate_every` steps."""
        return self.steps * self.step + (self.steps // validate_every + 1) * self.validation


def steps_within(seconds: float, phases: Sequence[PhaseEstimate], validate_every: int) -> int:
    """Count the steps that fit in the given time, by the estimates of the phases, in order.

    A validation comes every `validate_every` steps.
    """
    steps = 0
    for phase in phases:
        whole = phase.seconds(validate_every)
        if seconds < whole:
            return steps + int(phase.steps * seconds / whole)
        steps, seconds = steps + phase.steps, seconds - whole
    return steps


def dry_run(job: TrainJob) -> Iterator[PhaseEstimate]:
    """Read, train, validate, save and resume in every phase; nothing is left on the disk.

    Raises:
        RestoreError: an error that would stop the training, or a state that changes when it is
            saved and loaded.
    """
    if world_size() > 1:
        raise UsageError("a dry run uses a single process", hint="start it without torchrun")
    device = torch.device(job.device)
    recipe = job.recipe
    if job.pool is not None:  # a small temporary pool
        shape = recipe.pool.model_copy(update={"size": POOLED, "side": recipe.pool_side})
        recipe = recipe.model_copy(update={"pool": shape})
    trainer = Trainer(recipe, ProcessGroup(device), job.execution, pooled=job.pool is not None)
    if job.weights is not None:
        trainer.start_from(job.weights)
    loader = open_loader(job, trainer)
    validation_set = load_validation_set(job, trainer)
    temporary = tempfile.TemporaryDirectory(dir=existing(job.run), prefix=".dry-run.")
    with temporary as folder, closing(loader), out_of_memory(trainer):
        if job.pool is not None:
            loader.source = fill_pool(Path(folder, "pool"), trainer, loader.source, lambda *_: None)
        for index in range(len(job.recipe.phases)):
            if index:
                trainer.next_phase(Path(folder, BEST))
            yield _phase(trainer, loader, validation_set, Path(folder))


def _phase(
    trainer: Trainer, loader: Loader, validation_set: ValidationSet | None, folder: Path
) -> PhaseEstimate:
    phase, device = trainer.phase, trainer.group.device
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    patch, count = phase.sizes(phase.steps - 1)  # progressive training ends with the largest

    def step() -> tuple[float, float]:
        begun = time.monotonic()
        batches = loader.batches(trainer.seen, count, patch, trainer.wanted)
        settle(device)
        read = time.monotonic() - begun
        loader.prefetch(trainer.seen + count, count, patch)  # as the training loop does
        trainer.train_step(batches)
        settle(device)
        return read, time.monotonic() - begun

    step()
    data, whole = (sum(part) / TIMED for part in zip(*(step() for _ in range(TIMED)), strict=True))
    memory = torch.cuda.max_memory_allocated(device) if cuda else psutil.Process().memory_info().rss
    begun = time.monotonic()
    if validation_set is not None:
        score = validation_set.score(trainer.ema.module, phase.losses[0], frozen=trainer.frozen)
        trainer.best = {"phase": phase.name, "step": trainer.step, "psnr": score.psnr, "gain": 0.0}
    validation = time.monotonic() - begun if validation_set else 0.0
    write_ema_weights(trainer.state(), folder / BEST)
    before = {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}
    trainer.save(folder / STATE)
    trainer.resume_from(folder / STATE)
    for name, tensor in trainer.network.state_dict().items():
        if not torch.equal(tensor, before[name]):
            raise RestoreError(f"'{name}' changed when the training state was saved and loaded")
    trained = sum(p.numel() for p in trainer.network.parameters() if p.requires_grad)
    return PhaseEstimate(phase.name, trained, phase.steps, data, whole, validation, memory)
