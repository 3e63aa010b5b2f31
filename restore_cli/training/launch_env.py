"""The environment variables of `torchrun` and `accelerate launch`."""

from __future__ import annotations

import os

from restore_cli.errors import UsageError


def world_size(variable: str = "WORLD_SIZE") -> int:
    """Count the processes of the group, or with LOCAL_WORLD_SIZE on this machine; 1 if not set.

    Raises `UsageError` if it is not a number, or another variable of a group is not set.
    """
    hint = f"unset {variable}, or start the group with torchrun"
    text = os.environ.get(variable, "1")
    if not text.isdecimal() or not int(text):
        raise UsageError(f"{variable} is '{text}', not a number of processes", hint=hint)
    for needed in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if int(text) > 1 and not os.environ.get(needed):
            raise UsageError(f"{variable} is {text}, but {needed} is not set", hint=hint)
    return int(text)


def is_main_process() -> bool:
    """Whether this process is the only one or the first of its group; errors as in `world_size`."""
    return world_size() == 1 or os.environ["RANK"] == "0"
