"""Local statistics: the published pool, and each statistic against its definition."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from restore_cli.inference.local_statistics import (
    LocalAttention,
    LocalCovariance,
    LocalInstanceNorm,
    box_mean,
)
from restore_cli.models.layers import GlobalCovariance, InstanceNorm, attend

POOLS = json.loads((GOLDEN / "tlsc_pool.json").read_text())


@pytest.mark.parametrize("case", POOLS)
def test_box_mean_is_the_published_pool(case):
    reference = load_file(GOLDEN / "tlsc_pool.safetensors")
    mean = box_mean(reference[f"{case}.input"], tuple(POOLS[case]))
    assert torch.allclose(mean, reference[f"{case}.output"].expand_as(mean), atol=1e-6)


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    window=st.tuples(st.integers(1, 25), st.integers(1, 25)),
)
@settings(max_examples=60, deadline=None)
def test_box_mean_is_the_mean_of_each_window(size, window):
    image = torch.rand(1, 2, *size, dtype=torch.float64)
    rows, columns = min(size[0], window[0]), min(size[1], window[1])
    mean = box_mean(image, window)
    for y, x in ((0, 0), (size[0] // 2, size[1] // 2), (size[0] - 1, size[1] - 1)):
        top = min(max(y - (rows - 1) // 2, 0), size[0] - rows)
        left = min(max(x - (columns - 1) // 2, 0), size[1] - columns)
        expected = image[..., top : top + rows, left : left + columns].mean((2, 3))
        assert torch.allclose(mean[..., y, x], expected)


def test_half_precision_sums_in_float32():
    image = torch.rand(1, 2, 720, 1280)
    expected = box_mean(image, (96, 96))
    for dtype, error in ((torch.float16, 1e-3), (torch.bfloat16, 5e-3)):
        mean = box_mean(image.to(dtype), (96, 96))
        assert mean.dtype == dtype
        assert (mean.float() - expected).abs().max() < error
        # what the published integral image does in the network's own type
        assert not image.half().cumsum(-1).cumsum(-2).isfinite().all()


def correlated(height, width, seed=0):
    """Maps whose covariance changes over the picture, far from zero mean."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 4, height, width, generator=generator, dtype=torch.float64)
    slope = torch.linspace(0, 3, height, dtype=torch.float64)[:, None]
    x[:, 1] = x[:, 0] * slope + x[:, 1]
    return x + 7


IDENTITY = torch.nn.Identity()
SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def test_covariance_at_the_centre_of_a_block_is_that_of_its_window():
    x = correlated(5 * 7 + 2, 5 * 9 + 4)
    local = LocalCovariance(((15, 21),))(x, IDENTITY)  # blocks of 5x7
    assert local.shape == x.shape
    for row, column in ((1, 1), (2, 3), (5, 4)):
        window = x[..., 5 * (row - 1) : 5 * (row + 2), 7 * (column - 1) : 7 * (column + 2)]
        expected = GlobalCovariance()(window, IDENTITY)[..., 0, 0]
        assert torch.allclose(local[..., 5 * row + 2, 7 * column + 3], expected)
    # Outside the lattice of centres it is constant, between centres it is blended.
    assert torch.allclose(local[..., 0, 0], local[..., 7, 10])
    middle = (local[..., 12, 17] + local[..., 12, 24]) / 2
    assert torch.allclose((local[..., 12, 20] + local[..., 12, 21]) / 2, middle)


@given(size=SIZES, origin=SIZES)
@settings(max_examples=60, deadline=None)
def test_any_size_and_origin(size, origin):
    x = correlated(*size)
    for local in (
        LocalCovariance(((6, 9),))(x, IDENTITY, origin=origin),
        LocalAttention(((6, 9),))(x, x, x, origin=origin),
        LocalInstanceNorm(((6, 9),))(x),
    ):
        assert local.isfinite().all()
        assert local.shape[:2] == x.shape[:2]
    if size[0] <= 6 and size[1] <= 9:
        expected = GlobalCovariance()(x, IDENTITY)
        assert torch.allclose(LocalCovariance(((6, 9),))(x, IDENTITY, origin=origin), expected)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (6, 0), (13, 25), (30, 41)])
def test_a_tile_sees_what_the_picture_sees(top, left):
    x = correlated(90, 120)
    tile = x[..., top : top + 56, left : left + 70]
    inner = (slice(None), slice(None), slice(20, 36), slice(20, 50))

    def compare(whole, tiled):
        part = whole[..., top : top + 56, left : left + 70]
        return (part - tiled)[inner].abs().max()

    covariance = LocalCovariance(((12, 15),))
    moved = covariance(tile, IDENTITY, origin=(top, left))
    assert compare(covariance(x, IDENTITY), moved) < 1e-9
    if (top, left) != (0, 0):
        assert compare(covariance(x, IDENTITY), covariance(tile, IDENTITY, origin=(1, 1))) > 1e-3
    attention = LocalAttention(((12, 14),))
    q = x * torch.tensor([1.0, -1.0, 0.5, 2.0])[:, None, None]
    moved = attention(
        q[..., top : top + 56, left : left + 70], tile, tile.flip(1), origin=(top, left)
    )
    assert compare(attention(q, x, x.flip(1)), moved) < 1e-9
    norm = LocalInstanceNorm(((12, 15),))
    assert compare(norm(x), norm(tile)) < 1e-9


def test_attention_is_blended_from_four_windows():
    x = correlated(40, 50) - 7
    q, v = x.roll(3, -1), x.flip(1)
    local = LocalAttention(((12, 20),))(q, x, v)  # a window every 6 rows and 10 columns
    y, z = 15, 33  # rows of windows 6 and 12, columns of windows 20 and 30
    expected = 0
    for top, row_weight in ((6, (18 - 15 - 0.5) / 6), (12, (15 - 12 + 0.5) / 6)):
        for left, column_weight in ((20, (40 - 33 - 0.5) / 10), (30, (33 - 30 + 0.5) / 10)):
            window = (..., slice(top, top + 12), slice(left, left + 20))
            seen = attend(q[..., y : y + 1, z : z + 1], x[window], v[window])
            expected = expected + row_weight * column_weight * seen[..., 0, 0]
    assert torch.allclose(local[..., y, z], expected)


def test_instance_norm_is_that_of_the_window():
    x = correlated(30, 33)
    local = LocalInstanceNorm(((9, 11),))(x)
    window = x[..., 8:17, 10:21]
    expected = InstanceNorm()(window)[..., 4, 5]
    assert torch.allclose(local[..., 12, 15], expected, atol=1e-6)


def test_statistics_of_half_precision_are_taken_in_float32():
    x = (correlated(60, 60) * 20).float()  # squares beyond float16
    for make in (
        LocalInstanceNorm(((12, 12),)),
        lambda x: LocalCovariance(((12, 12),))(x, IDENTITY),
    ):
        rough = make(x.half())
        assert rough.dtype == torch.float16
        assert (rough.float() - make(x)).abs().max() < 0.02 * make(x).abs().max()
