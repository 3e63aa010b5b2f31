"""What `restore image` prints: about its pipeline, its progress, every picture and the end."""

from __future__ import annotations

import sys
from dataclasses import replace
from json import dumps as json_text
from typing import TYPE_CHECKING, Self, TextIO

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import show
from restore_cli.errors import RestoreError, UsageError

if TYPE_CHECKING:
    from restore_cli.inference.pipeline import Pipeline, PipelineSpec
    from restore_cli.jobs.plan import Item
    from restore_cli.jobs.request import RestoreRequest
    from restore_cli.jobs.restoration import Restoration
    from restore_cli.jobs.run import Outcome
    from restore_cli.jobs.session import Engine, Summary


def plan(
    request: RestoreRequest, spec: PipelineSpec, printer: Printer, *, announce: bool
) -> list[Item]:
    """Everything there is to do; all that can be refused is refused before anything is loaded."""
    from restore_cli.jobs import plan

    items = plan.plan(request, spec)
    printer.refuse(items, request.destination.on_exists)
    if announce:
        announce_default(spec, items)
    return items


def restore_items(
    request: RestoreRequest,
    spec: PipelineSpec,
    items: list[Item],
    engine: Engine,
    printer: Printer,
    *,
    fail_fast: bool,
) -> int:
    """Load the networks, restore everything, and return the exit status."""
    from restore_cli.jobs.restoration import Restoration
    from restore_cli.jobs.session import run

    pipeline = load(spec, engine, quiet=printer.quiet, elsewhere=engine.spreads(items))
    work = Restoration(request, pipeline)
    with out.progress_bar(quiet=printer.quiet, unit="pictures") as bar, printer:
        task = bar.add_task("", total=len(items))
        done = 0

        def report(item: Item, tiles_done: int, tiles: int) -> None:
            bar.update(task, description=item.source.name, completed=done + tiles_done / tiles)

        def on_outcome(outcome: Outcome) -> None:
            nonlocal done
            done += 1
            bar.update(task, completed=done)
            printer.outcome(outcome, work)

        summary = run(
            request,
            pipeline,
            on_outcome,
            items=items,
            engine=engine,
            report=report,
            fail_fast=fail_fast,
        )
    printer.summary(summary)
    printer.write_comparison(pipeline)
    return summary.exit_status


def load(spec: PipelineSpec, engine: Engine, *, quiet: bool, elsewhere: bool = False) -> Pipeline:
    """The pipeline, introduced; on the CPU, for its facts, where other processes restore."""
    import torch

    pipeline = spec.load(torch.device("cpu") if elsewhere else engine.devices[0])
    if not quiet:
        everywhere = ", ".join(map(str, engine.devices))
        where = "the Ray cluster" if engine.name == "ray" else everywhere
        for description in pipeline.describe(where if elsewhere else ""):
            out.talk(description)
        on_cpu = not elsewhere and pipeline.options.device.type == "cpu"
        if on_cpu and (remark := opt.unused_gpu()):
            out.talk(f"note: {remark}")
    return pipeline


def announce_default(spec: PipelineSpec, items: list[Item]) -> None:
    """Which model was chosen and why; how long it takes, if that is long."""
    from restore_cli.image import read_size
    from restore_cli.jobs.inputs import STREAM
    from restore_cli.weights.manifest import default_checkpoint

    checkpoint = default_checkpoint(spec.models[0])
    gain = out.decibels(checkpoint.gain("real"))
    out.talk(
        f"{checkpoint.model}: the best of the bundled ones at this scale on real blur "
        f"({gain} dB); --model takes another"
    )
    sources = [item.source for item in items if not item.done and item.source != STREAM]
    sizes = [read_size(source) for source in sources]
    megapixels = sum(size[0] * size[1] for size in sizes if size) / 1e6
    minutes = megapixels * (checkpoint.seconds_per_megapixel or 0) / 60
    if minutes >= 1 and spec.options.device.type == "cpu":
        out.talk(
            f"note: {megapixels:.1f} megapixels take it about {minutes:.0f} min on two cores; "
            "`restore models` has faster ones"
        )


def restore_frames(height: int, width: int, pipeline: Pipeline, *, quiet: bool) -> None:
    """Frames from stdin to stdout; how many there are, only the stream knows."""
    from restore_cli.jobs import frames

    with out.progress_bar(quiet=quiet, unit="frames") as bar:
        task = bar.add_task("frames", total=None)
        for done in frames.restore_frames(sys.stdin.buffer, height, width, pipeline):
            bar.update(task, completed=done)


class Printer:
    """Says what became of every picture: stdout for programs, stderr for people, the manifest."""

    def __init__(
        self, *, json: bool = False, quiet: bool, manifest: str | None, compare: str | None
    ) -> None:
        self.quiet = quiet
        self._json, self._silent = json, False
        self._manifest = opt.parse_path(manifest) if manifest is not None else None
        self._compare = opt.parse_path(compare) if compare is not None else None
        self._restored: list[Outcome] = []  # for the comparison
        self._file: TextIO | None = None

    def refuse(self, items: list[Item], on_exists: str) -> None:
        """Refuse what cannot be printed or written, before anything is loaded.

        Raises:
            UsageError: two things for stdout; a manifest or a comparison in the way of a picture.
        """
        from restore_cli.jobs.inputs import STREAM
        from restore_cli.jobs.outputs import refuse_own

        self._silent = any(item.target == STREAM for item in items)
        if self._silent and self._json:
            raise UsageError(
                "--json and the picture cannot both go to stdout", hint="use --manifest"
            )
        if self._compare is not None:
            from restore_cli.jobs.compare import refuse_compare  # and the templates of its page

            refuse_compare(self._compare, items, on_exists)
        if self._manifest is not None:
            pairs = ((item.source, item.target) for item in items)
            refuse_own(self._manifest, pairs, "--manifest")

    def __enter__(self) -> Self:
        if self._manifest is not None:
            try:
                self._manifest.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._manifest.open("a", encoding="utf-8", errors="surrogateescape")
            except OSError as error:
                raise UsageError(f"cannot write '{self._manifest}': {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def outcome(self, outcome: Outcome, work: Restoration) -> None:
        """One picture."""
        from restore_cli.jobs.session import record_of

        if outcome.status == "restored":
            self._restored.append(outcome)
        record = record_of(outcome, work)
        if self._file is not None:
            # A line is written at once, so that a run that is killed leaves whole lines.
            try:
                self._file.write(json_text(record) + "\n")
                self._file.flush()
            except OSError as error:
                raise RestoreError(
                    f"cannot write --manifest '{self._manifest}': {error.strerror}",
                    hint="make room",
                ) from error
        if self._json:
            out.data_json(record)
        elif not outcome.error and not self._silent:
            out.data(str(outcome.item.target))
        for note in outcome.notes if not self.quiet else ():
            out.talk(f"note: '{outcome.item.source}': {note}")
        if outcome.error:
            show(outcome.error)

    def summary(self, summary: Summary) -> None:
        """The end: how many failed, and how many were not tried."""
        failed, total, left = len(summary.failed), summary.total, summary.left
        if (failed and total > 1) or left:
            others = "; the others are done" if failed < total and not left else ""
            others = f"; {left} are left" if left else others
            out.talk(f"{failed} of {total} pictures failed{others}")
        if self._json:
            done = summary.restored + summary.skipped
            out.data_json({"summary": {"done": done, "failed": failed}})

    def write_comparison(self, pipeline: Pipeline) -> None:
        """The page or the picture of before and after, of what is a picture and a file."""
        if self._compare is None:
            return
        from restore_cli.jobs.compare import write_comparison
        from restore_cli.jobs.inputs import STREAM

        shown = [
            outcome
            for outcome in self._restored
            if STREAM not in (outcome.item.source, outcome.item.target)
            and not outcome.item.is_video
        ]
        if not shown:
            out.talk(f"note: nothing to compare, so '{self._compare}' was not written")
            return
        made = f"Restored by {'; '.join(pipeline.describe())}."
        write_comparison(self._compare, shown, made)
        out.talk(f"before and after: {self._compare}")


def print_plan(
    request: RestoreRequest, items: list[Item], pipeline: Pipeline, *, json: bool
) -> None:
    """What `--dry-run` says: a table, or a line of JSON per picture."""
    from restore_cli.jobs.estimate import estimate
    from restore_cli.jobs.restoration import Restoration
    from restore_cli.jobs.run import was_done

    work = Restoration(request, pipeline)
    items = [replace(item, done=was_done(work, item)) for item in items]
    estimates = estimate(items, pipeline)
    if json:
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
        return
    rows = []
    for one in estimates:
        size = "?"
        if one.size is not None:
            height, width = one.size
            size = f"{width}x{height} -> {width * pipeline.scale}x{height * pipeline.scale}"
        cost = [str(one.tiles), f"{one.bytes / 1e9:.2f} GB", f"{one.seconds:.0f} s"]
        cost = ["", "", "is there"] if one.item.done else cost
        rows.append([str(one.item.source), str(one.item.target), size, *cost])
    out.table(["Input", "Output", "Size", "Tiles", "Memory", "Time"], rows)
    to_do = [one for one in estimates if not one.item.done]
    seconds = sum(one.seconds for one in to_do)
    out.talk(f"{len(to_do)} pictures to do, about {seconds / 60:.1f} minutes; nothing was written")
