"""Signals during training."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from restore_cli.errors import Interrupted
from restore_cli.training.loop import deferred_interrupt


def test_a_second_signal_has_its_usual_effect_even_while_the_first_is_handled(monkeypatch):
    usual, notify = [], threading.Condition.notify_all

    def interrupted(self):  # inside `Event.set`, which holds its lock
        os.kill(os.getpid(), signal.SIGTERM)
        notify(self)

    def stopped():
        with deferred_interrupt(), monkeypatch.context() as patch:
            patch.setattr(threading.Condition, "notify_all", interrupted)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGTERM, lambda *_: usual.append(1))
    try:
        with pytest.raises(Interrupted) as raised:
            stopped()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert usual == [1]
    assert raised.value.number == signal.SIGINT
