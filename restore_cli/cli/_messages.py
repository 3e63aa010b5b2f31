"""Errors as one line and a hint on stderr, and their exit status."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable, Mapping
from errno import EACCES, EEXIST, EIO, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS
from inspect import signature
from typing import ParamSpec, TypeVar, get_type_hints

import typer
from typer.models import ArgumentInfo

from restore_cli.cli._output import echo_err
from restore_cli.cli._signals import exit_status_for
from restore_cli.errors import RestoreError, UsageError
from restore_cli.files import FULL, remedy

_REFUSED = {EACCES, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS, EEXIST, EIO} | FULL
P = ParamSpec("P")
R = TypeVar("R")


def print_error(error: RestoreError) -> None:
    """Print `error: …` and, if there is one, `hint: …`."""
    echo_err(f"error: {error}".replace("\n", r"\n"))  # in the name of a file
    if error.hint:
        echo_err(f"hint: {error.hint}".replace("\n", r"\n"))


def handle_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Convert a `RestoreError`, Ctrl-C and SIGTERM into messages and exit codes.

    Other exceptions are bugs and keep their traceback. `-v` always shows the traceback.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            _check_not_empty(command, kwargs)
            return command(*args, **kwargs)
        except (RestoreError, OSError) as caught:
            error = caught if isinstance(caught, RestoreError) else _of_system(caught)
            if int(str(kwargs.get("verbose") or 0)) > 0:
                echo_err(traceback.format_exc().rstrip())
            print_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as stop:
            echo_err("interrupted; no incomplete files are left")
            raise typer.Exit(exit_status_for(stop)) from None

    return wrapper


def _check_not_empty(command: Callable[..., object], given: Mapping[str, object]) -> None:
    """Refuse an empty value of an option or an argument, unless its default is empty."""
    usual = signature(command).parameters
    for name, value in given.items():
        empty = value == "" or (isinstance(value, list) and "" in value)
        if empty and name in usual and usual[name].default != "":
            label = _label(command, name)
            raise UsageError(f"{label} is empty", hint="is a shell variable unset?")


def _label(command: Callable[..., object], name: str) -> str:
    """Return what a parameter of a command is called on the command line."""
    about = get_type_hints(command, include_extras=True)[name].__metadata__[0]
    if isinstance(about, ArgumentInfo):
        return str(about.metavar or name.upper()).strip("[].")
    spellings = (about.default, *about.param_decls)  # Typer has the first in place of the default
    typed = [text for text in spellings if isinstance(text, str) and text.startswith("--")]
    return typed[0] if typed else "--" + name.strip("_").replace("_", "-")


def _of_system(error: OSError) -> RestoreError:
    """Convert an error of the file system to a `RestoreError`.

    Raises:
        OSError: the error is of another kind, hence a bug.
    """
    if error.errno not in _REFUSED or error.filename is None:
        raise error
    hint = remedy(error) if error.errno in FULL else ""
    return RestoreError(f"cannot use '{error.filename}': {error.strerror}", hint=hint)
