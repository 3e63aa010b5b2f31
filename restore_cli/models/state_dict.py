"""Pure functions of state-dict keys and shapes, for detection and config inference."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from restore_cli.models.spec import StateDict


def count_blocks(state: StateDict, prefix: str) -> int:
    """Number of modules `prefix.0`, `prefix.1`, ... that own a parameter (0 if there is none).

    >>> count_blocks({"body.0.weight": None, "body.1.weight": None, "tail.weight": None}, "body")
    2
    """
    found = {
        int(key[len(prefix) + 1 :].split(".")[0]) for key in state if key.startswith(prefix + ".")
    }
    return max(found, default=-1) + 1


def rename(name: str, rules: Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]) -> str:
    """Apply (pattern, replacement) rules, each to the result of the one before.

    >>> rename("a.0.b", [(r"^a", "alpha"), (r"0", "zero")])
    'alpha.zero.b'
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
