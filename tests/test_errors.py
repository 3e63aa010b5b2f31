"""Errors reach other processes, where they are raised again, as they are."""

from __future__ import annotations

import importlib
import pickle

import restore_cli
from restore_cli.errors import RestoreError


def all_kinds(kind=RestoreError):
    yield kind
    for below in kind.__subclasses__():
        yield from all_kinds(below)


def test_every_error_survives_pickling():
    for module in ("image.reading", "serving.result_limits", "jobs.workers", "inference.pipeline"):
        importlib.import_module(f"{restore_cli.__name__}.{module}")
    kinds = set(all_kinds())
    names = {kind.__name__ for kind in kinds}
    assert {"UnreadableError", "ConfirmationRequiredError", "NotReadyError"} <= names
    for kind in kinds:
        error = kind.__new__(kind)
        RestoreError.__init__(error, "what failed", hint="what to do")
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.hint) == (kind, "what failed", "what to do")
