"""New items for a pool while training goes on, made by a process of the lowest priority.

A process, not a thread: OpenMP's threads in the process that trains would be in each other's way.
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

AHEAD = 32  # items of each part that are asked for before they are in the pool


class BackgroundFiller:
    """A background process that makes the items a pool will need next.

    Nothing depends on whether it keeps up: what is missing is made where it is needed.
    """

    def __init__(self, pool: Pool, seen: int) -> None:
        """Start the process; it ends with this one, however that ends.

        Args:
            pool: that is full.
            seen: patches that were cut already.
        """
        self._pool = pool
        firsts = pool.first_numbers(seen)
        self._asked = [first + count for first, count in zip(firsts, pool.counts, strict=True)]
        context = get_context("spawn")
        requests, self._requests = context.Pipe(duplex=False)
        # As many threads as here, so that sums are rounded alike.
        arguments = (pool, requests, torch.get_num_threads())
        self._process = context.Process(target=_make_items, args=arguments, daemon=True)
        self._process.start()
        requests.close()  # else the pipe would stay open when the process has died

    def ask(self, seen: int) -> None:
        """Request the next items.

        Args:
            seen: patches that were cut already.
        """
        for part, first in enumerate(self._pool.first_numbers(seen)):
            if not self._pool.replaced[part]:
                continue
            last = first + self._pool.counts[part] + AHEAD
            for number in range(self._asked[part], last):
                with suppress(OSError):  # the process has died
                    self._requests.send((part, number))
            self._asked[part] = last

    def close(self) -> None:
        """End the process, after the item in progress."""
        self._requests.close()
        self._process.join(timeout=2)
        self._process.kill()


def _make_items(pool: Pool, requests: Connection, threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that trains decides
    if hasattr(os, "nice"):
        os.nice(19)
    torch.set_num_threads(threads)
    while True:
        try:
            part, number = requests.recv()
        except (EOFError, OSError):
            return
        if not pool.path(part, number).is_file():
            with suppress(RestoreError):  # the one that trains will meet it too
                pool.make(part, number)
