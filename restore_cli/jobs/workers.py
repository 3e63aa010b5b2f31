"""Pictures over several processes: the files are read and written here, restored there.

Whatever the processes are (one a GPU on this machine, actors of a cluster), a picture whose process
dies is given to another, and every output is written once, by this process.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Protocol

import torch

from restore_cli.errors import DeviceError, RestoreError, UsageError
from restore_cli.image.writing import put
from restore_cli.inference.assemble import Line, assemble
from restore_cli.inference.loading import LoadedNetwork
from restore_cli.inference.memory import keep_freed_memory
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.jobs.plan import Item, RestoreJob
from restore_cli.jobs.restoring import Settings, load, restore, save
from restore_cli.jobs.run import Outcome, is_film, output_format, read_input

_MOST_DEATHS = 3  # of processes under one picture, before it is called the cause


class NotReadyError(DeviceError):
    """A process cannot load the networks: no picture will come out of it, so the run ends."""


@dataclass(frozen=True, slots=True)
class LinePlan:
    """How to assemble a line in another process.

    Attributes:
        names: of models.
        files: of weights, as `weights.store.locate` takes them; None for a model's own.
        options: of every network.
        scale: of the whole, where a bicubic stage decides it.
    """

    names: tuple[str, ...]
    files: tuple[str | None, ...]
    options: RestorerOptions
    scale: int | None

    def assemble(self, device: torch.device, first: LoadedNetwork | None = None) -> Line:
        """The line, on a device.

        Args:
            device: that all networks run on.
            first: the only network, if it was loaded already.

        Raises:
            RestoreError: see `inference.assemble`.
        """
        options = replace(self.options, device=device)
        return assemble(self.names, self.files, options, self.scale, first)


@dataclass(frozen=True, slots=True)
class Task:
    """One picture to restore in another process.

    Attributes:
        data: of its file.
        name: for messages.
        format: of the output; None for the input's.
        target: for messages.
        sha256: of its file.
    """

    data: bytes
    name: str
    format: str | None
    target: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A restored picture.

    Attributes:
        data: of the file to write.
        notes: what had to be left out.
        size: height and width.
        seconds: in the network.
    """

    data: bytes
    notes: tuple[str, ...]
    size: tuple[int, int]
    seconds: float


class Workers(Protocol):
    """Processes that restore.

    Attributes:
        count: of processes.
        lost: what a future raises when its process has died.
    """

    count: int
    lost: tuple[type[BaseException], ...]

    def submit(self, task: Task) -> Future[Finished]:
        """Give a picture to a process that is alive.

        Raises:
            DeviceError: none is.
        """

    def close(self) -> None:
        """End the processes."""


def run_on(
    workers: Workers, job: RestoreJob, items: Sequence[Item], settings: Settings
) -> Generator[Outcome, None, None]:
    """`run.run` over several processes; outcomes come as pictures are done.

    Args:
        workers: that restore; closed at the end.
        job: as planned.
        items: from `plan`.
        settings: of the job.

    Raises:
        NotReadyError: a process cannot load the networks.
    """
    waiting = deque(items)
    suspects: deque[tuple[Item, Task, int]] = deque()
    flying: dict[Future[Finished], tuple[Item, Task, int]] = {}
    try:
        while waiting or flying or suspects:
            if suspects:
                # Under which of them a process died shows only when each runs alone.
                if not flying:
                    suspect = suspects.popleft()
                    flying[workers.submit(suspect[1])] = suspect
            elif waiting and len(flying) < 2 * workers.count:  # one done, one ready, each
                item = waiting.popleft()
                task = _task(item, job, settings)
                if isinstance(task, Outcome):
                    yield task
                else:
                    flying[workers.submit(task)] = item, task, 0
                continue
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                outcome = _landed(workers, future, flying.pop(future), suspects)
                if outcome is not None:
                    yield outcome
    finally:
        workers.close()


def _landed(
    workers: Workers,
    future: Future[Finished],
    what: tuple[Item, Task, int],
    suspects: deque[tuple[Item, Task, int]],
) -> Outcome | None:
    """The outcome of a picture, or None if its process died and it is to be tried again."""
    item, task, deaths = what
    try:
        return _finish(item, task, future.result())
    except workers.lost as error:
        if deaths + 1 < _MOST_DEATHS:
            suspects.append((item, task, deaths + 1))
            return None
        failure: RestoreError = DeviceError(
            f"'{item.source}': {deaths + 1} processes died of it: {error}",
            hint="memory may be short: use a smaller --tile",
        )
    except NotReadyError:
        raise
    except RestoreError as error:
        failure = error
    return Outcome(item, "failed", failure, sha256=task.sha256)


def restore_task(task: Task, line: Line, settings: Settings) -> Finished:
    """The work of one process on one picture.

    Raises:
        PictureError: it cannot be read, restored or encoded.
        DeviceError: out of memory.
    """
    picture = load(task.data, task.name, settings, task.format)
    begun = time.monotonic()
    restored = restore(picture, line.stage, settings, task.format, task.name)
    seconds = time.monotonic() - begun
    data, notes = save(restored, task.sha256, settings, task.format, task.target)
    return Finished(data, (*picture.notes, *notes), restored.size, seconds)


class DeviceWorkers:
    """One process a device of this machine, fed from one queue."""

    lost: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, plan: LinePlan, settings: Settings, devices: Sequence[torch.device]) -> None:
        self.count = len(devices)
        self._plan, self._settings, self._devices = plan, settings, tuple(devices)
        self._pool = self._start()

    def submit(self, task: Task) -> Future[Finished]:
        """See `Workers`."""
        try:
            return self._pool.submit(_restore_here, task)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = self._start()
            return self._pool.submit(_restore_here, task)

    def close(self) -> None:
        """See `Workers`."""
        self._pool.shutdown(cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        context = get_context("spawn")  # CUDA does not survive a fork
        queue: Queue[torch.device] = context.Queue()
        for device in self._devices:
            queue.put(device)
        return ProcessPoolExecutor(
            self.count,
            mp_context=context,
            initializer=_begin,
            initargs=(self._plan, self._settings, queue, self.count),
        )


_line: Line | NotReadyError
_settings: Settings


def _begin(plan: LinePlan, settings: Settings, queue: Queue[torch.device], count: int) -> None:
    """In the new process: take a device and load the networks once."""
    global _line, _settings
    keep_freed_memory()
    device = queue.get()
    if device.type == "cpu":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    _line, _settings = _assembled(plan, device), settings


def _assembled(plan: LinePlan, device: torch.device) -> Line | NotReadyError:
    try:
        return plan.assemble(device)
    except RestoreError as error:
        return NotReadyError(f"{device}: {error}", hint=error.hint)


def _restore_here(task: Task) -> Finished:
    if isinstance(_line, NotReadyError):
        raise _line
    return restore_task(task, _line, _settings)


def _task(item: Item, job: RestoreJob, settings: Settings) -> Task | Outcome:
    if is_film(item) and not item.done:
        failure = UsageError(f"'{item.source}' is a film", hint="name one --device")
        return Outcome(item, "failed", failure)
    found = read_input(item, job, settings)
    if isinstance(found, Outcome):
        return found
    data, digest = found
    return Task(data, str(item.source), output_format(item, job), str(item.target), digest)


def _finish(item: Item, task: Task, finished: Finished) -> Outcome:
    put(item.target, finished.data)
    return Outcome(
        item,
        "restored",
        notes=finished.notes,
        sha256=task.sha256,
        size=finished.size,
        seconds=finished.seconds,
    )


def materialise(files: Sequence[str | None]) -> tuple[tuple[str, bytes] | str | None, ...]:
    """Weights that only this machine has, as name and content, to be sent along."""
    return tuple(
        (Path(file).name, Path(file).read_bytes()) if file and Path(file).is_file() else file
        for file in files
    )


def place(files: Sequence[tuple[str, bytes] | str | None], folder: Path) -> tuple[str | None, ...]:
    """The opposite of `materialise`, on the other machine, into an empty folder."""
    placed: list[str | None] = []
    for n, file in enumerate(files):
        if isinstance(file, tuple):
            path = folder / str(n) / file[0]
            path.parent.mkdir()
            path.write_bytes(file[1])
            placed.append(str(path))
        else:
            placed.append(file)
    return tuple(placed)
