"""`restore image`."""

import os
import sys
from collections.abc import Mapping
from glob import has_magic
from pathlib import Path
from typing import Annotated, TextIO

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli._complete import networks
from restore_cli.cli._messages import handle_errors
from restore_cli.cli._process import gc_paused, limit_thread_spinning
from restore_cli.errors import NoInputError, UsageError, lookup

EPILOG = """
Examples:
  restore image photo.jpg
  restore image photo.jpg --size keep
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

Exit status: 0 all restored or skipped; 1 some failed, the rest are done;
2 usage; 3 no input; 4 weights; 5 device or memory; 130, 143, 129 interrupted.

Every option can also be set by an environment variable, e.g. RESTORE_IMAGE_MODEL.
"""

_input, _model = opt.panel("Inputs"), opt.panel("Model and weights")
_output_to, _file = opt.panel("Outputs"), opt.panel("Picture files")
_compute, _print = opt.panel(opt.COMPUTE), opt.panel(opt.REPORT)


def _names(scale: int) -> str:
    return ", ".join(name for name, factor in networks().items() if factor == scale)


@handle_errors
def image(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders, quoted globs, or - for stdin.", metavar="INPUT"),
    ] = None,
    recursive: Annotated[
        bool,
        _input("--recursive", "-r", help="Search folders recursively; --output mirrors the tree."),
    ] = False,
    include: Annotated[
        list[str] | None,
        _input(
            help="In folders, include only files that match GLOB, ignoring case.", metavar="GLOB"
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        _input(
            help="In folders, exclude files and paths that match GLOB, ignoring case.",
            metavar="GLOB",
        ),
    ] = None,
    files_from: Annotated[
        str | None,
        _input(help="Read more inputs from FILE, one per line; - for stdin.", metavar="FILE"),
    ] = None,
    null: Annotated[
        bool,
        _input("--null", "-0", help="Names in --files-from end with NUL, as from find -print0."),
    ] = False,
    shard: Annotated[
        str, _input(help="Restore only part I of N of the inputs.", metavar="I/N")
    ] = "1/1",
    max_pixels: Annotated[
        int | None,
        _input(help="Refuse inputs with more than N pixels. Default: 268 million.", min=1),
    ] = None,
    raw: Annotated[
        str | None,
        _input(
            help="Read raw rgb24 frames of this size from stdin and write raw frames to stdout "
            "(ffmpeg -f rawvideo).",
            metavar="WxH",
        ),
    ] = None,
    model: Annotated[
        str | None,
        _model(
            "--model",
            "-m",
            help=f"x1: {_names(1)}. x4: {_names(4)}. bicubic only enlarges; A+B runs B after A. "
            "Default: maxim or maxim-mscam, by the size and blur of the picture; from stdin "
            "maxim-mscam.",
            metavar="NAME",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        _model(
            "--weights",
            "-w",
            help="A checkpoint's name, FILE.safetensors, the folder of a training run, or "
            "hf://owner/repo/FILE.safetensors@revision. Default: the model's own. "
            "For --model A+B: WEIGHTS+WEIGHTS.",
            metavar="WEIGHTS",
        ),
    ] = None,
    offline: opt.OfflineOpt = False,
    output: Annotated[
        str | None,
        _output_to(
            "--output",
            "-o",
            help="A file, a folder, a template with {dir} {name} {scale} {model} {ext}, or - for "
            "stdout. Default: {name}_x4.{ext}, or {name}_deblurred.{ext} for the same size, "
            "beside the input; for stdin, stdout.",
            metavar="PATH",
        ),
    ] = None,
    on_exists: Annotated[
        str,
        _output_to(help="If an output exists: error, skip, overwrite or rename.", metavar="POLICY"),
    ] = "error",
    resume: Annotated[
        bool,
        _output_to(
            "--resume",
            help="Skip inputs whose output was made from them by the same model, weights and "
            "options; restore all others again.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        _output_to(
            "--dry-run", "-n", help="Write nothing; show names, sizes, tiles, memory and time."
        ),
    ] = False,
    fail_fast: Annotated[
        bool, _output_to("--fail-fast", help="Stop at the first input that fails.")
    ] = False,
    manifest: Annotated[
        str | None,
        _output_to(
            help="Append one line of JSON per picture: hashes of input and weights, options.",
            metavar="FILE",
        ),
    ] = None,
    compare: Annotated[
        str | None,
        _output_to(
            help="Write a comparison of before and after: .png (side by side) or .html (slider).",
            metavar="FILE",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        _file(
            "--scale",
            "-x",
            "-s",
            help="Enlarge N times, 1 to 8, e.g. -x4; 1 keeps the size. Default: the model's scale.",
            min=1,
            max=8,
        ),
    ] = None,
    size: Annotated[
        str | None,
        _file(
            help="Size of the result: keep (that of the input), WIDTHxHEIGHT (it fits into this), "
            "or a factor such as 2x. The input is shrunk, enlarged by the model (or -x), and "
            "resampled to that size.",
            metavar="SIZE",
        ),
    ] = None,
    format_: Annotated[
        str | None,
        _file(
            "--format",
            "-f",
            help="png, jpeg, webp, tiff or avif. Default: the input's.",
            metavar="NAME",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        _file(
            help="Quality of JPEG, WebP and AVIF, 1 to 100. Default: JPEG 95, WebP lossless, "
            "AVIF 90.",
            min=1,
            max=100,
        ),
    ] = None,
    lossless: Annotated[bool, _file("--lossless", help="Write lossless WebP and AVIF.")] = False,
    bit_depth: Annotated[
        str, _file(help="Bits per channel: auto (the input's), 8 or 16.", metavar="BITS")
    ] = "auto",
    alpha: Annotated[
        str,
        _file(
            help="Transparency: resize (bicubic), restore (by the network) or drop.", metavar="HOW"
        ),
    ] = "resize",
    icc: Annotated[
        str,
        _file(
            help="Colour profile: convert (to sRGB for the network, and back), keep (do not "
            "convert) or strip (write sRGB).",
            metavar="HOW",
        ),
    ] = "convert",
    metadata: Annotated[
        str,
        _file(
            help="Metadata to keep: all, standard (all but the embedded preview; includes GPS), "
            "private (also no GPS, serial numbers, owners or maker notes) or none. "
            "Default: standard.",
            show_default=False,
            metavar="WHAT",
        ),
    ] = "standard",
    device: Annotated[
        str,
        _compute(
            "--device",
            "-d",
            help="auto, cpu, cuda, cuda:N, mps, or several: cuda:0,1.",
            metavar="DEVICE",
        ),
    ] = "auto",
    precision: Annotated[
        str,
        _compute(
            help="auto (bf16 on CPUs that compute it faster, else fp32), fp32, bf16, or fp16 on "
            "GPUs.",
            metavar="TYPE",
        ),
    ] = "auto",
    tile: Annotated[
        str,
        _compute(
            "--tile",
            "-t",
            help="Longest side of a tile: auto (from free memory), off, or input pixels.",
            metavar="SIZE",
        ),
    ] = "auto",
    overlap: Annotated[
        str,
        _compute(
            help="Overlap of tiles: auto (from the checkpoint) or input pixels.", metavar="SIZE"
        ),
    ] = "auto",
    tlsc: Annotated[
        bool | None,
        _compute(
            "--tlsc/--no-tlsc",
            help="Compute global statistics in local windows (TLSC). Default: from the checkpoint.",
        ),
    ] = None,
    tlsc_window: opt.TlscWindowOpt = None,
    self_ensemble: Annotated[
        bool,
        _compute(
            "--self-ensemble",
            help="Average over 8 flips and rotations: 8 times slower, slightly better.",
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        _compute(
            "--jobs",
            "-j",
            help="Number of pictures to read ahead and to write in the background. "
            "Default: 0 on a CPU, else 4.",
            min=0,
            max=64,
        ),
    ] = None,
    engine: Annotated[
        str, _compute(help="local, or ray to run on a Ray cluster.", metavar="NAME")
    ] = "local",
    address: Annotated[
        str, _compute(help="Address of the Ray cluster (host:port).", metavar="ADDRESS")
    ] = "auto",
    workers: Annotated[
        int | None,
        _compute(
            help="Number of Ray processes. Default: one per GPU, else one per machine.", min=1
        ),
    ] = None,
    check: Annotated[
        bool,
        _print(
            "--check/--no-check",
            help="Warn about inputs that are already sharp, out of focus, noisy or blocky.",
        ),
    ] = True,
    json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Deblur and enlarge pictures, one file or thousands.

    Prints the path of every restored picture, one per line.
    """
    limit_thread_spinning()
    with gc_paused():
        from restore_cli.cli import _restoring as do
        from restore_cli.image import MAX_PIXELS, Encoding
        from restore_cli.inference.devices import get_devices, get_precision
        from restore_cli.inference.memory import keep_freed_memory
        from restore_cli.inference.pipeline import PipelineSpec
        from restore_cli.inference.restorer import RestorerOptions
        from restore_cli.inference.sizing import parse_size
        from restore_cli.jobs.inputs import STREAM
        from restore_cli.jobs.request import Destination, Processing, RestoreRequest, Selection
        from restore_cli.jobs.session import Engine

    _check_cluster_options(engine, address, workers)
    keep_freed_memory()
    opt.go_offline(offline=offline)
    if raw is not None:
        for_files = {"json": json, "manifest": manifest, "compare": compare, "dry-run": dry_run}
        for_files |= {"files-from": files_from, "fail-fast": fail_fast}
        _check_raw_options(inputs or [], output, for_files)
    paths = (STREAM,) if raw is not None else _inputs(inputs or [], files_from, null=null)
    devices = get_devices(device)
    options = RestorerOptions(
        device=devices[0],
        dtype=get_precision(precision, None if engine == "ray" else devices[0]),
        tlsc=opt.parse_tlsc(tlsc, tlsc_window),
        tile=opt.parse_pixels(tile, "--tile"),
        overlap=opt.parse_pixels(overlap, "--overlap"),
        self_ensemble=self_ensemble,
    )
    named = tuple(include or ()), tuple(exclude or ())
    part, most = opt.parse_shard(shard), max_pixels or MAX_PIXELS
    selection = Selection(paths, recursive, *named, part, most)
    request = RestoreRequest(
        selection,
        Destination(_output(output, paths), on_exists, resume),
        Processing(alpha, icc, check, parse_size(size) if size is not None else None),
        Encoding(
            format=format_ or "",
            quality=quality,
            lossless=lossless,
            depth=lookup("--bit-depth", bit_depth, {"auto": None, "8": 8, "16": 16}),
            metadata="standard" if metadata == "safe" else metadata,  # its earlier name
        ),
    )
    run_by = Engine(engine, tuple(devices), address, workers, jobs)
    sources = do.find_inputs(request, raw=raw is not None)
    if not (model or weights):
        request, model, scale = do.choose_task(request, sources, scale, options)
    spec = PipelineSpec.parse(model, weights, scale, options)
    if raw is not None:
        height, width = opt.parse_frame_size(raw)
        do.restore_frames(height, width, do.load(spec, run_by))
        return
    printer = do.Printer(files_from, json=json, manifest=manifest, compare=compare)
    items = do.plan(request, spec, sources, printer)
    if dry_run:
        do.print_plan(request, items, do.load(spec, run_by), json=json)
    elif status := do.restore_items(request, spec, items, run_by, printer, fail_fast=fail_fast):
        raise typer.Exit(status)


def _no_pipe(stream: TextIO | None) -> str:
    """Describe stdin or stdout if no picture can pass through it, else ""."""
    if stream is None:
        return "closed"
    return "the terminal" if stream.isatty() else ""


def _check_cluster_options(engine: str, address: str, workers: int | None) -> None:
    """Refuse options of a cluster without a cluster."""
    if engine == "local" and (address != "auto" or workers is not None):
        useless = "--workers" if address == "auto" else "--address"
        raise UsageError(f"{useless} needs --engine ray", hint=f"add it, or leave out {useless}")


def _check_raw_options(
    inputs: list[str], output: str | None, for_files: Mapping[str, object]
) -> None:
    """Refuse options for files: raw frames come from stdin and go to stdout."""
    if inputs not in ([], ["-"]) or output not in (None, "-"):
        raise UsageError("--raw reads stdin and writes stdout", hint="use < FILE and > FILE")
    if useless := [name for name, value in for_files.items() if value]:
        raise UsageError(f"--raw excludes --{', --'.join(useless)}", hint="leave it out")
    if _no_pipe(sys.stdin) or _no_pipe(sys.stdout):
        raise UsageError("--raw needs pipes on both sides", hint="see restore image --help")


def _inputs(given: list[str], files_from: str | None, *, null: bool) -> tuple[Path, ...]:
    """Return all input paths, given by name or in a list."""
    from restore_cli.jobs.inputs import STREAM

    if null and files_from is None:
        raise UsageError("--null needs --files-from", hint="leave it out")
    paths = [STREAM if text == "-" else opt.parse_path(text) for text in given]
    if files_from is not None:
        paths += _listed(files_from, paths, null=null)
    if paths.count(STREAM) > 1:  # not, as in other programs, stdin and stdout
        raise UsageError("'-' is given twice", hint="give it once, and the output as -o -")
    if not paths:
        hint = "restore image --help shows examples"
        if files_from is None:
            raise UsageError("no pictures were given", hint=hint)
        raise NoInputError(f"no pictures in the list '{files_from}'", hint=hint)
    if STREAM in paths and (what := _no_pipe(sys.stdin)):
        raise UsageError(f"stdin is {what}", hint="cat a.png | restore image - > b.png")
    return tuple(paths)


def _listed(files_from: str, given: list[Path], *, null: bool) -> list[Path]:
    """Return the paths in a list; refuse it if one of them does not exist."""
    from restore_cli.image import read_stdin
    from restore_cli.jobs.inputs import STREAM, as_stored, missing, read_list

    if files_from == "-":
        if STREAM in given:
            raise UsageError(
                "stdin is both a picture and the list of pictures",
                hint="write the list to a file",
            )
        text = read_stdin()
    else:
        try:
            text = opt.parse_path(files_from).read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read --files-from '{files_from}': {error.strerror}",
                hint="give a file with one name per line, or - for stdin",
            ) from error
    listed = [as_stored(one) for one in read_list(text, separator=b"\0" if null else b"\n")]
    if gone := [one for one in listed if not (os.path.lexists(one) or has_magic(str(one)))]:
        unknown = missing(gone[0])
        how = "separated by NUL characters" if null else "one per line"
        needed = f"'{files_from}' must contain paths, {how}, without quotes or file://"
        if any("\udc80" <= letter <= "\udcff" for letter in str(gone[0])):  # not UTF-8
            needed = f"'{files_from}' must contain the names in UTF-8, {how}"
        unknown.hint = "; ".join(filter(None, (unknown.hint, needed)))
        raise unknown
    return listed


def _output(text: str | None, inputs: tuple[Path, ...]) -> Path | None:
    """Return the output path. Input from stdin goes to stdout unless that is a terminal."""
    from restore_cli.jobs.inputs import STREAM
    from restore_cli.jobs.outputs import check_known_suffix

    closed = _no_pipe(sys.stdout)
    if text is None and (inputs != (STREAM,) or closed == "the terminal"):
        return None
    if text in (None, "-"):
        if closed:
            raise UsageError(f"stdout is {closed}", hint="restore image a.png -o - > b.png")
        return STREAM
    check_known_suffix(text)
    return opt.parse_path(text)
