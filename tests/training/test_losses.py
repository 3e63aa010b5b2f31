"""Losses against the published numbers and against themselves computed another way."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from conftest import GOLDEN, picture
from safetensors.torch import load_file

from restore_cli import metrics
from restore_cli.training import losses


def test_losses_are_the_published_ones():
    a = load_file(GOLDEN / "losses_a.safetensors")["a"]
    b = load_file(GOLDEN / "losses_b.safetensors")["b"]
    expected = load_file(GOLDEN / "losses_expected.safetensors")
    names = {"l1": "l1", "charbonnier": "charbonnier", "edge": "edge", "gradient": "gradient_sobel"}
    for ours, theirs in names.items():
        assert float(losses.LOSSES[ours](a, b)) == pytest.approx(float(expected[theirs]), rel=1e-6)
    laplacian = losses.laplacian(a)[:1, :, ::2, ::2]
    assert torch.allclose(laplacian, expected["laplacian_a"], atol=1e-6)


@pytest.fixture
def pair():
    reference = torch.cat([picture(40, 44, seed) for seed in range(3)])
    return (reference + 0.1 * torch.randn(reference.shape)).clamp(0, 1), reference


def test_score_and_similarity_are_the_metrics(pair):
    a, b = pair
    assert float(losses.psnr(a, b)) == pytest.approx(-float(metrics.psnr(a, b).mean()) / 10, 1e-4)
    assert float(losses.ssim(a, b)) == pytest.approx(1 - float(metrics.ssim(a, b).mean()), 1e-6)
    assert float(losses.ssim(b, b)) == pytest.approx(0, abs=1e-6)


def test_cross_entropy_and_its_tangent():
    zero = torch.zeros(1, 1, 1, 1)
    for error in (0.0, 0.1, 0.9):
        value = float(losses.cross_entropy(zero + error, zero))
        assert value == pytest.approx(-math.log(1 - error), rel=1e-5)
    for error in (0.5, 0.9995, 1.0, 3.0):
        output = (zero + error).requires_grad_()
        loss = losses.cross_entropy(output, zero)
        loss.backward()
        assert torch.isfinite(loss)
        # Of the same slope beyond: an output that is far off is still pulled back.
        assert float(output.grad) == pytest.approx(1 / (1 - min(error, 0.999)), rel=1e-3)


def test_gray_gradient(pair):
    a, b = (x.double() for x in pair)
    weights = torch.tensor([0.2989, 0.5870, 0.1140], dtype=torch.float64)
    gray = torch.einsum("bchw,c->bhw", a - b, weights).numpy()
    wanted = ((gray[:, :, 1:] - gray[:, :, :-1]) ** 2).mean()
    wanted += ((gray[:, 1:] - gray[:, :-1]) ** 2).mean()
    assert float(losses.gray_gradient(a, b)) == pytest.approx(wanted)


def test_a_recipe_takes_a_new_loss_and_is_checked_without_torch():
    code = (
        "import sys\n"
        "from restore_cli.training import losses\n"
        "losses.LOSSES['new'] = losses.l1\n"
        "from restore_cli.training.recipe import LossTerm\n"
        "LossTerm(output='restored', target='reference', loss='new')\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_every_loss_is_least_for_the_reference(name, pair):
    output, reference = pair
    loss = losses.LOSSES[name]
    output = output.clone().requires_grad_()
    value = loss(output, reference)
    value.backward()
    assert value.ndim == 0
    assert value > loss(reference, reference)
    assert torch.isfinite(output.grad).all()
    assert output.grad.abs().sum() > 0


@pytest.mark.parametrize(("name", "end"), [("psnr_to_20", -2), ("psnr_to_30", -3)])
def test_psnr_ends_where_its_name_says(name, end):
    same = torch.rand(2, 3, 8, 8)
    loss = losses.LOSSES[name]
    assert float(loss(same, same)) == pytest.approx(end, abs=1e-4)
    far = float(loss(same, same + 1))
    assert far == pytest.approx(float(losses.psnr(same, same + 1)), abs=0.01)
