"""Devices and precisions by their names on the command line."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache

import torch
from torch.nn import functional as F

from restore_cli.errors import DeviceError, UsageError

_KNOWN = "use auto, cpu, cuda, cuda:N or mps"
_WORTH_IT = 0.8  # of the time in float32
_PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def get_device(text: str) -> torch.device:
    """Return the device of that name; `auto` is cuda if available, then mps, then cpu.

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


def get_precision(text: str, device: torch.device | None) -> torch.dtype | None:
    """Return the dtype for inference by its name: fp32, fp16, bf16 or `auto`.

    `auto` is None, since it depends on the network, or fp32 if `device` is None, since only a
    remote machine knows it. Raises `UsageError` for an unknown name, and for fp16 on a CPU, where
    it is slow.
    """
    if text == "auto":
        return None if device else torch.float32
    dtype = _precision(text)
    if device and device.type == "cpu" and dtype == torch.float16:
        raise UsageError("precision 'fp16' is for GPUs only", hint="use --precision bf16 or fp32")
    return dtype


def prefers_bf16(device: torch.device) -> bool:
    """Whether bf16 saves time on the device without a visible difference: on some CPUs."""
    return device.type == "cpu" and cpu_bf16_ratio() < _WORTH_IT


@cache
def cpu_bf16_ratio() -> float:
    """Return the time of a 3x3 convolution in bf16 over float32 on this CPU; inf if emulated.

    Measured once per process. CPUs without instructions for bf16 (AVX512_BF16 or AMX) are
    not measured: they took 2.4 times as long as in float32.
    """
    # Older versions of torch do not have the function.
    has: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if not (has.get("avx512_bf16") or has.get("amx_bf16")):
        return math.inf
    return cpu_convolution_rate(torch.float32) / cpu_convolution_rate(torch.bfloat16)


@cache
def cpu_convolution_rate(dtype: torch.dtype) -> float:
    """Return operations per second of a 3x3 convolution on this CPU; measured once, in 40 ms."""
    side, width, fastest = 128, 64, math.inf
    for _ in range(4):  # the first is slower
        x = torch.zeros(1, width, side, side, dtype=dtype).to(memory_format=torch.channels_last)
        kernel = torch.zeros(width, width, 3, 3, dtype=dtype)
        kernel = kernel.to(memory_format=torch.channels_last)
        begun = time.perf_counter()
        with torch.inference_mode():
            F.conv2d(x, kernel, padding=1)
        fastest = min(fastest, time.perf_counter() - begun)
    return 2 * 9 * width**2 * side**2 / fastest


def get_training_precision(text: str, device: torch.device) -> torch.dtype:
    """Return the dtype for training on a device by its name: fp32, fp16, bf16 or `auto`.

    `auto` is bf16 on GPUs that support it and CPUs it is faster on. Raises `UsageError` for an
    unknown name, and for fp16 without CUDA's gradient scaling.
    """
    if text == "auto":
        on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported()
        fast = on_gpu or prefers_bf16(device)
        return torch.bfloat16 if fast else torch.float32
    if text == "fp16" and device.type != "cuda":
        raise UsageError("training in precision 'fp16' needs CUDA", hint="use fp32 or bf16")
    return _precision(text)


def _precision(text: str) -> torch.dtype:
    if text not in _PRECISIONS:
        raise UsageError(f"precision '{text}' is not known", hint="use auto, fp32, fp16 or bf16")
    return _PRECISIONS[text]


def name_of(dtype: torch.dtype) -> str:
    """Return the name of a precision on the command line."""
    return next(name for name, known in _PRECISIONS.items() if known == dtype)


def get_devices(text: str) -> list[torch.device]:
    """Return one device, or several of a type: `cuda:0,1`, `cpu,cpu`; `auto` is every GPU.

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
