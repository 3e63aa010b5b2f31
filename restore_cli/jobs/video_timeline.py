"""Timestamps of a video's packets, where recordings were joined."""

from collections import Counter
from fractions import Fraction
from typing import Any


class Timeline:
    """Timestamps that increase, also where recordings were joined and begin again.

    All streams are moved by the same time, so that they stay together.
    """

    def __init__(self) -> None:
        self.end = Fraction(0)  # end of the last packet, seconds
        self._moved = [Fraction(0)]  # seconds, of each recording
        self._recording: Counter[int] = Counter()  # in which a stream is, by its index
        self._last: dict[int, Fraction] = {}

    @property
    def jumps(self) -> int:
        """How often the timestamps went back."""
        return len(self._moved) - 1

    def shift_timestamps(self, packet: Any) -> None:
        """Move a packet behind the one before it, if its recording begins again."""
        index, unit = packet.stream.index, packet.time_base
        shown = packet.dts if packet.pts is None else packet.pts
        if shown is None or not unit:
            return
        if packet.dts is not None:  # Matroska states none for the first packets
            first = packet.dts * unit
            last = self._last.get(index)
            if last is not None and first + self._moved[self._recording[index]] < last:
                self._recording[index] += 1
                if self._recording[index] == len(self._moved):
                    self._moved.append(self.end - first)
            self._last[index] = first + self._moved[self._recording[index]]
        moved = self._moved[self._recording[index]]
        self.end = max(self.end, (shown + (packet.duration or 0)) * unit + moved)
        if moved:
            ticks = round(moved / unit)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks


class DisplayTimes:
    """Times at which the frames of an AVI are shown; other containers state them.

    AVI states only when packets are decoded. FFmpeg takes that as the time of the frame, so frames
    that were stored in another order (B-frames) would be shown in that one. Decoders return frames
    in the order in which they are shown, one whenever a packet is decoded, after a delay.
    """

    def __init__(self, container: str) -> None:
        self._applies = container == "avi"
        self._delay: int | None = None  # ticks from the first packet to that of the first frame
        self._first: int | None = None  # time of the first packet, ticks
        self._next = 0  # time of the next frame, ticks

    def forget_display_time(self, packet: Any) -> None:
        """Leave a packet only the time at which it is decoded."""
        if self._applies:
            packet.pts = None
            self._first = packet.dts if self._first is None else self._first

    def set_display_time(self, frame: Any) -> None:
        """Set the time of a frame; the decoder's last frames follow at equal distances."""
        if self._first is None:
            return
        if frame.dts is not None:
            if self._delay is None:
                self._delay = frame.dts - self._first
            self._next = max(self._next, frame.dts - self._delay)
        frame.pts = self._next
        self._next += frame.duration or 1
