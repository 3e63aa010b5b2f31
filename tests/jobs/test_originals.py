"""Originals are never overwritten, and results of earlier runs are never inputs."""

from __future__ import annotations

import errno
import os
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from asking import CPU, planned, request
from conftest import refuse_to_write, restore
from PIL import Image

from restore_cli.errors import PictureError, UsageError
from restore_cli.files import link, write_then_rename
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.jobs import run as jobs_run
from restore_cli.jobs.plan import plan
from restore_cli.jobs.restoration import Restoration
from restore_cli.jobs.run import restore_all
from restore_cli.jobs.session import run

av = pytest.importorskip("av")
BICUBIC = ("--model", "bicubic", "-x2")


def make(path, value=0, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 90, 30)).save(path)
    return path


@pytest.fixture
def bicubic():
    return PipelineSpec.parse("bicubic", None, 2, CPU).load()


def restored(*arguments):
    """Status and messages of `restore image`."""
    done = restore("image", *arguments)
    return done.exit_code, done.stderr


@pytest.mark.parametrize("policy", ["overwrite", "skip", "error"])
def test_an_original_with_the_name_of_an_output_is_refused(tmp_path, policy):
    for name in ("a.png", "a.jpg"):
        make(tmp_path / "in" / name)
    with pytest.raises(UsageError, match=r"is one of the inputs|both be written"):
        planned(
            tmp_path / "in", output=tmp_path / "in/{name}.{ext}", format="png", on_exists=policy
        )


def test_every_result_in_the_folder_of_its_input_is_left_out(tmp_path):
    source = make(tmp_path / "in/a.png")
    assert restored(tmp_path / "in", *BICUBIC, "-q")[0] == 0
    for options in (("-x3",), ("-x2", "--on-exists", "rename"), ("-x3", "-f", "jpeg")):
        status, said = restored(tmp_path / "in", "--model", "bicubic", *options)
        assert status == 0, said
        assert "that are results of earlier runs" in said
    made = sorted(path.name for path in (tmp_path / "in").iterdir())
    assert made == ["a.png", "a_x2-1.png", "a_x2.png", "a_x3.jpg", "a_x3.png"]
    assert [item.source for item in planned(tmp_path / "in")] == [source]
    source.unlink()  # then the results are meant
    assert len(planned(tmp_path / "in")) == 4


def test_a_result_by_its_own_name_beside_the_inputs(tmp_path):
    make(tmp_path / "in/a.png")
    for _ in range(2):
        status, said = restored(
            tmp_path / "in", *BICUBIC, "-o", tmp_path / "in/out.png", "--resume"
        )
        assert status == 0, said
    make(tmp_path / "in/b.png")
    status, said = restored(tmp_path / "in", *BICUBIC, "-o", tmp_path / "in/out.png")
    assert (status, "is one file, but there are 2 inputs" in said) == (2, True)


def test_results_of_other_options_in_an_output_folder_among_the_inputs(tmp_path):
    for place in ("in/a.png", "in/b/c.png"):
        make(tmp_path / place)
    for scale in ("-x2", "-x3"):
        options = ("-r", "--model", "bicubic", scale, "-o", tmp_path / "in/out")
        assert restored(tmp_path / "in", *options)[0] == 0
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("in/out/**/*.*"))
    assert made == [f"in/out/{name}_x{n}.png" for name in ("a", "b/c") for n in (2, 3)]


def test_names_that_are_taken(tmp_path):
    source = make(tmp_path / "in/a.png")
    (tmp_path / "out/a_x4.png").mkdir(parents=True)
    for policy in ("skip", "overwrite", "rename", "error"):
        with pytest.raises(UsageError, match=r"a_x4.png' is a folder"):
            planned(source, output=tmp_path / "out", on_exists=policy)
    (tmp_path / "links").mkdir()
    (tmp_path / "links/a_x4.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(UsageError, match="exists"):
        planned(source, output=tmp_path / "links")
    (item,) = planned(source, output=tmp_path / "links", on_exists="rename")
    assert item.target.name == "a_x4-1.png"


def refused(*_):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_name_that_was_taken_meanwhile(tmp_path, bicubic, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", refused)
    source, target = make(tmp_path / "a.png"), tmp_path / "out/a_x2.png"
    found = {}
    for policy in ("rename", "error", "skip", "overwrite"):
        asked = request(source, output=tmp_path / "out", on_exists=policy)
        items = plan(asked, bicubic.spec)
        make(target).write_bytes(b"of another process")
        (found[policy],) = restore_all(Restoration(asked, bicubic), items)
        assert (target.read_bytes() == b"of another process") == (policy != "overwrite")
        target.unlink()
    assert found["rename"].item.target.name == "a_x2-1.png"
    assert found["skip"].status == "skipped"
    assert isinstance(found["error"].error, PictureError)
    assert "File exists" in str(found["error"].error)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a_x2-1.png"}


def test_the_name_of_a_video_that_was_taken_meanwhile(tmp_path, bicubic):
    source, target = tmp_path / "a.mkv", tmp_path / "out/a_x2.mkv"
    with av.open(str(source), "w") as writer:
        image = writer.add_stream("libx264", rate=10)
        image.width, image.height, image.pix_fmt = 32, 24, "yuv420p"
        writer.mux(image.encode(av.VideoFrame.from_ndarray(np.zeros((24, 32, 3), np.uint8))))
        writer.mux(image.encode())
    for policy, status in {"rename": "restored", "skip": "skipped", "error": "failed"}.items():
        asked = request(source, output=tmp_path / "out", on_exists=policy)
        items = plan(asked, bicubic.spec)
        make(target.with_suffix(".png")).rename(target)
        taken = target.read_bytes()
        (outcome,) = restore_all(Restoration(asked, bicubic), items)
        assert (outcome.status, target.read_bytes() == taken) == (status, True)
        target.unlink()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_x2-1.mkv"]


def test_a_folder_that_became_a_file_is_an_error(tmp_path, bicubic):
    asked = request(make(tmp_path / "a.png"), output=tmp_path / "out", on_exists="rename")
    items = plan(asked, bicubic.spec)
    (tmp_path / "out").write_text("")
    (outcome,) = restore_all(Restoration(asked, bicubic), items)
    assert outcome.status == "failed"


def test_names_of_other_sizes_and_of_originals(tmp_path):
    make(tmp_path / "in/a.png")
    for size in ("1.5x", "40x40"):
        done = restored(tmp_path / "in", "--model", "bicubic", "--size", size)
        assert done[0] == 0, done[1]
    assert len(list((tmp_path / "in").iterdir())) == 3
    own = make(tmp_path / "in/wall_1920x1080.png")  # nobody's result: there is no wall.png
    make(tmp_path / "in/b.png")
    other = make(tmp_path / "in/b_x3.png")  # an original that is called like a result
    sources = [item.source for item in planned(tmp_path / "in", output=tmp_path / "out")]
    assert {own, other} <= set(sources)
    assert len(sources) == 4


def test_a_fresh_file_is_one_of_its_own(tmp_path):
    (tmp_path / "a").write_text("other")
    with pytest.raises(FileExistsError), write_then_rename(tmp_path / "a", link):
        pass
    assert (tmp_path / "a").read_text() == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_cut_result_is_made_again(tmp_path):
    source, target = tmp_path / "a.png", tmp_path / "out/a_x2.png"
    Image.effect_noise((60, 40), 60).save(source)
    options = (*BICUBIC, "-o", tmp_path / "out", "--resume")
    assert restored(source, *options)[0] == 0
    whole = target.read_bytes()
    assert "already there" in restored(source, *options)[1]
    target.write_bytes(whole[: len(whole) // 2])
    assert "already there" not in restored(source, *options)[1]
    assert target.read_bytes()[-8:] == whole[-8:]


@pytest.mark.skipif(os.name != "posix", reason="asks for processes")
@pytest.mark.parametrize("options", [{"resume": True}, {"on_exists": "skip"}])
def test_what_a_killed_run_was_writing_is_removed(tmp_path, bicubic, options):
    make(tmp_path / "in/a.png")
    with suppress(KeyError), write_then_rename(tmp_path / "out/a_x2.png") as temporary:
        raise KeyError
    process = f"-{2**22 + 1}-"
    temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", process)).touch()
    asked = request(tmp_path / "in", output=tmp_path / "out", **options)
    run(asked, bicubic, lambda outcome: None)
    assert [path.name for path in tmp_path.glob("out/*")] == ["a_x2.png"]


@pytest.mark.parametrize("ahead", [0, 1])
@pytest.mark.parametrize(("number", "goes_on"), [(errno.ENOSPC, False), (errno.EFBIG, True)])
def test_a_full_disk_ends_the_run(tmp_path, bicubic, monkeypatch, ahead, number, goes_on):
    """Not a limit on the size of one file: the next may be smaller."""
    for n in range(6):
        make(tmp_path / f"in/{n}.png", n)

    refuse_to_write(monkeypatch, "1_x2", OSError(number, "no"))
    asked = request(tmp_path / "in", output=tmp_path / "out")
    work, items = Restoration(asked, bicubic), plan(asked, bicubic.spec)
    outcomes = list(restore_all(work, items, ahead=ahead))
    assert [outcome.status for outcome in outcomes[:2]] == ["restored", "failed"]
    assert (len(outcomes) == 6) == goes_on
    assert len(list(tmp_path.glob("out/*"))) == len(outcomes) - 1


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_fail_fast_reports_all_that_was_written(tmp_path, bicubic, monkeypatch, ahead):
    """The second of six fails late, while others are written."""
    for n in range(6):
        make(tmp_path / f"in/{n}.png", n)
    asked = request(tmp_path / "in", output=tmp_path / "out")
    real = jobs_run.write_file

    def write_file(path, data, commit):
        if path.name == "1_x2.png":
            time.sleep(0.2)
            raise PictureError("no")
        real(path, data, commit)

    monkeypatch.setattr(jobs_run, "write_file", write_file)
    work, items = Restoration(asked, bicubic), plan(asked, bicubic.spec)
    outcomes = list(restore_all(work, items, ahead=ahead, fail_fast=True))
    assert sum(outcome.status == "failed" for outcome in outcomes) == 1
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {o.item.target.name for o in outcomes if o.status == "restored"} == written
    assert ahead or len(outcomes) == 2


def test_what_a_folder_does_not_mean_is_counted(tmp_path):
    make(tmp_path / "in/a.png")
    for name in ("b.nef", "c.jxl", "d.JXL"):
        (tmp_path / "in" / name).touch()
    (tmp_path / "in/e.png").symlink_to(tmp_path / "unmounted.png")
    status, said = restored(tmp_path / "in", *BICUBIC, "-o", tmp_path / "out")
    assert "left out: 3 files of kinds that cannot be read (.jxl, .nef)" in said
    assert (status, "e.png" in said) == (1, True)


def test_templates_and_suffixes(tmp_path):
    source = make(tmp_path / "a.png")
    status, said = restored(source, *BICUBIC, "-o", f"{tmp_path}/out/{{name}}/")
    assert (status, "use '" in said and "{name}.{ext}'" in said) == (2, True)
    status, said = restored(source, *BICUBIC, "-o", f"{tmp_path}/{{name}}.{{ext}}.bak")
    assert (status, "For a folder" in said) == (2, False)


def test_a_manifest_may_be_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    lines = []
    reader = threading.Thread(target=lambda: lines.append(pipe.read_text()), daemon=True)
    reader.start()
    assert restored(make(tmp_path / "a.png"), *BICUBIC, "--manifest", pipe)[0] == 0
    reader.join(30)
    assert lines[0].startswith('{"input": ')


def test_the_plan_says_what_cannot_be_read(tmp_path):
    (tmp_path / "bad.png").write_text("x")
    done = restore("image", tmp_path / "bad.png", *BICUBIC, "-n")
    assert (done.exit_code, "cannot be read" in done.stdout) == (0, True)
    assert "0 pictures to do" in done.stderr


@pytest.mark.parametrize("option", ["--manifest", "--compare"])
def test_own_files_that_cannot_be_written_are_refused_first(tmp_path, option):
    source, folder = make(tmp_path / "a.png"), tmp_path / "folder.html"
    folder.mkdir()
    status, said = restored(source, *BICUBIC, option, folder, "--on-exists", "overwrite")
    assert (status, f"{option} '{folder}' is a folder" in said) == (2, True)
    assert not (tmp_path / "a_x2.png").exists()


def test_a_manifest_that_was_cut_keeps_the_next_record(tmp_path):
    source, manifest = make(tmp_path / "a.png"), tmp_path / "m.jsonl"
    manifest.write_text('{"input": "x", "sta')
    assert restored(source, *BICUBIC, "--manifest", manifest)[0] == 0
    first, second = manifest.read_text().splitlines()
    assert (first, second[:10]) == ('{"input": "x", "sta', '{"input": ')


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk is needed")  # noqa: PTH110
def test_a_full_disk_of_the_manifest_is_named(tmp_path):
    status, said = restored(make(tmp_path / "a.png"), *BICUBIC, "--manifest", "/dev/full")
    assert (status, "cannot write '/dev/full'" in said) == (1, True)


def test_names_forge_no_messages(tmp_path):
    source = make(tmp_path / "new\nerror: all lost.png")
    said = restored(source, *BICUBIC, "-f", "jpeg", "--lossless", "-o", tmp_path / "o")[1]
    assert not any(line.startswith("error: all lost") for line in said.splitlines())
    assert "new\\x0aerror: all lost.png" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are needed")
def test_a_pipe_is_not_compared(tmp_path):
    data, pipe = make(tmp_path / "a.png").read_bytes(), tmp_path / "pipe.png"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,), daemon=True)
    writer.start()
    options = ("-o", tmp_path / "out.png", "--compare", tmp_path / "c.html")
    status, said = restored(pipe, *BICUBIC, *options)
    assert (status, "nothing to compare" in said) == (0, True)
