"""`restore models`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported

app = typer.Typer(help="What can be run.", invoke_without_command=True)


@app.callback()
def default(context: typer.Context, json: opt.JsonOpt = False) -> None:
    """What can be run. Without a command: list."""
    if context.invoked_subcommand is None:
        list_models(json=json)


@app.command("list")
@reported
def list_models(json: opt.JsonOpt = False) -> None:
    """List the models with their default checkpoints."""
    from restore_cli.models.registry import MODELS
    from restore_cli.weights.manifest import load_manifest

    if json:
        out.data_json([_facts(name) for name in MODELS])
        return
    defaults = {c.model: c.name for c in load_manifest().checkpoints.values() if c.default}
    out.table(
        ("model", "scale", "task", "checkpoint"),
        [(n, f"x{m.scale}", m.task, defaults.get(n, "-")) for n, m in MODELS.items()],
    )


@app.command()
@reported
def info(
    name: Annotated[str, typer.Argument(help="A model's name.")], json: opt.JsonOpt = False
) -> None:
    """Everything known about one model."""
    facts = _facts(name)
    if json:
        out.data_json(facts)
        return
    for key, value in facts.items():
        if key not in ("configs", "checkpoints"):
            out.data(f"{key.replace('_', ' ')}: {value}")
    for key, value in facts["configs"].items():
        out.data(
            f"config {key}: {value['parameters']:,} parameters, "
            f"{value['macs_64x64'] / 1e9:.2f} G multiply-adds for a 64x64 input"
        )
    for checkpoint in facts["checkpoints"]:
        out.data(f"checkpoint: {checkpoint}")


def _facts(name: str) -> dict[str, Any]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from restore_cli.models.registry import get_model
    from restore_cli.weights.manifest import load_manifest

    model = get_model(name)
    checkpoints = [c for c in load_manifest().checkpoints.values() if c.model == name]
    configs = {}
    for key, config in model.configs.items():
        with torch.device("meta"):
            network = model.build(config)
            with FlopCounterMode(display=False) as counter:
                network.eval()(torch.empty(1, 3, 64, 64))
        configs[key] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "macs_64x64": counter.get_total_flops() // 2,  # it counts two per multiply-add
        }
    return {
        "model": name,
        "task": model.task,
        "scale": model.scale,
        "paper": model.paper,
        "code_license": model.code_license,
        "size_multiple": model.size.multiple_of,
        "tiling": model.tiling.value,
        "default_checkpoint": next((c.name for c in checkpoints if c.default), None),
        "configs": configs,
        "checkpoints": [c.name for c in checkpoints],
    }
