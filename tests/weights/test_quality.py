"""A floor for what each bundled checkpoint gains over bicubic. Raise it with better weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import ROOT

from restore_cli.degradations.recipe import degrade, draw, load_degradation
from restore_cli.degradations.sensor import quantise
from restore_cli.image import read_image
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.metrics import psnr
from restore_cli.resample import resize_bicubic
from restore_cli.weights.manifest import load_manifest
from restore_cli.weights.store import fetch

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
def test_gain_over_bicubic(name):
    """At x1 bicubic is the input itself."""
    checkpoint = load_manifest().checkpoints[name]
    restorer = Restorer(load_network(fetch(checkpoint)), RestorerOptions(torch.device("cpu")))
    recipe = load_degradation("shake" if restorer.scale > 1 else "handheld")
    gains = []
    for index, path in enumerate(sorted((ROOT / "examples/sharp").iterdir())):
        sharp = read_image(path).pixels
        if restorer.scale == 1:  # sixteen times the work a pixel of the result
            sharp = sharp[..., 64:320, 64:384]
        height, width = sharp.shape[-2:]
        # A picture takes the two with MAXIM ten times as long as the others.
        for seed in (1,) if checkpoint.model.startswith("maxim") else (1, 2):
            rng = np.random.default_rng([seed, index])
            drawn = draw(recipe, rng, picture=(height, width), centre=(width / 2, height / 2))
            small, reference = degrade(sharp, [drawn], recipe)
            restored, bicubic = restorer(small), resize_bicubic(small, *reference.shape[-2:])
            scores = [float(psnr(quantise(x), reference, crop=4)) for x in (restored, bicubic)]
            gains.append(scores[0] - scores[1])
    mean, worst = FLOORS[name]
    assert np.mean(gains) >= mean, gains
    assert min(gains) >= worst, gains
