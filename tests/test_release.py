"""What a release is made of agrees with itself."""

from __future__ import annotations

import re
import tomllib

import yaml
from conftest import ROOT

from restore_cli import __version__
from restore_cli.weights.manifest import load_manifest

CHANGELOG = (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_version_is_said_once_and_repeated_truly():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == __version__
    assert citation["cff-version"] == "1.2.0"
    assert ("date-released" in citation) == (f"## {__version__} - " in CHANGELOG)
    assert {"message", "title", "authors"} <= citation.keys()
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert tomllib.loads(text)["project"]["dynamic"] == ["version", "readme", "urls"]


def test_licences_say_what_the_package_says():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    weights = {one.license for one in load_manifest().checkpoints.values()}
    assert weights == {"CC-BY-SA-4.0", "Apache-2.0"}
    assert project["license"] == "Apache-2.0 AND MIT AND CC-BY-SA-4.0"
    maxim = (ROOT / "LICENSE-maxim").read_text("utf-8")
    assert "Google LLC" in maxim
    assert "Kevin Scott" in maxim
    assert "Attribution-ShareAlike 4.0" in (ROOT / "LICENSE-weights").read_text("utf-8")
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert "MODEL_CARDS/training-photos.md" in (ROOT / "NOTICE").read_text("utf-8")


def test_container_takes_the_versions_of_the_tests():
    docker = (ROOT / "Dockerfile").read_text("utf-8")
    constraints = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    found = re.findall(r'"(\w+==[\d.]+)"', docker)
    assert len(found) == 2
    for pinned in found:
        assert pinned in constraints, pinned
