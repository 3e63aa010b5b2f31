"""Every model, with its default overlap, restores a real picture in tiles as it does whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_NETWORKS

from restore_cli.image import read_image
from restore_cli.inference.loading import LoadedNetwork
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.inference.tlsc import has_global_statistics, localise
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import TilePlacement, Tiling
from restore_cli.weights.store import WeightsFile

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
TRAIN = (64, 64)
RESIDUAL = 0.025  # most that the bundled weights add to the interpolated input of an example
PICTURE = 0.2  # standard deviation of a network's whole output where it adds nothing to its input


class Scaled(torch.nn.Module):
    """A network with random weights whose output looks like a picture, or adds to one."""

    def __init__(self, network, image):
        super().__init__()
        self.network = network
        with torch.inference_mode():
            raw = network(image)
        self.mean, self.gain = raw.mean(), PICTURE / raw.std()

    def forward(self, image, *placement):
        return 0.5 + self.gain * (self.network(image, *placement) - self.mean)


def randomise(network):
    """Weights that make the statistics count."""
    strong = ("squeeze", "expand", "query", "key")
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith(("interpolation", "image_gain")):
                continue
            if name.endswith("gain"):
                weight.fill_(0.25)
            elif weight.ndim == 4:
                gain = 2.5 if any(part in name for part in strong) else 0.7
                weight.normal_(std=gain / weight[0].numel() ** 0.5)
            elif weight.numel() > 1:
                weight.normal_(std=0.05)


def skip_of(network, scale):
    """What the network adds its own result to, as a function of the image; None: nothing."""
    if getattr(network, "image_gain", None) is not None:
        return lambda image: network.image_gain * image
    if getattr(network, "interpolation", None) is None:
        return None
    return lambda image: torch.nn.functional.pixel_shuffle(network.interpolation(image), scale)


def stressed(model, image):
    """Weights that make the statistics count, of the size that training patches have."""
    torch.manual_seed(0)
    network = model.build(model.configs["lite"]).eval()
    skip = skip_of(network, model.scale)
    randomise(network)
    with torch.no_grad():
        if skip is None:
            return Scaled(network, image)
        residual = (network(image) - skip(image)).std()
        for name, weight in network.named_parameters():
            if name.endswith("image.weight") and weight.shape[0] == 3:
                weight.mul_(RESIDUAL / residual)
    return network


@pytest.mark.parametrize(
    "name", sorted(n for n, model in MODELS.items() if model.tiling is not Tiling.WINDOWS)
)
def test_tiled_is_whole_on_a_real_picture(name):
    model = MODELS[name]
    side = 3 * model.overlap
    photo = read_image(ROOT / "examples" / "sharp" / "casa-mila.jpg").pixels
    image = photo[..., 200 : 200 + side // 3, : side + 2 * model.overlap]
    network = stressed(model, image[..., :64, :64])
    file = WeightsFile(name, Path(name), "0" * 64, None)
    base = (96, 96)
    loaded = LoadedNetwork(
        model, model.configs["lite"], network, file, TRAIN, base, True, model.overlap
    )

    def restored(**options):
        return Restorer(loaded, RestorerOptions(CPU, **options))(image)

    whole = restored(tile=0)
    tiled = restored(tile=side)
    assert whole.std() > 0.1
    difference = ((tiled * 255).round() - (whole * 255).round()).abs()
    assert difference.max() <= 2
    assert (difference <= 1).float().mean() >= 0.9999
    if has_global_statistics(network):  # they do something; little beside a copy of the picture
        effect = (restored(tile=0, tlsc=False) - whole).abs()
        assert effect.max() > 0.02 / 255
        assert (tiled - whole).abs().mean() < 0.2 * effect.mean()


@pytest.mark.parametrize(
    ("name", "config"),
    # With an image skip, random weights add next to nothing that could lie anywhere.
    [
        (n, c)
        for n, c in TINY_NETWORKS
        if MODELS[n].takes_placement and not getattr(c, "image_skip", False)
    ],
)
def test_a_piece_is_computed_where_it_lies(name, config):
    """Statistics on a grid, and lines that cut the picture, belong to the picture.

    With small windows, so that the middle of a piece does not see its edges; in float64, so that
    nothing but the place can make a difference.
    """
    model = MODELS[name]
    unit = 2 if name == "msan" else 1  # its attention sees one position for 8 pixels
    train = (32 * unit, 32 * unit)
    base = (18, 18) if unit == 1 else (64, 64)
    size, side, place = 256 * unit, 160 * unit, (40 * unit, 48 * unit)
    image = read_image(ROOT / "examples" / "sharp" / "casa-mila.jpg").pixels.double()
    image = image[..., 100 : 100 + size, 200 : 200 + size]
    torch.manual_seed(0)
    network = model.build(config).eval()
    randomise(network)
    network = localise(network.double(), train, base)
    piece = image[..., place[0] : place[0] + side, place[1] : place[1] + side]
    middle = slice(model.scale * 64 * unit, model.scale * 96 * unit)

    with torch.inference_mode():
        whole = network(image, TilePlacement(0, 0, size, size))
    rows, columns = (slice(model.scale * n, model.scale * (n + side)) for n in place)
    wanted = whole[..., rows, columns]

    def differs(top, left):
        with torch.inference_mode():
            there = network(piece, TilePlacement(top, left, size, size))
        return float((there - wanted)[..., middle, middle].abs().max())

    here = differs(*place)
    assert here < 0.2 * differs(0, 0)
    assert here < 0.2 * differs(place[1], place[0])
