"""Makes pairs of a degraded and a sharp picture, each determined by (recipe, seed, index).

Every pair has a JSON record with all its random parameters, from which the degraded picture can be
reproduced. The record is written last, so a pair with a record is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from torch import Tensor

from restore_cli.datasets.degrade_job import (
    DegradeJob,
    PairPaths,
    check_degraded_file,
    is_sequence,
    is_single_file,
    pair_files,
    pair_paths,
)
from restore_cli.datasets.records import Record, digest_of, read_record
from restore_cli.degradations.frames import average, read_frames
from restore_cli.degradations.recipe import (
    DegradationRecipe,
    Parameters,
    cut_patches,
    degrade,
    draw,
    one_thread,
)
from restore_cli.errors import PictureError, RestoreError, UsageError
from restore_cli.files import is_disk_full, write_then_rename
from restore_cli.formatting import first_line, reason_of
from restore_cli.image import Encoding, Picture, read_image, write_image
from restore_cli.image.formats import SUFFIXES
from restore_cli.processes import ProcessPool
from restore_cli.resample import rescale_bicubic

_TOO_LARGE = (RuntimeError, OverflowError, MemoryError)  # values in a record
_MIN_SIDE = 16  # smallest side of the degraded picture in pixels


@dataclass(slots=True)
class DegradeOutcome:
    """The outcome of one input."""

    source: Path
    written: tuple[Path, ...] = ()  # degraded pictures
    skipped: int = 0  # number of pairs that existed
    pixels: int = 0  # number of pixels of the sharp pictures
    error: PictureError | None = None
    notes: tuple[str, ...] = ()  # on what the pairs do not have


def make_pairs(job: DegradeJob, workers: int = 1) -> Iterator[DegradeOutcome]:
    """Degrade every input of a job that `plan_pairs` has checked, in any order.

    The result does not depend on `workers`, the number of processes with one thread each; several
    are used on the CPU only. Raises `RestoreError` if the system ended a process, and
    `PictureError` or `OSError` if the disk is full.
    """
    if not is_single_file(job):
        (job.output / "records").mkdir(parents=True, exist_ok=True)  # marks the folder as ours
    if workers <= 1 or job.device != "cpu" or len(job.inputs) < 2:
        yield from (_make(job, index) for index in range(len(job.inputs)))
        return
    pool = ProcessPool(min(workers, len(job.inputs)))
    try:
        futures = [pool.submit(_make, job, index) for index in range(len(job.inputs))]
        yield from (future.result() for future in as_completed(futures))
    except BrokenProcessPool as error:
        raise RestoreError(
            "the system ended a process, perhaps for lack of memory",
            hint="use fewer --jobs, and --resume to keep the pairs that are there",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def replay(record_file: Path, output: Path, source: Path | None = None) -> None:
    """Make one degraded picture again from its record: a picture, or `.npy` for 32-bit values.

    `source` is the sharp picture, or None for the path in the record.

    Raises:
        UsageError: the record is broken, or the output exists.
        PictureError: the source cannot be read, or is not the picture that was degraded.
    """
    record = read_record(record_file)
    recipe, size, patch = record.recipe, record.size, record.patch
    path = source or record.source
    check_degraded_file(output, recipe.bits)
    if path.exists() and digest_of(path) != record.sha256:
        raise PictureError(
            f"'{path}' is not the source that '{record_file}' was made from",
            hint="its sha256 differs; give the right one as INPUT",
        )
    try:
        with one_thread():
            if record.frames is None:
                picture = read_image(path, icc="strip", strict=True)
                sharp = _cut(picture.pixels, size, patch, recipe)
                blurred, reference = sharp, None
            else:
                window = range(*record.frames)
                frames = [frame for n, frame in enumerate(read_frames(path)) if n in window]
                if len(frames) < len(window):
                    raise PictureError(f"'{path}' has fewer frames than '{record_file}' averages")
                blurred, reference = _expose(frames, size, patch, recipe)
            degraded, _ = _degrade(blurred, reference, record.parameters, recipe, "cpu")
    except (LookupError, TypeError, ValueError, AttributeError, *_TOO_LARGE) as error:
        raise UsageError(
            f"'{record_file}' has values that cannot be replayed: {first_line(error)}"
        ) from error
    _write(output, degraded, recipe.bits)


def _make(job: DegradeJob, index: int) -> DegradeOutcome:
    """Process one input; a failure does not stop the others."""
    source = job.inputs[index]
    try:
        with one_thread():
            return _pairs_of(job, index)
    except (PictureError, OSError) as error:
        if is_disk_full(error):
            raise  # no other pair could be written
        if isinstance(error, OSError):
            error = PictureError(f"'{source}': {reason_of(error)}")
        return DegradeOutcome(source, error=error)


def _pairs_of(job: DegradeJob, index: int) -> DegradeOutcome:
    result = _average(job, index) if is_sequence(job.inputs[index]) else _still(job, index)
    if job.recipe.patches and not (result.written or result.skipped):
        raise PictureError(
            f"'{result.source}' gives no patch of {job.recipe.patches.side} px with detail",
            hint="give larger pictures, or leave it out",
        )
    return result


def _still(job: DegradeJob, index: int) -> DegradeOutcome:
    source, recipe = job.inputs[index], job.recipe
    sharp = read_image(source, icc="strip", strict=True)  # pairs are sRGB
    digest = digest_of(source)
    done = DegradeOutcome(source, notes=_left_out(sharp))
    for n, (size, patch) in enumerate(_views(job, index, sharp.pixels)):
        place = pair_paths(job, index, 0 if recipe.patches is None else n, size, patch)
        if _is_there(job, index, place, digest):
            done.skipped += 1
            continue
        pixels = _cut(sharp.pixels, size, patch, recipe)
        _check_min_size(source, pixels, recipe)
        # The seed of a whole picture is (seed, index), so that it does not depend on the layout;
        # each patch has a seed of its own.
        rng = np.random.default_rng([job.seed, index] + ([n] if recipe.patches else []))
        height, width = (round(side * size) for side in sharp.pixels.shape[-2:])
        top, left = patch or (0, 0)
        centre = (width / 2 - left, height / 2 - top)
        parameters = draw(recipe, rng, picture=(height, width), centre=centre, motion=job.motion)
        record = Record(
            source, digest, job.seed, index, recipe, size, patch, None, parameters, job.motion
        )
        pair = _degrade(pixels, None, parameters, recipe, job.device)
        done.written += _save(job, place, pair, record)
        done.pixels += pixels.shape[-2] * pixels.shape[-1]
    return done


def _average(job: DegradeJob, index: int) -> DegradeOutcome:
    """Average successive windows of a sequence, each with a random number of frames."""
    source, recipe = job.inputs[index], job.recipe
    digest = digest_of(source)
    done = DegradeOutcome(source)
    for window, start, frames in _windows(job, index):
        span = (start, start + len(frames))
        middle = frames[len(frames) // 2][None].float() / 255
        for n, (size, patch) in enumerate(_views(job, index, middle)):
            number = window if recipe.patches is None else window * 10_000 + n
            place = pair_paths(job, index, number, size, patch)
            if _is_there(job, index, place, digest):
                done.skipped += 1
                continue
            blurred, reference = _expose(frames, size, patch, recipe)
            _check_min_size(source, blurred, recipe)
            rng = np.random.default_rng([job.seed, index, window, n])
            height, width = blurred.shape[-2:]
            centre = (width / 2, height / 2)
            parameters = draw(recipe, rng, picture=(height, width), centre=centre, motion=False)
            record = Record(
                source, digest, job.seed, index, recipe, size, patch, span, parameters, job.motion
            )
            pair = _degrade(blurred, reference, parameters, recipe, job.device)
            done.written += _save(job, place, pair, record)
            done.pixels += height * width
    return done


def _windows(job: DegradeJob, index: int) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Yield successive windows of a sequence: number, first frame, and the frames."""
    assert job.recipe.frames is not None
    low, high = (number // 2 for number in job.recipe.frames.count)
    frames, start = read_frames(job.inputs[index]), 0
    for window in count():
        rng = np.random.default_rng([job.seed, index, window])
        wanted = 2 * int(rng.integers(low, high + 1)) + 1
        held = list(islice(frames, wanted))
        if len(held) < wanted:
            break
        yield window, start, held
        start += wanted
        held.clear()  # of two windows, only one is kept in memory
    if not window:
        raise PictureError(
            f"'{job.inputs[index]}' has {len(held)} frames, but {wanted} are to be averaged",
            hint="give a longer video, or a recipe with a smaller frames.count",
        )


def _views(
    job: DegradeJob, index: int, sharp: Tensor
) -> list[tuple[float, tuple[int, int] | None]]:
    """Return sizes and patches of a picture: all of them, or one random size without patches."""
    recipe = job.recipe
    if recipe.patches is None:
        if len(recipe.sizes) == 1:
            return [(recipe.sizes[0], None)]
        rng = np.random.default_rng([job.seed, index, 0x512E])
        return [(float(rng.choice(recipe.sizes)), None)]
    return [
        (size, place)
        for size in recipe.sizes
        for place in cut_patches(_resized(sharp, size), recipe.patches)
    ]


def _resized(sharp: Tensor, size: float) -> Tensor:
    return sharp if size == 1 else rescale_bicubic(sharp, size).clamp(0, 1)


def _cut(
    sharp: Tensor, size: float, patch: tuple[int, int] | None, recipe: DegradationRecipe
) -> Tensor:
    """Resize a picture and cut out the patch that is degraded."""
    sharp = _resized(sharp, size)
    if patch is None or recipe.patches is None:
        return sharp
    side = recipe.patches.side
    return sharp[..., patch[0] : patch[0] + side, patch[1] : patch[1] + side]


def _expose(
    frames: list[Tensor], size: float, patch: tuple[int, int] | None, recipe: DegradationRecipe
) -> tuple[Tensor, Tensor]:
    """Return the mean of the frames and the middle frame, (1, 3, H, W)."""
    between = recipe.frames.between if recipe.frames else 0
    blurred = average(frames, recipe.response, between)[None]
    reference = frames[len(frames) // 2][None].float() / 255
    return _cut(blurred, size, patch, recipe), _cut(reference, size, patch, recipe)


def _degrade(
    image: Tensor,
    reference: Tensor | None,
    parameters: Parameters,
    recipe: DegradationRecipe,
    device: str,
) -> tuple[Tensor, Tensor]:
    degraded, sharp = degrade(
        image.to(device),
        [parameters],
        recipe,
        reference=None if reference is None else reference.to(device),
    )
    return degraded.cpu(), sharp.cpu()


def _left_out(sharp: Picture) -> tuple[str, ...]:
    """List notes on what the pairs of a picture lack."""
    bits = sharp.source_bits or sharp.depth
    lost = (f"its {bits} bits per channel were reduced to 8",) if bits > 8 else ()
    return (*sharp.notes, *lost)


def _check_min_size(source: Path, sharp: Tensor, recipe: DegradationRecipe) -> None:
    height, width = sharp.shape[-2:]
    if min(height, width) < _MIN_SIDE * recipe.scale:
        raise PictureError(
            f"'{source}' is {width}x{height}, too small to shrink x{recipe.scale}",
            hint=f"give pictures of at least {_MIN_SIDE * recipe.scale} px a side",
        )


def _is_there(job: DegradeJob, index: int, place: PairPaths, digest: str) -> bool:
    """Whether an earlier run made this pair; raises `PictureError` if it was made differently."""
    path = job.output / place.record
    if not job.resume or not all(file.exists() for file in (path, *pair_files(job, place))):
        return False
    try:
        record = read_record(path)
        expected = index if job.fixed else record.index
        other = record.differs(job, digest, expected)
    except UsageError as error:
        raise PictureError(str(error), hint="remove it") from error
    if other:
        raise PictureError(
            f"'{path}' was made with another {other}",
            hint="choose another --output, or resume with the original inputs and options",
        )
    return True


def _save(
    job: DegradeJob, place: PairPaths, pair: tuple[Tensor, Tensor], record: Record
) -> tuple[Path, ...]:
    degraded, reference = pair
    if is_single_file(job):
        _write(job.output, degraded, job.recipe.bits)
        return (job.output,)
    target, sharp = pair_files(job, place)
    try:
        _write(sharp, reference, 8)
        _write(target, degraded, job.recipe.bits)
        record.write(job.output / place.record)
    except BaseException:  # e.g. a full disk, or Ctrl-C: half of a pair would be in the way
        sharp.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise
    return (target,)


def _write(path: Path, image: Tensor, bits: int) -> None:
    """Write a picture, or (H, W, 3) float32 values as .npy."""
    if bits == 32:
        with write_then_rename(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, image[0].permute(1, 2, 0).contiguous().numpy())
        return
    write_image(path, Picture(image), Encoding(SUFFIXES[path.suffix.lower()]))
