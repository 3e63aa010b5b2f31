"""`tools/train_on_gpu.py` on a CPU: degrade, train for two seconds, export, load."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from restore_cli.inference.loading import load_network
from restore_cli.training.recipe import load_recipe
from restore_cli.weights.store import locate

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "train_on_gpu.py"
WEIGHTS = "gfn-lite.shake"


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    """The recipe for large batches, in small ones."""
    text = (ROOT / "restore_cli/recipes/train/finetune-x4-gpu.toml").read_text()
    for old, new in (("batch = 96", "batch = 4"), ("patch = 64", "patch = 16"), ("= 128", "= 32")):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "small.toml"
    path.write_text(text)
    return str(path)


def test_every_part_of_the_mixture_is_degraded(tool: dict[str, Any], recipe: str) -> None:
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (3, 200, 170), np.uint8)
    chosen = tool["degradations"](load_recipe(recipe))
    assert list(chosen) == pytest.approx([0.32, 0.64, 1.0])
    for degradation in chosen.values():
        low, high = tool["degraded_crop"](photo, degradation, 32, 16, rng)
        assert low.shape == (3, 32, 32)
        assert high.shape == (3, 128, 128)
        assert tool["degraded_crop"](photo[:, :128], degradation, 32, 16, rng) is None


def test_shortened_rounds_the_mantissa(tool: dict[str, Any]) -> None:
    values = torch.tensor([1.0, -1.0, 0.0, 1 + 1 / 512, 1 + 1 / 1024, -0.3, 6e-8])
    assert torch.equal(tool["shortened"](values, 10), values.half())
    short = tool["shortened"](values, 9).float()
    assert torch.equal(short[:4], values[:4])
    assert short[4] == 1 + 1 / 512
    assert (short - values).abs().max() <= 1 / 1024
    assert not (tool["shortened"](torch.randn(1000), 9).view(torch.int16) & 1).any()


@pytest.mark.slow
def test_trains_and_exports(tool: dict[str, Any], recipe: str, tmp_path: Path) -> None:
    root = tmp_path / "run"
    for folder in ("photos", "pairs/blur", "pairs/sharp", "check/x4/few/lr", "check/x4/few/hr"):
        (root / folder).mkdir(parents=True)
    sharp = Image.open(ROOT / "examples/sharp/casa-mila.jpg")
    for folder, side in (
        ("photos", 260),
        ("pairs/blur", 160),
        ("pairs/sharp", 160),
        ("check/x4/few/lr", 16),
        ("check/x4/few/hr", 64),
    ):
        sharp.resize((side, side)).save(root / folder / "a.png")
    degrading = ("degrade", root, recipe, "--workers", "1", "--slots", "8")
    worker = subprocess.Popen([sys.executable, TOOL, *degrading], start_new_session=True)
    try:
        while not (root / "rings.json").exists():
            assert worker.poll() is None
            time.sleep(0.1)
        tool["fine_tune"](root, recipe, WEIGHTS, 2.0, "cpu")
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
    result = root / "out" / f"{WEIGHTS}.pt"
    tool["export"](result, WEIGHTS, tmp_path / "new.safetensors", 1.0, 10)

    before, after = (
        load_network(locate(name, None)) for name in (WEIGHTS, str(tmp_path / "new.safetensors"))
    )
    assert after.header is not None
    assert after.header.provenance["steps"] > 0
    pairs = zip(before.network.parameters(), after.network.parameters(), strict=True)
    changed = [not torch.equal(old, new) for old, new in pairs]
    assert sum(changed) > len(changed) / 2
