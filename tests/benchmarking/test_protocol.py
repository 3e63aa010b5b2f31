"""Every protocol's numbers, against the authors' formulas and a second library."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
import torch
from conftest import GOLDEN, picture
from scipy.ndimage import gaussian_filter
from skimage import metrics as skimage_metrics

from restore_cli import metrics
from restore_cli.benchmarking.protocol import PROTOCOLS
from restore_cli.errors import UsageError, lookup
from restore_cli.rounding import to_float


@pytest.fixture(scope="module")
def unit():
    """The unit pictures, restored and reference, and their scores under the authors' programs."""
    images = np.load(GOLDEN / "metrics_images.npz")
    tensors = [torch.from_numpy(images[n]).permute(2, 0, 1)[None] / 255 for n in ("img", "gt")]
    return (*tensors, json.loads((GOLDEN / "metrics_expected.json").read_text()))


def test_the_authors_numbers(unit):
    restored, reference, expected = unit
    for protocol, psnr, ssim in (
        ("cnlrn", "cnlrn_val300_psnr", "cnlrn_val300_ssim"),
        ("rgb", "shoyan_test_psnr_nocrop", "shoyan_test_ssim_nocrop"),
        ("gfn", "gfn_shave6_psnr", "gfn_shave6_ssim3d_matlab_like"),
        ("mprnet", "shoyan_test_psnr_nocrop", "matlab_like_ssim3d_full"),
        ("msan", "shoyan_test_psnr_nocrop", "matlab_like_ssim3d_full"),
        ("attentive-deblur", "shoyan_test_psnr_nocrop", "matlab_like_ssim3d_full"),
    ):
        scores = PROTOCOLS[protocol].score(restored, [reference])
        assert scores.psnr == pytest.approx(expected[psnr], abs=1e-4), protocol
        # The volume's numbers are of a float32 program, whose sums round down by 2.6e-6.
        tolerance = 3e-6 if PROTOCOLS[protocol].ssim == "volume" else 1e-6
        assert scores.ssim == pytest.approx(expected[ssim], abs=tolerance), protocol


def test_the_volume_is_a_convolution_in_three_dimensions(unit):
    """By scipy on the whole array, in float64."""
    x, y = (image[0].permute(1, 2, 0).double().numpy() for image in unit[:2])
    smooth = functools.partial(gaussian_filter, sigma=1.5, radius=5, mode="nearest")
    means = smooth(x), smooth(y)
    variances = smooth(x * x) - means[0] ** 2, smooth(y * y) - means[1] ** 2
    covariance = smooth(x * y) - means[0] * means[1]
    wanted = (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
    wanted *= (2 * covariance + 9e-4) / (sum(variances) + 9e-4)
    assert float(metrics.ssim_volume(*unit[:2])) == pytest.approx(wanted.mean(), abs=1e-9)


def test_gradients_flow_and_the_two_ways_agree(unit):
    restored, reference = unit[0].double().requires_grad_(), unit[1].double()
    score = metrics.ssim(restored, reference)
    score.sum().backward()
    assert restored.grad.abs().max() > 0
    assert float(score.detach()) == pytest.approx(float(metrics.ssim(*unit[:2])), abs=1e-7)


def test_shoyan_cuts_the_frame_first_and_nothing_after():
    protocol = PROTOCOLS["shoyan"]
    degraded, reference = torch.rand(1, 3, 180, 320), torch.rand(1, 3, 720, 1280)
    small, large = protocol.prepare(degraded, reference)
    assert torch.equal(small, degraded[..., 2:178, :])
    assert torch.equal(large, reference[..., 8:712, :])
    assert protocol.crop == 0


def test_a_second_library_agrees(unit):
    restored, reference, _ = unit
    a, b = (x[0].permute(1, 2, 0).double().numpy() for x in (restored, reference))
    psnr = skimage_metrics.peak_signal_noise_ratio(b, a, data_range=1)
    assert float(metrics.psnr(restored, reference)) == pytest.approx(psnr, abs=1e-9)
    _, full = skimage_metrics.structural_similarity(
        b, a, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    inner = full[5:-5, 5:-5].mean()
    assert float(metrics.ssim(restored, reference)) == pytest.approx(inner, abs=1e-7)
    crop = PROTOCOLS["cnlrn"].score(restored, [reference]).psnr
    psnr = skimage_metrics.peak_signal_noise_ratio(b[4:-4, 4:-4], a[4:-4, 4:-4], data_range=1)
    assert crop == pytest.approx(psnr, abs=1e-9)


def test_rounding():
    values = torch.tensor([0.5, 1.5, 2.5, 254.999, -3.0, 300.0], dtype=torch.float64)
    values = values.reshape(1, 1, 1, 6) / 255
    wanted = {
        "cnlrn": [0, 2, 2, 255, 0, 255],
        "msan": [1, 2, 3, 255, 0, 255],
        "gfn": [0, 1, 2, 254, 0, 255],
    }
    for name, expected in wanted.items():
        got = PROTOCOLS[name].quantise(values) * 255
        assert got.flatten().round(decimals=4).tolist() == expected, name


@pytest.mark.parametrize("name", [n for n, p in PROTOCOLS.items() if p.alignment == "none"])
def test_equal_pictures_have_no_finite_psnr(name):
    protocol = PROTOCOLS[name]
    levels = to_float(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16))
    whole = levels.expand(1, 3, 16, 16).repeat(1, 1, 12, 12)
    found = protocol.score(protocol.quantise(whole), [whole]).psnr
    assert found == min(math.inf, protocol.highest)


def test_y_is_luma_in_studio_range():
    corners = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0]]).T.reshape(1, 3, 1, 3)
    wanted = torch.tensor([16.0, 235.0, 81.481])
    assert torch.allclose(metrics.studio_luma(corners).flatten() * 255, wanted, atol=1e-3)


def test_ms_ssim_by_another_way():
    """Five scales by scipy's symmetric correlation and skimage's maps."""
    ndimage = pytest.importorskip("scipy.ndimage")
    x, y = (picture(190, 200, seed).mean(1, keepdim=True) for seed in (0, 1))
    y = 0.7 * x + 0.3 * y
    line = np.array(metrics.LOW_PASS)
    line /= line.sum()
    a, b, product = x[0, 0].double().numpy(), y[0, 0].double().numpy(), 1.0
    for level, weight in enumerate(metrics.MS_WEIGHTS):
        options = {"data_range": 1, "gaussian_weights": True, "sigma": 1.5}
        options |= {"use_sample_covariance": False, "full": True}
        whole = skimage_metrics.structural_similarity(a, b, **options)[1][5:-5, 5:-5]
        if level == 4:
            product *= whole.mean() ** weight
            break
        means = [ndimage.gaussian_filter(z, 1.5, truncate=3.5)[5:-5, 5:-5] for z in (a, b)]
        light = (2 * means[0] * means[1] + 1e-4) / (means[0] ** 2 + means[1] ** 2 + 1e-4)
        product *= (whole / light).mean() ** weight
        for axis in (0, 1):
            a, b = (ndimage.correlate1d(z, line, axis, mode="reflect") for z in (a, b))
        a, b = a[::2, ::2], b[::2, ::2]
    assert float(metrics.ms_ssim(x, y)) == pytest.approx(product, abs=1e-6)


def test_realblur_forgives_intensity_and_a_small_shift():
    reference = torch.nn.functional.avg_pool2d(picture(128, 160), 3, 1, 1)
    moved = torch.roll(reference, (1, 2), (-2, -1)) * 0.8
    protocol = PROTOCOLS["realblur"]
    plain = PROTOCOLS["rgb"].score(moved, [reference]).psnr
    aligned = protocol.score(moved, [reference])
    assert aligned.psnr > plain + 10
    assert aligned.ssim > 0.97
    assert protocol.score(reference, [reference]).psnr > 60
    flat = torch.full_like(reference, 0.5)
    assert np.isfinite(protocol.score(flat, [reference]).psnr)  # ECC finds nothing


def test_kohler_takes_the_best_frame_after_a_shift():
    protocol = PROTOCOLS["kohler"]
    frames = [picture(192, 200, seed) for seed in range(3)]
    moved = torch.zeros_like(frames[1])
    moved[..., 3:, :-5] = frames[1][..., :-3, 5:] * 0.9
    scores = protocol.score(moved, frames)
    alone = [protocol.score(moved, [frame]).psnr for frame in frames]
    assert scores.psnr == max(alone) == alone[1]
    # The intensity is fitted before the shift is known, as published: not perfect.
    assert scores.psnr > max(alone[0], alone[2]) + 10
    assert scores.ssim > 0.99


@pytest.mark.parametrize("name", sorted(PROTOCOLS))
def test_a_better_picture_scores_better(name):
    protocol = PROTOCOLS[name]
    reference = picture(192, 200)
    noise = torch.randn(reference.shape, generator=torch.Generator().manual_seed(0))
    scores = [
        protocol.score(protocol.quantise(reference + strength * noise), [reference])
        for strength in (0.02, 0.1)
    ]
    assert scores[0].psnr > scores[1].psnr + 5
    assert scores[0].ssim > scores[1].ssim


def test_an_unknown_protocol():
    with pytest.raises(UsageError, match="Did you mean 'cnlrn'"):
        lookup("protocol", "cnlr", PROTOCOLS)
