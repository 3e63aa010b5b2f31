"""Loads a process's part of every batch, and prefetches for GPUs."""

from __future__ import annotations

import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

from restore_cli.errors import UsageError
from restore_cli.processes import usable_cores
from restore_cli.training.data import Batch, Item, Source
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.recipe import TrainingRecipe

READERS = 8  # threads that read and crop for a GPU


class Loader:
    """Loads the batches of this process; on GPUs, threads prefetch them.

    On a CPU the training thread does everything: threads in addition to OpenMP's own made a step 3
    to 7 times slower.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        group: ProcessGroup,
        accumulate: int = 1,
    ) -> None:
        self.source, self.seed, self.group, self.accumulate = source, seed, group, accumulate
        ahead = min(READERS, usable_cores()) if group.device.type == "cuda" else 0
        self._pool = ThreadPoolExecutor(ahead, "crop") if ahead else None
        self._ahead: dict[tuple[int, int], Future[Item]] = {}
        self.waited = 0.0  # seconds that training spent waiting for data

    def indices(self, first: int, count: int) -> list[range]:
        """List this process's items in a batch of `count` from number `first` on, per micro-batch.

        Raises `UsageError` if the batch cannot be divided evenly.
        """
        parts = self.group.size * self.accumulate
        if count % parts:
            raise UsageError(
                f"a batch of {count} cannot be divided evenly among {self.group.size} processes"
                f" x {self.accumulate} accumulated parts",
                hint="choose numbers whose product divides the recipe's batch",
            )
        size, start = count // parts, first + self.group.rank * count // self.group.size
        return [range(start + n * size, start + (n + 1) * size) for n in range(self.accumulate)]

    def check_batches(self, recipe: TrainingRecipe) -> None:
        """Raise a `UsageError` if a batch of the recipe cannot be divided evenly."""
        for phase in recipe.phases:
            for batch in (phase.batch, *(larger.batch for larger in phase.progressive)):
                self.indices(0, batch)

    def prefetch(self, first: int, count: int, patch: int) -> None:
        """Start reading a later batch, described as for `batches`."""
        if self._pool is not None:
            for numbers in self.indices(first, count):
                for number in numbers:
                    if (number, patch) not in self._ahead:
                        future = self._pool.submit(self._crop, number, patch)
                        self._ahead[number, patch] = future

    def batches(self, first: int, count: int, patch: int, wanted: Collection[str]) -> list[Batch]:
        """Make this process's part of a batch, as one batch per accumulated part.

        The whole batch has `count` items of the run from number `first` on, with degraded crops of
        `patch` pixels a side and the targets that are `wanted`. Raises `PictureError` if a picture
        cannot be read.
        """
        begun = time.monotonic()
        self.prefetch(first, count, patch)
        crops = [[self._take(n, patch) for n in numbers] for numbers in self.indices(first, count)]
        self.waited += time.monotonic() - begun
        return [self.source.batch(part, wanted, self.group.device) for part in crops]

    def close(self) -> None:
        """Stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _take(self, number: int, patch: int) -> Item:
        future = self._ahead.pop((number, patch), None)
        return future.result() if future else self._crop(number, patch)

    def _crop(self, number: int, patch: int) -> Item:
        return self.source.item(self.seed, number, patch)
