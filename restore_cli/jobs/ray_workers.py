"""Restores on a Ray cluster: actors load the networks once, pictures are streamed to them."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RaySystemError,
)

from restore_cli.errors import DeviceError, RestoreError
from restore_cli.formatting import first_line
from restore_cli.inference.pipeline import PipelineSpec
from restore_cli.jobs.request import RestoreRequest
from restore_cli.jobs.restoration import Restoration, Task
from restore_cli.jobs.run import restore_task
from restore_cli.jobs.workers import Restored, pack_weights, unpack_weights


class RayWorkers:
    """Actors of a cluster: one per GPU, or one per machine if there are no GPUs.

    If an actor dies, its pictures are given to others.
    """

    crash_errors: tuple[type[BaseException], ...] = (
        RayActorError,
        RaySystemError,
        NodeDiedError,
        ObjectLostError,
        OutOfMemoryError,
    )

    def __init__(
        self, spec: PipelineSpec, request: RestoreRequest, address: str, count: int | None
    ) -> None:
        """Connect, and load the networks in all actors.

        Raises `DeviceError` if there is no cluster at that address, or no actor could start.
        """
        self._owns = not ray.is_initialized()
        if self._owns:
            try:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # Ray raises bare ones, too
                raise DeviceError(
                    f"no Ray cluster at '{address}': {first_line(error)}",
                    hint="start one with `ray start --head`",
                ) from error
        gpus = int(ray.cluster_resources().get("GPU", 0))
        nodes = sum(node["Alive"] for node in ray.nodes())
        wanted = count or gpus or nodes
        files = pack_weights(spec.weights)
        remote: Any = _Actor
        actor = remote.options(num_cpus=1, num_gpus=1 if gpus else 0, scheduling_strategy="SPREAD")
        actors = [actor.remote(spec, files, request, gpu=bool(gpus)) for _ in range(wanted)]
        self._actors = self._ready(actors)
        self.count = len(self._actors)
        self._busy: Counter[Any] = Counter()

    def submit(self, task: Task) -> Future[Restored]:
        """See `workers.Workers`; the actor with the fewest pictures gets the task."""
        alive = [actor for actor in self._actors if actor is not None]
        if not alive:
            raise DeviceError("all processes of the cluster have died", hint="see `ray status`")
        actor = min(alive, key=lambda one: self._busy[one])
        self._busy[actor] += 1
        future: Future[Restored] = actor.restore.remote(task).future()
        future.add_done_callback(lambda done: self._done(actor, done))
        return future

    def close(self) -> None:
        """See `workers.Workers`."""
        if self._owns:
            ray.shutdown()
            return
        for actor in self._actors:
            if actor is not None:
                ray.kill(actor)

    def _done(self, actor: Any, future: Future[Restored]) -> None:
        self._busy[actor] -= 1
        if not future.cancelled() and isinstance(future.exception(), self.crash_errors):
            self._actors = [None if one is actor else one for one in self._actors]

    def _ready(self, actors: list[Any]) -> list[Any]:
        """Return the actors that have loaded the networks; the others are not used."""
        waits = {actor.ready.remote(): actor for actor in actors}
        done, _ = ray.wait(list(waits), num_returns=len(waits), timeout=120)
        errors: list[BaseException] = []
        good = []
        for reference in done:
            try:
                ray.get(reference)
                good.append(waits[reference])
            except (RestoreError, RayActorError, RaySystemError) as error:
                errors.append(error)
        if not good:
            why = errors[0] if errors else "no machine had a free CPU within two minutes"
            raise DeviceError(
                f"no process of the cluster could start: {why}",
                hint="see `ray status`, and whether every machine has this version of restore",
            )
        return good


@ray.remote(max_restarts=0, max_task_retries=0)
class _Actor:
    """One process of the cluster."""

    def __init__(
        self, spec: PipelineSpec, files: Any, request: RestoreRequest, *, gpu: bool
    ) -> None:
        self._spec, self._files, self._request = spec, files, request
        self._device = torch.device("cuda" if gpu else "cpu")

    def ready(self) -> None:
        """Load the networks."""
        with TemporaryDirectory(prefix="restore-weights-") as folder:
            files = unpack_weights(self._files, Path(folder))
            spec = dataclasses.replace(self._spec, weights=files)
            self._work = Restoration(self._request, spec.load(self._device))

    def restore(self, task: Task) -> Restored:
        """Restore one picture."""
        return restore_task(self._work, task)
