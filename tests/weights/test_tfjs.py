"""Packages of TensorFlow.js graphs: read as data, and hostile ones refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import torch

from restore_cli.errors import WeightsError
from restore_cli.weights import tfjs
from restore_cli.weights.foreign import read_foreign

SHARD = "group1-shard1of1.bin"


def node(name, op, *inputs):
    return {"name": name, "op": op, "input": list(inputs)}


@pytest.fixture
def files():
    """A graph with a convolution, a layer norm's scale, and a scalar that is no parameter."""
    kernel = np.arange(24, dtype="<f4").reshape(1, 1, 4, 6)
    scale, epsilon = np.arange(4, dtype="<f4").reshape(1, 1, 1, 4), np.full((1,), 1e-6, "<f4")
    scope = "StatefulPartitionedCall/jax2tf_apply_/Wrapper/backbone/"
    graph = {
        "modelTopology": {
            "node": [
                node(f"{scope}block/Conv_0/Conv2D", "Conv2D", "x", "c1"),
                node(f"{scope}block/LayerNorm/jit_fn_/mul_1", "Mul", "x:0", "c2"),
                node("add", "AddV2", "x", "c3"),
            ]
        },
        "weightsManifest": [
            {
                "paths": [SHARD],
                "weights": [
                    {"name": "c1", "shape": [1, 1, 4, 6], "dtype": "float32"},
                    {"name": "c2", "shape": [1, 1, 1, 4], "dtype": "float32"},
                    {"name": "c3", "shape": [1], "dtype": "float32"},
                ],
            }
        ],
    }
    return {
        "models/model.json": json.dumps(graph).encode(),
        f"models/{SHARD}": kernel.tobytes() + scale.tobytes() + epsilon.tobytes(),
    }


@pytest.fixture
def known(files, tmp_path, monkeypatch):
    """That graph is the one that is listed."""
    lines = [
        f'"{name}" = [{len(content)}, "{hashlib.sha256(content).hexdigest()}"]'
        for name, content in files.items()
    ]
    path = tmp_path / "packages.toml"
    path.write_text("\n".join(['["a 1.0"]', *lines]))
    monkeypatch.setattr(tfjs, "_LIST", path)
    return files


def archive(path, members):
    """A .tgz of (TarInfo, content) pairs."""
    with tarfile.open(path, "w:gz") as made:
        for member, content in members:
            made.addfile(member, io.BytesIO(content))
    return path


def regular(name, content):
    member = tarfile.TarInfo(f"package/{name}")
    member.size = len(content)
    return member, content


def test_archive_and_folder_give_the_same_parameters(known, tmp_path):
    packed = archive(tmp_path / "a.tgz", [regular(*file) for file in known.items()])
    folder = tmp_path / "unpacked"
    with tarfile.open(packed) as made:
        made.extractall(folder, filter="data")
    for source in (packed, folder, folder / "package"):
        state = read_foreign(source)
        assert sorted(state) == ["block/Conv_0/kernel", "block/LayerNorm/scale"]
        assert torch.equal(state["block/Conv_0/kernel"], torch.arange(24.0).reshape(1, 1, 4, 6))
        assert state["block/LayerNorm/scale"].shape == (4,)


@pytest.mark.parametrize("name", ["models/model.json", f"models/{SHARD}"])
def test_a_changed_or_missing_file_is_refused(known, tmp_path, name):
    flipped = {**known, name: known[name][:-1] + b"\0"}
    longer = {**known, name: known[name] + b"\0"}
    for changed in (flipped, longer):
        packed = archive(tmp_path / "a.tgz", [regular(*file) for file in changed.items()])
        with pytest.raises(WeightsError, match=f"'{name}'.* differs from the published"):
            read_foreign(packed)
    without = [regular(*file) for file in known.items() if file[0] != name]
    with pytest.raises(WeightsError, match=f"lacks {name}"):
        read_foreign(archive(tmp_path / "a.tgz", without))


def link(name, kind):
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member, b""


def named(name):
    member = tarfile.TarInfo(name)
    return member, b""


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (link("package/models/model.json", tarfile.SYMTYPE), "a link or device"),
        (link("package/models/model.json", tarfile.LNKTYPE), "a link or device"),
        (link("package/null", tarfile.CHRTYPE), "a link or device"),
        (named("/package/models/model.json"), "a path outside"),
        (named("package/../../models/model.json"), "a path outside"),
        (named("..\\models"), "a path outside"),
    ],
)
def test_hostile_members_are_refused(known, tmp_path, member, message):
    with pytest.raises(WeightsError, match=message):
        read_foreign(archive(tmp_path / "a.tgz", [member]))


def test_bombs_are_refused(known, tmp_path, monkeypatch):
    monkeypatch.setattr(tfjs, "_MAX_UNPACKED_BYTES", 1 << 20)
    zeros = archive(tmp_path / "a.tgz", [regular("filler", bytes(2 << 20))])
    with pytest.raises(WeightsError, match="larger than any known package"):
        read_foreign(zeros)
    # A header that tarfile reads whole before anyone sees its member.
    member = tarfile.TarInfo("package/a")
    member.pax_headers = {"comment": "x" * (3 << 20)}
    with tarfile.open(tmp_path / "b.tgz", "w:gz", format=tarfile.PAX_FORMAT) as made:
        made.addfile(member)
    with pytest.raises(WeightsError, match="unpacks to more than 1 MiB"):
        read_foreign(tmp_path / "b.tgz")
    monkeypatch.setattr(tfjs, "_MAX_MEMBERS", 10)
    many = archive(tmp_path / "c.tgz", [regular(f"file{n}", b"") for n in range(20)])
    with pytest.raises(WeightsError, match="larger than any known package"):
        read_foreign(many)


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no archive" * 100, mtime=0)],
    ids=["empty", "text", "gzip"],
)
def test_what_is_no_archive_is_refused(known, tmp_path, content):
    path = tmp_path / "a.tgz"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        read_foreign(path)
    whole = archive(tmp_path / "b.tgz", [regular(*file) for file in known.items()]).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError):
        read_foreign(path)


def test_the_listed_package_is_told_by_its_graph():
    assert len(tfjs.graph_sha256()) == 64
