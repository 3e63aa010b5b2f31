"""How certain the difference between two entries is, by the pictures that both restored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from restore_cli.benchmarking.run import Row

_SAMPLES = 10_000  # drawn with replacement
_LEAST = 5  # pictures, below which an interval says little


@dataclass(frozen=True, slots=True)
class Difference:
    """PSNR of one entry above that of another one on the same pictures."""

    better: str  # name of the entry with the higher mean
    worse: str  # name of the other one
    mean: float  # mean difference, dB
    low: float  # lower end of the 95 % interval of the mean, dB
    high: float  # its upper end
    wins: int  # number of pictures on which `better` is better
    count: int  # number of pictures

    def __str__(self) -> str:
        return (
            f"{self.better} over {self.worse}: {self.mean:+.2f} dB, 95 % interval {self.low:+.2f} "
            f"to {self.high:+.2f}, better on {self.wins} of {self.count} pictures"
        )


def differences(rows: Mapping[str, Sequence[Row]]) -> list[Difference]:
    """Compare each entry with the next lower one, by the paired bootstrap (percentiles).

    Args:
        rows: rows by name of the entry.
    """
    scores = {name: {r.sample: r.psnr for r in own if not r.error} for name, own in rows.items()}
    finite = {
        name: {sample: psnr for sample, psnr in own.items() if math.isfinite(psnr)}
        for name, own in scores.items()
    }
    common = set.intersection(*(set(own) for own in finite.values())) if finite else set()
    if len(common) < _LEAST:
        return []
    names = sorted(common)
    values = {name: np.array([own[sample] for sample in names]) for name, own in finite.items()}
    ranked = sorted(values, key=lambda name: -values[name].mean())
    drawn = np.random.default_rng(0).integers(0, len(names), (_SAMPLES, len(names)))
    found = []
    for better, worse in pairwise(ranked):
        gains = values[better] - values[worse]
        low, high = np.percentile(gains[drawn].mean(1), (2.5, 97.5))
        wins = int((gains > 0).sum())
        mean = float(gains.mean())
        found.append(Difference(better, worse, mean, float(low), float(high), wins, len(names)))
    return found
