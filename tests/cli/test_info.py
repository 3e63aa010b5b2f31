"""`restore info` and `restore doctor`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from conftest import restore
from PIL import Image
from typer.testing import CliRunner

from restore_cli.cli import doctor, info
from restore_cli.cli.app import app
from restore_cli.weights.checkpoint import read_checkpoint, write_checkpoint


def test_a_folder_of_pictures_is_told_from_weights(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    refused = restore("info", tmp_path)
    assert refused.exit_code != 0
    assert f"restore info '{tmp_path / '*.jpg'}'" in refused.stderr
    assert "8x8" in restore("info", tmp_path / "*.jpg").stdout


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
    monkeypatch.setattr(doctor, "requirements", lambda: {"torch": ""})
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
    monkeypatch.setattr(doctor, "requirements", dict)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "cannot be written to" in done.stderr


def test_control_characters_of_a_file_do_not_reach_the_terminal(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr("restore_cli.image.info._profile_name", lambda *_: "\x1b[31mred")
    assert "\\x1b[31mred" in restore("info", tmp_path / "a.png").stdout


def with_provenance(path, tiny_weights, **facts):
    content = read_checkpoint(tiny_weights)
    write_checkpoint(path, content.tensors, replace(content.header, provenance=facts))
    return path


def test_parts_of_a_mixture_are_lines_of_plain_words():
    parts = [{"kind": "pairs", "degradation": None, "count": 50}, 7]
    rows = info._rows({"data": {"parts": parts}})
    assert list(rows) == [("data.parts.1", "kind pairs, count 50"), ("data.parts.2", "7")]


@pytest.mark.parametrize("phases", [[1, 2], [{"losses": ["x"]}], [{"name": "a", "losses": 3}]])
def test_info_of_unusual_phases(phases, tmp_path, tiny_weights):
    odd = with_provenance(tmp_path / "a.safetensors", tiny_weights, phases=phases, model="theirs")
    done = restore("info", odd)
    assert done.exit_code == 0
    rows = [line.partition("\t")[::2] for line in done.stdout.splitlines()]
    assert ("model", "mprnet-mscam") in rows
    assert ("provenance.model", "theirs") in rows
    assert any(name.startswith("phases") for name, _ in rows)


def test_a_header_that_is_not_json_is_refused(tmp_path, tiny_weights):
    odd = with_provenance(tmp_path / "a.safetensors", tiny_weights, loss=float("nan"))
    refused = restore("info", odd, "--json")
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert "NaN is not JSON" in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise ImportError('broken')", "broken"),
        ("raise OSError('libvips.so: broken')", "libvips.so: broken"),
        (
            "try: 1 / 0\nexcept ArithmeticError as e: raise ImportError('\\n\\nREAD') from e",
            "division",
        ),
    ],
)
def test_a_package_that_cannot_be_imported_is_named(fault, reason, tmp_path):
    (tmp_path / "pyvips.py").write_text(fault)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    done = subprocess.run(
        [sys.executable, "-m", "restore_cli", "info", tmp_path / "a.png"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot import the package 'pyvips': {reason}")
    assert "Traceback" not in done.stderr
