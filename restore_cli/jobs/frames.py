"""Restores single frames, and streams of raw rgb24 frames as ffmpeg writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from restore_cli.errors import NoInputError, PictureError
from restore_cli.files import write_to_stdout
from restore_cli.inference.stages import Stage
from restore_cli.rounding import to_float


def restore_frames(stream: BinaryIO, height: int, width: int, stage: Stage) -> Iterator[int]:
    """Restore frames from a stream to stdout until it ends; yield the number of frames done.

    Frames have height * width * 3 bytes each.

    Raises:
        NoInputError: there are no frames.
        PictureError: the stream ends within a frame, or the network's output is not finite.
    """
    size, done = height * width * 3, 0
    while data := stream.read(size):
        if len(data) < size:
            raise PictureError(
                f"the stream ended after {len(data)} of {size} bytes of frame {done + 1}",
                hint=f"is it rgb24 of {width}x{height}?",
            )
        values = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        if not write_to_stdout(restore_frame(values, stage).tobytes()):
            return  # the reader has closed the pipe
        done += 1
        yield done
    if not done:
        raise NoInputError("no frames arrived on stdin", hint="did the program before it fail?")


def restore_frame(values: NDArray[Any], stage: Stage) -> NDArray[Any]:
    """(H, W, 3) uint8 or uint16 -> (scale * H, scale * W, 3) of the same type, contiguous.

    Raises `PictureError` if the network's output is not finite.
    """
    whole = torch.from_numpy(np.require(values, requirements="W"))  # torch warns if read-only
    restored = stage(to_float(whole.permute(2, 0, 1)[None]), depth=8 * values.itemsize)
    return np.ascontiguousarray(restored[0].permute(1, 2, 0).numpy())
