"""Differences between entries, on the same pictures and with an interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from restore_cli.benchmarking.report import differences
from restore_cli.benchmarking.run import Row, _tiles, make_entry
from restore_cli.inference.restorer import RestorerOptions


def rows(name, scores, *, error=""):
    return [
        Row(f"{name}{n}", name, f"{n}", psnr, 0.9, 1.0, 0, 8, 8, error if np.isnan(psnr) else "")
        for n, psnr in enumerate(scores)
    ]


def test_entries_are_compared_with_the_next_lower_one():
    rng = np.random.default_rng(0)
    base = rng.uniform(20, 30, 200)
    noise = rng.normal(0.3, 1.0, 200)
    found = differences(
        {
            "low": rows("low", base),
            "top": rows("top", base + noise + 2),
            "mid": rows("mid", base + noise),
        }
    )
    assert [(one.better, one.worse, one.count) for one in found] == [
        ("top", "mid", 200),
        ("mid", "low", 200),
    ]
    sure, other = found
    assert (sure.mean, sure.low, sure.high, sure.wins) == pytest.approx((2, 2, 2, 200))
    half = 1.96 * noise.std() / 200**0.5  # of a normal distribution
    assert (other.low, other.high) == pytest.approx(
        (noise.mean() - half, noise.mean() + half), abs=0.02
    )
    assert other.wins == (noise > 0).sum()
    assert "top over mid: +2.00 dB, 95 % interval +2.00 to +2.00" in str(sure)


def test_only_pictures_that_all_have_count():
    nothing = float("nan")
    hard = [30, 30, 30, 30, 30, 30, 10]
    some = [31, 31, 31, 31, 31, 31, nothing]
    (one,) = differences({"all": rows("all", hard), "some": rows("some", some, error="missing")})
    assert (one.better, one.count, one.mean) == ("some", 6, 1)
    few = {"all": rows("all", hard[:4]), "some": rows("some", some[:4])}
    assert differences(few) == []
    assert differences({"equal": rows("equal", [float("inf")] * 9)}) == []


@pytest.mark.parametrize(
    ("model", "ensemble", "reported", "tiles"),
    [
        ("gfn", False, 6, 6),
        ("gfn", True, 48, 6),
        ("gfn+bicubic", False, 2000, 0),
        ("bicubic", False, 1, 1),
    ],
)
def test_tiles_are_those_of_the_picture(model, ensemble, reported, tiles):
    options = RestorerOptions(torch.device("cpu"), self_ensemble=ensemble)
    assert _tiles(make_entry(model, options, 4), reported) == tiles


def test_tlsc_of_the_networks_does_not_exclude_bicubic():
    options = RestorerOptions(torch.device("cpu"), tlsc=96)
    assert make_entry("bicubic", options, 1).facts()["tlsc"] == "off"
    assert make_entry("attentive-deblur", options, 1).facts()["tlsc"] == "96x96"
