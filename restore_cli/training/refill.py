"""Makes new items for a pool during training, in a process of the lowest priority.

A separate process, not a thread: OpenMP's threads would compete inside the training process.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from restore_cli.errors import RestoreError
from restore_cli.training.pool import Pool

AHEAD = 32  # items of each part that are requested before they enter the pool


class BackgroundFiller:
    """A background process that makes the items a pool will need next.

    Training does not depend on its speed: the training process makes missing items itself.
    """

    def __init__(self, pool: Pool, seen: int) -> None:
        """Start the process, which ends when this one ends for any reason.

        Args:
            pool: a full pool.
            seen: number of patches that were cropped before.
        """
        self._pool = pool
        firsts = pool.first_numbers(seen)
        self._requested = [first + count for first, count in zip(firsts, pool.counts, strict=True)]
        context = get_context("spawn")
        requests, self._requests = context.Pipe(duplex=False)
        # The same number of threads as here, so that sums are rounded in the same way.
        arguments = (pool, requests, torch.get_num_threads())
        self._process = context.Process(target=_make_items, args=arguments, daemon=True)
        self._process.start()
        requests.close()  # otherwise the pipe would stay open after the death of the process

    def request(self, seen: int) -> None:
        """Request the next items.

        Args:
            seen: number of patches that were cropped before.
        """
        for part, first in enumerate(self._pool.first_numbers(seen)):
            if not self._pool.replaced[part]:
                continue
            last = first + self._pool.counts[part] + AHEAD
            for number in range(self._requested[part], last):
                with suppress(OSError):  # the process has died
                    self._requests.send((part, number))
            self._requested[part] = last

    def close(self) -> None:
        """End the process, which has 2 s to finish its current item."""
        self._requests.close()
        self._process.join(timeout=2)
        self._process.kill()


def _make_items(pool: Pool, requests: Connection, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the training process handles Ctrl-C
    if hasattr(os, "nice"):
        os.nice(19)
    torch.set_num_threads(threads)
    while True:
        try:
            part, number = requests.recv()
        except (EOFError, OSError):
            return
        if not pool.path(part, number).is_file():
            with suppress(RestoreError):  # the training process will meet and report it
                pool.make(part, number)
