"""Datasets: layouts, records, replay, resume, workers, sequences of frames."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import picture, refuse_to_write, rgb8
from PIL import Image

from restore_cli.cli.degrade import _with_kernels
from restore_cli.datasets.degrade_job import DegradeJob, plan_pairs
from restore_cli.datasets.records import Record
from restore_cli.datasets.synthesize import make_pairs, replay
from restore_cli.degradations.recipe import DegradationRecipe, load_degradation
from restore_cli.errors import PictureError, RestoreError, UsageError
from restore_cli.image import read_image
from restore_cli.processes import ProcessPool


def photo(path, height=96, width=128, seed=0):
    array = rgb8(picture(height, width, seed))
    Image.fromarray(array).save(path)
    return path


def frames_in(folder, count, height=96, width=128):
    folder.mkdir()
    wide = picture(height, width + 3 * count, 5)[0]
    for n in range(count):
        array = (wide[:, :, 3 * n : 3 * n + width].permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(array).save(folder / f"{n:03d}.png")
    return folder


def job(tmp_path, recipe="shake-mixed", inputs=None, **options):
    inputs = inputs or tuple(photo(tmp_path / f"{n}.png", seed=n) for n in range(4))
    options = {"output": tmp_path / "out", "seed": 7} | options
    return DegradeJob(tuple(inputs), recipe=load_degradation(recipe), **options)


def run(one, workers=1):
    plan_pairs(one)
    made = list(make_pairs(one, workers))
    assert all(m.error is None for m in made), [str(m.error) for m in made]
    return made


def tree(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_damaged_pictures_are_refused(tmp_path):
    Image.open(photo(tmp_path / "a.png")).save(tmp_path / "a.jpg", quality=90)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2] + data)
    one = job(tmp_path, inputs=[tmp_path / "a.jpg"])
    plan_pairs(one)
    (made,) = make_pairs(one, 1)
    assert "it is damaged" in str(made.error)


@pytest.mark.slow
def test_the_same_bytes_whatever_the_number_of_workers(tmp_path):
    one = job(tmp_path, "real")
    run(one)
    run(dataclasses.replace(one, output=tmp_path / "again"), workers=2)
    assert tree(tmp_path / "out") == tree(tmp_path / "again")
    other = dataclasses.replace(one, output=tmp_path / "other", seed=8)
    run(other)
    assert tree(tmp_path / "other")["lr/0.png"] != tree(tmp_path / "out")["lr/0.png"]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["real", "lai-uniform", "gfn"])
def test_a_record_makes_the_picture_again(tmp_path, recipe):
    inputs = [photo(tmp_path / "a.png", 600, 640, seed=3)]
    run(job(tmp_path, recipe, inputs))
    records = sorted((tmp_path / "out" / "records").rglob("*.json"))
    assert records
    suffix = ".npy" if recipe == "gfn" else ".png"
    for record in records[:3]:
        replay(record, tmp_path / f"again{suffix}")
        original = tmp_path / "out" / "lr" / f"{record.stem}{suffix}"
        assert (tmp_path / f"again{suffix}").read_bytes() == original.read_bytes()
        (tmp_path / f"again{suffix}").unlink()
    moved = (tmp_path / "a.png").rename(tmp_path / "moved.png")
    with pytest.raises(PictureError):
        replay(records[0], tmp_path / f"again{suffix}")
    replay(records[0], tmp_path / f"again{suffix}", moved)
    photo(tmp_path / "other.png", seed=9)
    with pytest.raises(PictureError, match="not the source that"):
        replay(records[0], tmp_path / f"more{suffix}", tmp_path / "other.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ("{}", "it lacks 'recipe'"),
        ('{"recipe": {}}', "it lacks 'steps'"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_broken_records(tmp_path, content, reason):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(UsageError, match=f"not a record of a pair: .*{reason}"):
        replay(tmp_path / "r.json", tmp_path / "o.png")


@pytest.mark.parametrize(("key", "value"), [("steps", {}), ("size", "x")])
def test_records_with_wrong_values(tmp_path, key, value):
    run(job(tmp_path, "shake"))
    path = tmp_path / "out/records/lr/0.json"
    record = json.loads(path.read_text())
    changed = [one | {"drawn": value} for one in record["steps"]] if key == "steps" else value
    path.write_text(json.dumps(record | {key: changed}))
    with pytest.raises(UsageError, match=r"'.*0.json' (has values that|is not a record)"):
        replay(path, tmp_path / "o.png")


def test_inputs_and_other_files_are_never_overwritten(tmp_path):
    (tmp_path / "hr").mkdir()
    source = photo(tmp_path / "hr" / "0.png")
    for resume in (False, True):
        with pytest.raises(UsageError, match="hr' is for pairs, but contains inputs"):
            plan_pairs(job(tmp_path, inputs=[source], output=tmp_path, resume=resume))
    with pytest.raises(UsageError, match="hr' is for pairs, but is not empty"):
        plan_pairs(job(tmp_path, inputs=[photo(tmp_path / "0.png")], output=tmp_path))


def test_resuming_where_no_run_began_overwrites_nothing(tmp_path):
    one = job(tmp_path, resume=True)
    (tmp_path / "out/hr").mkdir(parents=True)
    (tmp_path / "out/hr/0.png").write_bytes(b"precious")
    with pytest.raises(UsageError, match="is not empty"):
        plan_pairs(one)
    (tmp_path / "out/records").mkdir()  # a run was killed during its first pair
    with pytest.raises(UsageError, match="is not empty"):
        plan_pairs(dataclasses.replace(one, resume=False))
    run(one)
    assert (tmp_path / "out/hr/0.png").read_bytes() != b"precious"
    with pytest.raises(UsageError, match="records' exists"):
        plan_pairs(dataclasses.replace(one, resume=False))


def test_videos_and_pictures_do_not_get_the_same_numbers(tmp_path):
    inputs = (frames_in(tmp_path / "video", 12), photo(tmp_path / "one.png"))
    with pytest.raises(UsageError, match="numbers the frames of"):
        plan_pairs(job(tmp_path, "gopro", inputs, layout="reds"))
    plan_pairs(job(tmp_path, "gopro", inputs))


@pytest.mark.parametrize("changed", [{"layout": "reds"}, {"resume": True}])
def test_one_file_has_no_layout_and_is_not_resumed(tmp_path, changed):
    one = job(tmp_path, inputs=[photo(tmp_path / "a.png")], output=tmp_path / "b.png", **changed)
    with pytest.raises(UsageError, match="is one file"):
        plan_pairs(one)


def test_a_kernel_whose_name_is_not_utf8_is_found_again(tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/k\xff.npy")
    np.save(name, np.eye(3) / 3)
    recipe = load_degradation("shake").at_scale(1)
    steps = [{"kind": "kernel", "files": [name]}]
    recipe = DegradationRecipe.model_validate(recipe.model_dump() | {"steps": steps})
    one = dataclasses.replace(job(tmp_path, inputs=[photo(tmp_path / "a.png")]), recipe=recipe)
    run(one)
    assert run(dataclasses.replace(one, resume=True))[0].skipped == 1
    (record,) = (tmp_path / "out/records").rglob("*.json")
    replay(record, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "out/lr/a.png").read_bytes()


def test_a_kernel_that_changed_is_another_kernel(tmp_path):
    kernel = tmp_path / "k.npy"
    np.save(kernel, np.eye(3) / 3)
    recipe = load_degradation("shake").at_scale(1)
    steps = [{"kind": "kernel", "files": [str(kernel)]}]
    recipe = DegradationRecipe.model_validate(recipe.model_dump() | {"steps": steps})
    one = dataclasses.replace(job(tmp_path, inputs=[photo(tmp_path / "a.png")]), recipe=recipe)
    run(one)
    np.save(kernel, np.eye(5) / 5)
    (made,) = make_pairs(dataclasses.replace(one, resume=True))
    assert "was made with another kernel" in str(made.error)


def test_kernels_take_the_place_of_those_of_the_recipe(tmp_path):
    np.save(tmp_path / "k.npy", np.eye(3) / 3)
    for name in ("lai-uniform", "shake", "shrunk"):
        steps = _with_kernels(load_degradation(name), [str(tmp_path / "k.npy")]).steps
        assert sum(step.kind in ("motion", "random_kernel", "kernel") for step in steps) == 1


@pytest.mark.slow
def test_folders_of_frames_keep_their_names(tmp_path, monkeypatch):
    folders = [frames_in(tmp_path / f"clip.0{n}", 15) for n in (1, 2)]
    run(job(tmp_path, "reds", folders))
    assert {path.name for path in (tmp_path / "out/hr").iterdir()} == {"clip.01", "clip.02"}
    links = [tmp_path / name for name in ("one", "two")]
    for link in links:
        link.symlink_to(folders[0])
    run(job(tmp_path, "reds", links, output=tmp_path / "linked"))
    assert {path.name for path in (tmp_path / "linked/hr").iterdir()} == {"one", "two"}
    (folders[0] / "inside").mkdir()
    monkeypatch.chdir(folders[0] / "inside")
    run(job(tmp_path, "reds", [Path("..")], output=tmp_path / "again"))
    assert {path.name for path in (tmp_path / "again/hr").iterdir()} == {"clip.01"}


def test_transparent_frames_are_refused(tmp_path):
    folder = frames_in(tmp_path / "clip", 15)
    with Image.open(folder / "003.png") as image:
        image.putalpha(100)
        image.save(folder / "003.png")
    (made,) = make_pairs(job(tmp_path, "reds", [folder]))
    assert "003.png' has transparency" in str(made.error)


def test_a_picture_without_patches_is_an_error(tmp_path):
    inputs = [photo(tmp_path / "a.png"), frames_in(tmp_path / "frames", 20)]
    for made in make_pairs(job(tmp_path, "gfn", inputs)):
        assert "gives no patch of 256 px" in str(made.error)


def test_resuming_makes_only_what_is_missing(tmp_path):
    one = job(tmp_path)
    run(one)
    before = tree(tmp_path / "out")
    # Killed between the pair and its record: the pair is made again.
    (tmp_path / "out" / "records" / "lr" / "2.json").unlink()
    (tmp_path / "out" / "lr" / "3.png").unlink()
    (tmp_path / "out" / "records" / "lr" / "3.json").unlink()
    with pytest.raises(UsageError, match="records' exists"):
        plan_pairs(one)
    (tmp_path / "out" / "hr" / "1.png").unlink()  # by somebody; its record is still there
    made = run(dataclasses.replace(one, resume=True))
    assert [m.skipped for m in made] == [1, 0, 0, 0]
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("layout", ["plain", "reds"])
def test_resuming_does_not_mix_sets(tmp_path, layout):
    one = dataclasses.replace(job(tmp_path, layout=layout), resume=True)
    run(one)
    before = tree(tmp_path / "out")

    def errors(**changed):
        other = dataclasses.replace(one, **changed)
        return {str(made.error) for made in make_pairs(other) if made.error}

    assert any("made with another seed" in error for error in errors(seed=8))
    assert any(
        "made with another recipe" in error for error in errors(recipe=load_degradation("shake"))
    )
    photo(one.inputs[0], seed=9)
    assert any("made with another picture" in error for error in errors())
    photo(one.inputs[0], seed=0)
    added = (photo(tmp_path / "00.png", seed=11), *one.inputs)
    found = errors(inputs=added)
    # Named after themselves, pictures can be added; numbered ones would move.
    assert bool(found) == (layout == "reds")
    after = tree(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert not errors()
    record = next((tmp_path / "out/records").rglob("*.json"))
    record.write_text("{}")
    assert any("not a record" in error for error in errors())


def test_32_bits_need_a_name_that_says_so(tmp_path):
    source = photo(tmp_path / "a.png", 600, 640)
    recipe = load_degradation("shake").model_copy(update={"bits": 32})
    one = DegradeJob((source,), tmp_path / "o.png", recipe, seed=7)
    with pytest.raises(UsageError, match=r"cannot write .*o\.png"):
        plan_pairs(one)
    one = dataclasses.replace(one, output=tmp_path / "o.npy")
    (made,) = run(one)
    assert made.written == (tmp_path / "o.npy",)
    assert np.load(tmp_path / "o.npy").dtype == np.float32
    with pytest.raises(UsageError, match="exists"):
        plan_pairs(one)
    run(job(tmp_path, "shake", [source]))
    record = tmp_path / "out/records/lr/a.json"
    with pytest.raises(UsageError, match=r"cannot write .*again"):
        replay(record, tmp_path / "again")


def test_layouts(tmp_path):
    sequences = [frames_in(tmp_path / "f0", 14), frames_in(tmp_path / "f1", 14)]
    run(job(tmp_path, "reds", sequences, layout="reds", split="val"))
    names = sorted(tree(tmp_path / "out"))
    assert [n for n in names if n.endswith(".png")] == [
        f"val/val_{kind}/{sequence:03d}/{frame:08d}.png"
        for kind in ("blur_bicubic/X4", "sharp")
        for sequence in (0, 1)
        for frame in (0, 1)
    ]
    assert "records/val/val_blur_bicubic/X4/001/00000001.json" in names
    blurry = tmp_path / "out/val/val_blur_bicubic/X4/000/00000001.png"
    assert read_image(blurry).pixels.shape[-2:] == (24, 32)
    for recipe, folder in (("gopro", "blur"), ("gopro-gamma", "blur_gamma")):
        out = tmp_path / recipe
        run(job(tmp_path, recipe, [sequences[0]], layout="gopro", output=out))
        assert {p.parent.name for p in out.rglob("*.png")} == {folder, "sharp"}
        assert (out / "train/GOPR0000_00_00/sharp/000001.png").is_file()
    stills = tmp_path / "stills"
    run(job(tmp_path, layout="reds", output=stills))
    assert (stills / "train/train_blur_bicubic/X4/000/00000003.png").is_file()


def test_frames_are_averaged_around_their_middle_frame(tmp_path):
    folder = frames_in(tmp_path / "f", 30)
    run(job(tmp_path, "gopro", [folder]))
    records = sorted((tmp_path / "out/records/lr/f").glob("*.json"))
    spans = [json.loads(record.read_text())["frames"] for record in records]
    assert all(7 <= stop - start <= 13 and (stop - start) % 2 for start, stop in spans)
    assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]
    start, stop = spans[0]
    frames = [read_image(folder / f"{n:03d}.png").pixels for n in range(start, stop)]
    sharp = read_image(tmp_path / "out/hr/f/00000000.png").pixels
    assert torch.equal(sharp, frames[len(frames) // 2])
    blurry = read_image(tmp_path / "out/lr/f/00000000.png").pixels
    assert (blurry - torch.stack(frames).mean(0)).abs().max() <= 0.5 / 255 + 1e-5
    replay(records[1], tmp_path / "again.png")
    again = (tmp_path / "again.png").read_bytes()
    assert again == (tmp_path / "out/lr/f/00000001.png").read_bytes()


def test_frames_that_changed_are_other_frames(tmp_path):
    folder = frames_in(tmp_path / "f", 20)
    one = dataclasses.replace(job(tmp_path, "gopro", [folder]), resume=True)
    run(one)
    assert all(made.skipped for made in make_pairs(one))
    record = tmp_path / "out/records/lr/f/00000000.json"
    (folder / "019.png").rename(folder / "020.png")
    (made,) = make_pairs(one)
    assert "made with another picture" in str(made.error)
    with pytest.raises(PictureError, match="not the source that"):
        replay(record, tmp_path / "o.png")
    (folder / "020.png").rename(folder / "019.png")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"frames": [16, 21]}))
    with pytest.raises(PictureError, match="fewer frames than"):
        replay(record, tmp_path / "o.png")


def test_names_of_splits_are_those_that_are_found_again(tmp_path):
    for split in ("my-val", "../x", ""):
        with pytest.raises(UsageError, match="is not a name"):
            plan_pairs(job(tmp_path, layout="reds", split=split))
    with pytest.raises(UsageError, match="layout 'plain' has no splits"):
        plan_pairs(job(tmp_path, split="val"))


def test_a_process_that_the_system_ends_is_no_traceback(tmp_path, monkeypatch):
    def ended(*_):
        future = Future()
        future.set_exception(BrokenProcessPool("ended"))
        return future

    monkeypatch.setattr(ProcessPool, "submit", ended)
    with pytest.raises(RestoreError, match="the system ended a process"):
        list(make_pairs(job(tmp_path), workers=2))


def test_frames_that_cannot_be_averaged(tmp_path):
    short = frames_in(tmp_path / "short", 4)
    (made,) = make_pairs(job(tmp_path, "gopro", [short]))
    assert "has 4 frames" in str(made.error)
    with pytest.raises(UsageError, match="does not say how to average"):
        plan_pairs(job(tmp_path, "shake", [short]))


def test_gfn_cuts_patches_at_three_sizes_and_shrinks_each_alone(tmp_path):
    flat = Image.new("RGB", (512, 300), (90, 90, 90))
    textured = Image.fromarray(rgb8(picture(300, 512, 2)))
    flat.paste(textured.crop((0, 0, 256, 300)), (0, 0))
    flat.save(tmp_path / "half.png")
    run(job(tmp_path, "gfn", [tmp_path / "half.png"]))
    names = sorted(p.stem for p in (tmp_path / "out" / "lr").iterdir())
    # At 1 and stride 128: columns 0, 128 and 256; the last is flat. At 0.7 it is 210 px high.
    assert names == ["half_1_0_0", "half_1_0_128"]
    small = np.load(tmp_path / "out/lr/half_1_0_0.npy")
    assert small.shape == (64, 64, 3)
    assert small.dtype == np.float32
    assert np.abs(small * 255 - np.round(small * 255)).max() > 0.1
    assert read_image(tmp_path / "out/hr/half_1_0_0.png").pixels.shape[-2:] == (256, 256)


def test_a_bad_picture_does_not_stop_the_others(tmp_path):
    good = photo(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:200])
    small = photo(tmp_path / "small.png", 20, 20)
    made = list(make_pairs(job(tmp_path, inputs=[tmp_path / "bad.png", small, good])))
    assert [m.error is None for m in made] == [False, False, True]
    assert "too small to shrink" in str(made[1].error)
    assert sorted(tree(tmp_path / "out")) == ["hr/good.png", "lr/good.png", "records/lr/good.json"]


def test_bits_that_the_pairs_do_not_have_are_announced(tmp_path):
    deep = (picture(96, 128)[0].permute(1, 2, 0) * 65535).round().numpy().astype("uint16")
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    made = run(job(tmp_path, inputs=[tmp_path / "deep.png", photo(tmp_path / "usual.png")]))
    assert [one.notes for one in made] == [("its 16 bits per channel were reduced to 8",), ()]


def test_a_failure_leaves_no_half_of_a_pair(tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Record, "write", full)
    with pytest.raises(OSError, match="No space left"):
        list(make_pairs(job(tmp_path, inputs=[photo(tmp_path / "a.png")])))
    assert not tree(tmp_path / "out")


@pytest.mark.parametrize(("number", "goes_on"), [(errno.ENOSPC, False), (errno.EFBIG, True)])
def test_a_full_disk_ends_the_run(tmp_path, monkeypatch, number, goes_on):
    """Not a limit on the size of one file: the next may be smaller."""
    inputs = [photo(tmp_path / f"{n}.png") for n in range(4)]

    refuse_to_write(monkeypatch, "1.png", OSError(number, "no"))
    made = []
    with nullcontext() if goes_on else pytest.raises(PictureError, match=r"cannot write .*1\.png"):
        for one in make_pairs(job(tmp_path, inputs=inputs)):
            made.append(one.error is None)
    assert made == ([True, False, True, True] if goes_on else [True])
