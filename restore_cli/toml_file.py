"""Typed TOML: reads a file into a frozen pydantic model; errors name the key in one line."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from restore_cli.errors import RecipeError, UsageError, nearest_name, suggestion, unknown_name

Kind = TypeVar("Kind", bound=BaseModel)


class Record(BaseModel):
    """Base class of records in files: frozen; unknown keys, nan and inf are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def names(folder: Path) -> list[str]:
    """Return the names of the files in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load(
    kind: type[Kind], name_or_path: str, folder: Path, what: str, others: Sequence[str] = ()
) -> Kind:
    """Read a `kind` of record from `folder/name.toml`, or from the path if it ends in `.toml`.

    The error of an unknown name calls it `what` and may suggest `others`, which are not files.

    Raises:
        UsageError: the name or the file does not exist.
        RecipeError: not TOML, an unknown key, a wrong type or a value out of range.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml":
        if not path.is_file():
            raise _no_file(path, names(folder))
    else:
        path = folder / f"{name_or_path}.toml"
        if not path.is_file():
            raise unknown_name(what, name_or_path, [*names(folder), *others])
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))
        # Via JSON, since strict validation of JSON accepts lists for tuples.
        return kind.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise RecipeError(f"{path}: {first_problem(error)}") from error
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
        raise RecipeError(f"{path} is not TOML: {error}") from error


def _no_file(path: Path, known: Sequence[str]) -> UsageError:
    """Return the error for a file that does not exist; `known` are names that need no file."""
    hint = "`restore recipes list` shows the recipes that need no file"
    if near := nearest_name(path.name, (one.name for one in path.parent.glob("*.toml"))):
        hint = f"did you mean '{path.parent / near}'?"
    elif path.stem in known:
        hint = f"did you mean '{path.stem}', which comes with restore?"
    return UsageError(f"no such file: '{path}'", hint=hint)


def first_problem(error: ValidationError) -> str:
    """Return the first of an error's reasons, and the key that it concerns."""
    errors = error.errors()
    # A misspelt key is also a missing one.
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
    where = ".".join(map(str, first["loc"]))
    message = first["msg"].lower().removeprefix("value error, ")
    if first["type"] == "extra_forbidden":
        missing = [str(one["loc"][-1]) for one in errors if one["type"] == "missing"]
        message = "unknown key"
        message += f".{guess}" if (guess := suggestion(str(first["loc"][-1]), missing)) else ""
    return f"{where}: {message}" if where else message
