"""Networks that spandrel knows run through the same line, and ours through spandrel."""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import restore_cli
from restore_cli.cli.app import app
from restore_cli.errors import UsageError, WeightsError
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.models.spandrel_adapter import add_to_spandrel, recognise
from restore_cli.weights.store import locate


@pytest.fixture(scope="module", autouse=True)
def spandrel():
    """Where torch is a CPU build and torchvision is not, declare what its import looks for."""
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        pytest.skip("torchvision is not installed")
    library = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            source = Path(found.origin).with_name("_meta_registrations.py").read_text("utf-8")
            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in re.findall(r'register_fake\("torchvision::(\w+)"\)', source):
                library.define(f"{name}(Tensor x) -> Tensor")
            for name in re.findall(r"register_meta\(\"(\w+)\"\)", source):
                library.define(f"{name}(Tensor x) -> Tensor")
        yield pytest.importorskip("spandrel")


@pytest.fixture
def esrgan(spandrel, tmp_path):
    """A small network of random weights, as a file with its author's names."""
    esrgan = importlib.import_module("spandrel.architectures.ESRGAN").ESRGAN
    torch.manual_seed(1)
    network = esrgan(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4)
    path = tmp_path / "esrgan.safetensors"
    save_file(network.state_dict(), path)
    return path


def options(**changes):
    return RestorerOptions(torch.device("cpu"), **changes)


def test_tiles_of_a_spandrel_network_give_its_picture(esrgan, spandrel):
    loaded = load_network(locate(str(esrgan), None))
    assert (loaded.model.name, loaded.model.scale) == ("spandrel-esrgan", 4)
    assert loaded.config.architecture == "ESRGAN"
    image = torch.rand(1, 3, 210, 131)
    theirs = spandrel.ModelLoader().load_from_file(str(esrgan)).eval()(image)
    whole = Restorer(loaded, options(tile=0))(image)
    assert torch.allclose(whole, theirs, atol=1e-6)
    tiled = Restorer(loaded, options(tile=192))(image)
    assert (tiled - whole).abs().max() < 1e-5


def test_command_restores_with_a_spandrel_file(esrgan, tmp_path):
    """16 bits, alpha and a folder: the line is the same."""
    pictures = tmp_path / "in"
    pictures.mkdir()
    values = (np.random.default_rng(0).random((20, 24)) * 65535).astype(np.uint16)
    Image.fromarray(values).save(pictures / "deep.png")
    Image.new("RGBA", (16, 12), (200, 30, 30, 128)).save(pictures / "clear.png")
    arguments = ["image", str(pictures), "--weights", str(esrgan), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert "spandrel" not in done.stdout
    with Image.open(tmp_path / "out" / "deep_x4.png") as deep:
        assert deep.size == (96, 80)
        assert deep.mode.startswith("I;16")
    with Image.open(tmp_path / "out" / "clear_x4.png") as clear:
        assert (clear.size, clear.mode) == ((64, 48), "RGBA")
    info = CliRunner().invoke(app, ["info", str(esrgan)])
    assert "spandrel-esrgan" in info.stdout


def test_python_interface_takes_a_zoo_file(esrgan):
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    made = restore_cli.load_model(weights=str(esrgan))(image)
    assert (made.shape, made.dtype) == ((80, 96, 3), np.uint8)


def test_model_and_file_must_agree(esrgan):
    with pytest.raises(WeightsError, match="of 'spandrel-esrgan', not of 'gfn'"):
        load_network(locate(str(esrgan), "gfn"), "gfn")


def test_a_network_that_cannot_run_in_halves_says_so(spandrel):
    loaded = load_network(locate("gfn-lite.shake", None))
    whole = dataclasses.replace(loaded.model, dtypes=(torch.float32,))
    with pytest.raises(UsageError, match="does not run in"):
        Restorer(dataclasses.replace(loaded, model=whole), options(dtype=torch.float16))


def test_grey_networks_take_channels_one_by_one(spandrel, tmp_path):
    dncnn = importlib.import_module("spandrel.architectures.DnCNN").DnCNN
    torch.manual_seed(1)
    network = dncnn(in_nc=1, out_nc=1, nc=8, nb=8, mode="R", act_mode="R").eval()
    model, _, ours = recognise(network.state_dict(), "dncnn")
    theirs = spandrel.ModelLoader().load_from_state_dict(network.state_dict())
    image = torch.rand(2, 3, 17, 20)
    with torch.inference_mode():
        made = ours(image)
        assert made.shape == image.shape
        assert torch.equal(made[1, 2], theirs(image[1:, 2:])[0, 0])
    assert model.scale == 1


def test_unknown_and_broken_files_are_refused(esrgan, tmp_path):
    with pytest.raises(WeightsError, match="matches no network of restore or spandrel"):
        recognise({"conv.weight": torch.zeros(1)}, "x")
    with pytest.raises(WeightsError, match="too large or empty layers"):
        recognise(load_file(esrgan) | {"model.99999999.weight": torch.zeros(1)}, "x")
    with pytest.raises(WeightsError, match="too large or empty layers"):
        recognise(load_file(esrgan) | {"model.0.weight": torch.zeros(10**9, 0)}, "x")
    state = load_file(esrgan)
    state.pop("model.0.bias")
    with pytest.raises(WeightsError, match="resembles a network of spandrel"):
        recognise(state, "x")


def test_without_spandrel_the_hint_names_the_extra(esrgan, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    done = CliRunner().invoke(app, ["image", str(esrgan.parent), "-w", str(esrgan)])
    assert done.exit_code == 4
    assert "restore-cli[zoo]" in done.stderr


def test_files_with_their_authors_names_are_sent_to_the_importer(tmp_path):
    path = tmp_path / "theirs.safetensors"
    save_file({"geteMoudle.0.conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(WeightsError) as caught:
        load_network(locate(str(path), None))
    assert "restore weights import" in caught.value.hint


def test_a_spandrel_network_is_not_exported(esrgan, tmp_path):
    arguments = ["weights", "convert", str(esrgan), "--to", "pt2", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "may contain branches on sizes" in done.stderr


def test_import_makes_a_pickle_safe(esrgan, tmp_path):
    state = load_file(esrgan)
    other = {name: tensor + 1 for name, tensor in state.items()}
    torch.save({"params": other, "params_ema": state}, tmp_path / "esrgan.pth")
    target = tmp_path / "made.safetensors"
    arguments = ["weights", "import", str(tmp_path / "esrgan.pth"), "-o", str(target)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    assert "spandrel-esrgan" in done.stderr
    made = load_file(target)
    assert made.keys() == state.keys()
    assert all(torch.equal(made[name], state[name]) for name in state)


def test_spandrel_loads_ours(spandrel):
    registry = spandrel.ArchRegistry()
    added = add_to_spandrel(registry)
    assert "restore-gfn" in added
    assert add_to_spandrel(registry) == []
    path = locate("gfn-lite.shake", None).path
    found = spandrel.ModelLoader(registry=registry).load_from_file(str(path))
    assert (found.architecture.id, found.scale, found.purpose) == ("restore-gfn", 4, "SR")
    image = torch.rand(1, 3, 30, 37)
    loaded = load_network(locate("gfn-lite.shake", None))
    ours = Restorer(loaded, options(tile=0))(image)
    theirs = found.float()(image)
    inside = (slice(None), slice(None), slice(0, 80), slice(0, 80))  # paddings differ
    assert (ours - theirs)[inside].abs().max() < 1e-5


def test_ours_come_before_spandrels_own(spandrel):
    registry = spandrel.MAIN_REGISTRY.copy()
    add_to_spandrel(registry)
    path = locate("mprnet-mscam-lite.shake", None).path
    found = spandrel.ModelLoader(registry=registry).load_from_file(str(path))
    assert found.architecture.id == "restore-mprnet-mscam"
    assert found.tiling is spandrel.ModelTiling.DISCOURAGED
