"""Reads colours, orientation, streams and metadata of a video's container."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from restore_cli.errors import HOSTILE, PictureError, UsageError, require
from restore_cli.formatting import format_count, reason_of
from restore_cli.image.colour_signalling import HDR

UNKNOWN, BT709, BT601, BT2020 = 2, 1, 6, 9  # ITU-T H.273
# Matrices of H.273 as PyAV names them, for those that it converts.
MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020"}
_NAMES = {1: "BT.709", 5: "BT.601 (PAL)", 6: "BT.601", 9: "BT.2020", 12: "Display P3"}
_HD = 576  # lines; without a stated matrix, larger videos are BT.709, others BT.601
_CONTAINER_KEYS = {
    *("major_brand", "minor_version", "compatible_brands", "encoder", "duration", "comment"),
    "alpha_mode",
}
_STILLS = {"mjpeg", "png", "bmp", "gif", "webp", "tiff"}  # codecs of covers, also of whole films
_MASTERING = (
    *("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS"),
    *("DOVI_METADATA", "DOVI_RPU_BUFFER"),
)
_OTHER_MATRICES = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "SMPTE ST 2085",
    12: "a matrix derived from its primaries",
    13: "constant luminance, derived from its primaries",
    14: "ICtCp",
}
_PLAYLISTS = {"concat", "hls", "dash", "imf"}  # FFmpeg's names of formats that name other files
_SIDE_DATA = {
    "A53_CC": "closed captions",
    "S12M_TIMECODE": "timecodes",
    "STEREO3D": "stereoscopic layout",
    "SPHERICAL": "spherical projection",
}
_PRIVATE = re.compile(r"location|gps|serial|owner|xyz|latitude|longitude", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Orientation:
    """How frames are transformed to be upright; applied in this order."""

    swap: bool = False  # rows become columns
    mirror: bool = False  # left and right are swapped
    flip: bool = False  # top and bottom are swapped
    odd: bool = False  # whether the display matrix has a rotation or skew that these cannot express

    def apply(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Turn a frame (H, W, 3) upright."""
        frame = frame.swapaxes(0, 1) if self.swap else frame
        frame = frame[:, ::-1] if self.mirror else frame
        return np.ascontiguousarray(frame[::-1] if self.flip else frame)


@dataclass(frozen=True, slots=True)
class Colours:
    """The colours of a video as numbers of ITU-T H.273."""

    matrix: int  # matrix for the conversion to RGB; if none is stated, the usual one for the size
    primaries: int  # stated primaries; 2 if unknown
    transfer: int  # stated transfer; 2 if unknown
    full: bool  # whether values use the full range
    bits: int  # bits per channel

    @property
    def wide(self) -> bool:
        """Whether it is written with the matrix of BT.2020."""
        return self.transfer in HDR or BT2020 in (self.primaries, self.matrix)


def import_av() -> Any:
    """Import PyAV; raises `UsageError` if it is not installed."""
    require("video", "av", what="a video")
    import av  # noqa: PLC0415 — an extra

    return av


def ffmpeg_path(path: Path) -> str:
    """Return the path for FFmpeg, which takes the beginning of `12:30.mp4` for a protocol."""
    return str(path.absolute())


def check_convertible(container: Any, frame: Any, name: str) -> None:
    """Raise a `PictureError` for a playlist of other files, or colours that cannot be converted."""
    if set(container.format.name.split(",")) & _PLAYLISTS:
        raise PictureError(
            f"'{name}' is a playlist of other files", hint="give the videos themselves"
        )
    matrix = _OTHER_MATRICES.get(int(frame.colorspace))
    if matrix and len(frame.format.components) > 2 and not frame.format.is_rgb:
        raise PictureError(
            f"'{name}' has colours ({matrix}) that cannot be converted to RGB",
            hint="convert it to BT.709 first",
        )


def lost_side_data(frame: Any) -> list[str]:
    """Return notes on data beside a frame's pixels that the output does not have."""
    kinds = import_av().sidedata.sidedata.Type
    return [
        f"its {what} were left out" if what.endswith("s") else f"its {what} was left out"
        for name, what in _SIDE_DATA.items()
        if hasattr(kinds, name) and frame.side_data.get(getattr(kinds, name)) is not None
    ]


def orientation_of(frame: Any) -> Orientation:
    """Return the orientation in the display matrix of a frame; ISO/IEC 14496-12, 8.5.3."""
    kind = import_av().sidedata.sidedata.Type.DISPLAYMATRIX
    matrix = frame.side_data.get(kind)
    if matrix is None or len(bytes(matrix)) < 36:
        return Orientation()
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    swap = abs(b) + abs(c) > abs(a) + abs(d)
    right, down = (c, b) if swap else (a, d)
    rest = (a, d) if swap else (b, c)
    odd = max(map(abs, rest)) > max(abs(right), abs(down)) / 100
    return Orientation(swap, right < 0, down < 0, odd)


def colours_of(frame: Any, source: Any) -> Colours:
    """Return the colours of a video's frame."""
    context = source.codec_context
    stated = int(frame.colorspace)
    usual = BT709 if max(frame.height, frame.width * 9 // 16) > _HD else BT601
    primaries = int(frame.color_primaries) or UNKNOWN
    transfer = int(frame.color_trc) or UNKNOWN
    full = int(frame.color_range) == 2 or frame.format.name.startswith("yuvj")
    bits = max((part.bits for part in frame.format.components), default=8)
    matrix = stated if stated in MATRICES else usual
    if stated == UNKNOWN and int(context.colorspace) in MATRICES:
        matrix = int(context.colorspace)
    return Colours(matrix, primaries, transfer, full, bits)


def frame_notes(frame: Any, source: Any, colours: Colours, orientation: Orientation) -> list[str]:
    """Return notes on properties of a video's frames that are lost."""
    notes = []
    kinds = import_av().sidedata.sidedata.Type
    tags = {(key.lower(), value) for key, value in source.metadata.items()}
    parts = frame.format.components
    if frame.interlaced_frame:
        notes.append("it is interlaced: both fields of a frame were restored as one picture")
    # WebM has transparency in a second picture, which not every decoder reads.
    if any(part.is_alpha for part in parts) or ("alpha_mode", "1") in tags:
        notes.append("its transparency was left out")
    if parts and not parts[0].is_alpha and len(parts) > 2:
        chroma = parts[1]
        across = round(frame.width / max(1, chroma.width))
        down = round(frame.height / max(1, chroma.height))
        name = {(1, 1): "4:4:4", (2, 1): "4:2:2", (4, 1): "4:1:1", (1, 2): "4:4:0"}
        if (across, down) in name:
            what = "RGB" if frame.format.is_rgb else name[across, down]
            notes.append(f"its colours ({what}) were subsampled to 4:2:0")
    if colours.bits > 10:
        notes.append(f"its {colours.bits} bits per channel were reduced to 10")
    if {frame.side_data.get(getattr(kinds, name, None)) for name in _MASTERING} != {None}:
        notes.append("its mastering data of high dynamic range (HDR10, Dolby Vision) was left out")
    notes += lost_side_data(frame)
    if orientation.odd:
        notes.append("its display matrix has a rotation or skew that was ignored")
    return notes


def kept_metadata(metadata: dict[str, str], level: str) -> dict[str, str]:
    """Return the metadata to keep, at a level of `writing.Encoding`."""
    if level == "none":
        return {}
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _CONTAINER_KEYS and not (level == "private" and _PRIVATE.search(key))
    }


def open_video(path: Path) -> Any:
    """Open a video for reading; what is not UTF-8 in its metadata is replaced."""
    return import_av().open(ffmpeg_path(path), metadata_errors="replace")


def size_and_frames(path: Path) -> tuple[tuple[int, int], int] | None:
    """Return height and width of a video's upright frames, and how many there are, about.

    None if it cannot be read, or PyAV is not installed.
    """
    try:
        av = import_av()
    except UsageError:
        return None
    try:
        with open_video(path) as container:
            source = main_video_stream(container)
            for packet in container.demux(source) if source else ():
                with suppress(av.error.FFmpegError):  # one that is damaged is left out
                    for frame in packet.decode():
                        size = frame.height, frame.width
                        upright = size[::-1] if orientation_of(frame).swap else size
                        return upright, max(1, frames_in_all(container, source))
    except (av.error.FFmpegError, *HOSTILE):
        pass
    return None


def frames_in_all(container: Any, source: Any) -> int:
    """Return the number of frames that a stream states, else the duration times the rate."""
    rate, seconds = source.average_rate, (container.duration or 0) / 1e6
    return int(source.frames or (round(seconds * float(rate)) if rate else 0))


def read_comment(path: Path) -> dict[str, str]:
    """Return what `restore_video` wrote into a video's comment; empty for other videos."""
    av = import_av()
    try:
        with open_video(path) as container:
            return comment_of(container)
    except (av.error.FFmpegError, OSError, ValueError):
        return {}


def comment_of(container: Any) -> dict[str, str]:
    """`read_comment` of an open container."""
    try:
        found = json.loads(
            container.metadata.get("comment", container.metadata.get("COMMENT", "{}"))
        )
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def describe_video(path: Path) -> dict[str, Any]:
    """Return facts about a video, from its header and first frame.

    Raises:
        UsageError: PyAV is not installed.
        PictureError: not a video.
    """
    av = import_av()
    try:
        with open_video(path) as container:
            return _facts(container)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise PictureError(f"cannot read '{path}' as a video: {reason_of(error)}") from error


def main_video_stream(container: Any) -> Any:
    """Return the video stream that is restored, or None.

    It is the first one of a codec that FFmpeg knows, and not a cover.
    """
    cover = import_av().stream.Disposition.attached_pic
    known = (one for one in container.streams.video if one.codec_context is not None)
    streams = [one for one in known if not one.disposition & cover]
    moving = (one for one in streams if one.codec_context.name not in _STILLS)
    return next(moving, streams[0] if streams else None)


@contextmanager
def capture_errors(av: Any) -> Iterator[list[str]]:
    """Collect a note on errors that FFmpeg logs in this thread, which raise no exception."""
    notes: list[str] = []
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # also those of the last video
    try:
        with av.logging.Capture(local=True) as logged:
            yield notes
    finally:
        av.logging.set_level(level)
        av.logging.set_skip_repeated(skips)
    errors = [message.strip() for severity, _, message in logged if severity <= av.logging.ERROR]
    if errors:
        notes.append(
            f"it is damaged: FFmpeg reported {format_count(len(errors), 'error')}, e.g. "
            f"'{errors[0]}', so frames can be wrong or missing"
        )


def _facts(container: Any) -> dict[str, Any]:
    facts: dict[str, Any] = {"format": container.format.name}
    if container.duration:
        facts["seconds"] = round(container.duration / 1e6, 3)
    if source := main_video_stream(container):
        frame = next(container.decode(source), None)
        facts["codec"] = source.codec_context.name
        facts["size"] = f"{source.width}x{source.height}"
        facts["frames_per_second"] = float(source.average_rate) if source.average_rate else None
        if frame is not None:
            colours, turned = colours_of(frame, source), orientation_of(frame)
            facts["pixels"] = frame.format.name
            facts["depth"] = colours.bits
            facts["matrix"] = _NAMES.get(colours.matrix, str(colours.matrix))
            facts["primaries"] = _NAMES.get(colours.primaries, f"H.273 {colours.primaries}")
            facts["dynamic_range"] = HDR.get(colours.transfer)
            words = {"transposed": turned.swap, "mirrored": turned.mirror, "flipped": turned.flip}
            facts["orientation"] = ", ".join(word for word, is_so in words.items() if is_so) or None
            facts["notes"] = frame_notes(frame, source, colours, turned)
    facts["streams"] = [_stream(one) for one in container.streams]
    facts["chapters"] = len(container.chapters())
    kept = kept_metadata(dict(container.metadata), "all")
    facts["metadata"] = [f"{key}: {value}" for key, value in kept.items()]
    return facts | {f"restored: {name}": value for name, value in comment_of(container).items()}


def _stream(one: Any) -> str:
    codec = one.codec_context.name if one.codec_context else ""
    words = (one.type, codec, one.metadata.get("language", ""), one.metadata.get("title", ""))
    return " ".join(filter(None, words))
