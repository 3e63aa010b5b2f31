"""Models in a row."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import picture

from restore_cli.errors import UsageError
from restore_cli.inference import pipeline as pipelines
from restore_cli.inference.pipeline import Pipeline, PipelineSpec, default_scale, split_names
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.inference.stages import Bicubic
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import to_uint

OPTIONS = RestorerOptions(torch.device("cpu"))


def parse(model=None, weights=None, scale=None, **options):
    return PipelineSpec.parse(model, weights, scale, dataclasses.replace(OPTIONS, **options))


class Half:
    scale = 1

    def __call__(self, image, report, depth):
        for done in range(4):
            report(done + 1, 4)
        return image / 2


def test_stages_run_in_order_and_report_as_one():
    seen = []
    image = picture(5, 7)
    line = Pipeline(parse("msan+bicubic", scale=2), (Half(), Bicubic(2)))
    result = line(image, lambda done, tiles: seen.append(done / tiles))
    assert torch.equal(result, resize_bicubic(image / 2, 10, 14).clamp(0, 1))
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) == 5


def test_another_scale_than_the_stages_give_is_resampled_and_rounded():
    image = picture(6, 8)
    line = Pipeline(parse("bicubic", scale=3), (Bicubic(4),))
    exact = resize_bicubic(resize_bicubic(image, 24, 32).clamp(0, 1), 18, 24)
    assert torch.equal(line(image), exact)
    assert torch.equal(line(image, depth=8), to_uint(exact, 8))


@pytest.mark.parametrize(
    ("model", "scale", "factor", "whole"),
    [
        ("msan+bicubic", None, 4, 4),
        ("msan+bicubic", 2, 2, 2),
        ("gfn+bicubic", 8, 2, 8),
        ("gfn+bicubic", 6, 2, 6),  # then the result is shrunk
        ("gfn+bicubic", 2, 1, 2),
        ("gfn+bicubic", None, 1, 4),
        ("bicubic", None, 4, 4),
        ("bicubic", 3, 3, 3),
    ],
)
def test_bicubic_enlarges_what_the_networks_leave(model, scale, factor, whole):
    pipeline = parse(model, scale=scale).load()
    assert pipeline.stages[-1].scale == factor
    assert pipeline.scale == whole


def test_names_scales_and_weights():
    names = split_names("msan + bicubic")
    assert names == ("msan", "bicubic")
    assert default_scale(("attentive-deblur", "gfn")) == 4
    assert parse("msan+bicubic", "a+b").weights == ("a+b", None)  # one model: a path with a plus
    assert parse("msan+gfn", "a+b").weights == ("a", "b")
    assert parse("msan+gfn").weights == (None, None)
    assert parse(weights="gfn-lite.shake").name == "gfn"


def test_a_network_is_loaded_once(monkeypatch):
    parse("gfn").load()
    monkeypatch.setattr(pipelines, "load_network", None)
    again = parse(weights="gfn-lite.shake", self_ensemble=True).load()
    assert again.stages[0].name == "gfn"


def test_the_identity_has_every_option_that_decides_pixels():
    usual = parse("gfn").load()
    assert parse("gfn", scale=2).load().identity["stages"] == usual.identity["stages"]
    for change in ({"tile": 256}, {"self_ensemble": True}, {"overlap": 48}, {"tlsc": False}):
        if change == {"tlsc": False} and usual.stages[0].tlsc_window == "off":
            continue
        assert parse("gfn", **change).load().identity != usual.identity


@pytest.mark.parametrize("text", ["msan+", "+", "msna+bicubic", "bicubic+gfn+bicubic"])
def test_impossible_names_are_refused(text):
    with pytest.raises(UsageError):
        split_names(text)


def test_weights_must_be_as_many_as_models():
    with pytest.raises(UsageError, match="names 1 file, but there are 2 models: msan, gfn"):
        parse("msan+gfn", "a")
    with pytest.raises(UsageError, match="bicubic takes no weights"):
        parse("bicubic", "a")
