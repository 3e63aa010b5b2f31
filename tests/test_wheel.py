"""The wheel holds everything and runs from an environment that has never seen the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from restore_cli import __version__

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return next(target.glob("*.whl"))


def test_contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        listed = archive.read("restore_cli/weights_manifest.toml")
    assert listed == (ROOT / "weights_manifest.toml").read_bytes()
    package = ROOT / "restore_cli"
    for path in package.rglob("*"):
        if path.suffix in (".py", ".toml", ".safetensors", ".typed", ".j2", ".css"):
            assert path.relative_to(ROOT).as_posix() in names
    assert not [name for name in names if name.startswith(("tests/", "examples/"))]
    licences = {name.rpartition("licenses/")[2] for name in names if "/licenses/" in name}
    assert {"LICENSE", "LICENSE-weights", "NOTICE"} <= licences
    assert wheel.stat().st_size < 100e6


def test_a_release_has_absolute_links(tmp_path):
    address = "https://example.org/owner/restore-cli"
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"RESTORE_REPOSITORY": address},
        check=True,
        capture_output=True,
    )
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        path = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(path).decode()
    assert f"Project-URL: Repository, {address}\n" in metadata
    assert f"]({address}/raw/v{__version__}/docs/before-after.png)" in metadata
    links = re.findall(r"\]\(([^)\s]+)\)", metadata)
    assert len(links) > 10
    assert all(link.startswith(("https://", "#")) for link in links)


def test_builds_are_the_same_bytes(tmp_path):
    """Wheel and sdist, built twice; and the wheel out of the sdist."""

    def build(source, target):
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-d", str(target)],
            cwd=source,
            check=True,
            capture_output=True,
        )
        return {path.name: path.read_bytes() for path in target.iterdir()}

    first = build(ROOT, tmp_path / "first")
    assert sorted(Path(name).suffix for name in first) == [".gz", ".whl"]
    assert build(ROOT, tmp_path / "second") == first
    (sdist,) = (tmp_path / "first").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    for name in ("LICENSE", "LICENSE-weights", "NOTICE", "CITATION.cff", "tests", "docs/index.md"):
        assert (source / name).exists()
    wheels = build(source, tmp_path / "third")
    assert {n: b for n, b in wheels.items() if n.endswith(".whl")} == {
        n: b for n, b in first.items() if n.endswith(".whl")
    }


def test_it_runs_from_a_clean_environment(wheel, tmp_path):
    venv.create(tmp_path / "clean", with_pip=False)
    scheme = {"base": str(tmp_path / "clean"), "platbase": str(tmp_path / "clean")}
    python = sysconfig.get_path("scripts", "venv", vars=scheme) + "/python"
    site = sysconfig.get_path("purelib", "venv", vars=scheme)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # The dependencies of this environment, but not its editable install of the checkout: .pth
    # files in a folder that is itself added by a .pth are not read.
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(*arguments):
        done = subprocess.run(
            [python, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import restore_cli; print(restore_cli.__file__)")
    assert where.startswith(site)
    assert run("-m", "restore_cli", "--version").strip() == f"restore {__version__}"
    assert "\tok\t" in run("-m", "restore_cli", "weights", "verify")
    assert "mprnet-mscam" in run("-m", "restore_cli", "models")
    example = str(ROOT / "examples/motorcycle.png")
    made = run("-m", "restore_cli", "image", example, "-o", "out.png", "-x4").strip()
    assert (tmp_path / made).stat().st_size > 10_000
