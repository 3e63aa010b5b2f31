"""Every listed model: builds, keeps its promises on sizes, is found again from its weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY, picture

from restore_cli.errors import UsageError, WeightsError
from restore_cli.models.mprnet_mscam import MPRNET_MSCAM, MprnetMscam
from restore_cli.models.registry import MODELS, detect, get_config, get_model, table


def test_a_duplicate_raises():
    with pytest.raises(ValueError, match="listed twice"):
        table([MPRNET_MSCAM, MPRNET_MSCAM])


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        MODELS["other"] = MPRNET_MSCAM


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'mprnet-mscam'"):
        get_model("mprnet-mscan")
    with pytest.raises(UsageError, match="config of mprnet-mscam 'light' not found"):
        get_config(MPRNET_MSCAM, "light")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_facts_are_stated(name):
    model = MODELS[name]
    assert model.name == name
    assert model.paper
    assert model.code_license == "Apache-2.0"
    assert next(iter(model.configs)) == "paper"


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (40, 8)])
def test_size_and_type_of_the_output(size):
    network = MprnetMscam(TINY)
    for dtype in (torch.float32, torch.bfloat16):
        restored = network.to(dtype)(picture(*size).to(dtype))
        assert restored.shape == (1, 3, 4 * size[0], 4 * size[1])
        assert restored.dtype == dtype


def test_the_size_rule_is_the_real_one():
    network = MprnetMscam(TINY)
    with pytest.raises(RuntimeError):
        network(picture(44, 64))


CHANGES = [
    {"features": 16},
    {"growth": 4},
    {"full_growth": 0},
    {"reduction": 2},
    {"level_blocks": 2},
    {"full_blocks": 3},
    {"sr_features": 32},
    {"sr_groups": 2},
    {"sr_blocks": 3},
    {"sr_reduction": 4},
    {"scale": 2},
    {"image_skip": False},
]


def test_every_hyperparameter_is_changed_once():
    assert {key for change in CHANGES for key in change} == {
        field.name for field in dataclasses.fields(TINY)
    }


@pytest.mark.parametrize("change", [{}, *CHANGES], ids=str)
def test_config_is_found_again_from_the_weights(change):
    config = dataclasses.replace(TINY, **change)
    assert change == {} or config != TINY
    state = MprnetMscam(config).state_dict()
    model = detect(state)
    assert model is MPRNET_MSCAM
    assert model.infer_config(state) == config
    assert model.config_from(dataclasses.asdict(config)) == config


def test_foreign_weights_are_nobodys():
    with pytest.raises(WeightsError, match="fit none"):
        detect({"conv.weight": torch.zeros(1)})


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
        MPRNET_MSCAM.config_from(values)


def test_config_names():
    assert MPRNET_MSCAM.config_name(MPRNET_MSCAM.configs["lite"]) == "lite"
    assert MPRNET_MSCAM.config_name(TINY) == "custom"
