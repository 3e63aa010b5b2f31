"""Videos that are damaged, incomplete or joined: what can be restored is, and the rest is said."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
from conftest import restore
from test_video import av, corner, make, moving, same

from restore_cli.jobs.video_containers import hides_a_border


def repacked(source, target, change=lambda packet, number: packet):
    """Copy the packets of a video, each through `change`, which may return None."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        packets = [packet for packet in reader.demux(stream) if packet.size]
        for number, packet in enumerate(packets):
            changed = change(packet, number)
            if changed is not None:
                changed.stream = copy
                writer.mux(changed)
    return target


def groups_of(frames):
    """Options of x264 for a keyframe every so many frames, and no other."""
    return {"g": str(frames), "bf": "0", "sc_threshold": "0"}


def garbage(packet):
    other = av.Packet(b"\0\0\0\5" + b"\xff" * 40)
    other.pts, other.dts, other.time_base = packet.pts, packet.dts, packet.time_base
    other.duration, other.is_keyframe = packet.duration, packet.is_keyframe
    return other


def test_a_broken_first_packet_is_announced_as_any_other(tmp_path):
    source = make(tmp_path / "a.mkv", moving(16), options=groups_of(4))
    broken = repacked(source, tmp_path / "b.mkv", lambda p, n: p if n else garbage(p))
    _, frames, notes = same(broken)
    assert len(frames) == 12
    assert "1 of its packets could not be decoded" in notes


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_frames_that_a_decoder_drops_are_counted(tmp_path, suffix):
    """Recordings that begin between two keyframes."""
    source = make(tmp_path / "a.mkv", moving(16), options=groups_of(8))
    cut = repacked(source, tmp_path / f"cut{suffix}", lambda p, n: p if n > 2 else None)
    _, frames, notes = same(cut, tmp_path / "b.mkv")
    assert len(frames) == 8
    assert "5 of its 13 packets gave no picture" in notes


def test_errors_that_a_decoder_only_logs_are_announced(tmp_path):
    source = make(tmp_path / "a.mkv", moving(6), codec="ffv1", options={"slicecrc": "1"})

    def damaged(packet, number):
        if number != 3:
            return packet
        other = garbage(packet)
        data = bytearray(bytes(packet))
        data[len(data) // 2] ^= 0x5A
        changed = av.Packet(bytes(data))
        for name in ("pts", "dts", "time_base", "duration", "is_keyframe"):
            setattr(changed, name, getattr(other, name))
        return changed

    broken = repacked(source, tmp_path / "b.mkv", damaged)
    for _ in range(2):  # FFmpeg's repeated messages count for each video
        notes = same(broken, tmp_path / "c.mkv", "--on-exists", "overwrite")[2]
        assert "it is damaged: FFmpeg reported" in notes
    assert "damaged" not in same(source)[2]


def test_colours_that_change_are_converted_as_each_frame_states(tmp_path):
    """Two recordings in a row: BT.709, then BT.601; or 8, then 10 bits."""
    colour = np.full((24, 32, 3), (218, 31, 28), np.uint8)
    plain = make(tmp_path / "a.ts", [colour] * 4, colorspace=1, color_range=1)
    for name, more in {
        "matrix": {"colorspace": 6, "color_range": 1},
        "bits": {"colorspace": 1, "color_range": 1, "pix_fmt": "yuv420p10le"},
    }.items():
        other = make(tmp_path / "b.ts", [colour] * 4, **more)
        joined = tmp_path / f"{name}.ts"
        joined.write_bytes(plain.read_bytes() + other.read_bytes())
        _, frames, notes = same(joined, tmp_path / f"{name}.mkv")
        assert len(frames) == 8
        for frame in frames:
            found = frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()
            assert np.abs(found.astype(int) - colour).max() <= 6
        assert ("its colours or bit depth change" in notes) == (name == "bits")


def test_videos_without_a_frame(tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.write_bytes(b"")
    whole = make(tmp_path / "a.mkv", [corner()]).read_bytes()
    header = tmp_path / "header.mkv"
    header.write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75")])  # up to the first cluster
    for source, reason in ((empty, "is empty"), (header, "no frames that can be decoded")):
        done = restore("image", source, "--model", "bicubic", "-x1", "-o", tmp_path / "b.mkv")
        assert (done.exit_code, reason in done.stderr) == (1, True), done.stderr


def test_first_frames_without_a_time(tmp_path):
    """Matroska that begins before zero: FFmpeg reads these frames without times."""
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w", options={"avoid_negative_ts": "disabled"}) as writer:
        image = writer.add_stream("libx264", rate=10)
        image.height, image.width, image.pix_fmt = 24, 32, "yuv420p"
        for n, values in enumerate(moving(8)):
            frame = av.VideoFrame.from_ndarray(values, "rgb24")
            frame.pts, frame.time_base = n - 3, Fraction(1, 10)
            writer.mux(image.encode(frame))
        writer.mux(image.encode())
    with av.open(str(source)) as reader:
        times = [frame.pts for frame in reader.decode(video=0)]
    assert times[:4] == [None, None, None, 0]  # else this tests nothing
    _, frames, notes = same(source, tmp_path / "b.mkv")
    assert len(frames) == 8
    assert "were moved by one tick" not in notes
    with av.open(str(tmp_path / "b.mkv")) as reader:
        after = sorted(packet.pts for packet in reader.demux(video=0) if packet.size)
    assert set(np.diff(after)) == {after[-1] - after[-2]}, after


def test_a_song_with_a_cover_is_no_video(tmp_path):
    song = tmp_path / "song.mkv"
    with av.open(str(song), "w") as writer:
        sound = writer.add_stream("aac", rate=16_000, layout="mono")
        writer.add_attachment("cover.jpg", "image/jpeg", b"\xff\xd8\xff\xd9")
        for n in range(4):
            block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            block.sample_rate, block.pts = 16_000, 1024 * n
            writer.mux(sound.encode(block))
        writer.mux(sound.encode())
    done = restore("image", song, "--model", "bicubic", "-x1", "-o", tmp_path / "b.mkv")
    assert (done.exit_code, "has no video stream" in done.stderr) == (1, True)
    assert restore("info", song).exit_code == 0


def length(path):
    with av.open(str(path)) as reader:
        packets = [one for one in reader.demux(reader.streams.video[0]) if one.size]
    return max((one.pts + one.duration) * one.time_base for one in packets)


def test_a_slow_film_is_not_made_longer(tmp_path):
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as writer:
        image = writer.add_stream("libx264", rate=Fraction(1, 10), options={"bf": "2"})
        image.width, image.height, image.pix_fmt = 64, 48, "yuv420p"
        for values in moving(6):
            writer.mux(image.encode(av.VideoFrame.from_ndarray(values, "rgb24")))
        writer.mux(image.encode())
    target = same(source)[0]
    assert abs(length(target) - 60) <= 1


def test_a_truncated_film_does_not_freeze_on_its_last_picture(tmp_path):
    source = tmp_path / "a.mp4"
    with av.open(str(source), "w", options={"movflags": "faststart"}) as writer:
        image = writer.add_stream("libx264", rate=10, options={"g": "5", "bf": "0"})
        image.width, image.height, image.pix_fmt = 64, 48, "yuv420p"
        for values in moving(40):
            writer.mux(image.encode(av.VideoFrame.from_ndarray(values, "rgb24")))
        writer.mux(image.encode())
    data = source.read_bytes()
    start = data.find(b"mdat")
    source.write_bytes(data[: start + (len(data) - start) * 2 // 5])
    target, frames, notes = same(source)
    assert "its container states 4.0 s, but its data ends after" in notes
    assert abs(float(length(target)) - len(frames) / 10) < 0.15


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_frames_behind_later_ones_are_left_out(tmp_path, suffix):
    """A broadcast of which packets were lost: the decoder puts frames out in the wrong order."""
    source = tmp_path / "a.ts"
    with av.open(str(source), "w") as writer:
        image = writer.add_stream("libx264", rate=24)
        image.width, image.height, image.pix_fmt = 64, 48, "yuv420p"
        y, x = np.mgrid[:48, :64]
        for n in range(96):
            values = np.stack([(3 * x + 8 * n) % 256, 4 * y, 0 * x + 128], -1).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(values, "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, 24)
            writer.mux(image.encode(frame))
        writer.mux(image.encode())
    data = source.read_bytes()
    source.write_bytes(data[: 188 * 43] + data[188 * 63 :])
    target = tmp_path / f"b{suffix}"
    done = restore("image", source, "--model", "bicubic", "-x1", "-o", target)
    assert done.exit_code == 0, done.stderr
    assert "that came after later ones were left out" in done.stderr
    with av.open(str(target)) as reader:
        times = [frame.pts for frame in reader.decode(video=0)]
    assert times == sorted(set(times))
    assert len(times) > 60


def test_an_avi_that_was_cut_off_is_announced(tmp_path):
    source = make(tmp_path / "a.avi", moving(40), codec="mpeg4")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) // 2])
    done = restore("image", source, "--model", "bicubic", "-x1", "-o", tmp_path / "b.mkv")
    assert "its container states" in done.stderr


def test_titles_and_languages_of_streams_are_kept_or_announced(tmp_path):
    source = tmp_path / "a.mkv"
    with av.open(str(source), "w") as writer:
        image = writer.add_stream("libx264", rate=10)
        image.width, image.height, image.pix_fmt = 32, 24, "yuv420p"
        image.metadata.update({"title": "Picture", "language": "de-CH"})
        writer.mux(image.encode(av.VideoFrame.from_ndarray(corner(), "rgb24")))
        writer.mux(image.encode())
    as_mp4, _, notes = same(source, tmp_path / "b.mp4")
    assert "the language 'de-CH' of its stream 0 was left out" in notes
    assert "the title" not in notes
    back, _, notes = same(as_mp4, tmp_path / "c.mkv")
    with av.open(str(back)) as reader:
        assert reader.streams.video[0].metadata["title"] == "Picture"
    assert "left out" not in notes


def element(kind, *inside):
    body = b"".join(inside)
    return bytes.fromhex(kind) + struct.pack(">B", 0x80 | len(body)) + body


def box(kind, *inside):
    body = b"".join(inside)
    return struct.pack(">I", 8 + len(body)) + kind + body


def matroska(*crop):
    video = element("e0", element("b0", b"\x40"), *crop)
    track = element("1654ae6b", element("ae", video))
    segment = bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7  # of unknown size
    return element("1a45dfa3", element("4286", b"\1")) + segment + track


def mp4(wide, *, before=b""):
    aperture = box(b"clap", struct.pack(">8I", wide, 1, 48, 1, 0, 1, 0, 1))
    entry = box(b"avc1", bytes(24), struct.pack(">HH", 64, 48), bytes(50), aperture)
    described = box(b"stsd", struct.pack(">II", 0, 1), entry)
    for kind in (b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        described = box(kind, described)
    return box(b"ftyp", b"qt  ") + before + described


@pytest.mark.parametrize(
    ("data", "hidden"),
    [
        (matroska(element("54aa", b"\x10")), True),
        (matroska(element("54dd", b"\0\4")), True),
        (matroska(element("54aa", b"\0")), False),
        (matroska(), False),
        (matroska(element("54aa", b"\x10"))[:-2], False),
        (mp4(60), True),
        (mp4(64), False),
        (mp4(60, before=struct.pack(">I4sQ", 1, b"mdat", 24) + bytes(8)), True),
        (mp4(60)[:-20], False),
        (struct.pack(">I4s", 0, b"mdat") + bytes(40), False),
        (b"\0\0\0\1" + b"\xff" * 40, False),  # raw H.264
        (b"", False),
    ],
)
def test_borders_that_a_container_hides(tmp_path, data, hidden):
    (tmp_path / "a").write_bytes(data)
    assert hides_a_border(tmp_path / "a") == hidden


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_plain_container_hides_nothing(tmp_path, suffix, monkeypatch):
    source = make(tmp_path / f"a{suffix}", [corner()])
    assert not hides_a_border(source)
    monkeypatch.setattr("restore_cli.jobs.video.hides_a_border", lambda _: True)
    assert "its container hides a border of the frames" in same(source)[2]


def test_a_matrix_that_is_not_converted_is_refused_in_every_frame(tmp_path):
    plain = make(tmp_path / "a.ts", [corner()] * 2, colorspace=1)
    other = make(tmp_path / "b.ts", [corner()] * 2, options={"x264-params": "colormatrix=YCgCo"})
    (tmp_path / "c.ts").write_bytes(plain.read_bytes() + other.read_bytes())
    target = tmp_path / "out.mkv"
    done = restore("image", tmp_path / "c.ts", "--model", "bicubic", "-x1", "-o", target)
    assert (done.exit_code, "colours (YCgCo)" in done.stderr) == (1, True), done.stderr
    assert not target.exists()
