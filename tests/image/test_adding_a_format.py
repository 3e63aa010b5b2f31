"""A picture format is one module: with it, files are recognised, read, written and listed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

pytestmark = pytest.mark.slow

MODULE = '''
"""ppm: 8 bits per channel, without metadata."""

from functools import partial

from PIL import Image

from restore_cli.image.format_spec import Format, begins_with
from restore_cli.image.to_png import load_as_png, size_with_pillow


def _save(file, image, keep, quality, lossless, depth):
    Image.fromarray(image.numpy()).save(file, "PPM")


FORMAT = Format(
    name="PPM",
    recognise=begins_with(b"P5", b"P6"),
    suffixes=(".pnm",),
    load=partial(load_as_png, "PPM"),
    read_size=partial(size_with_pillow, "PPM"),
    save=_save,
    has_quality=False,
)
'''


def test_a_format_is_one_module(tmp_path):
    package = tmp_path / "tree" / "restore_cli"
    shutil.copytree(
        ROOT / "restore_cli", package, ignore=shutil.ignore_patterns("__pycache__", "bundled")
    )
    shutil.copy(ROOT / "weights_manifest.toml", package.parent)
    (package / "image/kinds/ppm.py").write_text(MODULE, "utf-8")

    def restore(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "restore_cli", *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(package.parent), "COLUMNS": "200"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    values = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    common = ("--model", "bicubic", "-x1", "--no-check")
    restore("image", "a.png", *common, "-f", "ppm", "-o", "b.pnm")
    assert (tmp_path / "b.pnm").read_bytes().startswith(b"P6")
    restore("image", "b.pnm", *common, "-o", "c.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "c.png")), values)
    assert "format: ppm" in restore("info", "b.pnm").replace("\t", ": ")
