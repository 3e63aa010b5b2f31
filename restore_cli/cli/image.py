"""`restore image`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli._messages import reported
from restore_cli.cli._process import importing, spin_briefly
from restore_cli.errors import NoInputError, UsageError

if TYPE_CHECKING:
    from restore_cli.inference.loading import LoadedNetwork

EPILOG = """
Examples:

  restore image blurry.png --model mprnet-mscam -x4

  restore image holiday/ -r -o sharp/ --resume

  restore image "shots/*.tif" -o "{dir}/{name}_{model}.{ext}" -f jpeg

  cat blurry.png | restore image - > sharp.png

  find . -name "*.jpg" -print0 | restore image --files-from - -0 -o sharp/

  ffmpeg -i in.mp4 -f rawvideo -pix_fmt rgb24 - |
  restore image --raw 320x180 |
  ffmpeg -f rawvideo -pix_fmt rgb24 -s 1280x720 -r 25 -i - out.mp4

  restore image shot.jpg -o shot.png -x2 --compare shot.html

  restore image shot.jpg --model mprnet-mscam+bicubic -x8

Exit status: 0 all done or skipped; 1 some failed, the others are done;
2 usage; 3 no input; 4 weights; 5 device or memory; 130 interrupted.

Every option has a variable, e.g. RESTORE_IMAGE_MODEL.
"""

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
            help="Default: the best of the scale (`restore models`). A+B runs B after A.",
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
            help="all, private (no GPS, serial numbers, owners, maker notes, preview) or none. "
            "Default: all but the embedded preview.",
            show_default=False,
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
    asked = dict(locals())
    spin_briefly()
    with importing():
        from restore_cli.cli import _restoring as on
        from restore_cli.image import MAX_PIXELS
        from restore_cli.inference.cascade import own_scale, split_weights
        from restore_cli.inference.memory import keep_freed_memory
        from restore_cli.inference.restorer import RestorerOptions
        from restore_cli.jobs.inputs import STREAM
        from restore_cli.jobs.plan import RestoreJob, plan
        from restore_cli.jobs.workers import LinePlan

    keep_freed_memory()
    opt.go_offline(offline=offline)
    if raw is not None:
        _refuse_with_raw(asked)
    paths = (STREAM,) if raw is not None else _inputs(inputs or [], files_from, null=null)
    names, first = _names(model, weights, scale)
    here = (devices := opt.parse_devices(device))[0]
    options = RestorerOptions(
        device=here,
        dtype=opt.parse_precision(precision, None if engine == "ray" else here),
        tlsc=tlsc,
        tile=opt.parse_tile(tile),
        overlap=opt.parse_overlap(overlap),
        self_ensemble=self_ensemble,
    )
    job = RestoreJob(
        inputs=paths,
        output=_output(output, paths),
        scale=scale or (first.model.scale if first else own_scale(names)),
        model="+".join(names),
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
    ours = on.Engine(engine, address, workers, devices, jobs)
    request = on.Request(job, recipe, first, ours, chosen=not (model or weights))
    told = on.Told(json=json, quiet=quiet, fail_fast=fail_fast, manifest=manifest, compare=compare)
    if raw is not None:
        on.run_frames(opt.parse_frame_size(raw), request, quiet=quiet)
        return
    items = plan(job)
    status = (
        on.say_plan(request, items, told) if dry_run else on.restore_items(request, items, told)
    )
    if status:
        raise typer.Exit(status)


def _names(
    model: str | None, weights: str | None, scale: int | None
) -> tuple[tuple[str, ...], LoadedNetwork | None]:
    """The networks that are asked for; the only one itself, where its file alone knows its name."""
    from restore_cli.inference.cascade import split_names
    from restore_cli.inference.loading import load_network
    from restore_cli.weights.manifest import default_model
    from restore_cli.weights.store import locate

    if model is None and weights:
        first = load_network(locate(weights, None))
        return (first.model.name,), first
    return split_names(model or default_model(scale)), None


def _no_pipe() -> str:
    """What stdout is where no picture can go."""
    if sys.stdout is None:
        return "closed"
    return "the terminal" if sys.stdout.isatty() else ""


def _refuse_with_raw(asked: dict[str, Any]) -> None:
    """Frames come from stdin and go to stdout; options for files mean nothing then."""
    if asked["inputs"] not in (None, [], ["-"]) or asked["output"] not in (None, "-"):
        raise UsageError("--raw takes stdin and gives stdout", hint="use < FILE and > FILE")
    for_files = ("json", "manifest", "compare", "dry_run", "resume", "files_from", "format_")
    if useless := [name.strip("_").replace("_", "-") for name in for_files if asked[name]]:
        raise UsageError(f"--raw has no use for --{', --'.join(useless)}", hint="leave it out")
    if sys.stdin is None or sys.stdin.isatty() or _no_pipe():
        raise UsageError("--raw needs pipes on both sides", hint="see restore image --help")


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
