"""A floor for what each bundled checkpoint gains over bicubic. Raise it with better weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from restore_cli.benchmarking.run import score_degraded
from restore_cli.degradations.recipe import load_degradation
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.models.registry import MODELS
from restore_cli.weights.manifest import load_manifest

pytestmark = pytest.mark.slow

# dB over bicubic on the examples, two seeds: mean, worst picture.
FLOORS = {
    "mprnet-mscam-lite.shake": (0.35, -0.1),
    "gfn-lite.shake": (0.2, -0.1),
    "moadg-lite.shake": (0.2, -0.1),
    "attentive-deblur-lite.handheld": (0.4, 0.1),
    "msan-lite.handheld": (0.35, 0.1),
    "maxim.gopro": (1.0, -0.8),
    "maxim-mscam.motion": (0.4, -0.1),
}


@pytest.mark.parametrize("name", sorted(load_manifest().checkpoints))
def test_gain_over_bicubic(tmp_path, name):
    """By the function behind `restore benchmark --degrade`; at x1 bicubic is the input itself."""
    model = load_manifest().checkpoints[name].model
    photos = sorted((ROOT / "examples/sharp").iterdir())
    recipe = load_degradation("shake" if MODELS[model].scale > 1 else "handheld")
    if recipe.scale == 1:  # sixteen times the work a pixel of the result
        for path in photos:
            with Image.open(path) as image:
                image.crop((64, 64, 384, 320)).save(tmp_path / f"{path.stem}.png")
        photos = sorted(tmp_path.iterdir())
    gains = []
    # A picture takes the two with MAXIM ten times as long as the others.
    for seed in (1,) if model.startswith("maxim") else (1, 2):
        options = RestorerOptions(torch.device("cpu"))
        entries = (f"{model}={name}", "bicubic")
        rows = score_degraded(photos, recipe, entries, tmp_path / f"{seed}", options, seed=seed)
        scores = {name: [row.psnr for row in rows if row.entry == name] for name in entries}
        gains += [a - b for a, b in zip(*scores.values(), strict=True)]
    mean, worst = FLOORS[name]
    assert np.mean(gains) >= mean, gains
    assert min(gains) >= worst, gains
