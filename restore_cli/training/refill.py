"""Fills a pool before training, and during it, in a process of the lowest priority.

That is a process, not a thread: OpenMP's threads would compete inside the training process.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import torch

from restore_cli.errors import UsageError
from restore_cli.processes import ProcessPool
from restore_cli.training.data import Source
from restore_cli.training.pool import FrozenModule, Pool
from restore_cli.training.pretrained import digest
from restore_cli.training.trainer import Trainer

_given: list[tuple[Pool, Event]] = []  # what `_begin` has given to the background process
AHEAD = 32  # items of each part that are requested before they enter the pool


class BackgroundFiller:
    """A background process that makes the items a pool will need next.

    Training does not depend on its speed: the training process makes missing items itself.
    """

    def __init__(self, pool: Pool, seen: int) -> None:
        """Start the process for a full pool; it ends when this one ends, for any reason."""
        self._pool = pool
        firsts = pool.first_numbers(seen)
        self._requested = [first + count for first, count in zip(firsts, pool.counts, strict=True)]
        # The same number of threads as here, so that sums are rounded in the same way.
        self._closing = get_context("spawn").Event()
        self._process = ProcessPool(1, _begin, pool, torch.get_num_threads(), self._closing)

    def request(self, seen: int) -> None:
        """Request the next items, after `seen` patches were cropped."""
        for part, first in enumerate(self._pool.first_numbers(seen)):
            if not self._pool.replaceable[part]:
                continue
            last = first + self._pool.counts[part] + AHEAD
            for number in range(self._requested[part], last):
                with suppress(BrokenProcessPool):  # killed, perhaps for memory
                    self._process.submit(_make, part, number)
            self._requested[part] = last

    def close(self) -> None:
        """End the process when it has finished its current item."""
        self._closing.set()  # for the next items, which the pool has handed over already
        self._process.shutdown(cancel_futures=True)


def _begin(pool: Pool, threads: int, closing: Event) -> None:
    _given.append((pool, closing))
    if hasattr(os, "nice"):
        os.nice(19)
    torch.set_num_threads(threads)


def _make(part: int, number: int) -> None:
    # An error stays in the future: the training process will meet and report it.
    ((pool, closing),) = _given
    if not closing.is_set() and not pool.path(part, number).is_file():
        pool.make(part, number)


def fill_pool(
    folder: Path, trainer: Trainer, source: Source, filled: Callable[[int, int], None]
) -> Pool:
    """Open the pool of a run in `folder` at the trainer's current step, and make missing items.

    They are made from `source`. `filled` is called with the numbers of finished and of all items,
    in the first process of a group.

    Raises:
        UsageError: the pool was made with other data or settings, or lacks items that can no longer
            be made.
        RestoreError: a picture cannot be read, or the disk is full.
    """
    model, group, recipe = trainer.model, trainer.group, trainer.recipe
    part, frozen = model.frozen_part, None
    if part is not None and trainer.frozen_in(0):
        module = trainer.network.get_submodule(part.name)
        first = trainer.facts.setdefault("frozen_part", digest(module))
        network = trainer.network
        if recipe.pool.reuse is not None:
            if not trainer.frozen_in(len(recipe.phases) - 1):
                raise UsageError(
                    f"a pool that stores outputs of '{part.name}' of '{model.name}' cannot be "
                    "refilled in a run that trains it",
                    hint=f"remove pool.reuse from the recipe, or the phases that train {part.name}",
                )
            # New items are made while the network is trained, in other threads and processes.
            network = copy.deepcopy(network).requires_grad_(False)
        frozen = FrozenModule(model.name, model.size, network, first)
    pool = Pool(folder, source, recipe, group.device, frozen)
    if frozen is not None and part is not None and not trainer.frozen and pool.missing():
        raise UsageError(
            f"the pool '{folder}' lacks {pool.missing()} items, which cannot be made any more "
            f"because '{part.name}' has been trained since",
            hint="give the --pool folder that the run started with",
        )
    pool.fill(group, filled if group.rank == 0 else lambda done, total: None, trainer.seen)
    known = trainer.facts.get("pool", {})  # how many were replaced
    trainer.facts["pool"] = known | {"items": len(pool), "bytes": pool.bytes_on_disk()}
    return pool
