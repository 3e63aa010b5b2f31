"""`restore benchmark`."""

from pathlib import Path
from typing import Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli import datasets
from restore_cli.cli._messages import handle_errors
from restore_cli.errors import UsageError, lookup

FORMATS = ("html", "md", "csv", "json")
EPILOG = """
Examples:
  restore benchmark --dataset blurmini --model mprnet-mscam bicubic
  restore benchmark --dataset reds-val300 --fetch --model gfn=mine.safetensors
  restore benchmark --degrade shake photos/ --model gfn moadg
  restore benchmark --table shoyan-2022/1 --data-root ~/data --fetch
  restore benchmark --dataset gopro-x4 --model mprnet+gfn --protocol gfn
  restore benchmark --dataset pairs/ --model msan=mine.safetensors --limit 20
  restore benchmark --dataset gopro --model msan -d cuda:1 --shard 2/8
  restore benchmark --dataset pairs/ --model bicubic --results theirs=out/

`restore datasets list`, `protocols` and `tables` list the choices. Reports
are written to --output. Pictures already scored there with the same weights
and options are not scored again.
"""

_what, _where, _compute = map(opt.panel, ("What to score", "Data and reports", opt.COMPUTE))


@handle_errors
def benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="More models; with --degrade also sharp pictures and folders of pictures.",
            metavar="[MODEL|PHOTOS]...",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        _what(help="A name of `restore datasets list`, or a folder of pairs.", metavar="NAME"),
    ] = None,
    model: Annotated[
        list[str] | None,
        _what(
            "--model",
            "-m",
            help="A model, A+B, bicubic, MODEL=WEIGHTS, or LABEL=FILE for the network of any file "
            "that --weights takes; several are allowed.",
            metavar="MODEL",
        ),
    ] = None,
    results: Annotated[
        list[str] | None,
        _what(
            "--results",
            help="Also score pictures that another program restored; they have the names of the "
            "dataset's pictures. May be given several times.",
            metavar="NAME=DIR",
        ),
    ] = None,
    table: Annotated[
        str | None,
        _what(
            help="Measure a paper's table; `restore datasets tables` lists them.",
            metavar="PAPER/TABLE",
        ),
    ] = None,
    degrade: Annotated[
        str | None,
        _what(
            help="Degrade sharp pictures by this recipe, and score the models (default: all of its "
            "scale).",
            metavar="RECIPE",
        ),
    ] = None,
    seed: Annotated[int, _what(help="Random seed of --degrade.", min=0)] = 0,
    side: Annotated[
        int | None,
        _what(help="With --degrade, use only the middle N x N pixels of each picture.", min=64),
    ] = None,
    motion: Annotated[
        bool,
        _what(
            "--motion/--no-motion",
            help="With --degrade, apply motion blur; with --no-motion, scores show what is lost on "
            "sharp pictures.",
        ),
    ] = True,
    protocol: Annotated[
        str | None,
        _what(
            help="Protocol of the scores. Default: the table's or the dataset's.", metavar="NAME"
        ),
    ] = None,
    limit: Annotated[int | None, _what(help="Score only the first N pictures.", min=1)] = None,
    data_root: Annotated[
        str | None,
        _where(
            help=f"Folder that contains one folder per dataset. Default: {opt.DATA_ROOT}.",
            metavar="DIR",
        ),
    ] = None,
    fetch: Annotated[bool, _where("--fetch", help="Download the dataset from the Hub.")] = False,
    output: Annotated[
        str | None,
        _where(
            "--output",
            "-o",
            help="Folder of the reports. Default: benchmark-DATASET.",
            metavar="DIR",
        ),
    ] = None,
    formats: Annotated[
        str, _where("--formats", help="Formats of the reports.", metavar="LIST")
    ] = "html,md,csv,json",
    shard: Annotated[
        str | None,
        _where(
            help="Score only part I of N; a run without --shard combines the parts.", metavar="I/N"
        ),
    ] = None,
    save_images: Annotated[
        bool, _where("--save-images", help="Save every restored picture as PNG.")
    ] = False,
    device: opt.DeviceOpt = "auto",
    precision: Annotated[
        str,
        _compute(
            help="fp32 (so that scores agree between machines), bf16, fp16 on GPUs, or auto as for "
            "`restore image`.",
            metavar="TYPE",
        ),
    ] = "fp32",
    tlsc: Annotated[
        bool | None,
        _compute(
            "--tlsc/--no-tlsc",
            help="Compute global statistics in local windows (TLSC). Default: from the checkpoint "
            "or the table's rows.",
        ),
    ] = None,
    tlsc_window: opt.TlscWindowOpt = None,
    tile: Annotated[
        str, _compute(help="Longest side of a tile: auto, off, or pixels.", metavar="SIZE")
    ] = "auto",
    self_ensemble: Annotated[
        bool | None,
        _compute(
            "--self-ensemble/--no-self-ensemble",
            help="Average over 8 flips and rotations. Default: no, or as in the table's rows.",
        ),
    ] = None,
    warm_up: Annotated[
        int,
        _compute(help="Warm-up runs before the run times of a table are measured.", min=0),
    ] = 1,
    json: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Score models on a dataset by a published protocol, beside published scores."""
    asked = (dataset, degrade, *(model or ()), *(models or ()))
    if _old_listing(table, nothing=asked == (None, None), json=json):
        return
    if degrade is None and (seed or side is not None or not motion):
        raise UsageError(
            "--seed, --side and --no-motion need --degrade", hint="add it, or leave them out"
        )
    if degrade is not None and (fetch or (dataset, table, data_root) != (None, None, None)):
        raise UsageError(
            "--degrade makes its own dataset",
            hint="leave out --dataset, --table, --data-root and --fetch",
        )
    others = models or []
    photos = [text for text in others if not _is_model(text)] if degrade is not None else []
    names = (*(model or ()), *(text for text in others if text not in photos))
    if results and (dataset is None or table is not None):
        raise UsageError("--results needs --dataset, without --table", hint="give the dataset")
    _check_required(names, table, degrade, dataset, warm_up)
    known = {name: name for name in FORMATS}
    wanted = tuple(lookup("format", name.strip(), known) for name in formats.split(","))
    from restore_cli.benchmarking.protocol import PROTOCOLS
    from restore_cli.cli._scoring import ScoringRequest, score_dataset, score_photos, score_table
    from restore_cli.inference.devices import get_device, get_precision
    from restore_cli.inference.restorer import RestorerOptions

    target = get_device(device)
    request = ScoringRequest(
        models=names,
        results=tuple(results or ()),
        protocol=lookup("protocol", protocol, PROTOCOLS).name if protocol else None,
        options=RestorerOptions(
            device=target,
            dtype=get_precision(precision, target),
            tlsc=opt.parse_tlsc(tlsc, tlsc_window),
            tile=opt.parse_pixels(tile, "--tile"),
            self_ensemble=bool(self_ensemble),
        ),
        self_ensemble=self_ensemble,
        data_root=None if data_root is None else opt.parse_path(data_root),
        fetch=fetch,
        output=_folder(output),
        formats=wanted,
        save_images=save_images,
        limit=limit,
        shard=shard,
        warm_up=warm_up,
        json=json,
    )
    if degrade is not None:
        paths = [opt.parse_path(text) for text in photos]
        good = score_photos(request, degrade, paths, seed=seed, side=side, motion=motion)
    elif table is not None:
        good = score_table(request, table, dataset)
    else:
        good = score_dataset(request, dataset or "")
    if json:
        documents = request.documents
        out.echo_json(documents[0] if len(documents) == 1 else documents)
    if not good:
        raise typer.Exit(1)


def _check_required(
    names: tuple[str, ...],
    table: str | None,
    degrade: str | None,
    dataset: str | None,
    warm_up: int,
) -> None:
    if warm_up != 1 and table is None:
        raise UsageError("--warm-up needs --table", hint="only tables state run times")
    if table is not None or degrade is not None:
        return
    if dataset is None:
        raise UsageError("--dataset is missing", hint="`restore datasets list` shows the names")
    if not names:
        raise UsageError("--model is missing", hint="e.g. --model mprnet-mscam bicubic")


def _old_listing(table: str | None, *, nothing: bool, json: bool) -> bool:
    """Accept the old spellings of `restore datasets list` and `tables`, for one release."""
    if table == "list":
        datasets.list_tables(json=json)
        return True
    if nothing and table is None:
        datasets.list_datasets(json=json)
        if not json:
            datasets.list_protocols()
        return True
    return False


def _is_model(text: str) -> bool:
    from restore_cli.inference.pipeline import split_names

    if "=" in text and not Path(text).exists():
        return True
    try:
        split_names(text.partition("=")[0])
    except UsageError:
        return False
    return True


def _folder(output: str | None) -> Path | None:
    """Return the folder of the reports."""
    if output is None:
        return None
    folder = opt.parse_path(output)
    opt.check_not_a_file(folder)
    return folder
