"""How a fresh network is drawn: a signal keeps its size through it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from restore_cli.models.layers import ResidualBlock, zero_init
from restore_cli.models.msan import SelfAttention
from restore_cli.models.registry import MODELS
from restore_cli.training.initialisation import initialise_he
from restore_cli.training.recipe import load_recipe, shipped_recipes


def test_a_row_of_convolutions_and_relus_keeps_the_variance():
    torch.manual_seed(0)
    row = nn.Sequential(*(layer for _ in range(8) for layer in (nn.Conv2d(64, 64, 3), nn.ReLU())))
    x = torch.randn(2, 64, 40, 40)
    before = row(x).square().mean()
    initialise_he(row)
    after = row(x).square().mean()
    assert 0.5 < after < 2
    assert before < 0.02 * after  # torch's start loses it, which is why this one exists


def test_a_transposed_convolution_keeps_the_variance():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.ConvTranspose2d(64, 64, 4, stride=2, padding=1))
    initialise_he(layer)
    assert 0.8 < layer(torch.randn(2, 64, 40, 40)).var() < 1.2


def test_layers_that_start_at_zero_stay_there():
    layer = nn.Conv2d(4, 4, 3)
    zero_init(layer)
    initialise_he(nn.Sequential(layer))
    assert not layer.weight.any()


def test_what_is_added_is_drawn_narrower_and_biases_are_zero():
    torch.manual_seed(0)
    block = ResidualBlock(64)
    initialise_he(block)
    assert not block.conv1.bias.any()
    assert not block.conv2.bias.any()
    ratio = float(block.conv2.weight.data.std() / block.conv1.weight.data.std())
    assert ratio == pytest.approx(0.3, rel=0.05)
    grouped = nn.Conv2d(64, 64, 3, groups=64)
    initialise_he(nn.Sequential(grouped))
    assert float(grouped.weight.data.std()) == pytest.approx((2 / 9) ** 0.5, rel=0.15)


@pytest.mark.parametrize("name", ["gfn", "moadg"])
def test_networks_that_add_the_interpolated_picture_still_start_as_bicubic(name):
    network = MODELS[name].build(MODELS[name].configs["lite"]).eval()
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        before = network(image)
        initialise_he(network)
        assert torch.equal(network(image), before)


def test_msan_starts_as_the_identity():
    network = MODELS["msan"].build(MODELS["msan"].configs["lite"]).eval()
    image = torch.rand(1, 3, 16, 16)
    with torch.inference_mode():
        assert not torch.equal(network(image), image)
        initialise_he(network)
        assert torch.equal(network(image), image)


def test_scores_of_an_attention_keep_their_start():
    attention = SelfAttention(8)
    before = {name: p.clone() for name, p in attention.named_parameters()}
    initialise_he(attention)
    after = dict(attention.named_parameters())
    assert torch.equal(after["query.weight"], before["query.weight"])
    assert torch.equal(after["key.weight"], before["key.weight"])
    assert not torch.equal(after["value.weight"], before["value.weight"])


@pytest.mark.parametrize(
    "name", [n for n in shipped_recipes() if load_recipe(n).initialisation == "he"]
)
def test_recipes_that_start_so_start_with_maps_of_a_picture_s_size(name):
    """mprnet's many sums are no place for it: its first output would be of several hundred."""
    recipe = load_recipe(name)
    model = MODELS[recipe.model]
    torch.manual_seed(0)
    network = model.build(model.configs[recipe.config]).eval()
    initialise_he(network)
    deviations = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.any() and layer.kernel_size > (1, 1):
            layer.register_forward_hook(lambda _, __, result: deviations.append(result.std()))
    with torch.inference_mode():
        network(torch.rand(1, 3, 64, 64))
    assert min(deviations) > 0.1
    assert max(deviations) < 10
