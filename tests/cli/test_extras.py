"""What an extra brings is asked for only by what needs it, in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT, picture, rgb8
from PIL import Image
from typer.testing import CliRunner

from restore_cli.cli.app import app

BLOCKED = (
    "import sys\n"
    "for name in ('accelerate', 'matplotlib', 'av', 'onnxruntime', 'ray', 'scipy', 'spandrel',\n"
    "             'starlette', 'tensorboard', 'uvicorn'):\n"
    "    sys.modules[name] = None\n"
    "from restore_cli.cli.app import app\n"
    "for arguments in {commands!r}:\n"
    "    try:\n"
    "        app(arguments)\n"
    "    except SystemExit as end:\n"
    "        assert not end.code, (arguments, end.code)\n"
)


def test_training_without_its_extra_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    run = str(tmp_path.with_name("run"))
    arguments = ["train", "gfn-lite", "--data", str(tmp_path), "-o", run]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "'matplotlib', which is not installed" in done.stderr
    assert 'pip install "restore-cli[train]"' in done.stderr
    assert CliRunner().invoke(app, ["train"]).exit_code == 0  # the list of recipes


@pytest.mark.slow
def test_everything_else_works_without_any_extra(tmp_path):
    pixels = rgb8(picture(96, 96))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sharp = str(tmp_path / "a.png")
    commands = [
        ["image", sharp, "-m", "gfn", "-q"],
        ["degrade", sharp, "-o", str(tmp_path / "pairs"), "--recipe", "shake"],
        ["models"],
        ["models", "info", "gfn"],
        ["weights", "list"],
        ["info", sharp],
        ["train"],
        ["benchmark", "--dataset", "blurmini", "--model", "bicubic", "-o", str(tmp_path / "b")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED.format(commands=commands)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a_x4.png").exists()
