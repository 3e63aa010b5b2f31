"""`restore doctor` tells which program a shell runs as `restore`."""

from __future__ import annotations

import os
from importlib.metadata import metadata

import pytest
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
    assert "another program" in found
    assert len(problems) == 1
    assert str(dump) in problems[0]
    assert "restore-cli" in problems[0]


@pytest.mark.skipif(os.name == "nt", reason="programs are found by suffix there")
def test_ours_is_none(tmp_path, monkeypatch):
    ours = program(tmp_path / "bin", "#!/usr/bin/python3\nfrom restore_cli.cli.app import main\n")
    monkeypatch.setenv("PATH", str(ours.parent))
    assert doctor._command() == (str(ours), [])


def test_no_program_is_no_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found, problems = doctor._command()
    assert "not in PATH" in found
    assert problems == []


def test_a_cache_that_is_a_broken_link_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "hub").symlink_to(tmp_path / "unplugged")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert any("cannot be written to" in problem for problem in doctor._cache()[1])


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


def test_every_extra_is_listed():
    extras = set(metadata("restore-cli").get_all("Provides-Extra"))
    assert set(doctor.EXTRAS.values()) == extras - {"dev"}
