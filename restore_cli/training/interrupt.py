"""Handles Ctrl-C, and the SIGTERM of a scheduler, between steps, never in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM, after which the block was left in order."""


class Interrupt:
    """Whether a stop was asked for."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Record the first SIGINT or SIGTERM so that the step is completed; a second one acts as usual.

    Raises:
        Interrupted: at the end of the block, if there was one.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt  # only the main thread receives signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        interrupt.requested = True
        restore()

    for number in numbers:
        signal.signal(number, note)
    try:
        yield interrupt
    finally:
        restore()
    if interrupt.requested:
        raise Interrupted
