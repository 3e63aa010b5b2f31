"""Options that several commands share, and the strings they take."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.errors import UsageError

if TYPE_CHECKING:
    import torch

# Every option has a variable, RESTORE_COMMAND_OPTION; named once per command, not once per option.
option = partial(typer.Option, show_envvar=False)

REPORT = "What is printed"
JsonOpt = Annotated[
    bool, option("--json", help="JSON instead of text on stdout.", rich_help_panel=REPORT)
]
QuietOpt = Annotated[
    bool,
    option("--quiet", "-q", help="No notes, no progress on stderr.", rich_help_panel=REPORT),
]
VerboseOpt = Annotated[
    int,
    option(
        "--verbose",
        "-v",
        count=True,
        metavar="",
        show_default=False,
        help="-vv shows the traceback of an error.",
        rich_help_panel=REPORT,
    ),
]
OfflineOpt = Annotated[
    bool, option("--offline", help="Fetch nothing.", rich_help_panel="Model and weights")
]
COMPUTE = "How it is computed"
DeviceOpt = Annotated[
    str,
    option(
        "--device",
        "-d",
        help="auto, cpu, cuda, cuda:N or mps; of `image` also several: cuda:0,1 or cpu,cpu.",
        metavar="DEVICE",
        rich_help_panel=COMPUTE,
    ),
]


def go_offline(*, offline: bool) -> None:
    """Fetch nothing from here on; huggingface_hub reads this when it is imported."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def parse_frame_size(text: str) -> tuple[int, int]:
    """`WIDTHxHEIGHT` -> (height, width).

    Raises:
        UsageError: anything else.
    """
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UsageError(f"--raw '{text}' is not a size", hint="WIDTHxHEIGHT, e.g. 320x180")
    return int(height), int(width)


def parse_device(text: str) -> torch.device:
    """`auto` is cuda, then mps, then cpu.

    Raises:
        UsageError: not a device.
        DeviceError: a device that is not there.
    """
    from restore_cli.inference.devices import get_device

    return get_device(text)


def parse_devices(text: str) -> list[torch.device]:
    """One device, or several: `cuda:0,1`, `cpu,cpu`; `auto` is every GPU.

    Raises:
        UsageError: not a device.
        DeviceError: a device that is not there.
    """
    import torch

    if text == "auto" and torch.cuda.device_count() > 1:
        return [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    first, *others = text.split(",")
    kind = first.partition(":")[0]
    return [parse_device(first)] + [
        parse_device(f"{kind}:{other}" if other.isdecimal() else other) for other in others
    ]


def parse_path(text: str) -> Path:
    """A path; never the current folder because a variable was empty.

    Raises:
        UsageError: the text is empty.
    """
    if not text:
        raise UsageError("an empty path was given", hint="is a shell variable unset?")
    path = Path(text)
    return path.absolute() if str(path) == "-" else path  # `./-` is a file


def parse_tile(text: str) -> int | None:
    """`auto` -> None, `off` -> 0, a number of pixels -> that number.

    Raises:
        UsageError: anything else; 0 means opposite things in other tools.
    """
    if text == "auto":
        return None
    if text == "off":
        return 0
    if not text.isdecimal():
        raise UsageError(f"--tile '{text}' is not a size", hint="auto, off, or pixels, e.g. 512")
    if int(text) == 0:
        raise UsageError(f"--tile {text} is ambiguous", hint="say --tile auto or --tile off")
    return int(text)


def parse_overlap(text: str) -> int | None:
    """`auto` -> None, a number of pixels -> that number.

    Raises:
        UsageError: anything else.
    """
    if text == "auto":
        return None
    if not text.isdecimal():
        raise UsageError(f"--overlap '{text}' is not a size", hint="auto, or pixels, e.g. 64")
    return int(text)


def parse_bit_depth(text: str) -> int | None:
    """`auto` -> None, or 8, or 16.

    Raises:
        UsageError: anything else.
    """
    if text not in ("auto", "8", "16"):
        raise UsageError(f"--bit-depth '{text}' is not known", hint="auto, 8 or 16")
    return None if text == "auto" else int(text)


def unused_gpu() -> str:
    """A remark where a GPU is there that this torch cannot use, else ""."""
    import shutil

    import torch

    if torch.version.cuda is None and torch.version.hip is None and shutil.which("nvidia-smi"):
        return (
            "there is an NVIDIA GPU, but this torch is built for the CPU only; "
            "see https://pytorch.org/get-started"
        )
    return ""


def parse_precision(text: str, device: torch.device | None) -> torch.dtype:
    """`auto` is fp32; the device is None where only others know it.

    Raises:
        UsageError: unknown, or half precision on a CPU, where it is slow and was never wanted.
    """
    import torch

    known = {
        "auto": torch.float32,
        "fp32": torch.float32,
        "fp16": torch.float16,
        "bf16": torch.bfloat16,
    }
    if text not in known:
        raise UsageError(f"--precision '{text}' is not known", hint=", ".join(known))
    if device and device.type == "cpu" and known[text] != torch.float32:
        raise UsageError(f"--precision {text} is for GPUs", hint="the CPU runs fp32")
    return known[text]


def parse_training_precision(text: str, device: torch.device) -> torch.dtype:
    """`auto` is bf16 on GPUs that have it, else fp32.

    Raises:
        UsageError: unknown, or fp16 where its gradients cannot be scaled.
    """
    import torch

    if text == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    known = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    if text not in known:
        raise UsageError(f"--precision '{text}' is not known", hint=f"auto, {', '.join(known)}")
    if text == "fp16" and device.type != "cuda":
        raise UsageError("--precision fp16 trains on CUDA only", hint="use fp32, or bf16")
    return known[text]


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N` -> (I, N), from 1.

    Raises:
        UsageError: anything else.
    """
    first, slash, count = text.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise UsageError(f"--shard '{text}' is not a part", hint="e.g. 1/8 to 8/8")
    return int(first), int(count)
