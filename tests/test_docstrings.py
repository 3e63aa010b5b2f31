"""Every public name says what it takes and gives, and what it says is true."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ROOT
from test_architecture import modules

LIBRARY = sorted(
    name for name in modules() if not name.startswith(("restore_cli.cli", "restore_cli.__main__"))
)
SHAPE = re.compile(
    r"\(\.{3}|\([BNT1n0-9]\b[^)]*[,)]|\bB, |H, W|shape|scalar|\(H|a picture's|\(3,|\(C"
)
TENSORS = re.compile(r"(?<!, )\b(?:Tensor|NDArray|ndarray|Array)\b")  # not in dict[str, Tensor]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BUDGETS = {"body": 60, "file": 500}


def members(name: str) -> Iterator[tuple[str, Any]]:
    """Public functions and classes of a module, and public methods of those classes."""
    module = importlib.import_module(name)
    for label, value in vars(module).items():
        if label.startswith("_") or getattr(value, "__module__", None) != name:
            continue
        if inspect.isfunction(value):
            yield f"{name}.{label}", value
        elif inspect.isclass(value):
            yield f"{name}.{label}", value
            for method, member in vars(value).items():
                function = getattr(member, "__func__", member)
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{name}.{label}.{method}", getattr(value, method)


def section(doc: str, title: str) -> str | None:
    found = re.search(rf"^{title}:\n((?:[ \t]+.*\n|\n)+)", doc + "\n", re.MULTILINE)
    return found[1] if found else None


def entries(text: str) -> list[str]:
    """First words of the least indented lines."""
    lines = [line for line in text.splitlines() if line.strip()]
    margin = min(len(line) - len(line.lstrip()) for line in lines)
    top = [line.strip() for line in lines if len(line) - len(line.lstrip()) == margin]
    return [re.split(r"[:\s(]", line.replace("*", ""))[0] for line in top if ":" in line]


@pytest.mark.parametrize("name", LIBRARY)
def test_public_names_are_documented(name):
    if name.endswith("ray_workers"):
        pytest.importorskip("ray")
    silent = []
    for label, value in members(name):
        doc = inspect.getdoc(value)
        own = label.endswith(".forward") and "Define the computation" in (doc or "")
        if not doc or own:
            silent.append(label)
    assert silent == []
    assert inspect.getdoc(importlib.import_module(name))


@pytest.mark.parametrize("name", LIBRARY)
def test_arguments_and_attributes_are_those_of_the_code(name):
    wrong = []
    for label, value in members(name):
        doc = inspect.getdoc(value) or ""
        if inspect.isclass(value):
            listed, said = section(doc, "Attributes"), dataclasses.is_dataclass(value)
            if listed is not None and said:
                fields = [f.name for f in dataclasses.fields(value) if f.name[0] != "_"]
                if sorted(entries(listed)) != sorted(fields):
                    wrong.append((label, entries(listed), fields))
        elif (listed := section(doc, "Args")) is not None:
            taken = [n for n in inspect.signature(value).parameters if n not in ("self", "cls")]
            if entries(listed) != taken:
                wrong.append((label, entries(listed), taken))
    assert wrong == []


@pytest.mark.parametrize("name", LIBRARY)
def test_tensors_have_shapes(name):
    """Of public functions that take or give tensors or arrays: somewhere in their words."""
    silent = []
    for label, value in members(name):
        if inspect.isclass(value):
            continue
        hints = " ".join(map(str, getattr(value, "__annotations__", {}).values()))
        if TENSORS.search(hints) and not SHAPE.search(inspect.getdoc(value) or ""):
            silent.append(label)
    assert silent == []


def raised(function: ast.FunctionDef) -> set[str]:
    return {
        node.exc.func.id
        for node in ast.walk(function)
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id.endswith("Error")
    }


@pytest.mark.parametrize("name", LIBRARY)
def test_errors_are_announced(name):
    """A public function's words name what it raises by itself, or its ancestor.

    Unless they are those of the class it implements.
    """
    module = importlib.import_module(name)
    tree = ast.parse(modules()[name].read_text("utf-8"))
    hidden = []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in [*tree.body, *(inner for one in classes for inner in one.body)]:
        if not isinstance(node, FUNCTIONS) or node.name.startswith("_"):
            continue
        said = ast.get_docstring(node) or ""
        if not said or said.startswith("See `"):
            continue
        for error in raised(node):
            kind = getattr(module, error, None) or getattr(__builtins__, error, None)
            ancestors = [one.__name__ for one in getattr(kind, "__mro__", ())]
            names = {error, *ancestors} - {"Exception", "BaseException", "object"}
            if not any(re.search(rf"\b{one}\b", said) for one in names):
                hidden.append(f"{node.name} raises {error}")
    assert hidden == []


@pytest.mark.parametrize("name", sorted(modules()))
def test_files_and_functions_stay_short(name):
    """At most 500 lines a file and, without signature, docstring and comments, 60 a function."""
    lines = modules()[name].read_text("utf-8").splitlines()
    assert len(lines) <= BUDGETS["file"]
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, FUNCTIONS):
            first = node.body[0]
            start = first.end_lineno if ast.get_docstring(node) is not None else first.lineno - 1
            body = [line.strip() for line in lines[start : node.end_lineno]]
            code = [line for line in body if line and not line.startswith("#")]
            assert len(code) <= BUDGETS["body"], node.name


def test_the_house_is_beside_its_neighbours():
    """The table of CONTRIBUTING is of this tree, give or take five per cent."""
    table = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    (row,) = re.findall(r"^\| \*\*restore\*\* \| (\d+) / (\d+) \|", table, re.MULTILINE)
    files = list(modules().values())
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in files)
    assert abs(int(row[0]) - len(files)) <= len(files) / 20
    assert abs(int(row[1]) - lines) <= lines / 20
