"""The queue of submitted pictures, which one thread restores one at a time.

They are planned, read, restored and written like those of the command line, in a temporary folder.
Only the last few results are kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from unicodedata import category, normalize

from torch import Tensor

from restore_cli.errors import PictureError, RestoreError, UsageError
from restore_cli.formatting import format_count
from restore_cli.image import PHOTO_SUFFIXES, Encoding
from restore_cli.inference.pipeline import Pipeline, PipelineSpec, default_scale, split_names
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.inference.sizing import KEEP
from restore_cli.inference.stages import BICUBIC
from restore_cli.jobs.compare import Comparison, compare
from restore_cli.jobs.plan import Item
from restore_cli.jobs.request import Destination, Processing, RestoreRequest, Selection
from restore_cli.jobs.run import Outcome
from restore_cli.jobs.session import run
from restore_cli.jobs.task_choice import lazy_x1_network

_MAX_CACHED_PIPELINES = 3  # pipelines
_MAX_NAME_BYTES = 120  # bytes; file systems take 255
_POLL_TIMEOUT = 180.0  # seconds without a poll of a job; browsers poll hidden pages once a minute
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # of Windows
_LOG = logging.getLogger(__name__)


class StorageError(RestoreError):
    """A picture cannot be stored, e.g. because the disk is full."""

    @classmethod
    def of(cls, error: OSError) -> StorageError:
        """Return the error for one of the system."""
        return cls(f"cannot store the picture: {error.strerror}")


class BusyError(RestoreError):
    """The queue is full."""


class JobAbandonedError(RestoreError):
    """The job was cancelled or its page was closed, or the queue closes."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """The choices of a visitor."""

    model: str  # name of one model; if the server chooses, also one followed by `bicubic`
    scale: int | None = None  # output pixels per input pixel, 1 to 8, or None for the model's own
    format: str | None = None  # key of `FORMATS`, or None for the input's
    self_ensemble: bool = False  # whether to average over eight flips and rotations
    # whether the result has the picture's own size; the picture is shrunk by the scale first, or by
    # the model's own
    keep: bool = False

    def __post_init__(self) -> None:
        if self.scale is not None and not 1 <= self.scale <= 8:
            raise UsageError(f"scale {self.scale} is not between 1 and 8")

    @property
    def largest_scale(self) -> int:
        """Scale of the largest intermediate picture, before it is resized to the chosen scale."""
        if self.keep:
            return 1
        names = split_names(self.model)
        own = default_scale(names)
        return max(self.scale or own, 1 if BICUBIC in names else own)


@dataclass(slots=True, eq=False)
class Job:
    """A picture in the queue. The restoring thread writes it, others read it."""

    key: str  # identifies the job for its visitor; cannot be guessed
    settings: JobSettings  # how to restore it
    folder: Path  # folder of its files
    source: Path  # the submitted picture
    state: str = "waiting"  # "waiting", "running", "done" or "failed"
    share: float = 0.0  # finished share of the work, in [0, 1]
    seconds: float = 0.0  # time in the network
    notes: tuple[str, ...] = ()  # notes on losses, and on faults of the input
    error: str = ""  # error message, one line
    failure: Exception | None = None  # the error itself; None if it was cancelled while it waited
    target: Path | None = None  # the restored file
    comparison: Comparison | None = None  # input and result for the page
    # monotonic time of the visitor's last poll, in seconds
    last_poll: float = field(default_factory=time.monotonic)
    cancelled: bool = False  # whether the visitor has cancelled it


@dataclass(slots=True)
class JobQueue:
    """Accepts pictures and restores them one after the other."""

    # options of all networks, except self-ensemble, which the visitor chooses
    options: RestorerOptions
    max_pixels: int = 100_000_000  # pictures whose result would have more pixels are refused
    max_waiting: int = 8  # most pictures that wait or are being uploaded
    max_kept: int = 16  # most finished jobs that are kept
    # the default x1 network for parts of pictures, (1, 3, H, W) -> the same; not the one of the
    # restoring thread, which may be at work
    restore_part: Callable[[Tensor], Tensor] = field(init=False)
    _root: Path = field(init=False)
    _jobs: OrderedDict[str, Job] = field(init=False, default_factory=OrderedDict)
    _ready: OrderedDict[PipelineSpec, Pipeline] = field(init=False, default_factory=OrderedDict)
    _places: int = field(init=False, default=0)  # pictures that wait or are being uploaded
    _closing: bool = field(init=False, default=False)
    _waiting: queue.Queue[Job | None] = field(init=False, default_factory=queue.Queue)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.restore_part = lazy_x1_network(self.options)
        try:
            self._root = Path(tempfile.mkdtemp(prefix="restore-serve-"))
        except OSError as error:
            reason = f"no temporary files can be written: {error.strerror}"
            raise RestoreError(reason, hint="set TMPDIR to a folder with free space") from error
        self._thread = threading.Thread(target=self._work, name="restorer", daemon=True)
        self._thread.start()

    def reserve_slot(self) -> None:
        """Reserve a place for a picture before its upload; a full queue raises `BusyError`."""
        with self._lock:
            if self._places >= self.max_waiting:
                raise BusyError(
                    f"the queue of {format_count(self.max_waiting, 'picture')} is full",
                    hint="try again in a minute",
                )
            self._places += 1

    def release_slot(self) -> None:
        """Release the place of a picture that was not submitted, or that is restored now."""
        with self._lock:
            self._places -= 1

    def new(self, name: str, settings: JobSettings) -> Job:
        """Return a new job; the caller writes its `source`, then submits it. It needs a place.

        Of the name of the visitor's file, only the last part is used.

        Raises:
            PictureError: not the name of a picture.
            StorageError: the disk is full.
        """
        safe = _safe(name)
        if Path(safe).suffix.lower() not in PHOTO_SUFFIXES:
            raise PictureError(
                f"'{safe}' does not have the suffix of a picture",
                hint=f"use {', '.join(PHOTO_SUFFIXES)}",
            )
        try:
            # Systems delete old temporary folders, so it may be gone.
            self._root.mkdir(mode=0o700, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=self._root))
            source = folder / "in" / safe
            source.parent.mkdir()
        except OSError as error:
            raise StorageError.of(error) from error
        return Job(secrets.token_urlsafe(16), settings, folder, source)

    def submit(self, job: Job) -> None:
        """Append a job to the queue, and delete the oldest finished jobs."""
        with self._lock:
            self._jobs[job.key] = job
            finished = [one for one in self._jobs.values() if one.state in ("done", "failed")]
            for old in finished[: max(0, len(finished) - self.max_kept)]:
                del self._jobs[old.key]
                shutil.rmtree(old.folder, ignore_errors=True)
        self._waiting.put(job)

    def discard(self, job: Job) -> None:
        """Remove the files of a job that was not submitted."""
        shutil.rmtree(job.folder, ignore_errors=True)

    def find(self, key: str) -> Job | None:
        """Return the job of a key if it is still kept, and note the time of this poll."""
        with self._lock:
            job = self._jobs.get(key)
            if job is not None:
                job.last_poll = time.monotonic()
            return job

    def cancel(self, job: Job) -> None:
        """Cancel a job: at once if it is waiting, after the current tile if it is running."""
        job.cancelled = True
        with self._waiting.mutex:  # `queue.Queue` has no method that removes an entry
            if waits := job in self._waiting.queue:
                self._waiting.queue.remove(job)
        if waits:
            self._fail(job, "cancelled")
            self.release_slot()

    def ahead_of(self, job: Job) -> int:
        """Return the number of unfinished jobs before this one."""
        with self._lock:
            earlier = list(self._jobs).index(job.key) if job.key in self._jobs else 0
            first = list(self._jobs.values())[:earlier]
        return sum(one.state in ("waiting", "running") for one in first)

    def close(self) -> bool:
        """Cancel all jobs and delete all files; return whether the restoring thread has ended.

        It may be in the middle of a tile, which can take a minute.
        """
        if self._closing:
            return not self._thread.is_alive()
        self._closing = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put(None)
        self._thread.join(timeout=2)
        shutil.rmtree(self._root, ignore_errors=True)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            self.release_slot()
            job.state = "running"
            try:
                self._restore(job)
                job.state = "done"
            except RestoreError as error:
                message = f"{error}{f' ({error.hint})' if error.hint else ''}"
                # Visitors must not see paths of this machine.
                for folder in (job.source.parent, job.folder / "out", job.folder):
                    message = message.replace(f"'{folder}'", "the server's folder")
                    message = message.replace(f"{folder}{os.sep}", "").replace(str(folder), "")
                self._fail(job, message, error)
            # A bug must not end the thread, which restores all other pictures.
            except Exception as error:  # noqa: BLE001
                _LOG.exception("internal error while restoring a picture")
                self._fail(job, f"internal error of restore: {type(error).__name__}", error)

    def _fail(self, job: Job, message: str, error: Exception | None = None) -> None:
        """Note that a job failed, and delete its files, which may fill the disk."""
        shutil.rmtree(job.folder, ignore_errors=True)
        job.error, job.failure = message, error
        job.state = "failed"

    def _restore(self, job: Job) -> None:
        self._raise_if_abandoned(job)
        pipeline = self._pipeline(job.settings)
        keep, scale = job.settings.keep, job.settings.largest_scale
        request = RestoreRequest(
            Selection(inputs=(job.source,), max_pixels=max(1, self.max_pixels // scale**2)),
            Destination(output=job.folder / "out"),
            Processing(size=KEEP if keep else None),
            encoding=Encoding(format=job.settings.format or ""),
        )
        (job.folder / "out").mkdir(exist_ok=True)

        def report(item: Item, done: int, tiles: int) -> None:
            job.share = done / tiles
            self._raise_if_abandoned(job)

        def finish(outcome: Outcome) -> None:
            if outcome.error:
                raise outcome.error
            job.seconds, job.notes = outcome.seconds, outcome.notes
            job.comparison = compare(outcome)
            job.target = outcome.item.target

        run(request, pipeline, finish, report=report)

    def _raise_if_abandoned(self, job: Job) -> None:
        """Raise a `JobAbandonedError` if the result is no longer wanted."""
        if job.cancelled:
            raise JobAbandonedError("cancelled")
        if self._closing or time.monotonic() - job.last_poll > _POLL_TIMEOUT:
            raise JobAbandonedError(
                "no page waits for this picture any more", hint="submit it again"
            )

    def _pipeline(self, settings: JobSettings) -> Pipeline:
        """Return the pipeline for the settings; networks are loaded once for all scales."""
        options = replace(self.options, self_ensemble=settings.self_ensemble)
        spec = PipelineSpec.parse(settings.model, None, None, options)
        ready = self._ready.pop(spec, None) or spec.load()
        self._ready[spec] = ready
        while len(self._ready) > _MAX_CACHED_PIPELINES:
            self._ready.popitem(last=False)
        return ready.to_scale(settings.scale or spec.scale)


def _safe(name: str) -> str:
    """Return the last part of a name, restricted to safe characters and length.

    Marks of letters belong to a name: macOS stores them apart, and Hindi and Thai need them.
    Browsers send quotation marks and line breaks as %22, %0D and %0A.
    """
    name = re.sub("%(?:22|0D|0A)", "_", name.replace("\\", "/"))
    last = normalize("NFC", Path(name).name)
    last = "".join(one if _is_safe(one) else "_" for one in last).lstrip(".")
    stem, suffix = Path(last).stem, Path(last).suffix
    short = stem.encode()[: _MAX_NAME_BYTES - len(suffix.encode())].decode(errors="ignore")
    return f"{'_' if _DEVICES.match(last) else ''}{short}{suffix}"


def _is_safe(letter: str) -> bool:
    """Whether a letter may be in a name: on every system, in a pattern and in a template."""
    return letter == " " or (category(letter)[0] in "LMNPS" and letter not in '<>:"/\\|?*[]{}')
