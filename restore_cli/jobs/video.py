"""Restores every frame of a video, and copies its other streams and metadata."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from restore_cli.errors import PictureError
from restore_cli.files import FULL, remedy, write_then_rename
from restore_cli.formatting import format_count, reason_of
from restore_cli.image.formats import CONTAINERS, HEAD, recognise
from restore_cli.inference.stages import ProgressCallback, Stage
from restore_cli.jobs.frames import restore_frame
from restore_cli.jobs.video_containers import hides_a_border
from restore_cli.jobs.video_facts import (
    BT709,
    BT2020,
    MATRICES,
    UNKNOWN,
    Colours,
    Orientation,
    capture_errors,
    check_convertible,
    colours_of,
    frame_notes,
    frames_in_all,
    import_av,
    kept_metadata,
    main_video_stream,
    open_video,
    orientation_of,
)
from restore_cli.jobs.video_timeline import DisplayTimes, Timeline

# x264's constant rate factor: 18 is called visually lossless by its own documentation.
_RATE_FACTOR = "16"
_LIMITED = 1  # FFmpeg's number of the limited range
_MOTION_JPEG = (".mjpeg", ".mjpg")  # videos that begin like a picture
_MAX_SIDE = 16384  # pixels of a side
# FFmpeg's SWS_BICUBIC, SWS_FULL_CHR_H_INT and SWS_ACCURATE_RND. By default it repeats chroma and
# truncates: decoding 4:2:0 was off by 5.7 of 255 on coloured noise, 1.0 with these, and darker by
# 0.6 to 1.5; 10 bits with an odd width were noise. Encoding and decoding: 1.0 -> 0.5.
_EXACT = 4 | 0x2000 | 0x40000
_FRAME_DURATION = 1 << 8  # FFmpeg's AV_CODEC_FLAG_FRAME_DURATION
_ONE_EACH = ("h264", "hevc")  # codecs in which every packet holds one picture, or one field
_SEARCHED = 100  # frames in which a time is searched
_GRACE = 0.5  # seconds by which a container's duration may exceed its data


def restore_video(
    source: Path,
    target: Path,
    stage: Stage,
    provenance: dict[str, str],
    report: ProgressCallback,
    *,
    metadata: str = "standard",
    commit: Callable[[Path, Path], object] = os.replace,
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Restore a video frame by frame.

    Args:
        source: any video that FFmpeg reads.
        target: .mp4, .m4v, .mov or .mkv, written as H.264; audio is copied.
        stage: a pipeline.
        provenance: provenance, for the container's comment.
        report: called with (frames done, number of frames according to the container).
        metadata: "all", "standard", "private" or "none"; see `writing.Encoding`.
        commit: gives the finished file its name; see `write_then_rename`.

    Returns:
        Height and width of the output, and notes on what was left out.

    Raises:
        UsageError: PyAV is not installed.
        PictureError: not a video, it is damaged, or the disk is full.
    """
    av = import_av()
    try:
        with source.open("rb") as file:
            head = file.read(HEAD)
        if not head:
            raise PictureError(f"'{source}' is empty")
        kind = recognise(head)
        if kind and not (kind == "jpeg" and source.suffix.lower() in _MOTION_JPEG):
            raise PictureError(
                f"'{source}' is a picture ({kind}), not a video", hint="give it its own suffix"
            )
        first = _first_frame(av, source)
        with open_video(source) as reader, write_then_rename(target, commit) as temporary:
            kind = CONTAINERS[target.suffix.lower()]
            # So that equal inputs and options give equal files: Matroska has a random number.
            options = {"fflags": "+bitexact"}
            with av.open(str(temporary), "w", format=kind, options=options) as writer:
                job = _VideoRestorer(av, reader, writer, first, stage, str(source))
                job.describe(provenance, metadata)
                if hides_a_border(source):
                    job.notes.append("its container hides a border of the frames, which is shown")
                with capture_errors(av) as errors:
                    job.run(report)
            notes = [*job.notes, *errors, *_missing(temporary, job)]
            return job.size, tuple(notes)
    except (av.error.FFmpegError, OSError) as error:
        read = isinstance(error, av.error.FFmpegError) or error.filename == str(source)
        read &= error.errno not in FULL
        what = f"restore '{source}'" if read else f"write '{target}'"
        hint = "" if read else remedy(error)
        if read and not isinstance(error, OSError):  # neither missing nor forbidden
            hint = "convert it first, e.g. `ffmpeg -i FILE FILE.mkv`"
        raise PictureError(f"cannot {what}: {reason_of(error)}", hint=hint) from error


def _first_frame(av: Any, source: Path) -> tuple[Any, Colours, Orientation]:
    """Decode the first frame with a separate reader: seeking back would lose earlier audio."""
    with suppress(av.error.EOFError), open_video(source) as reader:
        video = main_video_stream(reader)
        if video is None:
            found = reader.streams.video
            unknown = any(one.codec_context is None for one in found)
            only = " of a codec that FFmpeg knows" if unknown else " (only a cover)" * bool(found)
            raise PictureError(f"'{source}' has no video stream{only}")
        for packet in reader.demux(video):
            with suppress(*_damage(av)):  # as of the packets that follow
                for frame in packet.decode():
                    check_convertible(reader, frame, str(source))
                    return frame, colours_of(frame, video), orientation_of(frame)
    raise PictureError(f"'{source}' has no frames that can be decoded")


def _begin(av: Any, source: Path) -> int:
    """Return the time of the first frame, in ticks; 0 if no frame has one.

    Matroska's times before zero are unknown to FFmpeg, so this is found from a later frame.
    """
    with suppress(*_damage(av), av.error.EOFError), open_video(source) as reader:
        video = main_video_stream(reader)
        for number, frame in enumerate(islice(reader.decode(video), _SEARCHED)):
            if frame.pts is not None:
                rate = video.average_rate or Fraction(25)
                return int(frame.pts - round(number / rate / video.time_base))
    return 0


def _damage(av: Any) -> tuple[type[Exception], ...]:
    """Return the errors of a packet that cannot be decoded."""
    return (av.error.InvalidDataError, av.error.ExternalError)


class _VideoRestorer:
    """The restoration of one video."""

    def __init__(
        self,
        av: Any,
        reader: Any,
        writer: Any,
        first: tuple[Any, Colours, Orientation],
        stage: Stage,
        name: str,
    ) -> None:
        self._name = name
        frame, self._colours, self._turn = first
        self._av, self._reader, self._writer = av, reader, writer
        self._stage = stage
        self._first = (frame.width, frame.height)
        self._begin = _begin(av, Path(reader.name)) if frame.pts is None else 0  # ticks
        self._shape: Any = None  # of the pixels of the first frame
        self._source = main_video_stream(reader)
        self._source.thread_count = 1  # decoding must not fight the network for the cores
        # Notes on what was left out.
        self.notes = frame_notes(frame, self._source, self._colours, self._turn)
        self.copied: Counter[int] = Counter()  # packets written, by index of the copied stream
        self.metadata: dict[str, str] = {}  # to be written
        self.pairs: list[tuple[Any, Any]] = []  # streams restored or copied, and those written
        self._last: Any = None  # frame that is not encoded yet: the next one ends it
        self._newest: int | None = None  # time of the latest frame
        self._ends = 0
        height, width = (side * stage.scale for side in (frame.height, frame.width))
        self._whole = (width, height) if self._turn.swap else (height, width)
        if min(self._whole) < 2:
            raise PictureError(f"'{name}': H.264 cannot hold a video of one row or column")
        if max(self._whole) > _MAX_SIDE:
            size = f"{self._whole[1]}x{self._whole[0]}"
            raise PictureError(
                f"'{name}': a video of {size} is larger than H.264 can hold ({_MAX_SIDE} px)",
                hint="use a model of x1, or make the video smaller",
            )
        self._deep = self._colours.bits > 8
        self._image = self._add_image()
        self.size = (self._image.height, self._image.width)  # of the output
        if self.size != self._whole:
            self.notes.append("one row or column was cut off: H.264 needs even sides")
        self._copies = self._add_copies()

    def _add_image(self) -> Any:
        source, colours = self._source, self._colours
        image = self._writer.add_stream("libx264", rate=source.average_rate or Fraction(25))
        height, width = self._whole
        image.width, image.height = width - width % 2, height - height % 2
        image.pix_fmt = "yuv420p10le" if self._deep else "yuv420p"
        # Always stated: players assume BT.709 for large videos.
        context = image.codec_context
        context.colorspace = BT2020 if colours.wide else BT709
        context.color_primaries = BT709 if colours.primaries == UNKNOWN else colours.primaries
        context.color_trc = BT709 if colours.transfer == UNKNOWN else colours.transfer
        context.color_range = _LIMITED
        if ratio := source.sample_aspect_ratio:
            context.sample_aspect_ratio = 1 / ratio if self._turn.swap else ratio
        image.options = {"crf": _RATE_FACTOR, "forced-idr": "1"}
        context.time_base = source.time_base
        context.flags |= _FRAME_DURATION
        context.thread_count = 1
        return image

    def _add_copies(self) -> dict[Any, Any]:
        """Add copies of audio and subtitle streams; all other streams get a note."""
        copies = {}
        chapters = self._reader.chapters()
        for stream in self._reader.streams:
            if stream is self._source:
                continue
            name = stream.codec_context.name if stream.codec_context else stream.type
            what = {"audio": "audio", "subtitle": "subtitles"}.get(stream.type)
            if what is None:
                # MP4 stores the names of chapters in a stream; `set_chapters` writes a new one.
                if stream.metadata.get("handler_name") == "SubtitleHandler" and chapters:
                    continue
                # MOV's stream of timecodes is written from the metadata.
                if "timecode" in stream.metadata and self._writer.format.name in ("mov", "mp4"):
                    continue
                self.notes.append(f"its stream {stream.index} ({stream.type}) was left out")
                continue
            if self._holds(stream):
                copies[stream] = self._writer.add_stream_from_template(stream)
            else:
                were, it = ("was", "it") if what == "audio" else ("were", "them")
                self.notes.append(
                    f"its {what} ({name}) {were} left out: the container cannot hold {it}"
                )
        return copies

    def _holds(self, stream: Any) -> bool:
        """Whether the container can hold a copy, by a trial with its first packet.

        Some codecs fail at the header, and others at the end, when all frames are restored.
        """
        kind = self._writer.format.name
        try:
            with (
                open_video(Path(self._reader.name)) as reader,
                self._av.open(io.BytesIO(), "w", format=kind) as trial,
            ):
                own = reader.streams[stream.index]
                copy = trial.add_stream_from_template(own)
                trial.start_encoding()
                # The first packet of subtitles may be far away.
                for packet in reader.demux(own) if own.type == "audio" else ():
                    if packet.size and packet.dts is not None:
                        packet.stream = copy
                        trial.mux(packet)
                        break
        except (self._av.error.FFmpegError, ValueError, TypeError):
            return False
        return True

    def describe(self, provenance: dict[str, str], level: str) -> None:
        """Write metadata, languages, dispositions, chapters and provenance."""
        own = dict(self._reader.metadata)
        self.metadata = kept_metadata(own, level)
        comment = own.get("comment", own.get("COMMENT"))
        values = dict(provenance)
        if comment and level != "none":
            try:
                json.loads(comment)
            except ValueError:
                values["comment"] = comment
        self._writer.metadata.update(self.metadata)
        if values:
            self._writer.metadata["comment"] = json.dumps(values)
        replaced = [key for key, value in self.metadata.items() if "\ufffd" in value]
        if replaced:
            self.notes.append(f"letters that are not UTF-8 were replaced: {', '.join(replaced)}")
        self.pairs = [(self._source, self._image), *self._copies.items()]
        for stream, copy in self.pairs:
            own = kept_metadata(dict(stream.metadata), level)
            if "mov" in self._reader.format.name and "name" in own:
                own.setdefault("title", own.pop("name"))  # FFmpeg's two names for it
            copy.metadata.update(own)
            copy.disposition = stream.disposition
        chapters = self._reader.chapters() if level != "none" else []
        if chapters:
            self._writer.set_chapters(chapters)

    def run(self, report: ProgressCallback) -> None:
        """Process all packets in the order of the file.

        Raises `PictureError` if no frame can be decoded, or the network's output is not finite.
        """
        frames = frames_in_all(self._reader, self._source)
        counts, timeline = Counter[str](), Timeline()
        times = DisplayTimes(self._reader.format.name)
        try:
            for packet in self._reader.demux([self._source, *self._copies]):
                timeline.shift_timestamps(packet)
                if packet.stream in self._copies:
                    self._copy(packet)
                    continue
                counts["seen"] += bool(packet.size) and not packet.is_discard
                times.forget_display_time(packet)
                try:
                    decoded = packet.decode()
                except _damage(self._av):
                    counts["broken"] += 1
                    continue
                for frame in decoded:
                    times.set_display_time(frame)
                    if self._is_late(frame):
                        counts["late"] += 1
                        continue
                    self._write(frame, counts["done"])
                    counts["done"] += 1
                    counts["damaged"] += bool(frame.is_corrupt)
                    counts["interlaced"] += bool(frame.interlaced_frame)
                    report(counts["done"], max(frames, counts["done"]))
        except self._av.error.InvalidDataError:
            counts["broken"] += 1  # the container is truncated
        # In MP4, a decoded frame has the duration of another one if frames were reordered.
        stated = (self._source.start_time or 0) + (self._source.duration or 0)
        if "mov" in self._reader.format.name and counts["seen"] >= self._source.frames:
            self._ends = max(self._ends, stated)
        self._encode(until=self._ends, at_end=True)
        self._writer.mux(self._image.encode())
        if not counts["done"]:
            raise PictureError(f"'{self._name}' has no frames that can be decoded")
        self._tell(counts, timeline)

    def _tell(self, counts: Counter[str], timeline: Timeline) -> None:
        """Add notes on what was damaged or is missing."""
        done, broken, source = counts["done"], counts["broken"], self._source
        if broken:
            kept = f": {done} of {source.frames} frames are left" * bool(source.frames)
            self.notes.append(
                f"{broken} of its packets could not be decoded and were left out{kept}"
            )
        if counts["late"]:
            what = format_count(counts["late"], "frame")
            self.notes.append(f"{what} that came after later ones were left out")
        silent = counts["seen"] - broken - done - counts["late"]
        whole = source.codec_context.name in _ONE_EACH and not counts["interlaced"]
        if silent > 0 and whole:
            self.notes.append(
                f"{silent} of its {format_count(counts['seen'], 'packet')} gave no picture"
            )
        if counts["damaged"]:
            what = format_count(counts["damaged"], "damaged frame")
            self.notes.append(f"the decoder filled in what is missing in {what}")
        if timeline.jumps:
            self.notes.append(
                f"its timestamps go back {format_count(timeline.jumps, 'time')}; "
                "what follows was moved"
            )
        promised = (self._reader.duration or 0) / 1e6
        if self._reader.format.name == "avi" and source.average_rate:
            # FFmpeg derives the duration from the data if the index at the end is missing.
            promised = max(promised, float(source.frames / source.average_rate))
        start = (self._reader.start_time or 0) / 1e6
        # Matroska's duration begins at zero, that of other containers at their start.
        ends = float(timeline.end) - min(start, 0), float(timeline.end) - start
        if promised - max(ends) > max(_GRACE, promised / 100):
            self.notes.append(
                f"its container states {promised:.1f} s, but its data ends after {ends[1]:.1f} s"
            )

    def _copy(self, packet: Any) -> None:
        if not packet.size:
            return  # end of the stream
        if packet.dts is None:
            packet.dts = packet.pts
        if packet.dts is None:
            return
        packet.stream = self._copies[packet.stream]
        index = packet.stream.index
        self._writer.mux(packet)
        self.copied[index] += 1

    def _is_late(self, frame: Any) -> bool:
        """Whether a later frame was shown before, as when packets of a broadcast were lost."""
        if frame.pts is None:
            return False
        late = self._newest is not None and frame.pts < self._newest
        self._newest = frame.pts if self._newest is None else max(self._newest, frame.pts)
        return late

    def _write(self, frame: Any, number: int) -> None:
        kind, coded = ("rgb48le", "yuv420p10le") if self._deep else ("rgb24", "yuv420p")
        check_convertible(self._reader, frame, self._name)
        colours, turn = colours_of(frame, self._source), orientation_of(frame)
        found = frame_notes(frame, self._source, colours, turn)
        if replace(colours, matrix=0, full=False) != replace(self._colours, matrix=0, full=False):
            found.append("its colours or bit depth change; it is tagged like its first frame")
        shape = self._source.codec_context.sample_aspect_ratio or 1
        self._shape = self._shape or shape
        if shape != self._shape:
            found.append("the shape of its pixels changes; it is tagged like its first frame")
        self.notes += [note for note in found if note not in self.notes]
        if self._first != (frame.width, frame.height):
            raise PictureError(
                f"'{self._name}': frame {number} is {frame.width}x{frame.height}, but the "
                f"frames before are {self._first[0]}x{self._first[1]}",
                hint="split the video where its size changes",
            )
        seen = frame
        if not frame.format.is_rgb:
            seen = frame.reformat(
                format=kind,
                src_colorspace=MATRICES[colours.matrix],
                src_color_range="JPEG" if colours.full else "MPEG",
                dst_color_range="JPEG",
                interpolation=_EXACT,
            )
        upright = self._turn.apply(seen.to_ndarray(format=kind))
        restored = restore_frame(upright, self._stage)
        restored = np.ascontiguousarray(restored[: self._image.height, : self._image.width])
        matrix = "BT2020" if self._colours.wide else "ITU709"
        new = self._av.VideoFrame.from_ndarray(restored, kind).reformat(
            format=coded, dst_colorspace=matrix, dst_color_range="MPEG", interpolation=_EXACT
        )
        new.color_primaries = self._image.codec_context.color_primaries
        new.color_trc = self._image.codec_context.color_trc
        if frame.pts is None:
            rate = self._source.average_rate or Fraction(25)
            new.pts, new.time_base = (
                self._begin + int(number / rate / self._source.time_base),
                self._source.time_base,
            )
        else:
            new.pts, new.time_base = frame.pts, frame.time_base
        last = self._last
        # MP4 and MOV refuse two frames at one time. Earlier ones follow frames without a time.
        strict = self._writer.format.name in ("mov", "mp4")
        if last is not None and new.pts < last.pts + strict:
            new.pts = last.pts + 1  # a tick
            note = "frames with the time of the frame before were moved by one tick"
            self.notes += [note] * (note not in self.notes)
        self._encode(until=new.pts)
        self._last = new
        self._ends = new.pts + (frame.duration or 0)

    def _encode(self, until: int, *, at_end: bool = False) -> None:
        """Encode the last frame, which is shown until a time in its own units."""
        if self._last is None:
            return
        self._last.duration = max(0, until - self._last.pts)
        if at_end:  # MP4 keeps the duration of the last stored packet: not a B-frame
            self._last.pict_type = self._av.video.frame.PictureType.I
        self._writer.mux(self._image.encode(self._last))


def _missing(written: Path, job: _VideoRestorer) -> list[str]:
    """Return notes on what is missing from the written container, which is read again."""
    notes = []
    with open_video(written) as container:
        there = set(container.metadata.values())
        if "location" in container.metadata:  # which MP4 writes with more digits
            there |= {value for key, value in job.metadata.items() if key.lower() == "location"}
        gone = sorted(key for key, value in job.metadata.items() if value not in there)
        if gone:
            notes.append(f"left out: {', '.join(gone)}")
        found: Counter[int] = Counter()
        if job.copied:
            streams = [stream for stream in container.streams if stream.index in job.copied]
            found.update(p.stream.index for p in container.demux(streams) if p.size)
        for stream, copy in job.pairs:
            tags = container.streams[copy.index].metadata
            for key, other in (("language", "language"), ("title", "name")):
                value = copy.metadata.get(key, "und")
                if value not in ("und", tags.get(key), tags.get(other)):
                    notes.append(f"the {key} '{value}' of its stream {stream.index} was left out")
        for index, count in job.copied.items():
            if found[index] != count:
                notes.append(f"{count - found[index]} packets of stream {index} were lost")
    return notes
