"""What a job will cost: with a clock that moves by the work that is done, estimates are exact."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from asking import request, spec
from PIL import Image

from restore_cli.inference.pipeline import Pipeline
from restore_cli.jobs import estimate as costs
from restore_cli.jobs.plan import plan
from restore_cli.weights.manifest import default_checkpoint

SECOND = 1e6  # pixels worked on in a second of the clock


@dataclass
class Clock:
    """Stands for a pipeline and for the time it takes: `SECOND` pixels a second, and a start."""

    real: Pipeline
    now: float = 0.0
    seen: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, image):
        height, width = image.shape[-2:]
        self.seen.append((height, width))
        self.now += self.real.stages[0].cost(height, width)[1] / SECOND

    def __getattr__(self, name):
        return getattr(self.real, name)

    def monotonic(self):
        return self.now


@cache
def loaded(model):
    return spec(model).load()


@pytest.fixture
def estimated(tmp_path, monkeypatch):
    """The estimate of a picture of some size by a model, and the sizes that were probed."""

    def estimated(width, height, model, **options):
        path = tmp_path / f"{width}x{height}.png"
        Image.new("RGB", (width, height)).save(path)
        asked, clock = request(path, **options), Clock(loaded(model))
        monkeypatch.setattr(costs, "time", clock)
        items = plan(asked, spec(model))
        return costs.estimate(asked, items, clock)[0], clock, asked, items

    return estimated


@pytest.mark.parametrize("model", ["maxim-mscam", "gfn"])
@pytest.mark.parametrize("size", [(160, 120), (320, 240), (741, 500), (1300, 900)])
def test_padding_and_overlaps_count_once(estimated, model, size):
    one, clock, *_ = estimated(*size, model)
    tiles, worked, _ = clock.real.stages[0].cost(size[1], size[0])
    assert one.tiles == tiles
    assert one.fastest == pytest.approx(worked / SECOND)
    assert one.seconds == pytest.approx(1.15 * one.fastest)


def test_probes_are_of_a_tile_and_end_when_they_took_long(estimated, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # one window at a time
    quick = estimated(720, 720, "maxim")[1]
    assert quick.seen == [(64, 64), (128, 128)] + 3 * [(384, 384)]
    monkeypatch.setattr(f"{__name__}.SECOND", 1e4)  # 14.7 s a tile
    assert estimated(720, 720, "maxim")[1].seen == [(64, 64), (128, 128), (384, 384)]
    monkeypatch.setattr(f"{__name__}.SECOND", 4e3)  # more than is waited for
    assert estimated(720, 720, "maxim")[1].seen[-1] == (192, 192)


def test_a_probe_has_as_many_windows_as_are_restored_at_once(estimated, two_threads):
    assert estimated(720, 720, "maxim")[1].seen[-1] == (384, 736)
    assert estimated(300, 200, "maxim")[1].seen[-1] == (200, 300)  # one window


@pytest.mark.parametrize("model", ["maxim", "mprnet-mscam"])
def test_the_manifests_seconds_are_of_a_picture_in_tiles(estimated, monkeypatch, model):
    rate = "restore_cli.jobs.estimate.cpu_convolution_rate"
    monkeypatch.setattr(rate, lambda dtype: 150e9)
    _, clock, asked, items = estimated(1280, 960, model)
    listed = default_checkpoint(model).seconds_per_megapixel
    known = costs.forecast(asked, items, clock.real)
    assert known.seconds == pytest.approx(listed * 1.28 * 0.96, rel=0.01)
    assert (known.sizes[0][1], known.count) == ((960, 1280), 1)
