"""References of Koehler et al.: frames of a camera path, as picture files or one `.mat` file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore_cli.errors import PictureError
from restore_cli.files import read_mat

VARIABLE = "GroundTruth"
BROKEN = {(1, 3): 30}  # (picture, camera path): frame that is broken in the published set
MAX_VALUES = 2**30  # most values of an array; the published ones have 0.4 * 10^9


def frames_of(folder: Path, picture: int, path: int) -> list[Path]:
    """Return the files of the frames in order, else the `.mat` file with all of them, else none."""
    name = f"{VARIABLE}{picture}_{path}"
    found = (
        path for path in folder.rglob(f"{name}_*.png") if path.stem[len(name) + 1 :].isdecimal()
    )
    frames = sorted(found, key=_number)
    kept = [frame for frame in frames if _number(frame) != BROKEN.get((picture, path))]
    return kept or sorted(folder.rglob(f"{name}.mat"))[:1]


def read_references(path: Path) -> list[Tensor]:
    """Read all frames (1, 3, H, W) in [0, 1] of a `.mat` file.

    Raises:
        PictureError: unreadable, or without an H x W x 3 x N array `GroundTruth`.
        UsageError: a `.mat` file without scipy.
    """
    try:
        array = read_mat(path, MAX_VALUES, VARIABLE)[VARIABLE]
    except ValueError as error:
        raise PictureError(f"cannot read '{path}': {error}") from error
    if array.ndim != 4 or array.shape[2] != 3 or 0 in array.shape or array.dtype.kind not in "uf":
        raise PictureError(
            f"'{path}': '{VARIABLE}' is {array.dtype} of shape {array.shape}, not frames"
        )
    peak = 255.0 if array.dtype.kind == "u" or array.max() > 1 else 1.0
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > peak:
        raise PictureError(f"'{path}': '{VARIABLE}' has values outside 0 to {peak:g}")
    numbers = re.search(r"(\d+)_(\d+)$", path.stem)
    broken = BROKEN.get((int(numbers[1]), int(numbers[2]))) if numbers else None
    factor = torch.tensor(1 / peak, dtype=torch.float32)  # as `to_float`, so that equal are equal
    return [
        torch.from_numpy(np.ascontiguousarray(array[..., n].transpose(2, 0, 1)))[None].float()
        * factor
        for n in range(array.shape[-1])
        if n + 1 != broken
    ]


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])
