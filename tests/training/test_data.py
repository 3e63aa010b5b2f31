"""Batches: functions of (seed, number), however many processes share them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import make_recipe, save_photos

from restore_cli.errors import NoInputError, UsageError
from restore_cli.image import read_rgb8
from restore_cli.resample import resize_bicubic
from restore_cli.training.data import Photos, _cut, _cut_halved
from restore_cli.training.distributed import ProcessGroup
from restore_cli.training.loader import Loader
from restore_cli.training.mixture import open_source

CPU = torch.device("cpu")
ALL = Photos.targets


def loader_of(folder, recipe=None, scale=4, rank=0, size=1, **options):
    recipe, group = recipe or make_recipe(), ProcessGroup(CPU)
    group.rank, group.size = rank, size
    return Loader(open_source([folder], recipe, scale, 16), recipe.seed, group, **options)


def test_batches_are_functions_of_seed_and_number(photos):
    loader = loader_of(photos)
    first, second, again = (loader.batches(n, 2, 16, ALL)[0] for n in (10, 12, 10))
    assert torch.equal(first.degraded, again.degraded)
    assert not torch.equal(first.degraded, second.degraded)
    other = loader_of(photos, make_recipe(seed=2)).batches(10, 2, 16, ALL)[0]
    assert not torch.equal(first.degraded, other.degraded)
    assert first.degraded.shape == (2, 3, 16, 16)
    shapes = {name: target.shape[-1] for name, target in first.targets.items()}
    assert shapes == {
        "reference": 64,
        "reference_small": 16,
        "reference_half": 32,
        "reference_quarter": 16,
        "degraded_large": 64,
    }
    reference = first.targets["reference"]
    assert torch.equal(first.targets["reference_quarter"], reference[..., ::4, ::4])
    assert loader.batches(10, 2, 16, set())[0].targets.keys() == {"reference"}


def test_the_large_degraded_picture_is_the_small_one_before_it_shrank(photos):
    recipe = make_recipe(degradation="shake")  # no noise after the downscaling
    batch = loader_of(photos, recipe).batches(0, 2, 32, ALL)[0]
    large, small = batch.targets["degraded_large"], batch.degraded
    assert not torch.equal(large, batch.targets["reference"])
    # Shrinking happens in light, and after rounding here: close, not equal.
    shrunk = resize_bicubic(large, 32, 32)[..., 4:-4, 4:-4]
    assert (shrunk - small[..., 4:-4, 4:-4]).abs().mean() < 0.01


def test_processes_and_parts_share_a_batch(photos):
    whole = loader_of(photos).batches(4, 4, 16, ALL)[0]
    parts = [
        batch
        for rank in (0, 1)
        for batch in loader_of(photos, rank=rank, size=2, accumulate=2).batches(4, 4, 16, ALL)
    ]
    assert [len(part.degraded) for part in parts] == [1, 1, 1, 1]
    for name, target in whole.targets.items():
        assert torch.equal(target, torch.cat([part.targets[name] for part in parts]))
    with pytest.raises(
        UsageError, match="batch of 4 cannot be divided evenly among 1 processes x 3"
    ):
        loader_of(photos, accumulate=3).batches(0, 4, 16, ALL)


def test_every_picture_comes_once_before_any_comes_again(tmp_path):
    loader = loader_of(save_photos(tmp_path / "p", [(100, 100)] * 5))
    seen = []
    loader.source.crop = lambda index, rng, patch: seen.append(index)
    loader.source.batch = lambda crops, wanted, device: None
    for first in range(0, 15, 3):
        loader.batches(first, 3, 16, ALL)
    rounds = [seen[:5], seen[5:10], seen[10:]]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in rounds)
    assert rounds[0] != rounds[1]


def test_reading_ahead_changes_nothing(photos):
    plain, ahead = loader_of(photos), loader_of(photos)
    ahead._pool = ThreadPoolExecutor(3)  # as on a GPU
    for first in (0, 4, 8, 12):
        for later in (first + 4, first + 8):
            ahead.prefetch(later, 4, 16)
        one, other = (x.batches(first, 4, 16, ALL)[0] for x in (plain, ahead))
        assert torch.equal(one.degraded, other.degraded)
    assert ahead._ahead  # something was read that nobody asked for yet
    ahead.close()


def make_pairs(folder, ratio, count=2, side=80):
    for n in range(count):
        rng = np.random.default_rng(n)
        for kind, size in (("lr", side), ("hr", side * ratio)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            array = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(array).save(folder / kind / f"{n}.png")
    return folder


def test_pairs_of_the_models_scale_are_cut_at_the_same_place(tmp_path):
    folder = tmp_path / "pairs"
    gradient = np.linspace(0, 255, 80).astype(np.uint8)
    for kind, factor in (("lr", 1), ("hr", 4)):
        (folder / kind).mkdir(parents=True)
        line = np.repeat(gradient, factor)
        rows = np.repeat(line[:, None], 80 * factor, 1)
        Image.fromarray(np.stack([rows, rows.T, rows // 2], -1)).save(folder / kind / "0.png")
    batch = loader_of(folder).batches(0, 4, 16, {"reference_small"})[0]
    big = batch.degraded.repeat_interleave(4, -1).repeat_interleave(4, -2)
    assert torch.equal(big, batch.targets["reference"])


def test_pairs_of_one_size_are_shrunk(tmp_path):
    source = loader_of(make_pairs(tmp_path / "p", 1, side=128)).source
    assert source.facts["kind"] == "pairs"
    crop = source.crop(0, np.random.default_rng(0), 16)
    batch = source.batch([crop], ALL, CPU)
    assert batch.degraded.shape[-1] == 16
    small = resize_bicubic(batch.targets["degraded_large"], 16, 16).clamp(0, 1)
    assert torch.equal(batch.degraded, (small * 255).round() / 255)
    same = loader_of(make_pairs(tmp_path / "x1", 1), scale=1).batches(0, 2, 16, ALL)[0]
    assert same.degraded.shape == same.targets["reference"].shape


def test_data_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"is 80x80 and .* 160x160, but the model's scale is x4"):
        loader_of(make_pairs(tmp_path / "x2", 2))
    terms = [{"output": "restored", "target": "reference", "loss": "l1"}]
    terms += [{"output": "enlarged", "target": "degraded_large", "loss": "l1"}]
    wanting = make_recipe({"losses": terms})
    with pytest.raises(UsageError, match="degraded_large"):
        loader_of(make_pairs(tmp_path / "x4", 4), wanting)
    uneven = make_pairs(tmp_path / "uneven", 4, count=3)
    Image.new("RGB", (80, 80)).save(uneven / "hr/1.png")
    with pytest.raises(UsageError, match=r"lr/1.png' is as large as its sharp partner"):
        loader_of(uneven)
    Image.new("RGB", (70, 60)).save(uneven / "hr/1.png")
    with pytest.raises(
        UsageError, match=r"lr/1.png' is 80x80 and .* 70x60"
    ):  # before the first step
        loader_of(uneven)
    broken = make_pairs(tmp_path / "broken", 4)
    for side in ("lr", "hr"):  # the missing size of both must not count as one size
        (broken / side / "0.png").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be read as one picture"):
        loader_of(broken)
    tiny = make_pairs(tmp_path / "tiny", 4, side=12)
    with pytest.raises(NoInputError, match="no pair has sides of 16 px"):
        loader_of(tiny)
    large = make_pairs(tmp_path / "large", 4, count=3)
    for side in ("lr", "hr"):
        (tiny / side / "0.png").replace(large / side / "0.png")
    source = loader_of(large).source
    assert (len(source), source.notes) == (2, ("note: 1 pair smaller than 16 px left out",))


def test_bad_photos(tmp_path, photos):
    with pytest.raises(NoInputError, match="0 pictures found"):
        loader_of(tmp_path / "nothing")
    Image.new("RGB", (20, 20)).save(photos / "0.png")
    (photos / "1.png").write_text("not a picture")
    assert [path.name for path in loader_of(photos).source.paths] == ["2.png"]
    (photos / "2.png").unlink()
    with pytest.raises(NoInputError, match="has sides of 96 px"):
        loader_of(photos)


def test_animations_are_left_out(tmp_path, photos):
    one, other = (Image.open(photos / f"{n}.png") for n in range(2))
    for suffix in ("png", "gif", "webp", "tif"):
        one.save(photos / f"animated.{suffix}", save_all=True, append_images=[other])
        one.save(photos / f"still.{suffix}")
    source = loader_of(photos).source
    assert [path.stem for path in source.paths] == ["0", "1", "2", *["still"] * 4]
    assert "4 pictures" in source.notes[0]
    pairs = make_pairs(tmp_path / "pairs", 4)
    (photos / "animated.png").replace(pairs / "hr/0.png")
    with pytest.raises(UsageError, match=r"hr/0.png' cannot be read as one picture"):
        loader_of(pairs)


def test_pairs_are_not_taken_for_photos(tmp_path, photos):
    make_pairs(photos / "set", 4)
    with pytest.raises(UsageError, match=r"contains one, .* taken for sharp photos: '.*set/lr'"):
        loader_of(photos)


def test_facts_name_the_data(photos):
    facts = loader_of(photos).source.facts
    assert facts["count"] == 3
    before = facts["listing_sha256"]
    Image.fromarray(read_rgb8(photos / "0.png").permute(1, 2, 0).numpy()).save(photos / "9.png")
    assert loader_of(photos).source.facts["listing_sha256"] != before


def test_a_crop_of_a_halved_photo_is_that_of_the_whole_photo_halved():
    photo = torch.randint(0, 256, (3, 61, 74), dtype=torch.uint8)
    even = photo[:, :60].float()[None]
    whole = resize_bicubic(even, 30, 37).round().clamp(0, 255).byte()[0]
    for top, left in ((0, 0), (14, 21), (5, 9)):
        assert torch.equal(_cut_halved(photo, top, left, 16), _cut(whole, top, left, 16))
