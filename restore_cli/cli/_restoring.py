"""What `restore image` does with a job: run it and tell people and programs of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from json import dumps as json_text
from json import loads as json_value
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import show
from restore_cli.errors import RestoreError, UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import torch

    from restore_cli.inference.assemble import Line
    from restore_cli.inference.loading import LoadedNetwork
    from restore_cli.jobs.plan import Item, RestoreJob
    from restore_cli.jobs.restoring import Settings
    from restore_cli.jobs.run import Outcome, Report
    from restore_cli.jobs.workers import LinePlan


ENGINES = ("local", "ray")


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs the job: `local` in one process a device, `ray` in a cluster."""

    name: str
    address: str
    workers: int | None
    devices: list[torch.device]
    jobs: int | None

    def __post_init__(self) -> None:
        if self.name not in ENGINES:
            raise unknown_name("engine", self.name, ENGINES)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be restored, by what, and where.

    `first` is the only network, if it is here; `chosen` whether the model is our choice.
    """

    job: RestoreJob
    recipe: LinePlan
    first: LoadedNetwork | None
    engine: Engine
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What people and programs are told of it."""

    json: bool
    quiet: bool
    fail_fast: bool
    manifest: str | None
    compare: str | None


def restore_items(request: Request, items: list[Item], told: Told) -> int:
    """Load the networks, restore everything, and return the exit status."""
    from restore_cli.jobs.inputs import STREAM
    from restore_cli.jobs.outputs import refuse_own, remove_leftovers

    if request.job.resume:
        remove_leftovers(item.target for item in items)
    to_stdout = any(item.target == STREAM for item in items)
    piped = to_stdout or any(item.source == STREAM for item in items)
    if to_stdout and told.json:
        raise UsageError("--json and the picture cannot both go to stdout", hint="use --manifest")
    if told.compare is not None:
        from restore_cli.jobs.compare import refuse_compare  # and the templates of its page

        refuse_compare(opt.parse_path(told.compare), items, request.job.on_exists)
    if told.manifest is not None:
        pairs = ((item.source, item.target) for item in items)
        refuse_own(opt.parse_path(told.manifest), pairs, "--manifest")
    engine = request.engine
    spread = engine.name == "ray" or (len(engine.devices) > 1 and len(items) > 1 and not piped)
    if request.chosen and not told.quiet:
        _announce(request, [item for item in items if not item.done])
    # When others restore, this process needs the facts of the line only.
    line = _assemble(request, told, "cpu" if spread else "")
    start = _starter(request, items, line, spread=spread, piped=piped)
    printer = _Printer(request.job, line, told, silent=to_stdout)
    status = _run(start, len(items), printer, fail_fast=told.fail_fast)
    if told.compare is not None:
        _compare(opt.parse_path(told.compare), printer.restored, line, quiet=told.quiet)
    return status


def _assemble(request: Request, told: Told, elsewhere: str = "") -> Line:
    """The line on its device, or on another one for its facts; introduced to people."""
    engine = request.engine
    device = opt.parse_device(elsewhere) if elsewhere else engine.devices[0]
    line = request.recipe.assemble(device, request.first)
    if not told.quiet:
        where = "the Ray cluster" if engine.name == "ray" else ", ".join(map(str, engine.devices))
        _introduce(line, where if elsewhere else "")
    return line


def _announce(request: Request, items: list[Item]) -> None:
    """Which model was chosen and why; how long it takes, if that is long."""
    from restore_cli.image import read_size
    from restore_cli.jobs.inputs import STREAM
    from restore_cli.weights.manifest import default_checkpoint

    checkpoint = default_checkpoint(request.recipe.names[0])
    gain = out.decibels(checkpoint.gain("real"))
    out.talk(
        f"{checkpoint.model}: the best of the bundled ones at this scale on real blur "
        f"({gain} dB); --model takes another"
    )
    sizes = [read_size(item.source) for item in items if item.source != STREAM]
    megapixels = sum(size[0] * size[1] for size in sizes if size) / 1e6
    minutes = megapixels * (checkpoint.seconds_per_megapixel or 0) / 60
    if minutes >= 1 and request.engine.devices[0].type == "cpu":
        out.talk(
            f"note: {megapixels:.1f} megapixels take it about {minutes:.0f} min on two cores; "
            "`restore models` has faster ones"
        )


def _introduce(line: Line, where: str) -> None:
    """The first lines: which weights, on which device, and what would be faster."""
    for description in line.describe(where):
        out.talk(description)
    if not where and line.options.device.type == "cpu" and (remark := opt.unused_gpu()):
        out.talk(f"note: {remark}")


def _starter(
    request: Request, items: list[Item], line: Line, *, spread: bool, piped: bool
) -> Callable[[Report], Generator[Outcome, None, None]]:
    """What begins the work, given whom to tell of tiles."""
    from restore_cli.jobs.restoring import settings_of
    from restore_cli.jobs.run import run
    from restore_cli.jobs.workers import DeviceWorkers, run_on

    job, engine = request.job, request.engine
    settings = settings_of(job, line)
    if not spread:
        ahead = engine.jobs
        if ahead is None:
            ahead = 0 if engine.devices[0].type == "cpu" else 4
        return lambda report: run(job, items, line.stage, settings, report, ahead=ahead)
    if engine.name == "local":
        devices = engine.devices[: len(items)]
        pool = DeviceWorkers(request.recipe, settings, devices)
        return lambda report: run_on(pool, job, items, settings)
    if piped:
        raise UsageError("--engine ray takes files, not pipes", hint="leave out --engine")
    try:
        from restore_cli.jobs.ray_workers import RayWorkers
    except ImportError:
        hint = "pip install 'restore-cli[ray]'"
        raise UsageError("--engine ray needs Ray, which is not installed", hint=hint) from None
    workers = RayWorkers(request.recipe, settings, engine.address, engine.workers)
    return lambda report: run_on(workers, job, items, settings)


def _run(
    start: Callable[[Report], Generator[Outcome, None, None]],
    total: int,
    printer: _Printer,
    *,
    fail_fast: bool,
) -> int:
    """Restore everything, print as it comes, and return the exit status."""
    failed: list[Outcome] = []
    done = 0
    with out.progress_bar(quiet=printer.quiet, unit="pictures") as bar, printer:
        task = bar.add_task("", total=total)

        def report(item: Item, tiles_done: int, tiles: int) -> None:
            bar.update(task, description=item.source.name, completed=done + tiles_done / tiles)

        outcomes = start(report)
        for done, outcome in enumerate(outcomes, start=1):
            bar.update(task, completed=done)
            printer.outcome(outcome)
            if outcome.error:
                failed.append(outcome)
                if fail_fast:
                    outcomes.close()
                    break
    left = total - done
    if (failed and total > 1) or left:
        others = "; the others are done" if len(failed) < total and not left else ""
        others = f"; {left} are left" if left else others
        out.talk(f"{len(failed)} of {total} pictures failed{others}")
    printer.summary(done, failed)
    if failed and len(failed) == total:  # then what failed is not the pictures
        codes = {outcome.error.exit_code for outcome in failed if outcome.error}
        return codes.pop() if len(codes) == 1 else 1
    return 1 if failed else 0


def run_frames(frame: tuple[int, int], request: Request, *, quiet: bool) -> None:
    """Frames from stdin to stdout; how many there are, only the stream knows."""
    from restore_cli.jobs.frames import restore_frames

    told = Told(json=False, quiet=quiet, fail_fast=True, manifest=None, compare=None)
    line = _assemble(request, told)
    with out.progress_bar(quiet=quiet, unit="frames") as bar:
        task = bar.add_task("frames", total=None)
        frames = restore_frames(sys.stdin.buffer, *frame, line.stage, request.job.scale)
        for done in frames:
            bar.update(task, completed=done)


def _compare(path: Path, restored: list[Outcome], line: Line, *, quiet: bool) -> None:
    """The page or the picture of before and after, of what is a picture and a file."""
    from restore_cli.jobs.compare import STEPS, shown_in, write_comparison
    from restore_cli.jobs.inputs import STREAM
    from restore_cli.jobs.run import is_film

    shown = [
        outcome
        for outcome in restored
        if STREAM not in (outcome.item.source, outcome.item.target) and not is_film(outcome.item)
    ]
    if not shown:
        out.talk(f"note: nothing to compare, so '{path}' was not written")
        return
    made = f"Restored by {'; '.join(line.describe())}."
    with out.progress_bar(quiet=quiet, unit="pictures compared") as bar:
        task = bar.add_task("", total=len(shown_in(path, shown)))

        def report(outcome: Outcome) -> None:
            bar.update(task, description=outcome.item.source.name, advance=1 / STEPS)

        write_comparison(path, shown, made, report)
    out.talk(f"before and after: {path}")


class _Printer:
    """Says what became of every picture: stdout for programs, stderr for people, the manifest."""

    def __init__(self, job: RestoreJob, line: Line, told: Told, *, silent: bool) -> None:
        from restore_cli.jobs.restoring import settings_of

        self.quiet = told.quiet
        self.restored: list[Outcome] = []  # for --compare
        self._settings, self._line = settings_of(job, line), line
        self._json, self._silent = told.json, silent
        self._path = opt.parse_path(told.manifest) if told.manifest is not None else None
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("a", encoding="utf-8", errors="surrogateescape")
            except OSError as error:
                raise UsageError(f"cannot write '{self._path}': {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def outcome(self, outcome: Outcome) -> None:
        if outcome.status == "restored":
            self.restored.append(outcome)
        record = _record(outcome, self._settings, self._line)
        if self._file is not None:
            # A line is written at once, so that a run that is killed leaves whole lines.
            try:
                self._file.write(json_text(record) + "\n")
                self._file.flush()
            except OSError as error:
                raise RestoreError(
                    f"cannot write --manifest '{self._path}': {error.strerror}", hint="make room"
                ) from error
        if self._json:
            out.data_json(record)
        elif not outcome.error and not self._silent:
            out.data(str(outcome.item.target))
        for note in outcome.notes if not self.quiet else ():
            out.talk(f"note: '{outcome.item.source}': {note}")
        if outcome.error:
            show(outcome.error)

    def summary(self, done: int, failed: list[Outcome]) -> None:
        if self._json:
            out.data_json({"summary": {"done": done - len(failed), "failed": len(failed)}})


def _record(outcome: Outcome, settings: Settings, line: Line) -> dict[str, object]:
    height, width = outcome.size or (None, None)
    return {
        "input": str(outcome.item.source),
        "output": str(outcome.item.target),
        "status": outcome.status,
        "error": str(outcome.error) if outcome.error else None,
        "notes": list(outcome.notes),
        "input_sha256": outcome.sha256 or None,
        "model": settings.model,
        "weights": [name for name, _ in settings.weights],
        "weights_sha256": [digest for _, digest in settings.weights],
        "options": json_value(settings.options),
        "key": settings.key,
        "device": str(line.options.device),
        "width": width,
        "height": height,
        "seconds": round(outcome.seconds, 3),
    }


def say_plan(request: Request, items: list[Item], told: Told) -> int:
    """The plan as a table, or a line of JSON a picture."""
    from restore_cli.jobs.estimate import estimate
    from restore_cli.jobs.restoring import settings_of
    from restore_cli.jobs.run import was_done

    job, line = request.job, _assemble(request, told)
    settings = settings_of(job, line)
    if job.resume:
        items = [replace(item, done=item.done or was_done(item, job, settings)) for item in items]
    estimates = estimate(job, items, list(line.stages))
    if told.json:
        for one in estimates:
            height, width = one.size or (None, None)
            out.data_json(
                {
                    "input": str(one.item.source),
                    "output": str(one.item.target),
                    "done": one.item.done,
                    "width": width,
                    "height": height,
                    "tiles": one.tiles,
                    "bytes": one.bytes,
                    "seconds": round(one.seconds, 2),
                }
            )
        return 0
    rows = []
    for one in estimates:
        size = "?"
        if one.size is not None:
            height, width = one.size
            size = f"{width}x{height} -> {width * job.scale}x{height * job.scale}"
        cost = [str(one.tiles), f"{one.bytes / 1e9:.2f} GB", f"{one.seconds:.0f} s"]
        cost = ["", "", "is there"] if one.item.done else cost
        rows.append([str(one.item.source), str(one.item.target), size, *cost])
    out.table(["Input", "Output", "Size", "Tiles", "Memory", "Time"], rows)
    to_do = [one for one in estimates if not one.item.done]
    seconds = sum(one.seconds for one in to_do)
    out.talk(f"{len(to_do)} pictures to do, about {seconds / 60:.1f} minutes; nothing was written")
    return 0
