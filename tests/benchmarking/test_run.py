"""A benchmark runs, resumes, compares and reports; what it cannot compare it refuses."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, picture, restore, rgb8
from PIL import Image, ImageCms

from restore_cli.benchmarking.protocol import PROTOCOLS
from restore_cli.benchmarking.report import markdown_table
from restore_cli.benchmarking.run import models_of_scale
from restore_cli.datasets.layouts import find_pairs
from restore_cli.datasets.registry import DATASETS
from restore_cli.errors import PictureError
from restore_cli.image import read_image
from restore_cli.image.folders import list_pictures
from restore_cli.image.matrix_profile import make_profile
from restore_cli.inference.restorer import Restorer


@pytest.fixture
def pairs(tmp_path):
    for n in range(3):
        array = rgb8(picture(64, 96, n))
        for kind, image in (("hr", array), ("lr", array[::4, ::4])):
            (tmp_path / "pairs" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image)).save(tmp_path / f"pairs/{kind}/{n}.png")
    return tmp_path / "pairs"


@pytest.fixture
def arguments(tmp_path, pairs, tiny_weights):
    common = ("benchmark", "--dataset", pairs, "-o", tmp_path / "out", "-d", "cpu")
    return (*common, "--model", f"mprnet-mscam={tiny_weights}", "bicubic")


def test_any_weights_are_scored_under_a_label(tmp_path, pairs, tiny_weights):
    common = ("benchmark", "--dataset", pairs, "-o", tmp_path / "out", "--json", "--formats", "csv")
    done = restore(*common, "--model", f"theirs={tiny_weights}", "bicubic")
    assert done.exit_code == 0, done.stderr
    names = [entry["facts"]["name"] for entry in json.loads(done.stdout)["entries"]]
    assert names == ["theirs", "bicubic"]
    done = restore(*common, "--model", "mprnet-mscan")
    assert (done.exit_code, "Did you mean 'mprnet-mscam'?" in done.stderr) == (2, True)


def test_a_network_for_x4_is_compared_with_the_one_for_x1():
    assert models_of_scale(4)[-2:] == ["maxim+bicubic", "bicubic"]
    assert models_of_scale(1)[-1] == "bicubic"
    assert not any("+" in name for name in models_of_scale(1))


def rows(tmp_path):
    return (tmp_path / "out/rows.jsonl").read_text().splitlines()


def report(tmp_path):
    return json.loads((tmp_path / "out/report.json").read_text())


@pytest.mark.slow
def test_reports(tmp_path, arguments):
    done = restore(*arguments)
    assert done.exit_code == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 2
    assert lines[1][0] == "bicubic"
    whole = report(tmp_path)
    assert whole["count"] == 3
    assert whole["protocol"]["name"] == "rgb"
    mine, bicubic = whole["entries"]
    for key in ("parameters", "macs_64x64", "device", "precision", "tlsc", "tile", "stages"):
        assert key in mine["facts"]
    mean = math.fsum(r["psnr"] for r in whole["rows"] if r["entry"] == "bicubic") / 3
    assert bicubic["psnr"] == pytest.approx(mean)
    assert mine["gain"] == pytest.approx(mine["psnr"] - bicubic["psnr"])
    assert mine["worst"][1] <= mine["best"][1]
    markdown = (tmp_path / "out/report.md").read_text()
    assert f"{bicubic['psnr']:.3f}" in markdown
    assert len((tmp_path / "out/report.csv").read_text().splitlines()) == 1 + 2 * 3
    page = (tmp_path / "out/report.html").read_text()
    shown = re.findall(r"<figcaption>(\d):", page)
    assert sorted(shown) == ["0", "1", "2"]  # none is among the worst and the best
    assert page.count("data:image/jpeg;base64,") == 9
    assert 'src="http' not in page


@pytest.mark.slow
def test_what_is_done_stays_done(tmp_path, arguments, pairs):
    assert restore(*arguments).exit_code == 0
    first = rows(tmp_path)
    before = {
        name: (tmp_path / f"out/report.{name}").read_bytes() for name in ("csv", "json", "html")
    }
    assert restore(*arguments).exit_code == 0
    assert rows(tmp_path) == first
    for name, content in before.items():  # the same again, seconds and all
        assert (tmp_path / f"out/report.{name}").read_bytes() == content
    # A line cut off by a crash is measured again; another option, and another picture, are new.
    (tmp_path / "out/rows.jsonl").write_text("\n".join(first[:-1]) + "\n" + first[-1][:20])
    odd = ['{"psnr": "x"}', json.dumps(json.loads(first[0]) | {"key": [1]}), "[" * 100_000]
    with (tmp_path / "out/rows.jsonl").open("a") as stream:
        stream.write("\n" + "\n".join(odd) + "\n" + first[-1][:20])
    assert restore(*arguments).exit_code == 0
    assert len([r for r in rows(tmp_path) if r.endswith("}")]) == 5 + 2 + 1
    (tmp_path / "out/rows.jsonl").write_text("\n".join(first[:-1]) + "\n" + first[-1][:20])
    assert restore(*arguments).exit_code == 0
    assert restore(*arguments).exit_code == 0
    assert len([r for r in rows(tmp_path) if r.endswith("}")]) == 5 + 1  # once, on its own line
    assert restore(*arguments, "--no-tlsc", "--formats", "json").exit_code == 0
    count = len(rows(tmp_path))
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(pairs / "lr/0.png")
    assert restore(*arguments, "--formats", "json").exit_code == 0
    assert len(rows(tmp_path)) == count + 2
    assert report(tmp_path)["data_sha256"] != json.loads(before["json"])["data_sha256"]


@pytest.mark.slow
def test_names_and_options_do_not_mix_results(tmp_path, arguments, tiny_weights, pairs):
    """Other spellings of the same are the same; other options, and pictures, are not."""
    assert restore(*arguments).exit_code == 0
    before = report(tmp_path)
    count = len(rows(tmp_path))
    (pairs / "lr/1.png").rename(pairs / "lr/renamed.png")
    (pairs / "hr/1.png").rename(pairs / "hr/renamed.png")
    spelt = [str(a).replace("mprnet-mscam=/", "mprnet-mscam=/../") for a in arguments]
    assert restore(*spelt).exit_code == 0
    assert len(rows(tmp_path)) == count + 3 + 1  # images of another name are made again
    assert report(tmp_path)["entries"][0]["psnr"] == pytest.approx(before["entries"][0]["psnr"])
    images = {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png")}
    assert all(".." not in path.parts for path in images)
    assert not list(tmp_path.parent.glob("*.png"))
    assert restore(*arguments, "--protocol", "cnlrn").exit_code == 0
    assert {p.relative_to(tmp_path / "out") for p in (tmp_path / "out").rglob("*.png")} > images


@pytest.mark.slow
def test_shards_share_the_work(tmp_path, arguments):
    for part in ("1/2", "2/2"):
        assert restore(*arguments, "--shard", part).exit_code == 0
    parts = [(tmp_path / f"out/rows-{n}-of-2.jsonl").read_text().splitlines() for n in (1, 2)]
    assert [len(part) for part in parts] == [4, 2]
    assert not (tmp_path / "out/report.json").exists()
    assert restore(*arguments, "--formats", "json").exit_code == 0
    assert (tmp_path / "out/rows.jsonl").read_text() == ""  # nothing was left to do
    assert report(tmp_path)["count"] == 3
    assert restore(*arguments, "--shard", "3/2").exit_code == 2


def test_limit_images_and_protocol(tmp_path, arguments):
    options = ("--limit", "2", "--save-images", "--protocol", "y", "--formats", "csv,json")
    assert restore(*arguments, *options).exit_code == 0
    assert report(tmp_path)["count"] == 2
    assert report(tmp_path)["protocol"]["name"] == "y"
    images = sorted((tmp_path / "out/images/bicubic").iterdir())
    assert [path.name.split(".")[0] for path in images] == ["0", "1"]
    assert not (tmp_path / "out/report.html").exists()


def test_pairs_whose_values_cannot_be_compared_are_refused(tmp_path, arguments, pairs):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    corners = ((0.3127, 0.329), (0.68, 0.32), (0.265, 0.69), (0.15, 0.06))
    with Image.open(pairs / "lr/1.png") as image:
        image.save(pairs / "lr/1.png", icc_profile=make_profile("wide", corners, (2.2,)))
    with Image.open(pairs / "hr/2.png") as image:
        image.putalpha(128)
        image.save(pairs / "hr/2.png")
    for name in ("lr/0.png", "hr/0.png"):  # opaque, and sRGB on one side: nothing is lost
        with Image.open(pairs / name) as image:
            image.putalpha(255)
            image.save(pairs / name, icc_profile=srgb if name == "lr/0.png" else None)
    done = restore(*arguments, "--formats", "json")
    assert done.exit_code == 1
    assert "have different colour profiles" in done.stderr
    assert "hr/2.png' has transparency" in done.stderr
    assert [entry["count"] for entry in report(tmp_path)["entries"]] == [1, 1]


def test_damaged_pictures_are_not_scored(tmp_path, arguments, pairs):
    with Image.open(pairs / "hr/1.png") as image:
        image.save(tmp_path / "whole.jpg", quality=90)
    data = (tmp_path / "whole.jpg").read_bytes()
    (pairs / "hr/1.png").write_bytes(data[: len(data) // 2] + data)
    done = restore(*arguments, "--formats", "json")
    assert done.exit_code == 1
    assert "hr/1.png': it is damaged" in done.stderr
    assert [entry["count"] for entry in report(tmp_path)["entries"]] == [2, 2]


def test_a_sample_that_fails_is_reported_and_the_rest_done(tmp_path, arguments, pairs):
    (pairs / "lr/1.png").write_bytes(b"not a picture")
    done = restore(*arguments, "--formats", "json,md")
    assert done.exit_code == 1
    assert "lr/1.png" in done.stderr
    entries = report(tmp_path)["entries"]
    assert [(entry["count"], entry["failed"]) for entry in entries] == [(2, 1), (2, 1)]
    text = (tmp_path / "out/report.md").read_text()
    assert "2 results missing" in text
    assert "| bicubic (2 of 3) |" in text
    assert "| auto (whole) |" in text


def test_odd_names_stay_in_their_lines_and_cells(tmp_path, arguments, pairs):
    for kind in ("lr", "hr"):
        (pairs / kind / "0.png").rename(pairs / kind / "a|b\nc.png")
    (pairs / "lr/a|b\nc.png").write_bytes(b"not a picture")
    done = restore(*arguments[:-2], "bicubic", "--formats", "md,json")
    assert r"a|b\nc" in done.stderr
    assert not any(line.startswith("c") for line in done.stderr.splitlines())
    assert markdown_table(("one",), [("a|b\nc",)])[2] == r"| a\|b c |"


@pytest.mark.slow
def test_a_full_disk_is_named(tmp_path, arguments):
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)); "
    limited += "from restore_cli.__main__ import main; main()"
    command = [sys.executable, "-c", limited, *map(str, arguments[:-3]), "bicubic"]
    done = subprocess.run([*command, "-q"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"cannot use '{tmp_path / 'out/rows.jsonl'}'" in done.stderr
    assert "hint: raise the limit on the size of files" in done.stderr


def test_results_of_another_program_are_scored(tmp_path, pairs):
    common = ("benchmark", "--dataset", pairs, "-o", tmp_path / "out", "--model", "bicubic")
    assert restore(*common, "--save-images", "--formats", "json").exit_code == 0
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for path in (tmp_path / "out/images/bicubic").iterdir():
        path.rename(theirs / f"{path.name.split('.')[0]}.png")
    options = ("--formats", "json,html", "--results", f"theirs={theirs}")
    done = restore(*common, *options)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[1].split("\t")[5:8] == ["-", "-", "-"]
    bicubic, same = report(tmp_path)["entries"]
    assert (same["psnr"], same["gain"], same["facts"]["parameters"]) == (bicubic["psnr"], 0, None)
    Image.new("RGB", (96, 64)).save(theirs / "0.png")
    Image.new("RGB", (96, 60)).save(theirs / "1.png")
    (theirs / "2.png").unlink()
    done = restore(*common, *options)
    assert done.exit_code == 1
    assert "is 96x60, but sample '1' is 96x64" in done.stderr
    assert "'theirs' has no picture of sample '2'" in done.stderr
    worse = report(tmp_path)["entries"][1]
    assert (worse["count"], worse["failed"]) == (1, 2)
    assert worse["psnr"] < bicubic["psnr"]


def test_results_that_cannot_be_compared_are_refused(tmp_path, pairs):
    """Equal values under another profile, and transparent ones, are other colours."""
    common = ("benchmark", "--dataset", pairs, "-o", tmp_path / "out", "--model", "bicubic",
              "--formats", "json,csv,md")  # fmt: skip
    theirs = tmp_path / "theirs"
    shutil.copytree(pairs / "hr", theirs)
    done = restore(*common, "--results", f"same={theirs}")
    assert done.exit_code == 0, done.stderr
    assert {row["psnr"] for row in report(tmp_path)["rows"] if row["entry"] == "same"} == {"inf"}
    with Image.open(theirs / "0.png") as image:
        image.putalpha(Image.new("L", image.size, 100))
        image.save(theirs / "0.png")
    wide = make_profile("a", ((0.3127, 0.329), (0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (2.2,))
    with Image.open(theirs / "1.png") as image:
        image.save(theirs / "1.png", icc_profile=wide)
    done = restore(*common, "--results", f"other={theirs}")
    assert done.exit_code == 1
    assert "0.png' has transparency" in done.stderr
    assert "have different colour profiles" in done.stderr
    assert (tmp_path / "out/report.csv").read_text().count("transparency") == 1
    assert "0.png' has transparency" in (tmp_path / "out/report.md").read_text()


def test_results_are_found_in_folders_and_beside_each_other(tmp_path):
    for kind, side in (("lr", 16), ("hr", 64)):
        (tmp_path / "pairs" / kind / "a").mkdir(parents=True)
        Image.new("RGB", (side, side)).save(tmp_path / f"pairs/{kind}/a/0.png")
    for name in ("tree/a/0", "flat/a_0"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(tmp_path / "pairs/hr/a/0.png", tmp_path / f"{name}.png")
    done = restore("benchmark", "--dataset", tmp_path / "pairs", "-o", tmp_path / "out",
                   "--model", "bicubic", "--formats", "json", "--results", f"t={tmp_path / 'tree'}",
                   "--results", f"f={tmp_path / 'flat'}")  # fmt: skip
    assert done.exit_code == 0, done.stderr


def test_a_folder_is_not_taken_for_the_dataset_of_its_name(tmp_path, pairs, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pairs.rename(tmp_path / "gopro")
    common = ("benchmark", "--model", "bicubic", "-o", "out", "--formats", "json", "--dataset")
    done = restore(*common, "./gopro")
    assert done.exit_code == 0, done.stderr
    whole = report(tmp_path)
    assert (whole["count"], whole["published"]) == (3, [])
    assert restore(*common, "gopro").exit_code == 3
    assert restore(*common, "gopro/../gopro/").exit_code == 0


@pytest.mark.parametrize("scale", [1, 2])
def test_bicubic_has_the_scale_of_the_pairs(tmp_path, scale):
    for kind, side in (("lr", 64), ("hr", 64 * scale)):
        (tmp_path / "p" / kind).mkdir(parents=True)
        Image.new("RGB", (side, side)).save(tmp_path / f"p/{kind}/a.png")
    done = restore("benchmark", "--dataset", tmp_path / "p", "--model", "bicubic",
                   "-o", tmp_path / "out", "--formats", "csv")  # fmt: skip
    assert done.exit_code == 0, done.stderr


def test_too_low_for_the_rows_of_a_protocol(tmp_path):
    for kind, side in (("lr", 16), ("hr", 64)):
        (tmp_path / "p" / kind).mkdir(parents=True)
        Image.new("RGB", (side, side // 4)).save(tmp_path / f"p/{kind}/a.png")
    done = restore("benchmark", "--dataset", tmp_path / "p", "--model", "bicubic", "--protocol",
                   "shoyan", "-o", tmp_path / "out", "--formats", "csv")  # fmt: skip
    assert done.exit_code == 1
    assert "too small for protocol 'shoyan'" in done.stderr


def test_linked_folders_of_pairs_are_searched_once(tmp_path):
    for kind, side in (("lr", 16), ("hr", 64)):
        (tmp_path / "away" / kind).mkdir(parents=True)
        Image.new("RGB", (side, side)).save(tmp_path / f"away/{kind}/0.png")
        (tmp_path / "p" / kind).mkdir(parents=True)
        (tmp_path / "p" / kind / "b").symlink_to(tmp_path / "away" / kind)
        (tmp_path / "p" / kind / "around").symlink_to(tmp_path / "p" / kind)
    (tmp_path / "p/lr/loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path / "p", tmp_path / "link/p"):
        assert [pair.name for pair in find_pairs(folder).pairs] == ["b/0"]
        assert list_pictures(folder, recursive=True) == []


def test_names_that_are_long_or_not_text_are_scored_once(tmp_path):
    names = ("x" * 245, "あ" * 80, os.fsdecode(b"\xff"))
    for kind, side in (("lr", 16), ("hr", 64)):
        (tmp_path / "p" / kind).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (side, side)).save(tmp_path / f"p/{kind}/{name}.png")
    for _ in range(2):
        done = restore("benchmark", "--dataset", tmp_path / "p", "--model", "bicubic",
                       "-o", tmp_path / "out")  # fmt: skip
        assert done.exit_code == 0, done.stderr
    assert len(rows(tmp_path)) == 3


def test_whole_frames_of_another_program_are_cropped_as_the_protocol_crops(tmp_path):
    frame = picture(720, 48)[0].permute(1, 2, 0)
    for kind, image in (("hr", frame), ("lr", frame[::4, ::4])):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        Image.fromarray((image * 255).byte().numpy()).save(tmp_path / f"pairs/{kind}/0.png")
    common = ("benchmark", "--dataset", tmp_path / "pairs", "-o", tmp_path / "out", "--model",
              "bicubic", "--protocol", "shoyan", "--formats", "json")  # fmt: skip
    done = restore(*common, "--results", f"truth={tmp_path / 'pairs/hr'}")
    assert done.exit_code == 0, done.stderr
    assert report(tmp_path)["entries"][1]["psnr"] == "inf"
    short = restore(*common, "--results", f"short={tmp_path / 'pairs/lr'}")
    assert short.exit_code == 1
    assert "is 12x180, but sample '0' is 48x704" in short.stderr


def test_a_result_that_is_not_finite_fails_alone(tmp_path, arguments, monkeypatch):
    restored = Restorer.__call__

    def broken(self, image, *others):
        if image.mean() == means[0]:
            raise PictureError("the output contains NaN or infinity")
        return restored(self, image, *others)

    lows = [read_image(tmp_path / f"pairs/lr/{n}.png").pixels for n in range(3)]
    means = [low.mean() for low in lows]
    monkeypatch.setattr(Restorer, "__call__", broken)
    done = restore(*arguments, "--formats", "json")
    assert done.exit_code == 1
    assert "sample '0': the output contains NaN or infinity" in done.stderr
    entries = report(tmp_path)["entries"]
    assert [(entry["count"], entry["failed"]) for entry in entries] == [(2, 1), (3, 0)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--model", "bicubic", "--results", "theirs"), "'theirs' is not NAME=DIR"),
        (("--model", "bicubic", "--results", "theirs=no"), "'no' is not a folder of pictures"),
        (("--results", "a=b", "--table", "shoyan-2022/1"), "--dataset, without --table"),
        (("--model", "mprnet"), "has no checkpoint"),
        (("--model", "bicubic", "--model", "bicubic"), "'bicubic' is given twice"),
        (("--model", "bicubic", "--formats", "pdf"), "format 'pdf' not found"),
        (("--model", "bicubic", "--protocol", "cnrln"), "Did you mean 'cnlrn'"),
        (("--dataset", "gopr", "--model", "bicubic"), "Did you mean 'gopro'"),
        (("--dataset", "blurmni", "--model", "bicubic"), "Did you mean 'blurmini'"),
        (("--dataset", "reds-val300", "--model", "bicubic"), "expected val/val_blur_bicubic"),
        (("--model", "bicubic", "--data-root", "x"), "--data-root does not fit: '"),
        (("--model", "bicubic", "--dataset", "blurmini", "--fetch"), "'blurmini' comes with"),
        ((), "--model is missing"),
    ],
)
def test_refusals(tmp_path, pairs, changed, message):
    refused = restore("benchmark", "--dataset", pairs, "-o", tmp_path / "out", *changed)
    assert refused.exit_code in (2, 3, 4)
    assert message in refused.stderr
    assert not (tmp_path / "out").exists()


def test_models_of_another_scale_are_refused(tmp_path, tiny_weights):
    done = restore("benchmark", "--dataset", "blurmini-x1",
                   "-o", tmp_path / "o", "--model", f"mprnet-mscam={tiny_weights}")  # fmt: skip
    assert done.exit_code == 2
    assert "has scale x4, but dataset 'blurmini-x1' has scale x1" in done.stderr


def test_bicubic_at_x1_is_the_input(tmp_path):
    done = restore("benchmark", "--dataset", "blurmini-x1",
                   "-o", tmp_path / "out", "--model", "bicubic", "--limit", "1",
                   "--formats", "json")  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert 15 < report(tmp_path)["entries"][0]["psnr"] < 40


def test_the_list_names_everything():
    listed = restore("benchmark").stdout
    for name in (*DATASETS, *PROTOCOLS, "blurmini"):
        assert any(line.startswith(f"{name}\t") for line in listed.splitlines()), name
    for name in DATASETS:
        assert f"{name}\t" in restore("datasets", "list").stdout
    for one in json.loads(restore("datasets", "list", "--json").stdout):
        assert one["protocol"] in PROTOCOLS
    protocols = json.loads(restore("datasets", "protocols", "--json").stdout)
    assert len(protocols) == len(PROTOCOLS)
    assert {one["highest"] for one in protocols} == {"inf", 50.0}  # as in reports
    assert restore("datasets", "layouts").stdout.startswith("plain\t")


def test_recipes_whose_results_are_no_pictures_are_refused_at_once(tmp_path):
    Image.new("RGB", (320, 320)).save(tmp_path / "a.png")
    done = restore("benchmark", "--degrade", "gfn", tmp_path / "a.png", "bicubic",
                   "-o", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 2
    assert "recipe 'gfn' cuts patches" in done.stderr
    assert not (tmp_path / "out").exists()


def test_pictures_that_cannot_be_degraded_do_not_stop_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n, mode in enumerate(("RGB", "RGBA", "RGB")):
        array = rgb8(picture(80, 96, n))
        image = Image.fromarray(array).convert(mode)
        image.putalpha(100) if mode == "RGBA" else None
        Path("photos").mkdir(exist_ok=True)
        image.save(f"photos/{n}.png")
    Path("photos/broken.png").write_text("no picture")
    Path("own.toml").write_text('name = "a/../../b"\nscale = 1\ndescription = ""\nsource = ""\n'
                                'steps = [{kind = "gaussian", sigma = [1, 2]}]\n')  # fmt: skip
    for options in ((), ("--side", 64)):
        done = restore("benchmark", "--degrade", "own.toml", "photos", "bicubic",
                       "--formats", "json", *options)  # fmt: skip
        assert done.exit_code == 1
        assert "1.png' has transparency" in done.stderr
        assert "broken.png' is not a picture" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "benchmark-a-..-..-b", "benchmark-a-..-..-b-64px", "own.toml", "photos",
    ]  # fmt: skip

    def count():
        (found,) = json.loads(Path("benchmark-a-..-..-b-64px/report.json").read_text())["entries"]
        return found["count"]

    assert count() == 2
    Image.new("RGB", (20, 20)).save("photos/0.png")  # now too small; its pair is still there
    done = restore("benchmark", "--degrade", "own.toml", "photos", "bicubic", "--formats", "json",
                   "--side", 64)  # fmt: skip
    assert done.exit_code == 1
    assert count() == 1
    Image.new("RGB", (20, 20)).save("photos/2.png")  # no picture is left
    done = restore("benchmark", "--degrade", "own.toml", "photos", "bicubic", "--side", 64)
    assert done.exit_code == 1
    assert "no picture could be degraded" in done.stderr
    assert count() == 1  # the earlier report is kept


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["shake", "handheld"])
def test_sharp_pictures_are_degraded_and_scored(tmp_path, tiny_weights, recipe):
    """The pairs are those that degrade writes, where names are in one order; with bicubic."""
    for n in range(2):
        array = rgb8(picture(80, 96, n))
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / f"photos/{'ab'[n]}.png")
    models = (f"mprnet-mscam={tiny_weights}",) if recipe == "shake" else ("bicubic",)
    arguments = ("--degrade", recipe, tmp_path / "photos", *models, "--seed", 3, "-d", "cpu")
    done = restore("benchmark", *arguments, "-o", tmp_path / "out", "--formats", "json", "--json")
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)  # one document
    assert printed["protocol"]["name"] == "photos"
    assert printed["entries"][-1]["facts"]["name"] == "bicubic"
    again = restore("degrade", tmp_path / "photos", "-o", tmp_path / "pairs", "--seed", 3,
                    "--recipe", recipe)  # fmt: skip
    assert again.exit_code == 0, again.stderr
    for side in ("lr", "hr"):
        one, two = (tmp_path / place / side / "b.png" for place in ("out/pictures", "pairs"))
        assert one.read_bytes() == two.read_bytes()
    rest = restore("benchmark", *arguments, "--no-motion", "--side", 64, "-o", tmp_path / "rest",
                   "--formats", "json")  # fmt: skip
    assert rest.exit_code == 0, rest.stderr
    (tmp_path / "rest").rename(tmp_path / "away")
    assert (
        json.loads((tmp_path / "away/report.json").read_text())["entries"][-1]["psnr"]
        > (printed["entries"][-1]["psnr"])
    )


@pytest.mark.slow
def test_pairs_that_were_degraded_otherwise_are_not_scored(tmp_path):
    (tmp_path / "photos/twin").mkdir(parents=True)
    for name in ("a", "b", "twin/a"):
        array = rgb8(picture(80, 96, 0))
        Image.fromarray(array).save(tmp_path / f"photos/{name}.png")

    def score(photos, *options):
        output = ("-o", tmp_path / "out", "--formats", "json", "-d", "cpu")
        return restore("benchmark", "--degrade", "shake", *photos, *options, *output)

    both, first = [tmp_path / "photos"], [tmp_path / "photos/a.png"]
    assert score(both).exit_code == 0
    assert report(tmp_path)["count"] == 2
    still = score(both, "--no-motion")
    assert still.exit_code == 1
    assert "was made with another motion" in still.stderr
    assert score(both, "--limit", 1).exit_code == 0
    assert report(tmp_path)["count"] == 1  # not what lies there of the run before
    other = score([tmp_path / "photos/b.png"])
    assert "was made with another place among the inputs" in other.stderr
    twins = score([*first, tmp_path / "photos/twin/a.png"])
    assert twins.exit_code == 2
    assert "two inputs are called 'a'" in twins.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "bicubic"), "--dataset is missing"),
        (("--dataset", "gopro", "--model", "bicubic", "--no-motion"), "need --degrade"),
        (("--degrade", "shake", "photos", "--fetch"), "--degrade makes its own dataset"),
        (("--degrade", "shake", "photos", "--data-root", "x"), "--degrade makes its own dataset"),
        (("--dataset", "gopro", "--model", "bicubic", "--warm-up", "9"), "--warm-up needs --table"),
        (("--dataset", "gopro", "--model", "bicubic", "--tile", "9" * 5000), "is not a size"),
    ],
)
def test_options_that_would_do_nothing_are_refused(arguments, message):
    done = restore("benchmark", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_one_picture_is_not_worst_and_best(tmp_path, arguments):
    assert restore(*arguments, "--limit", "1").exit_code == 0
    assert (tmp_path / "out/report.html").read_text().count("<figure>") == 1
    assert report(tmp_path)["entries"][0]["best"] is None


def test_empty_paths_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for empty in (("-o", ""), ("--data-root", ""), ("--dataset", "")):
        done = restore("benchmark", "--dataset", "gopro", "--model", "bicubic", *empty)
        assert done.exit_code == 2
        assert f"{empty[0]} is empty".replace("-o ", "--output ") in done.stderr
    assert restore("datasets", "check", "").exit_code == 2
    assert not list(tmp_path.iterdir())


def test_datasets_and_protocols_fit():
    for dataset in DATASETS.values():
        assert dataset.protocol in PROTOCOLS
        assert dataset.hub is None or len(dataset.hub.revision) in (4, 40)


def test_published_rows_stand_beside_measured_ones(tmp_path, tiny_weights):
    data = ("--dataset", "reds-val300", "--data-root", ROOT / "tests/data")
    done = restore("benchmark", *data, "-o", tmp_path / "out", "-m", f"mprnet-mscam={tiny_weights}")
    assert done.exit_code == 0, done.stderr
    published = done.stdout.splitlines()[-1].split("\t")
    assert published[:3] == ["CNLRN", "27.770131", "0.778420"]
    assert "only a part of the pictures" in published[8]
    assert "csbhr/CNLRN" in published[9]
    assert "warning: only 4 of 300 pictures" in done.stderr
