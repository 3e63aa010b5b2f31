"""A pool: made once, cut at aligned places, refused where it is of something else."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time

import pytest
import torch
from conftest import TINY_CONFIGS
from safetensors.torch import load_file
from training_runs import assert_same, make_recipe, rows, save_photos, weights_of, write_toml

from restore_cli.cli.app import app
from restore_cli.errors import PictureError, UsageError
from restore_cli.files import sha256
from restore_cli.inference.loading import full_state_dict, load_network
from restore_cli.models.maxim import Maxim
from restore_cli.models.maxim_mscam import MaximMscam
from restore_cli.training import pretrained
from restore_cli.training.data import PREPARED, Photos
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.job import TrainJob
from restore_cli.training.loop import open_loader, train
from restore_cli.training.mixture import MixtureOrder, open_source
from restore_cli.training.package import package
from restore_cli.training.refill import BackgroundFiller, fill_pool
from restore_cli.training.state import read_state
from restore_cli.training.trainer import Trainer
from restore_cli.weights import manifest
from restore_cli.weights.checkpoint import CheckpointHeader, read_checkpoint, write_checkpoint
from restore_cli.weights.store import locate

CPU = torch.device("cpu")
CONFIG = TINY_CONFIGS["maxim-mscam"]
MIXTURE = [
    {"data": "pairs", "probability": 0.4},
    {"data": "photos", "probability": 0.5, "degradation": "shake-mild"},
    {"data": "photos", "probability": 0.1, "degradation": "shrunk"},
]
LOSSES = [{"output": "restored", "target": "reference", "loss": "psnr_to_35"}]
FIRST = {"steps": 2, "patch": 16, "trained": ["upscaler.*"], "losses": LOSSES}
SECOND = {"steps": 1, "patch": 64, "losses": LOSSES}


def mixed_recipe(*phases, **changes):
    values = {
        "model": "maxim-mscam",
        "config": dataclasses.asdict(CONFIG),
        "mixture": MIXTURE,
        "pool": {"size": 10, "side": 32},
        "optimizer": {"kind": "adamw", "betas": [0.9, 0.99], "weight_decay": 1e-4},
    }
    return make_recipe(*(phases or (FIRST,)), **(values | changes))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Three pairs of one size, the smallest not a multiple of anything."""
    folder = tmp_path_factory.mktemp("data") / "pairs"
    for kind in ("blur", "sharp"):
        save_photos(folder / kind, [(270, 330), (280, 350), (256, 256)], first=20)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return save_photos(tmp_path_factory.mktemp("data") / "photos", [(290, 300)] * 3)


@pytest.fixture(scope="module")
def ready(tmp_path_factory, photos, pairs):
    """A pool that is full."""
    folder = tmp_path_factory.mktemp("ready") / "pool"
    pool_of(TrainJob(recipe=mixed_recipe(), data=[photos, pairs], run=folder, pool=folder))
    return folder


@pytest.fixture
def make(tmp_path, job, photos, pairs, ready):
    """Jobs that train the tiny network of two parts from a copy of the pool."""
    shutil.copytree(ready, tmp_path / "pool")

    def made(*phases, recipe=None, **changes):
        values = {
            "recipe": recipe or mixed_recipe(*phases),
            "data": [photos, pairs],
            "pool": tmp_path / "pool",
        }
        return job(**(values | changes))

    return made


def pool_of(job):
    trainer = Trainer(job.recipe, ProcessGroup(CPU), pooled=True)
    loader = open_loader(job, trainer)
    return fill_pool(job.pool, trainer, loader.source, lambda done, total: None), trainer


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.safetensors"))}


def test_every_batch_has_the_probabilities_of_its_parts():
    order = MixtureOrder([40, 24, 18, 9, 9])
    found = [order.locate(number) for number in range(1000)]
    for part, share in enumerate((0.4, 0.24, 0.18, 0.09, 0.09)):
        own = [number for kind, number in found if kind == part]
        assert own == list(range(round(1000 * share)))  # each part's items one after the other
        for first in range(0, 984, 16):
            count = sum(kind == part for kind, _ in found[first : first + 16])
            assert abs(count - 16 * share) < 2


def test_a_mixture_gives_each_part_its_data(photos, pairs):
    source = open_source([photos, pairs], mixed_recipe(), 4, 16)
    crops = [source.item(1, number, 16) for number in range(20)]
    assert [sum(crop.part == part for crop in crops) for part in range(3)] == [8, 10, 2]
    batch = source.batch(crops, {"reference_small"}, CPU)
    assert batch.degraded.shape == (20, 3, 16, 16)
    assert batch.targets["reference"].shape == (20, 3, 64, 64)
    # What is only shrunk is closest to its reference; parts lie one after the other.
    away = (batch.degraded - batch.targets["reference_small"]).abs().mean((1, 2, 3))
    assert away[18:].max() < away[8:18].mean()
    names = [part.get("degradation") for part in source.facts["parts"]]
    assert names == [None, "shake-mild", "shrunk"]
    again = open_source([photos, pairs], mixed_recipe(), 4, 16).item(1, 7, 16)
    assert torch.equal(crops[7].sharp, again.sharp)


def test_data_that_a_mixture_does_not_expect_is_refused(photos, pairs, held_out):
    with pytest.raises(UsageError, match="mixture includes pairs, but no folder"):
        open_source([photos], mixed_recipe(), 4, 16)
    only = mixed_recipe(mixture=[{"data": "photos", "probability": 1.0}])
    with pytest.raises(UsageError, match="contains pairs, but the recipe's mixture does not"):
        open_source([photos, pairs], only, 4, 16)
    with pytest.raises(UsageError, match="the recipe has no mixture"):
        open_source([photos, pairs], make_recipe(), 4, 16)
    both = open_source([photos, held_out], make_recipe(), 4, 16)
    assert isinstance(both, Photos)
    assert len(both) == 5


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ([{"data": "pairs", "probability": 0.5}], "add up to 1"),
        (
            [{"data": "pairs", "probability": 1.0, "degradation": "shake"}],
            "cannot have a degradation",
        ),
        (
            [{"data": "photos", "probability": 0.995}, {"data": "pairs", "probability": 0.005}],
            "multiple of 0.01",
        ),
    ],
)
def test_probabilities_that_make_no_sense_are_refused(mixture, message):
    with pytest.raises(ValueError, match=message):
        mixed_recipe(mixture=mixture)


@pytest.mark.slow
def test_a_pool_is_a_function_of_its_seed_and_goes_on_after_a_stop(tmp_path, make):
    whole, _ = pool_of(make(pool=tmp_path / "whole"))
    assert whole.counts == [4, 5, 1]  # of three pairs, whole and mirrored, no more than the share
    before = contents(whole.folder)
    assert len(before) == len(whole) == 10

    stopped = make(pool=tmp_path / "stopped")
    trainer = Trainer(stopped.recipe, ProcessGroup(CPU), pooled=True)
    source = open_loader(stopped, trainer).source

    def stop(done, total):
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill_pool(stopped.pool, trainer, source, stop)
    assert len(contents(stopped.pool)) == 6
    pool_of(stopped)
    assert contents(stopped.pool) == before
    times = {path.name: path.stat().st_mtime_ns for path in whole.folder.glob("*.safetensors")}
    assert contents(make().pool) == before
    more = mixed_recipe(pool={"size": 20, "side": 32})
    larger, _ = pool_of(make(recipe=more, pool=whole.folder))
    assert larger.counts == [6, 10, 2]
    assert {n: b for n, b in contents(larger.folder).items() if n in before} == before
    assert all((larger.folder / n).stat().st_mtime_ns == time for n, time in times.items())


@pytest.mark.slow
def test_a_pool_of_something_else_is_refused(tmp_path, make, photos):
    pool_of(make())
    with pytest.raises(UsageError, match=r"other data or settings \(frozen part, seed\)"):
        pool_of(make(recipe=mixed_recipe(seed=2)))
    milder = [part | {"degradation": "shake"} if n == 1 else part for n, part in enumerate(MIXTURE)]
    with pytest.raises(UsageError, match=r"\(data\)"):
        pool_of(make(recipe=mixed_recipe(mixture=milder)))
    trainer = Trainer(mixed_recipe(), ProcessGroup(CPU), pooled=True)
    with torch.no_grad():
        next(iter(trainer.network.deblur.parameters())).add_(1)
    source = open_loader(make(), trainer).source
    with pytest.raises(UsageError, match=r"\(frozen part\)"):
        fill_pool(make().pool, trainer, source, lambda done, total: None)
    record = tmp_path / "pool/pool.json"
    for broken in ("[", "[]", "1"):
        record.write_text(broken)
        with pytest.raises(UsageError, match="is not a valid pool record"):
            pool_of(make())
    with pytest.raises(UsageError, match="is neither empty nor a pool"):
        pool_of(make(pool=photos))


def test_crops_of_maps_lie_where_the_picture_does(make):
    """Prepared maps, the picture and its reference are cut, flipped and turned alike."""
    pool, _ = pool_of(make())
    items = {path.name: load_file(path) for path in pool.folder.glob("*.safetensors")}
    assert {item["prepared.features2"].shape[1] * 4 for item in items.values()} > {32}
    for name, item in items.items():  # maps that say where they are: a ramp down and one across
        _, height, width = item["degraded"].shape
        rows, columns = torch.arange(height) / 4, torch.arange(width) / 4
        ramp = torch.stack([rows[:, None].expand(-1, width), columns.expand(height, -1)])
        for key, tensor in item.items():
            down, across = (n / m for n, m in zip(tensor.shape[1:], (height, width), strict=True))
            assert down == across
            scaled = torch.nn.functional.interpolate(ramp[None], scale_factor=down, mode="nearest")
            item[key] = scaled[0].to(torch.float32 if "prepared" in key else torch.uint8)
        write_checkpoint(pool.folder / name, item, None)
    seen = set()
    for number in range(80):
        crop = pool.item(1, number, 16)
        corner = crop.degraded[:, ::4, ::4].float()
        assert torch.equal(corner, crop.prepared["features2"].floor())
        assert torch.equal(crop.degraded.float(), crop.prepared["image"].floor())
        assert torch.equal(crop.degraded[:, ::2, ::2].float(), crop.prepared["features1"].floor())
        assert torch.equal(crop.degraded, crop.sharp[:, ::4, ::4])
        steps = (corner[:, 1, 0] - corner[:, 0, 0], corner[:, 0, 1] - corner[:, 0, 0])
        seen.add(tuple(torch.cat(steps).sign().tolist()))
    assert len(seen) == 8  # flips and turns


def test_prepared_outputs_are_those_of_the_network(make):
    pool, trainer = pool_of(make())
    network = trainer.network.eval()
    items = map(load_file, pool.folder.glob("0-*.safetensors"))
    whole = next(item for item in items if item["degraded"].shape == (3, 64, 64))
    image = whole["degraded"][None].float() / 255
    with torch.inference_mode():
        made = network.prepare(image)
        for name, tensor in made.items():
            stored = whole[f"prepared.{name}"]
            assert stored.dtype == torch.float16
            torch.testing.assert_close(stored.float(), tensor[0], atol=1e-3, rtol=1e-3)
        stored = {n: whole[f"prepared.{n}"][None].float() for n in made}
        restored = network.outputs(image, {"restored"}, stored)["restored"]
        plain = network.outputs(image)["restored"]
    torch.testing.assert_close(restored, plain, atol=2e-3, rtol=0)
    crops = [pool.item(1, number, 16) for number in range(4)]
    assert pool.batch(crops, {PREPARED}, CPU).prepared["features1"].shape == (4, 8, 8, 8)
    assert not pool.batch(crops, set(), CPU).prepared


def test_a_damaged_item_is_named(make):
    pool, _ = pool_of(make())
    with pytest.raises(PictureError, match="patches of 128 px: it is"):
        pool.item(1, 0, 128)
    for path in pool.folder.glob("1-*.safetensors"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PictureError, match=r"1-00000\d\.safetensors' is not a valid pool item"):
        [pool.item(1, number, 16) for number in range(20)]


@pytest.mark.slow
def test_a_run_from_a_pool_ends_as_an_undisturbed_one_and_never_runs_the_frozen_part(
    tmp_path, make, held_out, monkeypatch
):
    done = make(FIRST | {"steps": 4}, run=tmp_path / "whole", validation=[held_out])
    train(done)
    ran = []
    forward = Maxim.run
    monkeypatch.setattr(Maxim, "run", lambda self, x: ran.append(x.shape) or forward(self, x))
    parts = make(FIRST | {"steps": 2}, run=tmp_path / "parts", validation=[held_out])
    train(parts)
    train(dataclasses.replace(parts, recipe=done.recipe, resume="must"))
    assert len(ran) == 4  # two held-out pictures, once in each of the two processes
    lines = rows(done.run)
    assert [line["pool"] for line in lines] == [10] * 4
    assert [line["reuse"] for line in lines] == [0.2, 0.4, 0.6, 0.8]
    assert all(line["patches_per_hour"] > 0 < line["steps_per_second"] for line in lines)
    fresh = Trainer(done.recipe, ProcessGroup(CPU), pooled=True).network.state_dict()
    trained = read_state(done.state).network
    for name, tensor in fresh.items():
        assert torch.equal(trained[name], tensor) == name.startswith("deblur."), name


def test_without_a_pool_small_patches_of_such_a_phase_are_refused(make):
    with pytest.raises(UsageError, match="multiples of 64") as refused:
        train(make(pool=None))
    assert "--pool" in refused.value.hint


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A checkpoint of the deblurring part in the manifest, and its name."""
    torch.manual_seed(5)
    config = CONFIG.deblurring()
    path = tmp_path / "maxim-tiny.safetensors"
    half = {name: tensor.half() for name, tensor in Maxim(config).state_dict().items()}
    write_checkpoint(
        path, half, CheckpointHeader("maxim", dataclasses.asdict(config), (64, 64), {})
    )
    entry = manifest.Checkpoint(
        name="maxim.tiny",
        model="maxim",
        config=dataclasses.asdict(config),
        source="bundled:maxim-tiny.safetensors",
        sha256=sha256(path),
        size=path.stat().st_size,
        license="Apache-2.0",
        training_data="none",
        train_size=(64, 64),
        overlap=64,
    )
    whole = manifest.load_manifest()
    more = whole.model_copy(update={"checkpoints": whole.checkpoints | {entry.name: entry}})
    for module in ("manifest", "store"):
        monkeypatch.setattr(f"restore_cli.weights.{module}.load_manifest", lambda: more)
    monkeypatch.setattr("restore_cli.weights.store.BUNDLED", tmp_path)
    return entry


@pytest.mark.slow
def test_a_part_of_a_listed_checkpoint_is_referred_to_and_comes_back(
    tmp_path, make, held_out, listed
):
    """Through both phases: frozen, then trained, when all is written."""
    recipe = mixed_recipe(FIRST, parts={"deblur": listed.name})
    own = tmp_path / "own"  # of other weights than those that are drawn at random
    done = make(recipe=recipe, validation=[held_out], recipe_name="tiny", pool=own)
    train(done)
    for path in (done.best, done.result):
        content = read_checkpoint(path)
        assert content.header.parts == {"deblur": listed.sha256}
        assert not [name for name in content.tensors if name.startswith("deblur.")]
    loaded = load_network(locate(str(done.result), None)).network.state_dict()
    average = full_state_dict(read_checkpoint(done.best), "best")
    assert loaded.keys() == average.keys()
    for name, tensor in average.items():
        assert torch.equal(loaded[name], tensor.half().float()), name
    made = package(done.run, tmp_path / "out", "maxim-mscam-tiny.mine", "CC-BY-4.0")
    card = made.card.read_text()
    for fact in ("10 items, ", "4 patches were cut from them, 0.4 from each",
                 "40% 3 pairs, layout plain", "10% 3 photos, degraded by recipe shrunk",
                 f"`maxim.tiny` (Apache-2.0), sha256 {listed.sha256[:16]}"):  # fmt: skip
        assert fact in card, fact

    both = dataclasses.replace(
        done,
        recipe=mixed_recipe(
            FIRST, SECOND, parts={"deblur": listed.name}, pool={"size": 3, "side": 64}
        ),
        run=tmp_path / "both",
        pool=tmp_path / "larger",
    )
    train(both)
    content = read_checkpoint(both.result)
    assert content.header.parts == {}
    assert content.tensors.keys() == average.keys()
    assert load_network(locate(str(both.result), None)).config == CONFIG
    (both.pool / "1-000000.safetensors").unlink()
    with pytest.raises(UsageError, match="lacks 1 items, which cannot be made any more"):
        train(dataclasses.replace(both, resume="must"))


def test_of_a_part_only_what_was_trained_is_written(tmp_path, listed):
    recipe = mixed_recipe(parts={"deblur": listed.name})
    network = MaximMscam(CONFIG)
    pretrained.load_parts(network, recipe)
    tensors = network.state_dict()
    trained = next(name for name in tensors if name.startswith("deblur."))
    tensors[trained] = tensors[trained] + 1
    own, parts = pretrained.split_stored(tensors, recipe)
    assert [name for name in own if name.startswith("deblur.")] == [trained]
    header = CheckpointHeader("maxim-mscam", dataclasses.asdict(CONFIG), (64, 64), {}, parts)
    write_checkpoint(tmp_path / "a.safetensors", own, header)
    loaded = load_network(locate(str(tmp_path / "a.safetensors"), None)).network.state_dict()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name


def test_the_whole_network_can_be_such_a_part(tmp_path, listed):
    """The name of its module is empty, as in torch."""
    config = CONFIG.deblurring()
    recipe = mixed_recipe(model="maxim", config=dataclasses.asdict(config), parts={"": listed.name})
    network = Maxim(config)
    pretrained.load_parts(network, recipe)
    tensors = network.state_dict()
    trained = next(iter(tensors))
    tensors[trained] = tensors[trained] + 1
    own, parts = pretrained.split_stored(tensors, recipe)
    assert list(own) == [trained]
    header = CheckpointHeader("maxim", dataclasses.asdict(config), (64, 64), {}, parts)
    path = tmp_path / "a.safetensors"
    write_checkpoint(path, own, header)
    loaded = load_network(locate(str(path), None)).network.state_dict()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name
    write_checkpoint(path, own, dataclasses.replace(header, parts={"": "0" * 64}))
    with pytest.raises(pretrained.WeightsError, match="for the layers that it does not contain"):
        load_network(locate(str(path), None))


def test_parts_that_do_not_fit_are_refused(listed):
    with pytest.raises(UsageError, match="parts name 'blur', but the network has no such module"):
        Trainer(mixed_recipe(parts={"blur": listed.name}), ProcessGroup(CPU), pooled=True)
    config = dataclasses.asdict(CONFIG) | {"width": 8}
    with pytest.raises(pretrained.WeightsError, match=r"'maxim\.tiny' does not fit 'deblur'"):
        Trainer(
            mixed_recipe(config=config, parts={"deblur": listed.name}),
            ProcessGroup(CPU),
            pooled=True,
        )


@pytest.mark.slow
def test_the_state_is_saved_by_the_clock_as_well(make):
    hasty = mixed_recipe(save_every=1000, save_minutes=1e-6)
    states = []
    job = make(recipe=hasty)
    train(job, lambda progress: states.append(read_state(job.state).step))
    assert states == [0, 1]  # seen after each step, before it is saved
    calm = make(recipe=mixed_recipe(save_every=1000), run=job.run.parent / "calm")
    train(calm, lambda progress: states.append(read_state(calm.state).step))
    assert states[2:] == [0, 0]


@pytest.mark.slow
def test_any_recipe_takes_a_pool(tmp_path, job, photos):
    """Without a frozen part: the items are pictures alone, and all of 8 bits."""
    done = job(data=[photos], recipe=make_recipe(pool={"size": 4, "side": 32}), pool=tmp_path / "p")
    train(done)
    item = load_file(done.pool / "0-000003.safetensors")
    assert {name: (t.dtype, tuple(t.shape)) for name, t in item.items()} == {
        "degraded": (torch.uint8, (3, 32, 32)),
        "reference": (torch.uint8, (3, 128, 128)),
    }
    again = job(data=[photos], recipe=done.recipe, pool=done.pool, run=tmp_path / "again")
    train(again)
    assert_same(weights_of(done.run), weights_of(again.run))
    with pytest.raises(UsageError, match="was trained with a pool"):
        train(dataclasses.replace(done, pool=None, resume="must"))


@pytest.mark.slow
def test_a_refilled_pool_gives_the_same_weights_after_a_stop(tmp_path, job, photos):
    """Whoever made the items, and wherever it was stopped; what was replaced leaves the disk."""
    steps = {"steps": 8, "batch": 4, "schedule": {"kind": "constant"}}
    shape = {"size": 4, "side": 32, "reuse": 3}
    recipe = make_recipe(steps, pool=shape, save_every=2)

    def run(name, **changes):
        values = {"recipe": recipe, "data": [photos], "run": tmp_path / name}
        return job(**(values | {"pool": tmp_path / f"{name}.pool"} | changes))

    whole = run("whole")
    seen = []
    train(whole, seen.append)
    assert seen[-1].reuse == pytest.approx(32 / (4 + 10))  # 32 patches: one of every three is new
    assert seen[-1].pool == 4
    there = sorted(path.name for path in whole.pool.glob("*.safetensors"))
    assert there[0] == "0-000010.safetensors"  # 0 to 9 were replaced
    half = make_recipe(steps | {"steps": 4}, pool=shape, save_every=2)
    train(run("parts", recipe=half))
    shutil.rmtree(tmp_path / "parts.pool")
    train(run("parts", resume="must"))
    assert_same(weights_of(whole.run), weights_of(tmp_path / "parts"))
    still = make_recipe(steps, pool=shape | {"reuse": None})
    train(run("still", recipe=still))
    first, other = (weights_of(tmp_path / name) for name in ("whole", "still"))
    assert any(not torch.equal(first[key], other[key]) for key in first if "weight" in key)
    card = package(whole.run, tmp_path / "out", "a.b", "MIT").card.read_text()
    assert "4 items at a time, 14 in all" in card
    with pytest.raises(UsageError, match=r"\(refilled\)"):  # its items go while it trains
        train(run("other", recipe=still, pool=whole.pool))


@pytest.mark.slow
def test_items_are_made_in_the_background(tmp_path, job, photos, monkeypatch):
    monkeypatch.setattr("restore_cli.training.refill.AHEAD", 1)
    recipe = make_recipe({"steps": 1}, pool={"size": 4, "side": 32, "reuse": 1})
    pool, _ = pool_of(job(data=[photos], recipe=recipe, pool=tmp_path / "pool"))
    filler = BackgroundFiller(pool, 0)
    try:
        filler.request(2)
        deadline = time.monotonic() + 120
        while not pool.path(0, 6).is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        filler.close()
    made = contents(pool.folder)
    assert len(made) == 2 + 4 + 1
    pool.path(0, 5).unlink()
    pool.make(0, 5)
    assert contents(pool.folder) == made  # bit by bit the same here
    pool.drop(3)
    assert sorted(contents(pool.folder)) == [f"0-00000{n}.safetensors" for n in (3, 4, 5, 6)]


def test_a_pool_with_prepared_outputs_is_not_refilled_if_a_phase_trains_the_part(make):
    recipe = mixed_recipe(FIRST, SECOND, pool={"size": 10, "side": 64, "reuse": 2})
    with pytest.raises(UsageError, match="cannot be refilled in a run that trains it"):
        train(make(recipe=recipe))


@pytest.mark.slow
def test_a_refilled_pool_keeps_outputs_of_the_frozen_part(tmp_path, make):
    """After a stop too, and although the network is being trained when items are made."""
    steps = FIRST | {"steps": 6, "batch": 4, "schedule": {"kind": "constant"}}
    shape = {"size": 10, "side": 32, "reuse": 2}
    recipe = mixed_recipe(steps, pool=shape, save_every=3)
    whole = make(recipe=recipe, run=tmp_path / "whole", pool=tmp_path / "whole.pool")
    train(whole)
    half = mixed_recipe(steps | {"steps": 3}, pool=shape, save_every=3)
    parts = make(recipe=half, run=tmp_path / "parts", pool=tmp_path / "parts.pool")
    train(parts)
    shutil.rmtree(parts.pool)
    train(dataclasses.replace(parts, recipe=recipe, resume="must"))
    assert_same(weights_of(whole.run), weights_of(parts.run))
    new = sorted(whole.pool.glob("1-*.safetensors"))[-1]
    assert int(new.stem.partition("-")[2]) >= 5  # not one of the five at the start
    assert any(name.startswith(PREPARED) for name in load_file(new))


@pytest.mark.slow
def test_a_pool_of_pairs_is_for_one_scale(tmp_path, job, pairs):
    recipe = make_recipe({"steps": 1}, pool={"size": 2, "side": 32})
    train(job(recipe=recipe, data=[pairs], pool=tmp_path / "pool"))
    record = json.loads((tmp_path / "pool/pool.json").read_text())
    (part,) = record["data"]
    assert (part["scale"], part["shrink"]) == (4, True)
    other = record | {"data": [part | {"scale": 1}]}
    (tmp_path / "pool/pool.json").write_text(json.dumps(other))
    with pytest.raises(UsageError, match=r"other data or settings \(data\)"):
        train(job(recipe=recipe, data=[pairs], pool=tmp_path / "pool", run=tmp_path / "b"))


@pytest.mark.slow
def test_from_the_command_line(tmp_path, photos, pairs, capsys):
    recipe = write_toml(tmp_path / "tiny.toml", mixed_recipe())
    run = tmp_path / "run"
    command = ["train", str(recipe), "--data", str(photos), "--data", str(pairs), "-o", str(run)]
    for more in (["--dry-run"], ["--quiet"]):
        with pytest.raises(SystemExit) as ended:
            app([*command, "--pool", str(tmp_path / "pool"), *more])
        assert ended.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "weights.safetensors")
    assert len(rows(run)) == 2
    assert len(contents(tmp_path / "pool")) == 10
    assert {path.name for path in tmp_path.iterdir()} == {"pool", "run", "tiny.toml"}
