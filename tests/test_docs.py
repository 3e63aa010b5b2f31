"""The documentation is true: its commands run, its links lead somewhere, its site builds."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from typer.testing import CliRunner

from restore_cli.cli.app import app

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
FENCE = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What no test of a few minutes can do; each is still in the pages, or the test says so.
NOT_RUN = {
    "make demo": "another checkout does it",
    "make test": "this is it",
    "make bench": "ten minutes on an idle machine",
    "pip install": "tests/test_wheel.py does it",
    "restore doctor": "its status is the machine's; tests/cli/test_doctor.py has its parts",
    "--fetch": "needs the Hub",
    "torchrun": "needs several GPUs; tests/training/test_processes.py runs two processes",
    "--push-to-hub": "needs the Hub; tests/training/test_package.py has one of its own",
    "--data-root": "needs the dataset; tests/benchmarking makes small ones",
    "mprnet.safetensors+gfn": "needs two trained networks",
    "GFN_epoch_55.pkl": "the authors' own file is not to be had; tests/weights makes such files",
    "--weights gfn.safetensors": "as above",
    "msan=mine": "needs a trained network",
    "film.mp4": "needs a film; tests/datasets makes one",
    "GOPRO_Large/": "needs the dataset",
    "weights convert gfn-lite": "tests/inference/test_graphs.py runs it",
    "weights convert mprnet-mscam-lite": "as above, for a tiny network",
    "restore train maxim-mscam": "needs real pairs; tests/training/test_pool.py does it small",
    "restore train finetune": "as long as training; tests/training does it on a tiny network",
}
# What makes a command short enough.
SHORTER = {
    "--minutes 5": "--minutes 0.01",
    "--resume auto #": "--resume auto --minutes 0.01 #",
    "--dataset blurmini --model mprnet-mscam gfn bicubic": "--dataset blurmini --model bicubic",
    "--dataset blurmini --model mprnet-mscam bicubic": "--dataset blurmini --model gfn bicubic",
}


def blocks() -> list[tuple[str, str]]:
    return [
        (f"{page.relative_to(ROOT).as_posix()}-{n}", block)
        for page in PAGES
        for n, block in enumerate(FENCE.findall(page.read_text("utf-8")))
    ]


@pytest.fixture(scope="session")
def example_files(tmp_path_factory):
    """What the commands of the pages name."""
    folder = tmp_path_factory.mktemp("pages")
    generator = np.random.default_rng(0)

    def save(name: str, height: int = 40, width: int = 48, **options: object) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        values = generator.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(values).resize((width, height)).save(path, **options)

    for name in (
        "blurry.png",
        "photo.jpg",
        "shaken.jpg",
        "small.png",
        "holiday/a.jpg",
        "holiday/sub/b.jpg",
        "shots/d.tif",
    ):
        save(name)
    save("sharp.png", 160, 200)
    for name, source in zip("abc", sorted((ROOT / "examples" / "sharp").iterdir()), strict=False):
        (folder / "photos").mkdir(exist_ok=True)
        with Image.open(source) as photo:
            photo.convert("RGB").resize((560, 460)).save(folder / "photos" / f"{name}.jpg")
    shutil.copytree(folder / "photos", folder / "held-out")
    deep = generator.integers(0, 65536, (40, 48), np.uint16)
    Image.fromarray(deep).save(folder / "scan.tif")
    Image.new("RGBA", (32, 24), (200, 30, 30, 128)).save(folder / "clear.png")
    (folder / "frames.rgb").write_bytes(generator.bytes(2 * 32 * 24 * 3))
    np.save(folder / "psf.npy", np.full((3, 3), 1 / 9))
    (folder / "examples").mkdir()
    return folder


def run(command: str, folder: Path) -> tuple[int, str]:
    """Exit status and stderr; in this process where no shell is needed: torch is here already."""
    words = shlex.split(command, comments=True)
    if words[0] == "restore" and not re.search(r"[|<>&~*$]", command.partition(" #")[0]):
        with contextlib.chdir(folder):
            done = CliRunner().invoke(app, words[1:])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.stderr
    programs = Path(sys.executable).parent
    shell = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return shell.returncode, shell.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the commands are for a POSIX shell")
@pytest.mark.parametrize(("place", "block"), blocks(), ids=[place for place, _ in blocks()])
def test_commands_run(place, block, example_files, tmp_path):
    """Line by line, in one folder a block."""
    folder = tmp_path / "work"
    shutil.copytree(example_files, folder)
    done_before = {"guides/photo.md": ["restore image blurry.png"]}
    for command in next((c for page, c in done_before.items() if page in place), []):
        run(command, folder)
    if (
        "records/lr/a" in block or "--dataset pairs/ --model gfn" in block
    ) and "-o pairs/" not in block:
        run("restore degrade photos/ -o pairs/ --recipe real", folder)
    for line in block.replace("\\\n", " ").strip().splitlines():
        if not line.strip() or any(part in line for part in NOT_RUN):
            continue
        if "esrgan" in line:
            pytest.skip("tests/models/test_spandrel.py runs these on such a file")
        command = line
        for long, short in SHORTER.items():
            command = command.replace(long, short)
        output = re.search(r"-o (\S+\.\w+)", command)
        if output and (folder / output[1]).exists() and "--on-exists" not in command:
            (folder / output[1]).unlink()  # of an earlier line
        if command.startswith("restore image blurry.png") and not output:
            (folder / "blurry_x4.png").unlink(missing_ok=True)
        status, said = run(command, folder)
        assert status == 0, f"{command}\n{said[-2000:]}"


def test_what_is_not_run_is_still_there():
    text = "\n".join(block for _, block in blocks())
    pages = text + "".join(page.read_text("utf-8") for page in PAGES)
    assert [part for part in NOT_RUN if part not in pages] == []
    assert [part for part in SHORTER if part not in pages] == []


def test_every_card_is_on_the_site():
    cards = (ROOT / "docs" / "cards.md").read_text("utf-8")
    for card in (ROOT / "MODEL_CARDS").glob("*.md"):
        assert f"MODEL_CARDS/{card.name}" in cards


@pytest.mark.slow
def test_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_parser")
    pytest.importorskip("furo")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", ROOT / "docs", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for page in PAGES[1:]:
        name = page.relative_to(ROOT / "docs").with_suffix(".html")
        assert (tmp_path / name).is_file()


def test_links_lead_somewhere():
    lost = []
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
            if not target.startswith("http") and not (page.parent / target).exists():
                lost.append(f"{page.name}: {target}")
    assert lost == []
