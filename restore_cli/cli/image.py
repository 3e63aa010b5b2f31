"""`restore image`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported, show

if TYPE_CHECKING:
    from restore_cli.inference.loading import LoadedNetwork
    from restore_cli.inference.restorer import Restorer
    from restore_cli.jobs import Item, Outcome, RestoreJob

EPILOG = """
Examples:

  restore image blurry.png --model mprnet-mscam -x4

  restore image holiday/ -o sharp/ --on-exists skip

  restore image shot.jpg -o shot.png -x2 --tile 256
"""


@reported
def image(
    inputs: Annotated[
        list[Path], typer.Argument(help="Pictures, or folders of pictures.", metavar="INPUT")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A file or a folder. Default: {name}_x4.{ext} beside the input."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="See `restore models`.", metavar="NAME")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            "-w",
            help="Checkpoint name, .safetensors file, or "
            "hf://owner/repo/file.safetensors@revision. Default: the model's own.",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            "--scale",
            "-x",
            "-s",
            help="Enlargement, e.g. -x4. Default: the model's own.",
            min=1,
            max=8,
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", "-f", help="png, jpeg or webp. Default: the input's."),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(help="JPEG or WebP quality. Default: JPEG 95, WebP lossless.", min=1, max=100),
    ] = None,
    on_exists: Annotated[
        str, typer.Option(help="error, skip or overwrite, when an output is already there.")
    ] = "error",
    tile: Annotated[
        str, typer.Option("--tile", "-t", help="auto, off, or the side of a tile in input pixels.")
    ] = "auto",
    overlap: Annotated[str, typer.Option(help="auto, or pixels that tiles share.")] = "auto",
    tlsc: Annotated[
        bool | None,
        typer.Option("--tlsc/--no-tlsc", help="Local statistics. Default: as the checkpoint says."),
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, fp16 or bf16.")] = "auto",
    device: opt.DeviceOpt = "auto",
    max_pixels: Annotated[
        int, typer.Option(help="Refuse larger inputs (decompression bombs).", min=1)
    ] = 268_000_000,
    json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Restore blurry pictures: deblurred and enlarged, one file or thousands.

    Prints the path of every picture it made, one a line. Exit status: 0 all done, 1 some failed
    (the others are done), 2 wrong usage, 3 no input, 4 weights, 5 device.
    """
    from restore_cli.inference.loading import load_network
    from restore_cli.inference.restorer import Restorer, RestorerOptions
    from restore_cli.jobs import RestoreJob, plan
    from restore_cli.models.registry import get_model
    from restore_cli.weights.manifest import load_manifest
    from restore_cli.weights.store import locate

    if weights is None:
        model = model or load_manifest().default_model
    chosen = opt.parse_device(device)
    wanted = get_model(model) if model else None
    file_scale = scale or (wanted.scale if wanted else None)
    options = RestorerOptions(
        device=chosen,
        dtype=opt.parse_precision(precision, chosen),
        tlsc=tlsc,
        tile=opt.parse_tile(tile),
        overlap=opt.parse_overlap(overlap),
    )
    loaded: LoadedNetwork | None = None
    if file_scale is None:  # only the file knows its model, so it must be opened before planning
        loaded = load_network(locate(weights, model))
        file_scale = loaded.model.scale
    job = RestoreJob(
        inputs=tuple(inputs),
        output=output,
        scale=file_scale,
        format=format_,
        quality=quality,
        on_exists=on_exists,
        max_pixels=max_pixels,
    )
    items = plan(job)
    if loaded is None:
        loaded = load_network(locate(weights, model), expected_model=model)
    restorer = Restorer(loaded, options)
    if not quiet:
        out.talk(_first_line(loaded, restorer))
    failed = _run(job, items, restorer, json=json, quiet=quiet)
    if failed:
        raise typer.Exit(1)


def _first_line(loaded: LoadedNetwork, restorer: Restorer) -> str:
    """Which weights, which device, and the state that decides the pixels."""
    tlsc = "x".join(map(str, loaded.tlsc_base)) if restorer.tlsc and loaded.tlsc_base else "off"
    return (
        f"{loaded.file.name} (sha256 {loaded.file.sha256[:12]}) on {restorer.options.device}, "
        f"tlsc {tlsc}, overlap {restorer.overlap}"
    )


def _run(job: RestoreJob, items: list[Item], restorer: Restorer, *, json: bool, quiet: bool) -> int:
    """Restore everything, print as it comes, and return how many failed."""
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
            if outcome.error:
                show(outcome.error)
                failed.append(outcome)
    if failed and len(items) > 1:
        out.talk(f"{len(failed)} of {len(items)} pictures failed; the others are done")
    return len(failed)


def _print(outcome: Outcome, *, json: bool) -> None:
    source, target = str(outcome.item.source), str(outcome.item.target)
    if json:
        error = str(outcome.error) if outcome.error else None
        out.data_json({"input": source, "output": target, "status": outcome.status, "error": error})
    elif not outcome.error:
        out.data(target)
