"""The table of models, and that every listed one keeps its promises."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import slow
from promises import assert_model_keeps_its_promises

from restore_cli.errors import UsageError, WeightsError
from restore_cli.models import registry
from restore_cli.models.mprnet_mscam import MPRNET_MSCAM
from restore_cli.models.registry import MODELS, detect, get_model


# Those of maxim take as long as all others together; `test_maxim.py` holds its arithmetic.
@pytest.mark.parametrize("name", [slow(n) if n.startswith("maxim") else n for n in MODELS])
def test_model_keeps_its_promises(name):
    assert_model_keeps_its_promises(MODELS[name])


def test_no_model_hides_another():
    assert len(MODELS) == len(registry._MODELS)


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        MODELS["other"] = MPRNET_MSCAM


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'mprnet-mscam'"):
        get_model("mprnet-mscan")


def test_the_network_of_august_2018_has_the_published_number_of_parameters():
    with torch.device("meta"):
        network = MODELS["gfn"].build(MODELS["gfn"].configs["august-2018"])
    assert sum(p.numel() for p in network.parameters()) == 12_216_582


def test_foreign_weights_are_nobodys():
    assert detect({"conv.weight": torch.zeros(1)}) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wings": 2}, "unknown fields"),
        ({"features": "96"}, "is not int"),
        ({"image_skip": 1}, "is not bool"),
        ({"features": True}, "is not int"),
    ],
)
def test_stored_configs_are_checked(values, message):
    with pytest.raises(WeightsError, match=message):
        MPRNET_MSCAM.parse_config(values)


def test_the_cost_of_a_network_without_named_configs_is_counted():
    """As those that spandrel has read."""
    gfn = MODELS["gfn"]
    foreign = dataclasses.replace(gfn, configs={})
    assert foreign.cost(gfn.tiny) == gfn.cost(gfn.tiny)
