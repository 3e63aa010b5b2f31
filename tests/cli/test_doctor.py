"""`restore doctor` tells which program a shell runs as `restore`."""

from __future__ import annotations

import os
from importlib.metadata import metadata

import numpy as np
import pytest
from conftest import restore
from huggingface_hub import constants

from restore_cli.cli import doctor


def program(folder, text: str):
    folder.mkdir()
    path = folder / "restore"
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.mark.skipif(os.name == "nt", reason="programs are found by suffix there")
def test_another_program_of_the_same_name_is_a_problem(tmp_path, monkeypatch):
    dump = program(tmp_path / "sbin", "#!/bin/sh\necho dump\n")
    monkeypatch.setenv("PATH", str(dump.parent))
    found, problems = doctor._command()
    assert "another program" in found["restore runs"]
    assert len(problems) == 1
    assert str(dump) in problems[0]
    assert "restore-cli" in problems[0]


@pytest.mark.skipif(os.name == "nt", reason="programs are found by suffix there")
def test_ours_is_none(tmp_path, monkeypatch):
    ours = program(tmp_path / "bin", "#!/usr/bin/python3\nfrom restore_cli.cli.app import main\n")
    monkeypatch.setenv("PATH", str(ours.parent))
    assert doctor._command() == ({"restore runs": str(ours)}, [])


def test_no_program_is_no_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found, problems = doctor._command()
    assert "not in PATH" in found["restore runs"]
    assert problems == []


def test_a_cache_that_is_a_broken_link_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "hub").symlink_to(tmp_path / "unplugged")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert any("cannot be written to" in problem for problem in doctor._cache()[1])


def test_a_cache_that_cannot_be_locked_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert not any("written to" in problem for problem in doctor._cache()[1])
    (tmp_path / ".locks").touch()
    assert any(".locks' cannot be written to" in problem for problem in doctor._cache()[1])


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("HF_HUB_CACHE", "hub", "depends on the current folder"),
        ("ENDPOINT", "nonsense", "HF_ENDPOINT 'nonsense' is not the address of a server"),
        ("ENDPOINT", "http://h:bad", "HF_ENDPOINT 'http://h:bad' is not the address of a server"),
    ],
)
def test_settings_of_the_hub_that_cannot_work_are_problems(monkeypatch, name, value, problem):
    monkeypatch.setattr(constants, name, value)
    assert any(problem in one for one in doctor._cache()[1])


def test_a_machine_without_temporary_files_has_a_problem(monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", none)
    assert any("no temporary files can be written" in one for one in doctor._cache()[1])


def test_onnxruntime_writes_no_id_of_the_machine(monkeypatch):
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "")
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    restore("models", "info", "bicubic")
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_requirements_and_extras(monkeypatch):
    extras = set(metadata("restore-cli").get_all("Provides-Extra"))
    found = doctor.requirements()
    assert set(found.values()) == extras - {"dev"} | {""}
    assert (found["pyvips"], found["ray"]) == ("", "ray")
    assert "ruff" not in found
    modules = {}
    monkeypatch.setattr("importlib.import_module", modules.setdefault)
    doctor._software()
    assert {"torch", "matplotlib", "huggingface_hub", "pillow_heif", "PIL", "cv2"} <= set(modules)


def test_packages_that_cannot_be_imported(tmp_path, monkeypatch, capsys):
    for name in ("broken", "extra", "a_tool"):
        (tmp_path / f"{name}.py").write_text("raise OSError('libx.so: cannot open')")
    (tmp_path / "chatty.py").write_text("import sys; print(1), print(2, file=sys.stderr)")
    monkeypatch.syspath_prepend(tmp_path)
    needed = {"broken": "", "absent": "", "chatty": "", "extra": "zoo", "other": "zoo"}
    monkeypatch.setattr(doctor, "requirements", lambda: needed)
    modules = {name: [name] for name in needed} | {"a_tool": ["Chatty"]}
    monkeypatch.setattr(doctor, "packages_distributions", lambda: modules)
    monkeypatch.setattr(doctor, "_version", {"broken": "1.0", "chatty": "3", "extra": "2.0"}.get)
    facts, problems = doctor._software()
    assert facts["chatty"] == "3"
    assert capsys.readouterr() == ("", "")
    assert facts["broken"] == "1.0, cannot be imported: libx.so: cannot open"
    assert facts["extra"] == "2.0, cannot be imported: libx.so: cannot open"
    assert facts["other"] == "not installed: restore-cli[zoo]"
    assert [problem.partition(" ")[0] for problem in problems] == ["broken", "absent", "extra"]
    assert problems[-1].endswith('; pip install -U "restore-cli[zoo]"')


@pytest.mark.parametrize(("error", "names"), [(10, []), (11, ["maxim", "maxim-mscam"])])
def test_results_of_a_gpu_are_compared_with_those_of_the_cpu(error, names, monkeypatch):
    def load_model(name, *, device, precision):
        return lambda picture: picture // 2 + np.uint8(error if device == "mps" else 0)

    monkeypatch.setattr("restore_cli.load_model", load_model)
    monkeypatch.setattr("restore_cli.inference.devices.get_device", lambda _: "cpu")
    assert doctor._results() == ({}, [])
    monkeypatch.setattr("restore_cli.inference.devices.get_device", lambda _: "mps")
    facts, problems = doctor._results()
    assert set(facts.values()) == {f"up to {error} of 255"}
    assert [problem.partition(" ")[0] for problem in problems] == names


def test_one_section_that_fails_hides_no_other(monkeypatch):
    def fail():
        raise ImportError("no psutil")

    monkeypatch.setattr(doctor, "requirements", dict)
    fail.__name__ = "_hardware"
    monkeypatch.setattr(doctor, "_hardware", fail)
    done = restore("doctor")
    assert done.exit_code == 1
    assert "problem: hardware cannot be examined: no psutil" in done.stderr
    assert "verified" in done.stdout


def test_own_weights_are_verified(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert doctor._own_weights()[1] == []
    (tmp_path / "restore-cli/weights").mkdir(parents=True)
    (tmp_path / "restore-cli/weights/a.b.json").write_text("{}")
    assert "is not a record" in doctor._own_weights()[1][0]
