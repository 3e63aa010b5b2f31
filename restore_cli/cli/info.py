"""`restore info`."""

from __future__ import annotations

import os
from dataclasses import asdict
from glob import glob
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors, print_error
from restore_cli.errors import NoInputError, RestoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

EPILOG = """
Examples:
  restore info photo.jpg
  restore info photo_x4.png --json
  restore info trained.safetensors
  restore info gfn-lite.shake
"""


@handle_errors
def info(
    files: Annotated[
        list[str],
        typer.Argument(
            help="Pictures, videos, or weights (files, names, folders of runs).", metavar="FILE"
        ),
    ],
    json: opt.JsonOpt = False,
) -> None:
    """Print facts about pictures, videos or weights, and how `restore` made them."""
    failed = 0
    for text in chain.from_iterable(map(_expand, files)):
        try:
            facts = _facts(text)
        except RestoreError as error:
            print_error(error)
            failed = error.exit_code
            continue
        if json:
            out.echo_json({"file": text} | facts)
            continue
        out.echo(text)
        if "provenance" in facts:
            more = {
                f"provenance.{name}" if name in facts else name: value
                for name, value in facts.pop("provenance").items()
            }
            out.facts(_rows(facts | more))
            continue
        for name, value in facts.items():
            if value not in (None, "", [], (), {}):
                joint = "; " if name == "inventory" else ", "
                shown = joint.join(map(str, value)) if isinstance(value, list | tuple) else value
                out.echo(out.printable(f"  {name.replace('_', ' ')}: {shown}"))
    if failed:
        raise typer.Exit(failed if len(files) == 1 else 1)


def _expand(text: str) -> list[str]:
    """Files that match a pattern, which the shells of Windows leave to programs; or the text."""
    exists = os.path.exists(text)  # noqa: PTH110 - which, like glob, raises nothing
    return ([] if exists else sorted(glob(text))) or [text]  # noqa: PTH207


def _facts(text: str) -> dict[str, Any]:
    from restore_cli.image.formats import has_video_suffix
    from restore_cli.weights.file_kinds import SUFFIXES
    from restore_cli.weights.store import RUN_WEIGHTS_FILES
    from restore_cli.weights.user import all_names

    path = opt.parse_path(text)
    named = not path.exists() and (text.startswith("hf://") or text in all_names())
    if not path.exists() and not named:
        raise NoInputError(
            f"no such file, and no weights of that name: '{text}'",
            hint="`restore weights list` shows the names",
        )
    if path.is_dir() and not any((path / name).is_file() for name in RUN_WEIGHTS_FILES):
        raise NoInputError(
            f"'{text}' is a folder without weights",
            hint=f"to describe pictures in it, name them, e.g. restore info '{path / '*.jpg'}'",
        )
    if path.suffix.lower() in SUFFIXES or path.is_dir() or named:
        return _weights(text)
    if has_video_suffix(path):
        from restore_cli.jobs.video_facts import describe_video

        return describe_video(path)
    from restore_cli.image.info import describe

    return describe(path)


def _weights(text: str) -> dict[str, object]:
    from restore_cli.inference.loading import load_network
    from restore_cli.weights.manifest import checkpoint_of
    from restore_cli.weights.store import locate

    loaded = load_network(locate(text, None))
    listed = checkpoint_of(loaded.file.sha256)
    return {
        "model": loaded.model.name,
        "scale": loaded.model.scale,
        "parameters": sum(p.numel() for p in loaded.network.parameters()),
        "config": asdict(loaded.config),
        "trained_on_patches": "x".join(map(str, loaded.train_size or ())) or None,
        "sha256": loaded.file.sha256,
        "checkpoint": listed.name if listed else None,
        "license": listed.license if listed else loaded.file.license or None,
        "provenance": dict(loaded.header.provenance) if loaded.header else {},
    }


def _rows(facts: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Yield facts about weights for a table: dotted names if nested, one line per listed record."""
    for name, value in facts.items():
        key = f"{above}{name}"
        if name == "phases" and isinstance(value, list):
            for phase in value:
                known = isinstance(phase, dict)
                yield f"{key}.{phase.get('name')}" if known else key, _phase(phase)
        elif isinstance(value, dict):
            yield from _rows(value, f"{key}.")
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            for number, one in enumerate(value, 1):
                items = one.items() if isinstance(one, dict) else [("", one)]
                words = [f"{part} {fact}".lstrip() for part, fact in items if fact is not None]
                yield f"{key}.{number}", ", ".join(words)
        elif isinstance(value, float):
            yield key, f"{value:.6g}"
        elif value not in (None, "", [], ()):
            yield key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _phase(phase: object) -> str:
    if not isinstance(phase, dict):
        return str(phase)
    losses = phase.get("losses")
    terms = [
        str(term.get("loss") if isinstance(term, dict) else term)
        for term in (losses if isinstance(losses, list) else [])
    ]
    return (
        f"{phase.get('steps')} steps of {phase.get('batch')} x {phase.get('patch')} px, "
        f"rate {phase.get('learning_rate')}, {', '.join(terms)}"
    )
