"""What `restore image` says before, meanwhile and after; and the job it chooses by itself."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from conftest import picture, rgb8
from PIL import Image
from situations import situation
from typer.testing import CliRunner

from restore_cli.cli import _restoring, _terminal
from restore_cli.cli.app import app
from restore_cli.image import read_image
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.jobs.inputs import find
from restore_cli.jobs.plan import plan
from restore_cli.jobs.request import RestoreRequest, Selection
from restore_cli.jobs.task_choice import choose_for_run
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import quantise


def restore(*arguments):
    return CliRunner().invoke(app, ["image", *map(str, arguments)])


def make(path, height=40, width=60, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = rgb8(picture(height, width, seed))
    Image.fromarray(array).save(path)
    return path


def photo(path, *what):
    """A file of one of the situations that choices are tested on."""
    luma = (situation(*what)[0, 0].numpy().clip(0, 1) * 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(luma).convert("RGB").save(path)
    return path


CPU = RestorerOptions(torch.device("cpu"))
SMALL = ("motorcycle", 320, 240, "0", 0, 0)
LARGE = ("motorcycle", 1280, 720, "0", 24, 2)
SMEARED = ("discs", 1280, 960, "disc", 20, 2)


@pytest.mark.parametrize(
    ("what", "expected", "said"),
    [
        (SMALL, (None, None), "x4 by maxim-mscam: 320x240, hardly blurred: a small picture"),
        (
            LARGE,
            (1, None),
            "strong blur: maxim is tried on a part first\n"
            "x1 by maxim: 1280x720, blurred over about ",
        ),
        (
            SMEARED,
            (2, "keep"),
            "strong blur: maxim is tried on a part first\n"
            "-x2 --size keep by maxim+bicubic: 1280x960, blurred over about ",
        ),
        (
            SMEARED,
            (None, "keep"),
            "strong blur: maxim is tried on a part first\n"
            "--size keep by maxim-mscam: 1280x960, blurred over about ",
        ),
    ],
)
def test_the_job_is_chosen_and_said(tmp_path, capsys, monkeypatch, what, expected, said):
    gains = {1: [2], 2: [1, 2], None: [1, 1]}[expected[0]]  # of the gradients, by the x1 model
    monkeypatch.setattr(PipelineSpec, "load", lambda self: lambda part: tried.pop(0) * part)
    given = RestoreRequest(Selection((photo(tmp_path / "a.png", *what),)))
    sources = find(given.selection)

    def chosen(*, quiet):
        monkeypatch.setattr(_terminal, "quiet", quiet)
        request, model, scale = _restoring.choose_task(given, sources, None, CPU)
        assert model in said
        return scale, request.processing.size and str(request.processing.size)

    tried = list(gains)
    assert chosen(quiet=False) == expected
    line = capsys.readouterr().err
    assert line.startswith(said)
    assert line.endswith("(--model, -x or --size overrule)\n")
    tried = list(gains)
    assert chosen(quiet=True) == expected
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.name == "nt", reason="no named pipes there")
def test_a_pipe_is_not_looked_at_since_it_can_be_read_only_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "a.png")
    given = RestoreRequest(Selection((tmp_path / "a.png",)))
    looked = []
    monkeypatch.setattr(
        "restore_cli.jobs.task_choice.choose_for_run", lambda paths, **_: looked.extend(paths)
    )
    assert _restoring.choose_task(given, find(given.selection), None, CPU) == (
        given,
        None,
        None,
    )
    assert looked == []


def test_refusals_come_before_the_pictures_are_looked_at(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("restore_cli.jobs.task_choice.choose_for_run", never)
    refused = restore(make(tmp_path / "a.png"), "--on-exists", "ask")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: --on-exists policy 'ask' ")


def test_quiet_is_quiet(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png")
    planned = restore(source, "-w", tiny_weights, "-n", "-q")
    assert (planned.exit_code, planned.stderr) == (0, "")
    assert planned.stdout.startswith(f"{source}\t")
    done = restore(source, "-w", tiny_weights, "-q", "--compare", tmp_path / "c.png")
    assert (done.exit_code, done.stderr) == (0, "")
    assert (tmp_path / "c.png").exists()


def test_of_many_pictures_the_majority_decides(tmp_path):
    paths = [photo(tmp_path / f"{n}.png", *SMALL) for n in range(3)]
    paths.append(photo(tmp_path / "3.png", *LARGE))
    (tmp_path / "4.png").write_text("no")
    choice = choose_for_run([*paths, tmp_path / "4.png"], max_pixels=10**8)
    assert choice is not None
    assert choice.task == "x4"
    expected = "suits 3 of 4 sampled inputs; the first of these: 320x240"
    assert choice.reason.startswith(expected)
    assert choose_for_run([tmp_path / "4.png"], max_pixels=10**8) is None


def test_model_scale_and_size_overrule(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png")
    for options in (
        ["-w", tiny_weights],
        ["--model", "bicubic"],
        ["--size", "keep", "-w", tiny_weights],
    ):
        done = restore(source, *options, "--on-exists", "overwrite")
        assert done.exit_code == 0, done.stderr
        assert "overrule" not in done.stderr


@pytest.mark.parametrize(
    ("size", "name", "expected"),
    [
        ("keep", "a_deblurred.png", (61, 43)),
        ("2x", "a_2x.png", (122, 86)),
        ("90x90", "a_90x90.png", (90, 63)),
    ],
)
def test_size_lands_where_it_says(tmp_path, tiny_weights, size, name, expected):
    source = make(tmp_path / "a.png", 43, 61)
    done = restore(source, "--size", size, "-w", tiny_weights, "--json")
    assert done.exit_code == 0, done.stderr
    record = json.loads(done.stdout.splitlines()[0])
    assert (record["width"], record["height"]) == expected
    assert record["options"]["size"] == size
    with Image.open(tmp_path / name) as image:
        assert image.size == expected
    width, height = expected
    assert f"{source}, 61x43 -> {tmp_path / name}, {width}x{height}" in done.stderr
    again = restore(source, "--size", size, "-w", tiny_weights, "--json", "--resume")
    assert json.loads(again.stdout.splitlines()[0])["status"] == "skipped"


def test_transparency_has_the_size_as_well(tmp_path, tiny_weights):
    values = np.random.default_rng(0).integers(0, 256, (43, 61, 4), np.uint8)
    Image.fromarray(values, "RGBA").save(tmp_path / "a.png")
    for alpha in ("resize", "restore"):
        out = tmp_path / f"{alpha}.png"
        done = restore(
            tmp_path / "a.png", "--size", "keep", "-w", tiny_weights, "--alpha", alpha, "-o", out
        )
        assert done.exit_code == 0, done.stderr
        made = read_image(out)
        assert made.size == (43, 61)
        assert made.alpha is not None
        assert torch.isfinite(made.pixels).all()


def test_a_size_with_a_scale_shrinks_by_that_scale_first(tmp_path):
    source = make(tmp_path / "a.png", 40, 60)
    done = restore(source, "--size", "keep", "-x2", "--model", "bicubic", "-o", tmp_path / "b.png")
    assert done.exit_code == 0, done.stderr
    pixels = read_image(source).pixels
    again = quantise(resize_bicubic(resize_bicubic(pixels, 20, 30).clamp(0, 1), 40, 60))
    assert (read_image(tmp_path / "b.png").pixels - again).abs().max() < 1.01 / 255


def test_deblurred_pictures_say_so_in_their_names(tmp_path):
    done = restore(make(tmp_path / "a.png", 16, 16), "--model", "msan")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'a_deblurred.png'}\n"


def test_ten_equal_errors_are_said_once(tmp_path, tiny_weights):
    for n in range(10):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / f"in/{n}.png").write_text("no")
    done = restore(tmp_path / "in", "-o", tmp_path / "out", "-w", tiny_weights)
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    first, second = (str(tmp_path / f"in/{n}.png") for n in range(2))
    assert f"the same error as for '{first}': '{second}', and 8 more" in lines
    assert "10 of 10 pictures failed" in lines


def test_lines_of_json_have_a_status(tmp_path, tiny_weights):
    source, other = make(tmp_path / "a.png"), make(tmp_path / "b.png", seed=1)
    assert restore(source, "-w", tiny_weights).exit_code == 0
    arguments = (source, other, "-w", tiny_weights, "--on-exists", "skip", "--json")
    planned = [json.loads(line) for line in restore(*arguments, "-n").stdout.splitlines()]
    assert [line["status"] for line in planned] == ["skipped", "planned"]
    names = {"input", "output", "status", "input_width", "input_height", "width", "height"}
    assert set(planned[1]) == names | {"tiles", "memory_bytes", "seconds", "seconds_low"}
    assert (planned[1]["width"], planned[1]["height"]) == (240, 160)
    assert 0 < planned[1]["seconds_low"] <= planned[1]["seconds"]
    lines = [json.loads(line) for line in restore(*arguments).stdout.splitlines()]
    assert [line["status"] for line in lines] == ["skipped", "restored", "summary"]
    assert (lines[-1]["restored"], lines[-1]["skipped"], lines[-1]["failed"]) == (1, 1, 0)


def test_a_large_result_is_announced_with_the_better_way(tmp_path, capsys):
    source = tmp_path / "a.png"
    Image.new("RGB", (2200, 1500)).save(source)
    request = RestoreRequest(Selection((source,)))
    spec = PipelineSpec.parse("bicubic", None, 4, CPU)
    _restoring.announce(request, plan(request, spec), spec.load())
    said = capsys.readouterr().err.replace("\n", "")
    assert f"{source}, 2200x1500 -> {tmp_path / 'a_x4.png'}, 8800x6000" in said
    assert "makes 53 Mpx; faster: --size keep" in said
