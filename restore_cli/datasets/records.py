"""Records of degraded pictures: all random parameters as JSON, so that they can be reproduced."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from restore_cli.datasets.degrade_job import DegradeJob
from restore_cli.degradations.kernels import read_kernel
from restore_cli.degradations.recipe import DESCRIPTIVE_FIELDS, DegradationRecipe, Parameters
from restore_cli.degradations.steps import StepParameters
from restore_cli.errors import UsageError
from restore_cli.files import sha256, write_then_rename
from restore_cli.formatting import reason_of
from restore_cli.image.folders import list_pictures
from restore_cli.toml_file import first_problem
from restore_cli.version import __version__


@dataclass(frozen=True, slots=True)
class Record:
    """How one pair was made."""

    source: Path  # the sharp picture or video
    sha256: str  # its digest, see `digest_of`
    seed: int  # random seed of the whole set
    index: int  # index of the source among the inputs, part of its seed
    recipe: DegradationRecipe  # the recipe
    size: float  # factor by which the source was resized first
    patch: tuple[int, int] | None  # top and left of the patch, or None for the whole picture
    # first and last + 1 frame of the window of a video, or None for a picture
    frames: tuple[int, int] | None
    parameters: Parameters  # random parameters, one entry per step of the recipe
    motion: bool  # whether motion blur was applied

    def write(self, path: Path) -> None:
        """Write the record atomically."""
        values = {name: getattr(self, name) for name in self.__slots__}  # kernels are not copied
        steps = zip(self.recipe.steps, values.pop("parameters"), strict=True)
        values |= {"source": str(self.source), "version": __version__}
        values |= {"recipe": self.recipe.model_dump(mode="json")}
        values["steps"] = [{"kind": step.kind, "drawn": drawn} for step, drawn in steps]
        with write_then_rename(path) as temporary:
            temporary.write_text(json.dumps(values), "utf-8")

    def differs(self, job: DegradeJob, sha256: str, index: int) -> str:
        """Return what differs from a pair of a job: "picture", "seed", ..., or "".

        The digest and the index of the pair's source are given. The name, the description and the
        source of the recipe are not compared.
        """
        compared = {
            "picture": self.sha256 == sha256,
            "seed": self.seed == job.seed,
            "place among the inputs": self.index == index,
            "recipe": self.recipe.model_dump(exclude=DESCRIPTIVE_FIELDS)
            == job.recipe.model_dump(exclude=DESCRIPTIVE_FIELDS),
            "motion": self.motion == job.motion,
        }
        other = next((what for what, same in compared.items() if not same), "")
        return other or ("" if all(map(_same_kernel, self.parameters)) else "kernel")


_RECORD = TypeAdapter(Record)


def _same_kernel(drawn: StepParameters | None) -> bool:
    """Whether the file of a kernel still contains the kernel that was applied."""
    if drawn is None or not {"file", "kernel"} <= drawn.keys():
        return True
    return bool(read_kernel(Path(drawn["file"])).tolist() == drawn["kernel"])


def digest_of(source: Path) -> str:
    """Return the sha256 of a file, or of the names and contents of the pictures in a folder."""
    if not source.is_dir():
        return sha256(source)
    whole = hashlib.sha256()
    for path in list_pictures(source):
        whole.update(os.fsencode(f"{path.name}\0{sha256(path)}\0"))
    return whole.hexdigest()


def read_record(path: Path) -> Record:
    """Read a record; raises `UsageError` if the file cannot be read, or is not a record."""
    try:
        values = json.loads(path.read_text("utf-8"))
        steps = zip(values["recipe"]["steps"], values["steps"], strict=True)
        drawn = [step["drawn"] for _, step in steps]
        return _RECORD.validate_python(values | {"parameters": drawn})
    except ValidationError as error:
        raise UsageError(f"'{path}' is not a record of a pair: {first_problem(error)}") from error
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else reason_of(error)
        raise UsageError(f"'{path}' is not a record of a pair: {reason}") from error
