"""What `--help` costs. That imports go down only is held by import-linter, in `make check`."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", [["--help"], ["image", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys, typer\n"
        "from restore_cli.cli.app import app\n"
        f"try: app({command!r})\n"
        "except SystemExit as error: assert not error.code, error.code\n"
        "heavy = {'torch', 'cv2', 'huggingface_hub', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
