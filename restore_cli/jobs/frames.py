"""Raw frames through a pipe, as ffmpeg speaks them: rgb24, one frame after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import torch

from restore_cli.errors import PictureError
from restore_cli.files import write_to_stdout
from restore_cli.inference.cascade import Stage
from restore_cli.resample import resize_bicubic


def restore_frames(
    stream: BinaryIO, height: int, width: int, stage: Stage, scale: int
) -> Iterator[int]:
    """Restore frames from a stream to stdout until it ends.

    Args:
        stream: of height * width * 3 bytes a frame.
        height: pixels of a frame.
        width: pixels of a frame.
        stage: a network made ready.
        scale: output pixels per input pixel.

    Yields:
        The number of frames done.

    Raises:
        PictureError: the stream ends within a frame, or the network's output is not finite.
    """
    size, done = height * width * 3, 0
    while data := stream.read(size):
        if len(data) < size:
            raise PictureError(
                f"the stream ended after {len(data)} of {size} bytes of frame {done + 1}",
                hint=f"is it rgb24 of {width}x{height}?",
            )
        values = np.frombuffer(data, np.uint8).reshape(height, width, 3).astype(np.float32)
        restored = stage(torch.from_numpy(values / 255).permute(2, 0, 1)[None])
        wanted = (height * scale, width * scale)
        if restored.shape[-2:] != wanted:
            restored = resize_bicubic(restored, *wanted)
        frame = (restored[0].clamp(0, 1) * 255).round_().byte()
        if not write_to_stdout(frame.permute(1, 2, 0).contiguous().numpy().tobytes()):
            return  # nobody reads on
        done += 1
        yield done
