"""Parts of a network that are initialised from checkpoints and may stay frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from restore_cli.errors import UsageError, WeightsError
from restore_cli.inference.loading import full_state_dict, load_network
from restore_cli.training.recipe import Phase, TrainingRecipe
from restore_cli.weights.checkpoint import name_in_network
from restore_cli.weights.store import locate, read


def load_parts(network: nn.Module, recipe: TrainingRecipe) -> None:
    """Load the checkpoints that the recipe names into parts of the network.

    Raises:
        UsageError: the module or the checkpoint does not exist.
        WeightsError: the weights do not fit the module.
    """
    modules = dict(network.named_modules())
    for name, weights in recipe.parts.items():
        if name not in modules:
            raise UsageError(
                f"the recipe's parts name '{name}', but the network has no such module",
                hint=f"its modules: {', '.join(dict(network.named_children()))}",
            )
        state = load_network(locate(weights, None)).network.state_dict()
        try:
            modules[name].load_state_dict(state)
        except RuntimeError as error:
            raise WeightsError(
                f"'{weights}' does not fit '{name or recipe.model}': "
                f"{str(error).splitlines()[1].strip()}",
                hint="the recipe's config must be that of the checkpoint",
            ) from error


def split_stored(
    tensors: dict[str, Tensor], recipe: TrainingRecipe
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the float32 tensors that a file has to store, and the checkpoints with the others.

    Returns:
        tensors that differ from those checkpoints; sha256 of the checkpoints by module.
    """
    own, parts = dict(tensors), {}
    for module, weights in recipe.parts.items():
        file = locate(weights, None)
        if file.checkpoint is None:  # other installations know listed checkpoints only
            continue
        stored = {
            name_in_network(module, name): tensor
            for name, tensor in full_state_dict(read(file), weights).items()
        }
        same = [
            name
            for name, tensor in stored.items()
            if name in own and torch.equal(own[name].cpu(), tensor)
        ]
        if same:
            parts[module] = file.sha256
            own = {name: tensor for name, tensor in own.items() if name not in same}
    return own, parts


def untouched(part: str, names: Collection[str], phases: Collection[Phase]) -> bool:
    """Whether none of the phases trains any parameter of a part."""
    own = [name for name in names if name.startswith(f"{part}.")]
    patterns = {pattern for phase in phases for pattern in phase.trained}
    return not any(fnmatchcase(name, pattern) for name in own for pattern in patterns)


def digest(module: nn.Module) -> str:
    """Return the sha256 of a module's weights."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(f"{name} {tuple(tensor.shape)}\n".encode())
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
