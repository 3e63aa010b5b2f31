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

pytestmark = pytest.mark.slow

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


LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "_build", "runs", "demo", "dist"
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the tree with the example's two edits, and how to run Python in it."""
    home = tmp_path_factory.mktemp("clone") / "tree"
    shutil.copytree(ROOT, home, ignore=LEFT_OUT)
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    models = home / "restore_cli" / "models"
    (models / "espcn.py").write_text(code, "utf-8")
    registry = (models / "registry.py").read_text("utf-8")
    before = "from restore_cli.models.gfn"
    registry = registry.replace(before, f"from restore_cli.models.espcn import ESPCN\n{before}")
    last = "    ATTENTIVE_DEBLUR,\n"
    assert before in registry
    assert last in registry
    registry = registry.replace(last, f"{last}    ESPCN,\n")
    (models / "registry.py").write_text(registry, "utf-8")

    def python(*arguments: object) -> str:
        environment = {**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return python


def test_example_keeps_the_promises_of_a_model(clone):
    """By the tests of the tree as they are, which see it in the registry; the others stay right."""
    test = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    promises = clone(*test, "-vv", "tests/models/test_registry.py")
    assert "test_model_keeps_its_promises[espcn] PASSED" in promises
    assert " passed" in clone(*test, "-k", "espcn", "tests/inference")


def test_example_is_listed_trains_exports_and_restores(clone, tmp_path):
    def restore(*arguments: object) -> str:
        return clone("-m", "restore_cli", *arguments)

    assert "espcn" in restore("models", "list")
    assert "espcn" in restore("image", "--help")
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
