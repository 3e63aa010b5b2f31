"""A run becomes a package: weights, card, manifest entry; and goes to the Hub and back."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import tomllib
from functools import partial

import pytest
import torch
from hub_server import Hub, serve
from safetensors.torch import load_file
from training_runs import make_recipe, weights_of

from restore_cli.errors import UsageError, WeightsError
from restore_cli.files import sha256
from restore_cli.inference.loading import load_network
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.loop import train
from restore_cli.training.package import (
    export_checkpoint,
    package,
    write_ema_weights,
    write_entry,
)
from restore_cli.training.recipe import load_recipe
from restore_cli.training.state import read_state
from restore_cli.training.trainer import Trainer, for_weights
from restore_cli.weights.checkpoint import read_checkpoint
from restore_cli.weights.manifest import parse_manifest
from restore_cli.weights.store import locate
from restore_cli.weights.user import check_derived_license


def _noting(calls, function, *arguments):
    calls.append(arguments)
    return function(*arguments)


@pytest.mark.slow
def test_a_package_is_complete(tmp_path, job, held_out, monkeypatch):
    done = job(validation=[held_out], recipe_name="tiny")
    train(done)
    loads = []
    loading = partial(_noting, loads, load_network)
    monkeypatch.setattr("restore_cli.training.package.load_network", loading)
    made = package(done.run, tmp_path / "out", "mprnet-mscam-tiny.mine", "CC-BY-4.0")
    write_entry(made, made.entry.read_text().partition('source = "')[2].partition('"')[0])
    assert len(loads) == 1
    manifest = parse_manifest(made.entry.read_text())
    entry = manifest.checkpoints["mprnet-mscam-tiny.mine"]
    assert entry.sha256 == sha256(made.weights)
    assert entry.source == "bundled:mprnet-mscam-tiny.mine.safetensors"
    assert entry.recipe == "tiny"
    assert entry.train_size == (16, 16)
    card = made.card.read_text()
    best = read_state(done.state).best
    for fact in (entry.sha256, "CC-BY-4.0", "3 photos, degraded by recipe shake-mixed", "1, 6 of 6",
                 f"{best['psnr']:.2f} dB", "1 l1(restored, reference)"):  # fmt: skip
        assert fact in card
    provenance = read_checkpoint(made.weights).header.provenance
    assert provenance["recipe"] == done.recipe.content()
    assert provenance["validation"] == best
    assert provenance["data"]["count"] == 3


@pytest.mark.slow
def test_the_best_weights_are_exported_and_without_validation_the_last(tmp_path, job, held_out):
    wild = make_recipe(
        {"steps": 6, "learning_rate": 0.03, "schedule": {"kind": "constant"}}, validate_every=1
    )
    done = job(recipe=wild, validation=[held_out])
    train(done)
    best, state = load_file(done.best), read_state(done.state)
    assert state.best["step"] < 6
    for name, tensor in load_file(done.result).items():
        assert torch.equal(tensor, best[name].half())
    plain = job(run=tmp_path / "plain")
    train(plain)
    last = weights_of(plain.run)
    for name, tensor in load_file(plain.result).items():
        assert torch.equal(tensor, last[f"ema.module.{name}"].half())


@pytest.mark.parametrize(
    ("name", "license_name", "message"),
    [
        ("plain", "MIT", "invalid checkpoint name"),
        ("../x.y", "MIT", "invalid checkpoint name"),
        ("a.b", "do what you like", "is not an SPDX name"),
    ],
)
def test_bad_names_are_refused_first(tmp_path, name, license_name, message):
    with pytest.raises(UsageError, match=message):
        package(tmp_path, tmp_path / "out", name, license_name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["attentive-deblur-lite.handheld", "mprnet-mscam-lite.shake"])
def test_local_statistics_stay_those_of_the_weights_of_before(name, tmp_path):
    """Smaller patches do not make the window smaller; larger ones make it larger."""
    loaded = load_network(locate(name, None))
    for patch, base in ((32, loaded.tlsc_base), (256, (384, 384))):
        recipe = load_recipe("finetune")
        phases = [recipe.phases[0].model_copy(update={"patch": patch})]
        recipe = recipe.model_copy(update={"phases": phases})
        trainer = Trainer(for_weights(recipe, loaded), ProcessGroup(torch.device("cpu")))
        trainer.start_from(loaded)
        write_ema_weights(trainer.state(), tmp_path / "a.safetensors")
        tuned = load_network(locate(str(tmp_path / "a.safetensors"), None))
        assert (tuned.train_size, tuned.tlsc_base) == ((patch, patch), base)
        assert tuned.overlap >= loaded.overlap
        again = Trainer(for_weights(recipe, tuned), ProcessGroup(torch.device("cpu")))
        again.start_from(tuned)
        assert again.facts["base"]["license"] == loaded.file.license == "CC-BY-SA-4.0"


@pytest.mark.parametrize("name", ["MIT", "CC-BY-SA-4.0", "LicenseRef-private"])
def test_share_alike_weights_stay_so(name):
    check_derived_license({}, name)
    facts = {"base": {"weights": "gfn-lite.shake", "license": "CC-BY-SA-4.0"}}
    check_derived_license({"base": facts["base"] | {"license": "Apache-2.0"}}, name)
    if name == "MIT":
        with pytest.raises(UsageError, match="which does not allow 'MIT'"):
            check_derived_license(facts, name)
    else:
        check_derived_license(facts, name)


@pytest.mark.slow
def test_what_a_run_lacks_is_named(tmp_path, job, held_out):
    done = job({"steps": 3}, validation=[held_out])
    train(done)
    state = torch.load(done.state, weights_only=True)
    done.best.unlink()
    with pytest.raises(WeightsError, match=r"best\.safetensors"):
        export_checkpoint(done.run, tmp_path / "a.safetensors")
    torch.save(state | {"recipe": state["recipe"] | {"unknown": 1}}, done.state)
    with pytest.raises(UsageError, match="a recipe that this version cannot read"):
        export_checkpoint(done.run, tmp_path / "a.safetensors")


def test_entries_of_odd_recipe_names_are_valid(tmp_path, job):
    done = dataclasses.replace(job({"steps": 1}), recipe_name='\U0001f389\x7f\udcff "')
    train(done)
    entry = package(done.run, tmp_path / "out", "gfn-tiny.mine", "MIT").entry
    values = tomllib.loads(entry.read_text("utf-8"))["gfn-tiny.mine"]
    assert values["recipe"] == '\U0001f389\x7f? "'


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not the folder of a training run"):
        export_checkpoint(tmp_path, tmp_path / "w.safetensors")


def restore(*arguments, hub, cache, token="secret"):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1"}
    if token:
        environment["HF_TOKEN"] = token
    return subprocess.run(
        [sys.executable, "-m", "restore_cli", *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_weights_go_to_the_hub_and_come_back(tmp_path, job, photos):
    train(job({"steps": 1}))
    hub = Hub(token="secret")
    server = serve(hub)
    arguments = ("weights", "export", job().run, "--name", "tiny.mine", "-o", tmp_path / "out",
                 "--license", "MIT")  # fmt: skip
    push = (*arguments, "--push-to-hub", "me/tiny", "--overwrite")
    try:
        refused = restore(*push, hub=hub, cache=tmp_path / "a", token="wrong")
        assert refused.returncode == 4
        assert "cannot write to 'me/tiny': the Hub answered with 401" in refused.stderr
        assert "Traceback" not in refused.stderr
        done = restore(*push, hub=hub, cache=tmp_path / "a")
        assert done.returncode == 0, done.stderr
        source = done.stdout.splitlines()[-1]
        commit, files = hub.resolve("me/tiny", "main")
        assert source == f"hf://me/tiny/tiny.mine.safetensors@{commit}"
        assert files.keys() == {"tiny.mine.safetensors", "README.md"}
        assert (
            files["tiny.mine.safetensors"] == (tmp_path / "out/tiny.mine.safetensors").read_bytes()
        )
        assert f'source = "{source}"' in (tmp_path / "out/manifest.toml").read_text()
        # As a stranger with an empty cache:
        image = ("image", photos / "0.png", "-w", source, "-x4", "-o", tmp_path / "back.png")
        back = restore(*image, hub=hub, cache=tmp_path / "b", token="secret")
        assert back.returncode == 0, back.stderr
        assert (tmp_path / "back.png").exists()
    finally:
        server.shutdown()
        server.server_close()
    gone = restore(*push, hub=hub, cache=tmp_path / "a")
    assert gone.returncode == 4
    assert "connection to the Hub was lost" in gone.stderr
