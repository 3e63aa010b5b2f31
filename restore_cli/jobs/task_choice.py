"""Chooses the task for a picture if the user does not.

Small pictures are enlarged. Large ones keep their size. If a large one is much blurred, the x1
network is tried on a part of it, at full size and at half of it: blur that is too long for the
network may not be at half the size. If it hardly sharpens either, and the blur is long in every
direction, the picture is shrunk to a quarter and restored x4.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from restore_cli.degradations.frames import read_frames
from restore_cli.errors import RestoreError
from restore_cli.image import read_image, read_size
from restore_cli.image.formats import has_video_suffix
from restore_cli.inference.pipeline import Pipeline, PipelineSpec
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.inference.stages import BICUBIC
from restore_cli.jobs.plan import results_among
from restore_cli.jobs.preflight import MIN_SIDE, blur_by_direction, window_of_largest_mean
from restore_cli.metrics import rec601_luma
from restore_cli.resample import resize_bicubic
from restore_cli.rounding import to_float
from restore_cli.weights.manifest import default_model

Array = NDArray[np.float32]
Task = Literal["x4", "x1", "half", "keep"]

SMALL_PIXELS = 500_000  # pixels; x4 of more would be over 8 megapixels
# Pixels of blur above which even a small picture has no detail to enlarge, and above which the x1
# network is tried before it restores a large one.
HEAVY_BLUR = 12.0
# Pixels of blur, in the least blurred direction, above which a copy of a quarter of the size keeps
# all detail. Only then a picture that the x1 network does not sharpen is shrunk that much: it may
# as well be a sharp one whose blur is overestimated (12 to 19 px on five of 13 sharp pictures).
QUARTER_SIZE_BLUR = 10.0
# Factors by which the x1 network must increase the gradients of that part, at full and half size.
# The extent of the blur does not tell what the network can remove (`benchmarks/task_choice.py`): at
# 16 to 34 px it is 0 to 6.4 dB better than x4 of the quarter-size copy on seven frames with real
# blur, whose gradients it increases by 1.30 to 1.52; at 13 to 34 px it is 0.2 to 2.4 dB worse on
# twelve synthetically blurred photos, whose gradients it increases by 0.99 to 1.25. At half size,
# on 15 such photos: by at most 1.10 where that is up to 0.7 dB worse than a quarter, by 1.22 to
# 1.81 where it is 0.2 to 1.3 dB better (once 0.6 dB worse). Four real frames enlarged twice: at
# full size by 1.01 to 1.04, with no gain; at half by 1.26 to 1.50, with a gain of 4.0 to 9.2 dB.
# At half the size, 13 sharp pictures: by 0.99 to 1.05.
MIN_GRADIENT_GAIN = {1: 1.27, 2: 1.2}
_TRIAL_SIDE = 384  # side in pixels of the part
_HALVED = (_TRIAL_SIDE, _TRIAL_SIDE // 2, _TRIAL_SIDE // 4)
_SAMPLED = 5  # inputs of a run that are examined, evenly spaced
_FRAME = 10  # frame of a video that is examined; the first ones can be black
_SIDE, _CELLS = 384, 3  # side of a window in pixels, and windows along a side of the picture
_LEVELS = 5  # sizes at most, each half of the one before
_BLURRED = 0.33  # value of `blur_by_direction` above which a picture is not sharp
_MIN_BLUR_DROP = 0.06  # halving must reduce the blur at least by this, else it is soft texture
_NOISY = 2  # halvings until noise has averaged out
# A picture is as sharp as its part with the largest gradients if `blur_by_direction` is at most
# this at full, half and quarter size: at most 0.37 for ten small sharp subjects before a background
# that is out of focus; at least 0.51 on 66 frames with real blur of more than 12 px, and 0.41 on
# photos with synthetic blur (a path with a corner; 0.46 with a line or a disc, some noisy).
_SUBJECT = 0.39
_TEXTURE = 0.3  # windows with less than this share of the largest mean gradient are ignored
# `blur_by_direction` in the worst direction, and the blur in pixels: measured with linear motion of
# 5 to 45 px on 15 photos that are sharp at half their size.
_BLUR_CALIBRATION = ((0.26, 1.0), (0.31, 2.5), (0.36, 3.5), (0.42, 4.8), (0.48, 6.5), (0.54, 8.5))


@dataclass(frozen=True, slots=True)
class BlurMeasurement:
    """The size and blur of a picture."""

    height: int  # pixels
    width: int  # pixels
    blur: float  # extent of the blur in pixels, in the most blurred direction; 1 for none
    least: float  # the same in the least blurred direction


@dataclass(frozen=True, slots=True)
class TaskChoice:
    """The task for a picture."""

    # "x4" and "x1" mean the default models of these scales; "half" means the x1 model on a copy of
    # half the size, enlarged by bicubic interpolation; "keep" x4 of a copy of a quarter of the
    # size. The results of the last three have the picture's own size.
    task: Task
    reason: str  # one line for the user


@dataclass(frozen=True, slots=True)
class TaskPreset:
    """How a task is done."""

    model: str  # name of a model, or several joined by +
    scale: int | None  # output pixels per input pixel, or None for the model's own
    keep: bool  # whether the result has the picture's own size (`--size keep`)
    options: str  # the options of `restore image` for it


def preset_for(task: Task) -> TaskPreset:
    """Return how a task is done, by the default models."""
    x1, x4 = default_model(1), default_model(4)
    return {
        "x4": TaskPreset(x4, None, keep=False, options="x4"),
        "x1": TaskPreset(x1, 1, keep=False, options="x1"),
        "half": TaskPreset(f"{x1}+{BICUBIC}", 2, keep=True, options="-x2 --size keep"),
        "keep": TaskPreset(x4, None, keep=True, options="--size keep"),
    }[task]


def measure_blur(pixels: Tensor) -> BlurMeasurement:
    """Size and blur of a picture (1, 3, H, W) in [0, 1]."""
    height, width = pixels.shape[-2:]
    return BlurMeasurement(height, width, *blur_extents(rec601_luma(pixels)[0, 0].numpy()))


def choose(
    seen: BlurMeasurement, sharpens: Callable[[int], bool] = lambda factor: True
) -> TaskChoice:
    """Choose the task for a picture by its size and blur.

    If it is large and much blurred, `sharpens` is called: whether the x1 network can sharpen it
    when it is shrunk by the factor 1 or 2.
    """
    blur = "hardly blurred" if seen.blur < 2 else f"blurred over about {seen.blur:.0f} px"
    facts = f"{seen.width}x{seen.height}, {blur}"
    if seen.height * seen.width <= SMALL_PIXELS:
        if seen.blur <= HEAVY_BLUR:
            return TaskChoice("x4", f"{facts}: a small picture, so it is enlarged")
        return TaskChoice("x1", f"{facts}: a small picture, but too blurred to be enlarged")
    if seen.blur <= HEAVY_BLUR or sharpens(1):
        return TaskChoice("x1", f"{facts}: a large picture with detail left, so it keeps its size")
    if sharpens(2):
        return TaskChoice("half", f"{facts}: the x1 model can only remove it at half the size")
    if seen.least > QUARTER_SIZE_BLUR:
        return TaskChoice(
            "keep", f"{facts} in every direction: shrinking it to a quarter loses nothing"
        )
    return TaskChoice("x1", f"{facts}: the x1 model hardly sharpens it, but it has detail to keep")


def lazy_x1_network(
    options: RestorerOptions, note: Callable[[], object] = lambda: None
) -> Callable[[Tensor], Tensor]:
    """Return the default x1 network, (1, 3, H, W) -> the same, loaded at its first call.

    That call runs `note` first.
    """

    @cache
    def load() -> Pipeline:
        note()
        return PipelineSpec.parse(default_model(1), None, 1, options).load()

    def restore(part: Tensor) -> Tensor:
        return load()(part)

    return restore


def choose_for_run(
    paths: Sequence[Path], *, max_pixels: int, restore: Callable[[Tensor], Tensor] | None = None
) -> TaskChoice | None:
    """Choose the task for all inputs of a run by a majority; None if none can be read.

    Pictures are shrunk first only if that suits every one that is examined, and none is small.

    A few pictures are examined, and of videos one frame each. Pictures of more than `max_pixels`
    are ignored. Results of earlier runs are ignored unless there is nothing else, so that a folder
    gets the same choice before and after it was restored.

    `restore` is the x1 network, (1, 3, H, W) -> the same, for parts of much blurred large pictures;
    if it is None, they count as pictures that it sharpens.
    """
    if len(paths) > 1:
        made = results_among(paths)
        paths = [path for path in paths if path not in made] or paths
    step = max(1, len(paths) // _SAMPLED)
    choices = []
    for path in paths[::step][:_SAMPLED]:
        try:
            pixels = _pixels(path, max_pixels)
            trial = (partial(is_sharpened, pixels, restore),) if restore else ()
            choices.append(choose(measure_blur(pixels), *trial))
        except RestoreError:
            continue  # it is reported when it is restored
    if not choices:
        return None
    task, count = Counter(choice.task for choice in choices).most_common(1)[0]
    if task in ("half", "keep") and (count < len(choices) or _has_small(paths)):
        losers = "small pictures" if count == len(choices) else "the others"
        suits = f"shrinking first suits {count} of {len(choices)} sampled inputs"
        return TaskChoice("x1", f"{suits}, but {losers} would lose detail")
    reason = next(choice.reason for choice in choices if choice.task == task)
    if len(paths) > 1:
        reason = f"suits {count} of {len(choices)} sampled inputs; the first of these: {reason}"
    return TaskChoice(task, reason)


def _has_small(paths: Sequence[Path]) -> bool:
    sizes = map(read_size, paths) if len(paths) > 1 else ()
    return any(size is not None and size[0] * size[1] <= SMALL_PIXELS for size in sizes)


def _pixels(path: Path, max_pixels: int) -> Tensor:
    """Read a picture, or a frame near the beginning of a video, (1, 3, H, W) in [0, 1]."""
    if not has_video_suffix(path):
        return read_image(path, max_pixels=max_pixels, icc="keep").pixels
    frames = deque(islice(read_frames(path), _FRAME), maxlen=1)
    return to_float(frames[0][None])


def is_sharpened(pixels: Tensor, restore: Callable[[Tensor], Tensor], factor: int = 1) -> bool:
    """Whether a network sharpens the part of a picture that has the largest gradients.

    The picture is (1, 3, H, W) in [0, 1], and is shrunk first by `factor`, a key of
    `MIN_GRADIENT_GAIN`. The network is (1, 3, H, W) -> the same shape.
    """
    if factor > 1:
        pixels = resize_bicubic(pixels, *(side // factor for side in pixels.shape[-2:]))
    rows, columns = _steepest(rec601_luma(pixels)[0, 0].numpy())
    part = pixels[..., rows, columns].contiguous()
    before, after = (
        float(_gradients(rec601_luma(image)[0, 0].numpy()).mean())
        for image in (part, restore(part))
    )
    return after > MIN_GRADIENT_GAIN[factor] * before


def _steepest(luma: Array) -> tuple[slice, slice]:
    """Rows and columns of the part of luma (H, W) that has the largest mean gradient."""
    top, left, _ = window_of_largest_mean(_gradients(luma), _TRIAL_SIDE, _TRIAL_SIDE)
    rows, columns = (min(side - 1, _TRIAL_SIDE) for side in luma.shape)
    return slice(top, top + rows), slice(left, left + columns)


def _gradients(luma: Array) -> Array:
    """Add the (H - 1, W - 1) vertical and horizontal steps of luma (H, W), noise smoothed."""
    smooth = cv2.GaussianBlur(luma, (0, 0), 1.0)
    steps: Array = np.abs(np.diff(smooth, axis=0))[:, 1:] + np.abs(np.diff(smooth, axis=1))[1:]
    return steps


def blur_extents(luma: Array) -> tuple[float, float]:
    """Estimate the blur of luma (H, W) in [0, 1], in px, in its most and least blurred direction.

    Measured where the picture is sharpest: an object that moved in front of a sharp background does
    not make a blurred picture. The picture is halved until it is sharp; the blur at the last size
    that is not sharp gives the extent. Noise looks sharp at full size and is averaged out after two
    halvings; soft shapes look blurred at any size. Between the windows of a large picture there may
    be a sharp subject, so if they are blurred, the part with the largest gradients counts too.

    Returns:
        Both extents; 1 for no blur, and for pictures with a side under 96 px, which are too small.
    """
    if min(luma.shape) < MIN_SIDE:
        return 1.0, 1.0
    most, least = zip(*(_extents(window) for window in _textured(_windows(luma))), strict=True)
    subject = _subject(luma) if min(most) > HEAVY_BLUR else None
    return subject or (min(most), min(*most, *least))


def _subject(luma: Array) -> tuple[float, float] | None:
    """Extents of the blur of the part with the largest gradients; None if it is not sharp."""
    if luma.size <= SMALL_PIXELS or min(luma.shape) <= _TRIAL_SIDE:
        return None
    full = luma[_steepest(luma)]
    sizes = [cv2.resize(full, (side, side), interpolation=cv2.INTER_AREA) for side in _HALVED]
    blurs = [blur_by_direction(one.astype(np.float32, copy=False)) for one in sizes]
    most, least = max(map(max, blurs)), max(map(min, blurs))
    if most > _SUBJECT:
        return None
    return _in_pixels(most), _in_pixels(least)


def _windows(luma: Array) -> list[list[Array]]:
    """Return windows around the centres of the cells, each at full size, half size, and so on."""
    height, width = luma.shape
    rows, columns = (max(1, min(_CELLS, side // (2 * MIN_SIDE))) for side in luma.shape)
    levels: list[Array] = [luma]
    while len(levels) < _LEVELS and min(levels[-1].shape) // 2 >= MIN_SIDE:
        high, wide = (side // 2 for side in levels[-1].shape)
        half = cv2.resize(levels[-1], (wide, high), interpolation=cv2.INTER_AREA)
        levels.append(half.astype(np.float32, copy=False))
    cells = []
    for row in range(rows):
        for column in range(columns):
            place = ((row + 0.5) / rows, (column + 0.5) / columns)
            cells.append([_cut(level, place, height // rows, width // columns) for level in levels])
    return cells


def _cut(level: Array, place: tuple[float, float], high: int, wide: int) -> Array:
    """Return the part of a level around a place, large enough to estimate the blur."""
    spans = []
    for fraction, side, cell in zip(place, level.shape, (high, wide), strict=True):
        long = min(side, _SIDE, max(cell, MIN_SIDE))
        start = int(min(max(fraction * side - long / 2, 0), side - long))
        spans.append(slice(start, start + long))
    return np.ascontiguousarray(level[spans[0], spans[1]])


def _textured(cells: list[list[Array]]) -> Iterator[list[Array]]:
    """Return the windows with texture; sky and shadow do not show blur."""
    steps = [float(np.abs(np.diff(cell[-1], axis=1)).mean()) for cell in cells]
    most = max(steps)
    return (cell for cell, step in zip(cells, steps, strict=True) if step >= _TEXTURE * most)


def _extents(window: list[Array]) -> tuple[float, float]:
    levels = [blur_by_direction(level) for level in window]
    return _extent([max(level) for level in levels]), _extent([min(level) for level in levels])


def _extent(blurs: list[float]) -> float:
    """Return the extent in pixels, from the blur at full size, half size, and so on."""
    last = 0
    for n, blur in enumerate(blurs):
        if n > _NOISY and (blurs[n - 1] <= _BLURRED or blur > blurs[n - 1] - _MIN_BLUR_DROP):
            break
        if blur > _BLURRED:
            last = n
    return _in_pixels(blurs[last]) * float(2**last)


def _in_pixels(blur: float) -> float:
    """Convert a value of `blur_by_direction` to an extent in pixels."""
    measured, pixels = zip(*_BLUR_CALIBRATION, strict=True)
    return float(np.interp(blur, measured, pixels))
