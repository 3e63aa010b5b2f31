"""Every error a user can meet, with the exit status it ends in. Imports nothing of ours.

A message names the thing, the value and the remedy in one line; the command line prints it without
a traceback. Anything that is not a `RestoreError` is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class RestoreError(Exception):
    """Base of all errors with a remedy.

    Attributes:
        exit_code: status of the process when this error ends it.
        hint: what to do next, one line, or "".
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class PictureError(RestoreError):
    """One picture cannot be read, restored or written; the others can."""


class UsageError(RestoreError):
    """The call contradicts itself or names something that does not exist."""

    exit_code = 2


class NoInputError(RestoreError):
    """Nothing usable among the inputs."""

    exit_code = 3


class WeightsError(RestoreError):
    """A checkpoint is missing, cannot be verified, or does not fit its model."""

    exit_code = 4


class DeviceError(RestoreError):
    """The device is absent, or out of memory after every fall-back."""

    exit_code = 5


class RecipeError(UsageError):
    """A recipe has an unknown key, a wrong type or a value out of range."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """A usage error for a name that is not in a table, with the nearest one suggested.

    Args:
        kind: what the name should have been, e.g. "model".
        name: what was given.
        known: the names that exist.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.6)
    guess = f" Did you mean '{near[0]}'?" if near else ""
    return UsageError(f"{kind} '{name}' not found.{guess}", hint=f"known: {', '.join(names)}")
