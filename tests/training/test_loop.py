"""A run learns, chains its phases, can be watched, and stops in order."""

from __future__ import annotations

import collections
import dataclasses
import errno
import json
import os
import shutil
import signal
import warnings
import zipfile
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, TINY_CONFIGS
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.utils.flop_counter import FlopCounterMode
from training_runs import (
    DEBLURRING,
    PHASE,
    assert_same,
    make_recipe,
    rows,
    save_photos,
    weights_of,
)

from restore_cli.cli._signals import exit_status_for
from restore_cli.errors import (
    PictureError,
    RestoreError,
    UsageError,
    WeightsError,
)
from restore_cli.files import _machine, locked
from restore_cli.inference.loading import load_network
from restore_cli.models.registry import get_model
from restore_cli.training import losses
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.dry_run import dry_run
from restore_cli.training.ema import ExponentialMovingAverage
from restore_cli.training.loader import Loader
from restore_cli.training.loop import train
from restore_cli.training.mixture import open_source
from restore_cli.training.package import package
from restore_cli.training.progress import MetricsLog
from restore_cli.training.recipe import load_recipe
from restore_cli.training.state import SaveError, read_state
from restore_cli.training.trainer import Execution, Trainer, compute_losses, for_weights
from restore_cli.training.validation import ValidationScore, ValidationSet
from restore_cli.weights import checkpoint
from restore_cli.weights.checkpoint import read_checkpoint
from restore_cli.weights.store import locate

CPU = torch.device("cpu")


def header_of(path):
    return checkpoint.read_checkpoint(path).header.provenance


@pytest.mark.slow
def test_a_stopped_run_ends_as_an_undisturbed_one(tmp_path, job):
    phases = (DEBLURRING, {})
    train(job(*phases, run=tmp_path / "whole"))

    def stop(progress):
        if progress.step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    parts = job(*phases, run=tmp_path / "parts", resume="auto")
    with pytest.raises(KeyboardInterrupt):
        train(parts, stop)
    assert read_state(parts.state).step == 4
    assert parts.result.exists()
    seen = []
    with (parts.run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "lo')  # cut off by a crash
    dead = Path(parts.run, f".state.pt.0.{_machine()}-{2**22 + 1}-x.part")
    alive = Path(parts.run, f".state.pt.0.{_machine()}-{os.getppid()}-x.part")
    for leftover in (dead, alive):
        leftover.write_bytes(b"half")
    train(parts, seen.append)
    assert [progress.step for progress in seen] == [5, 6, 7, 8, 9]
    assert_same(weights_of(tmp_path / "whole"), weights_of(parts.run))
    assert [row["step"] for row in rows(parts.run)] == list(range(1, 10))
    assert list(parts.run.glob(".*")) == [alive]
    seen.clear()
    train(parts, seen.append)  # nothing is left to do, and that is no error
    assert seen == []


@pytest.mark.slow
def test_a_run_is_never_overwritten_or_mixed(tmp_path, job):
    train(job({"steps": 1}))
    with pytest.raises(UsageError, match="exists"):
        train(job({"steps": 1}))
    with pytest.raises(UsageError, match="cannot resume"):
        train(job(run=tmp_path / "typo", resume="must"))
    assert not (tmp_path / "typo").exists()
    with pytest.raises(UsageError, match=r"phases\.0\.batch differ"):
        train(job({"batch": 1}, resume="auto"))
    train(job({"steps": 2}, resume="must"))  # longer is the same run
    (tmp_path / "run/state.pt").write_bytes(b"nonsense")
    with pytest.raises(UsageError, match="is not a training state"):
        train(job({"steps": 2}, resume="auto"))


def test_a_changed_bit_of_a_state_is_noticed(tmp_path):
    path = tmp_path / "state.pt"
    torch.save({"a": torch.arange(1000.0)}, path)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda part: part.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is damaged"):
        read_state(path)


def test_two_processes_do_not_train_in_one_folder(job):
    one = job({"steps": 1})
    one.run.mkdir()
    with (
        locked(one.run, RestoreError("locked")),
        pytest.raises(UsageError, match="another process is training"),
    ):
        train(one)
    assert not one.state.exists()
    with locked(one.run, RestoreError("locked")):  # the refused process has not kept it
        pass


def test_rows_that_lack_what_is_drawn_are_dropped(tmp_path):
    log = tmp_path / "metrics.jsonl"
    row = {"step": 1, "phase": "a", "loss": 1.0, "learning_rate": 1e-4}
    lacking = [{"step": 2}, row | {"step": 3, "loss": None}]
    log.write_text("".join(json.dumps(one) + "\n" for one in [row, *lacking]))
    assert MetricsLog(log, 9).rows == [row]


def test_photos_that_are_left_out_are_announced(job, photos):
    (photos / "broken.png").write_bytes(b"")
    Image.new("RGB", (10, 10)).save(photos / "tiny.png")
    notes = []
    train(job({"steps": 1}), note=notes.append)
    assert [note for note in notes if "2 pictures in" in note and "left out" in note]


@pytest.mark.parametrize(
    ("small", "large", "message"),
    [
        ((40, 40), (100, 100), "neither equal nor x4"),
        ((3, 40), (12, 160), "validation needs sides of 8 px"),
    ],
)
def test_validation_pairs_that_do_not_fit_are_refused_first(tmp_path, job, small, large, message):
    for side, (height, width) in (("lr", small), ("hr", large)):
        save_photos(tmp_path / "held_out" / side, [(height, width)])
    one = job({"steps": 1}, validation=[tmp_path / "held_out"])
    with pytest.raises(PictureError, match=message):
        train(one)
    assert not one.run.exists()


class Broken:
    """Is read by a call that torch allows, with an argument that it does not take."""

    def __reduce__(self):
        return collections.OrderedDict, (5,)


@pytest.mark.parametrize("content", ["protocol", "objects", "nonsense", "list", "call"])
def test_what_is_no_state_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "state.pt"
    odd = {"protocol": {"a": 1}, "objects": read_state, "list": [1], "call": Broken()}
    if content == "nonsense":
        path.write_bytes(b"nonsense")
    else:
        torch.save(odd[content], path, pickle_protocol=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match="is not a training state") as refused:
            read_state(path)
    assert "\n" not in str(refused.value)
    assert "weights_only" not in str(refused.value)


@pytest.mark.slow
def test_runs_from_before_a_key_came_go_on_and_those_of_other_shapes_do_not(job):
    done = job({"steps": 1})
    train(done)
    state = torch.load(done.state, weights_only=True)
    old = {key: value for key, value in state["recipe"].items() if key != "initialisation"}
    torch.save(state | {"recipe": old}, done.state)
    train(job({"steps": 2}, resume="must"))
    for change in ({"optimizer": {}}, {"phase": 3}, {"network": None}):
        torch.save(state | change, done.state)
        with pytest.raises(UsageError, match="is incomplete"):
            train(job({"steps": 2}, resume="must"))
    for recipe in ({}, None, state["recipe"] | {"phases": []}):
        torch.save(state | {"recipe": recipe}, done.state)
        with pytest.raises(UsageError, match="this version can"):
            train(job({"steps": 2}, resume="must"))
    state["network"]["activation.weight"] = torch.zeros(7)
    torch.save(state, done.state)
    with pytest.raises(UsageError, match="of mprnet-mscam, or is incomplete"):
        train(job({"steps": 2}, resume="must"))


def test_the_recipe_says_how_weights_are_drawn():
    def first(start):
        trainer = Trainer(make_recipe(initialisation=start), ProcessGroup(CPU))
        return trainer.network.state_dict()["shallow.0.0.weight"]

    assert torch.equal(first("torch"), first("torch"))
    assert not torch.equal(first("torch"), first("he"))


def test_it_learns_and_the_result_runs(job):
    longer = job({"steps": 15, "learning_rate": 4e-3})
    trainer = Trainer(longer.recipe, ProcessGroup(CPU))
    loader = Loader(open_source(longer.data, longer.recipe, 4, 16), 1, ProcessGroup(CPU))

    def loss():  # on items of later steps, the same for both
        terms = trainer.phase.losses
        with torch.no_grad():
            sums = [
                sum(map(float, compute_losses(trainer._outputs, terms, batch).values()))
                for n in range(200, 208, 2)
                for batch in loader.batches(n, 2, 16, {"reference_small"})
            ]
        return np.mean(sums)

    before = loss()
    path = train(longer)
    trainer.resume_from(longer.state)
    assert loss() < before
    loaded = load_network(locate(str(path), None))
    assert loaded.train_size == (16, 16)
    average = weights_of(longer.run)["ema.module.activation.weight"]
    assert torch.allclose(loaded.network.activation.weight, average, atol=1e-3)


@pytest.mark.slow
def test_phases_freeze_chain_and_begin_with_the_best(tmp_path, job, held_out):
    """The second phase starts from the best weights of the first, which are not its last."""
    sr = ["upscaler.*", "transform*", "interpolation.*"]
    wild = DEBLURRING | {"steps": 6, "learning_rate": 0.03, "schedule": {"kind": "constant"}}
    fixed = {"trained": sr, "steps": 2, "learning_rate": 1e-3}
    chained = job(recipe=make_recipe(wild, fixed, validate_every=2, ema=0.0), validation=[held_out])
    seen = []
    best = {}

    def watch(progress):
        seen.append(progress)
        if progress.phase == "deblurring" and progress.score:
            best[progress.score.psnr] = load_file(chained.best)

    train(chained, watch)
    assert [p.phase for p in seen] == ["deblurring"] * 6 + ["1"] * 2
    scores = [p.score.psnr for p in seen if p.score and p.phase == "deblurring"]
    assert scores.index(max(scores)) < len(scores) - 1, "the last was the best: nothing to see"
    after, kept = weights_of(chained.run), best[max(scores)]
    for name, tensor in kept.items():
        frozen = not any(name.startswith(part.rstrip(".*")) for part in sr)
        assert torch.equal(after[name], tensor) == frozen, name
    assert read_state(chained.state).best["phase"] == "1"


@pytest.mark.slow
def test_an_optimizer_can_be_kept(tmp_path, job):
    one = {"schedule": {"kind": "constant"}, "warm_up": 0}
    train(job(one | {"steps": 6}, run=tmp_path / "one"))
    keep = {"begin": "last", "keep_optimizer": True}
    train(job(one | {"steps": 3}, one | keep | {"steps": 3}, run=tmp_path / "two"))
    assert_same(weights_of(tmp_path / "one"), weights_of(tmp_path / "two"))


@pytest.mark.slow
def test_a_kept_optimizer_is_resumed_with_its_groups(job):
    keep = {"steps": 2, "begin": "last", "keep_optimizer": True}
    phases = [{"steps": 1}, {"steps": 1, "rate_scales": {"upscaler.*": 0.5}}]
    train(job(*phases, keep | {"steps": 1}))
    last = train(job(*phases, keep, resume="must"))
    assert len(read_state(last.parent / "state.pt").optimizer["param_groups"]) == 2


def test_an_unknown_config_is_named(job):
    recipe = job().recipe.model_copy(update={"config": "light"})
    with pytest.raises(UsageError, match="config of mprnet-mscam 'light' not found"):
        Trainer(recipe, ProcessGroup(CPU))


@pytest.mark.parametrize("pattern", ["upscaller.*", "", "*.bias"])
def test_a_pattern_without_parameters_is_refused(job, pattern):
    with pytest.raises(UsageError, match="which matches no parameter"):
        train(job({"trained": [pattern or "nothing"]}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scales", "scale"),
    [({"upscaler.image.*": 0.25, "*": 0.5}, 0.25), ({"shallow.*": 0.25, "up*": 0.5}, 0.5), ({}, 1)],
)
def test_parameters_can_have_other_learning_rates(job, scales, scale):
    one = {"steps": 1, "schedule": {"kind": "constant"}, "warm_up": 0, "learning_rate": 1e-3}
    wanted = job(one | {"rate_scales": scales})
    before = Trainer(wanted.recipe, ProcessGroup(CPU)).network.state_dict()
    after = read_state(train(wanted).parent / "state.pt").network
    moved = {name: (after[name] - tensor).abs().max().item() for name, tensor in before.items()}
    # The first step reaches the last layer only, and Adam makes it as long as the learning rate.
    assert moved["upscaler.image.weight"] == pytest.approx(1e-3 * scale, rel=0.05)


@pytest.mark.slow
def test_accumulated_parts_give_the_same_result(tmp_path, job):
    train(job({"batch": 4}, run=tmp_path / "one"))
    split = Execution(accumulate=2)
    train(job({"batch": 4}, run=tmp_path / "two", execution=split))
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name, tensor in one.items():
        assert torch.allclose(torch.as_tensor(tensor), torch.as_tensor(two[name]), atol=2e-4), name
    first = [row["loss"] for row in rows(tmp_path / "one")]
    assert first == pytest.approx([row["loss"] for row in rows(tmp_path / "two")], rel=1e-3)


@pytest.mark.slow
def test_half_precision_keeps_weights_and_losses_in_float32(tmp_path, job):
    path = train(job(execution=Execution(precision=torch.bfloat16)))
    weights = [t for t in weights_of(path.parent).values() if torch.is_floating_point(t)]
    assert {t.dtype for t in weights} == {torch.float32}
    train(job(run=tmp_path / "full"))
    half, full = ([row["loss"] for row in rows(run)] for run in (path.parent, tmp_path / "full"))
    assert half[0] == pytest.approx(full[0], rel=0.01)
    assert half == pytest.approx(full, rel=0.2)
    assert half != full


@pytest.mark.slow
def test_other_outputs_and_optimisers(tmp_path, job):
    recipe = load_recipe("gfn-lite").model_copy(
        update={
            "config": {"width": 8, "deblur_blocks": 1, "sr_blocks": 1, "fusion_blocks": 1,
                       "image_skip": True},
            "margin": 4,
        }
    )  # fmt: skip
    small = [
        phase.model_copy(update={"steps": 2, "batch": 2, "patch": 16}) for phase in recipe.phases
    ]
    recipe = recipe.model_copy(update={"phases": small})
    gates = []

    def watch(progress):
        gates.append(
            float(torch.load(tmp_path / "run/state.pt")["network"]["gate.conv1.bias"].sum())
        )

    gfn = job(recipe=recipe.model_copy(update={"save_every": 1}))
    train(gfn, watch)
    assert gates[0] == gates[4]  # saved before each report's step: the gate rests while ungated
    assert weights_of(gfn.run)["gate.conv1.bias"].sum() != gates[0]
    sgd = make_recipe(optimizer={"kind": "sgd", "momentum": 0.5})
    train(job(recipe=sgd, run=tmp_path / "sgd"))
    assert "momentum_buffer" in str(weights_of(tmp_path / "sgd").keys())


@pytest.mark.slow
def test_progressive_patches(job):
    growing = job({"progressive": [{"step": 2, "patch": 24, "batch": 1}], "steps": 4})
    train(growing)
    assert read_state(growing.state).seen == 2 + 2 + 1 + 1


@pytest.mark.slow
def test_fine_tuning_begins_with_the_weights_it_is_given(tmp_path, job, tiny_weights):
    still = {"steps": 1, "warm_up": 0, "learning_rate": 1e-12, "schedule": {"kind": "constant"}}
    loaded = load_network(locate(str(tiny_weights), None))
    done = job(still, weights=loaded)
    train(done)
    state, given = weights_of(done.run), load_file(tiny_weights)
    for name, tensor in given.items():
        assert torch.allclose(state[name], tensor, atol=1e-6)
        assert torch.allclose(state[f"ema.module.{name}"], tensor, atol=1e-6)
    base = read_state(done.state).facts["base"]
    assert base["weights"] == "tiny.safetensors"
    assert (
        "fine-tuned from tiny.safetensors"
        in package(done.run, tmp_path / "out", "a.b", "CC0-1.0").card.read_text()
    )
    lite = make_recipe({"patch": 64}, config="lite")
    with pytest.raises(WeightsError, match="has another model or config than the recipe"):
        train(job(recipe=lite, data=[ROOT / "examples/sharp"], run=tmp_path / "o",
                  weights=loaded))  # fmt: skip


@pytest.mark.slow
def test_the_given_weights_are_scored_and_can_be_the_best(job, held_out, tiny_weights):
    wild = {"steps": 3, "learning_rate": 0.02, "warm_up": 0, "schedule": {"kind": "constant"}}
    loaded, notes = load_network(locate(str(tiny_weights), None)), []
    done = job(wild, weights=loaded, validation=[held_out])
    train(done, note=notes.append)
    assert any(note.startswith("before the first step: ") for note in notes), notes
    assert any("no score is better than that of --weights" in note for note in notes), notes
    assert read_state(done.state).best["step"] == 0
    for name, tensor in load_file(done.result).items():
        assert torch.equal(tensor, load_file(tiny_weights)[name].half())


@pytest.mark.parametrize(("scores", "step"), [((20, 21), 1), ((21, 20), 0)])
def test_a_stopped_run_exports_what_scored_best(
    job, held_out, tiny_weights, monkeypatch, scores, step
):
    psnr = iter(scores)
    monkeypatch.setattr(
        ValidationSet, "score", lambda *_, **__: ValidationScore(next(psnr), 0.0, {}, [])
    )
    monkeypatch.setattr("restore_cli.training.progress.ValidationSheet.add", lambda *_: None)
    loaded, notes = load_network(locate(str(tiny_weights), None)), []
    one = {"steps": 9, "learning_rate": 0.01, "warm_up": 0, "schedule": {"kind": "constant"}}
    done = job(one, weights=loaded, validation=[held_out], minutes=0)
    train(done, note=notes.append)
    assert read_checkpoint(done.result).header.provenance["steps"] == step
    name, given = next(iter(load_file(tiny_weights).items()))
    assert torch.equal(load_file(done.result)[name], given.half()) == (step == 0)
    assert any("no score is better" in note for note in notes) == (step == 0)


def test_the_finetune_recipe_takes_model_and_config_from_the_weights(tiny_weights, job):
    recipe = load_recipe("finetune")
    with pytest.raises(UsageError, match="takes model and config from weights"):
        train(job(recipe=recipe))
    resolved = for_weights(recipe, load_network(locate(str(tiny_weights), None)))
    assert resolved.model == "mprnet-mscam"
    assert resolved.config["features"] == 8


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY_CONFIGS)
def test_no_output_is_computed_that_no_loss_asks_for(name):
    with torch.device("meta"):
        network = get_model(name).build(TINY_CONFIGS[name]).eval()
        image = torch.empty(1, 3, 64, 64)
    counts = []
    for compute in (lambda: network(image), lambda: network.outputs(image, ("restored",))):
        with FlopCounterMode(display=False) as counter:
            compute()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_validation_scores_and_is_drawn(tmp_path, job, held_out, curves):
    seen = []
    done = job({"steps": 4}, validation=[held_out])
    train(done, seen.append)
    assert [p.step for p in seen if p.score] == [3, 4]
    # After a few steps the network still is nearly the bicubic it starts as.
    assert seen[-1].score.gain == pytest.approx(0, abs=0.5)
    assert 10 < seen[-1].score.psnr < 40
    with Image.open(done.run / "validation.png") as image:
        sheet = image.copy()
    assert sheet.size == (4 * 176 + 3 * 4, 2 * 176 + 18)  # input, two validations, reference
    left, right = (np.asarray(sheet)[18:, at : at + 176] for at in (0, 3 * 180))
    assert np.abs(left.astype(int) - right).mean() > 1
    with Image.open(done.run / "curves.png") as drawn:
        assert drawn.size == (900, 700)
    assert len(list((done.run / "validation").iterdir())) == 2
    assert load_file(done.best)["activation.weight"].dtype == torch.float32


@pytest.mark.slow
def test_validation_folders_count_equally(tmp_path, job, held_out):
    single = save_photos(tmp_path / "other", [(280, 300)], first=30)
    done = job({"steps": 3}, validation=[held_out, single])
    seen = []
    train(done, seen.append)
    gains = seen[-1].score.gains
    assert set(gains) == {"held_out", "other"}  # 2 pictures and 1
    assert gains["held_out"] != gains["other"]
    assert seen[-1].score.gain == pytest.approx((gains["held_out"] + gains["other"]) / 2)
    best = read_state(done.state).best
    assert best["gains"] == gains
    assert rows(done.run)[-1]["gains"] == gains
    alone = []
    train(job({"steps": 3}, validation=[single], run=tmp_path / "alone"), alone.append)
    assert alone[-1].score.gain == pytest.approx(gains["other"], abs=1e-6)
    assert "gains" not in rows(tmp_path / "alone")[-1]


def test_validation_folders_of_one_name_are_told_apart(tmp_path, held_out):
    other = save_photos(tmp_path / "b" / "held_out", [(270, 300)], first=9)
    both = ValidationSet([held_out, other], 4, 8, CPU, make_recipe())
    assert both.names == [str(held_out), str(other), str(held_out)]  # in turns


def test_equal_pictures_in_validation_do_not_make_scores_infinite(tmp_path, job):
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (256, 256)).save(tmp_path / "flat/0.png")
    seen = []
    train(job({"steps": 3}, validation=[tmp_path / "flat"]), seen.append)
    assert seen[-1].score.psnr <= 100
    assert abs(seen[-1].score.gain) <= 100


@pytest.mark.slow
def test_a_run_is_resumed_with_its_own_pictures(tmp_path, job):
    train(job({"steps": 1}))
    other = save_photos(tmp_path / "others", [(280, 300)], first=30)
    with pytest.raises(UsageError, match="was trained on other pictures than --data"):
        train(job({"steps": 2}, data=[other], resume="auto"))
    train(job({"steps": 2}, resume="auto"))


@pytest.mark.slow
def test_best_weights_on_other_pictures_do_not_win(job, held_out):
    """Scores of other pictures, or of none, say nothing about these steps."""
    notes = []
    train(job({"steps": 3}, validation=[held_out]))
    assert header_of(job().result)["steps"] == 3
    train(job({"steps": 5}, resume="auto"), note=notes.append)  # without --validation
    assert any("the best weights so far cannot be compared" in note for note in notes)
    assert header_of(job().result)["steps"] == 5
    assert read_state(job().state).best is None
    assert "last_score" not in read_state(job().state).facts
    notes.clear()
    train(job({"steps": 6}, validation=[held_out], resume="auto"), note=notes.append)
    train(job({"steps": 9}, validation=[held_out], resume="auto"), note=notes.append)
    assert not any("the best weights so far cannot be compared" in note for note in notes)


def test_best_weights_that_are_lost_do_not_end_a_resumed_run(job, held_out):
    train(job({"steps": 3}, validation=[held_out]))
    job().best.unlink()
    notes = []
    train(job({"steps": 4}, validation=[held_out], resume="auto"), note=notes.append)
    assert any("best.safetensors': No such file" in note for note in notes)
    assert header_of(job().result)["steps"] == 4


def test_best_weights_state_their_own_score(job, held_out):
    train(job({"steps": 3}, validation=[held_out]))
    assert header_of(job().best)["validation"] == read_state(job().state).best


def test_validation_on_training_pictures_is_announced(job, photos, tmp_path):
    save_photos(photos / "inside", [(270, 300)] * 2, first=7)
    save_photos(tmp_path / "held_out", [(20, 20), (270, 300)], first=9)
    shutil.copy(photos / "inside/7.png", tmp_path / "held_out/copy.png")
    notes = []
    both = [photos / "inside", tmp_path / "held_out"]
    train(job({"steps": 1}, validation=both), note=notes.append)
    assert any("3 pictures of --validation are also in --data" in note for note in notes)
    assert any(f"1 picture in '{tmp_path / 'held_out'}' left out" in note for note in notes)


@pytest.mark.slow
def test_names_that_matplotlib_would_read_as_formulas(job, tmp_path, curves):
    folders = [save_photos(tmp_path / name, [(270, 300)], first=7) for name in ("a $1_$", "_b")]
    train(job({"steps": 3, "name": "x $1_$"}, validation=folders))
    assert (job().run / "curves.png").exists()


def test_a_loss_between_two_sizes_is_refused(job):
    loss = PHASE["losses"][0] | {"target": "reference_small"}
    with pytest.raises(UsageError, match=r"64x64 px with target 'reference_small' of 16x16"):
        train(job({"steps": 1, "losses": [loss]}))
    assert not job().state.exists()  # else the corrected recipe is refused


def test_a_scale_that_the_data_do_not_have_is_refused(job):
    config = dataclasses.asdict(TINY) | {"scale": 2}
    with pytest.raises(UsageError, match=r"of 32x32 px with target 'reference' of 64x64 px"):
        train(job(recipe=make_recipe({"steps": 1}, config=config)))


@pytest.mark.slow
def test_finished_phases_count_with_the_steps_that_they_took(job):
    seen = []
    train(job({"steps": 2}, {"steps": 2}), seen.append)
    train(job({"steps": 5}, {"steps": 3}, resume="auto"), seen.append)
    assert [(progress.step, progress.steps) for progress in seen[-2:]] == [(4, 4), (5, 5)]
    train(job({"steps": 1}, {"steps": 4}, resume="auto"), seen.append)
    assert (seen[-1].step, seen[-1].steps) == (6, 6)
    package(job().run, job().run / "out", "mprnet-mscam-tiny.test", "MIT")
    assert "6 of 6" in (job().run / "out/README.md").read_text()


def test_a_picture_that_breaks_at_once_leaves_no_weights(job, photos):
    for path in photos.iterdir():
        path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(PictureError):
        train(job({"steps": 1}))
    assert not job().result.exists()
    assert not job().state.exists()  # else a run without the broken picture is refused


@pytest.mark.slow
def test_a_pool_that_is_refused_leaves_no_run(job, tmp_path):
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/other.txt").touch()
    recipe = make_recipe({"steps": 1}, pool={"size": 2, "side": 32})
    with pytest.raises(UsageError, match="neither empty nor a pool"):
        train(job(recipe=recipe, pool=tmp_path / "pool"))
    (tmp_path / "pool/other.txt").unlink()
    train(job(recipe=recipe, pool=tmp_path / "pool"))
    (tmp_path / "typo").mkdir()
    (tmp_path / "typo/other.txt").touch()
    with pytest.raises(UsageError, match="neither empty nor a pool"):
        train(job(recipe=recipe, pool=tmp_path / "typo", resume="must"))
    train(job(recipe=recipe, pool=tmp_path / "pool", resume="must"))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"facts": value} for value in (None, [])),
        *({"best": value} for value in ({}, "x", {"step": 1, "psnr": "a", "gain": 0})),
        *({"seen": value} for value in ("x", -5, 1.5, True)),
        *({"phase": value} for value in (-1, 1)),
        {"seconds": "a"},
    ],
    ids=repr,
)
def test_states_with_wrong_values_are_refused(job, tmp_path, wrong):
    trainer = Trainer(make_recipe(), ProcessGroup(CPU))
    values = dict(trainer.state())
    torch.save(values, tmp_path / "state.pt")
    read_state(tmp_path / "state.pt")
    torch.save(values | wrong, tmp_path / "state.pt")
    with pytest.raises(UsageError, match=r"state\.pt"):
        read_state(tmp_path / "state.pt")


@pytest.mark.slow
def test_odd_files_in_the_folder_of_a_run(tmp_path, job, held_out):
    one = job({"steps": 3}, validation=[held_out])
    (one.run / "validation").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(one.run / "validation/1.png")
    train(one)
    assert (one.run / "validation/1.png").exists()
    with (one.run / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": Infinity, "phase": "1", "loss": 1, "learning_rate": 1}\n')
        stream.write("[" * 100_000 + "\n")
    train(job({"steps": 4}, validation=[held_out], resume="auto"))
    assert [row["step"] for row in rows(one.run)] == [1, 2, 3, 4]


def test_losses_that_depend_on_nothing_that_is_trained_are_named(job):
    with pytest.raises(UsageError, match="trains nothing that its losses depend on"):
        train(job(DEBLURRING | {"trained": ["upscaler.*"]}))


@pytest.mark.parametrize("features", [0, 10**9])
def test_a_network_that_cannot_be_built_is_named(job, features):
    config = dataclasses.asdict(TINY) | {"features": features}
    with pytest.raises(UsageError, match="cannot be built with this config"):
        Trainer(make_recipe(config=config), ProcessGroup(CPU))


@pytest.mark.slow
def test_time_that_is_up_gives_a_score_that_does_not_count(job, held_out):
    seen = []
    done = job(validation=[held_out], minutes=0)
    train(done, seen.append)
    assert [p.step for p in seen] == [1]
    assert seen[0].score
    state = read_state(done.state)
    assert state.best is None
    assert not done.best.exists()
    assert state.facts["last_score"]["psnr"] == seen[0].score.psnr
    card = package(done.run, done.run / "out", "a.b", "MIT").card.read_text()
    assert f"{seen[0].score.psnr:.2f} dB PSNR" in card
    assert "when the run was stopped" in card


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(tmp_path, job, monkeypatch):
    """Traced and differentiated by torch.compile; its C++ backend takes half a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    terms = [{"output": "restored", "target": "reference", "loss": "l1"}]
    config = dataclasses.asdict(TINY_CONFIGS["gfn"])
    small = make_recipe({"steps": 2, "losses": terms}, model="gfn", config=config)
    train(job(recipe=small, run=tmp_path / "plain"))
    train(job(recipe=small, run=tmp_path / "fused", execution=Execution(compile=True)))
    plain, fused = ([row["loss"] for row in rows(tmp_path / run)] for run in ("plain", "fused"))
    assert fused == pytest.approx(plain, rel=1e-3)


@pytest.mark.slow
def test_tensorboard(job):
    pytest.importorskip("torch.utils.tensorboard")
    done = job(tensorboard=True)
    train(done)
    assert len(list((done.run / "tensorboard").glob("events.*"))) == 1


def test_a_loss_that_is_not_finite_keeps_the_last_save(job, monkeypatch):
    train(job({"steps": 2}))
    before = job().state.read_bytes()
    monkeypatch.setitem(losses.LOSSES, "gradient", lambda a, b: a.mean() * float("nan"))
    with pytest.raises(RestoreError, match=r"NaN or infinity at step 2 in restored\.gradient"):
        train(job(resume="auto"))
    assert job().state.read_bytes() == before


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_is_never_saved(job, monkeypatch):
    class Root(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    monkeypatch.setitem(losses.LOSSES, "gradient", lambda a, b: Root.apply(a.mean()))
    with pytest.raises(RestoreError, match="gradient"):
        train(job({"steps": 6}))
    state = read_state(job().state)
    assert state.step == 0
    assert all(torch.isfinite(t).all() for t in state.network.values())


class FullDisk:
    """`torch.save` on a disk that is full while `full` is set."""

    def __init__(self):
        self.full, self._save = True, torch.save

    def __call__(self, values, stream):
        if not self.full:
            return self._save(values, stream)
        whole = BytesIO()
        self._save(values, whole)
        stream.write(whole.getvalue()[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_loses_nothing(job, monkeypatch):
    run = job({"steps": 2})
    train(run)
    disk = FullDisk()
    monkeypatch.setattr(torch, "save", disk)
    notes = []

    def make_room(progress):
        disk.full = progress.step < 6

    train(job(resume="auto"), make_room, notes.append)
    assert len(notes) == 2
    assert "at step 2 of 6 (phase '0'" in notes[0]
    assert "warning: cannot save step 4" in notes[1]
    assert "No space left" in notes[1]
    assert read_state(run.state).step == 6


def test_the_reason_of_a_failed_save_is_the_system_s(job, tmp_path):
    resource = pytest.importorskip("resource")
    trainer = Trainer(job().recipe, ProcessGroup(CPU))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(SaveError, match=r"state\.pt': File too large") as caught:
            trainer.save(tmp_path / "state.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "raise the limit" in caught.value.hint


@pytest.mark.slow
def test_weights_that_a_resumed_run_does_not_use_are_named(job, tmp_path):
    train(job({"steps": 1}))
    other = load_network(locate(str(job().result), None))
    notes = []
    train(job({"steps": 2}, resume="auto", weights=other), note=notes.append)
    assert "began with random weights" in notes[1]
    assert f"--weights '{job().result}' is not used" in notes[1]
    second = {"run": tmp_path / "second", "weights": other}
    train(job({"steps": 1}, **second))
    notes.clear()
    train(job({"steps": 2}, resume="auto", **second), note=notes.append)
    assert len(notes) == 1


@pytest.mark.slow
def test_a_disk_that_stays_full_keeps_the_last_state_and_says_so(tmp_path, job, monkeypatch):
    run = job({"steps": 2})
    train(run)
    before = run.state.read_bytes()
    monkeypatch.setattr(torch, "save", FullDisk())
    with pytest.raises(SaveError, match="No space left"):
        train(job(resume="auto"))
    assert run.state.read_bytes() == before
    assert not list(run.run.glob(".*.part"))
    with pytest.raises(SaveError):  # found before the first step
        train(job(run=tmp_path / "new"))


@pytest.mark.slow
def test_a_photo_that_breaks_later_stops_the_run_with_its_steps_saved(job, photos):
    def spoil(progress):
        for path in photos.iterdir():
            path.write_bytes(path.read_bytes()[:200])

    lazy = job(recipe=make_recipe({"batch": 1}, save_every=100, seed=3))
    with pytest.raises(PictureError):
        train(lazy, spoil)
    assert read_state(lazy.state).step >= 1
    assert load_network(locate(str(lazy.run), None)).header.provenance["steps"] >= 1


def test_unknown_outputs_and_sizes(tmp_path, job):
    with pytest.raises(UsageError, match="sides that are multiples of 8"):
        train(job({"patch": 20}))
    wrong = [PHASE["losses"][0], PHASE["losses"][2] | {"output": "stage9"}]
    with pytest.raises(UsageError, match="stage9"):
        train(job({"losses": wrong}, run=tmp_path / "r"))


def test_the_average_forgets_the_first_weights():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = ExponentialMovingAverage(network, 0.998)
    average.update(network)
    torch.nn.init.ones_(network.weight)
    for _ in range(100):
        average.update(network)
    assert average.module.weight.item() > 0.99
    assert int(average.count) == 101


def test_batches_that_cannot_be_divided_are_found_before_the_first_step(job):
    phases = ({"batch": 4}, {"batch": 3})
    with pytest.raises(UsageError, match="batch of 3 cannot be divided"):
        train(job(*phases, execution=Execution(accumulate=2)))
    assert not job().run.exists()
    with pytest.raises(UsageError, match="batch of 3 cannot be divided"):
        list(dry_run(job(*phases, execution=Execution(accumulate=2))))


@pytest.mark.slow
def test_a_lower_rate_is_the_same_run(job):
    train(job({"steps": 2}))
    train(job({"steps": 4, "learning_rate": 1e-4, "clip": 0.5}, resume="must"))
    assert read_state(job().state).step == 4


@pytest.mark.slow
def test_sigterm_saves_and_ends(job):
    def stop(progress):
        if progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as raised:
        train(job(), stop)
    assert exit_status_for(raised.value) == 143
    assert read_state(job().state).step == 2
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_best_weights_that_find_no_room_do_not_stop_the_run(job, held_out, monkeypatch):
    def full(*_):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    notes = []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(RestoreError, match=r"cannot write .*weights\.safetensors"):
            train(job(validation=[held_out]), note=notes.append)  # only the export has no choice
    assert len(notes) == 2
    assert "best.safetensors" in notes[0]
    assert read_state(job().state).step == 6
    train(job(validation=[held_out], resume="auto"))
    assert job().result.exists()


def test_a_dry_run_walks_every_phase_and_leaves_nothing(job, held_out):
    run = job(DEBLURRING, {"steps": 100}, validation=[held_out])
    done = list(dry_run(run))
    assert [(part.phase, part.steps) for part in done] == [("deblurring", 3), ("1", 100)]
    assert 0 < done[0].trained < done[1].trained
    for part in done:
        assert 0 < part.data < part.step
        assert part.memory > 1e8
        assert part.seconds(50) == pytest.approx(
            part.steps * part.step + (part.steps // 50 + 1) * part.validation
        )
    assert not run.run.exists()
    with pytest.raises(UsageError):
        list(dry_run(job({"trained": ["nothing"]})))


@pytest.mark.slow
def test_only_the_folder_of_the_run_is_written(tmp_path, job, held_out):
    before = {path for path in tmp_path.rglob("*") if "run" not in path.parts}
    train(job(validation=[held_out]))
    after = {path for path in tmp_path.rglob("*") if tmp_path / "run" not in [path, *path.parents]}
    assert before == after
    assert Path(tmp_path / "run/weights.safetensors").is_file()
