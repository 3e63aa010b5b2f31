"""Every public name says what it takes and gives, and what it says is true."""

from __future__ import annotations

import ast
import builtins
import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from typing import Any

from conftest import ROOT

from restore_cli.toml_file import Record

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "restore_cli").rglob("*.py"))
}
# The library: the command line documents itself by its help. Ray, an extra, may be missing.
LIBRARY = [
    name
    for name in MODULES
    if not name.startswith(("restore_cli.cli", "restore_cli.__main__"))
    and (find_spec("ray") or not name.endswith("ray_workers"))
]
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


def fields(value: Any) -> list[str]:
    """Of a dataclass or a record, those that its base has not."""
    if dataclasses.is_dataclass(value):
        known = {field.name for field in dataclasses.fields(value) if field.name[0] != "_"}
    elif inspect.isclass(value) and issubclass(value, Record):
        known = set(value.model_fields)
    else:
        return []
    return [name for name in inspect.get_annotations(value) if name in known]


def test_attributes_are_those_of_the_code():
    """Of dataclasses and records. Ruff checks the arguments of functions: D417, DOC102."""
    wrong = []
    for label, value in chain.from_iterable(map(members, LIBRARY)):
        listed, own = section(inspect.getdoc(value) or "", "Attributes"), fields(value)
        # Which of several steps a record is, `kind` says, and its docstring need not.
        if listed is not None and own and not {*entries(listed)} ^ {*own} <= {"kind"}:
            wrong.append((label, entries(listed), own))
    assert wrong == []


def test_tensors_have_shapes():
    """Of public functions that take or give tensors or arrays: somewhere in their words."""
    silent = []
    for label, value in chain.from_iterable(map(members, LIBRARY)):
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


def test_errors_are_announced():
    """A public function's words name what it raises by itself, or its ancestor.

    Unless they are those of the class it implements.
    """
    hidden = []
    for name in LIBRARY:
        module = importlib.import_module(name)
        tree = ast.parse(MODULES[name].read_text("utf-8"))
        classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for node in [*tree.body, *(inner for one in classes for inner in one.body)]:
            if not isinstance(node, FUNCTIONS) or node.name.startswith("_"):
                continue
            said = ast.get_docstring(node) or ""
            if not said or said.startswith("See `"):
                continue
            for error in raised(node):
                kind = getattr(module, error, None) or getattr(builtins, error, None)
                ancestors = [one.__name__ for one in getattr(kind, "__mro__", ())]
                names = {error, *ancestors} - {"Exception", "BaseException", "object"}
                if not any(re.search(rf"\b{one}\b", said) for one in names):
                    hidden.append(f"{name}.{node.name} raises {error}")
    assert hidden == []


def test_files_and_functions_stay_short():
    """At most 500 lines a file and, without signature, docstring and comments, 60 a function."""
    long = []
    for name, path in MODULES.items():
        lines = path.read_text("utf-8").splitlines()
        if len(lines) > BUDGETS["file"]:
            long.append(f"{name}: {len(lines)} lines")
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, FUNCTIONS):
                first = node.body[0]
                documented = ast.get_docstring(node) is not None
                start = first.end_lineno if documented else first.lineno - 1
                body = [line.strip() for line in lines[start : node.end_lineno]]
                code = [line for line in body if line and not line.startswith("#")]
                if len(code) > BUDGETS["body"]:
                    long.append(f"{name}.{node.name}: {len(code)} lines")
    assert long == []
