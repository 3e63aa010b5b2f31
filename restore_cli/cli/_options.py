"""Options that several commands share, and parsers of their values."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from restore_cli.errors import UsageError

# Every option has an environment variable, RESTORE_COMMAND_OPTION; the help of a command names one.
option = partial(typer.Option, show_envvar=False)

COMPUTE, REPORT = "Computation", "Messages"
DATA_ROOT = "data"  # default of --data-root
JsonOpt = Annotated[
    bool, option("--json", help="Print JSON instead of text on stdout.", rich_help_panel=REPORT)
]
QuietOpt = Annotated[
    bool, option("--quiet", "-q", help="Print no notes and no progress.", rich_help_panel=REPORT)
]
VerboseOpt = Annotated[
    int,
    option(
        "--verbose",
        "-v",
        count=True,
        metavar="",
        show_default=False,
        help="Show the traceback of errors.",
        rich_help_panel=REPORT,
    ),
]
OfflineOpt = Annotated[
    bool, option("--offline", help="Do not download anything.", rich_help_panel="Model and weights")
]
DeviceOpt = Annotated[
    str,
    option(
        "--device",
        "-d",
        help="auto, cpu, cuda, cuda:N or mps.",
        metavar="DEVICE",
        rich_help_panel=COMPUTE,
    ),
]
TlscWindowOpt = Annotated[
    int | None,
    option(help="Side of these windows, input pixels.", min=32, rich_help_panel=COMPUTE),
]


def panel(name: str) -> Callable[..., Any]:
    """Return `option` for a group of options that `--help` shows together."""
    return partial(option, rich_help_panel=name)


def list_without_command(context: typer.Context, show: Callable[[], object]) -> None:
    """List what a group of commands is about, if it is called without a command.

    `--json` between the group and its command is a `UsageError`, since the command would not see
    it. The environment variable applies only to the group.
    """
    if context.invoked_subcommand is None:
        show()
        return
    source = context.get_parameter_source("json")
    if source is not None and source.name == "COMMANDLINE":
        command = f"{context.command_path} {context.invoked_subcommand}"
        raise UsageError("--json comes after the command", hint=f"{command} --help")


def go_offline(*, offline: bool) -> None:
    """Disable downloads. Must run before huggingface_hub is imported, which reads this."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _is_number(text: str) -> bool:
    """Whether a text is a whole number of at most nine digits; `int` refuses very long ones."""
    return text.isdecimal() and len(text) <= 9


def parse_frame_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` -> (height, width); anything else raises `UsageError`."""
    from restore_cli.inference.sizing import parse_box

    if size := parse_box(text, "--raw"):
        return size
    raise UsageError(f"--raw '{text}' is not a size", hint="WIDTHxHEIGHT, e.g. 320x180")


def parse_path(text: str) -> Path:
    """Parse a path; `./-` is a file, not a pipe."""
    path = Path(text)
    return path.absolute() if str(path) == "-" else path


def check_not_a_file(folder: Path, option: str = "--output") -> None:
    """Raise a `UsageError` if a path that must be a folder is a file."""
    if folder.is_file():
        raise UsageError(f"{option} '{folder}' is a file", hint="give a folder")


def parse_pixels(text: str, name: str) -> int | None:
    """`auto` -> None, a number of pixels -> that number; for --tile also `off` -> 0.

    Anything else is a `UsageError`; --tile 0 has opposite meanings in other tools.
    """
    tile = name == "--tile"
    if text == "auto":
        return None
    if tile and text == "off":
        return 0
    if not _is_number(text):
        raise UsageError(
            f"{name} '{text}' is not a size", hint=f"use auto{', off' * tile} or pixels, e.g. 512"
        )
    if tile and int(text) == 0:
        raise UsageError(f"--tile {text} is ambiguous", hint="use --tile auto or --tile off")
    return int(text)


def parse_tlsc(on: bool | None, window: int | None) -> bool | int | None:
    """Switch TLSC on if a window is given; with --no-tlsc that is a `UsageError`."""
    if window is not None and on is False:
        raise UsageError("--tlsc-window contradicts --no-tlsc", hint="leave one of them out")
    return on if window is None else window


def unused_gpu() -> str:
    """Return a remark if there is a GPU that this torch cannot use, else ""."""
    import shutil

    import torch

    if torch.version.cuda is None and torch.version.hip is None and shutil.which("nvidia-smi"):
        return (
            "there is an NVIDIA GPU, but this torch is built for the CPU only; "
            "see https://pytorch.org/get-started"
        )
    return ""


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N` -> (I, N), counted from 1; anything else raises `UsageError`."""
    first, slash, count = text.partition("/")
    numbers = slash and _is_number(first) and _is_number(count)
    if not (numbers and 1 <= int(first) <= int(count)):
        raise UsageError(f"--shard '{text}' is not I/N with I from 1 to N", hint="e.g. 1/8 to 8/8")
    return int(first), int(count)
