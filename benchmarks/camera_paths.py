"""Straightness of camera paths: a phone's gyroscope, and the paths of `motion` in recipes.

Straightness is the distance between the ends of a path over its length: 1 for a line, near 0 for
a loop. The log (`gyro/`, 71.7 s at 412 Hz) is cut into exposures of 1/60 to 1/8 s, of which those
with a path of 5 to 15 px count (focal length 1000 px; two axes of rotation).

    python benchmarks/camera_paths.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from restore_cli.degradations.motion import draw_trajectory
from restore_cli.degradations.recipe import load_degradation

LOG = Path(__file__).parent / "gyro" / "phone_gyro_412hz.npz"
FOCAL = 1000.0  # pixels
EXPOSURES = (1 / 60, 1 / 8)  # seconds, drawn log-uniformly
LENGTHS = (5.0, 15.0)  # pixels
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75)


def straightness(path: np.ndarray) -> float:
    """Distance of the ends over the length, in [0, 1], of a path (T, 2)."""
    return float(np.hypot(*(path[-1] - path[0])) / _length(path))


def _length(path: np.ndarray) -> float:
    return float(np.hypot(*np.diff(path, axis=0).T).sum()) + 1e-12


def recorded(log: Path) -> list[np.ndarray]:
    """Paths (T, 2), pixels, of exposures in a gyroscope's log."""
    with np.load(log) as numbers:
        rate, time = numbers["rate_rad_s"], numbers["time_s"]
    angle = np.cumsum(rate[:-1, :2] * np.diff(time)[:, None], axis=0)
    rng, paths = np.random.default_rng(0), []
    for start in range(0, len(angle) - 60, 3):
        exposure = np.exp(rng.uniform(*np.log(EXPOSURES)))
        path = FOCAL * angle[start : start + round(exposure / np.diff(time).mean()) + 1]
        if LENGTHS[0] <= _length(path) <= LENGTHS[1]:
            paths.append(path)
    return paths


def drawn(walk: tuple[float, float] | None, number: int = 3000) -> list[np.ndarray]:
    """Paths (T, 2), pixels, of `draw_trajectory`."""
    size = {"picture": (720, 1280), "centre": (640.0, 360.0)}
    rngs = map(np.random.default_rng, range(number))
    return [draw_trajectory(rng, length=10, samples=24, walk=walk, **size).shift for rng in rngs]


def main() -> None:
    """Print quantiles of the straightness, and the best fit to the log."""
    fitted = load_degradation("handheld-gyro").steps[0].walk
    log = np.quantile([straightness(path) for path in recorded(LOG)], QUANTILES)
    print("quantile      " + "".join(f"{q:8.0%}" for q in QUANTILES))
    print("gyroscope     " + "".join(f"{value:8.2f}" for value in log))
    for name, walk in {"handheld": None, "handheld-gyro": fitted}.items():
        found = np.quantile([straightness(path) for path in drawn(walk)], QUANTILES)
        print(f"{name:14}" + "".join(f"{value:8.2f}" for value in found))
    misses = {}
    for median in (0.3, 0.4, 0.5, 0.6, 0.8):
        for deviation in (1.0, 1.25, 1.5, 1.75, 2.0):
            paths = drawn((median, deviation))
            found = np.quantile([straightness(path) for path in paths], QUANTILES)
            misses[median, deviation] = float(np.abs(found - log).max())
    best = min(misses, key=misses.__getitem__)
    print(f"best of {len(misses)}: walk = {list(best)}, at most {misses[best]:.2f} away")


if __name__ == "__main__":
    main()
