"""What is said of an input: sharp, out of focus, blocky, noisy; of a shaken one nothing."""

from __future__ import annotations

from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch
from conftest import ROOT

from restore_cli.image import read_image
from restore_cli.jobs.preflight import input_notes

PICTURES = sorted(
    path for path in (files("restore_cli.datasets") / "blurmini").iterdir() if path.suffix == ".png"
)


def photo() -> np.ndarray:
    """A sharp picture of edges at all angles and fine texture."""
    rng = np.random.default_rng(0)
    image = np.full((480, 640, 3), 0.5, np.float32)
    for _ in range(400):
        centre = tuple(int(v) for v in rng.integers(0, 640, 2))
        colour = tuple(float(v) for v in rng.random(3))
        cv2.circle(image, centre, int(rng.integers(4, 30)), colour, -1, cv2.LINE_AA)
    return image


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.astype(np.float32))).permute(2, 0, 1)[None]


def disc(radius: int) -> np.ndarray:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    kernel = (x * x + y * y <= radius * radius).astype(np.float32)
    return kernel / kernel.sum()


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    done, data = cv2.imencode(".jpg", (image * 255).astype(np.uint8), [1, quality])
    assert done
    return cv2.imdecode(data, 1) / 255


CASES = {
    "hardly blurred": lambda image: image,
    "out of focus": lambda image: cv2.filter2D(image, -1, disc(7)),
    "blocks of strong JPEG": lambda image: jpeg(image, 15),
    "noisy": lambda image: image + np.random.default_rng(1).normal(0, 8 / 255, image.shape),
}


@pytest.mark.parametrize("words", sorted(CASES))
def test_each_fault_is_named(words):
    found = input_notes(tensor(CASES[words](photo())))
    assert any(words in remark for remark in found), found


@pytest.mark.parametrize("angle", [0, 30, 75, 120])
def test_motion_is_what_the_models_are_for(angle):
    kernel = np.zeros((31, 31), np.float32)
    kernel[15, 8:23] = 1
    turn = cv2.getRotationMatrix2D((15, 15), angle, 1)
    kernel = cv2.warpAffine(kernel, turn, (31, 31))
    moved = cv2.filter2D(photo(), -1, kernel / kernel.sum())
    assert input_notes(tensor(moved)) == []


def test_small_pictures_tell_nothing():
    assert input_notes(torch.zeros(1, 3, 8, 8)) == []


def test_photos_before_and_after_they_were_shaken():
    """Three of blurmini's pictures are sharp to the pixel; the examples are three, shaken."""
    sharp = {
        path.stem
        for path in PICTURES
        if any("hardly blurred" in remark for remark in input_notes(read_image(path).pixels))
    }
    assert sharp == {"casa-mila", "motorcycle_left", "snowy-mountains"}
    shaken = sorted((ROOT / "examples").glob("*.png"))
    assert len(shaken) == 3
    for path in shaken:
        found = input_notes(read_image(path).pixels)
        assert not any("hardly" in remark or "focus" in remark for remark in found)
