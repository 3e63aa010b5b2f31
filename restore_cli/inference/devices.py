"""Devices and precisions by their names on the command line."""

from __future__ import annotations

from collections.abc import Callable

import torch

from restore_cli.errors import DeviceError, UsageError

_KNOWN = "use auto, cpu, cuda, cuda:N or mps"
_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def get_device(text: str) -> torch.device:
    """The device of that name; `auto` is cuda if available, then mps, then cpu.

    Raises:
        UsageError: the name is not that of a device.
        DeviceError: the device is not available.
    """
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise UsageError(f"device '{text}' is not known", hint=_KNOWN) from error
    available: dict[str, Callable[[], bool]] = {
        "cpu": lambda: True,
        "mps": torch.backends.mps.is_available,
        "cuda": lambda: torch.cuda.device_count() > (device.index or 0),
    }
    if device.type not in available:
        raise UsageError(f"device '{text}' is not supported", hint=_KNOWN)
    if not available[device.type]():
        raise DeviceError(f"device '{text}' is not available", hint="use --device cpu")
    return device


def get_precision(text: str, device: torch.device | None) -> torch.dtype:
    """The dtype for inference; `auto` is fp32.

    Args:
        text: auto, fp32, fp16 or bf16.
        device: device to run on; None if only a remote machine knows it.

    Raises:
        UsageError: the name is unknown, or half precision was asked for on a CPU, where it is slow.
    """
    dtype = torch.float32 if text == "auto" else _precision(text)
    if device and device.type == "cpu" and dtype != torch.float32:
        raise UsageError(f"precision '{text}' is for GPUs only", hint="use --precision fp32")
    return dtype


def get_training_precision(text: str, device: torch.device) -> torch.dtype:
    """The dtype for training; `auto` is bf16 on GPUs that support it, else fp32.

    Args:
        text: auto, fp32, fp16 or bf16.
        device: device to train on.

    Raises:
        UsageError: the name is unknown, or fp16 was asked for without CUDA's gradient scaling.
    """
    if text == "auto":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    if text == "fp16" and device.type != "cuda":
        raise UsageError("training in precision 'fp16' needs CUDA", hint="use fp32 or bf16")
    return _precision(text)


def _precision(text: str) -> torch.dtype:
    if text not in _PRECISIONS:
        raise UsageError(f"precision '{text}' is not known", hint="use auto, fp32, fp16 or bf16")
    return _PRECISIONS[text]


def get_devices(text: str) -> list[torch.device]:
    """One device, or several of a type: `cuda:0,1`, `cpu,cpu`; `auto` is every GPU.

    Raises:
        UsageError: a name is not that of a device.
        DeviceError: a device is not available.
    """
    if text == "auto" and torch.cuda.device_count() > 1:
        return [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    first, *others = text.split(",")
    kind = first.partition(":")[0]
    return [get_device(first)] + [
        get_device(f"{kind}:{other}" if other.isdecimal() else other) for other in others
    ]
