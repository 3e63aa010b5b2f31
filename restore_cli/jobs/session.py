"""Runs a request on one device, on one process per device, or on a Ray cluster."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from restore_cli.errors import UsageError, require, unknown_name
from restore_cli.files import remove_leftovers
from restore_cli.inference.pipeline import Pipeline
from restore_cli.jobs.inputs import STREAM
from restore_cli.jobs.plan import Item, plan
from restore_cli.jobs.request import RestoreRequest
from restore_cli.jobs.restoration import Restoration
from restore_cli.jobs.run import OnTile, Outcome, restore_all
from restore_cli.jobs.workers import DeviceWorkers, Workers, restore_with_workers
from restore_cli.option_values import OPTION_VALUES

_AHEAD = 4  # pictures read in advance if the network does not run on the CPU


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the pipeline runs."""

    name: str = "local"  # "local" for this machine, "ray" for a cluster
    # devices of this machine, each with a process if there are several; empty for the pipeline's
    # device
    devices: tuple[torch.device, ...] = ()
    address: str = "auto"  # address of the cluster for `ray.init`
    # processes of the cluster; None for one per GPU, or one per machine without GPUs
    workers: int | None = None
    ahead: int | None = None  # pictures read in advance; None for 0 on a CPU, else 4

    def __post_init__(self) -> None:
        if self.name not in OPTION_VALUES["engine"]:
            raise unknown_name("engine", self.name, OPTION_VALUES["engine"])

    def uses_other_processes(self, items: Sequence[Item]) -> bool:
        """Whether other processes restore, so that this process needs no pipeline on a device.

        Raises `UsageError` for stdin or stdout with a cluster.
        """
        piped = any(STREAM in (item.source, item.target) for item in items)
        if piped and self.name == "ray":
            raise UsageError("--engine ray works on files, not pipes", hint="leave out --engine")
        here = piped or any(item.is_video and not item.skip for item in items)
        return self.name == "ray" or (len(self.devices) > 1 and len(items) > 1 and not here)


@dataclass(slots=True)
class Summary:
    """The result of a run."""

    total: int  # number of planned pictures
    restored: int = 0  # number of restored pictures
    skipped: int = 0  # number of pictures whose output existed
    failed: list[Outcome] = field(default_factory=list)  # outcomes of the pictures that failed

    @property
    def not_tried(self) -> int:
        """Number of pictures that were not tried, after a failure with `fail_fast`."""
        return self.total - self.restored - self.skipped - len(self.failed)

    @property
    def exit_status(self) -> int:
        """0 if nothing failed, else 1; if all failed with the same exit code, that code."""
        codes = {outcome.error.exit_code for outcome in self.failed if outcome.error}
        if codes and len(self.failed) == self.total:  # e.g. the device is out of memory
            return codes.pop() if len(codes) == 1 else 1
        return 1 if self.failed else 0

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        self.restored += outcome.status == "restored"
        self.skipped += outcome.status == "skipped"
        self.failed += [outcome] if outcome.error else []


def run(
    request: RestoreRequest,
    pipeline: Pipeline,
    on_outcome: Callable[[Outcome], Any],
    *,
    items: list[Item] | None = None,
    engine: Engine = Engine(),
    report: OnTile = lambda item, done, tiles: None,
    fail_fast: bool = False,
) -> Summary:
    """Restore every picture of a request; used by the command line, the web page and Python.

    Args:
        request: which pictures to restore, where to and how.
        pipeline: the loaded pipeline; on any device if other processes restore.
        on_outcome: called in this thread with each outcome. An exception in it ends the run.
        items: result of `plan`, if it was called already.
        engine: where the pipeline runs.
        report: called with (item, finished tiles, all tiles) of the current picture.
        fail_fast: whether the first failure ends the run.

    Raises:
        RestoreError: the run cannot start; see `plan`, `Engine.uses_other_processes` and `Workers`.
    """
    items = plan(request, pipeline.spec) if items is None else items
    if request.destination.resume or request.destination.on_exists != "error":
        remove_leftovers(item.target for item in items)
    outcomes = _outcomes(Restoration(request, pipeline), items, engine, report, fail_fast)
    summary = Summary(len(items))
    try:
        for outcome in outcomes:
            summary.add(outcome)
            on_outcome(outcome)
    finally:
        outcomes.close()
    return summary


def record_of(outcome: Outcome, work: Restoration) -> dict[str, object]:
    """Return an outcome as JSON, with everything that affects the result."""
    height, width = outcome.size or (None, None)
    stages = work.pipeline.stages
    return {
        "input": str(outcome.item.source),
        "output": str(outcome.item.target),
        "status": outcome.status,
        "error": str(outcome.error) if outcome.error else None,
        "notes": list(outcome.notes),
        "input_sha256": outcome.sha256 or None,
        "model": work.pipeline.spec.name,
        "weights": [stage.weights for stage in stages],
        "weights_sha256": [stage.sha256 for stage in stages],
        "options": work.options,
        "key": work.key,
        "device": str(work.pipeline.options.device),
        "width": width,
        "height": height,
        "seconds": round(outcome.seconds, 3),
    }


def _outcomes(
    work: Restoration, items: list[Item], engine: Engine, report: OnTile, fail_fast: bool
) -> Generator[Outcome, None, None]:
    if engine.uses_other_processes(items):
        return restore_with_workers(_workers(work, items, engine), work, items, fail_fast=fail_fast)
    ahead = engine.ahead
    if ahead is None:
        ahead = 0 if work.pipeline.options.device.type == "cpu" else _AHEAD
    return restore_all(work, items, report, ahead=ahead, fail_fast=fail_fast)


def _workers(work: Restoration, items: list[Item], engine: Engine) -> Workers:
    spec, request = work.pipeline.spec, work.request
    if engine.name == "local":
        return DeviceWorkers(spec, request, engine.devices[: len(items)])
    require("ray", "ray", what="--engine ray")
    ray_workers = importlib.import_module("restore_cli.jobs.ray_workers")
    workers: Workers = ray_workers.RayWorkers(spec, request, engine.address, engine.workers)
    return workers
