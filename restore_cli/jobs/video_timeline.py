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
