"""Videos: every frame as a picture would be, sound untouched, or one line that says why not."""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from conftest import restore
from PIL import Image

av = pytest.importorskip("av")


def video(path, *, frames=6, sound=True):
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


def test_a_video(tmp_path, tiny_weights):
    source = video(tmp_path / "a.mp4")
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


def test_a_video_without_sound_through_a_network(tmp_path, tiny_weights):
    source = video(tmp_path / "a.mov", frames=2, sound=False)
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


@pytest.mark.parametrize(
    ("pix_fmt", "width"), [("yuv420p", 64), ("yuv420p10le", 64), ("yuv420p10le", 63)]
)
def test_frames_are_decoded_and_encoded_without_a_shift(tmp_path, pix_fmt, width):
    """FFmpeg repeats chroma and truncates by default; odd widths in 10 bits were noise."""
    source = tmp_path / "a.mkv"
    coarse = np.random.default_rng(0).integers(30, 220, (4, 4, 3), np.uint8)
    sharp = np.asarray(Image.fromarray(coarse).resize((64, 48), Image.Resampling.BICUBIC))
    sharp = np.ascontiguousarray(sharp[:, :width])
    flags = {"interpolation": 4 | 0x2000 | 0x40000}
    with av.open(str(source), "w") as writer:
        image = writer.add_stream("ffv1", rate=10)
        image.width, image.height, image.pix_fmt = width, 48, pix_fmt
        image.codec_context.colorspace = image.codec_context.color_range = 1  # BT.709, limited
        frame = av.VideoFrame.from_ndarray(sharp, "rgb24").reformat(
            format=pix_fmt, dst_colorspace="ITU709", dst_color_range="MPEG", **flags
        )
        frame.colorspace, frame.color_range = 1, 1
        writer.mux(image.encode(frame))
        writer.mux(image.encode())
    done = restore("image", source, "--model", "bicubic", "-x1", "-o", tmp_path / "b.mkv")
    assert done.exit_code == 0, done.stderr
    with av.open(str(tmp_path / "b.mkv")) as reader:
        made = next(reader.decode(video=0)).reformat(
            format="rgb24", src_colorspace="ITU709", src_color_range="MPEG", **flags
        )
    error = made.to_ndarray(format="rgb24")[:, : width - width % 2].astype(int)
    error -= sharp[:, : width - width % 2]
    assert abs(error.mean()) < 0.6
    assert np.abs(error).mean() < 3


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_the_last_picture_is_shown_as_long_as_before(tmp_path, suffix):
    source = tmp_path / f"a{suffix}"
    with av.open(str(source), "w") as writer:
        image = writer.add_stream("libx264", rate=25, options={"bf": "0"})
        image.width, image.height, image.pix_fmt = 32, 24, "yuv420p"
        image.codec_context.flags |= 1 << 8  # durations of frames are kept
        image.codec_context.time_base = Fraction(1, 25)
        for n in range(5):
            frame = av.VideoFrame.from_ndarray(np.full((24, 32, 3), 40 * n, np.uint8), "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 25)
            frame.duration = 250 if n == 4 else 1
            writer.mux(image.encode(frame))
        writer.mux(image.encode())
    assert restore("image", source, "--model", "bicubic", "-x2").exit_code == 0
    with av.open(str(source)) as one, av.open(str(tmp_path / f"a_x2{suffix}")) as other:
        assert one.duration == other.duration == pytest.approx(10_160_000, abs=50_000)


def test_a_pipe_with_the_suffix_of_a_video_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    done = restore("image", tmp_path / "a.mp4", "--model", "bicubic", "-o", tmp_path / "b.mp4")
    assert (done.exit_code, "is not a regular file" in done.stderr) == (2, True)


def test_videos_in_folders_are_announced_and_taken_if_asked_for(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    video(folder / "a.mp4", frames=1, sound=False)
    usual = ("--model", "bicubic", "-x1", "-o", f"{tmp_path}/out/")
    alone = restore("image", folder, *usual)
    assert (alone.exit_code, "hint: name videos" in alone.stderr) == (3, True)
    Image.new("RGB", (16, 16)).save(folder / "b.png")
    mixed = restore("image", folder, *usual)
    assert mixed.exit_code == 0
    assert "left out: 1 video in folders" in mixed.stderr
    for asked in ([folder, "--include", "*.mp4"], [folder / "*.mp4", "--on-exists", "overwrite"]):
        done = restore("image", *asked, *usual)
        assert done.stdout.split() == [str(tmp_path / "out/a_deblurred.mp4")]
        assert "left out" not in done.stderr


def test_the_plan_of_a_video(tmp_path):
    planned = restore("image", video(tmp_path / "a.mp4"), "--model", "bicubic", "-x2", "-n")
    assert "1 picture to do" in planned.stderr
    assert "cannot be read" not in planned.stdout + planned.stderr


def test_what_is_no_video(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    done = restore("image", tmp_path / "a.mp4", "--model", "bicubic")
    assert done.exit_code == 1
    assert "cannot restore" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    source = video(tmp_path / "b.mp4", frames=1)
    wrong = restore("image", source, "--model", "bicubic", "-o", tmp_path / "b.png")
    assert wrong.exit_code == 2
    assert "cannot write" in wrong.stderr
    monkeypatch.setitem(sys.modules, "av", None)
    without = restore("image", source, "--model", "bicubic")
    assert without.exit_code == 2
    assert "restore-cli[video]" in without.stderr


# What a container says besides pictures ---------------------------------------------------------


def make(path, frames, *, codec="libx264", pix_fmt="yuv420p", first=0, **context):
    """A video of arrays (H, W, 3), uint8; `first`: number of the first frame in time."""
    with av.open(str(path), "w") as writer:
        image = writer.add_stream(codec, rate=10)
        image.height, image.width = frames[0].shape[:2]
        image.pix_fmt = pix_fmt
        image.options = {"qp": "0"} if codec == "libx264" else {}
        for name, value in context.items():
            setattr(image.codec_context, name, value)
        for n, values in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(values, "rgb24")
            matrix = context.get("colorspace", 2)
            names = {1: "ITU709", 2: "ITU601", 6: "ITU601", 9: "BT2020"}
            frame = frame.reformat(format=pix_fmt, dst_colorspace=names[matrix])
            frame.pts, frame.time_base = first + n, Fraction(1, 10)
            writer.mux(image.encode(frame))
        writer.mux(image.encode())
    return path


def corner(height=24, width=32):
    """A frame of which every corner has a colour of its own."""
    values = np.full((height, width, 3), 128, np.uint8)
    middle, centre = height // 2, width // 2
    values[:middle, :centre] = (220, 30, 30)
    values[:middle, centre:] = (30, 220, 30)
    values[middle:, :centre] = (30, 30, 220)
    return values


def same(source, target=None, *options):
    target = target or source.with_name(f"{source.stem}_deblurred{source.suffix}")
    done = restore("image", source, "--model", "bicubic", "-x1", "-o", target, *options)
    assert done.exit_code == 0, done.stderr
    with av.open(str(target)) as reader:
        stream = reader.streams.video[0]
        frames = list(reader.decode(stream))
    return target, frames, done.stderr


def test_sound_before_the_first_picture_is_kept(tmp_path):
    source = video(tmp_path / "sound.mp4")
    silent = make(tmp_path / "silent.mp4", [corner()] * 3)
    late = tmp_path / "late.mp4"
    with av.open(str(source)) as one, av.open(str(silent)) as two, av.open(str(late), "w") as out:
        image = out.add_stream_from_template(two.streams.video[0])
        sound = out.add_stream_from_template(one.streams.audio[0])
        for packet in two.demux(video=0):
            if packet.size:
                packet.pts += int(2 / packet.time_base)
                packet.dts += int(2 / packet.time_base)
                packet.stream = image
                out.mux(packet)
        for packet in one.demux(audio=0):
            if packet.size:
                packet.stream = sound
                out.mux(packet)
    target, frames, said = same(late)
    assert contents(target)[1] == contents(late)[1]
    assert float(frames[0].pts * frames[0].time_base) == pytest.approx(2.0, abs=0.01)
    assert "note" not in said


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_high_dynamic_range_goes_through(tmp_path, transfer, name):
    says = {"colorspace": 9, "color_primaries": 9, "color_trc": transfer, "color_range": 1}
    source = make(tmp_path / "a.mkv", [corner()] * 2, pix_fmt="yuv420p10le", **says)
    _, frames, _ = same(source)
    frame = frames[0]
    assert frame.format.name == "yuv420p10le"
    assert [int(n) for n in (frame.colorspace, frame.color_primaries, frame.color_trc)] == [
        9,
        9,
        transfer,
    ]
    with av.open(str(source)) as reader:
        before = next(reader.decode(video=0)).to_ndarray().astype(int)
    assert np.median(np.abs(frame.to_ndarray().astype(int) - before)) <= 2
    info = json.loads(restore("info", source, "--json").stdout)
    assert (info["dynamic_range"], info["depth"]) == (name, 10)


@pytest.mark.parametrize(("height", "matrix"), [(480, 6), (720, 1)])
def test_videos_that_say_nothing_are_meant_by_their_size(tmp_path, height, matrix):
    wide = np.zeros((height, 64, 3), np.uint8) + np.uint8((200, 40, 90))
    source = make(tmp_path / "a.mkv", [wide], colorspace=matrix)
    plain = tmp_path / "plain.mkv"
    with av.open(str(source)) as reader, av.open(str(plain), "w") as out:
        image = out.add_stream("libx264", rate=10, options={"qp": "0"})
        image.height, image.width, image.pix_fmt = height, 64, "yuv420p"
        for frame in reader.decode(video=0):
            frame.colorspace = 2
            out.mux(image.encode(frame))
        out.mux(image.encode())
    _, frames, _ = same(plain)
    seen = frames[0].reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
    assert np.abs(seen[height // 2, 32].astype(int) - (200, 40, 90)).max() < 6


def turned(path, matrix):
    """A video with another display matrix in its track header."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = matrix
    numbers = [a, b, 0, c, d, 0, 0, 0, 0x4000]
    data[place : place + 36] = struct.pack(">9i", *(n << 16 for n in numbers[:8]), 0x40000000)
    path.write_bytes(data)
    return path


ALL = np.array(corner())
MATRICES = {
    (1, 0, 0, 1): ALL,
    (-1, 0, 0, 1): ALL[:, ::-1],
    (1, 0, 0, -1): ALL[::-1],
    (-1, 0, 0, -1): ALL[::-1, ::-1],
    (0, 1, -1, 0): np.rot90(ALL, -1),
    (0, -1, 1, 0): np.rot90(ALL),
    (0, 1, 1, 0): ALL.swapaxes(0, 1),
    (0, -1, -1, 0): ALL.swapaxes(0, 1)[::-1, ::-1],
}


@pytest.mark.parametrize("matrix", MATRICES)
def test_display_matrices_are_applied_whole(tmp_path, matrix):
    says = {"colorspace": 1, "color_range": 1}
    source = turned(make(tmp_path / "a.mp4", [corner()], **says), matrix)
    _, frames, said = same(source)
    seen = frames[0].reformat(format="rgb24", src_colorspace="ITU709").to_ndarray().astype(int)
    wanted = MATRICES[matrix]
    assert seen.shape == wanted.shape
    for rows in (slice(2, 8), slice(-8, -2)):
        for columns in (slice(2, 8), slice(-8, -2)):
            assert np.abs(seen[rows, columns] - wanted[rows, columns]).max() < 40
    assert "angle" not in said


def test_a_size_that_changes_is_refused(tmp_path):
    parts = [make(tmp_path / f"{n}.h264", [corner(24 * n, 32 * n)] * 2) for n in (1, 2)]
    (tmp_path / "a.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    target = tmp_path / "out.mkv"
    done = restore("image", tmp_path / "a.h264", "--model", "bicubic", "-x1", "-o", target)
    assert done.exit_code == 1
    assert "frame 2 is 64x48, but the frames before are 32x24" in done.stderr
    assert not target.exists()


def test_other_angles_are_announced(tmp_path):
    source = make(tmp_path / "a.mp4", [corner()])
    data = bytearray(source.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 20] = struct.pack(">5i", 46341, 46341, 0, -46341, 46341)
    source.write_bytes(data)
    assert "rotation or skew" in same(source)[2]


def rich_video(path):
    """Two tongues, subtitles, chapters, a title, a date and a place."""
    with av.open(str(path), "w") as writer:
        writer.metadata.update(
            title="Holiday", creation_time="2024-01-02T03:04:05.000000Z", location="+50.1+014.4/"
        )
        image = writer.add_stream("libx264", rate=10)
        image.width, image.height, image.pix_fmt = 32, 24, "yuv420p"
        sounds = [writer.add_stream("aac", rate=16_000) for _ in range(2)]
        for stream, language in zip(sounds, ("ces", "deu"), strict=True):
            stream.metadata.update(language=language, title=f"in {language}")
        sounds[0].disposition = av.stream.Disposition(0)
        writer.set_chapters(
            [
                {"id": n, "start": 300 * n, "end": 300 * (n + 1), "time_base": Fraction(1, 1000)}
                | {"metadata": {"title": f"part {n}"}}
                for n in range(2)
            ]
        )
        for _ in range(6):
            writer.mux(image.encode(av.VideoFrame.from_ndarray(corner(), "rgb24")))
        writer.mux(image.encode())
        for stream in sounds:
            for n in range(8):
                block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
                block.sample_rate, block.pts = 16_000, 1024 * n
                writer.mux(stream.encode(block))
            writer.mux(stream.encode())
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_what_a_container_says_is_kept(tmp_path, suffix):
    source = rich_video(tmp_path / f"a{suffix}")
    target, _, said = same(source)
    with av.open(str(source)) as before, av.open(str(target)) as after:
        for key in ("title", "location"):
            there = {k.lower(): v for k, v in before.metadata.items()}
            kept = {k.lower(): v for k, v in after.metadata.items()}
            assert kept.get(key) == there.get(key)
        assert len(after.chapters()) == len(before.chapters()) == 2
        assert [c["metadata"] for c in after.chapters()] == [
            c["metadata"] for c in before.chapters()
        ]
        one, other = (
            [(s.type, s.metadata.get("language"), int(s.disposition)) for s in video.streams]
            for video in (before, after)
        )
        assert one == other
    assert "note" not in said
    private, _, _ = same(source, tmp_path / f"private{suffix}", "--metadata", "private")
    with av.open(str(private)) as video:
        assert not any("location" in key.lower() for key in video.metadata)
        assert "Holiday" in video.metadata.values()


def test_packets_of_copies_are_counted(tmp_path):
    source = rich_video(tmp_path / "a.mkv")
    target, _, _ = same(source)
    counts = []
    for path in (source, target):
        with av.open(str(path)) as video:
            sounds = list(video.streams.audio)
            counts.append(
                [sum(p.stream is s and p.size > 0 for p in video.demux(s)) for s in sounds[:1]]
            )
    assert counts[0] == counts[1]
    assert counts[0][0] > 0


def test_what_becomes_another_kind_of_picture_is_announced(tmp_path):
    deep = make(tmp_path / "deep.mkv", [corner()], pix_fmt="yuv422p")
    assert "its colours (4:2:2) were subsampled to 4:2:0" in same(deep)[2]
    clear = make(tmp_path / "clear.mov", [corner()], codec="qtrle", pix_fmt="argb")
    assert "its transparency was left out" in same(clear)[2]
    said = {"x264-params": "mastering-display=G(1,1)B(1,1)R(1,1)WP(1,1)L(10000000,1):cll=1000,400"}
    hdr10 = make(tmp_path / "hdr10.mkv", [corner()], color_trc=16, options=said)
    assert "its mastering data of high dynamic range" in same(hdr10)[2]


def test_transparency_of_webm_is_announced(tmp_path):
    with av.open(str(tmp_path / "a.webm"), "w") as writer:
        image = writer.add_stream("libvpx-vp9", rate=10)
        image.width, image.height, image.pix_fmt = 32, 24, "yuva420p"
        frame = av.VideoFrame.from_ndarray(np.full((24, 32, 4), 90, np.uint8), "rgba")
        writer.mux(image.encode(frame))
        writer.mux(image.encode())
    target, _, notes = same(tmp_path / "a.webm", tmp_path / "b.mkv")
    assert "its transparency was left out" in notes
    with av.open(str(target)) as reader:
        assert "alpha_mode" not in {key.lower() for key in reader.streams.video[0].metadata}


def test_an_end_that_is_broken_off_is_announced(tmp_path):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(30)]
    source = make(tmp_path / "a.mkv", noise)
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    assert "its container states 3.0 s, but its data ends after" in same(source)[2]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".MTS", "libx264"),
        (".ts", "libx264"),
        (".mpg", "mpeg2video"),
        (".3gp", "mpeg4"),
        (".wmv", "wmv2"),
        (".webm", "libvpx"),
        (".avi", "mpeg4"),
        (".flv", "flv"),
        (".m1v", "mpeg1video"),
        (".h264", "libx264"),
        (".y4m", "rawvideo"),
    ],
)
def test_every_container_is_a_video(tmp_path, suffix, codec):
    kind = {".MTS": ".ts"}.get(suffix, suffix)
    frames = [np.full((48, 64, 3), 60 + 20 * n, np.uint8) for n in range(5)]
    source = make(
        tmp_path / f"a{kind}",
        frames,
        codec=codec,
        **({"framerate": 25} if codec.startswith("mpeg") and codec != "mpeg4" else {}),
    )
    source = source.rename(tmp_path / f"b{suffix}")
    _, restored, _ = same(source, tmp_path / "out.mkv")
    assert len(restored) == 5
    facts = json.loads(restore("info", source, "--json").stdout)
    assert facts["size"] == "64x48"
    done = restore("image", source, "--model", "bicubic", "-x1")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / f"b_deblurred{'.mp4' if suffix == '.3gp' else '.mkv'}").exists()


@pytest.mark.parametrize(
    "options",
    [("-f", "jpeg"), ("--quality", 10), ("--icc", "strip"), ("--alpha", "drop"), ("--lossless",)],
)
def test_options_for_pictures_are_refused(tmp_path, options):
    source = make(tmp_path / "a.mkv", [corner()])
    done = restore("image", source, "--model", "bicubic", "-o", tmp_path / "out.mkv", *options)
    assert done.exit_code == 2
    option = "--format" if options[0] == "-f" else options[0]
    assert f"{option} does not apply to videos" in done.stderr


@pytest.mark.parametrize(("codec", "suffix"), [("pcm_s16le", ".mp4"), ("libopus", ".mov")])
def test_sound_that_a_container_cannot_hold_is_left_out_with_a_note(tmp_path, codec, suffix):
    with av.open(str(tmp_path / "a.mkv"), "w") as writer:
        image, noise = writer.add_stream("libx264", rate=10), writer.add_stream(codec, rate=48_000)
        image.width, image.height, image.pix_fmt = 32, 24, "yuv420p"
        writer.mux(image.encode(av.VideoFrame.from_ndarray(corner(), "rgb24")))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), "s16", "mono")
        block.sample_rate, block.pts = 48_000, 0
        writer.mux([*image.encode(), *noise.encode(block), *noise.encode()])
    _, frames, notes = same(tmp_path / "a.mkv", tmp_path / f"b{suffix}")
    assert len(frames) == 1
    assert "was left out: the container cannot hold it" in notes


def refused(source, *options):
    done = restore("image", source, "--model", "bicubic", "-x1", *options)
    assert done.exit_code == 1, done.stderr
    assert not list(source.parent.glob("*_deblurred.*"))
    return done.stderr


@pytest.mark.parametrize(("matrix", "name"), [("YCgCo", "YCgCo"), ("bt2020c", "constant")])
def test_matrices_that_are_not_converted_are_refused(tmp_path, matrix, name):
    with av.open(str(tmp_path / "a.mp4"), "w") as writer:
        image = writer.add_stream("libx264", rate=10)
        image.width, image.height, image.pix_fmt = 32, 24, "yuv420p"
        image.options = {"x264-params": f"colormatrix={matrix}"}
        writer.mux(image.encode(av.VideoFrame.from_ndarray(corner(), "rgb24")))
        writer.mux(image.encode())
    assert name in refused(tmp_path / "a.mp4")


def test_joined_recordings_go_on(tmp_path):
    """Their timestamps begin again; sound and picture are moved by the same time."""
    one = video(tmp_path / "one.ts")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(one.read_bytes() * 2)
    target, frames, notes = same(joined, tmp_path / "b.mp4")
    assert "go back 1 time; what follows was moved" in notes
    assert len(frames) == 2 * len(same(one, tmp_path / "c.mp4")[1])
    with av.open(str(joined)) as before, av.open(str(target)) as after:
        counts = [sum(bool(p.size) for p in reader.demux(audio=0)) for reader in (before, after)]
        assert counts[0] == counts[1]
    with av.open(str(target)) as after:
        begins = {}
        for packet in after.demux():
            if packet.size:
                begins.setdefault(packet.stream.type, []).append(packet.dts * packet.time_base)
    for times in begins.values():
        assert all(x < y for x, y in pairwise(times))
    middles = [times[len(times) // 2] - times[0] for times in begins.values()]
    assert abs(middles[0] - middles[1]) < 0.5


def test_what_h264_cannot_hold_is_refused_by_its_size(tmp_path):
    make(tmp_path / "wide.mkv", [corner(16, 4200)])
    done = restore("image", tmp_path / "wide.mkv", "--model", "bicubic", "-x4")
    assert (done.exit_code, "a video of 16800x64 is larger than H.264 can hold" in done.stderr) == (
        1,
        True,
    )


def test_pictures_and_playlists_are_no_videos(tmp_path):
    video(tmp_path / "one.mp4")
    playlist = tmp_path / "list.mp4"
    playlist.write_text("ffconcat version 1.0\nfile one.mp4\n")
    assert "playlist of other files" in refused(playlist)
    picture = tmp_path / "a.avi"
    Image.fromarray(corner()).save(picture, "PNG")
    assert "is a picture (png), not a video" in refused(picture)


def test_frames_of_an_avi_that_are_stored_in_another_order(tmp_path):
    """AVI has no display times, so B-frames seem to come late."""
    shades = [np.full((24, 32, 3), 20 * n, np.uint8) for n in range(10)]
    x264 = {"x264-params": "b-adapt=0:bframes=2:scenecut=0"}
    source = make(tmp_path / "a.avi", shades, options=x264)
    with av.open(str(source)) as reader:
        times = [frame.pts for frame in reader.decode(reader.streams.video[0])]
    assert times != sorted(times)  # else this tests nothing
    _, frames, notes = same(source, tmp_path / "b.mp4")
    assert "left out" not in notes.replace("left out: software", "")
    found = [round(float(frame.to_ndarray(format="rgb24").mean()) / 20) for frame in frames]
    assert found == list(range(10))
    assert [float(frame.time * 10) for frame in frames] == pytest.approx(range(10), abs=0.01)


def test_audio_of_phones_is_kept(tmp_path):
    source = video(tmp_path / "a.3gp")
    done = restore("image", source, "--model", "bicubic", "-x1")
    assert done.exit_code == 0, done.stderr
    assert contents(tmp_path / "a_deblurred.mp4")[1] == contents(source)[1]


def test_names_with_a_colon_and_videos_of_one_column(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.mkv", [corner()]).rename(tmp_path / "12:30.mkv")
    done = restore("image", "12:30.mkv", "--model", "bicubic", "-x1")
    assert done.exit_code == 0, done.stderr
    assert restore("info", "12:30.mkv").exit_code == 0
    make(tmp_path / "thin.mkv", [corner(24, 1)], pix_fmt="yuv444p")
    done = restore("image", "thin.mkv", "--model", "bicubic", "-x1")
    assert (done.exit_code, "one row or column" in done.stderr) == (1, True)


def test_info_reads_what_image_wrote(tmp_path):
    source = make(tmp_path / "a.mkv", [corner()] * 2)
    target, _, _ = same(source)
    facts = json.loads(restore("info", target, "--json").stdout)
    assert facts["restored: model"] == "bicubic"
    assert facts["codec"] == "h264"
    assert facts["streams"] == ["video h264"]
    done = restore("info", tmp_path / "a.mkv")
    assert "size: 32x24" in done.stdout
    (tmp_path / "no.mkv").write_bytes(b"no video")
    assert "cannot read" in restore("info", tmp_path / "no.mkv").stderr


def test_progress_counts_frames(tmp_path):
    """Matroska does not say how many there are; its length and rate do."""
    from restore_cli.inference.stages import Bicubic  # noqa: PLC0415
    from restore_cli.jobs.video import restore_video  # noqa: PLC0415

    source = make(tmp_path / "a.mkv", [corner()] * 5)
    told = []
    restore_video(
        source,
        tmp_path / "b.mkv",
        Bicubic(1),
        {},
        lambda done, frames: told.append((done, frames)),
    )
    assert told == [(n, 5) for n in range(1, 6)]


def moving(count, height=48, width=64):
    base = np.random.default_rng(0).integers(0, 256, (2 * height, 4 * width, 3), np.uint8)
    return [np.ascontiguousarray(base[n : n + height, 2 * n : 2 * n + width]) for n in range(count)]


def test_damaged_frames_are_announced(tmp_path):
    source = make(tmp_path / "a.mp4", moving(12), gop_size=12, max_b_frames=0)
    with av.open(str(source)) as reader:
        packets = [(one.pos, one.size) for one in reader.demux(video=0) if one.size]
    data = bytearray(source.read_bytes())
    for place, size in packets[5:8]:
        for n in range(place + size // 4, place + size * 3 // 4):
            data[n] ^= 0x5A
    source.write_bytes(data)
    done = restore("image", source, "--model", "bicubic", "-x1", "--no-check")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"filled in what is missing in \d+ damaged frame", done.stderr)


def test_a_cover_before_the_film_is_not_the_film(tmp_path):
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as writer:
        cover = writer.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        image = writer.add_stream("libx264", rate=10)
        image.width, image.height, image.pix_fmt = 64, 48, "yuv420p"
        writer.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        writer.mux(cover.encode())
        for values in moving(3):
            writer.mux(image.encode(av.VideoFrame.from_ndarray(values, "rgb24")))
        writer.mux(image.encode())
    done = restore("image", source, "--model", "bicubic", "-x1", "-o", tmp_path / "b.mkv")
    assert done.exit_code == 0, done.stderr
    frames, _, _ = contents(tmp_path / "b.mkv")
    assert (len(frames), frames[0].shape) == (3, (48, 64, 3))
    assert "its stream 0 (video) was left out" in done.stderr
    info = restore("info", source, "--json")
    assert json.loads(info.stdout)["size"] == "64x48"
