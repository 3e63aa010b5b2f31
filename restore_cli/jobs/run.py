"""Restores pictures one after the other; a failure does not stop the others."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from restore_cli.errors import HOSTILE, DeviceError, PictureError, RestoreError
from restore_cli.files import is_disk_full, link, sha256, write_to_stdout
from restore_cli.formatting import reason_of
from restore_cli.image import Picture, read_bytes, read_stdin
from restore_cli.image.formats import SUFFIXES
from restore_cli.image.info import is_whole
from restore_cli.image.to_png import check_pixel_count
from restore_cli.image.writing import write_file
from restore_cli.jobs.inputs import STREAM
from restore_cli.jobs.outputs import next_free_name
from restore_cli.jobs.plan import Item, file_provenance
from restore_cli.jobs.restoration import Restoration, Task
from restore_cli.jobs.video import restore_video
from restore_cli.jobs.video_containers import is_complete

OnTile = Callable[[Item, int, int], None]  # (item, finished tiles, all tiles)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one picture."""

    item: Item  # its input and output
    status: str  # "restored", "skipped" or "failed"
    error: RestoreError | None = None  # None unless it failed
    notes: tuple[str, ...] = ()  # notes on losses, and on faults of the input
    sha256: str = ""  # digest of the input; "" if it was not read
    size: tuple[int, int] | None = None  # height and width of the output; None if none was written
    seconds: float = 0.0  # time in the network


@dataclass(frozen=True, slots=True)
class _InProgress:
    """A picture that is read but not yet restored, or restored but not yet written."""

    task: Task
    picture: Picture
    seconds: float = 0.0


def restore_all(
    work: Restoration,
    items: list[Item],
    report: OnTile = lambda item, done, tiles: None,
    *,
    ahead: int = 0,
    fail_fast: bool = False,
) -> Generator[Outcome, None, None]:
    """Restore every picture, in order.

    Args:
        work: the request with its pipeline.
        items: result of `plan`.
        report: called from this thread while a picture is restored.
        ahead: pictures that two more threads read in advance and write in the background; 0 to do
            everything in this thread.
        fail_fast: whether the first failure ends the run, apart from what is being written.

    A full disk always ends the run: what follows would be restored for nothing.
    """
    if not ahead:
        for item in items:
            outcome = _write(work, _restore(work, _read(work, item), report))
            yield outcome
            if ends_run(outcome, fail_fast=fail_fast):
                return
        return
    reads: deque[Future[_InProgress | Item | Outcome]] = deque()
    writes: deque[Future[Outcome]] = deque()
    waiting = deque(items)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            while waiting or reads or writes:
                while waiting and len(reads) < ahead:
                    reads.append(reader.submit(_read, work, waiting.popleft()))
                if reads:
                    step = _restore(work, reads.popleft().result(), report)
                    writes.append(writer.submit(_write, work, step))
                rest = not (waiting or reads)
                while writes and (writes[0].done() or len(writes) > ahead or rest):
                    outcome = writes.popleft().result()
                    yield outcome
                    if ends_run(outcome, fail_fast=fail_fast):
                        waiting.clear()
                        _cancel(reads)
                        reads.clear()
                        writes = deque(write for write in writes if not write.cancel())
        finally:  # also if the caller stops early
            _cancel([*reads, *writes])


def ends_run(outcome: Outcome, *, fail_fast: bool) -> bool:
    """Whether no further pictures are tried after this one."""
    return outcome.error is not None and (fail_fast or is_disk_full(outcome.error))


def _cancel(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


def read_input(work: Restoration, item: Item) -> Task | Outcome:
    """Read a picture; return its outcome if it is skipped or cannot be read."""
    if item.skip:
        return Outcome(item, "skipped")
    digest = ""
    try:
        data = read_stdin() if item.source == STREAM else read_bytes(item.source)
        digest = hashlib.sha256(data).hexdigest()
        if is_done(work, item, digest):
            return Outcome(item, "skipped", sha256=digest)
    except PictureError as error:
        return Outcome(item, "failed", error, sha256=digest)
    wanted = work.request.encoding.format
    return Task(item, data, digest, SUFFIXES.get(item.target.suffix.lower(), wanted))


def failed(task: Task, error: RestoreError) -> Outcome:
    """Return the outcome of a picture for an error."""
    return Outcome(task.item, "failed", error, sha256=task.sha256)


def restore_task(work: Restoration, task: Task) -> tuple[bytes, Outcome]:
    """Decode, restore and encode one picture, in another process.

    Raises:
        PictureError: the picture cannot be read, restored or encoded.
        DeviceError: out of memory.
    """
    picture = work.load(task)
    begun = time.monotonic()
    restored = work.restore(picture, task)
    return _encoded(work, _InProgress(task, restored, time.monotonic() - begun))


def _read(work: Restoration, item: Item) -> _InProgress | Item | Outcome:
    if item.is_video and not item.skip:
        return item
    task = read_input(work, item)
    if isinstance(task, Outcome):
        return task
    try:
        picture = work.load(task)
    except (PictureError, DeviceError) as error:
        return failed(task, error)
    return _InProgress(replace(task, data=b""), picture)


def _restore(
    work: Restoration, step: _InProgress | Item | Outcome, report: OnTile
) -> _InProgress | Outcome:
    if isinstance(step, Item):
        return _restore_video(work, step, report)
    if isinstance(step, Outcome):
        return step
    task, begun = step.task, time.monotonic()
    try:
        restored = work.restore(
            step.picture, task, lambda done, tiles: report(task.item, done, tiles)
        )
    except (PictureError, DeviceError) as error:
        return failed(task, error)
    return _InProgress(task, restored, time.monotonic() - begun)


def _write(work: Restoration, step: _InProgress | Outcome) -> Outcome:
    if isinstance(step, Outcome):
        return step
    try:
        data, outcome = _encoded(work, step)
        return write_result(work, outcome, data)
    except (PictureError, DeviceError) as error:
        return failed(step.task, error)


def write_result(work: Restoration, outcome: Outcome, data: bytes) -> Outcome:
    """Write a picture, or raise a `PictureError`; return its outcome with the name that it got."""
    item = outcome.item
    if item.target == STREAM:
        write_to_stdout(data)
        return outcome
    commit = _Committer(work, item)
    try:
        write_file(item.target, data, commit)
    except PictureError:
        if commit.skips:
            return replace(outcome, status="skipped", size=None)
        raise
    return replace(outcome, item=commit.item)


class _Committer:
    """Moves a finished file to its name, which may have been taken since the plan was made.

    Only with `overwrite`, and with `--resume` after `is_done`, a file is replaced.
    """

    def __init__(self, work: Restoration, item: Item) -> None:
        self.item = item  # with the name that its result got
        self.skips = False  # whether the name was taken, and the policy is "skip"
        self._destination = work.request.destination

    def __call__(self, temporary: Path, path: Path) -> None:
        policy = self._destination.on_exists
        if policy == "overwrite" or self._destination.resume:
            temporary.replace(path)
            return
        try:
            link(temporary, path)
        except FileExistsError:
            self.skips = policy == "skip"
            if policy != "rename":
                raise
            other = next_free_name(path, set())
            self.item = replace(self.item, target=other)
            self(temporary, other)


def _encoded(work: Restoration, step: _InProgress) -> tuple[bytes, Outcome]:
    task, picture = step.task, step.picture
    data, notes = work.save(picture, task)
    outcome = Outcome(
        task.item,
        "restored",
        notes=(*picture.notes, *notes),
        sha256=task.sha256,
        size=picture.size,
        seconds=step.seconds,
    )
    return data, outcome


def _restore_video(work: Restoration, item: Item, report: OnTile) -> Outcome:
    """Restore a video frame by frame, without keeping its frames in memory."""
    begun, digest, commit = time.monotonic(), "", _Committer(work, item)
    try:
        digest = sha256(item.source)
        if is_done(work, item, digest):
            return Outcome(item, "skipped", sha256=digest)
        if item.size is not None:
            check_pixel_count(*item.size[::-1], str(item.source), work.request.selection.max_pixels)
        size, notes = restore_video(
            item.source,
            item.target,
            work.pipeline,
            work.provenance(digest),
            lambda done, frames: report(item, done, frames),
            metadata=work.request.encoding.metadata,
            commit=commit,
        )
    except RestoreError as error:
        if commit.skips:
            return Outcome(item, "skipped", sha256=digest)
        return Outcome(item, "failed", error, sha256=digest)
    except HOSTILE as error:  # whatever it breaks, the batch goes on
        failure = PictureError(
            f"cannot read '{item.source}': {reason_of(error)}",
            hint="it may be damaged: copy or fetch it again",
        )
        return Outcome(item, "failed", failure, sha256=digest)
    seconds = time.monotonic() - begun
    return Outcome(commit.item, "restored", notes=notes, sha256=digest, size=size, seconds=seconds)


def is_done(work: Restoration, item: Item, digest: str) -> bool:
    """Whether `--resume` skips a picture: its output has the same input, weights and options.

    `digest` is the sha256 of the input. An output that `restore` did not make counts as done with
    the policy "skip", and is replaced with "overwrite"; otherwise, it raises `PictureError`.
    """
    destination = work.request.destination
    if not destination.resume or item.target == STREAM or not item.target.exists():
        return False
    provenance = file_provenance(item.target)
    if not provenance and destination.on_exists == "skip":
        return True
    if not provenance and destination.on_exists != "overwrite":
        raise PictureError(
            f"'{item.target}' exists, but was not written by restore, or was cut off",
            hint="use --on-exists overwrite, or another --output",
        )
    if provenance.get("inputSha256") != digest or provenance.get("key") != work.key:
        return False
    # A PNG, JPEG or MKV that was cut off still has its metadata, which are at the beginning.
    return is_complete(item.target) if item.is_video else is_whole(item.target)


def will_be_skipped(work: Restoration, item: Item) -> bool:
    """`is_done` for --dry-run: reads the input; inputs that cannot be read are not done."""
    if item.skip or not work.request.destination.resume:
        return item.skip
    try:
        return is_done(work, item, sha256(item.source))
    except (OSError, RestoreError):
        return False
