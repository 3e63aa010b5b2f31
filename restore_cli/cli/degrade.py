"""`restore degrade`."""

from __future__ import annotations

import textwrap
import time
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli import datasets
from restore_cli.cli._complete import degradations
from restore_cli.cli._messages import handle_errors, print_error
from restore_cli.cli._terminal import Bar
from restore_cli.formatting import format_count, format_duration
from restore_cli.processes import usable_cores

if TYPE_CHECKING:
    from pathlib import Path

    from restore_cli.datasets.degrade_job import DegradeJob
    from restore_cli.degradations.recipe import DegradationRecipe

EPILOG = """
Examples:
  restore degrade sharp.png -o blurry.png --seed 7
  restore degrade photos/*.jpg -o pairs/ --recipe real
  restore degrade film.mp4 -o dataset/ --recipe reds --layout reds
  restore degrade sharp.png -o blurry.png --kernel psf.npy --scale 1
  restore datasets check pairs/
  restore datasets replay pairs/records/lr/a.json -o again.png

"""
EPILOG += textwrap.fill(f"Recipes: {', '.join(degradations())}.", 78)

_what, _where, _compute = map(opt.panel, ("What is done", "Output", opt.COMPUTE))


@handle_errors
def degrade(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Sharp pictures, folders of them, or videos.", metavar="INPUT"),
    ] = None,
    output: Annotated[
        str | None,
        _where(
            "--output",
            "-o",
            help="A folder for the pairs and their records, or a file for one picture.",
            metavar="PATH",
        ),
    ] = None,
    recipe: Annotated[
        str, _what("--recipe", help="A shipped recipe's name, or a .toml file.", metavar="NAME")
    ] = "shake",
    seed: Annotated[
        int, _what(help="Random seed. The same seed gives the same pictures.", min=0)
    ] = 0,
    scale: Annotated[
        int | None,
        _what(
            "--scale", "-x", help="Downscaling factor, 1 to 8. Default: the recipe's.", min=1, max=8
        ),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        _what(
            "--kernel",
            help="Blur with this kernel (.npy, .mat or a picture) instead of the recipe's motion. "
            "If given several times, each picture uses one of them.",
            metavar="FILE",
        ),
    ] = None,
    frames: Annotated[
        bool,
        _what("--frames", help="Treat each folder as the frames of a video, and average them."),
    ] = False,
    replay_file: Annotated[
        str | None,
        opt.option("--replay", hidden=True, help="Old spelling of `restore datasets replay`."),
    ] = None,
    check: Annotated[
        str | None,
        opt.option("--check", hidden=True, help="Old spelling of `restore datasets check`."),
    ] = None,
    layout: Annotated[
        str,
        _where(help="Layout of the folder; `restore datasets layouts` lists them.", metavar="NAME"),
    ] = "plain",
    split: Annotated[
        str | None,
        _where(help="Split to write, in layouts that have splits. Default: train.", metavar="NAME"),
    ] = None,
    resume: Annotated[bool, _where("--resume", help="Skip pairs that are done.")] = False,
    jobs: Annotated[
        int | None,
        _compute(
            "--jobs",
            "-j",
            help="Number of processes. Default: one per core. It does not change the pictures.",
            min=1,
        ),
    ] = None,
    device: opt.DeviceOpt = "cpu",
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Make blurry, small pictures from sharp ones, with a JSON record of each.

    Prints the path of every degraded picture, one per line.
    """
    from restore_cli.datasets.degrade_job import DegradeJob, plan_pairs
    from restore_cli.degradations.recipe import load_degradation
    from restore_cli.errors import UsageError
    from restore_cli.inference.devices import get_device
    from restore_cli.jobs.outputs import check_known_suffix

    paths = [opt.parse_path(text) for text in inputs or []]
    if check is not None:
        datasets.check_folder(opt.parse_path(check))
        return
    if output is None:
        raise UsageError("--output is missing", hint="a folder for pairs, or a picture file")
    if "-" in (output, *map(str, paths)):
        raise UsageError("degrade does not read stdin or write to stdout", hint="give files")
    if replay_file is not None:
        if len(paths) > 1:
            raise UsageError("--replay makes one picture", hint="give one INPUT or none")
        datasets.replay_record(replay_file, output, str(paths[0]) if paths else None)
        return
    if not output.lower().endswith(".npy"):
        check_known_suffix(output)
    chosen = load_degradation(recipe)
    if scale is not None:
        chosen = chosen.at_scale(scale)
    if kernel:
        chosen = _with_kernels(chosen, kernel)
    job = DegradeJob(
        inputs=tuple(_sources(paths, frames=frames)),
        output=opt.parse_path(output),
        recipe=chosen,
        seed=seed,
        layout=layout,
        split=split,
        resume=resume,
        device=str(get_device(device)),
    )
    plan_pairs(job)
    if not _run(job, jobs or usable_cores()):
        raise typer.Exit(1)


def _sources(paths: list[Path], *, frames: bool) -> list[Path]:
    """Return videos unchanged, and the pictures of folders, unless they are frames."""
    from restore_cli.datasets.degrade_job import is_sequence
    from restore_cli.jobs.inputs import pictures

    found: list[Path] = []
    for path in paths:
        whole = is_sequence(path) and (frames or not path.is_dir())
        found += [path] if whole and path.exists() else pictures(path)
    return found


def _with_kernels(recipe: DegradationRecipe, files: list[str]) -> DegradationRecipe:
    """Replace the recipe's motion or kernels by the given ones, or apply them first."""
    from restore_cli.degradations.kernels import read_kernel
    from restore_cli.degradations.recipe import DegradationRecipe

    for file in files:
        read_kernel(opt.parse_path(file))
    step = {"kind": "kernel", "files": files}
    values = recipe.model_dump()
    blurs = ("motion", "random_kernel", "kernel")
    steps = [step if one["kind"] in blurs else one for one in values["steps"]]
    first = steps.index(step) if step in steps else 0
    steps = [*steps[:first], step, *(one for one in steps[first:] if one != step)]
    return DegradationRecipe.model_validate(values | {"steps": steps})


def _run(job: DegradeJob, workers: int) -> bool:
    """Make the pairs, print their paths, and return whether none failed."""
    from restore_cli.datasets.synthesize import make_pairs
    from restore_cli.degradations.frames import gap_in
    from restore_cli.image.folders import list_pictures

    for folder in (path for path in job.inputs if path.is_dir()):
        if gap := gap_in(list_pictures(folder)):
            out.note(f"note: '{folder}': {gap}, so the blur jumps there")
    started, pixels, pairs, skipped, failed = time.monotonic(), 0, 0, 0, 0
    with Bar("inputs") as bar:
        task = bar.add_task(job.recipe.name, total=len(job.inputs))
        for one in make_pairs(job, workers):
            bar.advance(task)
            pixels, pairs = pixels + one.pixels, pairs + len(one.written)
            skipped += one.skipped
            for note in one.notes:
                out.note(f"note: '{one.source}': {note}")
            if one.error:
                print_error(one.error)
                failed += 1
            for path in one.written:
                out.echo(str(path))
    seconds = max(time.monotonic() - started, 1e-9)
    pace = f", {pixels / 1e6 / seconds:.1f} Mpx/s of sharp pictures" if pairs else ""
    done = f", {format_count(skipped, 'pair')} already there" if skipped else ""
    out.note(f"{format_count(pairs, 'pair')} in {format_duration(seconds)}{pace}{done}")
    return not failed
