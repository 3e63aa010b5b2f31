"""Averages of frames: the equation, the middle, videos, and flow between frames."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image

from restore_cli.degradations.frames import average, gap_in, interpolate, read_frames
from restore_cli.degradations.response import to_encoded, to_linear
from restore_cli.errors import PictureError


def frame(n, height=40, width=48):
    """A textured picture that moves two pixels to the right per frame."""
    wide = (picture(height, width + 60, 1)[0] * 255).round().byte()
    return wide[:, :, 40 - 2 * n : 40 - 2 * n + width].contiguous()


@pytest.mark.parametrize(
    ("names", "gap"),
    [
        (["1", "2", "3", "5"], "between '3.png' and '5.png' frames are missing"),
        (["f_008", "f_010", "f_012"], ""),
        (["0", "00", "1"], "'0.png' and '00.png' have the same number"),
        (["1", "2", "02", "3"], "'2.png' and '02.png' have the same number"),
        (["1", "2", "9998", "9999"], "between '2.png' and '9998.png' frames are missing"),
        (["a1", "b7", "c2"], ""),
        (["x", "y", "z"], ""),
    ],
)
def test_gaps_in_the_numbers_are_found(names, gap):
    assert gap_in([Path(f"{name}.png") for name in names]) == gap


@pytest.mark.parametrize("response", ["linear", "gamma2.2", "srgb", "reds"])
def test_average_is_g_of_the_mean_of_inverse_g(response):
    frames = [frame(n) for n in range(5)]
    linear = torch.stack([to_linear(f[None].double() / 255, response) for f in frames]).mean(0)
    expected = to_encoded(linear, response)[0].float()
    assert torch.allclose(average(frames, response), expected, atol=1e-6)
    plain = torch.stack([f.float() / 255 for f in frames]).mean(0)
    assert torch.allclose(average(frames, "linear"), plain, atol=1e-6)
    if response != "linear":
        # Light is dominated by the bright: the mean is brighter than that of encoded values.
        assert average(frames, response).mean() > plain.mean() + 1e-4


def test_one_frame_is_itself():
    assert torch.allclose(average([frame(0)], "srgb"), frame(0).float() / 255, atol=1e-6)
    with pytest.raises(ValueError, match="no frames"):
        average([], "srgb")


def test_views_between_frames_lie_between_them():
    views = interpolate(frame(0, 96, 128), frame(2, 96, 128), 3)  # four pixels apart
    inner = (slice(None), slice(16, -16), slice(24, -24))
    middle = frame(1, 96, 128).float() / 255
    errors = [(view - middle)[inner].abs().mean() for view in views]
    mixed = (frame(0, 96, 128).float() + frame(2, 96, 128).float()) / 510
    blend = (mixed - middle)[inner].abs().mean()
    assert errors[1] < 0.5 * blend  # flow follows the motion, a cross-fade does not
    assert errors[1] < errors[0]
    assert errors[1] < errors[2]


def test_interpolated_averages_are_smoother():
    frames = [frame(n, 96, 128) for n in (0, 4)]
    few = average(frames, "linear")
    many = average(frames, "linear", between=7)
    true = average([frame(n, 96, 128) for n in range(5)], "linear")
    inner = (slice(None), slice(16, -16), slice(24, -24))
    assert (many - true)[inner].abs().mean() < 0.6 * (few - true)[inner].abs().mean()


def test_folders_and_videos_are_read_in_order(tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "film.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 24, (48, 40)
    )
    (tmp_path / "frames").mkdir()
    for n in range(6):
        array = frame(n).permute(1, 2, 0).numpy()
        Image.fromarray(array).save(tmp_path / "frames" / f"{n:04d}.png")
        writer.write(np.ascontiguousarray(array[..., ::-1]))
    writer.release()
    still = list(read_frames(tmp_path / "frames"))
    assert all(torch.equal(a, frame(n)) for n, a in enumerate(still))
    film = list(read_frames(tmp_path / "film.avi"))
    assert len(film) == len(still) == 6
    errors = [[(a.float() - b.float()).abs().mean() for b in still] for a in film]
    assert [int(np.argmin(row)) for row in errors] == list(range(6))  # and the colours are RGB
    assert max(min(row) for row in errors) < 12


def test_unreadable_films(tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no film")
    with pytest.raises(PictureError, match="cannot read the video"):
        list(read_frames(tmp_path / "film.mp4"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="has no frames"):
        list(read_frames(tmp_path / "empty"))
    Image.new("RGB", (8, 8)).save(tmp_path / "empty" / "0.png")
    Image.new("RGB", (8, 9)).save(tmp_path / "empty" / "1.png")
    with pytest.raises(PictureError, match="frame 1 is 8x9, the first is 8x8"):
        list(read_frames(tmp_path / "empty"))


def test_frames_of_a_folder_come_by_number_and_only_pictures(tmp_path):
    for n in (1, 2, 3, 10, 20):
        Image.new("L", (8, 8), n).save(tmp_path / f"{n}.png")
    (tmp_path / "._1.png").write_bytes(b"AppleDouble")
    assert [int(frame[0, 0, 0]) for frame in read_frames(tmp_path)] == [1, 2, 3, 10, 20]


@pytest.mark.slow
def test_a_broken_video_is_an_error_of_one_line_and_a_hint(tmp_path):
    (tmp_path / "a.mp4").write_bytes(bytes(range(256)) * 12)
    arguments = ("degrade", "a.mp4", "-o", "out", "--recipe", "reds")
    done = subprocess.run(  # in a new process, since OpenCV reads its level of messages once
        [sys.executable, "-m", "restore_cli", *arguments],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    error, hint, summary = done.stderr.splitlines()
    assert error == "error: cannot read the video 'a.mp4'"
    assert hint.startswith("hint: ")
    assert summary.startswith("0 pairs")
