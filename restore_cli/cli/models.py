"""`restore models`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors, print_error
from restore_cli.errors import lookup

if TYPE_CHECKING:
    from restore_cli.weights.user import UserWeights

EPILOG = """
Examples:
  restore models
  restore models info maxim
"""
app = typer.Typer(
    help="List the models, or describe one.", epilog=EPILOG, invoke_without_command=True
)


@app.callback()
def default(context: typer.Context, json: opt.JsonOpt = False) -> None:
    """List the models if no command was given."""
    opt.list_without_command(context, partial(list_models, json=json))


_COSTS = ("parameters", "macs_64x64")
_LISTS = (*_COSTS, "configs", "checkpoints", "own_weights", "published_files")


@app.command("list")
@handle_errors
def list_models(json: opt.JsonOpt = False) -> None:
    """List the models with their default checkpoints.

    "real dB" and "synth dB" are gains in PSNR on real and on synthetic blur,
    over bicubic (x4) or over the blurry picture (x1). "s/Mpx" is seconds
    per megapixel of the input on two CPU cores. `restore models info NAME`
    describes one model.
    """
    from restore_cli.models.registry import MODELS
    from restore_cli.weights import user
    from restore_cli.weights.manifest import load_manifest

    if json:
        own = user.readable(print_error)
        out.echo_json([_facts(name, own) for name in MODELS])
        return
    manifest = load_manifest()
    chosen = set(manifest.default_models.values())
    rows = []
    for name, model in MODELS.items():
        checkpoint = manifest.defaults.get(name)
        gains = [checkpoint.gain(blur) if checkpoint else None for blur in ("real", "synthetic")]
        seconds = checkpoint.seconds_per_megapixel if checkpoint else None
        rows.append(
            (
                name,
                f"x{model.scale}{' *' * (name in chosen)}",
                *map(out.format_gain, gains),
                f"{seconds:.0f}" if seconds else "-",
                checkpoint.name if checkpoint else "none yet: give --weights",
            )
        )
    rows.append(("bicubic", "any", "-", "-", "0", "needs none"))
    out.table(("model", "", "real dB", "synth dB", "s/Mpx", "checkpoint"), rows)
    out.echo_err("* default model of its scale")


@app.command()
@handle_errors
def info(
    name: Annotated[str, typer.Argument(help="Name of a model.")], json: opt.JsonOpt = False
) -> None:
    """Describe one model: configs, costs, checkpoints, licence."""
    from restore_cli.inference.stages import BICUBIC
    from restore_cli.models.registry import MODELS
    from restore_cli.weights import user

    model = lookup("model", name, {**MODELS, BICUBIC: None})
    if model is None:
        known = {"model": name, "task": "resampling, without a network", "scale": "any"}
        if json:
            out.echo_json(known)
        else:
            out.facts(known.items())
        return
    facts = _facts(name, user.readable(print_error))
    costs = {key: model.cost(config) for key, config in model.configs.items()}  # takes seconds
    facts["configs"] = {key: dict(zip(_COSTS, cost, strict=True)) for key, cost in costs.items()}
    if json:
        out.echo_json(facts)
        return
    for key, value in facts.items():
        if value and key not in _LISTS:
            out.echo(f"{key.replace('_', ' ').replace('license', 'licence')}: {value}")
    for key, value in facts["configs"].items():
        out.echo(
            f"config {key}: {value['parameters']:,} parameters, "
            f"{value['macs_64x64'] / 1e9:.2f} G multiply-adds for a 64x64 input"
        )
    for checkpoint in facts["checkpoints"]:
        out.echo(
            f"checkpoint: {checkpoint['name']}, {_measured(checkpoint)}"
            f"trained by {checkpoint['trained_by']}, "
            f"licence of the weights {checkpoint['license']}"
        )
    for own in facts["own_weights"]:
        out.echo(f"your own: {own}")
    for published in facts["published_files"]:
        out.echo(f"`restore weights import` reads: {published}")


def _measured(checkpoint: dict[str, Any]) -> str:
    """Return the gains and the seconds of a checkpoint in words, those that are known."""
    words = ""
    for blur in ("real", "synthetic"):
        if (gain := checkpoint[f"gain_{blur}"]) is not None:
            words += f"{gain:+.2f} dB on {blur} blur, "
    seconds = checkpoint["seconds_per_megapixel"]
    return words + (f"{seconds:.3g} s per megapixel, " if seconds else "")


def _facts(name: str, own: list[UserWeights]) -> dict[str, Any]:
    from restore_cli.models.registry import get_model
    from restore_cli.weights.manifest import load_manifest

    model = get_model(name)
    checkpoints = [c for c in load_manifest().checkpoints.values() if c.model == name]
    default = load_manifest().defaults.get(name)
    return {
        "model": name,
        "task": model.task,
        "scale": model.scale,
        "paper": model.paper,
        "code_license": model.code_license,
        "size_multiple": model.size.multiple_of,
        "tiling": model.tiling.value,
        "tiling_note": model.tiling_note,
        "overlap": default.overlap if default else model.overlap,
        "default_checkpoint": default.name if default else None,
        "parameters": model.parameters,
        "macs_64x64": model.macs,
        "configs": list(model.configs),
        "own_weights": [one.name for one in own if one.model == name],
        "published_files": [published.name for published in model.published],
        "checkpoints": [
            {
                "name": c.name,
                "license": c.license,
                "trained_by": c.trained_by or "the authors of restore",
                "train_size": c.train_size,
                "gain_real": c.gain("real"),
                "gain_synthetic": c.gain("synthetic"),
                "seconds_per_megapixel": c.seconds_per_megapixel,
            }
            for c in checkpoints
        ],
    }
