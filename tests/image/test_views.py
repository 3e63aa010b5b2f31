"""Smaller versions and parts are those of the picture as it is read whole."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from files import wide_profile
from PIL import Image

from restore_cli.errors import PictureError
from restore_cli.image import read_image
from restore_cli.image.views import read_region, read_thumbnail
from restore_cli.resample import resize_bicubic


def smooth(height, width, channels=3):
    rows, columns = np.mgrid[:height, :width]
    waves = [np.sin(rows / (9 + c)) + np.cos(columns / (11 + 2 * c)) for c in range(channels)]
    return np.stack([(wave + 2) * 60 for wave in waves], -1).astype(np.uint8)


@pytest.mark.parametrize("turn", range(1, 9))
def test_parts_of_turned_pictures(tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = tmp_path / "a.png"
    Image.fromarray(smooth(50, 70)).save(path, exif=exif)
    whole = read_image(path).pixels
    assert whole.shape[-2:] == ((50, 70) if turn < 5 else (70, 50))
    part = read_region(path, 7, 11, 20, 30)
    assert torch.equal(part.pixels, whole[..., 7:27, 11:41])
    small, size = read_thumbnail(path, 25, 25)
    assert size == whole.shape[-2:]
    assert small.size == (25, 25)
    assert (small.pixels - resize_bicubic(whole, 25, 25)).abs().max() < 0.05


@pytest.mark.parametrize(
    ("name", "mode", "options"),
    [
        ("a.jpg", "RGB", {"quality": 95}),
        ("a.jpg", "CMYK", {"quality": 95}),
        ("a.png", "L", {}),
        ("a.png", "RGB", {"icc_profile": wide_profile()}),
        ("a.webp", "RGB", {"lossless": True}),
        ("a.tif", "RGB", {}),
        ("a.bmp", "RGB", {}),
    ],
)
def test_smaller_versions(tmp_path, name, mode, options):
    path = tmp_path / name
    Image.fromarray(smooth(800, 640)).convert(mode).save(path, **options)
    whole = read_image(path).pixels
    small, _ = read_thumbnail(path, 80, 64)
    assert small.size == (80, 64)
    assert (small.pixels - resize_bicubic(whole, 80, 64)).abs().mean() < 0.01
    assert read_thumbnail(path, 5000, 5000)[0].size == (800, 640)


def test_what_is_hidden_does_not_shine_through(tmp_path):
    values = np.full((40, 40, 4), 255, np.uint8)
    values[:, :20] = (0, 0, 0, 0)
    Image.fromarray(values).save(tmp_path / "a.png")
    assert read_thumbnail(tmp_path / "a.png", 10, 10)[0].on_white.min() > 0.99


def test_a_part_outside_is_an_error(tmp_path):
    Image.fromarray(smooth(20, 20)).save(tmp_path / "a.png")
    with pytest.raises(PictureError, match=r"a\.png"):
        read_region(tmp_path / "a.png", 10, 10, 20, 20)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_picture(tmp_path):
    """36 megapixels are 430 MB of floats, and 108 MB of bytes."""
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((6000, 6000, 3), np.uint8)).save(path, compress_level=1)
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from restore_cli.image.views import read_region, read_thumbnail\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before, path = most(), Path(sys.argv[1])\n"
        "read_thumbnail(path, 800, 800), read_region(path, 5000, 5000, 500, 500)\n"
        "print(most() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 80_000  # KB
