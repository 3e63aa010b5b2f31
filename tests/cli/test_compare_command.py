"""`restore compare`: scores of two pictures, and both beside each other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import picture, restore, rgb8
from PIL import Image


@pytest.fixture
def files(tmp_path):
    """A sharp picture, a noisy one, and one of half the size."""
    sharp = rgb8(picture(48, 64))
    noisy = np.clip(
        sharp.astype(int) + np.random.default_rng(0).integers(-9, 10, sharp.shape), 0, 255
    )
    made = {"sharp": sharp, "noisy": noisy.astype(np.uint8), "small": sharp[::2, ::2].copy()}
    for name, values in made.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    return {name: tmp_path / f"{name}.png" for name in made}


def test_two_pictures_are_scored(files):
    done = restore("compare", files["noisy"], files["sharp"], "--json")
    (row,) = json.loads(done.stdout)
    values = [np.asarray(Image.open(files[name]), float) for name in ("noisy", "sharp")]
    error = np.square(values[0] - values[1]).mean() / 255**2
    assert row["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)
    same = ("compare", files["sharp"], files["sharp"])
    assert restore(*same).stdout.split("\t")[1] == "inf dB"
    assert json.loads(restore(*same, "--json").stdout)[0]["psnr"] is None


def test_both_are_scored_against_a_reference(files, tmp_path):
    page = tmp_path / "page.html"
    arguments = ("compare", files["small"], files["noisy"], "--reference", files["sharp"])
    done = restore(*arguments, "-o", page)
    assert done.exit_code == 0, done.stderr
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        str(files["small"]),
        str(files["noisy"]),
    ]
    assert "noisy.png" in page.read_text()
    again = restore(*arguments, "-o", page)
    assert (again.exit_code, "exists" in again.stderr) == (2, True)
    assert restore(*arguments, "-o", page, "--on-exists", "overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (("--reference", "small"), 1, "is 32x24, but"),
        (("-o", "sharp"), 2, "is one of the inputs or outputs"),
        (("--protocol", "rbg"), 2, "Did you mean 'rgb'?"),
        (("--protocol", "kohler"), 1, "too small for protocol 'kohler'"),
    ],
)
def test_what_cannot_be_compared_is_refused(files, more, status, message):
    more = [files.get(word, word) for word in more]
    done = restore("compare", files["noisy"], files["sharp"], *more)
    assert (done.exit_code, message in done.stderr) == (status, True), done.stderr


def test_a_missing_picture(files, tmp_path):
    done = restore("compare", files["sharp"], tmp_path / "none.png")
    assert (done.exit_code, "no such file" in done.stderr) == (3, True)
