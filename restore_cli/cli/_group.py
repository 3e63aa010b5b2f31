"""The root command: `restore photo.jpg`, `help`, `version`, and the style of errors and help."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from errno import ENOSPC
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from restore_cli.cli._complete import complete
from restore_cli.cli._environment import note_unknown, source_of
from restore_cli.cli._messages import print_error
from restore_cli.cli._output import echo_err
from restore_cli.cli._signals import exit_status_for
from restore_cli.errors import RestoreError, UsageError, suggestion, unknown_name
from restore_cli.files import is_closed_pipe

# Options of other tools for what `restore image` does.
_ELSEWHERE = {
    **dict.fromkeys(("-i", "--input"), "the name of the file alone"),
    **dict.fromkeys(("-g", "--gpu", "--gpu-id", "--gpuid"), "--device, e.g. --device cuda:0"),
    **dict.fromkeys(("--tta", "--tta-mode"), "--self-ensemble"),
    **dict.fromkeys(("--overwrite", "--force", "-f", "-y"), "--on-exists overwrite"),
    **dict.fromkeys(("--suffix", "--postfix"), 'a template, e.g. -o "{name}_sharp.{ext}"'),
    **{
        "--outscale": "--scale",
        "--fp32": "--precision fp32",
        "--half": "--precision bf16",
        "--cpu": "--device cpu",
    },
}
# Commands of other tools, and what does that here; of the groups, if they have that command.
_COMMANDS = {
    **dict.fromkeys(("upscale", "deblur", "sharpen", "enhance", "run"), "`restore image`"),
    **dict.fromkeys(
        ("ls", "list"), "`restore models`, `restore weights list` or `restore recipes list`"
    ),
    **dict.fromkeys(("rm", "delete", "remove"), "`restore weights remove`"),
    **dict.fromkeys(("download", "fetch", "pull"), "`restore weights fetch`"),
    **dict.fromkeys(("finetune", "fine-tune", "fit"), "`restore train`"),
    **dict.fromkeys(("eval", "evaluate", "test", "score"), "`restore benchmark`"),
    **dict.fromkeys(("gui", "ui", "web", "server"), "`restore serve`"),
    **dict.fromkeys(("show", "describe"), "`restore info`"),
    "convert": "`restore weights convert`",
    "export": "`restore weights export` or `restore weights convert --to onnx`",
    "import": "`restore weights import`",
    "verify": "`restore weights verify`",
    "compare": "`restore image --compare`",
    "weights info": "`restore info`",
    "weights show": "`restore info`",
    "weights push": "`restore weights export --push-to-hub`",
    "weights upload": "`restore weights export --push-to-hub`",
}
_SYNONYMS = {
    "ls": "list",
    **dict.fromkeys(("rm", "delete", "del", "uninstall"), "remove"),
    **dict.fromkeys(("download", "pull", "get"), "fetch"),
    **dict.fromkeys(("describe", "show"), "info"),
    **dict.fromkeys(("install", "register"), "add"),
    **dict.fromkeys(("init", "cat", "info"), "show"),
}
_EVERYWHERE = ("--no-color", "--no-progress")  # options of `restore` itself
DEFAULT_COMMAND = "image"  # the command that runs if the first word is a picture


class RestoreGroup(TyperGroup):
    """The commands of `restore`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, command in self.commands.items():
            _tidy(command, name)

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the options of `restore` itself, after Typer has added those for completion."""
        _unify_help(self, "")
        parameters: list[Any] = super().get_params(ctx)
        return parameters

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the name of the command, the command, and the remaining arguments.

        A word that is neither a command nor a picture raises `UsageError`, with the nearest name.
        """
        name = args[0]
        if ctx.resilient_parsing and name not in self.commands and not _is_picture(name):
            return None, None, []  # a shell completes words: names of commands, after `help` too
        if name == "help" and len(args) == 1:
            typer.echo(ctx.get_help())
            ctx.exit()
        if name == "help":
            args = [*args[1:], "--help"]
        elif name == "version":
            args = ["--version"]
        elif name not in self.commands and _is_picture(name):
            args = [DEFAULT_COMMAND, *args]
        if args[0] == "--version":
            self.parse_args(ctx, args)
        if args[0] not in self.commands:
            raise _unknown_command(args[0], self.commands, also=("help", "version"))
        resolved: tuple[str | None, Any, list[str]] = super().resolve_command(ctx, args)
        if not ctx.resilient_parsing and not {"-q", "--quiet"} & {*args}:
            note_unknown(ctx, args[0], resolved[1])
        return resolved

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override]
        """Run, print errors as plain lines, and exit with their status."""
        # Not left to Typer, which on Windows would replace `*`, `[1]`, `~` and `$` in all of them.
        given = sys.argv[1:] if args is None else list(args)
        stop = given.index("--") if "--" in given else len(given)
        # Our own options may also stand behind the command.
        given[:stop] = sorted(given[:stop], key=lambda one: one not in _EVERYWHERE)
        standalone = extra.pop("standalone_mode", True)
        extra["standalone_mode"] = False
        if not standalone:
            return super().main(given, **extra)
        try:
            status = super().main(given, **extra)
        except RestoreError as error:
            print_error(error)
            sys.exit(error.exit_code)
        except typer.Abort as error:
            echo_err("interrupted")
            sys.exit(exit_status_for(error.__cause__))
        except SystemExit as end:  # raised by rich if the reader of the help has closed the pipe
            sys.exit(0 if is_closed_pipe(end.__context__) else end.code)
        except OSError as error:  # of the help, or of `--install-completion`
            installs = "--install-completion" in given
            if not installs and (error.filename is not None or error.errno != ENOSPC):
                raise
            place = f"'{error.filename}'" if installs else "to stdout"
            hint = "use --show-completion" if installs else ""
            print_error(RestoreError(f"cannot write {place}: {error.strerror}", hint=hint))
            sys.exit(RestoreError.exit_code)
        except Exception as error:
            # Typer's own exceptions; their module changed when Typer vendored click.
            if not hasattr(error, "format_message"):
                if any(re.fullmatch(r"_RESTORE\w*_COMPLETE", name) for name in os.environ):
                    sys.exit(1)  # a traceback would end up in the shell's line
                raise
            show_usage(error)
            sys.exit(int(getattr(error, "exit_code", 2)))
        sys.exit(status if isinstance(status, int) else 0)


def show_usage(error: Any) -> None:
    """Print a usage error of Typer in the style of all other errors."""
    context = getattr(error, "ctx", None)
    hint = f"{context.command_path} --help" if context else "restore --help"
    if variable := source_of(error):
        value = f"{variable} '{os.environ[variable]}'"
        kind = "neither 1 nor 0" if error.param.is_flag else "not valid"
        reason = _bad_number(error, variable) or f"{value} is {kind}"
        print_error(UsageError(reason, hint=f"correct or unset it; see {hint}"))
        return
    if type(error).__name__ == "NoArgsIsHelpError":
        return  # it printed the help
    if type(error).__name__ == "NoSuchOption":
        image = context is not None and context.command.name in (DEFAULT_COMMAND, "restore")
        known = _ELSEWHERE.get(error.option_name) if image else None
        guess = f" Use {known}." if known else ""
        guess = guess or suggestion(error.option_name, error.possibilities or ())
        print_error(UsageError(f"option '{error.option_name}' not found.{guess}", hint=hint))
        return
    if number := _bad_number(error, ""):
        print_error(UsageError(number, hint=hint))
        return
    if unknown := re.match(r"No such command '(.*?)'", error.message):
        commands = context.command.commands if context else {}
        group = context.command.name if context else ""
        print_error(_unknown_command(unknown[1], commands, group))
        return
    message = error.format_message().strip().removesuffix(".")
    if extra := re.match(r"Got unexpected extra argument\S* \((.*)\)", message):
        message = f"unexpected argument '{extra[1]}'"
    print_error(UsageError(message[:1].lower() + message[1:], hint=hint))


def _unknown_command(
    name: str, commands: Mapping[str, Any], group: str = "", also: Sequence[str] = ()
) -> UsageError:
    """Return an error that names the command here for one of another tool, else the nearest."""
    known = [*(label for label, command in commands.items() if not command.hidden), *also]
    use = _COMMANDS.get(f"{group} {name}".lstrip())
    if group and (same := _SYNONYMS.get(name)) in known:
        use = f"`restore {group} {same}`"
    if use is None:
        return unknown_name("command", name, known)
    return UsageError(f"command '{name}' not found. Use {use}.", hint="restore --help")


def _bad_number(error: Any, name: str) -> str:
    """Return a message with value and range of an invalid number, else ""; Typer's lacks them.

    It calls the number `name`, or by its option if that is "".
    """
    one: Any = getattr(error, "param", None)
    cause = error.__cause__ or error.__context__
    if not hasattr(cause, "errors") or not hasattr(one, "min") or _metavar(one) != "N":
        return ""
    whole = "whole number" if "int" in _kind(one) else "number"
    limits = {(True, True): f"from {one.min} to {one.max}", (True, False): f"of at least {one.min}"}
    limit = limits.get((one.min is not None, one.max is not None), "")
    return f"{name or one.opts[0]} '{cause.errors()[0]['input']}' is not a {whole} {limit}".rstrip()


def _is_picture(name: str) -> bool:
    """Whether the first word is an input of `restore image`."""
    if name.startswith("-"):
        return name == "-"
    return any(sign in name for sign in "*?[/\\.") or Path(name).exists()


def _tidy(command: Any, name: str) -> None:
    """Set up help and completion of a command and its subcommands."""
    for inner in getattr(command, "commands", {}).values():
        _tidy(inner, name)
    _unify_help(command, name)


def _unify_help(command: Any, name: str) -> None:
    """No type beside flags and arguments, a metavar beside all others, a paragraph per example."""
    command.epilog = re.sub(r"\n+(?=  \S)", "\n\n", command.epilog or "")
    help_option = type(command).get_help_option
    command.get_help_option = lambda ctx: _without_variable(help_option(command, ctx))
    for one in command.params:
        if one.name.endswith("_completion"):
            _without_variable(one)
        elif getattr(one, "is_flag", False) or getattr(one, "count", False):
            _untyped(one)
        elif one.param_type_name == "argument":
            one.metavar = one.metavar or one.name.upper()
            one.display_type_rich = lambda ctx: ""  # its name is descriptive
        elif not one.metavar:
            one.metavar = _metavar(one)
        one._get_number_range_help_str = lambda: ""  # the help text states it
        known = complete(name, one.name)
        if known is not None and one._custom_shell_complete is None:
            one._custom_shell_complete = known


def _untyped(flag: Any) -> Any:
    if flag is not None:
        flag.metavar = ""
    return flag


def _without_variable(flag: Any) -> Any:
    if flag is not None:
        flag.show_envvar = flag.allow_from_autoenv = False
    return _untyped(flag)


def _kind(one: Any) -> str:
    """Return the type of a parameter, as text."""
    return str(
        getattr(getattr(one, "type_descriptor", None), "annotation", getattr(one, "type", ""))
    )


def _metavar(one: Any) -> str:
    kind = _kind(one)
    if "Path" in kind:
        return "PATH"
    return "N" if any(number in kind.lower() for number in ("int", "float")) else "TEXT"
