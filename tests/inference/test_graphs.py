"""Graphs that run without this package give its pictures."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

import pytest
import torch
from conftest import TINY_CONFIGS, TINY_NETWORKS, slow
from torch import nn
from typer.testing import CliRunner

from restore_cli.cli.app import app
from restore_cli.errors import RestoreError, UsageError
from restore_cli.inference import export as exporting
from restore_cli.inference.export import FORMATS, export
from restore_cli.inference.loading import load_network
from restore_cli.inference.local_statistics import LocalMean
from restore_cli.inference.tlsc import has_global_statistics
from restore_cli.models.layers import GlobalCovariance, GlobalMean, InstanceNorm
from restore_cli.models.registry import MODELS
from restore_cli.models.spec import SizeRequirement, Tiling
from restore_cli.weights.checkpoint import CheckpointHeader, write_checkpoint
from restore_cli.weights.store import locate

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
FLOAT32 = 1e-5  # of [0, 1]; measured: 2e-6


@pytest.fixture
def loaded(tmp_path, request):
    """A small network as the test asks for, every parameter at work."""
    name, config = request.param
    torch.manual_seed(5)
    network = MODELS[name].build(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    path = tmp_path / "tiny.safetensors"
    header = CheckpointHeader(name, dataclasses.asdict(config), (64, 64), {})
    write_checkpoint(path, network.state_dict(), header)
    return load_network(dataclasses.replace(locate(str(path), None), license="MIT"))


@pytest.mark.slow
@pytest.mark.parametrize("loaded", TINY_NETWORKS, indirect=True, ids=[n for n, _ in TINY_NETWORKS])
def test_torchscript_of_every_model(loaded, tmp_path):
    made = export(loaded, tmp_path / "a.pt", "torchscript", tlsc=None, check=True)
    local = has_global_statistics(loaded.network) and loaded.model.tiling is Tiling.SUPPORTED
    assert made.facts["tlsc_window"] == ("96x96" if local else "off")
    assert made.facts["weights_license"] == loaded.file.license == "MIT"
    assert len(made.differences) == 3
    # The fused dense layers round differently, which random weights amplify: 1.1e-4 was measured.
    most = 2e-4 if loaded.model.name == "maxim-mscam" else FLOAT32
    assert max(made.differences.values()) < most
    extra = {"restore.json": ""}
    graph = torch.jit.load(tmp_path / "a.pt", _extra_files=extra)
    assert json.loads(extra["restore.json"]) == made.facts
    image = torch.rand(1, 3, 64, 47)
    sides = (64 * loaded.model.scale, 47 * loaded.model.scale)
    assert graph(image).shape[-2:] == sides


class Every(nn.Module):
    """All statistics that a graph may hold, at two sizes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm, self.mean, self.covariance = InstanceNorm(), GlobalMean(), GlobalCovariance()
        self.squeeze, self.gate = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image):
        x = self.norm(self.first(image))
        x = x * torch.sigmoid(self.mean(x, self.squeeze))
        return image + self.last(x * torch.sigmoid(self.covariance(x, self.gate)))


@pytest.fixture
def every(tmp_path, request):
    """`Every` as if it were a model of the registry."""
    torch.manual_seed(2)
    like = load_network(locate("gfn-lite.shake", None))
    model = dataclasses.replace(like.model, scale=1, size=SizeRequirement(4, 4))
    return dataclasses.replace(
        like,
        model=model,
        network=Every().eval(),
        train_size=(32, 32),
        tlsc_base=(48, 48),
        tlsc=True,
    )


@pytest.mark.parametrize(
    "kind",
    [
        "torchscript",
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in FORMATS if kind != "torchscript"),
    ],
)
def test_local_statistics_are_inside_whatever_the_size(every, kind, tmp_path):
    pytest.importorskip("onnxruntime")
    made = export(every, tmp_path / "a", kind, tlsc=None, check=True)
    assert made.facts["tlsc_window"] == "48x48"
    assert len(made.differences) == 3
    assert max(made.differences.values()) < FLOAT32


def test_without_tlsc_the_statistics_are_global(every, tmp_path):
    made = export(every, tmp_path / "a", "torchscript", tlsc=False, check=True)
    local = export(every, tmp_path / "b", "torchscript", tlsc=True, check=False)
    assert made.facts["tlsc_window"] == "off"
    assert local.differences == {}
    image = torch.rand(1, 3, 96, 100)
    graphs = [torch.jit.load(tmp_path / name) for name in "ab"]
    assert (graphs[0](image) - graphs[1](image)).abs().max() > 1e-3


@pytest.mark.parametrize("loaded", [("msan", TINY_CONFIGS["msan"])], indirect=True)
def test_windows_of_attention_are_refused(loaded, tmp_path):
    with pytest.raises(UsageError, match="attention"):
        export(loaded, tmp_path / "a.pt", "torchscript", tlsc=True, check=False)
    assert list(tmp_path.glob("a*")) == []


def test_a_graph_that_differs_is_not_written(every, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_branch_free_box_mean", lambda x, window: x)
    with pytest.raises(RestoreError, match="differs from restore's result"):
        export(every, tmp_path / "a.pt", "torchscript", tlsc=True, check=True)
    assert list(tmp_path.iterdir()) == []


def test_nan_is_a_difference(every, tmp_path, monkeypatch):
    """Also where it is not the first."""
    found = {(1, 1): 0.0, (2, 2): float("nan")}
    monkeypatch.setattr(exporting, "_differences", lambda *_: found)
    with pytest.raises(RestoreError, match="differs from restore's result"):
        export(every, tmp_path / "a.pt", "torchscript", tlsc=True, check=True)


def test_a_graph_of_one_size_is_not_written(every, tmp_path, monkeypatch):
    class Fixed(LocalMean):
        """Branches on sizes, as our own layer does."""

    monkeypatch.setitem(exporting._BRANCH_FREE, LocalMean, Fixed)
    with pytest.raises(RestoreError, match="does not run at"):
        export(every, tmp_path / "a.pt", "torchscript", tlsc=True, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["torchscript", slow("pt2")])
def test_a_full_disk_is_named_and_leaves_nothing(every, tmp_path, monkeypatch, kind):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")  # as from a write, without a name

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RestoreError, match=r"cannot write '.*a': No space left on device"):
        export(every, tmp_path / "a", kind, tlsc=True, check=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_command_writes_onnx_with_its_facts(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    arguments = [
        "weights",
        "convert",
        "gfn-lite.shake",
        "--to",
        "onnx",
        "-o",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(app, [*arguments, "--check"])
    assert done.exit_code == 0, done.stderr
    path = tmp_path / "out" / f"gfn-lite.shake{FORMATS['onnx'][0]}"
    assert done.stdout == f"{path}\n"
    assert "off" in done.stderr
    facts = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert facts["weights"] == "gfn-lite.shake"
    assert facts["weights_license"] == "CC-BY-SA-4.0"
    assert facts["scale"] == "4"
    assert CliRunner().invoke(app, arguments).exit_code == 2  # it exists


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onxn"], "Did you mean 'onnx'"),
        (["--to", "onnx", "--name", "a.b"], "--name"),
        (["--check"], "are options of `restore weights convert`"),
        (["--to", "oxxn"], "format 'oxxn' not found"),
        (["--private", "--name", "a.b"], "--private needs"),
        ([], "--name is missing"),
    ],
)
def test_command_refuses(arguments, message, tmp_path):
    base = ["weights", "export", "gfn-lite.shake", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*base, *arguments])
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
