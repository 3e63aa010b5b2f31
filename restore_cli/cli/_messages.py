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

from restore_cli.cli import _terminal
from restore_cli.cli._environment import variable_behind
from restore_cli.cli._output import echo_err
from restore_cli.cli._signals import exit_status_for
from restore_cli.errors import RestoreError, UsageError
from restore_cli.files import FULL, remedy
from restore_cli.formatting import first_line

_REFUSED = {EACCES, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS, EEXIST, EIO} | FULL
_OWN = __name__.partition(".")[0]
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
        _terminal.quiet = bool(kwargs.get("quiet"))
        try:
            _check_not_empty(command, kwargs)
            return command(*args, **kwargs)
        except Exception as caught:  # noqa: BLE001  unknown ones are raised again
            error = caught if isinstance(caught, RestoreError) else _reportable(caught)
            if int(str(kwargs.get("verbose") or 0)) > 0:
                echo_err(traceback.format_exc().rstrip())
            prefix = f"RESTORE_{command.__module__.rpartition('.')[2].upper()}_"
            remark = variable_behind(str(error), prefix)
            error.hint = "; ".join(filter(None, (error.hint, remark)))
            print_error(error)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as stop:
            echo_err("interrupted; no incomplete files are left")
            raise typer.Exit(exit_status_for(stop)) from None

    return wrapper


def _broken_package(error: Exception) -> str:
    """Name the package of others whose import raised an exception; "" if none did."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return error.name.partition(".")[0].removeprefix(_OWN)
    package = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):  # it has no frames of importlib
        module = str(frame.f_globals.get("__name__")).partition(".")[0]
        if module == _OWN:
            package = ""
        elif frame.f_code.co_name == "<module>":
            package = package or module
    return package


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


def _reportable(error: Exception) -> RestoreError:
    """Convert an error of the file system, or of a package's import, to a `RestoreError`."""
    if package := _broken_package(error):
        cause: BaseException = error
        while cause.__cause__ is not None:  # packages wrap errors in advice
            cause = cause.__cause__
        reason = f"cannot import the package '{package}': {first_line(cause)}"
        return RestoreError(reason, hint="install it again; `restore doctor` checks all packages")
    if not isinstance(error, OSError) or error.errno not in _REFUSED or error.filename is None:
        raise error
    hint = remedy(error) if error.errno in FULL else ""
    if error.errno in (EACCES, EPERM):
        hint = "check its permissions, and those of its folder"
    return RestoreError(f"cannot use '{error.filename}': {error.strerror}", hint=hint)
