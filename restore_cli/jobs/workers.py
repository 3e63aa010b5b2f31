"""Restores in several processes; this process reads and writes the files.

The processes are either one per device on this machine, or actors of a cluster. If a process dies,
its picture is given to another. Every output is written once, by this process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Protocol

import torch

from restore_cli.errors import DeviceError, RestoreError, UsageError
from restore_cli.inference.memory import keep_freed_memory
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.jobs.plan import Item
from restore_cli.jobs.request import RestoreRequest
from restore_cli.jobs.restoration import Restoration, Task
from restore_cli.jobs.run import Outcome, ends_run, failed, read_input, restore_task, write_result
from restore_cli.processes import ProcessPool, starting, usable_cores

_MAX_CRASHES = 3  # processes that may die with one picture before it fails; see `_CrashError`
Restored = tuple[bytes, Outcome]  # content of the output, and the outcome


class NotReadyError(DeviceError):
    """No process can restore, e.g. load the networks, so the run ends."""


class _CrashError(DeviceError):
    """Processes died with a picture. If the first three all end so, the others would, too."""


class Workers(Protocol):
    """Processes that restore."""

    count: int  # number of processes
    # exceptions that a future raises if its process has died
    crash_errors: tuple[type[BaseException], ...]

    def submit(self, task: Task) -> Future[Restored]:
        """Give a picture to a running process; raises `DeviceError` if all have died."""

    def close(self) -> None:
        """End the processes."""


def restore_with_workers(
    workers: Workers, work: Restoration, items: Sequence[Item], *, fail_fast: bool = False
) -> Generator[Outcome, None, None]:
    """`run.restore_all` in several processes; yields outcomes in the order of completion.

    The workers are closed at the end. With `fail_fast`, the first failure ends the run; a full disk
    always does. Raises `NotReadyError` if a process cannot load the networks, or if all processes
    died with the first three pictures that they were given.
    """
    waiting = deque(items)
    suspects: deque[tuple[Task, int]] = deque()
    pending: dict[Future[Restored], tuple[Task, int]] = {}
    crashed: list[bool] = []  # for each picture tried, whether it ended its processes
    try:
        while waiting or pending or suspects:
            if suspects:
                # A picture that makes its process die can be identified only if it runs alone.
                if not pending:
                    suspect = suspects.popleft()
                    pending[workers.submit(suspect[0])] = suspect
            elif waiting and len(pending) < 2 * workers.count:  # per process one active, one queued
                task = _task(work, waiting.popleft())
                if isinstance(task, Outcome):
                    yield task
                    if ends_run(task, fail_fast=fail_fast):
                        return
                else:
                    pending[workers.submit(task)] = task, 0
                continue
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                outcome = _collect_result(workers, work, future, *pending.pop(future), suspects)
                if outcome is not None:
                    yield outcome
                    crashed.append(isinstance(outcome.error, _CrashError))
                    _check_not_all(crashed)
                    if ends_run(outcome, fail_fast=fail_fast):
                        return
    finally:
        workers.close()


def _check_not_all(crashed: Sequence[bool]) -> None:
    if len(crashed) == _MAX_CRASHES and all(crashed):
        raise NotReadyError(
            f"the first {len(crashed)} pictures ended every process; the run stops here",
            hint="give --device fewer devices, use a smaller --tile, or free memory",
        )


def _collect_result(
    workers: Workers,
    work: Restoration,
    future: Future[Restored],
    task: Task,
    deaths: int,
    suspects: deque[tuple[Task, int]],
) -> Outcome | None:
    """Return the outcome of a picture, or None if its process died and it is tried again."""
    try:
        data, outcome = future.result()
        return write_result(work, outcome, data)
    except workers.crash_errors as error:
        if deaths + 1 < _MAX_CRASHES:
            suspects.append((task, deaths + 1))
            return None
        failure = _CrashError(
            f"'{task.name}': {deaths + 1} processes died while restoring it: {error}",
            hint="memory may be short: use a smaller --tile",
        )
        return failed(task, failure)
    except NotReadyError:
        raise
    except RestoreError as error:
        return failed(task, error)


class DeviceWorkers:
    """One process per device of this machine; all share one queue."""

    crash_errors: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(
        self, spec: PipelineSpec, request: RestoreRequest, devices: Sequence[torch.device]
    ) -> None:
        self.count = len(devices)
        self._spec, self._request, self._devices = spec, request, tuple(devices)
        self._pool = self._start()

    def submit(self, task: Task) -> Future[Restored]:
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

    def _start(self) -> ProcessPool:
        with starting():
            queue: Queue[torch.device] = get_context("spawn").Queue()
        for device in self._devices:
            queue.put(device)
        return ProcessPool(self.count, _begin, self._spec, self._request, queue, self.count)


_ready: dict[str, Restoration | NotReadyError] = {}  # filled by `_begin` in a new process


def _begin(
    spec: PipelineSpec, request: RestoreRequest, queue: Queue[torch.device], count: int
) -> None:
    """Take a device and load the networks once; runs in the new process."""
    keep_freed_memory()
    device = queue.get()
    if device.type == "cpu":
        torch.set_num_threads(max(1, usable_cores() // count))
    try:
        _ready["work"] = Restoration(request, spec.load(device))
    except RestoreError as error:
        _ready["work"] = NotReadyError(f"{device}: {error}", hint=error.hint)


def _restore_here(task: Task) -> Restored:
    work = _ready["work"]
    if isinstance(work, NotReadyError):
        raise work
    return restore_task(work, task)


def _task(work: Restoration, item: Item) -> Task | Outcome:
    if item.is_video and not item.skip:
        failure = UsageError(
            f"'{item.source}' is a video, which needs a single device of this machine",
            hint="give one --device, without --engine ray",
        )
        return Outcome(item, "failed", failure)
    return read_input(work, item)


def pack_weights(files: Sequence[str | None]) -> tuple[tuple[str, bytes] | str | None, ...]:
    """Replace files of weights on this machine by (name, content), to send them to others."""
    return tuple(
        (Path(file).name, Path(file).read_bytes()) if file and Path(file).is_file() else file
        for file in files
    )


def unpack_weights(
    files: Sequence[tuple[str, bytes] | str | None], folder: Path
) -> tuple[str | None, ...]:
    """Invert `pack_weights`: write the files into an empty folder on another machine."""
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
