"""All errors that are reported to users, with their exit status. Imports nothing from this package.

A message names the thing, the value and the remedy in one line; the command line prints it without
a traceback. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import struct
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

V = TypeVar("V")
# What readers raise at hostile files; a batch goes on after one of them.
HOSTILE = (
    *(OSError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
    struct.error,
)
# The commands that list the names of a kind.
_LISTS = {
    "checkpoint": "restore weights list",
    "command": "restore --help",
    "dataset": "restore datasets list",
    "degradation recipe": "restore recipes list degrade",
    "model": "restore models",
    "recipe": "restore recipes list",
    "table": "restore datasets tables",
    "training recipe": "restore recipes list train",
}
_MOST_NAMES = 12  # known names that a hint has


class Interrupted(KeyboardInterrupt):
    """A signal was received."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number  # of the signal


class RestoreError(Exception):
    """Base class of all errors that are reported to users."""

    exit_code: ClassVar[int] = 1  # exit status of the process if this error ends it

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint  # what to do next, one line, or ""


class PictureError(RestoreError):
    """One picture cannot be read, restored or written; other pictures are not affected."""


class UsageError(RestoreError):
    """The arguments contradict each other or name something that does not exist."""

    exit_code = 2


class NoInputError(RestoreError):
    """There are no usable inputs."""

    exit_code = 3


class WeightsError(RestoreError):
    """A checkpoint is missing, cannot be verified, or does not fit its model."""

    exit_code = 4


class DeviceError(RestoreError):
    """The device is not available, or is out of memory even with the smallest tiles."""

    exit_code = 5


class RecipeError(UsageError):
    """A recipe has an unknown key, a wrong type or a value out of range."""


def lookup(kind: str, name: str, known: Mapping[str, V]) -> V:
    """Return the entry of that name, of that kind, e.g. "model".

    Raises `UsageError` if the name is unknown, and suggests the nearest one.
    """
    if name not in known:
        raise unknown_name(kind, name, known)
    return known[name]


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """Return an error for an unknown name of a kind, e.g. "model", which suggests the nearest.

    Its hint has a few known names, and the command that lists all.
    """
    names = sorted(known)
    hint = f"known: {', '.join(names[:_MOST_NAMES])}"
    if more := names[_MOST_NAMES:]:
        hint += f" and {len(more)} more" + (f"; see `{_LISTS[kind]}`" if kind in _LISTS else "")
    return UsageError(f"{kind} '{name}' not found.{suggestion(name, names)}", hint=hint)


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return the known name that is most like an unknown one; "" if none is."""
    return next(iter(get_close_matches(name, list(known), n=1)), "")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" with the known name that is most like an unknown one, or ""."""
    near = nearest_name(name, known)
    return f" Did you mean '{near}'?" if near else ""


def require(extra: str, *packages: str, what: str = "this") -> None:
    """Raise a `UsageError` if a package that `what` needs is missing; its hint names the extra.

    The packages are named as they are imported.
    """
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(
                f"{what} needs the package '{package}', which is not installed",
                hint=f'pip install "restore-cli[{extra}]"',
            )
