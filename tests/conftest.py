"""Fixtures: a small network with random weights as a file, and pictures with edges and texture."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer.testing
from typer.testing import CliRunner

from restore_cli.cli.app import app
from restore_cli.models.mprnet_mscam import MPRNET_MSCAM, MprnetMscam
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import Model
from restore_cli.weights.checkpoint import CheckpointHeader, write_checkpoint

# Building the commands takes 0.1 s, and hundreds of tests run one.
typer.testing._get_command = functools.cache(typer.testing._get_command)
pytest_plugins = ("training_runs",)
pytest.register_assert_rewrite("promises")
GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True, scope="session")
def own_weights_elsewhere(tmp_path_factory):
    """The user's own weights are those of the tests, in subprocesses as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


TINY = MPRNET_MSCAM.tiny
TINY_CONFIGS = {name: model.tiny for name, model in MODELS.items()}


def miniature(model: Model, config: Any) -> Any:
    """The tiny config with the changes that make another one of the published one.

    Counts of layers and channels stay as tiny as they are.
    """
    published, changes = next(iter(model.configs.values())), {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value != getattr(published, field.name):
            count = type(value) is int and value > 3  # smaller ones may be names of arrangements
            changes[field.name] = min(value, getattr(model.tiny, field.name)) if count else value
    return dataclasses.replace(model.tiny, **changes)


# Each model as published, and with what only its `lite` config has.
TINY_NETWORKS = [
    (name, config)
    for name, model in MODELS.items()
    for config in dict.fromkeys(
        [model.tiny, *(miniature(model, c) for n, c in model.configs.items() if n == "lite")]
    )
]


def slow(value: object) -> Any:
    """One value of a parametrised test, for `make test-all` only."""
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test reaches a network, and none sees this machine's settings."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def two_threads():
    """Torch computes in two threads, as on a machine of two cores; tests have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_network():
    """Random weights that do something: the last layer of a fresh network is zero."""
    torch.manual_seed(3)
    network = MprnetMscam(TINY).eval()
    torch.nn.init.normal_(network.upscaler.image.weight, std=0.05)
    with torch.no_grad():  # and make the global means count
        for name, weight in network.named_parameters():
            if "attention" in name:
                weight.mul_(4)
    return network


@pytest.fixture
def tiny_weights(tmp_path, tiny_network):
    """The same as a checkpoint file of ours."""
    path = tmp_path / "tiny.safetensors"
    header = CheckpointHeader("mprnet-mscam", dataclasses.asdict(TINY), (32, 32), {})
    write_checkpoint(path, tiny_network.state_dict(), header)
    return path


def restore(*arguments: object, **options: Any):
    """What `restore ARGUMENTS` does, in this process."""
    return CliRunner().invoke(app, [str(one) for one in arguments], **options)


# Published widths -> small ones in the same proportions.
SMALL = {
    "mprnet-mscam": {
        **{96: 24, 144: 36, 192: 48, 128: 32, 24: 6, 36: 9, 48: 12, 32: 8},
        **{64: 16, 8: 2, 1024: 256},
    },
    "gfn": {64: 8, 128: 16, 256: 32, 131: 19},
    "msan": {32: 4, 64: 8, 128: 16},
    "attentive-deblur": {32: 16, 64: 32, 128: 64, 2: 1, 4: 2, 8: 4},
}


def official(name: str) -> dict[str, torch.Tensor]:
    """A small state dict under the authors' names, in their order and layout."""
    keys = json.loads(
        gzip.decompress(
            (GOLDEN / f"{name.replace('mprnet-m', 'mprnet_m')}_keys.json.gz").read_bytes()
        )
    )
    generator = torch.Generator().manual_seed(0)
    tf = name == "attentive-deblur"
    state = {}
    for key, shape in keys:
        kernel = len(shape) == 4
        small = [
            side if kernel and (n < 2 if tf else n > 1) else SMALL[name].get(side, side)
            for n, side in enumerate(shape)
        ]
        state[key] = torch.randn(small, generator=generator) * 0.05
        if small == [1] and not tf:
            state[key] = torch.full((1,), 0.25)
    return state


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(1, 3, H, W) float32 in [0, 1]: gradients, a few edges, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [
        0.5
        + 0.2 * np.sin(x * rng.uniform(0.05, 0.4) + y * rng.uniform(0.05, 0.4))
        + 0.15 * np.sign(np.sin(x * rng.uniform(0.05, 0.3) - y * rng.uniform(0.05, 0.3)))
        + 0.03 * rng.standard_normal((height, width))
        for _ in range(3)
    ]
    return torch.from_numpy(np.clip(planes, 0, 1)[None]).float()


def rgb8(image: torch.Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


def refuse_to_write(monkeypatch, name, error):
    """Raise an error when a file whose name contains `name` is written."""

    def write(path, data):
        if name in path.name:
            raise error
        return real(path, data)

    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", write)
