"""Write docs/reference/ (commands, models, weights) and the papers' tables of docs/benchmark.md.

`python tools/reference.py` writes; with `--check`, as in `make check`, it writes nothing and fails
when what is there is not what the code says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from restore_cli.benchmarking.published import Table, all_tables, columns_of, papers, rows_of
from restore_cli.benchmarking.report import markdown_table
from restore_cli.cli.app import app
from restore_cli.models.registry import MODELS
from restore_cli.weights.manifest import load_manifest

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _code(text: object) -> str:
    return f"`{_cell(text)}`"


def _rows(command: Any) -> Iterator[str]:
    for one in command.params:
        if getattr(one, "hidden", False) or one.name == "help":
            continue
        if one.param_type_name == "argument":
            names = _code(one.metavar or one.name.upper())
        else:
            names = ", ".join(_code(name) for name in [*one.opts, *one.secondary_opts])
            if one.metavar and not getattr(one, "is_flag", False):
                names += f" {_code(one.metavar)}"
        shown = getattr(one, "show_default", True) and one.default not in (None, False, "", ())
        default = f" Default: {_code(one.default)}." if shown and not callable(one.default) else ""
        yield f"| {names} | {_cell(one.help or '')}{default} |"


def _section(command: Any, name: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} `{name}`\n"
    yield f"{(command.help or '').strip()}\n"
    rows = list(_rows(command))
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield "\n".join(rows) + "\n"
    if command.epilog:
        examples, _, after = command.epilog.partition("Exit status")
        lines = [line.strip() for line in examples.replace("Examples:", "").split("\n\n")]
        commands = [line for line in lines if line.startswith(STARTS)]
        prose = [line for line in lines if line and not line.startswith(STARTS)]
        if commands:
            yield "Examples:\n\n```text\n" + "\n".join(commands) + "\n```\n"
        for line in prose:
            yield f"{line}\n"
        if after:
            yield f"Exit status{after.strip('.')}\n".replace("\n\n\n", "\n\n")
    for label, inner in getattr(command, "commands", {}).items():
        if not inner.hidden:
            yield from _section(inner, f"{name} {label}", level + 1)


STARTS = ("restore ", "cat ", "find ", "ffmpeg ")


def commands() -> str:
    """The page of the command line."""
    root: Any = typer.main.get_command(app)
    parts = [
        "# The command line\n",
        "Written by `python tools/reference.py`. Every option has a variable: `--tile` of "
        "`restore image` is `RESTORE_IMAGE_TILE`.\n",
    ]
    for label, command in root.commands.items():
        if not command.hidden:
            parts += _section(command, f"restore {label}", 2)
    return "\n".join(parts).rstrip() + "\n"


def models() -> str:
    """The page of models and checkpoints."""
    parts = [
        "# Models and checkpoints\n",
        "Written by `python tools/reference.py` from the registry and the manifest.\n",
        "| model | does | parameters | GMACs | configs | tiles | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    parts += [
        f"| `{m.name}` | {_cell(m.task)} | {m.parameters:,} | {m.macs / 1e9:.1f} | "
        f"{', '.join(map(_code, m.configs))} | {m.tiling_note or f'overlap {m.overlap}'} | "
        f"{_cell(m.paper)} |"
        for m in MODELS.values()
    ]
    parts += [
        "\nParameters and multiply-adds (for a 64x64 input) are those of the published network.\n",
        "| checkpoint | model | MB | licence | TLSC window | pictures | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in load_manifest().checkpoints.values():
        window = "x".join(map(str, one.tlsc_base)) if one.tlsc_base else "none"
        for score in one.scores:
            gain = score.psnr - score.bicubic_psnr
            parts.append(
                f"| `{one.name}` | `{one.model}` | {one.size / 1e6:.1f} | {one.license} | {window} "
                f"| {_cell(score.data)} | {gain:+.2f} dB |"
            )
    return "\n".join(parts) + "\n"


def tables() -> str:
    """`docs/benchmark.md` with every published table below the heading that stands there."""
    page = (REFERENCE.parent / "benchmark.md").read_text("utf-8")
    written = page.partition(TABLES)[0] + TABLES
    parts = [written, "\n\nWritten by `python tools/reference.py` from `published.toml`.\n"]
    for paper, title in papers().items():
        parts.append(f"\n### {title}\n")
        for table in (t for t in all_tables() if t.paper == paper):
            parts.append(_published(table))
    return "".join(parts)


def _published(table: Table) -> str:
    where = f", {table.dataset}" * bool(table.dataset) + f", `{table.protocol}`" * bool(
        table.protocol
    )
    lines = [f"\n#### `{table.name}`: {table.kind}{where}\n"]
    note = ". ".join(part for part in (table.source, table.note) if part)
    if note:
        lines.append(_cell(note) + ".\n")
    lines += [f"- assumed, `--{key}`: {_cell(text)}" for key, text in table.assumptions.items()]
    if table.assumptions:
        lines.append("")
    if table.rows:
        rows = [tuple(map(_cell, row)) for row in rows_of(table)]
        lines += markdown_table(columns_of(table), rows)
    return "\n".join(lines) + "\n"


PAGES = {"commands.md": commands, "models.md": models, "../benchmark.md": tables}
TABLES = "## Every table of the five papers"


def main() -> None:
    """Write every page, or say which are stale."""
    made = {REFERENCE / name: page() for name, page in PAGES.items()}
    if "--check" in sys.argv[1:]:
        stale = [path.name for path, text in made.items() if path.read_text("utf-8") != text]
        if stale:
            sys.exit(f"stale: {', '.join(stale)}; renew by: python tools/reference.py")
        return
    for path, text in made.items():
        path.write_text(text, "utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
