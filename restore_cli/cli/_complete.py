"""Shell completion: names of models, weights, recipes and datasets, and fixed choices.

Only the names of datasets need torch. The rest is read from files, so that completion is fast.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from restore_cli.option_values import OPTION_VALUES

PACKAGE = Path(__file__).parent.parent


@cache
def networks() -> dict[str, int]:
    """Names of models and their scales; each network's file begins with its name."""
    found = {}
    for path in sorted((PACKAGE / "models").glob("*.py")):
        with path.open(encoding="utf-8") as file:
            first = file.readline()
        if name := re.match(r'"""([a-z0-9-]+): ', first):
            found[name[1]] = 4 if "x4" in first else 1
    return found


def models() -> Iterator[str]:
    """Names of models."""
    yield from (*networks(), "bicubic")


def weights() -> Iterator[str]:
    """Names of the known checkpoints and of the user's own weights."""
    from restore_cli.weights.user import all_names

    yield from all_names()


def datasets() -> Iterator[str]:
    """Names of datasets."""
    from restore_cli.datasets.registry import DATASETS

    yield from DATASETS


def training_recipes() -> Iterator[str]:
    """Names of the recipes of `restore train`, including ablations."""
    from restore_cli.training.recipe import ablations, shipped_recipes

    yield from (*shipped_recipes(), *ablations())


def degradations() -> Iterator[str]:
    """Names of the recipes of `restore degrade`, from files: their own module needs torch."""
    return iter(sorted(path.stem for path in (PACKAGE / "recipes" / "degrade").glob("*.toml")))


VALUES: dict[str, Callable[[], Iterator[str]]] = {
    "model": models,
    "models": models,
    "weights": weights,
    "dataset": datasets,
    "train recipe": training_recipes,
    "degrade recipe": degradations,
    "degrade": degradations,
    "models name": models,
    "weights name": weights,
    "weights names": weights,
}


def values_of(command: str, parameter: str) -> list[str]:
    """Return the possible values of a parameter (its name in Python); empty if any is allowed.

    A command of a group, e.g. `weights add`, has those of the group.
    """
    source = VALUES.get(f"{command} {parameter}") or VALUES.get(parameter)
    return list(source() if source else OPTION_VALUES.get(parameter, ()))


def complete(command: str, parameter: str) -> Callable[[Any, Any, str], list[str]] | None:
    """Return the completion function for Typer, or None to complete file names."""
    known = parameter in OPTION_VALUES or parameter in VALUES or f"{command} {parameter}" in VALUES
    if not known:
        return None

    def begun(_context: Any, _parameter: Any, incomplete: str) -> list[str]:
        before, plus, last = incomplete.rpartition("+")  # --model A+B
        names = (name for name in values_of(command, parameter) if name.startswith(last))
        return [f"{before}{plus}{name}" for name in names]

    return begun
