"""Pure functions of state dicts, for detection, config inference and the authors' formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from restore_cli.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from restore_cli.models.spec import StateDict

Rules = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]


def count_blocks(state: StateDict, prefix: str) -> int:
    """Number of modules `prefix.0`, `prefix.1`, ... that own a parameter (0 if there is none).

    >>> count_blocks({"body.0.weight": None, "body.1.weight": None, "tail.weight": None}, "body")
    2

    Raises:
        KeyError: a number is missing, or is none.
    """
    found = {key[len(prefix) + 1 :].split(".")[0] for key in state if key.startswith(prefix + ".")}
    missing = next((n for n in range(len(found)) if str(n) not in found), None)
    if missing is not None:
        raise KeyError(f"{prefix}.{missing}")
    return len(found)


def rename(name: str, rules: Rules) -> str:
    """Apply (pattern, replacement) rules, each to the result of the one before.

    >>> rename("a.0.b", [(r"^a", "alpha"), (r"0", "zero")])
    'alpha.zero.b'
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def renamed(state: StateDict, rules: Rules) -> dict[str, Tensor]:
    """A state dict under new names; several old names of one parameter become one.

    Raises:
        WeightsError: old names that share a new one hold different values.
    """
    result: dict[str, Tensor] = {}
    for old, tensor in state.items():
        new = rename(old, rules)
        same = new not in result or (
            result[new].shape == tensor.shape and torch.equal(result[new], tensor)
        )
        if not same:
            raise WeightsError(f"'{old}' must equal the other names of the same parameter, '{new}'")
        result[new] = tensor
    return result


def from_tensorflow(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trainable variables of a TensorFlow 1 checkpoint, kernels in torch's order.

    Kernels are (kh, kw, in, out), and (kh, kw, out, in) of transposed convolutions; torch has both
    the other way round. The optimiser's slots and counters are left out.
    """
    plain = {name.removesuffix(":0"): tensor for name, tensor in variables.items()}
    trained = {
        name: tensor
        for name, tensor in plain.items()
        if not re.search(r"(/Adam(_1)?|^beta\d_power|^Variable|^global_step)$", name)
    }
    return {
        name: tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor
        for name, tensor in trained.items()
    }
