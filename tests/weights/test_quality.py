"""A floor for what each bundled checkpoint gains over bicubic. Raise it with better weights."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from restore_cli.cli.app import app
from restore_cli.models.registry import MODELS
from restore_cli.weights.manifest import load_manifest

pytestmark = pytest.mark.slow

# dB over bicubic on the examples, two seeds: mean, worst picture.
FLOORS = {
    "mprnet-mscam-lite.shake": (0.35, -0.1),
    "gfn-lite.shake": (0.2, -0.1),
    "moadg-lite.shake": (0.2, -0.1),
    "attentive-deblur-lite.handheld": (1.0, 0.0),  # of the middle 288 px
    "msan-lite.handheld": (0.25, 0.1),
    "maxim.gopro": (1.0, -0.8),
    "maxim.motion": (2.5, 1.5),
    "maxim-mscam.motion": (0.6, -0.1),
}


@pytest.mark.parametrize("name", sorted(load_manifest().checkpoints))
def test_gain_over_bicubic(tmp_path, name):
    model = load_manifest().checkpoints[name].model
    large = MODELS[model].scale > 1
    recipe = ("--degrade", "shake") if large else ("--degrade", "handheld", "--side", "288")
    gains, worst = [], []
    # A picture takes the two with MAXIM ten times as long as the others.
    for seed in ("1",) if model.startswith("maxim") else ("1", "2"):
        arguments = (*recipe, "--seed", seed, "-m", f"{model}={name}", "-o", str(tmp_path / seed))
        photos = str(ROOT / "examples/sharp")
        done = CliRunner().invoke(app, ["benchmark", photos, *arguments, "--json", "-d", "cpu"])
        assert done.exit_code == 0, done.stderr
        entry = json.loads(done.stdout)["entries"][0]
        gains.append(entry["gain"])
        worst.append(entry["worst"][1])
    assert sum(gains) / len(gains) >= FLOORS[name][0]
    assert min(worst) >= FLOORS[name][1]
