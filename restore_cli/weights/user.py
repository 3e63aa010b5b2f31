"""The user's own weights by name: a folder with a file of weights and a record for each.

| file | what |
|---|---|
| `NAME.safetensors` | the weights |
| `NAME.json` | the record, written last: `UserWeights` |
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import ValidationError

from restore_cli.errors import RestoreError, UsageError, WeightsError
from restore_cli.files import locked, sha256, write_then_rename, writing
from restore_cli.weights.file_kinds import PICKLES
from restore_cli.weights.manifest import Weights, load_manifest

_NAME = re.compile(r"\w[\w-]*\.[\w.-]*[\w-]")
_LICENSE = re.compile(r"[A-Za-z0-9.+-]+")


class UserWeights(Weights):
    """The record of weights that the user added; the licence is the one that the user stated."""

    @property
    def path(self) -> Path:
        """The file with the weights."""
        return folder() / f"{self.name}.safetensors"


def folder() -> Path:
    """Return the folder of own weights, e.g. ~/.local/share/restore-cli/weights."""
    # On macOS and Windows, platformdirs does not read the variable.
    base = os.environ.get("XDG_DATA_HOME")
    own = Path(base, "restore-cli") if base else None
    return (own or platformdirs.user_data_path("restore-cli", appauthor=False)) / "weights"


def find(name: str) -> UserWeights | None:
    """Return the user's own weights of that name, or None; broken records raise `WeightsError`."""
    if not _NAME.fullmatch(name):
        return None
    path = folder() / f"{name}.json"
    try:
        content = path.read_bytes().removeprefix(BOM_UTF8)  # editors of Windows add it
        record = UserWeights.model_validate_json(content)
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
        if missing and not os.path.lexists(path):
            return None
        raise WeightsError(f"cannot read '{path}': {error.strerror}", hint=_remedy(path)) from error
    except ValidationError:
        record = None
    if record is None or record.name != name:
        raise WeightsError(f"'{path}' is not a record of weights of that name", hint=_remedy(path))
    return record


def _remedy(record: Path) -> str:
    """Return what to do about a broken record: no weights are deleted if they are there."""
    weights = record.with_suffix(".safetensors")
    if not weights.is_file() or record.is_dir():
        return f"run `restore weights remove {record.stem}`"
    again = f'restore weights add "{weights}" --name {record.stem} --license NAME --overwrite'
    return f"write it anew: {again}"


def all_names() -> list[str]:
    """Return the names of the listed checkpoints and of all own weights."""
    return [*load_manifest().checkpoints, *names()]


def names() -> list[str]:
    """Return the names of all own weights, sorted, including those with broken records."""
    return sorted(path.stem for path in folder().glob("*.json") if _NAME.fullmatch(path.stem))


def readable(on_broken: Callable[[WeightsError], object]) -> list[UserWeights]:
    """Return all readable records of own weights; `on_broken` gets the error of each other one."""
    records = []
    for name in names():
        try:
            records += [one for one in (find(name),) if one is not None]
        except WeightsError as error:
            on_broken(error)
    return records


def add(
    source: Path, name: str, model: str, weights_license: str, digest: str, *, overwrite: bool
) -> Path:
    """Copy a file of weights under a name that `--weights` accepts; return the path of the copy.

    The source is a `.safetensors` file that was loaded successfully, `digest` the sha256 of what
    was loaded, and the licence an SPDX name. Own weights of that name are replaced only with
    `overwrite`.

    Raises:
        UsageError: the name is in use or not allowed, or the licence is invalid.
        WeightsError: the file has changed since it was loaded.
        RestoreError: the file cannot be written, e.g. the disk is full.
    """
    check_name(name)
    check_license(weights_license)
    target = folder() / f"{name}.safetensors"
    with writing(target, more="XDG_DATA_HOME sets the folder"):
        folder().mkdir(parents=True, exist_ok=True)
        busy = RestoreError("weights are being added by another process", hint="try again")
        with locked(folder(), busy):
            check_name_free(name, overwrite=overwrite)
            # Both are written before either gets its name: a full disk leaves none of them.
            with (
                write_then_rename(target.with_name(f"{name}.json")) as record,
                write_then_rename(target) as copy,
            ):
                shutil.copyfile(source, copy)
                if sha256(copy) != digest:
                    raise WeightsError(f"'{source}' has changed", hint="run the command again")
                facts = UserWeights(
                    name=name,
                    model=model,
                    sha256=digest,
                    size=copy.stat().st_size,
                    license=weights_license,
                )
                record.write_text(facts.model_dump_json(indent=1) + "\n", "utf-8")
    return target


def remove(name: str) -> int | None:
    """Delete own weights; return the freed bytes, or None if there are none of that name.

    Raises `WeightsError` if there is a folder in place of a file.
    """
    paths = [folder() / f"{name}{suffix}" for suffix in (".json", ".safetensors")]
    if not _NAME.fullmatch(name) or not any(map(os.path.lexists, paths)):
        return None
    freed = 0
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            raise WeightsError(f"'{path}' is a folder, not a file", hint="delete it yourself")
        if os.path.lexists(path):
            freed += path.lstat().st_size
            path.unlink()
    return freed


def check_name(name: str) -> None:
    """Raise a `UsageError` if a name is like a file's, or not like `model-config.training`."""
    if not _NAME.fullmatch(name) or Path(name).suffix.lower() in {".safetensors", *PICKLES}:
        raise UsageError(
            f"invalid checkpoint name '{name}'", hint="use a name like 'mprnet-mscam-lite.mine'"
        )


def check_name_free(name: str, *, overwrite: bool) -> None:
    """Raise a `UsageError` if a name is in use, except by own weights that `overwrite` replaces."""
    if name.casefold() in map(str.casefold, load_manifest().checkpoints):
        raise UsageError(f"'{name}' is a checkpoint of restore", hint="choose another name")
    if name.casefold() in map(str.casefold, names()) and not overwrite:
        raise UsageError(
            f"you have weights named '{name}' already",
            hint="add --overwrite, or choose another --name",
        )


def check_derived_license(facts: Mapping[str, Any], name: str) -> None:
    """Raise a `UsageError` if weights of that provenance may not be shared under a licence.

    `base` in the provenance are the weights that training started from.
    """
    base = facts.get("base") or {}
    theirs = str(base.get("license", ""))
    if "-SA-" in theirs and name.upper() not in (theirs.upper(), "LICENSEREF-PRIVATE"):
        raise UsageError(
            f"the weights are fine-tuned from '{base.get('weights')}' under {theirs}, which does "
            f"not allow '{name}'",
            hint=f"use --license {theirs}, or LicenseRef-private if you do not share them",
        )


def check_license(name: str) -> None:
    """Raise a `UsageError` if a licence is not written like an SPDX name."""
    if not _LICENSE.fullmatch(name):
        raise UsageError(
            f"licence '{name}' is not an SPDX name like CC-BY-4.0",
            hint="use LicenseRef-private for weights that nobody else may use",
        )
