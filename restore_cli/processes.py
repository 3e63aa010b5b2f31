"""Pools of processes that end when this process ends, however it ends."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any, ParamSpec, TypeVar

from restore_cli.errors import RestoreError

P = ParamSpec("P")
R = TypeVar("R")


def usable_cores() -> int:
    """Count the cores that this process may use: a cluster job may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):  # neither on macOS nor on Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def starting() -> Iterator[None]:
    """Convert an error of the system while processes are prepared to a `RestoreError`."""
    try:
        yield
    except OSError as error:  # e.g. without /dev/shm, where Python's semaphores are
        raise RestoreError(
            f"cannot start other processes: {error.strerror}",
            hint="make /dev/shm writable, or use one process (one --device; --jobs 1 of degrade)",
        ) from error


class ProcessPool(ProcessPoolExecutor):
    """Spawned processes, since neither CUDA nor torch's threads survive a fork.

    Ctrl-C at a terminal reaches them too; they leave it to this process. If this process is killed,
    they end, instead of waiting for work forever.
    """

    def __init__(
        self, count: int, initializer: Callable[..., None] | None = None, *arguments: Any
    ) -> None:
        """Start at most `count` processes, each of which first calls `initializer(*arguments)`.

        Raises `RestoreError` if the system cannot start them.
        """
        given = (initializer, arguments)
        if sys.platform == "win32":
            count = min(count, 61)  # Windows cannot wait for more
        with starting():
            super().__init__(count, get_context("spawn"), initializer=_begin, initargs=given)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """See `concurrent.futures.Executor.submit`."""
        if not hasattr(signal, "pthread_sigmask"):
            return super().submit(fn, *args, **kwargs)
        # Processes are started here, and inherit what is blocked: they import before `_begin`.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
