"""Every model, with its default overlap, restores a real picture in tiles as it does whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT

from restore_cli.image import read_image
from restore_cli.inference.loading import LoadedNetwork
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.models.registry import MODELS
from restore_cli.weights.store import WeightsFile

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


def stressed(model, image):
    """Weights that make the statistics count, of the size that training patches have."""
    torch.manual_seed(0)
    network = model.build(model.configs["lite"]).eval()
    skip = getattr(network, "interpolation", None)
    strong = ("squeeze", "expand", "query", "key")
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.startswith("interpolation"):
                continue
            if name.endswith("gain"):
                weight.fill_(0.25)
            elif weight.ndim == 4:
                gain = 2.5 if any(part in name for part in strong) else 0.7
                weight.normal_(std=gain / weight[0].numel() ** 0.5)
            elif weight.numel() > 1:
                weight.normal_(std=0.05)
        if skip is None:
            return Scaled(network, image)
        bicubic = torch.nn.functional.pixel_shuffle(skip(image), model.scale)
        residual = (network(image) - bicubic).std()
        for name, weight in network.named_parameters():
            if name.endswith("image.weight") and weight.shape[0] == 3:
                weight.mul_(RESIDUAL / residual)
    return network


@pytest.mark.parametrize("name", sorted(MODELS))
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
    if name != "gfn":
        # The statistics count, so the agreement is not for want of them.
        assert (restored(tile=0, tlsc=False) - whole).abs().max() > 0.2 / 255
