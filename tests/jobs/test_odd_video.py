"""Videos with odd metadata, timestamps and limits: restored as they are, or refused in one line."""

from __future__ import annotations

import errno
import json
from fractions import Fraction
from itertools import pairwise

import pytest
from conftest import restore
from test_damaged_video import garbage, groups_of, repacked
from test_video import av, contents, make, moving, video

from restore_cli.jobs.video_facts import size_and_frames

COMMAND = ("--model", "bicubic", "-x2")


@pytest.fixture
def source(tmp_path):
    return video(tmp_path / "a.mp4", frames=4, sound=False)


def copy(source, target, *, pts=None, metadata=()):
    """A copy of a video without its sound, with other timestamps and metadata."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        image = writer.add_stream("ffv1", rate=10)
        image.width, image.height, image.pix_fmt = 32, 24, "yuv420p"
        writer.metadata.update(metadata)
        for number, frame in enumerate(reader.decode(video=0)):
            if pts is not None:
                frame.pts = pts[number] * 512  # of 10,240 per second
            writer.mux(image.encode(frame))
        writer.mux(image.encode())
    return target


def test_a_title_that_is_not_utf8_and_a_codec_that_nobody_knows_stop_no_other(tmp_path, source):
    title = copy(source, tmp_path / "title.mkv", metadata={"title": "XXXX"})
    title.write_bytes(title.read_bytes().replace(b"XXXX", b"M\xfcll"))
    unknown = tmp_path / "unknown.mp4"
    unknown.write_bytes(source.read_bytes().replace(b"avc1", b"zzz1"))
    done = restore("image", title, unknown, source, *COMMAND, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "letters that are not UTF-8 were replaced: title" in done.stderr
    assert "unknown.mp4' has no video stream of a codec that FFmpeg knows" in done.stderr
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["a_x2.mp4", "title_x2.mkv"]
    for file in (title, unknown):
        assert restore("info", file).exit_code == 0


def test_whatever_breaks_in_a_container_the_batch_goes_on(tmp_path, source, monkeypatch):
    def broken(*_, **__):
        raise AttributeError("of a stream that PyAV does not know")

    monkeypatch.setattr("restore_cli.jobs.run.restore_video", broken)
    done = restore("image", source, *COMMAND)
    assert (done.exit_code, "cannot read" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr


def test_a_result_that_was_cut_off_is_made_again(tmp_path, source):
    made = tmp_path / "r.mkv"
    command = ("image", source, *COMMAND, "-o", made)
    assert restore(*command).exit_code == 0
    whole = made.read_bytes()
    assert "1 output already there" in restore(*command, "--resume").stderr
    made.write_bytes(whole[: len(whole) * 6 // 10])
    assert restore(*command, "--resume").exit_code == 0
    assert made.read_bytes() == whole  # also: equal inputs and options give equal files


def test_the_plan_knows_size_and_length(tmp_path, source):
    longer = video(tmp_path / "b.mp4", frames=8, sound=False)
    (tmp_path / "c.mp4").write_bytes(b"nothing")
    done = restore("image", source, longer, tmp_path / "c.mp4", *COMMAND, "-n", "--json")
    one, two, three = map(json.loads, done.stdout.splitlines())
    assert (one["input_width"], one["height"], three["status"]) == (32, 48, "unreadable")
    assert two["status"] == "planned"
    assert size_and_frames(longer) == ((24, 32), 8)
    groups = make(tmp_path / "e.mkv", moving(16), options=groups_of(4))
    broken = repacked(groups, tmp_path / "d.mkv", lambda p, n: p if n else garbage(p))
    assert size_and_frames(broken) == size_and_frames(groups)  # a damaged packet hides nothing
    limited = restore("image", source, *COMMAND, "--max-pixels", "100")
    assert (limited.exit_code, "32x24 = 768 pixels" in limited.stderr) == (1, True)


def test_frames_at_one_time_are_moved_apart_for_mp4(tmp_path, source):
    twice = copy(source, tmp_path / "twice.mkv", pts=[0, 2, 2, 4])
    for suffix, moved in ((".mkv", False), (".mp4", True)):
        target = tmp_path / f"out{suffix}"
        done = restore("image", twice, *COMMAND, "-o", target)
        assert done.exit_code == 0, done.stderr
        assert ("moved by one tick" in done.stderr) == moved
        with av.open(str(target)) as reader:
            times = [frame.time for frame in reader.decode(video=0)]
        assert len(times) == 4
        assert all(one < other if moved else one <= other for one, other in pairwise(times))


def test_a_full_disk_is_the_fault_of_the_output(tmp_path, source, monkeypatch):
    def full(*_):
        raise av.error.FFmpegError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("restore_cli.jobs.video._VideoRestorer.run", full)
    done = restore("image", source, *COMMAND, "-o", tmp_path / "x.mp4")
    assert f"cannot write '{tmp_path / 'x.mp4'}': No space left on device" in done.stderr
    assert "hint: free disk space" in done.stderr


def test_metadata_that_are_written_in_another_form_are_not_lost(tmp_path, source):
    place = copy(source, tmp_path / "p.mkv", metadata={"LOCATION": "+48.1+011.5/"})
    done = restore("image", place, *COMMAND, "-o", tmp_path / "p.mp4")
    assert (done.exit_code, "left out" in done.stderr) == (0, False)
    other = copy(source, tmp_path / "o.mkv", metadata={"HD_VIDEO": "abc"})
    done = restore("image", other, *COMMAND, "-o", tmp_path / "o.mp4")
    assert "left out: HD_VIDEO" in done.stderr  # MP4 writes a number in its place
    done = restore("image", source, *COMMAND, "-o", tmp_path / "n.mkv", "--metadata", "none")
    assert done.exit_code == 0
    with av.open(str(tmp_path / "n.mkv")) as reader:
        assert "comment" not in {key.lower() for key in reader.metadata}
    assert len(contents(tmp_path / "n.mkv")[0]) == 4


def test_a_change_of_the_shape_of_pixels_is_announced(tmp_path):
    parts = [
        make(tmp_path / f"{n}.ts", moving(3), codec="mpeg2video", sample_aspect_ratio=ratio)
        for n, ratio in enumerate((1, Fraction(4, 3)))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(parts[0].read_bytes() + parts[1].read_bytes())
    assert "the shape of its pixels changes" in restore("image", joined, *COMMAND).stderr
    assert "the shape" not in restore("image", parts[1], *COMMAND).stderr
