"""The authors' files: every kind is read, nothing is executed, nothing is loaded in part."""

from __future__ import annotations

import argparse
import hashlib
import os
import pickle
import re
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL, official, picture, restore, slow
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from restore_cli.errors import UsageError, WeightsError
from restore_cli.inference.loading import load_network
from restore_cli.models.gfn import GFN, Gfn, GfnConfig
from restore_cli.models.registry import MODELS, get_model
from restore_cli.weights.checkpoint import read_checkpoint, write_checkpoint
from restore_cli.weights.foreign import read_foreign
from restore_cli.weights.importing import convert, import_checkpoint
from restore_cli.weights.store import locate
from restore_cli.weights.torch_pickle import MAGIC_NUMBER, PROTOCOL_VERSION


def as_module(state, class_path="networks.GFN_4x"):
    """A module tree with these parameters, of classes that only this process has."""
    module_name, names = class_path, ("Net", "_DeblurringMoudle", "_SRMoudle")
    fake = types.ModuleType(module_name)
    sys.modules[module_name.partition(".")[0]] = types.ModuleType(module_name.partition(".")[0])
    sys.modules[module_name] = fake
    for name in names:
        setattr(fake, name, type(name, (nn.Module,), {"__module__": module_name}))
    root = fake.Net()
    for key, tensor in state.items():
        *path, last = key.split(".")
        parent = root
        for depth, part in enumerate(path):
            if part not in parent._modules:
                kind = nn.Sequential if depth % 2 else getattr(fake, names[1 + depth % 2])
                parent.add_module(part, kind())
            parent = parent._modules[part]
        parent.register_parameter(last, nn.Parameter(tensor))
    root.add_module("activation", nn.LeakyReLU(0.2))
    return root


def august_2018():
    """A small network of August 2018 under names as that file groups them."""
    torch.manual_seed(0)
    network = Gfn(GfnConfig(width=8, august_2018=True))
    theirs = {}
    groups = {
        "features.first": "conv_input",
        "features.blocks": "residual1",
        "features.last": "conv_mid",
        "deblurring": "ednet.0",
        "reconstruction.blocks": "residual2",
        "reconstruction.up1": "upscale4x.0",
        "reconstruction.up2": "upscale4x.3",
        "reconstruction.conv": "conv_output.0",
        "reconstruction.image": "conv_output.2",
        "gate": "attention_model.0",
    }
    order = ("first", "blocks.0", "downs.0", "blocks.1", "downs.1", "blocks.2", "ups", "last")
    state = network.state_dict()
    deblurring = sorted(
        (key for key in state if key.startswith("deblurring")),
        key=lambda key: next(
            (n for n, part in enumerate(order) if key.startswith(f"deblurring.{part}")), 99
        ),
    )
    for key in [*deblurring, *(key for key in state if not key.startswith("deblurring"))]:
        ours = next(group for group in groups if key.startswith(group))
        tensor = state[key]
        if key == "gate.conv1.weight":
            deblurring_part, image, features = torch.split(tensor, [8, 3, 8], 1)
            tensor = torch.cat([image, deblurring_part, features], 1)
        theirs[groups[ours] + key.removeprefix(ours)] = tensor
    return network, theirs


@pytest.fixture(autouse=True)
def forget_fake_classes():
    yield
    for name in ("networks", "networks.GFN_4x"):
        sys.modules.pop(name, None)


def save(kind, state, path):
    """Write a state dict in one of the ways that authors do."""
    if kind == "safetensors":
        save_file({k: t.contiguous() for k, t in state.items()}, path)
    elif kind == "npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
    elif kind == "parallel":
        torch.save({"epoch": 3, "state_dict": {f"module.{k}": t for k, t in state.items()}}, path)
    elif kind == "legacy":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "pth") for name in sorted(SMALL)),
        *(("gfn", kind) for kind in ("legacy", "parallel", "safetensors", "npz")),
    ],
)
def test_every_kind_and_every_system(tmp_path, name, kind):
    state = official(name)
    suffix = kind if kind in ("safetensors", "npz") else "pth"
    save(kind, state, tmp_path / f"theirs.{suffix}")
    target = tmp_path / "ours.safetensors"
    found = import_checkpoint(tmp_path / f"theirs.{suffix}", target, name)
    expected = get_model(name).published[0].convert(state)
    written = read_checkpoint(target)
    assert written.header.model == name
    assert written.header.provenance["sha256"] == found.sha256
    assert written.tensors.keys() == expected.keys()
    assert all(torch.equal(written.tensors[key], expected[key]) for key in expected)
    loaded = load_network(locate(str(target), name), name)
    assert loaded.config == found.config
    assert loaded.train_size == get_model(name).published[0].train_size
    with torch.inference_mode():
        assert loaded.network(picture(16, 32)).isfinite().all()


def test_the_deblurring_part_alone_is_mprnet(tmp_path):
    state = {k: t for k, t in official("mprnet-mscam").items() if not k.startswith("SRNet")}
    torch.save({"state_dict": state}, tmp_path / "phase1.pth")
    assert (
        import_checkpoint(tmp_path / "phase1.pth", tmp_path / "o.safetensors", "mprnet").model.name
        == "mprnet"
    )


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_whole_pickled_modules(tmp_path, zipped, wrapped, parallel):
    state = official("gfn")
    module = as_module(state)
    if parallel:
        module = nn.DataParallel(module)
        module.src_device_obj = torch.device("cuda:0")  # as on a machine with a GPU
    saved = {"model": module} if wrapped else module
    torch.save(saved, tmp_path / "GFN.pkl", _use_new_zipfile_serialization=zipped)
    sys.modules.pop("networks.GFN_4x")  # the reader has no such class
    assert read_foreign(tmp_path / "GFN.pkl").keys() == state.keys()
    found = import_checkpoint(tmp_path / "GFN.pkl", tmp_path / "gfn.safetensors", "gfn")
    expected = GFN.published[0].convert(state)
    assert all(torch.equal(found.tensors[key], expected[key]) for key in expected)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_the_network_of_august_2018(tmp_path, zipped):
    network, theirs = august_2018()
    saved = {"epoch": 30, "model": as_module(theirs)}
    torch.save(saved, tmp_path / "GFN_4x.pth", _use_new_zipfile_serialization=zipped)
    found = import_checkpoint(tmp_path / "GFN_4x.pth", tmp_path / "gfn.safetensors")
    assert found.config.august_2018
    assert found.published.name == "GFN_4x, August 2018"
    loaded = load_network(locate(str(tmp_path / "gfn.safetensors"), None)).network
    image = picture(16, 20)
    with torch.inference_mode():
        assert torch.equal(loaded(image), network(image))


def test_tensorflow_checkpoint(tmp_path, monkeypatch):
    state = official("attentive-deblur")
    variables = {name: tensor.numpy() for name, tensor in state.items()}
    for name in list(variables):
        variables |= {f"{name}/Adam": variables[name], f"{name}/Adam_1": variables[name]}
    variables |= {"beta1_power": np.float32(0.9), "beta2_power": np.float32(1)}
    variables |= {"Variable": np.int32(675000)}

    class Reader:
        def get_variable_to_shape_map(self):
            return {name: list(np.shape(value)) for name, value in variables.items()}

        def get_tensor(self, name):
            return variables[name]

    asked = []
    train = types.ModuleType("tensorflow.train")
    train.load_checkpoint = lambda prefix: asked.append(prefix) or Reader()
    monkeypatch.setitem(sys.modules, "tensorflow", types.ModuleType("tensorflow"))
    monkeypatch.setitem(sys.modules, "tensorflow.train", train)
    (tmp_path / "deblur.model-675000.index").write_bytes(b"")
    (tmp_path / "deblur.model-675000.data-00000-of-00001").write_bytes(b"numbers")
    prefix = tmp_path / "deblur.model-675000"
    for given_path in (prefix, tmp_path / "deblur.model-675000.index"):
        found = import_checkpoint(given_path, tmp_path / "o.safetensors", "attentive-deblur")
        expected = get_model("attentive-deblur").published[0].convert(state)
        assert found.tensors.keys() == expected.keys()
        assert found.sha256 == hashlib.sha256(b"numbers").hexdigest()
    assert asked == [str(prefix)] * 2
    np.savez(tmp_path / "dump.npz", **{f"{k}:0": v for k, v in variables.items()})
    again = import_checkpoint(tmp_path / "dump.npz", tmp_path / "o.safetensors")
    assert all(torch.equal(again.tensors[k], found.tensors[k]) for k in expected)


def test_without_tensorflow_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "model.index").write_bytes(b"")
    with pytest.raises(WeightsError, match="tensorflow is not installed") as caught:
        read_foreign(tmp_path / "model.index")
    assert "savez" in caught.value.hint


def damage(state):
    """Ways of not fitting, with what the message must say."""
    first, last = next(iter(state)), list(state)[-1]
    yield "missing", {k: t for k, t in state.items() if k != last}
    yield "unexpected", {**state, "wings.weight": torch.zeros(2)}
    yield "of another shape", {**state, last: torch.zeros(7, 7)}
    yield "not floating-point", {**state, last: state[last].long()}
    yield (
        "missing",
        {first: state[first], **dict(list(state.items())[len(state) // 2 :])},
    )


@pytest.mark.parametrize("name", [slow(n) if n == "mprnet-mscam" else n for n in sorted(SMALL)])
def test_nothing_is_loaded_in_part(tmp_path, name):
    target = tmp_path / "o.safetensors"
    state = official(name)
    # The slope that mprnet-mscam stores under many names comes first, an ordinary tensor last.
    for message, damaged in damage(dict(sorted(state.items(), key=lambda item: item[1].numel()))):
        torch.save(damaged, tmp_path / "theirs.pth")
        with pytest.raises(WeightsError, match=rf"(\d {message}|must fit exactly one)") as caught:
            import_checkpoint(tmp_path / "theirs.pth", target)
        assert "\n" not in str(caught.value)
        assert not target.exists()


def test_names_of_one_parameter_must_agree(tmp_path):
    state = official("mprnet-mscam")
    state["shallow_feat1.1.body.1.weight"] = torch.full((1,), 0.3)
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match="differs from another tensor of the same parameter"):
        import_checkpoint(tmp_path / "theirs.pth", tmp_path / "o.safetensors")


def test_another_model_and_unknown_networks_are_refused(tmp_path):
    torch.save(official("msan"), tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match="weights of 'msan', not of 'gfn'"):
        import_checkpoint(tmp_path / "theirs.pth", tmp_path / "o.safetensors", "gfn")
    with pytest.raises(UsageError, match="Did you mean 'msan'"):
        import_checkpoint(tmp_path / "theirs.pth", tmp_path / "o.safetensors", "msam")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(
        WeightsError, match=r"matches no network|matches none of|cannot be imported"
    ):
        import_checkpoint(tmp_path / "other.pth", tmp_path / "o.safetensors")


# Hostile files ---------------------------------------------------------------------------------


class Bomb:
    """Unpickling it calls a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def bombs(tmp_path):
    proof = str(tmp_path / "executed")
    yield Bomb(os.system, f"touch {proof}")
    yield Bomb(eval, f"open({proof!r}, 'w')")
    yield Bomb(exec, f"open({proof!r}, 'w')")
    yield Bomb(open, proof, "w")
    yield Bomb(getattr, "", "join")
    yield {"state_dict": Bomb(os.mkdir, proof)}
    yield {"model": [torch.zeros(1), Bomb(pickle.loads, b"")]}


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_executed(tmp_path, zipped):
    for n, bomb in enumerate(bombs(tmp_path)):
        path = tmp_path / f"{n}.pth"
        torch.save(bomb, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match="more than weights") as caught:
            read_foreign(path)
        assert "weights_only" not in str(caught.value)  # never advise to switch the safety off
        path.write_bytes(pickle.dumps(bomb))
        with pytest.raises(WeightsError):
            read_foreign(path)
    assert not (tmp_path / "executed").exists()


def test_objects_in_npz_are_refused(tmp_path):
    proof = tmp_path / "executed"
    np.savez(tmp_path / "theirs.npz", a=np.array([Bomb(open, str(proof), "w")], dtype=object))
    with pytest.raises(WeightsError, match=r"not a valid \.npz archive"):
        read_foreign(tmp_path / "theirs.npz")
    np.savez(tmp_path / "text.npz", a=np.array(["abc"]))
    with pytest.raises(WeightsError, match="not numbers"):
        read_foreign(tmp_path / "text.npz")
    assert not proof.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "contains no state dict"),
        ([torch.zeros(1)], "contains no state dict"),
        ({"a": torch.zeros(1), "b": 3}, "contains no state dict"),
        ({"state_dict": 5}, "contains no state dict"),
        ({"model": {"w": torch.zeros(2)}, "params": {"w": torch.ones(2)}}, "more than one set"),
        ({"w": torch.zeros(3).to_sparse()}, "_rebuild_sparse_tensor is not allowed"),
        ({"w": torch.zeros(3, device="meta")}, "is not allowed"),
    ],
)
def test_files_that_are_not_a_state_dict(tmp_path, content, message):
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(WeightsError, match=message):
        read_foreign(tmp_path / "odd.pth")


def legacy(path, pickled):
    """A file of the legacy format around a hand-made pickle."""
    parts = [MAGIC_NUMBER, PROTOCOL_VERSION, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    path.write_bytes(head + pickled + pickle.dumps([], 2))
    return path


STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01NtQ"
)
TENSOR = b"ctorch._utils\n_rebuild_tensor\n(" + STORAGE + b"K\x00(K\x01t(K\x01ttR"
HOSTILE = {
    "state of a tensor": b"\x80\x02"
    + TENSOR
    + b"("
    + STORAGE
    + b"K\x00(J\x50\xc3\x00\x00t(K\x01ttb.",
    "state of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor\n}X\x01\x00\x00\x00aK\x07sb.",
    "state of a class": b"\x80\x02ccollections\nOrderedDict\n}X\x01\x00\x00\x00aK\x07sb.",
    "deep tuple as a key": b"\x80\x02}N" + b"\x85" * 10**6 + b"K\x01s.",
    "tuple with itself as a key": b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "global of a module": b"\x80\x02cos\nsystem\n(X\x02\x00\x00\x00lstR.",
    "dotted name": b"\x80\x04\x8c\x05torch\x8c\x0bload.__call__\x93.",
    "extension code": b"\x80\x02\x82\x01.",
    "instance": b"\x80\x02(ios\nsystem\n.",
}


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE)
def test_hand_made_pickles_are_refused(tmp_path, pickled):
    with pytest.raises(WeightsError):
        read_foreign(legacy(tmp_path / "h.pth", pickled))
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    with pytest.raises(WeightsError):
        read_foreign(tmp_path / "z.pth")


def test_a_memo_index_costs_no_memory(tmp_path):
    path = legacy(tmp_path / "m.pth", b"\x80\x02Nr\xff\xff\xff\x7f.")
    with pytest.raises(WeightsError, match="no state dict"):
        read_foreign(path)


def test_modules_that_contain_each_other_often_end(tmp_path):
    """Fifty levels of two references to the next: 2^50 paths in a file of a kilobyte."""
    level = b"ctorch.nn.modules.container\nSequential\n)\x81"
    inner = level
    for n in range(50):
        memo = b"q" + bytes([n])
        children = (
            b"}(X\x01\x00\x00\x00a" + b"h" + bytes([n]) + b"X\x01\x00\x00\x00bh" + bytes([n]) + b"u"
        )
        inner = inner + memo + b"0" + level + b"}X\x08\x00\x00\x00_modules" + children + b"sb"
    with pytest.raises(WeightsError, match="more than 20,000 modules"):
        read_foreign(legacy(tmp_path / "dag.pth", b"\x80\x02" + inner + b"."))


def test_block_numbers_cost_no_time(tmp_path):
    state = official("msan")
    state["edcoder1.layer6.999999999.conv1.weight"] = torch.zeros(16, 16, 3, 3)
    torch.save(state, tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match="does not fit 'msan'"):
        import_checkpoint(tmp_path / "theirs.pth", tmp_path / "o.safetensors")


def test_tensors_cannot_claim_more_than_the_file_holds(tmp_path):
    path = tmp_path / "huge.pth"
    torch.save({"w": torch.zeros(4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    claim = b"K\x04N"  # four numbers, no view
    assert content.count(claim) == 1
    path.write_bytes(content.replace(claim, b"J\xff\xff\xff\x7fN"))
    with pytest.raises(WeightsError, match="larger than the file"):
        read_foreign(path)
    for zipped in (True, False):
        many = torch.zeros(1).expand(10**6)
        torch.save({"w": many}, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match="larger than its storage"):
            read_foreign(path)


@pytest.mark.slow
def test_archives_cannot_unpack_to_much_more(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "stored.pth")
    with (
        zipfile.ZipFile(tmp_path / "stored.pth") as stored,
        zipfile.ZipFile(tmp_path / "z.pth", "w", zipfile.ZIP_DEFLATED) as deflated,
    ):
        for name in stored.namelist():
            deflated.writestr(name, stored.read(name))
    with pytest.raises(WeightsError, match="compressed"):
        read_foreign(tmp_path / "z.pth")
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w", force_zip64=True) as stream,
    ):
        for _ in range(65):
            stream.write(bytes(1 << 24))
    with pytest.raises(WeightsError, match=r"unpacks to 1\.1 GB"):
        read_foreign(tmp_path / "bomb.npz")


def test_harmless_values_beside_the_weights(tmp_path):
    state = official("msan")
    beside = {
        "epoch": 3,
        "best_psnr": np.float64(31.2),
        "args": argparse.Namespace(lr=1e-4),
        "size": torch.Size([3, 4]),
        "device": torch.device("cpu"),
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1e-4}]},
    }
    for zipped in (True, False):
        saved = beside | {"state_dict": state}
        torch.save(saved, tmp_path / "t.pth", _use_new_zipfile_serialization=zipped)
        assert read_foreign(tmp_path / "t.pth").keys() == state.keys()


def test_a_file_that_lost_the_order_of_its_layers(tmp_path):
    _, theirs = august_2018()
    save_file(
        {name: tensor.contiguous() for name, tensor in theirs.items()}, tmp_path / "t.safetensors"
    )
    with pytest.raises(WeightsError, match="original order"):
        import_checkpoint(tmp_path / "t.safetensors", tmp_path / "o.safetensors")


def test_keys_that_two_networks_share_need_the_model(tmp_path):
    state = {k: t for k, t in official("mprnet-mscam").items() if not k.startswith("SRNet")}
    torch.save(state, tmp_path / "t.pth")
    with pytest.raises(WeightsError, match="original MPRNet"):
        import_checkpoint(tmp_path / "t.pth", tmp_path / "o.safetensors")


def test_missing_empty_and_renamed_files(tmp_path):
    with pytest.raises(WeightsError, match="no file"):
        read_foreign(tmp_path / "absent.pth")
    for name in ("empty.pth", "empty.npz", "empty.safetensors"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(WeightsError):
            read_foreign(tmp_path / name)
    (tmp_path / "text.pth").write_text("not weights\n")
    with pytest.raises(WeightsError):
        read_foreign(tmp_path / "text.pth")
    with zipfile.ZipFile(tmp_path / "other.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(WeightsError, match="is a ZIP archive of readme"):
        read_foreign(tmp_path / "other.pth")
    for folder in (tmp_path, Path()):
        with pytest.raises(WeightsError, match="is a folder"):
            read_foreign(folder)


@pytest.mark.parametrize("kind", ["pth", "legacy", "npz"])
def test_damaged_files_end_in_one_line(tmp_path, kind):
    path = tmp_path / ("whole.npz" if kind == "npz" else "whole.pth")
    save(kind, {"a": torch.ones(3, 2), "b": torch.zeros(5)}, path)
    whole = path.read_bytes()

    @given(st.integers(0, len(whole) - 1), st.binary(max_size=4), st.booleans())
    @settings(
        max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def check(place, patch, cut):
        path.write_bytes(whole[:place] + patch + (b"" if cut else whole[place + len(patch) :]))
        message = ""
        state = {}
        try:
            state = read_foreign(path)
        except WeightsError as error:
            message = str(error)
        assert "\n" not in message
        assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())

    check()


# What others leave in and around their files ---------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><title>Quota exceeded</title>", "is a web page"),
        (b"\xef\xbb\xbf \n<HTML>", "is a web page"),
        (b'{"error": "rate limit"}', "is text, not weights: .*rate limit"),
        (b"Too many users have viewed this file", "is text, not weights"),
        (b"\x1f\x8b\x08\x00rest", "is a gzip archive"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file"),
        (b"\x89PNG\r\n\x1a\n", "is a picture"),
        (b"\x93NUMPY\1\0", "is one NumPy array"),
        (b"\x28\xb5\x2f\xfdrest", "is a Zstandard archive"),
        (b'{"metadata": {}, "weight_map": {"a": "1.safetensors"}}', "checkpoint in several files"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz", ".pt"])
def test_what_is_not_weights_is_called_by_its_name(tmp_path, content, message, suffix):
    path = tmp_path / f"theirs{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_foreign(path)
    if suffix == ".safetensors":
        with pytest.raises(WeightsError, match=message):
            read_checkpoint(path)


@pytest.mark.parametrize("suffix", [".zip", ".pth", ".npz"])
def test_an_archive_around_a_checkpoint_is_called_an_archive(tmp_path, suffix):
    path = tmp_path / f"theirs{suffix}"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("release/net_g.pth", b"x")
    with pytest.raises(WeightsError, match=r"is a ZIP archive of release/net_g\.pth") as caught:
        read_foreign(path)
    assert "unpack it" in caught.value.hint


@pytest.mark.parametrize("kind", ["pth", "npz", "safetensors"])
@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors", ".bin"])
def test_content_decides_not_the_name(tmp_path, kind, suffix):
    state = {"a": torch.ones(3, 2), "b": torch.zeros(5)}
    whole = tmp_path / f"whole.{kind}"
    if kind == "safetensors":
        save_file(state, whole)
    else:
        save(kind, state, whole)
    named = whole.rename(tmp_path / f"named{suffix}")
    assert read_foreign(named).keys() == state.keys()


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "net_g.", "model.module."]
)
def test_prefixes_of_wrappers(tmp_path, prefix):
    state = official("msan")
    torch.save({f"{prefix}{k}": t for k, t in state.items()}, tmp_path / "t.pth")
    assert import_checkpoint(tmp_path / "t.pth", tmp_path / "o.safetensors").model.name == "msan"


def test_compiled_parts_of_a_network(tmp_path):
    state = official("msan")
    inner = {k.replace(".", "._orig_mod.", 1): t for k, t in state.items()}
    torch.save({"state_dict": inner}, tmp_path / "t.pth")
    assert read_foreign(tmp_path / "t.pth").keys() == state.keys()
    torch.save(inner | state, tmp_path / "twice.pth")
    with pytest.raises(WeightsError, match="a network twice"):
        read_foreign(tmp_path / "twice.pth")


def test_one_state_dict_of_any_name_is_taken_and_several_are_listed(tmp_path):
    state = official("msan")
    torch.save({"generator": state, "epoch": 3}, tmp_path / "one.pth")
    assert read_foreign(tmp_path / "one.pth").keys() == state.keys()
    torch.save({"g": state, "d": state, "g_ema": state}, tmp_path / "gan.pth")
    with pytest.raises(WeightsError, match="it contains g, d, g_ema"):
        read_foreign(tmp_path / "gan.pth")
    torch.save({"model": "msan", "state_dict": state}, tmp_path / "named.pth")
    assert read_foreign(tmp_path / "named.pth").keys() == state.keys()


def test_a_pickle_with_our_names_is_imported(tiny_weights, tmp_path):
    state = load_file(tiny_weights)
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "a.pth")
    done = restore("weights", "import", tmp_path / "a.pth", "-o", tmp_path / "b.safetensors")
    assert (done.exit_code, "restore's own names" in done.stderr) == (0, True)
    network = load_network(locate(str(tmp_path / "b.safetensors"), None)).network
    assert all(torch.equal(network.state_dict()[name], state[name]) for name in state)
    with pytest.raises(WeightsError, match="weights of 'mprnet-mscam', not of 'gfn'"):
        convert(state, tiny_weights, MODELS["gfn"])


def test_values_that_are_not_finite_are_named(tmp_path):
    state = official("msan")
    name = next(iter(state))
    for value in (float("nan"), float("inf")):
        state[name].view(-1)[0] = value
        torch.save(state, tmp_path / "t.pth")
        with pytest.raises(WeightsError, match=f"not finite in {name}"):
            import_checkpoint(tmp_path / "t.pth", tmp_path / "o.safetensors")
    state[name].view(-1)[0] = float("nan")
    eighth = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in state.items()}
    save_file(eighth, tmp_path / "t.safetensors")  # of which torch computes nothing
    with pytest.raises(WeightsError, match=f"not finite in {name}"):
        import_checkpoint(tmp_path / "t.safetensors", tmp_path / "o.safetensors")


@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_containers_beside_the_weights(tmp_path, zipped):
    import collections  # noqa: PLC0415
    import datetime  # noqa: PLC0415
    import random  # noqa: PLC0415
    import types  # noqa: PLC0415

    counts = collections.defaultdict(list)
    counts["loss"].append(0.5)
    beside = {
        "log": counts,
        "seen": collections.Counter("aab"),
        "last": collections.deque([1, 2], maxlen=3),
        "path": Path("runs/a"),
        "began": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
        "numpy": np.random.get_state(),
        "generator": np.random.default_rng(1),
        "python": random.getstate(),
        "torch": torch.get_rng_state(),
        "dtype": torch.float32,
        "array": np.arange(3),
        "options": types.SimpleNamespace(lr=1e-4),
        "names": frozenset(["a"]),
    }
    state = official("msan")
    saved = beside | {"state_dict": state}
    torch.save(saved, tmp_path / "t.pth", _use_new_zipfile_serialization=zipped)
    assert read_foreign(tmp_path / "t.pth").keys() == state.keys()


def test_half_stores_float16_and_refuses_what_it_cannot_hold(tmp_path):
    state, source, target = official("gfn"), tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    torch.save(state, source)
    whole = import_checkpoint(source, target, "gfn").tensors
    size = target.stat().st_size
    import_checkpoint(source, target, "gfn", half=True)
    assert target.stat().st_size < 0.6 * size
    written = read_checkpoint(target).tensors
    assert all(torch.equal(written[key], whole[key].half().float()) for key in whole)
    name = next(iter(state))
    state[name] = torch.full_like(state[name], 1e5)
    torch.save(state, source)
    with pytest.raises(WeightsError, match="beyond float16"):
        import_checkpoint(source, target, "gfn", half=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda whole: whole[: len(whole) // 2], "is incomplete"),
        (lambda whole: bytes(257) + b"ustar" + bytes(500), "is a tar archive"),
        (lambda whole: b"\x08\x07pytorch", "is not a valid PyTorch file"),
    ],
)
def test_what_is_no_file_of_weights_is_said_in_words(tmp_path, content, said):
    whole = tmp_path / "whole.pth"
    torch.save({"a": torch.zeros(100)}, whole)
    path = tmp_path / "a.pth"
    path.write_bytes(content(whole.read_bytes()))
    with pytest.raises(WeightsError) as raised:
        read_foreign(path)
    assert said in str(raised.value)
    assert "stack" not in str(raised.value)
    assert "persistent" not in str(raised.value)


@pytest.mark.parametrize("half", [False, True])
def test_restores_own_file_keeps_its_header(half, tiny_weights, tmp_path):
    """Otherwise an import would lose the training size, and the licence of what it is made from."""
    content, target = read_checkpoint(tiny_weights), tmp_path / "b.safetensors"
    base = {"weights": "maxim.gopro", "license": "CC-BY-SA-4.0"}
    header = replace(content.header, provenance={"base": base}, tlsc_base=(96, 96), overlap=40)
    write_checkpoint(tmp_path / "a.safetensors", content.tensors, header)
    done = restore(
        *("weights", "import", tmp_path / "a.safetensors", "-o", target), *["--half"] * half
    )
    assert (done.exit_code, "note:" in done.stderr) == (0, False)
    assert read_checkpoint(target).header == header
    assert target.stat().st_size < (0.6 if half else 1.1) * tiny_weights.stat().st_size
    refused = restore("weights", "add", target, "--name", "a.b", "--license", "MIT")
    assert (refused.exit_code, "does not allow 'MIT'" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parts": {"deblur": "0" * 64}}, "which a listed checkpoint completes"),
        ({"model": "gfn"}, "does not fit 'gfn'"),
        ({"model": "later"}, "for model 'later', which this version does not have"),
        ({"config": {}}, "the config in its header, {}, does not fit its tensors"),
    ],
)
def test_restores_own_file_that_cannot_be_converted(changes, said, tiny_weights, tmp_path):
    content, source = read_checkpoint(tiny_weights), tmp_path / "a.safetensors"
    write_checkpoint(source, content.tensors, replace(content.header, **changes))
    with pytest.raises(WeightsError, match=said):
        import_checkpoint(source, tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.onnx", "is an ONNX graph"),
        ("a.PB", "is a TensorFlow graph"),
        ("a.tflite", "is a TensorFlow Lite graph"),
        ("a.msgpack", "is a Flax checkpoint"),
    ],
)
def test_graphs_and_checkpoints_of_others_are_called_by_their_name(name, said, tmp_path):
    (tmp_path / name).write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(range(200)))
    for read in (read_foreign, read_checkpoint):
        with pytest.raises(WeightsError, match=said):
            read(tmp_path / name)


def test_a_torchscript_program_is_called_by_its_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"archive/{name}", b"x")
    with pytest.raises(WeightsError, match="is a TorchScript program"):
        read_foreign(tmp_path / "a.pt")


@pytest.mark.parametrize("kind", ["pth", "legacy", "npz"])
def test_what_import_reads_is_not_called_damaged_elsewhere(kind, tmp_path):
    save(kind, official("msan"), tmp_path / "a")
    named = (tmp_path / ("a.npz" if kind == "npz" else "a")).rename(tmp_path / "x.safetensors")
    for use in (lambda: read_checkpoint(named), lambda: load_network(locate(str(named), None))):
        with pytest.raises(WeightsError, match=r"is a (PyTorch file|NumPy archive)") as raised:
            use()
        assert (
            raised.value.hint == f"convert it: restore weights import {named} -o NAME.safetensors"
        )
    assert import_checkpoint(named, tmp_path / "o.safetensors").model.name == "msan"


@pytest.mark.parametrize("length", [0x80, 0x280, 0x480])
def test_a_truncated_safetensors_file_is_no_pickle(length, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + b'{"a":')
    with pytest.raises(WeightsError, match="not a valid safetensors file"):
        read_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("other", "hint"),
    [({"loss.vgg.weight": torch.zeros(3)}, r"with net\.$"), (None, r"with net\. or ema\.$")],
)
def test_a_second_network_in_the_file_is_named(other, hint, tmp_path):
    state = official("msan")
    other = other or {f"ema.module.{name}": tensor for name, tensor in state.items()}
    torch.save({f"net.{name}": t for name, t in state.items()} | other, tmp_path / "l.ckpt")
    said = rf"names begin with net\. \({len(state)}\), \w+\. \({len(other)}\)"
    with pytest.raises(WeightsError, match=said) as raised:
        import_checkpoint(tmp_path / "l.ckpt", tmp_path / "o.safetensors")
    assert re.search(hint, raised.value.hint)


@pytest.mark.parametrize(
    ("saved", "taken"),
    [
        (lambda plain, averaged: {"state_dict": plain, "state_dict_ema": averaged}, "averaged"),
        (lambda plain, averaged: {"params": plain, "params_ema": averaged}, "averaged"),
        (lambda plain, averaged: {"model": plain, "ema": {"shadow": averaged, "d": 1}}, "averaged"),
        (lambda plain, averaged: {"model": plain, "ema": {"decay": 0.9, "list": []}}, "plain"),
        (lambda plain, averaged: {"model": plain, "schema": averaged}, "plain"),
        (lambda plain, averaged: {"checkpoint": {"state_dict": plain, "epoch": 1}}, "plain"),
    ],
)
def test_averaged_weights_are_preferred(saved, taken, tmp_path):
    plain, averaged = {"a": torch.zeros(2)}, {"a": torch.ones(2)}
    torch.save(saved(plain, averaged), tmp_path / "a.pth")
    notes = []
    assert read_foreign(tmp_path / "a.pth", notes.append)["a"][0] == (taken == "averaged")
    assert len(notes) == (taken == "averaged")


def test_taken_averages_are_told(tiny_weights, tmp_path):
    state = load_file(tiny_weights)
    torch.save({"params": state, "params_ema": state}, tmp_path / "a.pth")
    done = restore("weights", "import", tmp_path / "a.pth", "-o", tmp_path / "b.safetensors")
    assert "note: of its weights, the averages (EMA) were taken: 'params_ema'" in done.stderr


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_other_programs_are_called_by_their_name(protocol, tmp_path):
    def refused():
        with pytest.raises(WeightsError) as caught:
            read_foreign(path)
        return f"{caught.value} ({caught.value.hint})"

    path, arrays = tmp_path / "a.pkl", {"conv.weight": np.zeros((2, 3), np.float32)}
    path.write_bytes(pickle.dumps(arrays, protocol))
    assert "contains NumPy arrays, not tensors (save them by name with numpy.savez" in refused()
    torch.save({"state_dict": arrays, "epoch": 1}, path, pickle_protocol=protocol)
    assert "contains NumPy arrays" in refused()
    torch.save(arrays, path, pickle_protocol=protocol)
    assert "contains NumPy arrays" in refused()
    path.write_bytes(pickle.dumps({"a": torch.zeros(2)}, protocol))
    assert "saved by pickle.dump, not by torch.save" in refused()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda t: {"model": {"a": t}, "ema": {"a": t}, "ema_model": {"a": t}}, "ema, ema_model"),
        (lambda t: {"a": t, "b": t, "epoch": 3}, "beside the tensors, it contains epoch$"),
        (lambda t: {0: t, 1: t}, "no state dict of named tensors .*contains 0, 1"),
        (lambda t: {b"a": t}, "no state dict of named tensors"),
        (lambda t: {"a": t.to(torch.float8_e4m3fn)}, "has tensors of a type that is not read"),
        (lambda t: {"a": t.to(torch.complex64)}, "has tensors of a type that is not read"),
    ],
)
def test_what_is_in_the_way_is_named(content, said, tmp_path):
    torch.save(content(torch.zeros(2)), tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=said):
        read_foreign(tmp_path / "a.pth")


def test_no_tensors(tmp_path):
    save_file({}, tmp_path / "a.safetensors")
    for read in (read_foreign, read_checkpoint):
        with pytest.raises(WeightsError, match="contains no tensors"):
            read(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("https://host/x.pth", "'https://host/x.pth' is an address"),
        ("hf://a/b/c.pth@main", "'hf://a/b/c.pth@main' is an address"),
        ("gfn-lite.shake", "'gfn-lite.shake' is imported already"),
    ],
)
def test_only_files_are_imported(file, said, tmp_path):
    done = restore("weights", "import", file, "-o", tmp_path / "o.safetensors")
    assert (done.exit_code, said in done.stderr) == (2, True)
