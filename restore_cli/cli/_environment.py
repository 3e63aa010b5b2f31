"""Environment variables: RESTORE_COMMAND_OPTION, and those of the Hub's client."""

from __future__ import annotations

import os
import sys
from typing import Any

from restore_cli.cli._output import echo_err
from restore_cli.errors import suggestion

_SECONDS = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT")


def ignore_bad_timeouts() -> None:
    """Remove timeouts that the Hub's client cannot parse: importing it would fail."""
    for name in _SECONDS:
        text = os.environ.get(name, "")
        if text.strip() and not text.strip().isdecimal():
            del os.environ[name]
            echo_err(f"note: {name} '{text}' is not a whole number of seconds; it is ignored")


def note_unknown(context: Any, name: str, command: Any) -> None:
    """Print a note for variables of a command that belong to none of its options.

    The context is that of the root command.
    """
    if hasattr(command, "commands"):  # of a group of commands nothing is known here
        return
    usual = f"{context.auto_envvar_prefix}_{name.upper()}"
    prefix = command.context_settings.get("auto_envvar_prefix", usual)
    known = [f"{prefix}_{one.name.upper()}" for one in command.params]
    for variable in sorted(os.environ):
        if variable.startswith(f"{prefix}_") and variable not in known:
            guess = suggestion(variable, known)
            end = f".{guess}" * bool(guess)
            echo_err(f"note: no option belongs to the variable {variable}{end}")


def source_of(error: Any) -> str:
    """Return the variable that a usage error of Typer is about; "" if an option was typed."""
    context, one = getattr(error, "ctx", None), getattr(error, "param", None)
    if context is None or one is None or not one.name:
        return ""
    source = context.get_parameter_source(one.name)
    variable = f"{context.auto_envvar_prefix}_{one.name.upper()}"
    return variable if source is not None and source.name == "ENVIRONMENT" else ""


def variable_behind(message: str, prefix: str) -> str:
    """Return a remark if a value in an error's message comes from a variable; else "".

    Only variables with the command's prefix count, whose value was not typed as well.
    """
    given = message.partition(" Did you mean")[0]
    for name, value in os.environ.items():
        typed = any(argument.endswith(value) for argument in sys.argv)
        if name.startswith(prefix) and not typed and f"'{value}'" in given:
            return f"'{value}' is the value of {name}"
    return ""
