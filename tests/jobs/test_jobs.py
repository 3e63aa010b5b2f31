"""Planning refuses early; running does the rest of the batch when one picture fails."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from asking import planned, request, spec
from PIL import Image

from restore_cli.errors import NoInputError, UsageError
from restore_cli.files import remove_leftovers, write_then_rename
from restore_cli.image import decode, read_image
from restore_cli.inference.restorer import Restorer
from restore_cli.jobs import restoration
from restore_cli.jobs.plan import Item, plan
from restore_cli.jobs.restoration import Restoration, Task
from restore_cli.jobs.run import restore_all
from restore_cli.rounding import to_float


def make(path: Path, size=(12, 9), mode="RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name))
    shape = (size[1], size[0]) + (() if mode == "L" else (len(mode),))
    Image.fromarray(rng.integers(1, 256, shape, np.uint8)).save(path)
    return path


def test_names_beside_the_input_and_in_a_folder(tmp_path):
    source = make(tmp_path / "ä photo.jpg")
    assert planned(source) == [Item(source, tmp_path / "ä photo_x4.jpg")]
    assert planned(source, output=tmp_path / "out") == [
        Item(source, tmp_path / "out" / "ä photo_x4.jpg")
    ]
    assert planned(source, output=tmp_path / "b.png") == [Item(source, tmp_path / "b.png")]
    assert planned(source, format="webp")[0].target.name == "ä photo_x4.webp"


def test_a_folder_gives_its_pictures_in_order(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt"):
        (tmp_path / name).touch()
    items = planned(tmp_path, output=tmp_path / "out")
    assert [item.source.name for item in items] == ["a.JPG", "b.png"]


def test_nothing_to_do_is_an_error(tmp_path):
    with pytest.raises(NoInputError, match="no such file or folder"):
        planned(tmp_path / "missing.png")
    with pytest.raises(NoInputError, match="no pictures"):
        planned(tmp_path)


def test_collisions_are_found_before_anything_runs(tmp_path):
    first, second = make(tmp_path / "a/x.png"), make(tmp_path / "b/x.png")
    with pytest.raises(UsageError, match="would both be written to"):
        planned(first, second, output=tmp_path / "out")
    with pytest.raises(UsageError, match="is one file, but there are 2 inputs"):
        planned(first, second, output=tmp_path / "out.png")
    same = tmp_path / "a" / ".." / "a" / "x.png"
    assert planned(first, first, same, output=tmp_path / "o.png")[0].source == first
    assert len(planned(first, same, output=tmp_path / "o.png")) == 1


def test_one_place_by_two_names_is_one_output(tmp_path):
    for name in ("d1", "d2"):
        make(tmp_path / name / "a.png")
    files = (tmp_path / "d1/a.png", tmp_path / "d2/a.png")
    with pytest.raises(UsageError, match="would both be written to"):
        planned(*files, output=Path("{dir}/../both/{name}.png"))


def test_a_loop_of_links_does_not_stop_the_others(tmp_path, pipeline):
    (tmp_path / "loop.png").symlink_to("loop.png")
    make(tmp_path / "b.png")
    outcomes = outcomes_of(request(tmp_path / "loop.png", tmp_path / "b.png"), pipeline)
    assert [outcome.status for outcome in outcomes] == ["failed", "restored"]


@pytest.mark.parametrize("name", ["{scale:02d}_{name}.png", "{dir:s}/{name}.png"])
def test_formats_of_fields_are_those_of_their_values(tmp_path, name):
    make(tmp_path / "a.png")
    (item,) = planned(tmp_path / "a.png", output=tmp_path / name)
    assert item.target.name in ("04_a.png", "a.png")


@pytest.mark.parametrize("name", ["{x}", "{name}"])
def test_a_folder_with_braces_is_no_template(tmp_path, name):
    make(tmp_path / "a.png")
    (tmp_path / name).mkdir()
    (item,) = planned(tmp_path / "a.png", output=tmp_path / name)
    assert item.target.parent == tmp_path / name


@pytest.mark.skipif(os.name != "posix", reason="asks for processes")
def test_what_another_run_is_writing_stays(tmp_path):
    target = tmp_path / "a_x4.png"
    names = {}
    for who, process in (("ended", 2**22 + 1), ("running", os.getppid())):
        with suppress(KeyError), write_then_rename(target) as temporary:
            raise KeyError
        names[who] = tmp_path / temporary.name.replace(f"-{os.getpid()}-", f"-{process}-")
        names[who].touch()
    remove_leftovers([target])
    assert [who for who, path in names.items() if path.exists()] == ["running"]


def test_results_of_an_earlier_run_are_not_inputs(tmp_path):
    make(tmp_path / "in/a.png")
    make(tmp_path / "in/a_x4.png")
    items = planned(tmp_path / "in", on_exists="skip")
    assert [(item.source.name, item.skip) for item in items] == [("a.png", True)]


def test_an_output_is_never_an_input(tmp_path):
    first, second = make(tmp_path / "a.png"), make(tmp_path / "a_x4.png")
    with pytest.raises(UsageError, match="is one of the inputs"):
        planned(first, second, on_exists="overwrite")
    with pytest.raises(UsageError, match="is one of the inputs"):
        planned(first, output=first, on_exists="overwrite")


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("b.png", {"format": "jpeg"}, "suffix of --format jpeg"),
        ("c.psd", {}, "cannot write"),
        ("c.gif", {}, "cannot write"),
        ("{name}.png", {"format": "jpeg"}, "suffix of --format jpeg"),
    ],
)
def test_names_that_would_lie_are_refused(tmp_path, output, options, message):
    source = make(tmp_path / "a.png")
    with pytest.raises(UsageError, match=message):
        planned(source, output=Path(output), **options)


def test_a_name_that_is_too_long_is_an_error_not_a_crash(tmp_path):
    source = make(tmp_path / ("a" * 250 + ".png"))
    with pytest.raises(UsageError, match="is longer than"):
        planned(source)
    assert planned(make(tmp_path / "odd.bmp.jpg").rename(tmp_path / "odd.bmp"))[0].target == (
        tmp_path / "odd_x4.png"
    )


def test_existing_outputs_follow_the_policy(tmp_path):
    source = make(tmp_path / "a.png")
    make(tmp_path / "a_x4.png")
    with pytest.raises(UsageError, match="exists"):
        planned(source)
    assert planned(source, on_exists="skip")[0].skip
    assert not planned(source, on_exists="overwrite")[0].skip
    with pytest.raises(UsageError, match="policy 'maybe' not found"):
        planned(source, on_exists="maybe")
    with pytest.raises(UsageError, match="format 'gif' not found"):
        planned(source, format="gif")


def test_outputs_that_exist_need_no_further_space(tmp_path, monkeypatch):
    needed = []
    monkeypatch.setattr(
        "restore_cli.jobs.plan.check_free_space", lambda _, size: needed.append(size)
    )
    source, target = make(tmp_path / "a.png"), tmp_path / "a_x4.png"
    planned(source, resume=True)
    target.write_bytes(bytes(1 << 20))
    planned(source, resume=True)
    assert needed[0] > needed[1] == 0


def test_a_file_in_the_way_of_the_output_folder(tmp_path):
    source, blocker = make(tmp_path / "a.png"), tmp_path / "file"
    blocker.touch()
    with pytest.raises(UsageError, match="cannot write into"):
        planned(source, output=blocker / "out")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_folders(tmp_path):
    source, locked = make(tmp_path / "a.png"), tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(UsageError, match="cannot write into"):
        planned(source, output=locked)


@pytest.fixture
def pipeline(tiny_weights):
    return spec("mprnet-mscam", tiny_weights).load()


def outcomes_of(asked, pipeline, **options):
    work = Restoration(asked, pipeline)
    return list(restore_all(work, plan(asked, pipeline.spec), **options))


def test_one_bad_picture_does_not_stop_the_others(tmp_path, pipeline):
    make(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_text("not a picture")
    make(tmp_path / "in/c.png")
    outcomes = outcomes_of(request(tmp_path / "in", output=tmp_path / "out"), pipeline)
    assert [outcome.status for outcome in outcomes] == ["restored", "failed", "restored"]
    assert "b.png" in str(outcomes[1].error)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_x4.png", "c_x4.png"]


def test_no_kind_of_broken_header_stops_the_others(tmp_path, pipeline, monkeypatch):
    for name in ("a", "b"):
        make(tmp_path / f"in/{name}.png")

    def strict(data, name, **options):
        if name.endswith("a.png"):
            raise struct.error("unpack requires a buffer of 8 bytes")
        return decode(data, name, **options)

    monkeypatch.setattr(restoration, "decode", strict)
    outcomes = outcomes_of(request(tmp_path / "in", output=tmp_path / "out"), pipeline)
    assert [outcome.status for outcome in outcomes] == ["failed", "restored"]
    assert "a.png': unpack requires a buffer" in str(outcomes[0].error)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_mode_is_kept_and_the_size_is_the_scale(tmp_path, pipeline, mode):
    source = make(tmp_path / "a.png", mode=mode)
    (outcome,) = outcomes_of(request(source), pipeline)
    with Image.open(outcome.item.target) as image:
        assert image.mode == mode
        assert image.size == (48, 36)


@pytest.mark.parametrize("scale", [1, 2, 3, 6])
def test_other_scales_are_resampled(tmp_path, pipeline, scale):
    source = make(tmp_path / "a.png")
    (outcome,) = outcomes_of(request(source), pipeline.to_scale(scale))
    assert read_image(outcome.item.target).pixels.shape[-2:] == (9 * scale, 12 * scale)


def test_transparency_into_jpeg_is_refused_before_restoring(tmp_path, pipeline):
    source = make(tmp_path / "a.png", mode="RGBA")
    (outcome,) = outcomes_of(request(source, format="jpeg"), pipeline)
    assert outcome.status == "failed"
    assert "transparency" in str(outcome.error)


def test_what_a_format_cannot_hold_is_refused_before_restoring(tmp_path, pipeline, monkeypatch):
    source = make(tmp_path / "a.webp", size=(4200, 2))
    monkeypatch.setattr(Restorer, "__call__", lambda *a: pytest.fail("restored"))
    (outcome,) = outcomes_of(request(source), pipeline)
    assert "larger than webp can hold" in str(outcome.error)


def test_a_picture_too_large_for_memory_does_not_stop_the_others(tmp_path, pipeline, monkeypatch):
    make(tmp_path / "in/a.png", size=(40, 40))
    make(tmp_path / "in/b.png", size=(12, 9))

    def starved(self, image, report, depth):
        if image.shape[-1] > 20:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return torch.zeros(1, 3, 4 * image.shape[-2], 4 * image.shape[-1], dtype=torch.uint8)

    monkeypatch.setattr(Restorer, "__call__", starved)
    outcomes = outcomes_of(request(tmp_path / "in", output=tmp_path / "out"), pipeline)
    assert [outcome.status for outcome in outcomes] == ["failed", "restored"]
    assert outcomes[0].error.exit_code == 5


def test_skipped_pictures_are_not_touched(tmp_path, pipeline):
    source = make(tmp_path / "a.png")
    target = tmp_path / "a_x4.png"
    target.write_bytes(b"mine")
    (outcome,) = outcomes_of(request(source, on_exists="skip"), pipeline)
    assert outcome.status == "skipped"
    assert target.read_bytes() == b"mine"


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_input_is_held_in_whole_numbers(tmp_path, mode):
    source = make(tmp_path / "a.png", mode=mode)
    work = Restoration(request(source), spec("bicubic").load())
    pixels = work.load(Task(Item(source, source), source.read_bytes(), "", "")).pixels
    assert pixels.dtype == torch.uint8
    assert torch.equal(to_float(pixels), read_image(source).pixels)
