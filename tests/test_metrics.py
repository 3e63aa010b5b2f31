"""Scores equal those of the published scripts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN

from restore_cli.metrics import psnr, ssim

EXPECTED = json.loads((GOLDEN / "metrics_expected.json").read_text())


@pytest.fixture
def pair():
    images = np.load(GOLDEN / "metrics_images.npz")
    return [
        torch.from_numpy(images[k]).permute(2, 0, 1)[None].double() / 255 for k in ("img", "gt")
    ]


def test_cnlrn_and_shoyan(pair):
    assert float(psnr(*pair, crop=4)) == pytest.approx(EXPECTED["cnlrn_val300_psnr"], abs=1e-4)
    assert float(ssim(*pair, crop=4)) == pytest.approx(EXPECTED["cnlrn_val300_ssim"], abs=1e-6)
    assert float(psnr(*pair)) == pytest.approx(EXPECTED["shoyan_test_psnr_nocrop"], abs=1e-4)
    assert float(ssim(*pair)) == pytest.approx(EXPECTED["shoyan_test_ssim_nocrop"], abs=1e-6)


def test_equal_pictures(pair):
    assert float(psnr(pair[1], pair[1])) == float("inf")
    assert float(ssim(pair[1], pair[1])) == pytest.approx(1)
