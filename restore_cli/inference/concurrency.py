"""Several tiles of one picture at once, in threads that share the processor's cores."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Stopped(Exception):
    """Ends a network whose result is no longer needed."""


def map_ordered(
    work: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Generator[Result, None, None]:
    """Yield results of `work`, in the order of the items, `count` items at a time.

    Each thread computes with an equal share of torch's threads, of which there must be at least
    `count`; with 1, no thread is started. An exception raised by `work` is re-raised when its
    item's turn comes. When the iterator is closed, as it is after Ctrl-C, networks that run in its
    threads end within one layer.
    """
    if count == 1:
        yield from map(work, items)
        return
    threads, stop, thread = torch.get_num_threads(), threading.Event(), threading.local()

    def begin() -> None:
        thread.is_ours = True
        torch.get_num_threads()  # else the thread takes over the number that is set later
        torch.set_num_threads(threads // count)

    def end_early(*_: object) -> None:
        if stop.is_set() and getattr(thread, "is_ours", False):
            raise _Stopped

    hook = register_module_forward_pre_hook(end_early)
    pool = ThreadPoolExecutor(count, initializer=begin)
    all_begun = threading.Barrier(count + 1)
    # One more than the threads, so that none is idle while a result is used.
    waiting: deque[Future[Result]] = deque()
    try:
        for _ in range(count):
            pool.submit(all_begun.wait)
        all_begun.wait()
        # Threads that others start from now on begin with the number that was set last.
        torch.set_num_threads(threads)
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        all_begun.abort()
        try:
            pool.shutdown(cancel_futures=True)
        finally:  # also after a second Ctrl-C
            hook.remove()
