"""Completion of values in the shell: every list of names is read here, and only when Tab asks."""

from __future__ import annotations

from collections.abc import Callable, Iterable


def complete(kind: str, *fixed: str) -> Callable[[str], list[str]]:
    """What Typer's `autocompletion` takes.

    Args:
        kind: of names, a key of `NAMES`, or "" for the fixed ones alone.
        fixed: other words that are allowed.
    """

    def found(incomplete: str) -> list[str]:
        known = [*fixed, *(NAMES[kind]() if kind else ())]
        return [name for name in known if name.startswith(incomplete)]

    return found


def _models() -> Iterable[str]:
    from restore_cli.weights.manifest import load_manifest

    # Not the registry, which imports torch: Tab must answer in a moment.
    return dict.fromkeys(one.model for one in load_manifest().checkpoints.values())


def _weights() -> Iterable[str]:
    from restore_cli.weights import user
    from restore_cli.weights.manifest import load_manifest

    return [*load_manifest().checkpoints, *user.names()]


def _training_recipes() -> Iterable[str]:
    from restore_cli.training.recipe import ablations, shipped_recipes

    return [*shipped_recipes(), *ablations()]


def _degradations() -> Iterable[str]:
    from restore_cli.training.recipe import FOLDER  # as degradations.recipe, which imports torch

    return sorted(path.stem for path in (FOLDER.parent / "degrade").glob("*.toml"))


def _datasets() -> Iterable[str]:
    from restore_cli.benchmarking.datasets import DATASETS

    return DATASETS


NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "model": _models,
    "weights": _weights,
    "training recipe": _training_recipes,
    "degradation": _degradations,
    "dataset": _datasets,
}
