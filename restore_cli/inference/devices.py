"""Where networks run, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch

from restore_cli.errors import DeviceError, UsageError

_KNOWN = "auto, cpu, cuda, cuda:N, mps"


def get_device(text: str) -> torch.device:
    """`auto` is cuda, then mps, then cpu.

    Raises:
        UsageError: not a device.
        DeviceError: a device that is not there.
    """
    if text == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(text)
    except RuntimeError as error:
        raise UsageError(f"device '{text}' is not known", hint=_KNOWN) from error
    there: dict[str, Callable[[], bool]] = {
        "cpu": lambda: True,
        "mps": torch.backends.mps.is_available,
        "cuda": lambda: torch.cuda.device_count() > (device.index or 0),
    }
    if device.type not in there:
        raise UsageError(f"device '{text}' is not supported", hint=_KNOWN)
    if not there[device.type]():
        raise DeviceError(f"device '{text}' is not there", hint="use --device cpu")
    return device
