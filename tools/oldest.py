"""Print the lower bounds of the package's dependencies as constraints for pip, one per line.

python tools/oldest.py > oldest.txt

`make test-oldest` runs the quick tests with these versions. torch is left out: its oldest builds
without CUDA are on another index than its newest.
"""

from __future__ import annotations

import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement


def oldest(project: Path) -> list[str]:
    """List `name==version.*` for every `>=` of a `pyproject.toml`; its development tools aside."""
    facts = tomllib.loads(project.read_text("utf-8"))["project"]
    extras = [lines for extra, lines in facts["optional-dependencies"].items() if extra != "dev"]
    pins = []
    for requirement in map(Requirement, chain(facts["dependencies"], *extras)):
        bounds = [one.version for one in requirement.specifier if one.operator == ">="]
        if bounds and requirement.name != "torch" and requirement.marker is None:
            pins.append(f"{requirement.name}=={bounds[0]}.*")
    return pins


if __name__ == "__main__":
    print("\n".join(oldest(Path(__file__).parent.parent / "pyproject.toml")))
