"""Films: every frame as a picture would be, sound untouched, or one line that says why not."""

from __future__ import annotations

import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from typer.testing import CliRunner

from restore_cli.cli.app import app

av = pytest.importorskip("av")


def restore(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def film(path, *, frames=6, sound=True):
    with av.open(str(path), "w") as writer:
        image = writer.add_stream("libx264", rate=10)
        image.width, image.height, image.pix_fmt = 32, 24, "yuv420p"
        noise = writer.add_stream("aac", rate=16_000) if sound else None
        for n in range(frames):
            values = np.full((24, 32, 3), 40 + 30 * n, np.uint8)
            writer.mux(image.encode(av.VideoFrame.from_ndarray(values, "rgb24")))
        writer.mux(image.encode())
        if noise is not None:
            for n in range(10):
                samples = np.random.default_rng(n).standard_normal((1, 1024)).astype(np.float32)
                block = av.AudioFrame.from_ndarray(samples / 8, "fltp", "mono")
                block.sample_rate, block.pts = 16_000, 1024 * n
                writer.mux(noise.encode(block))
            writer.mux(noise.encode())
    return path


def contents(path):
    with av.open(str(path)) as reader:
        images = [frame.to_ndarray(format="rgb24") for frame in reader.decode(video=0)]
    with av.open(str(path)) as reader:
        sound = [bytes(p) for p in reader.demux(audio=0)] if reader.streams.audio else []
    with av.open(str(path)) as reader:
        return images, sound, reader.streams.video[0].average_rate


def test_a_film(tmp_path, tiny_weights):
    source = film(tmp_path / "a.mp4")
    done = restore("image", source, "--model", "bicubic", "-x2")
    assert done.exit_code == 0, done.stderr
    images, sound, rate = contents(tmp_path / "a_x2.mp4")
    before, noise, _ = contents(source)
    assert len(images) == len(before) == 6
    assert images[0].shape == (48, 64, 3)
    for one, other in zip(images, before, strict=True):
        assert abs(one.mean() - other.mean()) < 3
    assert sound == noise
    assert rate == Fraction(10)
    again = restore("image", source, "--model", "bicubic", "-x2", "--resume", "--json")
    assert json.loads(again.stdout.splitlines()[0])["status"] == "skipped"


def test_a_film_without_sound_through_a_network(tmp_path, tiny_weights):
    source = film(tmp_path / "a.mov", frames=2, sound=False)
    done = restore("image", source, "-w", tiny_weights, "-o", tmp_path / "out.mkv")
    assert done.exit_code == 0, done.stderr
    images, sound, _ = contents(tmp_path / "out.mkv")
    assert (len(images), images[0].shape, sound) == (2, (96, 128, 3), [])


def test_colours_and_rotation(tmp_path):
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w") as writer:
        image = writer.add_stream("libx264", rate=10, options={"crf": "1"})
        image.width, image.height, image.pix_fmt = 64, 32, "yuv420p"
        values = np.zeros((32, 64, 3), np.uint8)
        values[:] = 200, 60, 30
        values[:16, :32] = 20, 200, 90  # upper left
        for _ in range(2):
            writer.mux(image.encode(av.VideoFrame.from_ndarray(values, "rgb24")))
        writer.mux(image.encode())
    assert restore("image", source, "--model", "bicubic", "-x2").exit_code == 0
    frames, _, _ = contents(tmp_path / "a_x2.mp4")
    assert np.abs(frames[0][50, 100].astype(int) - (200, 60, 30)).max() <= 6
    assert np.abs(frames[0][10, 10].astype(int) - (20, 200, 90)).max() <= 6
    with av.open(str(tmp_path / "a_x2.mp4")) as reader:
        assert reader.streams.video[0].codec_context.colorspace == 1  # BT.709, and said


def test_what_is_no_film(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"no film" * 100)
    done = restore("image", tmp_path / "a.mp4", "--model", "bicubic")
    assert done.exit_code == 1
    assert "cannot restore" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    source = film(tmp_path / "b.mp4", frames=1)
    wrong = restore("image", source, "--model", "bicubic", "-o", tmp_path / "b.png")
    assert wrong.exit_code == 2
    assert "cannot become" in wrong.stderr
    monkeypatch.setitem(sys.modules, "av", None)
    without = restore("image", source, "--model", "bicubic")
    assert without.exit_code == 2
    assert "restore-cli[video]" in without.stderr
