"""Remove motion blur from pictures, and enlarge them.

from restore_cli import restore
sharp = restore(blurry, model="mprnet-mscam", scale=4)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from restore_cli.errors import RestoreError
from restore_cli.version import __version__

if TYPE_CHECKING:
    from restore_cli.api import LoadedModel, list_models, load_model, restore
    from restore_cli.image import Encoding
    from restore_cli.jobs.request import Destination, Processing, RestoreRequest, Selection
    from restore_cli.models.spandrel_adapter import add_to_spandrel

__all__ = [
    "Destination",
    "Encoding",
    "LoadedModel",
    "Processing",
    "RestoreError",
    "RestoreRequest",
    "Selection",
    "__version__",
    "add_to_spandrel",
    "list_models",
    "load_model",
    "restore",
]

_HOMES = {
    "add_to_spandrel": "models.spandrel_adapter",
    "Encoding": "image",
    **dict.fromkeys(("Destination", "Processing", "RestoreRequest", "Selection"), "jobs.request"),
}


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported on demand: `restore --help` must not import torch
        home = _HOMES.get(name, "api")
        return getattr(importlib.import_module(f"restore_cli.{home}"), name)
    raise AttributeError(f"module 'restore_cli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
