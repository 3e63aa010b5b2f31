"""Models in a row."""

from __future__ import annotations

import pytest
import torch
from conftest import picture

from restore_cli.errors import UsageError
from restore_cli.inference.cascade import (
    Bicubic,
    Cascade,
    bicubic_factor,
    own_scale,
    split_names,
    split_weights,
)
from restore_cli.resample import resize_bicubic


def test_stages_run_in_order_and_report_as_one():
    seen = []

    class Half:
        scale = 1

        def __call__(self, image, report, depth):
            for done in range(4):
                report(done + 1, 4)
            return image / 2

    image = picture(5, 7)
    result = Cascade([Half(), Bicubic(2)])(image, lambda done, tiles: seen.append(done / tiles))
    assert torch.equal(result, resize_bicubic(image / 2, 10, 14).clamp(0, 1))
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(seen) == 5


def test_names_scales_and_weights():
    names = split_names("msan + bicubic")
    assert names == ("msan", "bicubic")
    assert own_scale(names) == 4
    assert bicubic_factor(names, 2) == 2
    assert bicubic_factor(("gfn", "bicubic"), 8) == 2
    assert bicubic_factor(("gfn", "bicubic"), 6) == 2  # then the result is shrunk
    assert bicubic_factor(("gfn", "bicubic"), 2) == 1
    assert own_scale(("gfn", "bicubic")) == 4
    assert own_scale(("bicubic",)) == 4
    assert own_scale(("mprnet", "gfn")) == 4
    assert split_weights(names, "a+b") == ["a+b", None]  # one model: a path with a plus
    assert split_weights(("mprnet", "gfn"), "a+b") == ["a", "b"]
    assert split_weights(("mprnet", "gfn"), None) == [None, None]


@pytest.mark.parametrize("text", ["msan+", "+", "msna+bicubic", "bicubic+gfn+bicubic"])
def test_impossible_names_are_refused(text):
    with pytest.raises(UsageError):
        split_names(text)


def test_weights_must_be_as_many_as_models():
    with pytest.raises(UsageError, match="names 1 files for msan and gfn"):
        split_weights(("msan", "gfn"), "a")
    with pytest.raises(UsageError, match="bicubic takes no weights"):
        split_weights(("bicubic",), "a")
