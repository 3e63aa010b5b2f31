"""Handles Ctrl-C, and SIGTERM from a scheduler, after the current step is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(KeyboardInterrupt):
    """Raised after Ctrl-C or SIGTERM, when the block has ended regularly."""


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Set an event at the first SIGINT or SIGTERM; a second signal has its usual effect.

    Raises:
        Interrupted: at the end of the block, if there was a signal.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread receives signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        restore()  # first: a second signal inside `set` would wait for its lock for ever
        requested.set()

    for number in numbers:
        signal.signal(number, note)
    try:
        yield requested
    finally:
        restore()
    if requested.is_set():
        raise Interrupted
