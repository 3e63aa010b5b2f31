"""Picture after picture: read, restore, write; one that fails does not stop the others."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from restore_cli.errors import DeviceError, PictureError, RestoreError
from restore_cli.files import sha256, write_to_stdout
from restore_cli.image import Picture, read_bytes, read_stdin
from restore_cli.image.formats import SUFFIXES, VIDEO_SUFFIXES
from restore_cli.image.info import provenance_of
from restore_cli.image.writing import put
from restore_cli.inference.cascade import Stage
from restore_cli.jobs.film import read_comment
from restore_cli.jobs.inputs import STREAM
from restore_cli.jobs.plan import Item, RestoreJob
from restore_cli.jobs.restoring import Settings, load, restore, save
from restore_cli.jobs.video import restore_video

Report = Callable[["Item", int, int], None]  # (item, tiles done, tiles in all)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one picture.

    Attributes:
        item: it was.
        status: restored, skipped or failed.
        error: None unless it failed.
        notes: what had to be left out.
        sha256: of the input; "" where it was not read.
        size: height and width of the output; None where there is no new one.
        seconds: in the network.
    """

    item: Item
    status: str
    error: RestoreError | None = None
    notes: tuple[str, ...] = ()
    sha256: str = ""
    size: tuple[int, int] | None = None
    seconds: float = 0.0


@dataclass(slots=True)
class _Step:
    """A picture on its way; `outcome` as soon as it is known."""

    item: Item
    sha256: str = ""
    picture: Picture | None = None
    seconds: float = 0.0
    outcome: Outcome | None = field(default=None)

    def failed(self, error: RestoreError) -> _Step:
        self.outcome = Outcome(self.item, "failed", error, sha256=self.sha256)
        return self


def run(
    job: RestoreJob,
    items: list[Item],
    stage: Stage,
    settings: Settings,
    report: Report = lambda item, done, tiles: None,
    *,
    ahead: int = 0,
) -> Generator[Outcome, None, None]:
    """Restore every picture, in order.

    Args:
        job: as planned.
        items: from `plan`.
        stage: a network made ready, or several in a row.
        settings: of the job.
        report: called from this thread while a picture is restored.
        ahead: pictures read before their turn, and written after it, by two more threads; 0 to do
            all in this one.
    """
    if not ahead:
        for item in items:
            yield _write(
                _restore(_read(item, job, settings), job, stage, settings, report), job, settings
            )
        return
    reads: deque[Future[_Step]] = deque()
    writes: deque[Future[Outcome]] = deque()
    waiting = deque(items)
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            while True:
                while waiting and len(reads) < ahead:
                    reads.append(reader.submit(_read, waiting.popleft(), job, settings))
                if not reads:
                    break
                step = _restore(reads.popleft().result(), job, stage, settings, report)
                writes.append(writer.submit(_write, step, job, settings))
                while writes and (writes[0].done() or len(writes) > ahead):
                    yield writes.popleft().result()
            while writes:
                yield writes.popleft().result()
        finally:  # also when nobody wants the rest
            for read in reads:
                read.cancel()
            for write in writes:
                write.cancel()


def read_input(item: Item, job: RestoreJob, settings: Settings) -> tuple[bytes, str] | Outcome:
    """The bytes of an input and their sha256, or its outcome if there is nothing to do."""
    if item.done:
        return Outcome(item, "skipped")
    digest = ""
    try:
        data = read_stdin() if item.source == STREAM else read_bytes(item.source)
        digest = hashlib.sha256(data).hexdigest()
        if job.resume and is_done(item, digest, job, settings):
            return Outcome(item, "skipped", sha256=digest)
    except PictureError as error:
        return Outcome(item, "failed", error, sha256=digest)
    return data, digest


def _read(item: Item, job: RestoreJob, settings: Settings) -> _Step:
    step = _Step(item)
    if is_film(item) and not item.done:
        return step
    found = read_input(item, job, settings)
    if isinstance(found, Outcome):
        step.outcome = found
        return step
    data, step.sha256 = found
    try:
        step.picture = load(data, _name(item), settings, output_format(item, job))
    except (PictureError, DeviceError) as error:
        return step.failed(error)
    return step


def _restore(
    step: _Step, job: RestoreJob, stage: Stage, settings: Settings, report: Report
) -> _Step:
    if is_film(step.item) and step.outcome is None:
        step.outcome = _film(step.item, job, stage, settings, report)
    if step.picture is None:
        return step

    def report_tiles(done: int, tiles: int) -> None:
        report(step.item, done, tiles)

    begun = time.monotonic()
    try:
        format_key = output_format(step.item, job)
        step.picture = restore(
            step.picture, stage, settings, format_key, _name(step.item), report_tiles
        )
    except (PictureError, DeviceError) as error:
        return step.failed(error)
    step.seconds = time.monotonic() - begun
    return step


def _write(step: _Step, job: RestoreJob, settings: Settings) -> Outcome:
    if step.outcome is not None:
        return step.outcome
    item, picture = step.item, step.picture
    assert picture is not None
    try:
        data, notes = save(
            picture, step.sha256, settings, output_format(item, job), str(item.target)
        )
        if item.target == STREAM:
            write_to_stdout(data)
        else:
            put(item.target, data)
    except (PictureError, DeviceError) as error:
        step.failed(error)
        assert step.outcome is not None
        return step.outcome
    return Outcome(
        item,
        "restored",
        notes=(*picture.notes, *notes),
        sha256=step.sha256,
        size=picture.size,
        seconds=step.seconds,
    )


def _film(item: Item, job: RestoreJob, stage: Stage, settings: Settings, report: Report) -> Outcome:
    """A film from beginning to end; its frames are not held."""
    begun, digest = time.monotonic(), ""
    try:
        digest = sha256(item.source)
        if job.resume and is_done(item, digest, job, settings):
            return Outcome(item, "skipped", sha256=digest)
        size, notes = restore_video(
            item.source,
            item.target,
            stage,
            settings.scale,
            dict(settings.provenance(digest)) if settings.metadata != "none" else {},
            lambda done, frames: report(item, done, frames),
            metadata=settings.metadata,
        )
    except OSError as error:
        failure = PictureError(f"cannot read '{item.source}': {error.strerror or error}")
        return Outcome(item, "failed", failure, sha256=digest)
    except RestoreError as error:
        return Outcome(item, "failed", error, sha256=digest)
    seconds = time.monotonic() - begun
    return Outcome(item, "restored", notes=notes, sha256=digest, size=size, seconds=seconds)


def is_film(item: Item) -> bool:
    """Whether an item is a film by its name."""
    return item.source.suffix.lower() in VIDEO_SUFFIXES


def is_done(item: Item, digest: str, job: RestoreJob, settings: Settings) -> bool:
    """Whether the output is there already, made from this input by these settings.

    What is there and was made by others is kept with the policy "skip", so it counts as done.

    Raises:
        PictureError: it is there, and `restore` did not make it.
    """
    if item.target == STREAM or not item.target.exists():
        return False
    made = read_comment(item.target) if is_film(item) else provenance_of(item.target)
    if not made and job.on_exists == "skip":
        return True
    if not made and job.on_exists != "overwrite":
        raise PictureError(
            f"'{item.target}' exists and does not say that it was restored",
            hint="use --on-exists overwrite, or another --output",
        )
    return made.get("inputSha256") == digest and made.get("key") == settings.key


def was_done(item: Item, job: RestoreJob, settings: Settings) -> bool:
    """`is_done` for a plan: reads the input, and takes what cannot be read for not done."""
    try:
        return is_done(item, sha256(item.source), job, settings)
    except (OSError, RestoreError):
        return False


def output_format(item: Item, job: RestoreJob) -> str | None:
    """The format of an output: of its name, else what was asked for, else None."""
    return SUFFIXES.get(item.target.suffix.lower(), job.format)


def _name(item: Item) -> str:
    return "stdin" if item.source == STREAM else str(item.source)
