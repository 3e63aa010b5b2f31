"""The worked example of CONTRIBUTING: one file, one row, and everything else follows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

RECIPE = """
model = "espcn"
config = "lite"
degradation = "shake"
seed = 1
validate_every = 2
[[phases]]
name = "score"
steps = 2
batch = 1
patch = 16
learning_rate = 1e-3
[[phases.losses]]
output = "restored"
target = "reference"
loss = "l1"
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with the example in it, and how to call its command."""
    home = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "restore_cli", home / "restore_cli", ignore=ignored)
    shutil.copy(ROOT / "weights_manifest.toml", home)
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    models = home / "restore_cli" / "models"
    (models / "espcn.py").write_text(code, "utf-8")
    registry = (models / "registry.py").read_text("utf-8")
    before = "from restore_cli.models.gfn"
    registry = registry.replace(before, f"from restore_cli.models.espcn import ESPCN\n{before}")
    registry = registry.replace("ATTENTIVE_DEBLUR])", "ATTENTIVE_DEBLUR, ESPCN])")
    (models / "registry.py").write_text(registry, "utf-8")

    def restore(*arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "restore_cli", *map(str, arguments)],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return home, restore


def test_example_is_listed_with_true_numbers(extended):
    home, restore = extended
    assert "espcn" in restore("models", "list")
    code = (
        "import torch\n"
        "from torch.utils.flop_counter import FlopCounterMode\n"
        "from restore_cli.models.espcn import ESPCN, EspcnConfig\n"
        "from restore_cli.models.registry import detect\n"
        "network = ESPCN.build(EspcnConfig())\n"
        "state = network.state_dict()\n"
        "assert detect(state) is ESPCN and ESPCN.infer_config(state) == EspcnConfig()\n"
        "with FlopCounterMode(display=False) as counter:\n"
        "    network(torch.zeros(1, 3, 64, 64))\n"
        "print(sum(p.numel() for p in network.parameters()) == ESPCN.parameters,\n"
        "      counter.get_total_flops() // 2 == ESPCN.macs)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "True True\n", done.stdout + done.stderr


def test_example_trains_exports_and_restores(extended, tmp_path):
    _, restore = extended
    photos = tmp_path / "photos"
    photos.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (160, 200, 3), dtype=np.uint8)
    Image.fromarray(values).save(photos / "a.png")
    (tmp_path / "espcn.toml").write_text(RECIPE, "utf-8")
    restore("train", tmp_path / "espcn.toml", "--data", photos, "-o", tmp_path / "run")
    exported = tmp_path / "out"
    restore(
        "weights",
        "export",
        tmp_path / "run",
        "-o",
        exported,
        "--name",
        "espcn-lite.mine",
        "--license",
        "MIT",
    )
    Image.new("RGB", (31, 23), (90, 120, 40)).save(tmp_path / "blurry.png")
    made = restore(
        "image", tmp_path / "blurry.png", "-w", exported / "espcn-lite.mine.safetensors"
    ).strip()
    with Image.open(made) as picture:
        assert picture.size == (124, 92)
