"""Training: reference losses, a run that learns, and one that goes on where it stopped."""

from __future__ import annotations

import json
import os
import signal
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import GOLDEN, ROOT, TINY, picture
from PIL import Image
from safetensors.torch import load_file

from restore_cli.degradations.recipe import load_degradation
from restore_cli.errors import (
    NoInputError,
    PictureError,
    RecipeError,
    RestoreError,
    UsageError,
    WeightsError,
)
from restore_cli.inference.loading import load_network
from restore_cli.metrics import psnr
from restore_cli.models.mprnet_mscam import MPRNET_MSCAM
from restore_cli.models.registry import get_config, get_model
from restore_cli.training import losses
from restore_cli.training.data import DegradedCrops, Photos
from restore_cli.training.export import export_checkpoint
from restore_cli.training.loop import Learner, averaging, learning_rate, train
from restore_cli.training.loop import losses as losses_of
from restore_cli.training.recipe import FOLDER, load_recipe
from restore_cli.weights.store import locate

CPU = torch.device("cpu")


def test_losses_are_the_published_ones():
    a = load_file(GOLDEN / "losses_a.safetensors")["a"]
    b = load_file(GOLDEN / "losses_b.safetensors")["b"]
    expected = load_file(GOLDEN / "losses_expected.safetensors")
    names = {"l1": "l1", "charbonnier": "charbonnier", "edge": "edge", "gradient": "gradient_sobel"}
    assert names.keys() | {"psnr"} == losses.LOSSES.keys()
    error = (a - b).square().mean((1, 2, 3))
    assert float(losses.psnr(a, b)) == pytest.approx(float(error.log10().mean()), abs=1e-5)
    assert float(losses.psnr(a, b)) == pytest.approx(-float(psnr(a, b).mean()) / 10, abs=1e-5)
    for ours, theirs in names.items():
        assert float(losses.LOSSES[ours](a, b)) == pytest.approx(float(expected[theirs]), rel=1e-6)
    laplacian = losses.laplacian(a)[:1, :, ::2, ::2]
    assert torch.allclose(laplacian, expected["laplacian_a"], atol=1e-6)


@pytest.mark.parametrize("name", sorted(p.stem for p in FOLDER.glob("*.toml")))
def test_shipped_recipes_are_whole(name):
    recipe = load_recipe(name)
    model = get_model(recipe.model)
    get_config(model, recipe.config)
    with torch.device("meta"):
        network = model.build(get_config(model, recipe.config))
        outputs = network.outputs(torch.empty(1, 3, recipe.patch, recipe.patch))
    assert {term.output for term in recipe.losses} <= outputs.keys()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        array = (picture(160, 176, seed)[0].permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(array).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.setitem(MPRNET_MSCAM.configs, "tiny", TINY)
    shipped = load_recipe("mprnet-mscam-lite")
    changes = {
        "config": "tiny",
        "steps": 6,
        "decay": 3,
        "warm_up": 2,
        "batch": 2,
        "patch": 16,
        "margin": 4,
        "save_every": 2,
        "validate_every": 3,
        "learning_rate": 2e-3,
    }
    return shipped.model_copy(update=changes)


def weights_of(state_file):
    state = torch.load(state_file, weights_only=True)
    return state["network"] | {f"ema.{k}": v for k, v in state["ema"].items()}


def test_a_stopped_run_ends_as_an_undisturbed_one(tmp_path, photos, recipe):
    whole = weights_of(train(recipe, photos, tmp_path / "whole", device=CPU))

    def stop(progress):
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(recipe, photos, tmp_path / "parts", device=CPU, report=stop)
    state = torch.load(tmp_path / "parts/state.pt", weights_only=True)
    assert state["step"] == 3
    seen = []
    with (tmp_path / "parts/metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')  # cut off by a crash
    path = train(recipe, photos, tmp_path / "parts", device=CPU, resume=True, report=seen.append)
    assert [progress.step for progress in seen] == [4, 5, 6]
    parts = weights_of(path)
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    lines = (tmp_path / "parts/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


def test_a_run_is_never_overwritten_or_mixed(tmp_path, photos, recipe):
    run = tmp_path / "run"
    train(recipe.model_copy(update={"steps": 1}), photos, run, device=CPU)
    with pytest.raises(UsageError, match="exists"):
        train(recipe, photos, run, device=CPU)
    with pytest.raises(UsageError, match="nothing to resume"):
        train(recipe, photos, tmp_path / "typo", device=CPU, resume=True)
    other = recipe.model_copy(update={"batch": 1})
    with pytest.raises(UsageError, match="batch differ"):
        train(other, photos, run, device=CPU, resume=True)
    train(recipe.model_copy(update={"steps": 2}), photos, run, device=CPU, resume=True)


def test_it_learns_and_the_export_runs(tmp_path, photos, recipe):
    longer = recipe.model_copy(update={"steps": 30, "learning_rate": 4e-3})
    path = train(longer, photos, tmp_path / "run", device=CPU)
    learner = Learner(longer, CPU)
    data = DegradedCrops(photos, longer, learner.degradation, CPU)

    def loss():  # on batches of later steps, the same for both
        with torch.no_grad():
            terms = [
                losses_of(learner.network, longer.losses, data.batch(n)) for n in range(100, 108)
            ]
        return np.mean([float(sum(one.values())) for one in terms])

    before = loss()
    learner.restore(path)
    assert loss() < before
    target = tmp_path / "weights.safetensors"
    export_checkpoint(path, target)
    loaded = load_network(locate(str(target), None))
    assert loaded.train_size == (16, 16)
    ema = weights_of(path)["ema.module.activation.weight"]
    assert torch.allclose(loaded.network.activation.weight, ema, atol=1e-3)


def test_fine_tuning_begins_with_the_weights_it_is_given(tmp_path, photos, recipe, tiny_weights):
    still = recipe.model_copy(
        update={"steps": 1, "warm_up": 0, "learning_rate": 1e-12, "learning_rate_end": 1e-12}
    )
    run = train(still, photos, tmp_path / "run", device=CPU, weights=str(tiny_weights))
    state, given = weights_of(run), load_file(tiny_weights)
    for name, tensor in given.items():
        assert torch.allclose(state[name], tensor, atol=1e-6)
        assert torch.allclose(state[f"ema.module.{name}"], tensor, atol=1e-6)
    lite = recipe.model_copy(update={"config": "lite", "patch": 64})
    with pytest.raises(WeightsError, match="is not of config 'lite'"):
        train(lite, ROOT / "examples/sharp", tmp_path / "o", device=CPU, weights=str(tiny_weights))


def test_validation_measures_the_gain_over_bicubic(tmp_path, recipe):
    seen = []
    short = recipe.model_copy(update={"steps": 1})
    sharp = ROOT / "examples/sharp"
    train(short, sharp, tmp_path / "run", device=CPU, validation=sharp, report=seen.append)
    # After one step the network still is nearly the bicubic it starts as.
    assert seen[-1].gain == pytest.approx(0, abs=0.2)
    assert 10 < seen[-1].psnr < 40


def test_a_loss_that_is_not_finite_keeps_the_last_save(tmp_path, photos, recipe, monkeypatch):
    run = tmp_path / "run"
    train(recipe.model_copy(update={"steps": 2}), photos, run, device=CPU)
    before = (run / "state.pt").read_bytes()
    monkeypatch.setitem(losses.LOSSES, "gradient", lambda a, b: a.mean() * float("nan"))
    with pytest.raises(RestoreError, match=r"at step 2: restored\.gradient"):
        train(recipe, photos, run, device=CPU, resume=True)
    assert (run / "state.pt").read_bytes() == before


def test_batches_are_functions_of_seed_and_step(photos, recipe):
    def batches(seed):
        crops = DegradedCrops(
            photos, recipe.model_copy(update={"seed": seed}), load_degradation("shake-mixed"), CPU
        )
        return crops.batch(5), crops.batch(6), crops.batch(5)

    first, second, again = batches(1)
    assert torch.equal(first.degraded, again.degraded)
    assert not torch.equal(first.degraded, second.degraded)
    assert not torch.equal(first.degraded, batches(2)[0].degraded)
    assert first.degraded.shape == (2, 3, 16, 16)
    assert first.targets["reference"].shape == (2, 3, 64, 64)
    assert first.targets["reference_small"].shape == (2, 3, 16, 16)


def test_bad_data(tmp_path, photos, recipe):
    with pytest.raises(NoInputError, match="0 in all"):
        train(recipe, tmp_path / "nothing", tmp_path / "run", device=CPU)
    Image.new("RGB", (20, 20)).save(photos / "0.png")
    (photos / "1.png").write_text("not a picture")
    assert [path.name for path in Photos(photos, 96).paths] == ["2.png"]
    train(recipe.model_copy(update={"steps": 1}), photos, tmp_path / "run", device=CPU)
    (photos / "2.png").unlink()
    with pytest.raises(NoInputError, match="no picture of 96 px a side"):
        train(recipe, photos, tmp_path / "other", device=CPU)


def test_unknown_keys_and_outputs(tmp_path, photos, recipe):
    path = tmp_path / "a.toml"
    text = (FOLDER / "mprnet-mscam-lite.toml").read_text()
    path.write_text(text.replace("batch = 8", "batchsize = 8"))
    with pytest.raises(RecipeError, match="batch"):
        load_recipe(str(path))
    odd = recipe.model_copy(update={"patch": 20})
    with pytest.raises(UsageError, match="patches of multiples of 8"):
        train(odd, photos, tmp_path / "r", device=CPU)
    wrong = recipe.losses[0].model_copy(update={"output": "stage9"})
    with pytest.raises(UsageError, match="stage9"):
        train(recipe.model_copy(update={"losses": [wrong]}), photos, tmp_path / "r", device=CPU)


def test_schedule(recipe):
    longer = recipe.model_copy(update={"steps": 100, "decay": 40, "warm_up": 10})
    rates = [learning_rate(longer, step) for step in range(101)]
    assert rates[0] == pytest.approx(2e-4)
    assert rates[10] == rates[60] == 2e-3
    assert rates[100] == pytest.approx(longer.learning_rate_end)
    assert all(a >= b for a, b in pairwise(rates[60:]))
    # The constant part does not know the end.
    other = longer.model_copy(update={"steps": 200})
    assert [learning_rate(other, step) for step in range(60)] == rates[:60]


def test_the_average_forgets_the_first_weights():
    update = averaging(0.998)
    mean = [torch.zeros(1)]
    for count in range(1, 100):
        update(mean, [torch.ones(1)], count)
    assert mean[0] > 0.99


def test_a_photo_that_breaks_later_stops_the_run_with_its_steps_saved(tmp_path, photos, recipe):
    def spoil(progress):
        for path in photos.iterdir():
            path.write_bytes(path.read_bytes()[:200])

    run = tmp_path / "run"
    lazy = recipe.model_copy(update={"save_every": 100, "batch": 1, "seed": 3})
    with pytest.raises(PictureError):
        train(lazy, photos, run, device=CPU, report=spoil)
    assert torch.load(run / "state.pt", weights_only=True)["step"] >= 1
