"""Records: what was drawn for a degraded picture, as JSON, so that it can be made again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from restore_cli.degradations.recipe import DegradationRecipe, Parameters
from restore_cli.errors import UsageError
from restore_cli.files import write_then_rename
from restore_cli.version import __version__
from restore_cli.wording import first_line

_WORDS = {"name", "description", "source"}  # of a recipe; they change no pixel


@dataclass(frozen=True, slots=True)
class Record:
    """How one pair was made.

    Attributes:
        source: the sharp picture or video.
        sha256: of that file; "" for a folder of frames.
        seed: of the whole set.
        index: of the source among the inputs, part of its seed.
        recipe: that was followed.
        size: the source was scaled by this first.
        patch: top and left of the piece that was cut out, or None for the whole picture.
        frames: first and last + 1 frame of the window of a video, or None for a picture.
        parameters: drawn, one per step of the recipe.
        motion: whether the camera moved.
    """

    source: Path
    sha256: str
    seed: int
    index: int
    recipe: DegradationRecipe
    size: float
    patch: tuple[int, int] | None
    frames: tuple[int, int] | None
    parameters: Parameters
    motion: bool = True

    def write(self, path: Path) -> None:
        """Write the record, whole or not at all."""
        steps = zip(self.recipe.steps, self.parameters, strict=True)
        values = {
            "source": str(self.source),
            "sha256": self.sha256,
            "seed": self.seed,
            "index": self.index,
            "version": __version__,
            "recipe": self.recipe.model_dump(mode="json"),
            "size": self.size,
            "patch": self.patch,
            "frames": self.frames,
            "motion": self.motion,
            "steps": [{"kind": step.kind, "drawn": drawn} for step, drawn in steps],
        }
        with write_then_rename(path) as temporary:
            temporary.write_text(json.dumps(values), "utf-8")

    def differs(
        self, sha256: str, seed: int, index: int, recipe: DegradationRecipe, *, motion: bool
    ) -> str:
        """What distinguishes it from a pair that is to be made: "picture", "seed", ..., or "".

        Args:
            sha256: of the source.
            seed: of the set.
            index: of the source among the inputs.
            recipe: to follow; its words do not count.
            motion: whether the camera is to move.
        """
        compared = {
            "picture": self.sha256 == sha256,
            "seed": self.seed == seed,
            "place among the inputs": self.index == index,
            "recipe": self.recipe.model_dump(exclude=_WORDS) == recipe.model_dump(exclude=_WORDS),
            "motion": self.motion == motion,
        }
        return next((what for what, same in compared.items() if not same), "")


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        UsageError: it cannot be read, or is no record.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        recipe = DegradationRecipe.model_validate_json(json.dumps(values["recipe"]), strict=True)
        steps = zip(recipe.steps, values["steps"], strict=True)
        return Record(
            source=Path(values["source"]),
            sha256=values["sha256"],
            seed=values["seed"],
            index=values["index"],
            recipe=recipe,
            size=values["size"],
            patch=values["patch"] and (values["patch"][0], values["patch"][1]),
            frames=values["frames"] and (values["frames"][0], values["frames"][1]),
            parameters=[drawn["drawn"] for _, drawn in steps],
            motion=values.get("motion", True),  # earlier versions drew no other sets
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, ValidationError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(f"'{path}' is not a record of a pair: {reason}") from error
