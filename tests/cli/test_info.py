"""`restore info` and `restore doctor`."""

from __future__ import annotations

import json

import numpy as np
from conftest import restore
from PIL import Image
from typer.testing import CliRunner

from restore_cli.cli.app import app


def test_info_reads_back_how_a_picture_was_made(tmp_path, tiny_weights):
    source = tmp_path / "a.png"
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(source)
    assert restore("image", source, "-w", tiny_weights, "-x2").exit_code == 0
    facts = json.loads(restore("info", tmp_path / "a_x2.png", "--json").stdout)
    assert facts["size"] == "24x18"
    assert facts["restored: model"] == "mprnet-mscam"
    assert json.loads(facts["restored: options"])["scale"] == 2
    plain = restore("info", source)
    assert "restored" not in plain.stdout
    assert not any(line.endswith(": ") for line in plain.stdout.splitlines())
    assert restore("image", source, "-w", tiny_weights, "--metadata", "none").exit_code == 0
    assert "restored" not in restore("info", tmp_path / "a_x4.png").stdout


def test_info_of_weights_and_of_nothing(tmp_path, tiny_weights):
    facts = json.loads(restore("info", tiny_weights, "--json").stdout)
    assert (facts["model"], facts["config"]["features"]) == ("mprnet-mscam", 8)
    (tmp_path / "a.png").write_text("no")
    both = restore("info", tmp_path / "a.png", tiny_weights)
    assert both.exit_code == 1
    assert "a.png' is not a picture" in both.stderr
    assert "mprnet-mscam" in both.stdout


def test_every_file_has_its_name_in_a_pipe(tiny_weights):
    lines = restore("info", tiny_weights, "gfn-lite.shake").stdout.splitlines()
    names = [n for n, line in enumerate(lines) if "\t" not in line]
    assert [lines[n] for n in names] == [str(tiny_weights), "gfn-lite.shake"]
    assert [lines[n + 1] for n in names] == ["model\tmprnet-mscam", "model\tgfn"]


def test_doctor(monkeypatch):
    report = json.loads(restore("doctor", "--json").stdout)
    assert report["facts"]["torch"]
    assert "verified" in report["facts"]["weights"]
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr("torch.version.cuda", None)
    ill = restore("doctor")
    assert ill.exit_code == 1
    assert "built for the CPU only" in ill.stderr


def test_doctor_sees_a_cache_that_is_a_file(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file/hub"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "cannot be written to" in done.stderr


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr("restore_cli.image.info._profile_name", lambda *_: "\x1b[31mred")
    assert "\\x1b[31mred" in restore("info", tmp_path / "a.png").stdout
