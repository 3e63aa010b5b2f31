"""References of Koehler et al.: frames of a camera path, as picture files or one `.mat` file."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore_cli.errors import PictureError, require

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
    array = _array(path)
    if array.ndim != 4 or array.shape[2] != 3 or 0 in array.shape or array.dtype.kind not in "uf":
        raise PictureError(
            f"'{path}': '{VARIABLE}' is {array.dtype} of shape {array.shape}, not frames"
        )
    peak = 255.0 if array.dtype.kind == "u" or array.max() > 1 else 1.0
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > peak:
        raise PictureError(f"'{path}': '{VARIABLE}' has values outside 0 to {peak:g}")
    numbers = re.search(r"(\d+)_(\d+)$", path.stem)
    broken = BROKEN.get((int(numbers[1]), int(numbers[2]))) if numbers else None
    factor = torch.tensor(1 / peak, dtype=torch.float32)  # as `as_float`, so that equal are equal
    return [
        torch.from_numpy(np.ascontiguousarray(array[..., n].transpose(2, 0, 1)))[None].float()
        * factor
        for n in range(array.shape[-1])
        if n + 1 != broken
    ]


def _array(path: Path) -> Any:
    require("mat", "scipy", what=f"reading '{path}'")
    from scipy.io import loadmat, whosmat  # noqa: PLC0415  only for .mat
    from scipy.io.matlab import MatReadError  # noqa: PLC0415

    # All exceptions that scipy raises for broken files; it executes nothing in them.
    broken = (MatReadError, ValueError, TypeError, LookupError, OSError, EOFError, zlib.error)
    try:
        shapes = {name: shape for name, shape, _ in whosmat(path)}
        if VARIABLE not in shapes:
            raise PictureError(f"'{path}' has no '{VARIABLE}'")
        if np.prod(shapes[VARIABLE], dtype=object) > MAX_VALUES:
            raise PictureError(f"'{path}': '{VARIABLE}' is too large: {shapes[VARIABLE]}")
        return loadmat(path, variable_names=[VARIABLE])[VARIABLE]
    except NotImplementedError as error:
        raise PictureError(
            f"'{path}' is a MATLAB 7.3 file", hint="save it in MATLAB with '-v7'"
        ) from error
    except (*broken, MemoryError, OverflowError) as error:
        raise PictureError(f"'{path}' is not a valid MATLAB file: {error}") from error


def _number(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])
