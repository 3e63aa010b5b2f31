"""Films: every frame through the line, sound copied, in a container of the same kind."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from restore_cli.errors import PictureError, UsageError
from restore_cli.files import write_then_rename
from restore_cli.inference.cascade import Stage
from restore_cli.jobs.frames import restore_frame

# x264's constant rate factor: 18 is called visually lossless by its own documentation.
_RATE_FACTOR = "16"
_BT709, _LIMITED = 1, 1  # of ITU-T H.273
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}


def restore_video(
    source: Path,
    target: Path,
    stage: Stage,
    scale: int,
    made: dict[str, str],
    report: Callable[[int, int], None],
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Restore a film frame by frame.

    Args:
        source: of any kind that FFmpeg reads.
        target: .mp4, .m4v, .mov or .mkv, written as H.264 with the sound as it is.
        stage: a network made ready.
        scale: output pixels per input pixel.
        made: how; goes into the container's comment.
        report: called with (frames done, frames in all; 0 where the container does not say).

    Returns:
        Height and width of the output, and notes on what was left out.

    Raises:
        UsageError: PyAV is not installed.
        PictureError: not a film, or it breaks off, or the disk is full.
    """
    av = _library()
    try:
        with av.open(str(source)) as reader, write_then_rename(target) as temporary:
            kind = CONTAINERS[target.suffix.lower()]
            with av.open(str(temporary), "w", format=kind) as writer:
                writer.metadata["comment"] = json.dumps(made)
                return _copy(av, reader, writer, stage, scale, report)
    except av.error.FFmpegError as error:
        raise PictureError(f"cannot restore '{source}': {error.strerror or error}") from error
    except OSError as error:
        raise PictureError(f"cannot write '{target}': {error.strerror or error}") from error


def read_comment(path: Path) -> dict[str, str]:
    """What `restore_video` wrote into a film's comment; empty where it did not make it."""
    av = _library()
    try:
        with av.open(str(path)) as film:
            found = json.loads(film.metadata.get("comment", film.metadata.get("COMMENT", "{}")))
    except (av.error.FFmpegError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _copy(
    av: Any,
    reader: Any,
    writer: Any,
    stage: Stage,
    scale: int,
    report: Callable[[int, int], None],
) -> tuple[tuple[int, int], tuple[str, ...]]:
    if not reader.streams.video:
        raise PictureError(f"'{reader.name}' has no pictures")
    source = reader.streams.video[0]
    source.thread_count = 1  # decoding must not fight the network for the cores
    first = next(reader.decode(source), None)
    if first is None:
        raise PictureError(f"'{reader.name}' has no frames")
    reader.seek(0)
    turns = round(first.rotation / 90) % 4  # phones write sideways and say so
    height, width = (side * scale for side in (source.height, source.width))
    if turns % 2:
        height, width = width, height
    image = writer.add_stream("libx264", rate=source.average_rate or Fraction(25))
    image.width, image.height = width - width % 2, height - height % 2
    image.pix_fmt = "yuv420p"
    # Said and meant: players take large films for BT.709, whatever was meant.
    context = image.codec_context
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    if source.sample_aspect_ratio:
        ratio = source.sample_aspect_ratio
        context.sample_aspect_ratio = 1 / ratio if turns % 2 else ratio
    image.options = {"crf": _RATE_FACTOR}
    image.codec_context.time_base = source.time_base
    image.codec_context.thread_count = 1
    sounds, notes = _sounds(av, reader, writer)
    done = 0
    for packet in reader.demux([source, *sounds]):
        if packet.stream in sounds:
            if packet.dts is not None:
                packet.stream = sounds[packet.stream]
                writer.mux(packet)
            continue
        for frame in packet.decode():
            upright = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            restored = restore_frame(upright, stage, height, width)
            restored = np.ascontiguousarray(restored[: image.height, : image.width])
            new = av.VideoFrame.from_ndarray(restored, "rgb24").reformat(
                format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
            new.pts, new.time_base = frame.pts, frame.time_base
            writer.mux(image.encode(new))
            done += 1
            report(done, source.frames)
    writer.mux(image.encode())
    if (image.height, image.width) != (height, width):
        notes.append("one row or column was cut off: H.264 needs even sides")
    return (image.height, image.width), tuple(notes)


def _sounds(av: Any, reader: Any, writer: Any) -> tuple[dict[Any, Any], list[str]]:
    """Streams of sound and their copies; a note on everything else that is left out."""
    sounds, notes = {}, []
    for stream in reader.streams:
        if stream.type == "audio":
            try:
                sounds[stream] = writer.add_stream_from_template(stream)
            except (av.error.FFmpegError, ValueError):
                notes.append(f"its sound ({stream.codec_context.name}) does not fit the container")
        elif stream is not reader.streams.video[0]:
            notes.append(f"its stream {stream.index} ({stream.type}) was left out")
    return sounds, notes


def _library() -> Any:
    try:
        import av  # noqa: PLC0415 — an extra
        import av.error  # noqa: PLC0415
    except ImportError:
        raise UsageError(
            "films need PyAV, which is not installed", hint="pip install 'restore-cli[video]'"
        ) from None
    return av
