"""`restore info`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import reported, show
from restore_cli.errors import RestoreError

if TYPE_CHECKING:
    from pathlib import Path

EPILOG = """
Examples:

  restore info photo.jpg

  restore info photo_x4.png --json

  restore info trained.safetensors
"""


@reported
def info(
    files: Annotated[
        list[str], typer.Argument(help="Pictures, videos or .safetensors files.", metavar="FILE")
    ],
    json: opt.JsonOpt = False,
) -> None:
    """Facts about pictures and videos, with how `restore` made them, or about weights."""
    failed = 0
    for text in files:
        path = opt.parse_path(text)
        try:
            facts = _facts(path)
        except RestoreError as error:
            show(error)
            failed = error.exit_code
            continue
        if json:
            out.data_json({"file": text} | facts)
            continue
        out.data(text)
        for name, value in facts.items():
            if value not in (None, "", [], {}):
                joint = "; " if name == "inventory" else ", "
                shown = joint.join(map(str, value)) if isinstance(value, list | tuple) else value
                out.data(f"  {name.replace('_', ' ')}: {shown}")
    if failed:
        raise typer.Exit(failed if len(files) == 1 else 1)


def _facts(path: Path) -> dict[str, object]:
    from restore_cli.image.formats import VIDEO_SUFFIXES

    if path.suffix == ".safetensors":
        return _weights(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        from restore_cli.jobs.video_facts import describe_video

        return describe_video(path)
    return _picture(path)


def _picture(path: Path) -> dict[str, object]:
    from restore_cli.image.info import describe

    facts = asdict(describe(path, max_pixels=2**62))
    made: dict[str, str] = facts.pop("provenance")
    size = {"format": facts.pop("format"), "size": f"{facts.pop('width')}x{facts.pop('height')}"}
    return size | facts | {f"restored: {name}": value for name, value in made.items()}


def _weights(path: Path) -> dict[str, object]:
    from restore_cli.inference.loading import load_network
    from restore_cli.weights.checkpoint import read_checkpoint
    from restore_cli.weights.manifest import load_manifest
    from restore_cli.weights.store import locate

    loaded = load_network(locate(str(path.absolute()), None))
    header = read_checkpoint(path).header
    known = [c.name for c in load_manifest().checkpoints.values() if c.sha256 == loaded.file.sha256]
    return {
        "model": loaded.model.name,
        "scale": loaded.model.scale,
        "parameters": sum(p.numel() for p in loaded.network.parameters()),
        "config": asdict(loaded.config),
        "trained_on_patches": "x".join(map(str, loaded.train_size or ())) or None,
        "sha256": loaded.file.sha256,
        "checkpoint": known,
        "provenance": dict(header.provenance) if header else {},
    }
