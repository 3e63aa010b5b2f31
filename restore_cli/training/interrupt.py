"""Handles Ctrl-C, SIGTERM from a scheduler and SIGHUP, after the current step is complete."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from restore_cli.errors import Interrupted


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Set an event at the first SIGINT, SIGTERM or SIGHUP; a second signal has its usual effect.

    Raises:
        Interrupted: at the end of the block, if there was a signal.
    """
    requested, received = threading.Event(), []
    if threading.current_thread() is not threading.main_thread():
        yield requested  # only the main thread receives signals
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Windows has no SIGHUP, and under nohup it stays ignored.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        received.append(number)
        restore()  # first: a second signal inside `set` would wait for its lock forever
        requested.set()

    for number in previous:
        signal.signal(number, note)
    try:
        yield requested
    finally:
        restore()
    if requested.is_set():
        raise Interrupted(received[0])
