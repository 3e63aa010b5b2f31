"""moadg: its dense block, its gate, its ablations, and statistics of degenerate maps."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from conftest import TINY_CONFIGS, picture
from torch.nn import functional as F

from restore_cli.models.layers import GlobalCovariance, InstanceNorm, matrix_sqrt
from restore_cli.models.moadg import MOADG, DenseBlock, Moadg, MoadgConfig

TINY = TINY_CONFIGS["moadg"]


def test_dense_block_is_the_formula():
    block = DenseBlock(6, 4)
    x = torch.randn(2, 6, 9, 11)
    seen = [x]
    for n, layer in enumerate(block.convs):
        y = F.conv2d(torch.cat(seen, 1), layer.weight, layer.bias, padding=1)
        seen.append(torch.where(y > 0, y, 0.2 * y) if n < 4 else y)
    assert torch.allclose(block(x), x + 0.2 * seen[-1], atol=1e-6)


def test_square_root_of_well_conditioned_matrices():
    torch.manual_seed(0)
    a = torch.randn(3, 8, 200, dtype=torch.float64)
    matrix = a @ a.mT / 200 + 2 * torch.eye(8, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    exact = vectors @ torch.diag_embed(values.sqrt()) @ vectors.mT
    error = [(matrix_sqrt(matrix, steps) - exact).norm() / exact.norm() for steps in (5, 7, 12)]
    assert error[0] < 0.05
    assert error[1] < error[0] / 3
    assert error[2] < 1e-9


def test_flat_maps_have_zero_covariance_and_zero_norm():
    flat = torch.full((1, 4, 5, 5), 0.3)
    assert matrix_sqrt(torch.zeros(1, 4, 4)).abs().max() == 0
    pooled = GlobalCovariance()(flat, torch.nn.Identity())
    assert pooled.isfinite().all()
    assert pooled.abs().max() < 1e-6
    assert InstanceNorm()(flat).abs().max() < 1e-3
    assert torch.equal(InstanceNorm()(torch.ones(2, 3, 1, 1)), torch.zeros(2, 3, 1, 1))


def test_routes_are_dropped_in_training_and_kept_ones_doubled():
    network = Moadg(dataclasses.replace(TINY, gating=True))
    routes = [torch.ones(400, 1, 1, 1) for _ in range(5)]
    torch.manual_seed(0)
    gated = torch.cat(network.train()._gated(routes), 1)[..., 0, 0]
    assert set(gated.unique().tolist()) == {0.0, 2.0}
    # Each route and each picture on its own, with probability 1/2: 5 standard deviations.
    assert (gated.mean(0) - 1).abs().max() < 5 / 400**0.5
    assert gated.std(0).min() > 0.9
    together = gated[:, 0] * gated[:, 1]
    assert abs(float((together > 0).float().mean()) - 0.25) < 5 * (0.1875 / 400) ** 0.5
    # All off happens too, and then the reconstruction sees the image alone.
    assert (gated.sum(1) == 0).any()
    untouched = network.eval()._gated(routes)
    assert all(a is b for a, b in zip(untouched, routes, strict=True))


def test_all_routes_off_still_restores(monkeypatch):
    network = Moadg(TINY).train()
    monkeypatch.setattr(torch, "bernoulli", torch.zeros_like)
    image = picture(8, 12)
    assert network(image).isfinite().all()
    alone = torch.cat([torch.zeros(1, 6 * TINY.width, 8, 12), image], 1)
    assert torch.allclose(network(image), network.reconstruction(alone))


def test_without_gating_training_is_not_random():
    network = Moadg(dataclasses.replace(TINY, gating=False)).train()
    image = picture(8, 8)
    assert torch.equal(network(image), network(image))
    assert not torch.equal(*(Moadg(TINY).train()(picture(8, 8)) for _ in range(2)))


def test_ablations_leave_out_what_they_say():
    outputs = {}
    for name in ("paper", "no-third-order", "deblurring-alone", "enlarging-alone"):
        config = dataclasses.replace(
            MOADG.configs[name],
            **{
                field: min(getattr(MOADG.configs[name], field), getattr(TINY, field))
                for field in ("width", "growth", "deblur_blocks", "sr_blocks", "fusion_blocks")
            },
            reduction=4,
        )
        network = Moadg(config).eval()
        with torch.inference_mode():
            outputs[name] = set(network.outputs(picture(8, 8)))
        assert (network.third_order is not None) == (name == "paper")
    assert outputs["paper"] == outputs["no-third-order"] == {"restored", "deblurred", "enlarged"}
    assert outputs["deblurring-alone"] == {"restored", "deblurred"}
    assert outputs["enlarging-alone"] == {"restored", "enlarged"}


@pytest.mark.parametrize(
    "config", [MoadgConfig(deblur_blocks=0), MoadgConfig(deblur_blocks=0, sr_blocks=0)]
)
def test_impossible_configs_are_refused(config):
    with pytest.raises(ValueError, match="needs deblur_blocks or sr_blocks"):
        Moadg(config)


def test_second_order_statistics_stay_float32_under_autocast():
    x = torch.randn(1, 8, 40, 40) + 3
    pooling, identity = GlobalCovariance(), torch.nn.Identity()
    with torch.autocast("cpu", torch.bfloat16):
        half = pooling(x, identity)
    assert torch.equal(half, pooling(x, identity))
