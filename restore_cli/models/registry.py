"""The registry: the table of all models."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from restore_cli.errors import WeightsError, lookup
from restore_cli.models.attentive_deblur import ATTENTIVE_DEBLUR
from restore_cli.models.gfn import GFN
from restore_cli.models.maxim import MAXIM
from restore_cli.models.maxim_mscam import MAXIM_MSCAM
from restore_cli.models.moadg import MOADG
from restore_cli.models.mprnet import MPRNET
from restore_cli.models.mprnet_mscam import MPRNET_MSCAM
from restore_cli.models.msan import MSAN
from restore_cli.models.spec import Model, PublishedFormat, StateDict

_MODELS = (
    MAXIM_MSCAM,
    MPRNET_MSCAM,
    GFN,
    MOADG,
    MAXIM,
    MPRNET,
    MSAN,
    ATTENTIVE_DEBLUR,
)
MODELS: Mapping[str, Model] = MappingProxyType({model.name: model for model in _MODELS})


def get_model(name: str) -> Model:
    """Return the model of that name, or raise a `UsageError` that suggests the closest."""
    return lookup("model", name, MODELS)


def published_formats(state: StateDict) -> list[tuple[Model, PublishedFormat]]:
    """Return the models and formats of published files that a state dict fits."""
    return [
        (model, published)
        for model in MODELS.values()
        for published in model.published
        if published.recognises(state)
    ]


def detect(state: StateDict) -> Model | None:
    """Return the model that a state dict fits, or None; raises `WeightsError` if several do."""
    found = [model for model in MODELS.values() if model.detect(state)]
    if len(found) > 1:
        names = ", ".join(model.name for model in found)
        raise WeightsError(
            f"the keys of the weights match more than one model: {names}",
            hint=f"first keys: {', '.join(sorted(state)[:3])}",
        )
    return found[0] if found else None
