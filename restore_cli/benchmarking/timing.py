"""Run times as in the papers: at one size, after warm-up runs, with synchronisation."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from restore_cli.benchmarking.run import Entry

RUNS = 3  # timed runs, of which the median is taken


@dataclass(frozen=True, slots=True)
class Timed:
    """A run time."""

    seconds: float  # median of `RUNS`
    width: int  # width of the input, pixels
    height: int  # height of the input, pixels
    warm_up: int  # number of warm-up runs
    device: str  # device, with the name of a GPU


def run_time(entry: Entry, width: int, height: int, warm_up: int) -> Timed:
    """Time to restore one picture of random pixels, without reading and writing."""
    device = entry.pipeline.options.device
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(warm_up + RUNS):
        begun = time.monotonic()
        entry.pipeline(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.monotonic() - begun)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return Timed(
        seconds=statistics.median(seconds[warm_up:]),
        width=width,
        height=height,
        warm_up=warm_up,
        device=f"{device} {name}".strip(),
    )
