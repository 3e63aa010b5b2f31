"""Blur from videos: the mean of neighbouring frames in linear light, as in REDS and GoPro.

Nah et al., "Deep Multi-scale Convolutional Neural Network for Dynamic Scene Deblurring", CVPR 2017;
equations 3 and 5 of Chu et al. 2022: the blurry picture is g(mean of g^-1(frames)) with the
camera's response g, and the middle frame is the sharp one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from restore_cli.degradations.response import Response, to_encoded, to_linear
from restore_cli.errors import PictureError
from restore_cli.image import read_rgb8
from restore_cli.image.folders import list_pictures


def read_frames(path: Path) -> Iterator[Tensor]:
    """Yield (3, H, W) uint8 frames of a video, or of a folder's pictures in numerical order.

    Raises `PictureError` if the video or a frame cannot be read, there are no frames, or a frame
    differs in size from the first.
    """
    still = partial(read_rgb8, strict=True)
    frames = map(still, list_pictures(path)) if path.is_dir() else _video(path)
    first: torch.Size | None = None
    for n, frame in enumerate(frames):
        if first is not None and frame.shape != first:
            raise PictureError(
                f"'{path}': frame {n} is {frame.shape[2]}x{frame.shape[1]}, "
                f"the first is {first[2]}x{first[1]}"
            )
        first = frame.shape
        yield frame
    if first is None:
        raise PictureError(f"'{path}' has no frames")


def gap_in(paths: Sequence[Path]) -> str:
    """Describe the first gap or repetition in the numbers of frames; "" if there is none.

    Names that do not end in a number, or that differ in their prefix, are ignored.
    """
    found = [re.fullmatch(r"(.*?)(\d+)", path.stem) for path in paths]
    if len(paths) < 3 or len({one and one[1] for one in found}) > 1 or not found[0]:
        return ""
    numbers = [int(one[2]) for one in found if one]
    steps = [after - before for before, after in pairwise(numbers)]
    usual = min((step for step in steps if step), default=0)
    odd = next((n for n, step in enumerate(steps) if step != usual or not step), None)
    if odd is None:
        return ""
    what = "have the same number" if not steps[odd] else "frames are missing"
    names = f"'{paths[odd].name}' and '{paths[odd + 1].name}'"
    return f"{names} {what}" if not steps[odd] else f"between {names} {what}"


def _video(path: Path) -> Iterator[Tensor]:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # else FFmpeg prints its own errors
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise PictureError(
                f"cannot read the video '{path}'", hint="check that the file is a complete video"
            )
        while True:
            found, frame = capture.read()
            if not found:
                return
            yield torch.from_numpy(np.ascontiguousarray(frame[..., ::-1])).permute(2, 0, 1)
    finally:
        capture.release()


def average(frames: Iterable[Tensor], response: Response, between: int = 0) -> Tensor:
    """Average frames in linear light, to an encoded picture (3, H, W), float32 in [0, 1].

    The frames are (3, H, W) uint8; raises `ValueError` if there are none. `between` frames are
    interpolated between two, see `interpolate`.
    """
    total: Tensor | None = None
    count = 0
    before: Tensor | None = None
    for frame in frames:
        between_them = interpolate(before, frame, between) if before is not None and between else []
        for view in (*between_them, frame.float() / 255):
            linear = to_linear(view[None].double(), response)
            total = linear if total is None else total + linear
            count += 1
        before = frame
    if total is None:
        raise ValueError("no frames")
    return to_encoded(total / count, response)[0].float()


def interpolate(first: Tensor, second: Tensor, count: int) -> list[Tensor]:
    """Compute `count` views between frames (3, H, W) uint8, `first` and `second`, by optical flow.

    The views are (3, H, W) float32 in [0, 1], evenly spaced in time, without the frames themselves.
    REDS used a network for this. The dense flow (DIS) blends regions that one frame occludes.
    """
    a, b = (frame.permute(1, 2, 0).numpy() for frame in (first, second))
    grey = [cv2.cvtColor(np.ascontiguousarray(x), cv2.COLOR_RGB2GRAY) for x in (a, b)]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = grey[0].shape
    forth = dis.calc(grey[0], grey[1], np.zeros((height, width, 2), np.float32))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    views = []
    for n in range(1, count + 1):
        t = n / (count + 1)
        seen = [
            cv2.remap(
                image.astype(np.float32) / 255,
                x - fraction * forth[..., 0],
                y - fraction * forth[..., 1],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for image, fraction in ((a, t), (b, t - 1))
        ]
        mixed = (1 - t) * seen[0] + t * seen[1]
        views.append(torch.from_numpy(mixed).permute(2, 0, 1).clamp(0, 1))
    return views
