"""Weights: listed facts are true, every load is verified, nothing fits partly, nothing executes."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file

from restore_cli.errors import WeightsError
from restore_cli.files import sha256
from restore_cli.inference import loading
from restore_cli.inference.loading import load_network
from restore_cli.inference.restorer import Restorer, RestorerOptions
from restore_cli.models.mprnet_mscam import MPRNET_MSCAM
from restore_cli.models.registry import MODELS, get_model
from restore_cli.training.recipe import load_recipe
from restore_cli.weights import store
from restore_cli.weights.checkpoint import read_checkpoint, write_checkpoint
from restore_cli.weights.manifest import (
    default_checkpoint,
    default_model,
    load_manifest,
    parse_manifest,
)
from restore_cli.weights.store import locate, read, verify

CHECKPOINTS = load_manifest().checkpoints


@pytest.mark.parametrize("name", sorted(CHECKPOINTS))
def test_every_listed_fact_is_true(name):
    checkpoint = CHECKPOINTS[name]
    model = get_model(checkpoint.model)
    assert model.parse_config(checkpoint.config)
    assert name.startswith(checkpoint.model)
    assert checkpoint.recipe or checkpoint.trained_by
    if checkpoint.recipe:
        # A recipe for fine-tuning takes the model from the weights.
        assert load_recipe(checkpoint.recipe).model in (None, checkpoint.model)
    assert checkpoint.scores, "a checkpoint without a measured score is not shipped"
    file = verify(locate(name, None))
    assert file.path.stat().st_size == checkpoint.size
    loaded = load_network(file, checkpoint.model)
    header = read_checkpoint(file.path).header
    assert header.config == checkpoint.config
    assert model.parse_config(header.config) == loaded.config  # fields of later on by default
    assert header.train_size == checkpoint.train_size
    assert loaded.overlap == checkpoint.overlap


def test_the_default_model_has_a_default_checkpoint():
    for scale in (1, 4):
        checkpoint = default_checkpoint(default_model(scale))
        assert checkpoint.default
        assert MODELS[checkpoint.model].scale == scale


@pytest.mark.parametrize("scale", [1, 4])
def test_the_default_gains_most_on_real_blur(scale):
    """`restore image` says so."""
    rivals = {
        c.model: c.gain("real")
        for c in CHECKPOINTS.values()
        if c.default and MODELS[c.model].scale == scale
    }
    assert all(gain is not None for gain in rivals.values())
    assert max(rivals, key=rivals.get) == default_model(scale)


def test_unknown_names():
    with pytest.raises(WeightsError, match="has no checkpoint yet"):
        default_checkpoint("other-model")


ENTRY = """
default_models = {{ x4 = "m" }}
["m-lite.a"]
model = "m"
config = {{ features = 8 }}
source = "{source}"
sha256 = "{sha}"
size = 1
license = "MIT"
training_data = "none"
recipe = "r"
train_size = [64, 64]
tlsc_base = [96, 96]
overlap = 32
{extra}
"""
HUB = "hf://owner/repo/a.safetensors@" + "0" * 40


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"source": HUB}, True),
        ({"source": "hf://owner/repo/a.safetensors@main"}, False),
        ({"source": "https://example.org/a"}, False),
        ({"source": "bundled:../../etc/passwd"}, False),
        ({"sha": "abc"}, False),
        ({"extra": "surprise = 1"}, False),
    ],
    ids=str,
)
def test_the_manifest_is_strict(change, valid):
    text = ENTRY.format(
        **({"source": "bundled:a.safetensors", "sha": "0" * 64, "extra": ""} | change)
    )
    if valid:
        assert parse_manifest(text).checkpoints["m-lite.a"].size == 1
    else:
        with pytest.raises(WeightsError, match="weights_manifest"):
            parse_manifest(text)


def test_a_model_has_one_default_at_most():
    one = ENTRY.format(source="bundled:a.safetensors", sha="0" * 64, extra="default = true")
    two = one + one.split("\n", 2)[2].replace("m-lite.a", "m-lite.b")
    assert len(parse_manifest(two.replace("default = true", "")).checkpoints) == 2
    with pytest.raises(WeightsError, match="more than one default"):
        parse_manifest(two)


def test_a_changed_or_missing_bundled_file_is_never_used(tmp_path, monkeypatch):
    name, checkpoint = next(iter(CHECKPOINTS.items()))
    original = verify(locate(name, None)).path
    monkeypatch.setattr(store, "BUNDLED", tmp_path)
    with pytest.raises(WeightsError, match="is missing"):
        verify(locate(name, None))
    copy = tmp_path / original.name
    shutil.copy(original, copy)
    assert verify(locate(name, None)).path == copy
    content = bytearray(copy.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    with pytest.raises(WeightsError, match=f"expected {checkpoint.sha256}"):
        verify(locate(name, None))


def test_a_path_a_name_or_a_hub_address(tiny_weights, monkeypatch, tmp_path):
    file = locate(str(tiny_weights), None)
    assert file.checkpoint is None
    assert load_network(file).file.sha256 == sha256(tiny_weights)
    assert locate(None, "mprnet-mscam").checkpoint.default
    with pytest.raises(WeightsError, match="no weights file"):
        locate("missing.safetensors", None)
    with pytest.raises(WeightsError, match=r"is not hf://"):
        locate("hf://owner/repo/file.safetensors", None)

    asked = {}

    def download(repo, filename, revision, **_):
        asked.update(repo=repo, filename=filename, revision=revision)
        return str(tiny_weights)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert locate("hf://owner/repo/sub/a.safetensors@v1", None).path == tiny_weights
    assert asked == {"repo": "owner/repo", "filename": "sub/a.safetensors", "revision": "v1"}


def test_a_listed_hub_file_is_verified_too(tiny_weights, monkeypatch):
    name, checkpoint = next(iter(CHECKPOINTS.items()))
    monkeypatch.setitem(CHECKPOINTS, name, checkpoint.model_copy(update={"source": HUB}))
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: str(tiny_weights))
    with pytest.raises(WeightsError, match="expected"):
        verify(locate(name, None))


def rewritten(path, header=None, tensors=None, **changes):
    """The file with its header or tensors changed."""
    values = (
        dataclasses.asdict(read_checkpoint(path).header) | changes if header is None else header
    )
    state = load_file(path) if tensors is None else tensors
    save_file(state, path, {"restore": json.dumps(values)} if values else None)
    return locate(str(path), None)


def test_config_is_stored_and_otherwise_inferred(tiny_weights):
    assert load_network(locate(str(tiny_weights), None)).config == TINY
    bare = load_network(rewritten(tiny_weights, header={}))
    assert bare.config == TINY
    assert bare.train_size is None


def test_stored_and_inferred_config_must_agree(tiny_weights):
    wrong = dataclasses.asdict(TINY) | {"growth": 16}
    with pytest.raises(WeightsError, match="the config in the header"):
        load_network(rewritten(tiny_weights, config=wrong))


@pytest.mark.parametrize("size", ["[0, 0]", "[1e999, 1]", "[1e9, 1]", "3", "[[1], 2]", "[" * 9999])
def test_hostile_headers_are_refused(tiny_weights, size):
    header = json.dumps({"model": "mprnet-mscam", "config": {}, "provenance": {}})
    text = header[:-1] + f', "train_size": {size}}}'
    save_file(load_file(tiny_weights), tiny_weights, {"restore": text})
    with pytest.raises(WeightsError, match="broken header"):
        read_checkpoint(tiny_weights)


def test_a_small_file_does_not_allocate_a_large_network(tiny_weights, monkeypatch):
    """`infer_config` reads one side of a tensor whose other side is 0."""
    state = load_file(tiny_weights)
    large = dataclasses.replace(TINY, features=20_000, sr_features=20_000)
    monkeypatch.setattr(type(MPRNET_MSCAM), "infer_config", lambda *_: large)
    with pytest.raises(WeightsError, match="those of a much larger network"):
        load_network(rewritten(tiny_weights, header={}, tensors=state))


def test_loading_draws_no_random_weights(tiny_weights):
    before = torch.get_rng_state()
    load_network(locate(str(tiny_weights), None))
    assert torch.equal(torch.get_rng_state(), before)


def test_values_whose_sum_overflows_are_finite(tmp_path):
    path = tmp_path / "large.safetensors"
    save_file({"a": torch.full((4,), 3e38)}, path)
    assert read_checkpoint(path).tensors["a"].sum().isinf()


def test_a_part_is_read_once(tiny_weights, monkeypatch):
    digest = load_manifest().checkpoints["gfn-lite.shake"].sha256
    reads = []
    monkeypatch.setattr(loading, "read", lambda file: reads.append(file) or read(file))
    with pytest.raises(WeightsError):
        load_network(rewritten(tiny_weights, parts={f"p{n}": digest for n in range(60)}))
    assert len(reads) == 2  # the file and the part


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16_384, 1)])
def test_a_training_size_that_does_not_fit_the_network(size, tmp_path):
    file = locate("attentive-deblur-lite.handheld", None)
    known = read_checkpoint(file.path)
    header = dataclasses.replace(known.header, train_size=size)
    write_checkpoint(tmp_path / "a.safetensors", known.tensors, header)
    with pytest.raises(WeightsError, match="too small for 'attentive-deblur'"):
        Restorer(
            load_network(locate(str(tmp_path / "a.safetensors"), None)),
            RestorerOptions(torch.device("cpu")),
        )


def test_weights_of_another_model_are_refused(tiny_weights):
    with pytest.raises(WeightsError, match="contains weights of 'mprnet-mscam', not of 'gfn'"):
        load_network(locate(str(tiny_weights), None), "gfn")
    with pytest.raises(WeightsError, match="for model 'gfm', which this version does not have"):
        load_network(rewritten(tiny_weights, model="gfm"))


def test_a_file_that_changes_after_it_was_verified_is_not_used(tiny_weights):
    file = verify(locate(str(tiny_weights), None))
    rewritten(tiny_weights, train_size=(8, 8))
    with pytest.raises(WeightsError, match=f"expected {file.sha256}"):
        load_network(file)


def test_a_file_is_hashed_once(tiny_weights, monkeypatch):
    monkeypatch.setattr(store, "sha256", lambda path: pytest.fail("hashed beside being read"))
    for name in (str(tiny_weights), "gfn-lite.shake"):
        assert load_network(locate(name, None)).file.sha256


@pytest.mark.parametrize("name", ["model.pth", "./a.ckpt", "a.pt", "b.bin", "c.pkl"])
def test_pickles_are_refused_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for content, said in ((None, "no weights file"), (b"", "is empty"), (b"\x80", "not safetens")):
        if content is not None:
            Path(name).write_bytes(content)
        with pytest.raises(WeightsError, match=said):
            locate(name, None)


@pytest.mark.parametrize("prefix", ["net.", "model.module.", "_orig_mod."])
def test_a_prefix_that_an_import_removes_is_named(prefix, tiny_weights, tmp_path):
    state = {prefix + name: tensor for name, tensor in load_file(tiny_weights).items()}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match=f"names begin with '{prefix}'") as caught:
        load_network(locate(str(tmp_path / "a.safetensors"), None))
    assert "restore weights import" in caught.value.hint


def test_the_address_of_a_listed_checkpoint_is_the_checkpoint(monkeypatch, tiny_weights):
    listed = next(iter(CHECKPOINTS.values())).model_copy(update={"source": HUB})
    manifest = load_manifest().model_copy(update={"checkpoints": {"x": listed}})
    monkeypatch.setattr(store, "load_manifest", lambda: manifest)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: str(tiny_weights))
    with pytest.raises(WeightsError, match="expected"):
        load_network(locate(HUB, None))


def test_no_key_may_be_missing_or_left_over(tiny_weights):
    state = load_file(tiny_weights)
    less = {k: v for k, v in state.items() if k != "shallow.0.0.weight"}
    with pytest.raises(WeightsError, match=r"shallow\.0\.0\.weight"):
        load_network(rewritten(tiny_weights, tensors=less))
    with pytest.raises(WeightsError, match="surprise") as caught:
        load_network(rewritten(tiny_weights, tensors=state | {"surprise": torch.zeros(1)}))
    assert "\n" not in str(caught.value)


def test_quantised_weights_are_refused(tiny_weights):
    whole = {
        name: tensor.mul(100).to(torch.int8) for name, tensor in load_file(tiny_weights).items()
    }
    with pytest.raises(WeightsError, match=r"not floating-point in .* and \d+ more"):
        load_network(rewritten(tiny_weights, tensors=whole))


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_types_that_torch_lacks_are_named(tmp_path):
    path = tmp_path / "mx.safetensors"
    head = b'{"a":{"dtype":"F8_E8M0","shape":[4],"data_offsets":[0,4]}}'
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(4))
    with pytest.raises(WeightsError, match="of type F8_E8M0"):
        read_checkpoint(path)


def test_files_that_are_not_safetensors(tmp_path, capsys):
    path = tmp_path / "evil.safetensors"
    contents = (pickle.dumps(Evil()), b"", b"\xff" * 64, (2**40).to_bytes(8, "little") + b"{}")
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(
            WeightsError, match=r"not a valid safetensors file|is a PyTorch file|is empty"
        ):
            load_network(locate(str(path), None))
    assert "executed" not in capsys.readouterr().out


def test_a_config_that_is_none_names_its_file(tiny_weights):
    with pytest.raises(WeightsError, match=f"'{tiny_weights}': in the header, .*unknown fields"):
        load_network(rewritten(tiny_weights, config={"colour": 1}))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tiny_weights, value):
    tensors = load_file(tiny_weights)
    name = next(iter(tensors))
    tensors[name] = torch.full_like(tensors[name], value)
    with pytest.raises(WeightsError, match=f"not finite in {name}"):
        load_network(rewritten(tiny_weights, tensors=tensors))


def test_half_precision_is_stored_small_and_loaded_wide(tiny_weights):
    halves = {k: v.half() for k, v in load_file(tiny_weights).items()}
    rewritten(tiny_weights, tensors=halves)
    assert {t.dtype for t in read_checkpoint(tiny_weights).tensors.values()} == {torch.float32}
