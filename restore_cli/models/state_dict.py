"""Functions on state dicts, for detection, config inference and the authors' formats."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch

from restore_cli.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from restore_cli.models.spec import StateDict

RenameRules = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]


def count_blocks(state: StateDict, prefix: str) -> int:
    """Count modules `prefix.0`, `prefix.1`, ... that own a parameter (0 if there is none).

    >>> count_blocks({"body.0.weight": None, "body.1.weight": None, "tail.weight": None}, "body")
    2

    Raises:
        KeyError: a number is missing, or a name is not a number.
    """
    found = {key[len(prefix) + 1 :].split(".")[0] for key in state if key.startswith(prefix + ".")}
    missing = next((n for n in range(len(found)) if str(n) not in found), None)
    if missing is not None:
        raise KeyError(f"{prefix}.{missing}")
    return len(found)


def rename(name: str, rules: RenameRules) -> str:
    """Apply (pattern, replacement) rules, each to the result of the one before.

    >>> rename("a.0.b", [(r"^a", "alpha"), (r"0", "zero")])
    'alpha.zero.b'
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def rename_keys(state: StateDict, rules: RenameRules) -> dict[str, Tensor]:
    """Give a state dict new names; several old names of one parameter become one.

    Raises `WeightsError` if their values differ.
    """
    result: dict[str, Tensor] = {}
    for old, tensor in state.items():
        new = rename(old, rules)
        same = new not in result or (
            result[new].shape == tensor.shape and torch.equal(result[new], tensor)
        )
        if not same:
            raise WeightsError(
                f"'{old}' differs from another tensor of the same parameter, '{new}'",
                hint="download the file again",
            )
        result[new] = tensor
    return result


def from_tensorflow(variables: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the trainable variables of a TensorFlow 1 checkpoint, with kernels in torch's order.

    Kernels are (kh, kw, in, out), those of transposed convolutions (kh, kw, out, in); torch has the
    reverse order of channels, before the sides. The optimiser's variables are left out.
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
