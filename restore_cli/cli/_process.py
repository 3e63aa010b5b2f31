"""The process a command runs in: its threads, how it imports, and how it ends."""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager


def spin_briefly() -> None:
    """Let torch's threads wait for each other awake for a moment, then asleep.

    Must be called before torch is imported. Measured on 2 cores, mprnet-mscam: asleep at once, a
    picture takes 5 % longer (13,000 wake-ups); awake without end, as is the default, it takes 1.8
    times as long as this when another process is busy on one of the cores.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


@contextmanager
def importing() -> Iterator[None]:
    """A block of imports in which no garbage is looked for: there is none (0.1 s of torch's 1.5).

    What was imported is never looked at again.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def leave(status: int) -> None:
    """End the process without taking it apart object by object, which takes torch 0.4 s.

    Everything that asked to be called at the end is called, and everything written is flushed.
    """
    if threading.active_count() > 1:
        return  # the usual way, which waits for them
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError, io.UnsupportedOperation):
            return  # the usual way reports it
    os._exit(status)
