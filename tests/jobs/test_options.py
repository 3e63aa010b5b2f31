"""Options of `restore image` that decide what a file holds: each changes the file."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from restore_cli.cli.app import app


def restore(*arguments):
    done = CliRunner().invoke(app, ["image", *(str(a) for a in arguments)])
    assert done.exit_code == 0, done.stderr
    return done


@pytest.fixture
def source(tmp_path):
    values = np.random.default_rng(0).integers(1, 256, (24, 32, 4), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def pixels(path):
    with Image.open(path) as image:
        return np.array(image)


def test_alpha(tmp_path, source, tiny_weights):
    results = {}
    for how in ("resize", "restore", "drop"):
        restore(source, "-w", tiny_weights, "--alpha", how, "-o", tmp_path / f"{how}.png")
        results[how] = pixels(tmp_path / f"{how}.png")
    assert results["drop"].shape == (96, 128, 3)
    assert results["resize"].shape == results["restore"].shape == (96, 128, 4)
    assert np.array_equal(results["resize"][..., :3], results["restore"][..., :3])
    assert not np.array_equal(results["resize"][..., 3], results["restore"][..., 3])


def test_quality_and_lossless(tmp_path, source):
    sizes = {}
    for name, options in {
        "low.webp": ("--quality", "10"),
        "high.webp": ("--quality", "90"),
        "exact.webp": ("--quality", "10", "--lossless"),
        "low.avif": ("--quality", "10"),
        "exact.avif": ("--lossless",),
    }.items():
        restore(source, "-m", "bicubic", "-x1", *options, "-o", tmp_path / name)
        sizes[name] = (tmp_path / name).stat().st_size
    assert sizes["low.webp"] < sizes["high.webp"] < sizes["exact.webp"]
    assert sizes["low.avif"] < sizes["exact.avif"]
    assert np.array_equal(pixels(tmp_path / "exact.webp"), pixels(source))


def test_check_says_what_limits_the_result(tmp_path, source):
    noise = np.random.default_rng(0).integers(0, 256, (120, 120, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    arguments = (tmp_path / "b.png", "-m", "bicubic", "--on-exists", "overwrite")
    assert "it is noisy" in restore(*arguments).stderr
    assert "it is noisy" not in restore(*arguments, "--no-check").stderr


def test_every_option_has_a_variable(tmp_path, source, monkeypatch):
    monkeypatch.setenv("RESTORE_IMAGE_SCALE", "3")
    monkeypatch.setenv("RESTORE_IMAGE_MODEL", "bicubic")
    restore(source)
    assert pixels(tmp_path / "a_x3.png").shape == (72, 96, 4)


@pytest.mark.parametrize("tile", ["off", "64"])
def test_resume_knows_the_tiles(source, tiny_weights, tile):
    arguments = (source, "-w", tiny_weights, "--resume", "--json", "--overlap", "8")
    assert '"status": "restored"' in restore(*arguments).stdout
    assert '"status": "restored"' in restore(*arguments, "--tile", tile).stdout
    assert '"status": "skipped"' in restore(*arguments, "--tile", tile).stdout
