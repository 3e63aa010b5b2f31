"""The layout is the architecture: who may import whom, and what `--help` costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "restore_cli"
LAYERS = (
    {"errors", "version"},
    {"files", "toml_file", "resample", "rounding", "metrics"},
    {"image", "degradations"},
    {"models"},
    {"weights"},
    {"inference"},
    {"api", "jobs", "datasets"},
    {"training", "benchmarking", "serving"},
    {"cli"},
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("restore_cli"):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names if a.name.startswith("restore_cli")}
    return names


def test_imports_are_absolute():
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def part(module: str) -> str | None:
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else None


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_go_down_only(module):
    here = part(module)
    if here is None or here == "__main__":
        return
    for name in imports(modules()[module]):
        there = part(name)
        if here in LAYERS[-2]:
            assert there == here or there not in LAYERS[-2], f"{module} imports {name}"
        if there in RANK and there != here:
            assert RANK[there] <= RANK[here], f"{module} imports {name}"


def test_every_module_has_a_layer():
    parts = {part(module) for module in modules()} - {None, "__main__"}
    assert parts == set(RANK)


def test_no_import_cycles():
    known = modules()
    graph = {m: {n for n in imports(p) if n in known} for m, p in known.items()}
    list(TopologicalSorter({m: used - {m} for m, used in graph.items()}).static_order())


def test_imports_hide_only_in_the_command_line():
    for module, path in modules().items():
        functions = [
            node
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.FunctionDef)
        ]
        hidden = {
            node.module
            for function in functions
            for node in ast.walk(function)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("restore_cli")
        }
        assert part(module) == "cli" or not hidden, f"{module} hides {hidden}"


@pytest.mark.parametrize("command", [["--help"], ["image", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(command):
    code = (
        "import sys, typer\n"
        "from restore_cli.cli.app import app\n"
        f"try: app({command!r})\n"
        "except SystemExit as error: assert not error.code, error.code\n"
        "heavy = {'torch', 'cv2', 'huggingface_hub', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout
