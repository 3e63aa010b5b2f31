"""`restore weights`."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors, print_error
from restore_cli.cli._terminal import is_terminal
from restore_cli.errors import RestoreError, UsageError, lookup, require
from restore_cli.files import check_writable

if TYPE_CHECKING:
    from collections.abc import Callable

    from restore_cli.inference.loading import LoadedNetwork
    from restore_cli.weights.store import WeightsFile

HELP = "List, fetch, verify, add, remove, import, export and convert weights."
EPILOG = """
Examples:
  restore weights list
  restore weights import esrgan.pth -o esrgan.safetensors
  restore weights add runs/mine --name gfn-lite.mine --license CC-BY-4.0
  restore weights convert gfn-lite.shake --to onnx --check -o exported/
"""
app = typer.Typer(help=HELP, epilog=EPILOG, invoke_without_command=True)
NameArg = Annotated[
    str,
    typer.Argument(
        help="Name of a checkpoint, a file, the folder of a run, or an hf:// address.",
        metavar="WEIGHTS",
    ),
]
NamesArg = Annotated[
    list[str] | None, typer.Argument(help="Names. Default: all.", metavar="[NAME]...")
]
LicenseOpt = Annotated[
    str | None,
    opt.option(
        "--license",
        help="SPDX name of the weights' licence, e.g. CC-BY-4.0. If it is missing, you are asked "
        "for it on a terminal.",
        metavar="NAME",
    ),
]
OverwriteOpt = Annotated[bool, opt.option("--overwrite", help="Replace existing files.")]


@app.callback(help=HELP + " Without a command, list them.")
def default(context: typer.Context, json: opt.JsonOpt = False) -> None:
    """List the weights if no command was given."""
    opt.list_without_command(context, partial(list_weights, json=json))


@app.command("list")
@handle_errors
def list_weights(json: opt.JsonOpt = False) -> None:
    """List the known checkpoints and your own weights.

    "real dB" and "synth dB" are gains in PSNR on real and on synthetic blur,
    over bicubic (x4) or over the blurry picture (x1). "s/Mpx" is seconds
    per megapixel of the input on two CPU cores.
    """
    from restore_cli.weights import user
    from restore_cli.weights.manifest import load_manifest

    checkpoints = load_manifest().checkpoints.values()
    records = user.readable(print_error)
    if json:
        shipped = [c.model_dump(mode="json") | {"own": False} for c in checkpoints]
        out.echo_json(shipped + [r.model_dump(mode="json") | {"own": True} for r in records])
        return
    rows = [
        (
            c.name,
            f"{c.size / 1e6:.1f} MB",
            c.license,
            out.format_gain(c.gain("real")),
            out.format_gain(c.gain("synthetic")),
            f"{c.seconds_per_megapixel:.0f}" if c.seconds_per_megapixel else "-",
            "bundled" if c.source.startswith("bundled:") else "Hub",
        )
        for c in checkpoints
    ]
    rows += [(r.name, f"{r.size / 1e6:.1f} MB", r.license, "-", "-", "-", "yours") for r in records]
    out.table(("checkpoint", "size", "licence", "real dB", "synth dB", "s/Mpx", "from"), rows)


@app.command()
@handle_errors
def verify(names: NamesArg = None) -> None:
    """Check the sha256 of weights; exit 4 if any are missing or changed."""
    from restore_cli.weights.user import all_names

    _verify(names or all_names(), lambda name, file: f"{name}\tok\t{file.sha256}")


@app.command()
@handle_errors
def fetch(names: NamesArg = None) -> None:
    """Fetch and verify checkpoints, so that later runs need no network."""
    from restore_cli.weights.user import all_names

    _verify(names or all_names(), lambda _, file: str(file.path))


@app.command()
@handle_errors
def path(name: NameArg) -> None:
    """Verify weights and print the path of their file."""
    _verify([name], lambda _, file: str(file.path))


@app.command()
@handle_errors
def remove(
    names: Annotated[
        list[str],
        typer.Argument(
            help="Your own weights, or fetched ones by name or hf:// address.", metavar="NAME..."
        ),
    ],
) -> None:
    """Delete your own weights, or fetched ones from the Hub cache."""
    from restore_cli.weights.store import remove as remove_weights

    _each(names, lambda name: out.echo_err(f"{name}: {remove_weights(name) / 1e6:.1f} MB freed"))


@app.command()
@handle_errors
def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A .safetensors file, the folder of a training run, or an hf:// address.",
            metavar="SOURCE",
        ),
    ],
    name: Annotated[
        str | None,
        opt.option(help="New name. Default: model, config and the source's name.", metavar="NAME"),
    ] = None,
    weights_license: LicenseOpt = None,
    overwrite: OverwriteOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Copy your own weights under a name that --weights accepts."""
    from restore_cli.inference.loading import load_network
    from restore_cli.weights.store import locate
    from restore_cli.weights.user import check_derived_license, check_name, check_name_free

    loaded = load_network(locate(source, None))
    name = name or _default_name(loaded, source)
    check_name(name)  # before the prompt for the licence
    check_name_free(name, overwrite=overwrite)
    license_name = _license(weights_license)
    if loaded.header is not None:
        check_derived_license(loaded.header.provenance, license_name)
    _register(loaded, name, license_name, overwrite=overwrite)
    out.echo(name)


@app.command("import")
@handle_errors
def import_weights(
    file: Annotated[
        str,
        typer.Argument(
            help="A .pth, .pkl, .npz or .safetensors file, TensorFlow checkpoint, or npm .tgz.",
            metavar="FILE",
        ),
    ],
    output: Annotated[
        str, opt.option("--output", "-o", help="The .safetensors file to write.", metavar="PATH")
    ],
    model: Annotated[
        str | None,
        opt.option(
            "--model",
            "-m",
            help="Name of the model. Default: recognised from the keys.",
            metavar="NAME",
        ),
    ] = None,
    half: Annotated[bool, opt.option("--half", help="Store as float16, half the size.")] = False,
    overwrite: OverwriteOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Convert an authors' checkpoint, or your own pickle, to safetensors.

    Every key must fit, and nothing in the file is executed. Use the result
    with `restore image --weights PATH`. With the extra `zoo`, files of the
    forty networks that spandrel knows are accepted as well. Of a file that
    also has the averages (EMA) of its weights, these are taken. The authors'
    licence, if any, stays in force; most of these networks were published
    without one.
    """
    from restore_cli.models.registry import MODELS
    from restore_cli.weights.importing import import_checkpoint

    target = opt.parse_path(output)
    if target.suffix.lower() != ".safetensors":
        raise UsageError(
            f"--output '{output}' does not end in .safetensors", hint="give FILE.safetensors"
        )
    if target.is_dir():
        raise UsageError(f"--output '{output}' is a folder", hint="give FILE.safetensors")
    _check_local(file)
    _check_not_existing([target], overwrite=overwrite)
    check_writable(target.parent)
    found = import_checkpoint(opt.parse_path(file), target, model, half=half, note=_note)
    origin = "restore's own names" if found.model.name in MODELS else "by spandrel"
    out.echo_err(
        f"{found.model.name} ({found.published.name if found.published else origin}), "
        f"{sum(t.numel() for t in found.tensors.values()):,} parameters"
    )
    if found.header is None:
        out.echo_err("note: the size of its training patches is not known, so TLSC is off")
    if found.header is None or "imported_from" in found.header.provenance:
        out.echo_err("note: ask the authors before you pass these weights on")
    out.echo(str(target))


@app.command("export")
@handle_errors
def export_weights(
    run: Annotated[str, typer.Argument(help="Folder of a training run.", metavar="RUN")],
    output: Annotated[
        str, opt.option("--output", "-o", help="Folder for the files.", metavar="PATH")
    ],
    name: Annotated[
        str | None,
        opt.option(help="Name of the checkpoint, e.g. 'mprnet-mscam-lite.mine'.", metavar="NAME"),
    ] = None,
    weights_license: LicenseOpt = None,
    push_to_hub: Annotated[
        str | None, opt.option(help="Also upload to this Hub repository.", metavar="OWNER/NAME")
    ] = None,
    private: Annotated[
        bool, opt.option("--private", help="If the repository is created, make it private.")
    ] = False,
    overwrite: OverwriteOpt = False,
    to: Annotated[str | None, opt.option("--to", hidden=True)] = None,
    check: Annotated[bool, opt.option("--check", hidden=True)] = False,
    tlsc: Annotated[bool | None, opt.option("--tlsc/--no-tlsc", hidden=True)] = None,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Export the weights of a training run for publication.

    Writes weights, model card and manifest entry, and prints the three paths.
    The weights are also registered under their name on this machine (see
    `restore weights list`). With --push-to-hub, the last line is the hf:// name
    that --weights accepts on any machine.
    """
    if to is not None:
        if name or weights_license or push_to_hub or private:
            raise UsageError(
                "--to excludes --name, --license, --push-to-hub and --private",
                hint="leave them out",
            )
        out.echo_err(
            "note: `weights export --to` is now `weights convert --to`; the old spelling will be "
            "removed in the next release"
        )
        convert(run, output, to, check=check, tlsc=tlsc, overwrite=overwrite, verbose=verbose)
        return
    if check or tlsc is not None:
        raise UsageError(
            "--check and --tlsc are options of `restore weights convert`", hint="leave them out"
        )
    if private and not push_to_hub:
        raise UsageError("--private needs --push-to-hub", hint="add it, or leave out --private")
    if name is None:
        raise UsageError("--name is missing", hint="e.g. --name mprnet-mscam-lite.mine")
    require("train", "accelerate")
    from restore_cli.training.package import package, write_entry
    from restore_cli.weights.hub import push
    from restore_cli.weights.manifest import load_manifest
    from restore_cli.weights.user import check_name_free

    folder, source = opt.parse_path(output), opt.parse_path(run)
    own = name not in load_manifest().checkpoints  # else a new version of one of restore's
    if own:
        check_name_free(name, overwrite=overwrite)
    _check_not_existing(
        [folder / file for file in (f"{name}.safetensors", "README.md", "manifest.toml")],
        overwrite=overwrite,
    )
    checkpoint = package(source, folder, name, _license(weights_license))
    for path in (checkpoint.weights, checkpoint.card, checkpoint.entry):
        out.echo(str(path))
    if own:
        _register(checkpoint.loaded, name, checkpoint.license, overwrite=True)
    if push_to_hub is not None:
        commit = push(push_to_hub, [checkpoint.weights, checkpoint.card], private=private)
        pushed = f"hf://{push_to_hub}/{checkpoint.weights.name}@{commit}"
        write_entry(checkpoint, pushed)
        out.echo(pushed)


@app.command()
@handle_errors
def convert(
    name: NameArg,
    output: Annotated[
        str, opt.option("--output", "-o", help="Folder for the file.", metavar="PATH")
    ],
    to: Annotated[
        str, opt.option("--to", help="onnx, torchscript or pt2 (torch.export).", metavar="FORMAT")
    ],
    check: Annotated[
        bool, opt.option("--check", help="Run the graph and compare its result with ours.")
    ] = False,
    tlsc: Annotated[
        bool | None,
        opt.option(
            "--tlsc/--no-tlsc",
            help="Compute global statistics in local windows (TLSC).",
            show_default=False,
        ),
    ] = None,
    overwrite: OverwriteOpt = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Convert weights to a graph that runs without restore.

    Writes one file for onnxruntime, libtorch or torch.export. It takes a picture
    (1, 3, H, W) in [0, 1], of any size from the printed one on, and returns the
    restored one. TLSC is included, tiles are not.
    """
    folder = opt.parse_path(output)
    if folder.suffix in (".onnx", ".pt", ".pt2"):
        raise UsageError(
            f"--output '{output}' must be a folder", hint="leave out the name of the file"
        )
    from restore_cli.inference.export import FORMATS, export
    from restore_cli.inference.loading import load_network
    from restore_cli.weights.store import locate

    suffix, *_ = lookup("format", to, FORMATS)
    loaded = load_network(locate(name, None))
    stem = _stem(Path(loaded.file.name).name.partition("@")[0])
    target = folder / f"{stem}{suffix}"
    _check_not_existing([target], overwrite=overwrite)
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    graph = export(loaded, target, to, tlsc=tlsc, check=check)
    sides = f"any size from {graph.facts['smallest_side']} px"
    out.echo_err(f"{graph.facts['model']}, tlsc {graph.facts['tlsc_window']}, {sides}")
    for (height, width), worst in graph.differences.items():
        out.echo_err(f"{width}x{height}: largest difference {worst:.1e}")
    out.echo(str(target))


def _note(text: str) -> None:
    out.note(f"note: {text}")


def _check_local(file: str) -> None:
    """Raise a `UsageError` if what is to be imported is an address or a checkpoint's name."""
    from restore_cli.weights.user import all_names

    if "://" in file:
        raise UsageError(
            f"'{file}' is an address, and only files are imported", hint="download it first"
        )
    if file in all_names() and not Path(file).exists():
        raise UsageError(f"'{file}' is imported already", hint=f"use it as it is: --weights {file}")


def _check_not_existing(files: list[Path], *, overwrite: bool) -> None:
    taken = next((path for path in files if path.exists()), None)
    if taken and not overwrite:
        raise UsageError(f"'{taken}' exists", hint="add --overwrite, or choose another --output")


def _verify(names: list[str], line: Callable[[str, WeightsFile], str]) -> None:
    """Verify weights, and print a line for each."""
    from restore_cli.weights.store import locate
    from restore_cli.weights.store import verify as verify_file

    _each(names, lambda name: out.echo(line(name, verify_file(locate(name, None)))))


def _each(names: list[str], work: Callable[[str], object]) -> None:
    """Do it for all names; go on after errors, and exit with the highest status among them."""
    status = 0
    for name in names:
        try:
            work(name)
        except RestoreError as error:
            print_error(error)
            status = max(status, error.exit_code)
    if status:
        raise typer.Exit(status)


def _license(given: str | None) -> str:
    """Return the given licence, or ask for it on a terminal; never assume one."""
    from restore_cli.weights.user import check_license

    if given is None:
        if not is_terminal(sys.stdin):
            raise UsageError(
                "--license is missing",
                hint="an SPDX name, e.g. CC-BY-4.0; LicenseRef-private if nobody else may use them",
            )
        given = str(typer.prompt("Licence of the weights (SPDX name, e.g. CC-BY-4.0)", err=True))
    check_license(given)
    return given


def _stem(name: str) -> str:
    """Return the name of a file without the suffix of weights, or a checkpoint's name as it is."""
    return re.sub(r"\.safetensors$", "", name, flags=re.IGNORECASE)


def _default_name(loaded: LoadedNetwork, source: str) -> str:
    """Return the source's name if it is a valid checkpoint name, else `model-config.label`."""
    from restore_cli.weights.user import check_name

    stem = _stem(Path(source.partition("@")[0]).absolute().name)
    with suppress(UsageError):
        check_name(stem)
        return stem
    configs = loaded.model.configs.items()
    config = next((f"-{key}" for key, one in configs if one == loaded.config), "")
    label = re.sub(r"[^\w-]+", "-", stem).strip("-") or "mine"
    return f"{loaded.model.name}{config.removesuffix('-paper')}.{label}"


def _register(loaded: LoadedNetwork, name: str, weights_license: str, *, overwrite: bool) -> None:
    from restore_cli.weights import user

    file = loaded.file.path
    digest = loaded.file.sha256
    user.add(file, name, loaded.model.name, weights_license, digest, overwrite=overwrite)
    out.echo_err(f"use them as: --weights {name}")
