"""`restore image`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported, show

if TYPE_CHECKING:
    from restore_cli.inference.cascade import Stage
    from restore_cli.jobs import Item, Outcome, RestoreJob

EPILOG = """
Examples:

  restore image blurry.png --model mprnet-mscam -x4

  restore image holiday/ -o sharp/ --on-exists skip

  restore image shot.jpg -o shot.png -x2 --tile 256

  restore image shot.jpg --model mprnet-mscam+bicubic -x8

  restore image shot.jpg --model mprnet+gfn --weights a.safetensors+b.safetensors

Exit status: 0 all done; 1 some failed, the others are done; 2 usage;
3 no input; 4 weights; 5 device or memory; 130 interrupted.

Every option has a variable, e.g. RESTORE_IMAGE_MODEL.
"""


_WEIGHTS, _OUTPUT, _COMPUTE = "Model and weights", "Output", opt.COMPUTE


@reported
def image(
    inputs: Annotated[
        list[str], typer.Argument(help="Pictures, or folders of pictures.", metavar="INPUT")
    ],
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
    output: Annotated[
        str | None,
        opt.option(
            "--output",
            "-o",
            help="A file or a folder. Default: {name}_x4.{ext} beside the input.",
            metavar="PATH",
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
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    format_: Annotated[
        str | None,
        opt.option(
            "--format",
            "-f",
            help="png, jpeg or webp. Default: the input's.",
            metavar="NAME",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    quality: Annotated[
        int | None,
        opt.option(
            help="Of JPEG and WebP, 1 to 100. Default: 95 with full chroma; lossless.",
            min=1,
            max=100,
            metavar="N",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    on_exists: Annotated[
        str,
        opt.option(
            help="error, skip or overwrite, when an output is there already.",
            metavar="POLICY",
            rich_help_panel=_OUTPUT,
        ),
    ] = "error",
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
    max_pixels: Annotated[
        int | None,
        opt.option(
            help="Refuse larger inputs. Default: 268 million.",
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
    from restore_cli.image import MAX_PIXELS
    from restore_cli.inference.assemble import assemble
    from restore_cli.inference.cascade import own_scale, split_names, split_weights
    from restore_cli.inference.loading import LoadedNetwork, load_network
    from restore_cli.inference.restorer import RestorerOptions
    from restore_cli.jobs import RestoreJob, plan
    from restore_cli.weights.manifest import load_manifest
    from restore_cli.weights.store import locate

    if not weights:
        model = model or load_manifest().default_model
    chosen = opt.parse_device(device)
    options = RestorerOptions(
        device=chosen,
        dtype=opt.parse_precision(precision, chosen),
        tlsc=tlsc,
        tile=opt.parse_tile(tile),
        overlap=opt.parse_overlap(overlap),
        self_ensemble=self_ensemble,
    )
    first: LoadedNetwork | None = None
    if model is None:  # only the file knows its model, so it must be opened before planning
        first = load_network(locate(weights, None))
        model = first.model.name
    names = split_names(model)
    job = RestoreJob(
        inputs=tuple(opt.parse_path(text) for text in inputs),
        output=opt.parse_path(output) if output is not None else None,
        scale=scale or own_scale(names),
        format=format_,
        quality=quality,
        on_exists=on_exists,
        max_pixels=max_pixels or MAX_PIXELS,
    )
    files = split_weights(names, weights)
    items = plan(job)
    line = assemble(names, files, options, scale, first)
    if not quiet:
        for description in line.describe():
            out.talk(description)
    failed = _run(job, items, line.stage, json=json, quiet=quiet)
    if failed:
        raise typer.Exit(failed)


def _run(job: RestoreJob, items: list[Item], restorer: Stage, *, json: bool, quiet: bool) -> int:
    """Restore everything, print as it comes, and return the exit status."""
    from restore_cli.jobs import run

    failed: list[Outcome] = []
    with out.progress_bar(quiet=quiet, unit="pictures") as bar:
        task = bar.add_task("", total=len(items))
        done = 0

        def report(item: Item, tiles_done: int, tiles: int) -> None:
            bar.update(task, description=item.source.name, completed=done + tiles_done / tiles)

        for done, outcome in enumerate(run(job, items, restorer, report), start=1):
            bar.update(task, completed=done)
            _print(outcome, json=json)
            for note in outcome.notes if not quiet else ():
                out.talk(f"note: '{outcome.item.source}': {note}")
            if outcome.error:
                show(outcome.error)
                failed.append(outcome)
    if failed and len(items) > 1:
        others = "; the others are done" if len(failed) < len(items) else ""
        out.talk(f"{len(failed)} of {len(items)} pictures failed{others}")
    if failed and len(failed) == len(items):  # then what failed is not the pictures
        codes = {outcome.error.exit_code for outcome in failed if outcome.error}
        return codes.pop() if len(codes) == 1 else 1
    return 1 if failed else 0


def _print(outcome: Outcome, *, json: bool) -> None:
    source, target = str(outcome.item.source), str(outcome.item.target)
    if json:
        error = str(outcome.error) if outcome.error else None
        out.data_json({"input": source, "output": target, "status": outcome.status, "error": error})
    elif not outcome.error:
        out.data(target)
