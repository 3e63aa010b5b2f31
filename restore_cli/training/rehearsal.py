"""A dry run: one step of every part of every phase, and what the whole will take."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from restore_cli.errors import RestoreError, UsageError
from restore_cli.training.data import PREPARED
from restore_cli.training.export import write_average
from restore_cli.training.learner import Learner
from restore_cli.training.loader import Loader
from restore_cli.training.loop import TrainJob, fill_pool, open_loader
from restore_cli.training.recipe import PoolShape
from restore_cli.training.team import Alone
from restore_cli.training.validation import ValidationSet

POOLED = 8  # items of its pool
TIMED = 2  # steps after the first, which is slower


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """One phase.

    Attributes:
        phase: its name.
        trained: numbers that the phase changes.
        steps: of the phase.
        data: seconds a step for reading and degrading.
        step: seconds a step in all.
        validation: seconds a validation; 0 without one.
        memory: bytes of the process (of the GPU, where one computes) at the largest patch.
    """

    phase: str
    trained: int
    steps: int
    data: float
    step: float
    validation: float
    memory: int

    def seconds(self, validate_every: int) -> float:
        """The whole phase."""
        return self.steps * self.step + (self.steps // validate_every + 1) * self.validation


def rehearse(job: TrainJob) -> Iterator[Rehearsed]:
    """Read, learn, validate, save and resume in every phase; nothing is left on the disk.

    Raises:
        RestoreError: what would stop the training, or a state that does not come back as it was.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a dry run is of one process", hint="leave out torchrun")
    device = torch.device(job.device)
    recipe = job.recipe
    if job.pool is not None:  # a small one of its own
        shape = PoolShape(size=POOLED, side=recipe.pool_side)
        recipe = recipe.model_copy(update={"pool": shape})
    learner = Learner(recipe, Alone(device), job.execution, pooled=job.pool is not None)
    if job.weights is not None:
        learner.start_from(job.weights)
    loader = open_loader(job, learner)
    held_out = None
    if job.validation is not None:
        model = learner.model
        held_out = ValidationSet(
            job.validation, model.scale, model.size.multiple_of, device, job.recipe
        )
    place = next(path for path in (job.run, *job.run.absolute().parents) if path.is_dir())
    with tempfile.TemporaryDirectory(dir=place, prefix=".rehearsal.") as folder:
        if job.pool is not None:
            loader.source = fill_pool(Path(folder, "pool"), learner, loader.source, lambda *_: None)
        for index in range(len(job.recipe.phases)):
            if index:
                learner.advance(Path(folder, "best.safetensors"))
            yield _phase(learner, loader, held_out, Path(folder))


def _phase(
    learner: Learner, loader: Loader, held_out: ValidationSet | None, folder: Path
) -> Rehearsed:
    phase, device = learner.phase, learner.team.device
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    wanted: set[str] = {term.target for term in phase.losses}
    wanted |= {PREPARED} if learner.prepared else set()
    patch, count = phase.sizes(phase.steps - 1)  # progressive training ends with the largest

    def step() -> tuple[float, float]:
        begun = time.monotonic()
        batches = loader.batches(learner.seen, count, patch, wanted)
        _settle(device)
        read = time.monotonic() - begun
        loader.expect(learner.seen + count, count, patch)  # as the loop does
        learner.learn(batches)
        _settle(device)
        return read, time.monotonic() - begun

    step()
    data, whole = (sum(part) / TIMED for part in zip(*(step() for _ in range(TIMED)), strict=True))
    memory = torch.cuda.max_memory_allocated(device) if cuda else psutil.Process().memory_info().rss
    begun = time.monotonic()
    if held_out is not None:
        score = held_out.score(learner.ema.module, phase.losses[0], frozen=learner.frozen)
        learner.best = {"phase": phase.name, "step": learner.step, "psnr": score.psnr, "gain": 0.0}
    validation = time.monotonic() - begun if held_out else 0.0
    write_average(learner.state(), folder / "best.safetensors")
    before = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    learner.save(folder / "state.pt")
    learner.restore(folder / "state.pt")
    for name, tensor in learner.network.state_dict().items():
        if not torch.equal(tensor, before[name]):
            raise RestoreError(f"'{name}' did not come back from the saved state as it was")
    trained = sum(p.numel() for p in learner.network.parameters() if p.requires_grad)
    return Rehearsed(phase.name, trained, phase.steps, data, whole, validation, memory)


def _settle(device: torch.device) -> None:
    """GPUs compute while the program goes on: wait before looking at the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
