"""A floor for what each bundled checkpoint gains over bicubic. Raise it with better weights."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT, restore

from restore_cli.models.registry import MODELS
from restore_cli.weights.manifest import load_manifest

pytestmark = pytest.mark.slow

# dB over bicubic on the examples: mean, worst picture.
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
    arguments = (*recipe, "--seed", "1", "-m", f"{model}={name}", "-o", tmp_path / "out")
    done = restore("benchmark", ROOT / "examples/sharp", *arguments, "--json", "-d", "cpu")
    assert done.exit_code == 0, done.stderr
    entry = json.loads(done.stdout)["entries"][0]
    assert entry["gain"] >= FLOORS[name][0]
    assert entry["worst"][1] >= FLOORS[name][1]
