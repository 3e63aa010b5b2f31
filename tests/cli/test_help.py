"""Every example in the help is run, as it stands; by a shell where it needs one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from test_docs import run

from restore_cli.cli import degrade, doctor, image, info

EXAMPLES = [
    (command.__name__.rpartition(".")[2], " ".join(example.split()))
    for command in (image, degrade, info, doctor)
    for example in re.split(r"\n(?=  \S)|\n\n", command.EPILOG)
    if example.lstrip().startswith(("restore ", "cat ", "find ", "ffmpeg "))
]


@pytest.fixture
def folder(tmp_path):
    """What the examples name."""
    values = np.random.default_rng(0).integers(0, 256, (80, 96, 3), np.uint8)
    names = ("blurry.png", "sharp.png", "shot.jpg", "photo.jpg", "photo_x4.png")
    for name in (*names, "holiday/a.jpg", "holiday/sub/b.jpg", "photos/c.jpg", "shots/d.tif"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    if shutil.which("ffmpeg"):
        film = "ffmpeg -v error -f lavfi -i testsrc=s=320x180:r=25:d=0.04 in.mp4"
        assert run(film, tmp_path)[0] == 0
    np.save(tmp_path / "psf.npy", np.full((3, 3), 1 / 9))
    bundled = next((ROOT / "restore_cli/weights/bundled").glob("*.safetensors"))
    shutil.copy(bundled, tmp_path / "trained.safetensors")
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="examples are for a POSIX shell")
@pytest.mark.parametrize(("command", "example"), EXAMPLES, ids=[e for _, e in EXAMPLES])
def test_examples(folder, command, example):
    if any(made in example for made in ("film.mp4", "datasets replay", "datasets check pairs")):
        pytest.skip("needs what another example makes; see tests/datasets")
    if "ffmpeg" in example and not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg here; the pipe is tested in test_pipes.py")
    if command == "degrade":
        (folder / "blurry.png").unlink()  # its output
    status, said = run(example, folder)
    assert status in ({0, 1} if command == "doctor" else {0}), said  # 1: problems of this machine


def test_there_are_examples():
    assert {command for command, _ in EXAMPLES} == {"image", "degrade", "info", "doctor"}
    assert len(EXAMPLES) > 12


def test_completion_is_offered():
    done = subprocess.run(
        [sys.executable, "-m", "restore_cli", "--show-completion", "bash"],
        # Else it asks which shell runs the tests, which may be one without completion.
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "complete" in done.stdout, done.stderr
