"""Write the JSON Schemas of both kinds of recipe beside them, for editors that check TOML.

python tools/schemas.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from restore_cli.degradations.recipe import FOLDER as DEGRADE
from restore_cli.degradations.recipe import DegradationRecipe
from restore_cli.training.recipe import ABLATIONS, Ablations, TrainingRecipe
from restore_cli.training.recipe import FOLDER as TRAIN

if TYPE_CHECKING:
    from pydantic import BaseModel

RECIPES: dict[Path, type[BaseModel]] = {
    DEGRADE / "schema.json": DegradationRecipe,
    TRAIN / "schema.json": TrainingRecipe,
    ABLATIONS.with_name("ablations.schema.json"): Ablations,
}


def schema(kind: type[BaseModel]) -> str:
    """Return the schema as it is written."""
    return json.dumps(kind.model_json_schema(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    for path, kind in RECIPES.items():
        path.write_text(schema(kind), "utf-8")
        print(path)
