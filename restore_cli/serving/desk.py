"""Pictures that visitors hand in, restored one at a time by one thread.

They go through the same line as those of the command line: planned, read, restored and written as
files, in a folder that is removed in the end. The last few results are kept, older ones go.
"""

from __future__ import annotations

import queue
import re
import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from restore_cli.errors import PictureError, RestoreError, UsageError
from restore_cli.image import MAX_PIXELS, PHOTO_SUFFIXES
from restore_cli.inference.assemble import Line
from restore_cli.inference.cascade import own_scale, split_names, split_weights
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.jobs.compare import Pair, pair_of
from restore_cli.jobs.plan import Item, RestoreJob, plan
from restore_cli.jobs.restoring import settings_of
from restore_cli.jobs.run import run
from restore_cli.jobs.workers import LinePlan

_LINES = 3  # networks kept ready
_LONGEST_NAME = 100


class BusyError(RestoreError):
    """As many pictures are waiting as may wait."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a visitor chose.

    Attributes:
        model: a name, or several joined by +.
        scale: output pixels per input pixel, 1 to 8, or None for the model's own.
        format: key of `FORMATS`, or None for the input's.
        self_ensemble: mean of eight poses.
    """

    model: str
    scale: int | None = None
    format: str | None = None
    self_ensemble: bool = False

    def __post_init__(self) -> None:
        split_names(self.model)
        if self.scale is not None and not 1 <= self.scale <= 8:
            raise UsageError(f"scale {self.scale} is not between 1 and 8")


@dataclass(slots=True)
class Ticket:
    """A picture at the desk. The thread that restores writes it, others read it.

    Attributes:
        key: that its owner knows it by; cannot be guessed.
        wish: how to restore it.
        folder: of its files.
        source: the picture as it came.
        state: "waiting", "running", "done" or "failed".
        share: of the work that is done, in [0, 1].
        seconds: in the network.
        notes: what had to be left out, or limits the result.
        error: what went wrong, in one line.
        target: the restored file.
        shown: both, for the page.
    """

    key: str
    wish: Wish
    folder: Path
    source: Path
    state: str = "waiting"
    share: float = 0.0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    error: str = ""
    target: Path | None = None
    shown: Pair | None = None


@dataclass(slots=True)
class Desk:
    """Takes pictures and restores them in turn.

    Attributes:
        options: for every network; self-ensemble is the visitor's choice.
        max_pixels: larger pictures are refused.
        most_waiting: pictures that may wait.
        most_kept: tickets that are kept, finished ones included.
    """

    options: RestorerOptions
    max_pixels: int = MAX_PIXELS
    most_waiting: int = 8
    most_kept: int = 16
    _root: Path = field(init=False)
    _tickets: OrderedDict[str, Ticket] = field(init=False, default_factory=OrderedDict)
    _lines: OrderedDict[Wish, Line] = field(init=False, default_factory=OrderedDict)
    _waiting: queue.Queue[Ticket | None] = field(init=False, default_factory=queue.Queue)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="restore-serve-"))
        self._thread = threading.Thread(target=self._work, name="restorer", daemon=True)
        self._thread.start()

    def new(self, name: str, wish: Wish) -> Ticket:
        """A ticket whose `source` is to be filled before it is handed in.

        Args:
            name: of the file as its owner has it; only its last part is used.
            wish: how to restore it.

        Raises:
            PictureError: not the name of a picture.
            BusyError: too many are waiting.
        """
        if self._waiting.qsize() >= self.most_waiting:
            raise BusyError(
                f"{self.most_waiting} pictures are waiting already", hint="try again in a minute"
            )
        safe = re.sub(r"[^\w. ()+-]", "_", Path(name.replace("\\", "/")).name)[-_LONGEST_NAME:]
        if Path(safe).suffix.lower() not in PHOTO_SUFFIXES:
            raise PictureError(
                f"'{safe}' is no picture by its name", hint=f"take {', '.join(PHOTO_SUFFIXES)}"
            )
        folder = Path(tempfile.mkdtemp(dir=self._root))
        source = folder / "in" / safe.lstrip(".")
        source.parent.mkdir()
        return Ticket(secrets.token_urlsafe(16), wish, folder, source)

    def hand_in(self, ticket: Ticket) -> None:
        """Put a ticket at the end of the row; the oldest finished ones are forgotten."""
        with self._lock:
            self._tickets[ticket.key] = ticket
            finished = [one for one in self._tickets.values() if one.state in ("done", "failed")]
            for old in finished[: max(0, len(self._tickets) - self.most_kept)]:
                del self._tickets[old.key]
                self.discard(old)
        self._waiting.put(ticket)

    def discard(self, ticket: Ticket) -> None:
        """Remove a ticket's files."""
        shutil.rmtree(ticket.folder, ignore_errors=True)

    def find(self, key: str) -> Ticket | None:
        """The ticket of that key, if it is still kept."""
        with self._lock:
            return self._tickets.get(key)

    def ahead_of(self, ticket: Ticket) -> int:
        """Tickets that are to be finished before this one."""
        with self._lock:
            earlier = list(self._tickets).index(ticket.key) if ticket.key in self._tickets else 0
            first = list(self._tickets.values())[:earlier]
        return sum(one.state in ("waiting", "running") for one in first)

    def close(self) -> None:
        """Finish the picture at work, leave the others, and remove every file."""
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._waiting.put(None)
        self._thread.join(timeout=10)
        shutil.rmtree(self._root, ignore_errors=True)

    def _work(self) -> None:
        while (ticket := self._waiting.get()) is not None:
            ticket.state = "running"
            try:
                self._restore(ticket)
                ticket.state = "done"
            except RestoreError as error:
                ticket.error = f"{error}{f' ({error.hint})' if error.hint else ''}"
                ticket.state = "failed"
            # A defect that one picture finds must not end the thread for all others.
            except Exception as error:  # noqa: BLE001
                ticket.error = f"this is a defect of restore: {error!r}"
                ticket.state = "failed"

    def _restore(self, ticket: Ticket) -> None:
        names = split_names(ticket.wish.model)
        job = RestoreJob(
            inputs=(ticket.source,),
            output=ticket.folder / "out",
            scale=ticket.wish.scale or own_scale(names),
            model=ticket.wish.model,
            format=ticket.wish.format,
            max_pixels=self.max_pixels,
        )
        (ticket.folder / "out").mkdir(exist_ok=True)
        items = plan(job)
        line = self._line(ticket.wish)

        def report(item: Item, done: int, tiles: int) -> None:
            ticket.share = done / tiles

        for outcome in run(job, items, line.stage, settings_of(job, line), report):
            if outcome.error:
                raise outcome.error
            ticket.seconds, ticket.notes = outcome.seconds, outcome.notes
            ticket.target = outcome.item.target
            ticket.shown = pair_of(outcome)

    def _line(self, wish: Wish) -> Line:
        """The networks of a wish, loaded once."""
        if wish not in self._lines:
            names = split_names(wish.model)
            options = RestorerOptions(
                device=self.options.device,
                dtype=self.options.dtype,
                tile=self.options.tile,
                self_ensemble=wish.self_ensemble,
            )
            made = LinePlan(names, tuple(split_weights(names, None)), options, wish.scale)
            self._lines[wish] = made.assemble(options.device)
            while len(self._lines) > _LINES:
                self._lines.popitem(last=False)
        self._lines.move_to_end(wish)
        return self._lines[wish]
