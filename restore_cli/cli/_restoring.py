"""What `restore image` prints: pipeline, progress, every picture, and a summary."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import replace
from json import dumps as json_text
from math import prod
from typing import TYPE_CHECKING, Self, TextIO

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli import _terminal
from restore_cli.cli._messages import print_error
from restore_cli.cli._terminal import Bar
from restore_cli.errors import UsageError
from restore_cli.files import writing
from restore_cli.formatting import format_count, format_duration, format_list, format_pixels

if TYPE_CHECKING:
    from pathlib import Path

    from restore_cli.inference.pipeline import Pipeline, PipelineSpec
    from restore_cli.inference.restorer import RestorerOptions
    from restore_cli.jobs.estimate import Estimate
    from restore_cli.jobs.inputs import Source
    from restore_cli.jobs.plan import Item
    from restore_cli.jobs.request import RestoreRequest
    from restore_cli.jobs.restoration import Restoration
    from restore_cli.jobs.run import Outcome
    from restore_cli.jobs.session import Engine, Summary


def find_inputs(request: RestoreRequest, *, raw: bool) -> list[Source]:
    """Find the inputs, after refusing requests that are wrong whatever the inputs are."""
    from restore_cli.jobs.inputs import find
    from restore_cli.jobs.plan import check_request, check_video_options

    check_request(request)
    if raw:
        check_video_options(request, raw=True)
    return find(request.selection)


def choose_task(
    request: RestoreRequest,
    sources: list[Source],
    scale: int | None,
    options: RestorerOptions,
) -> tuple[RestoreRequest, str | None, int | None]:
    """Return request, model and scale; without scale and size they are chosen from the pictures.

    Prints one line with the chosen model and the reason.
    """
    from restore_cli.image.formats import has_video_suffix
    from restore_cli.inference.sizing import KEEP
    from restore_cli.jobs.task_choice import choose_for_run, lazy_x1_network, preset_for
    from restore_cli.models.registry import MODELS
    from restore_cli.weights.manifest import default_checkpoint, default_model

    if scale is not None or request.processing.size is not None:
        best = default_checkpoint(default_model(1 if scale == 1 else 4))
        kind, gain = f"x{MODELS[best.model].scale}", out.format_gain(best.gain("real"))
        out.note(f"{best.model}: the best bundled {kind} model on real blur ({gain} dB)")
        return request, None, scale
    # A pipe, e.g. <(cat a.png), can be read only once.
    paths = [source.path for source in sources if source.path.is_file()]
    videos = any(map(has_video_suffix, paths))

    def note() -> None:
        out.note(f"strong blur: {default_model(1)} is tried on a part first")

    choice = choose_for_run(
        paths,
        max_pixels=request.selection.max_pixels,
        # --size keep does not apply to videos
        restore=None if videos else lazy_x1_network(options, note),
    )
    if choice is None:
        return request, None, None
    chosen = preset_for(choice.task)
    job = f"{chosen.options} by {chosen.model}"
    out.note(f"{job}: {choice.reason} (--model, -x or --size overrule)")
    if chosen.keep:
        request = replace(request, processing=replace(request.processing, size=KEEP))
    return request, chosen.model, chosen.scale


def plan(
    request: RestoreRequest, spec: PipelineSpec, sources: list[Source], printer: Printer
) -> list[Item]:
    """Plan all outputs; whatever can be refused is refused before anything is loaded."""
    from restore_cli.image.formats import OTHER_SUFFIXES, VIDEO_SUFFIXES, has_video_suffix
    from restore_cli.jobs import plan
    from restore_cli.jobs.inputs import left_out, left_out_below

    items = plan.plan(request, spec, sources)
    printer.refuse(items, request.destination.on_exists)
    if _terminal.quiet:
        return items
    written = {item.target.parent for item in items}  # e.g. of `restore image . -o sharp/`
    below = [one for one in left_out_below(request.selection)[1] if one.parent not in written]
    if below:
        what = format_count(len(below), "picture")
        out.echo_err(f"note: left out: {what} in subfolders; to include them, add --recursive")
    others = left_out(request.selection, VIDEO_SUFFIXES | OTHER_SUFFIXES)
    if videos := [path for path in others if has_video_suffix(path)]:
        what = format_count(len(videos), "video")
        out.echo_err(f"note: left out: {what} in folders; name them, or use --include '*.mp4'")
    if others := [path for path in others if not has_video_suffix(path)]:
        kinds = format_list(sorted({path.suffix.lower() for path in others}), 5)
        what = format_count(len(others), "file")
        out.echo_err(f"note: left out: {what} of kinds that cannot be read ({kinds})")
    results = len(sources) - len(items) if request.selection.shard == (1, 1) else 0
    if results:
        what = format_count(results, "file")
        out.echo_err(f"note: left out: {what} that are results of earlier runs or have their names")
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

    pipeline = load(spec, engine, elsewhere=engine.uses_other_processes(items))
    videos = any(item.is_video and not item.skip for item in items)
    if len(engine.devices) > 1 and len(items) > 1 and videos:
        out.note(
            "note: videos are restored on one device, so the whole run uses one; restore pictures "
            "in another run"
        )
    work = Restoration(request, pipeline)
    seconds = None if _terminal.quiet else announce(request, items, pipeline)
    with Bar("pictures") as bar, printer:
        task = bar.add_task("", total=len(items), expected=seconds)
        done = 0

        def report(item: Item, tiles_done: int, tiles: int) -> None:
            what = "frame" if item.is_video else "tile"
            now = f", {what} {min(tiles_done + 1, tiles)} of {tiles}" if tiles > 1 else ""
            share = done + tiles_done / tiles
            bar.update(task, description=f"{item.source.name}{now}", completed=share)

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


def load(spec: PipelineSpec, engine: Engine, *, elsewhere: bool = False) -> Pipeline:
    """Load and describe the pipeline; on the CPU if other processes restore."""
    import torch

    pipeline = spec.load(torch.device("cpu") if elsewhere else engine.devices[0])
    everywhere = ", ".join(map(str, engine.devices))
    where = "the Ray cluster" if engine.name == "ray" else everywhere
    for text in (*pipeline.describe(where if elsewhere else ""), *pipeline.notes):
        out.note(text)
    on_cpu = not elsewhere and pipeline.options.device.type == "cpu"
    if on_cpu and (remark := opt.unused_gpu()):
        out.note(f"note: {remark}")
    return pipeline


def announce(request: RestoreRequest, items: list[Item], pipeline: Pipeline) -> float | None:
    """Print what is read, what will be written and about how long; return the seconds, if known.

    Suggests a faster way if it takes more than a minute or makes more than 50 megapixels.
    """
    from restore_cli.jobs.estimate import LARGE_PIXELS, LONG_SECONDS, forecast
    from restore_cli.jobs.inputs import STREAM

    cost = forecast(request, items, pipeline)
    pictures = format_count(cost.count, "picture")
    if cost.count == 1 and cost.sizes:
        item, before, after = cost.sizes[0]
        place = "stdout" if item.target == STREAM else item.target
        out.echo_err(out.printable(f"{item.source}, {_size(before)} -> {place}, {_size(after)}"))
    elif cost.sizes:
        read = sum(prod(before) for _, before, _ in cost.sizes)
        out.echo_err(f"{pictures}, {format_pixels(read)} -> {format_pixels(cost.written)}")
    if (there := sum(item.skip for item in items)) and cost.count:
        out.echo_err(_there_already(there))
    if cost.seconds is not None and cost.seconds >= 1:
        out.echo_err(f"about {format_duration(cost.seconds)}")
    long, large = (cost.seconds or 0) >= LONG_SECONDS, cost.written > LARGE_PIXELS
    if long or large:
        why = " and ".join(
            ["takes a while"] * long + [f"makes {cost.written / 1e6:.0f} Mpx"] * large
        )
        faster = "a faster model of `restore models`"
        if request.processing.size is None and not any(item.is_video for item in items):
            kept = "--size keep (a 16th of the work)"
            if pipeline.scale == 1:
                kept = "--size keep without --model (less detail)"
            faster = f"{kept}, or {faster}"
        out.echo_err(f"note: it {why}; faster: {faster}")
    return cost.seconds


def _there_already(count: int) -> str:
    return f"{format_count(count, 'output')} already there"


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def restore_frames(height: int, width: int, pipeline: Pipeline) -> None:
    """Restore raw frames from stdin to stdout; their number is unknown in advance."""
    from restore_cli.jobs import frames

    with Bar("frames") as bar:
        task = bar.add_task("frames", total=None)
        for done in frames.restore_frames(sys.stdin.buffer, height, width, pipeline):
            bar.update(task, completed=done)


class Printer:
    """Reports every outcome: stdout for programs, stderr for people, and the manifest."""

    def __init__(
        self,
        listed: str | None,
        *,
        json: bool = False,
        manifest: str | None,
        compare: str | None,
    ) -> None:
        self._json, self._silent = json, False
        self._manifest = opt.parse_path(manifest) if manifest is not None else None
        self._compare = opt.parse_path(compare) if compare is not None else None
        self._listed = () if listed is None or listed == "-" else (opt.parse_path(listed),)
        self._restored: list[Outcome] = []  # for the comparison
        self._file: TextIO | None = None
        self._printed: dict[str, list[str]] = {}  # pictures by message

    def refuse(self, items: list[Item], on_exists: str) -> None:
        """Refuse outputs that cannot be printed or written, before anything is loaded.

        Raises `UsageError` for two outputs on stdout, or a picture as manifest or comparison.
        """
        from restore_cli.jobs.inputs import STREAM
        from restore_cli.jobs.outputs import check_not_in_run, check_output_file

        self._silent = any(item.target == STREAM for item in items)
        if self._silent and self._json:
            raise UsageError(
                "--json and the picture cannot both go to stdout",
                hint="use --manifest FILE instead of --json",
            )
        if self._compare is not None:
            from restore_cli.jobs.compare import check_comparison_file  # and templates

            check_comparison_file(self._compare, items, on_exists)
            check_not_in_run(self._compare, [self._listed], "--compare")
        if self._manifest is not None:
            check_output_file(self._manifest, "--manifest")
            others = self._listed if self._compare is None else (*self._listed, self._compare)
            places = [others, *((item.source, item.target) for item in items)]
            check_not_in_run(self._manifest, places, "--manifest")
            _check_manifest(self._manifest)

    def __enter__(self) -> Self:
        if self._manifest is not None:
            with writing(self._manifest, UsageError):
                self._manifest.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._manifest.open("a", encoding="utf-8", errors="surrogateescape")
                if not _ends_a_line(self._manifest):  # an earlier run was killed
                    self._file.write("\n")
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # of a line whose error was reported
                self._file.close()

    def outcome(self, outcome: Outcome, work: Restoration) -> None:
        """Report the outcome of one picture."""
        from restore_cli.jobs.session import record_of

        if outcome.status == "restored":
            self._restored.append(outcome)
        record = record_of(outcome, work)
        if self._manifest is not None and self._file is not None:
            # Each line is flushed, so that a killed run leaves complete lines.
            with writing(self._manifest):
                self._file.write(json_text(record) + "\n")
                self._file.flush()
        if self._json:
            out.echo_json(record)
        elif not outcome.error and not self._silent:
            out.echo(str(outcome.item.target))
        for note in () if _terminal.quiet else outcome.notes:
            if self._is_new("note", note, outcome.item):
                out.echo_err(out.printable(f"note: '{outcome.item.source}': {note}"))
        if outcome.error and self._is_new("error", str(outcome.error), outcome.item):
            print_error(outcome.error)

    def _is_new(self, kind: str, text: str, item: Item) -> bool:
        """Whether a message is new, apart from the picture and numbers it names."""
        for name in (str(item.source), str(item.target), item.source.name):
            text = text.replace(name, "")
        pictures = self._printed.setdefault(f"{kind} {re.sub('[0-9.]+', '0', text)}", [])
        pictures.append(str(item.source))
        return len(pictures) == 1

    def summary(self, summary: Summary) -> None:
        """Print repeated messages with counts, and the numbers of failed and untried pictures."""
        for key, (first, *others) in self._printed.items():
            if others:
                more = "" if len(others) == 1 else f", and {len(others) - 1} more"
                out.echo_err(f"the same {key.split()[0]} as for '{first}': '{others[0]}'{more}")
        failed, total, left = len(summary.failed), summary.total, summary.not_tried
        if summary.skipped:
            out.note(_there_already(summary.skipped))
        if (failed and total > 1) or left:
            others_done = "; the others are done" if failed < total and not left else ""
            rest = f"; {left} not tried" if left else others_done
            out.echo_err(f"{failed} of {format_count(total, 'picture')} failed{rest}")
        if self._json:
            out.echo_json(
                {
                    "status": "summary",
                    "total": total,
                    "restored": summary.restored,
                    "skipped": summary.skipped,
                    "failed": failed,
                    "left": left,
                }
            )

    def write_comparison(self, pipeline: Pipeline) -> None:
        """Write the comparison of before and after for results that are picture files."""
        if self._compare is None:
            return
        from restore_cli.jobs.compare import STEPS, shown_in, write_comparison
        from restore_cli.jobs.inputs import STREAM

        shown = [
            outcome
            for outcome in self._restored
            if outcome.item.source.is_file()  # a pipe can be read only once
            and outcome.item.target != STREAM
            and not outcome.item.is_video
        ]
        if not shown:
            out.note(f"note: nothing to compare, so '{self._compare}' was not written")
            return
        description = f"Restored by {'; '.join(pipeline.describe())}."
        with Bar("pictures compared") as bar:
            task = bar.add_task("", total=len(shown_in(self._compare, shown)))

            def report(outcome: Outcome) -> None:
                bar.update(task, description=outcome.item.source.name, advance=1 / STEPS)

            write_comparison(self._compare, shown, description, report)
        out.note(f"before and after: {self._compare}")


def _check_manifest(path: Path) -> None:
    """Refuse to append to an existing file that is not a manifest, e.g. a picture.

    Raises `UsageError`. Pipes are not read, and a manifest may have been cut anywhere.
    """
    start = b'{"input"'  # of the first record, see `record_of`
    if path.is_file():
        with writing(path, UsageError), path.open("rb") as stream:
            head = stream.read(64).lstrip()[: len(start)]
        if not start.startswith(head):
            raise UsageError(
                f"--manifest '{path}' exists and is not a manifest", hint="choose another file"
            )


def _ends_a_line(path: Path) -> bool:
    """Whether a file is empty or ends with a newline; True if it cannot be read, e.g. a pipe."""
    if not path.is_file():
        return True
    with suppress(OSError), path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 1))
        return stream.read() in (b"", b"\n")
    return True


def print_plan(
    request: RestoreRequest, items: list[Item], pipeline: Pipeline, *, json: bool
) -> None:
    """Print the plan: a table and, unless quiet, the totals; or one line of JSON per picture."""
    from restore_cli.jobs.estimate import estimate
    from restore_cli.jobs.restoration import Restoration
    from restore_cli.jobs.run import will_be_skipped

    work = Restoration(request, pipeline)
    items = [replace(item, skip=will_be_skipped(work, item)) for item in items]
    estimates = estimate(request, items, pipeline)
    if json:
        for one in estimates:
            out.echo_json(_planned(one))
        return
    rows = []
    for one in estimates:
        sizes = [_size(size) if size else "?" for size in (one.size, one.output_size)]
        cost = [str(one.tiles), f"{one.bytes / 1e9:.2f} GB", _range(one.fastest, one.seconds)]
        cost = ["", "", "already there"] if one.item.skip else cost
        cost = ["", "", "cannot be read"] if one.is_unreadable else cost
        rows.append([str(one.item.source), str(one.item.target), " -> ".join(sizes), *cost])
    out.table(["input", "output", "size", "tiles", "memory", "time"], rows)
    if _terminal.quiet:
        return
    to_do = [one for one in estimates if not (one.item.skip or one.is_unreadable)]
    time = _range(sum(one.fastest for one in to_do), sum(one.seconds for one in to_do))
    if skipped := sum(one.item.skip for one in estimates):
        out.echo_err(_there_already(skipped))
    if unreadable := sum(one.is_unreadable for one in estimates):
        out.echo_err(f"{unreadable} of {format_count(len(estimates), 'picture')} cannot be read")
    about = "about " * time[0].isdigit()  # not "less than a second"
    out.echo_err(f"{format_count(len(to_do), 'picture')} to do, {about}{time}; nothing was written")


def _planned(one: Estimate) -> dict[str, object]:
    """Return one line of JSON; its names equal those of a run and are stable."""
    height, width = one.output_size or (None, None)
    input_height, input_width = one.size or (None, None)
    status = "skipped" if one.item.skip else "planned"
    return {
        "input": str(one.item.source),
        "output": str(one.item.target),
        "status": "unreadable" if one.is_unreadable else status,
        "input_width": input_width,
        "input_height": input_height,
        "width": width,
        "height": height,
        "tiles": one.tiles,
        "memory_bytes": one.bytes,
        "seconds": round(one.seconds, 2),
        "seconds_low": round(one.fastest, 2),
    }


def _range(low: float, high: float) -> str:
    shortest, longest = format_duration(low), format_duration(high)
    return shortest if shortest == longest else f"{shortest} to {longest}"
