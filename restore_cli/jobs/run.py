"""Restores pictures one after the other; a failure does not stop the others."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from restore_cli.errors import DeviceError, PictureError, RestoreError
from restore_cli.files import sha256, write_to_stdout
from restore_cli.image import Picture, read_bytes, read_stdin
from restore_cli.image.formats import SUFFIXES
from restore_cli.image.info import provenance_of
from restore_cli.image.writing import put
from restore_cli.jobs.inputs import STREAM
from restore_cli.jobs.plan import Item
from restore_cli.jobs.restoration import Restoration
from restore_cli.jobs.video import restore_video
from restore_cli.jobs.video_facts import read_comment

OnTile = Callable[[Item, int, int], None]  # (item, finished tiles, all tiles)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one picture.

    Attributes:
        item: its input and output.
        status: "restored", "skipped" or "failed".
        error: None unless it failed.
        notes: notes on losses, and on faults of the input.
        sha256: digest of the input; "" if it was not read.
        size: height and width of the output; None if none was written.
        seconds: time in the network.
    """

    item: Item
    status: str
    error: RestoreError | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""
    size: tuple[int, int] | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Task:
    """One picture to restore.

    Attributes:
        item: its input and output.
        data: bytes of the input.
        sha256: digest of the data.
        format: format of the output; "" for the input's.
    """

    item: Item
    data: bytes
    sha256: str
    format: str

    @property
    def name(self) -> str:
        """The input's name, for messages."""
        return "stdin" if self.item.source == STREAM else str(self.item.source)

    def failed(self, error: RestoreError) -> Outcome:
        """Return the outcome for an error."""
        return Outcome(self.item, "failed", error, sha256=self.sha256)


@dataclass(frozen=True, slots=True)
class _Decoded:
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
) -> Generator[Outcome, None, None]:
    """Restore every picture, in order.

    Args:
        work: the request with its pipeline.
        items: result of `plan`.
        report: called from this thread while a picture is restored.
        ahead: pictures that two more threads read in advance and write in the background; 0 to do
            everything in this thread.
    """
    if not ahead:
        for item in items:
            yield _write(work, _restore(work, _read(work, item), report))
        return
    reads: deque[Future[_Decoded | Item | Outcome]] = deque()
    writes: deque[Future[Outcome]] = deque()
    waiting = deque(items)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            while True:
                while waiting and len(reads) < ahead:
                    reads.append(reader.submit(_read, work, waiting.popleft()))
                if not reads:
                    break
                step = _restore(work, reads.popleft().result(), report)
                writes.append(writer.submit(_write, work, step))
                while writes and (writes[0].done() or len(writes) > ahead):
                    yield writes.popleft().result()
            while writes:
                yield writes.popleft().result()
        finally:  # also if the caller stops early
            for read in reads:
                read.cancel()
            for write in writes:
                write.cancel()


def read_input(work: Restoration, item: Item) -> Task | Outcome:
    """Read a picture; return its outcome if it is skipped or cannot be read."""
    if item.done:
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


def restore_task(work: Restoration, task: Task) -> tuple[bytes, Outcome]:
    """Decode, restore and encode one picture, in another process.

    Raises:
        PictureError: the picture cannot be read, restored or encoded.
        DeviceError: out of memory.
    """
    picture = work.load(task.data, task.name, task.format)
    begun = time.monotonic()
    restored = work.restore(picture, task.format, task.name)
    return _encoded(work, _Decoded(task, restored, time.monotonic() - begun))


def _read(work: Restoration, item: Item) -> _Decoded | Item | Outcome:
    if item.is_video and not item.done:
        return item
    task = read_input(work, item)
    if isinstance(task, Outcome):
        return task
    try:
        picture = work.load(task.data, task.name, task.format)
    except (PictureError, DeviceError) as error:
        return task.failed(error)
    return _Decoded(replace(task, data=b""), picture)


def _restore(
    work: Restoration, step: _Decoded | Item | Outcome, report: OnTile
) -> _Decoded | Outcome:
    if isinstance(step, Item):
        return _restore_video(work, step, report)
    if isinstance(step, Outcome):
        return step
    task, begun = step.task, time.monotonic()
    try:
        restored = work.restore(
            step.picture, task.format, task.name, lambda done, all_: report(task.item, done, all_)
        )
    except (PictureError, DeviceError) as error:
        return task.failed(error)
    return _Decoded(task, restored, time.monotonic() - begun)


def _write(work: Restoration, step: _Decoded | Outcome) -> Outcome:
    if isinstance(step, Outcome):
        return step
    try:
        data, outcome = _encoded(work, step)
        if outcome.item.target == STREAM:
            write_to_stdout(data)
        else:
            put(outcome.item.target, data)
    except (PictureError, DeviceError) as error:
        return step.task.failed(error)
    return outcome


def _encoded(work: Restoration, step: _Decoded) -> tuple[bytes, Outcome]:
    task, picture = step.task, step.picture
    data, notes = work.save(picture, task.sha256, task.format, str(task.item.target))
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
    begun, digest = time.monotonic(), ""
    try:
        digest = sha256(item.source)
        if is_done(work, item, digest):
            return Outcome(item, "skipped", sha256=digest)
        size, notes = restore_video(
            item.source,
            item.target,
            work.pipeline,
            work.provenance(digest),
            lambda done, frames: report(item, done, frames),
            metadata=work.request.encoding.metadata,
        )
    except OSError as error:
        failure = PictureError(f"cannot read '{item.source}': {error.strerror or error}")
        return Outcome(item, "failed", failure, sha256=digest)
    except RestoreError as error:
        return Outcome(item, "failed", error, sha256=digest)
    seconds = time.monotonic() - begun
    return Outcome(item, "restored", notes=notes, sha256=digest, size=size, seconds=seconds)


def is_done(work: Restoration, item: Item, digest: str) -> bool:
    """Whether `--resume` skips a picture: its output was made from the same input by the same work.

    With the policy "skip", an output that `restore` did not make counts as done, too.

    Args:
        work: the request with its pipeline.
        item: input and output.
        digest: sha256 of the input.

    Raises:
        PictureError: the output exists, but `restore` did not make it.
    """
    destination = work.request.destination
    if not destination.resume or item.target == STREAM or not item.target.exists():
        return False
    provenance = read_comment(item.target) if item.is_video else provenance_of(item.target)
    if not provenance and destination.on_exists == "skip":
        return True
    if not provenance and destination.on_exists != "overwrite":
        raise PictureError(
            f"'{item.target}' exists, but was not written by restore",
            hint="use --on-exists overwrite, or another --output",
        )
    return provenance.get("inputSha256") == digest and provenance.get("key") == work.key


def was_done(work: Restoration, item: Item) -> bool:
    """`is_done` for --dry-run: reads the input; inputs that cannot be read are not done."""
    if item.done or not work.request.destination.resume:
        return item.done
    try:
        return is_done(work, item, sha256(item.source))
    except (OSError, RestoreError):
        return False
