"""A recipe that trains in a second, and photos to train it on."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from conftest import TINY, picture, rgb8
from PIL import Image

from restore_cli.training.job import TrainJob
from restore_cli.training.recipe import TrainingRecipe

PHASE = {
    "name": "0",
    "steps": 6,
    "batch": 2,
    "patch": 16,
    "learning_rate": 2e-3,
    "warm_up": 2,
    "schedule": {"kind": "cosine", "end": 1e-6, "steps": 3},
    "clip": 1.0,
    "losses": [
        {"output": "restored", "target": "reference", "loss": "l1"},
        {"output": "restored", "target": "reference", "loss": "gradient", "weight": 0.1},
        {"output": "stage1", "target": "reference_small", "loss": "charbonnier", "weight": 0.5},
    ],
}
DEBLURRING = PHASE | {
    "name": "deblurring",
    "steps": 3,
    "trained": ["activation.*", "shallow.*", "encoder*", "decoder*", "attention*", "fuse*"],
    "losses": [{"output": "stage2", "target": "reference_small", "loss": "charbonnier"}],
}
RECIPE = {
    "model": "mprnet-mscam",
    "config": dataclasses.asdict(TINY),
    "seed": 1,
    "margin": 4,
    "ema": 0.9,
    "save_every": 2,
    "validate_every": 3,
    "phases": [PHASE],
}


def save_photos(folder, sizes, first=0):
    folder.mkdir(parents=True)
    for seed, (height, width) in enumerate(sizes, start=first):
        array = rgb8(picture(height, width, seed))
        Image.fromarray(array).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def photos(tmp_path):
    return save_photos(tmp_path / "photos", [(160, 176)] * 3)


@pytest.fixture
def held_out(tmp_path):
    return save_photos(tmp_path / "held_out", [(270, 300)] * 2, first=7)


def make_recipe(*phases, **changes):
    """A tiny recipe; each phase given as what differs from `PHASE`."""
    values = RECIPE | changes
    if phases:
        values = values | {"phases": [PHASE | {"name": str(n)} | p for n, p in enumerate(phases)]}
    return TrainingRecipe.model_validate(values)


@pytest.fixture
def curves():
    """Runs of `job` draw their curves."""


@pytest.fixture
def job(tmp_path, photos, monkeypatch, request):
    """Makes jobs: a recipe's phases and what differs from the usual job."""
    if "curves" not in request.fixturenames:  # which take 0.3 s for each validation
        monkeypatch.setattr("restore_cli.training.monitor.plot_curves", lambda rows, target: None)

    def make(*phases, recipe=None, **changes):
        values = {"recipe": recipe or make_recipe(*phases), "data": [photos]}
        return TrainJob(**(values | {"run": tmp_path / "run"} | changes))

    return make


def write_toml(path, recipe):
    """A recipe as TOML, by way of its JSON: both have the same inline values."""
    values = recipe.content()
    lines = [f"{key} = {inline(value)}" for key, value in values.items() if value is not None]
    path.write_text("\n".join(lines), "utf-8")
    return path


def inline(value):
    if isinstance(value, dict):
        inner = ", ".join(f"{k} = {inline(v)}" for k, v in value.items() if v is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(inline(item) for item in value)}]"
    return json.dumps(value)


def rows(run):
    """Lines of the metrics log."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights_of(run):
    """Weights, their average and the optimiser's moments, flat."""
    state = torch.load(run / "state.pt", weights_only=True)
    flat = dict(state["network"]) | {f"ema.{k}": v for k, v in state["ema"].items()}
    for number, moments in state["optimizer"]["state"].items():
        flat |= {f"optimizer.{number}.{k}": v for k, v in moments.items()}
    return flat


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), key
