"""The command line: exit codes, stdout as data, messages with a remedy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import typer
from conftest import ROOT, official, picture, restore, rgb8
from PIL import Image

from restore_cli.errors import Interrupted
from restore_cli.image import read_image
from restore_cli.training.recipe import ablations, shipped_recipes
from restore_cli.weights import store
from restore_cli.weights.manifest import default_model

DEFAULT = default_model()


def make(path, height=20, width=24, seed=0):
    array = rgb8(picture(height, width, seed))
    Image.fromarray(array).save(path)
    return path


def size(path):
    with Image.open(path) as image:
        return image.size


def test_the_line_on_the_tin(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make("blurry.png", 33, 29)
    done = restore("image", "blurry.png", "--model", "mprnet-mscam", "-x4")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "blurry_x4.png\n"
    assert "mprnet-mscam-lite" in done.stderr
    assert "sha256" in done.stderr
    with Image.open("blurry_x4.png") as image:
        assert image.size == (116, 132)


@pytest.mark.parametrize("spelling", [["-x4"], ["-x", "4"], ["-s", "4"], ["--scale", "4"], []])
def test_scale_spellings(tmp_path, tiny_weights, spelling):
    source = make(tmp_path / "a.png")
    done = restore("image", source, "-w", tiny_weights, "-q", *spelling)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "a_x4.png")
    assert done.stderr == ""


def test_a_folder_with_a_bad_file(tmp_path, tiny_weights):
    (tmp_path / "in").mkdir()
    for n in range(3):
        make(tmp_path / f"in/{n}.png", seed=n)
    (tmp_path / "in/bad.png").write_text("no")
    arguments = ("image", tmp_path / "in", "-o", tmp_path / "out", "-w", tiny_weights)
    done = restore(*arguments)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [str(tmp_path / f"out/{n}_x4.png") for n in range(3)]
    assert "bad.png" in done.stderr
    assert "1 of 4 pictures failed" in done.stderr
    again = restore(*arguments)
    assert again.exit_code == 2
    assert "exists" in again.stderr
    skipped = restore(*arguments, "--on-exists", "skip", "--json")
    lines = [json.loads(line) for line in skipped.stdout.splitlines()]
    counts = {"total": 4, "restored": 0, "skipped": 3, "failed": 1, "left": 0}
    assert lines.pop() == {"status": "summary"} | counts
    assert [line["status"] for line in lines] == ["skipped"] * 3 + ["failed"]
    assert "3 outputs already there" in skipped.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.png"], 3, "no such file or folder: 'missing.png'"),
        (["a\n\x1b1m.png"], 3, r"no such file or folder: 'a\n\x1b1m.png'"),
        (["a.png", "-m", "mprnet-mscan"], 2, "Did you mean 'mprnet-mscam'?"),
        (["a.png", "-w", "nope"], 2, "checkpoint 'nope' not found"),
        (["a.png", "-m", "mprnet"], 4, "model 'mprnet' has no checkpoint yet"),
        (["a.png", "-w", "nope.safetensors"], 4, "no weights file"),
        (["a.png", "--tile", "0"], 2, "--tile auto or --tile off"),
        (["a.png", "--tile", "00"], 2, "--tile auto or --tile off"),
        (["a.png", "--tile", "100"], 2, "--tile 100 is too small"),
        ([""], 2, "INPUT is empty"),
        (["a.png", "-o", ""], 2, "--output is empty"),
        (["a.png", "-w", "model.pth"], 4, "no weights file 'model.pth'"),
        (["a.png", "--tile", "big"], 2, "is not a size"),
        (["a.png", "--shard", "1/" + "9" * 5000], 2, "is not I/N"),
        (["a.png", "--overlap", "-3"], 2, "is not a size"),
        (["a.png", "--precision", "fp16"], 2, "is for GPUs"),
        (["a.png", "--precision", "int8"], 2, "is not known"),
        (["a.png", "--device", "tpu"], 2, "is not known"),
        (["a.png", "--device", "cuda:7"], 5, "is not available"),
        (["a.png", "--format", "gif"], 2, "format 'gif' not found"),
        (["a.png", "-x9"], 2, "--scale"),
        (["a.png", "--max-pixels", "100"], 1, "the limit is"),
        (["a.png", "--surprise"], 2, "surprise"),
        (["a.png", "-o", "sharp.jepg"], 2, "the suffix '.jepg' is not known"),
        (["a.png", "-o", "{name}.jepg"], 2, "the suffix '.jepg' is not known"),
        (["a.png", "-o", "sharp.png/"], 2, "is a folder with the suffix of a file"),
        (["a.png", "-w", "a.png"], 4, "'a.png' is a picture"),
    ],
)
def test_errors_name_the_thing_and_the_remedy(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    make("a.png")
    done = restore("image", *arguments)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_written(tmp_path, tiny_weights, monkeypatch):
    source = make(tmp_path / "a.png")

    def interrupted(self, content):
        with self.open("wb") as stream:
            stream.write(bytes(content)[:20])
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_bytes", interrupted)
    done = restore("image", source, "-o", tmp_path / "out", "-w", tiny_weights)
    assert done.exit_code == 130
    assert "interrupted" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_ctrl_c_at_a_question_says_so_by_its_status(tmp_path, tiny_weights, monkeypatch):
    def interrupted(*_, **__):
        raise typer.Abort

    monkeypatch.setattr("restore_cli.cli.weights.is_terminal", lambda stream: True)
    monkeypatch.setattr("typer.prompt", interrupted)
    done = restore("weights", "add", tiny_weights)
    assert (done.exit_code, done.stderr) == (130, "interrupted\n")


def run_with_terminal_for_stderr(*arguments):
    """Stdout into a pipe, stderr on a terminal: what `restore … | next` does at a prompt."""
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "restore_cli", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    talk = b""
    try:
        while piece := os.read(ours, 4096):
            talk += piece
    except OSError:  # how Linux says that the other end has closed
        pass
    os.close(ours)
    return process.communicate()[0].decode(), talk.decode(), process.returncode


@pytest.mark.slow
def test_data_goes_to_the_pipe_when_stderr_is_a_terminal(tmp_path, tiny_weights):
    source = make(tmp_path / "c[@click=x]d[red]:smile:.png")
    data, talk, code = run_with_terminal_for_stderr("image", source, "-w", tiny_weights)
    assert code == 0, talk
    assert data == str(tmp_path / "c[@click=x]d[red]:smile:_x4.png") + "\n"
    assert "sha256" in talk


@pytest.mark.slow
def test_a_closed_pipe_does_not_stop_the_work(tmp_path, tiny_weights):
    (tmp_path / "in").mkdir()
    for n in range(3):
        make(tmp_path / f"in/{n}.png", seed=n)
    command = [sys.executable, "-m", "restore_cli", "image", str(tmp_path / "in")]
    command += ["-o", str(tmp_path / "out"), "-w", str(tiny_weights)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0, errors
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_verbose_twice_shows_the_traceback(tmp_path):
    done = restore("image", tmp_path / "missing.png", "-vv")
    assert done.exit_code == 3
    assert "Traceback" in done.stderr
    assert "NoInputError" in done.stderr


def test_options_have_variables(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png")
    done = restore("image", source, "-q", env={"RESTORE_IMAGE_WEIGHTS": str(tiny_weights)})
    assert done.exit_code == 0, done.stderr


def test_a_variable_called_like_the_version_is_not_an_option():
    assert restore("models", env={"RESTORE_VERSION": "0.1.0"}).exit_code == 0


@pytest.mark.slow
def test_models_and_weights():
    listed = restore("models")
    assert listed.stdout == restore("models", "list").stdout
    assert DEFAULT in listed.stdout
    listing = json.loads(restore("models", "list", "--json").stdout)
    facts = {entry["model"]: entry for entry in listing}[DEFAULT]
    assert facts["configs"]
    costs = json.loads(restore("models", "info", "gfn", "--json").stdout)["configs"]
    assert costs["paper"]["parameters"] == 12_210_438
    assert "12,210,438 parameters" in restore("models", "info", "gfn").stdout
    assert restore("models", "info", "nope").exit_code == 2
    assert json.loads(restore("models", "info", "bicubic", "--json").stdout)["scale"] == "any"

    name = facts["default_checkpoint"]
    assert name in restore("weights").stdout
    assert restore("weights", "--json").stdout == restore("weights", "list", "--json").stdout
    assert restore("models", "--json").stdout == restore("models", "list", "--json").stdout
    assert name in {c["name"] for c in json.loads(restore("weights", "list", "--json").stdout)}
    verified = restore("weights", "verify")
    assert verified.exit_code == 0
    assert f"{name}\tok\t" in verified.stdout
    for group in ("weights", "models"):
        early = restore(group, "--json", "list")
        assert (early.exit_code, early.stdout) == (2, "")
        assert early.stderr.startswith("error: --json comes after the command\n")
    path = restore("weights", "path", name).stdout.strip()
    assert path.endswith(".safetensors")
    assert path in restore("weights", "fetch").stdout.splitlines()


@pytest.mark.parametrize(("scale", "suffix"), [(1, "deblurred"), (4, "x4")])
def test_without_a_model_that_of_the_scale_is_taken_and_said(tmp_path, scale, suffix):
    source = make(tmp_path / "a.png")
    done = restore("image", source, "-x", scale)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith(f"{default_model(scale)}: the best bundled x{scale} model")
    assert (tmp_path / f"a_{suffix}.png").exists()
    named = restore("image", source, "--model", "bicubic", "--on-exists", "overwrite")
    assert "the best" not in named.stderr


def test_a_changed_checkpoint_fails_verification(tmp_path, monkeypatch):
    for file in store.BUNDLED.iterdir():
        shutil.copy(file, tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    monkeypatch.setattr(store, "BUNDLED", tmp_path)
    done = restore("weights", "verify")
    assert done.exit_code == 4
    assert "expected" in done.stderr
    # One that is damaged does not keep the others from being fetched.
    assert restore("weights", "fetch").stderr.count("error: ") == done.stderr.count("error: ") > 1
    source = make(tmp_path / "a.png")
    assert restore("image", source).exit_code == 4
    assert not (tmp_path / "a_x4.png").exists()


@pytest.mark.slow
def test_degrade_is_reproducible(tmp_path):
    sharp = sorted((ROOT / "examples/sharp").iterdir())[:1]
    one, two = tmp_path / "one", tmp_path / "two"
    first = restore("degrade", *sharp, "-o", one, "--seed", 5)
    assert first.exit_code == 0, first.stderr
    restore("degrade", *sharp, "-o", two, "--seed", 5)
    restore("degrade", *sharp, "-o", tmp_path / "other", "--seed", 6)
    stem = sharp[0].stem
    for kind in (f"lr/{stem}.png", f"hr/{stem}.png", f"records/lr/{stem}.json"):
        assert (one / kind).read_bytes() == (two / kind).read_bytes()
    other = tmp_path / f"other/lr/{stem}.png"
    assert other.read_bytes() != (one / f"lr/{stem}.png").read_bytes()
    small, large = (read_image(one / kind / f"{stem}.png").pixels.shape for kind in ("lr", "hr"))
    assert (small[2] * 4, small[3] * 4) == large[2:]
    record = json.loads((one / f"records/lr/{stem}.json").read_text())
    assert record["seed"] == 5
    motion = record["steps"][0]["drawn"]
    length = np.hypot(*np.diff(motion["path"]["shift"], axis=0).T).sum()
    assert motion["length"] == pytest.approx(length)
    assert "1 pair in" in first.stderr
    again = (one / f"records/lr/{stem}.json", "-o", tmp_path / "again.png")
    assert restore("datasets", "replay", *again).stdout.strip() == str(tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (one / f"lr/{stem}.png").read_bytes()
    assert restore("datasets", "replay", *again).exit_code == 2  # it exists
    assert restore("degrade", "--replay", *again).exit_code == 2  # the old spelling
    checked = restore("datasets", "check", one)
    assert checked.exit_code == 0, checked.stdout
    assert "no problems found" in checked.stderr
    (one / f"hr/{stem}.png").unlink()
    checked = restore("degrade", "--check", one)
    assert checked.exit_code == 1
    assert checked.stdout.startswith("missing\t")
    (one / f"lr/{stem}.png").rename(one / "lr/line\nbreak.png")
    checked = restore("datasets", "check", one)
    assert r"line\x0abreak.png" in checked.stdout
    assert len(checked.stdout.splitlines()) == 1


def test_degrade_says_what_the_pairs_do_not_have(tmp_path):
    source = str(tmp_path / "deep.png")
    cv2.imwrite(source, np.full((96, 96, 3), 40_000, np.uint16))
    done = restore("degrade", source, "-o", tmp_path / "out")
    assert "deep.png': its 16 bits per channel were reduced to 8" in " ".join(done.stderr.split())


def test_degrade_refusals(tmp_path):
    source = make(tmp_path / "a.png", 40, 40)
    assert restore("degrade", tmp_path / "no.png", "-o", tmp_path / "o").exit_code == 3
    small = restore("degrade", source, "-o", tmp_path / "o")
    assert small.exit_code == 1
    assert "too small" in small.stderr
    assert restore("degrade", source, "-o", source).exit_code == 2
    assert restore("degrade", source, source, "-o", tmp_path / "b.png").exit_code == 2
    unknown = restore("degrade", source, "-o", tmp_path / "b.jepg")
    assert unknown.exit_code == 2
    assert "the suffix '.jepg' is not known" in unknown.stderr
    (tmp_path / "loop.png").symlink_to("loop.png")
    loop = restore("degrade", tmp_path / "loop.png", "-o", tmp_path / "l")
    assert (loop.exit_code, "loop.png" in loop.stderr) == (1, True)
    twice = restore("degrade", source, source, "-o", tmp_path / "p")
    assert "two inputs are called 'a'" in twice.stderr
    assert restore("degrade", source, "-o", tmp_path / "p", "--recipe", "nope").exit_code == 2
    assert restore("degrade", source).exit_code == 2
    assert restore("degrade", source, "-o", tmp_path / "p", "--layout", "imagenet").exit_code == 2
    np.save(tmp_path / "k.npy", np.full((3, 3), 0.2))
    heavy = restore("degrade", source, "-o", tmp_path / "p", "--kernel", tmp_path / "k.npy")
    assert heavy.exit_code == 2
    assert "sums to 1.8" in heavy.stderr
    (tmp_path / "film.mp4").write_bytes(b"no film")
    film = restore("degrade", tmp_path / "film.mp4", "-o", tmp_path / "p", "--recipe", "gopro")
    assert film.exit_code == 1
    assert "cannot read the video" in film.stderr
    np.save(tmp_path / "k.npy", np.eye(3) / 3)
    light = ("--kernel", tmp_path / "k.npy", "--scale", 1)
    done = restore("degrade", source, "-o", tmp_path / "blurry.png", *light)
    assert done.exit_code == 0, done.stderr
    assert size(tmp_path / "blurry.png") == (40, 40)


@pytest.mark.slow
def test_the_shipped_examples_come_from_degrade(tmp_path):
    sharp = sorted((ROOT / "examples/sharp").iterdir())
    done = restore("degrade", *sharp, "-o", tmp_path, "--seed", 813)
    assert done.exit_code == 0, done.stderr
    for made in sorted((tmp_path / "lr").iterdir()):
        shipped = read_image(ROOT / "examples" / made.name).pixels
        # Rounding may differ between processors.
        assert (read_image(made).pixels - shipped).abs().max() <= 1.01 / 255


@pytest.mark.slow
def test_train_makes_weights_that_image_takes(tmp_path):
    (tmp_path / "photos").mkdir()
    for seed in range(2):
        make(tmp_path / f"photos/{seed}.png", 360, 340, seed)
    shipped = (ROOT / "restore_cli/recipes/train/mprnet-mscam-lite.toml").read_text()
    recipe = tmp_path / "mine.toml"
    recipe.write_text(shipped.replace("batch = 8", "batch = 1").replace("patch = 64", "patch = 16"))
    arguments = ("train", recipe, "--data", tmp_path / "photos", "-o", tmp_path / "run")
    done = restore(*arguments, "--minutes", "0.0001")
    assert done.exit_code == 0, done.stderr
    weights = tmp_path / "run/weights.safetensors"
    assert done.stdout.strip() == str(weights)
    assert "stopped in phase 'joint' at step 1 of 6,750: loss" in done.stderr
    assert "--resume auto" in done.stderr.splitlines()[-1]
    assert "the rest takes about" in done.stderr
    assert restore(*arguments).exit_code == 2
    assert restore(*arguments[:-1], tmp_path / "typo", "--resume", "must").exit_code == 2
    again = restore(*arguments, "--resume", "auto", "--minutes", "0.0001")
    assert again.exit_code == 0
    assert "at step 1 of 6,750 (phase 'joint'" in again.stderr
    source = make(tmp_path / "a.png")
    assert restore("image", source, "-w", weights.parent).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "variables", "status", "message"),
    [
        (("--validation", "nosuch"), {}, 3, "no such folder: --validation 'nosuch'"),
        (("-o", "photos/run"), {}, 2, "is inside --data 'photos'"),
        (("--data", ""), {}, 2, "--data is empty"),
        (("--pool", ""), {}, 2, "--pool is empty"),
        (("--pool", "photos/0.png"), {}, 2, "--pool 'photos/0.png' is a file"),
        (("-w", "moadg-lite.shake"), {}, 4, "recipe `finetune` takes model and config"),
        (("-o", "link"), {}, 2, "cannot write into 'link'"),
        (("-o", "loop"), {}, 2, "cannot write into 'loop'"),
        ((), {"WORLD_SIZE": "junk"}, 2, "WORLD_SIZE is 'junk'"),
        ((), {"WORLD_SIZE": "2", "RANK": "0"}, 2, "WORLD_SIZE is 2, but MASTER_ADDR is not set"),
        ((), {"LOCAL_WORLD_SIZE": "0"}, 2, "LOCAL_WORLD_SIZE is '0'"),
    ],
)
def test_train_refuses_before_it_writes(
    tmp_path, monkeypatch, arguments, variables, status, message
):
    monkeypatch.chdir(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    make(tmp_path / "photos/0.png", 360, 340)
    usual = ("train", "gfn-lite", "--data", "photos", "-o", "run", "-d", "cpu")
    done = restore(*usual, *arguments)
    assert done.exit_code == status, done.stderr
    assert message in " ".join(done.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "loop", "photos"]


def test_what_an_interrupted_run_saved_is_what_there_is(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    make(tmp_path / "photos/0.png", 360, 340)

    def interrupted(job, *callbacks):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("restore_cli.training.loop.train", interrupted)
    arguments = ("train", "gfn-lite", "--data", tmp_path / "photos", "-o", tmp_path / "run")
    arguments += ("-d", "cpu", "--precision", "fp32")
    assert "saved: nothing yet" in restore(*arguments).stderr
    (tmp_path / "run").mkdir()
    (tmp_path / "run/state.pt").touch()
    assert restore(*arguments).stderr.endswith(f"saved: '{tmp_path / 'run/state.pt'}'\n")


def test_recipes_are_listed_with_what_they_do_and_printed():
    listed = [line.split("\t") for line in restore("recipes").stdout.splitlines()]
    assert restore("recipes", "list").stdout == restore("recipes").stdout
    assert {command for _, command, _ in listed} == {"train", "degrade"}
    trained = [what for _, command, what in listed if command == "train"]
    assert len(set(trained)) == len(trained)
    file = ROOT / "restore_cli/recipes/degrade/gfn.toml"
    assert restore("recipes", "show", "degrade/gfn").stdout == file.read_text()
    for name, hint in {
        "gfn": "train/gfn or degrade/gfn",
        "gfn-sr-alone": "restore recipes show gfn-two-steps",
        "shak": "degrade/shake",
    }.items():
        done = restore("recipes", "show", name)
        assert (done.exit_code, hint in done.stderr) == (2, True), done.stderr


def test_a_forgotten_recipe_is_no_list(tmp_path):
    done = restore("train", "--data", tmp_path, "-o", tmp_path / "run")
    assert done.exit_code == 2
    assert "RECIPE is missing" in done.stderr


@pytest.mark.slow
def test_train_lists_estimates_and_refuses(tmp_path):
    listed = restore("recipes", "list", "train").stdout.splitlines()
    assert restore("train").stdout.splitlines() == listed
    as_json = json.loads(restore("recipes", "list", "train", "--json").stdout)
    assert [one["recipe"] for one in as_json] == [line.split("\t")[0] for line in listed]
    assert [line.split("\t")[0] for line in listed] == [*shipped_recipes(), *ablations()]
    (tmp_path / "photos").mkdir()
    make(tmp_path / "photos/0.png", 360, 340)
    shipped = (ROOT / "restore_cli/recipes/train/mprnet-mscam-lite.toml").read_text()
    recipe = tmp_path / "mine.toml"
    recipe.write_text(shipped.replace("batch = 8", "batch = 2").replace("patch = 64", "patch = 16"))
    arguments = ("train", recipe, "--data", tmp_path / "photos", "-o", tmp_path / "run")
    dry = restore(*arguments, "--dry-run", "--json", "--accumulate", "2", "--minutes", "1")
    assert dry.exit_code == 0, dry.stderr
    phases = [json.loads(line) for line in dry.stdout.splitlines()]
    reached = phases.pop()
    assert reached["minutes"] == 1
    assert 0 < reached["steps_reached"] <= 6750
    assert [phase["phase"] for phase in phases] == ["joint", "score", "score again"]
    assert all(phase["hours"] > 0 for phase in phases)
    assert not (tmp_path / "run").exists()
    for wrong, said in (
        (("--resume", "yes"), "--resume value 'yes' not found"),
        (("--precision", "fp8"), "precision 'fp8' is not known"),
        (("--precision", "fp16", "-d", "cpu"), "training in precision 'fp16' needs CUDA"),
        (("--accumulate", "3"), "a batch of 2 cannot be divided evenly among 1 processes x 3"),
    ):
        refused = restore(*arguments, *wrong)
        assert refused.exit_code == 2
        assert said in refused.stderr
    assert restore("train", "gfn").exit_code == 2
    tune = ("train", "finetune", "--data", tmp_path / "photos", "-o", tmp_path / "tuned")
    assert restore(*tune).exit_code == 2
    tuned = restore(*tune, "-w", "mprnet-mscam-lite.shake", "--minutes", "0.0001")
    assert tuned.exit_code == 0, tuned.stderr
    assert (tmp_path / "tuned/weights.safetensors").exists()


def test_import_then_restore(tmp_path):
    torch.save({"state_dict": official("gfn")}, tmp_path / "GFN.pth")
    make(tmp_path / "a.png")
    target = tmp_path / "gfn.safetensors"
    refused = restore("image", tmp_path / "a.png", "-w", tmp_path / "GFN.pth", "-m", "gfn")
    assert refused.exit_code == 4
    assert "restore weights import" in refused.stderr
    done = restore("weights", "import", tmp_path / "GFN.pth", "--model", "gfn", "-o", target)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.strip() == str(target)
    assert "gfn (GFN_4x, current)" in done.stderr
    again = restore("weights", "import", tmp_path / "GFN.pth", "-o", target)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert (
        restore("weights", "import", tmp_path / "GFN.pth", "-o", target, "--overwrite").exit_code
        == 0
    )
    assert (
        restore("weights", "import", tmp_path / "GFN.pth", "-o", tmp_path / "x.pt").exit_code == 2
    )
    restored = restore("image", tmp_path / "a.png", "-w", target)
    assert restored.exit_code == 0, restored.stderr
    assert size(tmp_path / "a_x4.png") == (96, 80)


def test_cascades_and_self_ensemble(tmp_path, tiny_weights):
    make(tmp_path / "a.png")
    arguments = ("image", tmp_path / "a.png", "--on-exists", "overwrite")
    cascade = restore(*arguments, "-m", "mprnet-mscam+bicubic", "-w", tiny_weights, "-x8")
    assert cascade.exit_code == 0, cascade.stderr
    assert cascade.stdout.strip() == str(tmp_path / "a_x8.png")
    assert size(tmp_path / "a_x8.png") == (192, 160)
    assert "bicubic x2" in cascade.stderr
    plain = restore(*arguments, "-m", "bicubic")
    assert plain.exit_code == 0, plain.stderr
    assert size(tmp_path / "a_x4.png") == (96, 80)
    ensemble = restore(*arguments, "-w", tiny_weights, "--self-ensemble")
    assert ensemble.exit_code == 0, ensemble.stderr
    assert "self-ensemble" in ensemble.stderr
    assert restore(*arguments, "-m", "mprnet+gfn", "-w", tiny_weights).exit_code == 2
    assert "no checkpoint yet" in restore(*arguments, "-m", "mprnet+bicubic").stderr


def test_degrade_says_where_frames_are_missing(tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for n in [*range(1, 9), *range(11, 24)]:
        Image.new("RGB", (64, 64), (10 * n, 0, 0)).save(frames / f"{n}.png")
    command = ("degrade", frames, "--frames", "--recipe", "gopro", "-o", tmp_path / "out", "-j", 1)
    done = restore(*command)
    assert done.exit_code == 0, done.stderr
    assert "between '8.png' and '11.png' frames are missing" in done.stderr
