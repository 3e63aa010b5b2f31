"""`restore image`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from json import dumps as json_text
from json import loads as json_value
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self, TextIO

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported, show
from restore_cli.cli._process import importing, spin_briefly
from restore_cli.errors import NoInputError, UsageError, unknown_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import torch

    from restore_cli.inference.assemble import Line
    from restore_cli.inference.loading import LoadedNetwork
    from restore_cli.jobs.plan import Item, RestoreJob
    from restore_cli.jobs.restoring import Settings
    from restore_cli.jobs.run import Outcome, Report
    from restore_cli.jobs.workers import LinePlan

EPILOG = """
Examples:

  restore image blurry.png --model mprnet-mscam -x4

  restore image holiday/ -r -o sharp/ --resume

  restore image "shots/*.tif" -o "{dir}/{name}_{model}.{ext}" -f jpeg

  cat blurry.png | restore image - > sharp.png

  find . -name "*.jpg" -print0 | restore image --files-from - -0 -o sharp/

  ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - | restore image --raw 320x180 |
  ffmpeg -f rawvideo -pix_fmt rgb24 -s 1280x720 -r 25 -i - out.mp4

  restore image shot.jpg -o shot.png -x2 --compare shot.html

  restore image shot.jpg --model mprnet-mscam+bicubic -x8

Exit status: 0 all done or skipped; 1 some failed, the others are done;
2 usage; 3 no input; 4 weights; 5 device or memory; 130 interrupted.

Every option has a variable, e.g. RESTORE_IMAGE_MODEL.
"""


ENGINES = ("local", "ray")
_INPUT, _WEIGHTS, _OUTPUT, _FILE, _COMPUTE = (
    "Which pictures",
    "Model and weights",
    "Where to, and what is there already",
    "What the files hold",
    opt.COMPUTE,
)


@reported
def image(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, quoted globs, or - for stdin.", metavar="INPUT"),
    ] = None,
    recursive: Annotated[
        bool,
        opt.option(
            "--recursive",
            "-r",
            help="Folders with all folders in them; --output mirrors the tree.",
            rich_help_panel=_INPUT,
        ),
    ] = False,
    include: Annotated[
        list[str] | None,
        opt.option(
            help="Of folders, only names like this.", metavar="GLOB", rich_help_panel=_INPUT
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        opt.option(
            help="Of folders, no names or paths like this.",
            metavar="GLOB",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    files_from: Annotated[
        str | None,
        opt.option(
            help="More inputs, one a line of a file, or of - for stdin.",
            metavar="FILE",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    null: Annotated[
        bool,
        opt.option(
            "--null",
            "-0",
            help="In --files-from they end with NUL, as from find -print0.",
            rich_help_panel=_INPUT,
        ),
    ] = False,
    shard: Annotated[
        str,
        opt.option(
            help="Only part I of N of the pictures, for job arrays.",
            metavar="I/N",
            rich_help_panel=_INPUT,
        ),
    ] = "1/1",
    max_pixels: Annotated[
        int | None,
        opt.option(
            help="Refuse larger inputs. Default: 268 million.",
            min=1,
            metavar="N",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    raw: Annotated[
        str | None,
        opt.option(
            help="stdin and stdout are frames of rgb24 of that size, as of ffmpeg -f rawvideo.",
            metavar="WxH",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    model: Annotated[
        str | None,
        opt.option(
            "--model",
            "-m",
            help="See `restore models`. A+B runs B on what A restored.",
            metavar="NAME",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        opt.option(
            "--weights",
            "-w",
            help="A checkpoint's name, FILE.safetensors, or "
            "hf://owner/repo/FILE.safetensors@revision. Default: the model's own. "
            "For --model A+B: WEIGHTS+WEIGHTS.",
            metavar="WEIGHTS",
            rich_help_panel=_WEIGHTS,
        ),
    ] = None,
    offline: opt.OfflineOpt = False,
    output: Annotated[
        str | None,
        opt.option(
            "--output",
            "-o",
            help="A file, a folder, a template with {dir} {name} {scale} {model} {ext}, or - for "
            "stdout. Default: {name}_x4.{ext} beside the input; stdin to stdout.",
            metavar="PATH",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    on_exists: Annotated[
        str,
        opt.option(
            help="error, skip, overwrite or rename, when an output is there already.",
            metavar="POLICY",
            rich_help_panel=_OUTPUT,
        ),
    ] = "error",
    resume: Annotated[
        bool,
        opt.option(
            "--resume",
            help="Leave out what the same model, weights and options made of the same input; do "
            "again what others made.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        opt.option(
            "--dry-run",
            "-n",
            help="Only say what would be done: names, sizes, tiles, memory, time.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False,
    fail_fast: Annotated[
        bool,
        opt.option("--fail-fast", help="Stop at the first that fails.", rich_help_panel=_OUTPUT),
    ] = False,
    manifest: Annotated[
        str | None,
        opt.option(
            help="Append a line of JSON for every picture: hashes of input and weights, options.",
            metavar="FILE",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    compare: Annotated[
        str | None,
        opt.option(
            help="Before and after: side by side as .png, under a slider as .html.",
            metavar="FILE",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    scale: Annotated[
        int | None,
        opt.option(
            "--scale",
            "-x",
            "-s",
            help="Enlargement, 1 to 8, e.g. -x4. Default: the model's own.",
            min=1,
            max=8,
            metavar="N",
            rich_help_panel=_FILE,
        ),
    ] = None,
    format_: Annotated[
        str | None,
        opt.option(
            "--format",
            "-f",
            help="png, jpeg, webp, tiff or avif. Default: the input's.",
            metavar="NAME",
            rich_help_panel=_FILE,
        ),
    ] = None,
    quality: Annotated[
        int | None,
        opt.option(
            help="Of JPEG, WebP and AVIF, 1 to 100. Default: 95, lossless, 90; full chroma.",
            min=1,
            max=100,
            metavar="N",
            rich_help_panel=_FILE,
        ),
    ] = None,
    lossless: Annotated[
        bool, opt.option("--lossless", help="WebP and AVIF exactly.", rich_help_panel=_FILE)
    ] = False,
    bit_depth: Annotated[
        str,
        opt.option(help="auto (the input's), 8 or 16.", metavar="BITS", rich_help_panel=_FILE),
    ] = "auto",
    alpha: Annotated[
        str,
        opt.option(
            help="Transparency: resize, restore (by the network) or drop.",
            metavar="HOW",
            rich_help_panel=_FILE,
        ),
    ] = "resize",
    icc: Annotated[
        str,
        opt.option(
            help="Colour profile: convert (to sRGB for the network, and back), keep (its values as "
            "they are) or strip (write sRGB).",
            metavar="HOW",
            rich_help_panel=_FILE,
        ),
    ] = "convert",
    metadata: Annotated[
        str,
        opt.option(
            help="all, safe (without the embedded preview) or none.",
            metavar="WHAT",
            rich_help_panel=_FILE,
        ),
    ] = "safe",
    device: opt.DeviceOpt = "auto",
    precision: Annotated[
        str,
        opt.option(
            help="auto, fp32, fp16 or bf16; auto is fp32.", metavar="TYPE", rich_help_panel=_COMPUTE
        ),
    ] = "auto",
    tile: Annotated[
        str,
        opt.option(
            "--tile",
            "-t",
            help="auto (from free memory), off, or input pixels.",
            metavar="SIZE",
            rich_help_panel=_COMPUTE,
        ),
    ] = "auto",
    overlap: Annotated[
        str,
        opt.option(
            help="auto (measured), or input pixels that tiles share.",
            metavar="SIZE",
            rich_help_panel=_COMPUTE,
        ),
    ] = "auto",
    tlsc: Annotated[
        bool | None,
        opt.option(
            "--tlsc/--no-tlsc",
            help="Local statistics. Default: as the checkpoint says.",
            rich_help_panel=_COMPUTE,
        ),
    ] = None,
    self_ensemble: Annotated[
        bool,
        opt.option(
            "--self-ensemble",
            help="Mean over 8 flips and transpositions: 8 times the work, a little better.",
            rich_help_panel=_COMPUTE,
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        opt.option(
            "--jobs",
            "-j",
            help="Pictures read ahead and written behind by other threads; 0 for none. "
            "Default: 0 on a CPU, whose cores the network needs; else 4.",
            min=0,
            max=64,
            metavar="N",
            rich_help_panel=_COMPUTE,
        ),
    ] = None,
    check: Annotated[
        bool,
        opt.option(
            "--check/--no-check",
            help="Say when an input is sharp already, out of focus, noisy, blocky or large.",
            rich_help_panel=opt.REPORT,
        ),
    ] = True,
    engine: Annotated[
        str,
        opt.option(
            help="local, or ray: the same over the machines of a Ray cluster.",
            metavar="NAME",
            rich_help_panel=_COMPUTE,
        ),
    ] = "local",
    address: Annotated[
        str,
        opt.option(help="Of the Ray cluster.", metavar="ADDRESS", rich_help_panel=_COMPUTE),
    ] = "auto",
    workers: Annotated[
        int | None,
        opt.option(
            help="Processes of the cluster. Default: one a GPU, else one a machine.",
            min=1,
            metavar="N",
            rich_help_panel=_COMPUTE,
        ),
    ] = None,
    json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Restore blurry pictures: deblurred and enlarged, one file or thousands.

    Prints the path of every picture that is done, one a line.
    """
    spin_briefly()
    with importing():
        from restore_cli.image import MAX_PIXELS
        from restore_cli.inference.cascade import own_scale, split_names, split_weights
        from restore_cli.inference.loading import load_network
        from restore_cli.inference.memory import keep_freed_memory
        from restore_cli.inference.restorer import RestorerOptions
        from restore_cli.jobs.inputs import STREAM
        from restore_cli.jobs.plan import RestoreJob, plan
        from restore_cli.jobs.workers import LinePlan
        from restore_cli.weights.manifest import load_manifest
        from restore_cli.weights.store import locate

    keep_freed_memory()
    opt.go_offline(offline=offline)
    if raw is not None:
        _refuse_with_raw(inputs, output)
    paths = (STREAM,) if raw is not None else _inputs(inputs or [], files_from, null=null)
    if not weights:
        model = model or load_manifest().default_model
    devices = opt.parse_devices(device)
    here = devices[0]
    options = RestorerOptions(
        device=here,
        dtype=opt.parse_precision(precision, None if engine == "ray" else here),
        tlsc=tlsc,
        tile=opt.parse_tile(tile),
        overlap=opt.parse_overlap(overlap),
        self_ensemble=self_ensemble,
    )
    first = None
    if model is None:  # only the file knows its model, so it must be opened before planning
        first = load_network(locate(weights, None))
        model = first.model.name
    names = (model,) if first else split_names(model)
    job = RestoreJob(
        inputs=paths,
        output=_output(output, paths),
        scale=scale or (first.model.scale if first else own_scale(names)),
        model=model,
        format=format_,
        quality=quality,
        lossless=lossless,
        depth=opt.parse_bit_depth(bit_depth),
        alpha=alpha,
        icc=icc,
        metadata=metadata,
        on_exists=on_exists,
        resume=resume,
        recursive=recursive,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
        check=check,
        shard=opt.parse_shard(shard),
        max_pixels=max_pixels or MAX_PIXELS,
    )
    recipe = LinePlan(names, tuple(split_weights(names, weights)), options, scale)
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    request = _Request(job, recipe, first, _Engine(engine, address, workers, devices, jobs))
    told = _Told(json=json, quiet=quiet, fail_fast=fail_fast, manifest=manifest, compare=compare)
    if raw is not None:
        _run_frames(opt.parse_frame_size(raw), request, quiet=quiet)
        return
    items = plan(job)
    status = _say_plan(request, items, told) if dry_run else _restore(request, items, told)
    if status:
        raise typer.Exit(status)


@dataclass(frozen=True, slots=True)
class _Engine:
    """What runs the job: `local` in one process a device, `ray` in a cluster."""

    name: str
    address: str
    workers: int | None
    devices: list[torch.device]
    jobs: int | None


@dataclass(frozen=True, slots=True)
class _Request:
    """What is to be restored, by what, and where; `first`: the only network, if it is here."""

    job: RestoreJob
    recipe: LinePlan
    first: LoadedNetwork | None
    engine: _Engine


@dataclass(frozen=True, slots=True)
class _Told:
    """What people and programs are told of it."""

    json: bool
    quiet: bool
    fail_fast: bool
    manifest: str | None
    compare: str | None


def _no_pipe() -> str:
    """What stdout is where no picture can go."""
    if sys.stdout is None:
        return "closed"
    return "the terminal" if sys.stdout.isatty() else ""


def _refuse_with_raw(inputs: list[str] | None, output: str | None) -> None:
    """Frames come from stdin and go to stdout, whatever else was asked for."""
    if inputs not in (None, [], ["-"]) or output not in (None, "-"):
        raise UsageError("--raw takes stdin and gives stdout", hint="use < FILE and > FILE")
    if sys.stdin is None or sys.stdin.isatty() or _no_pipe():
        raise UsageError("--raw needs pipes on both sides", hint="see restore image --help")


def _restore(request: _Request, items: list[Item], told: _Told) -> int:
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
    # When others restore, this process needs the facts of the line only.
    line = _assemble(request, told, "cpu" if spread else "")
    start = _starter(request, items, line, spread=spread, piped=piped)
    printer = _Printer(request.job, line, told, silent=to_stdout)
    status = _run(start, len(items), printer, fail_fast=told.fail_fast)
    if told.compare is not None:
        _compare(opt.parse_path(told.compare), printer.restored, line)
    return status


def _assemble(request: _Request, told: _Told, elsewhere: str = "") -> Line:
    """The line on its device, or on another one for its facts; introduced to people."""
    engine = request.engine
    device = opt.parse_device(elsewhere) if elsewhere else engine.devices[0]
    line = request.recipe.assemble(device, request.first)
    if not told.quiet:
        where = "the Ray cluster" if engine.name == "ray" else ", ".join(map(str, engine.devices))
        _introduce(line, where if elsewhere else "")
    return line


def _introduce(line: Line, where: str) -> None:
    """The first lines: which weights, on which device, and what would be faster."""
    for description in line.describe(where):
        out.talk(description)
    if not where and line.options.device.type == "cpu" and (remark := opt.unused_gpu()):
        out.talk(f"note: {remark}")


def _inputs(given: list[str], files_from: str | None, *, null: bool) -> tuple[Path, ...]:
    """Every path that was given, by name or in a list."""
    from restore_cli.image import read_stdin
    from restore_cli.jobs.inputs import STREAM, read_list

    paths = [STREAM if text == "-" else opt.parse_path(text) for text in given]
    if files_from is not None:
        if files_from == "-":
            if STREAM in paths:
                raise UsageError("stdin is both a picture and the list of pictures")
            text = read_stdin()
        else:
            try:
                text = opt.parse_path(files_from).read_bytes()
            except OSError as error:
                raise UsageError(f"cannot read '{files_from}': {error.strerror}") from error
        paths += read_list(text, separator=b"\0" if null else b"\n")
    if not paths:
        hint = "restore image --help shows examples"
        if files_from is None:
            raise UsageError("no pictures were given", hint=hint)
        raise NoInputError(f"no pictures in the list '{files_from}'", hint=hint)
    if STREAM in paths and (sys.stdin is None or sys.stdin.isatty()):
        what = "closed" if sys.stdin is None else "the terminal"
        raise UsageError(f"stdin is {what}", hint="cat a.png | restore image - > b.png")
    return tuple(paths)


def _output(text: str | None, inputs: tuple[Path, ...]) -> Path | None:
    """Where to; what came from stdin goes to stdout, but not onto a terminal."""
    from restore_cli.jobs.inputs import STREAM

    if text is None:
        return STREAM if inputs == (STREAM,) and not _no_pipe() else None
    if text == "-":
        if what := _no_pipe():
            raise UsageError(f"stdout is {what}", hint="restore image a.png -o - > b.png")
        return STREAM
    return opt.parse_path(text)


def _starter(
    request: _Request, items: list[Item], line: Line, *, spread: bool, piped: bool
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


def _run_frames(frame: tuple[int, int], request: _Request, *, quiet: bool) -> None:
    """Frames from stdin to stdout; how many there are, only the stream knows."""
    from restore_cli.jobs.frames import restore_frames

    told = _Told(json=False, quiet=quiet, fail_fast=True, manifest=None, compare=None)
    line = _assemble(request, told)
    with out.progress_bar(quiet=quiet, unit="frames") as bar:
        task = bar.add_task("frames", total=None)
        frames = restore_frames(sys.stdin.buffer, *frame, line.stage, request.job.scale)
        for done in frames:
            bar.update(task, completed=done)


def _compare(path: Path, restored: list[Outcome], line: Line) -> None:
    """The page or the picture of before and after, of what is a picture and a file."""
    from restore_cli.jobs.compare import write_comparison
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
    write_comparison(path, shown, f"Restored by {'; '.join(line.describe())}.")
    out.talk(f"before and after: {path}")


class _Printer:
    """Says what became of every picture: stdout for programs, stderr for people, the manifest."""

    def __init__(self, job: RestoreJob, line: Line, told: _Told, *, silent: bool) -> None:
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
            self._file.write(json_text(record) + "\n")
            self._file.flush()
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


def _say_plan(request: _Request, items: list[Item], told: _Told) -> int:
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
