"""`restore doctor`."""

import importlib
import io
import os
import platform
import re
import shutil
import sys
import sysconfig
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib import metadata
from importlib.metadata import packages_distributions
from pathlib import Path
from urllib.parse import urlsplit

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors
from restore_cli.errors import RestoreError
from restore_cli.files import existing, is_writable
from restore_cli.formatting import first_line
from restore_cli.version import __version__

Found = tuple[dict[str, object], list[str]]  # facts and problems
_DIFFERENT = 10  # of 255, from which results count as wrong: GPUs may round to 10 bits (TF32)
EPILOG = """
Examples:
  restore doctor
  restore doctor --json > report.json
"""


@handle_errors
def doctor(json: opt.JsonOpt = False) -> None:
    """Print versions, devices and caches; report problems with remedies (exit status 1)."""
    facts: dict[str, object] = {}
    problems: list[str] = []
    for examine in (_software, _command, _hardware, _results, _weights, _own_weights, _cache):
        try:
            found, remarks = examine()
        except Exception as error:  # noqa: BLE001  a broken package must not hide the rest
            name = examine.__name__.strip("_").replace("_", " ")
            found, remarks = {}, [f"{name} cannot be examined: {first_line(error)}"]
        facts |= found
        problems += remarks
    if json:
        out.echo_json({"facts": facts, "problems": problems})
    else:
        out.facts((name, str(value)) for name, value in facts.items())
        for problem in problems:
            out.echo_err(f"problem: {problem}")
        if not problems:
            out.echo_err("no problems found")
    if problems:
        raise typer.Exit(1)


def _software() -> Found:
    """Versions, and whether packages can be imported; an extra that is missing is no problem."""
    facts: dict[str, object] = {
        "restore": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }
    modules: dict[str, list[str]] = defaultdict(list)
    for name, packages in packages_distributions().items():
        for package in packages:
            modules[_normalised(package)].append(name)
    problems = []
    for package, extra in requirements().items():
        version, fault = _version(package), ""
        if version and (names := modules.get(package)):
            module = next((name for name in names if _normalised(name) == package), names[0])
            silence = redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO())
            try:
                with silence[0], silence[1], warnings.catch_warnings(action="ignore"):
                    importlib.import_module(module)
            except Exception as error:  # noqa: BLE001  packages raise errors of many types
                fault = f", cannot be imported: {first_line(error)}"
        missing = f"not installed: restore-cli[{extra}]" if extra else "missing"
        facts[package] = f"{version}{fault}" if version else missing
        if fault or not (version or extra):
            torchvision = "torchvision" in fault  # built for another torch
            remedy = "install torchvision from the same index as torch" if torchvision else ""
            again = "install it again" if not extra else f'pip install -U "restore-cli[{extra}]"'
            problems.append(f"{package} is {facts[package]}; {remedy or again}")
    return facts, problems


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements() -> dict[str, str]:
    """Return the packages that this one needs, with the extra that needs them, or ""."""
    found: dict[str, str] = {}
    for line in metadata.requires("restore-cli") or ():
        name = _normalised(re.split(r"[^\w.-]", line)[0])
        extra = re.search(r"extra == ['\"](\w+)", line)
        if extra is None or extra[1] != "dev":
            found.setdefault(name, extra[1] if extra else "")
    return found


def _command() -> Found:
    """Find the program that a shell runs as `restore`; the Debian package `dump` has one too."""
    scripts = Path(sysconfig.get_path("scripts"))
    found = shutil.which("restore")
    if found is None:
        return {"restore runs": f"nothing: '{scripts}' is not in PATH"}, []
    path = Path(found)
    with suppress(OSError):
        # The script of another environment is fine; on Windows it is a binary launcher.
        if path.parent == scripts or b"restore_cli" in path.read_bytes()[:4096]:
            return {"restore runs": found}, []
    return {"restore runs": f"{found}, which is another program"}, [
        f"'restore' runs {found}, which is not this program; call restore-cli, or put "
        f"'{scripts}' first in PATH"
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _hardware() -> Found:
    import psutil
    import torch

    from restore_cli.inference.devices import get_device, prefers_bf16

    cuda = torch.version.cuda
    device = get_device("auto")
    devices = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    memory = psutil.virtual_memory()
    facts: dict[str, object] = {
        "torch build": f"CUDA {cuda}" if cuda else "CPU" if sys.platform != "darwin" else "MPS",
        "GPUs": ", ".join(devices) or "none that torch can use",
        "device by default": str(device),
        "precision by default": "bf16" if prefers_bf16(device) else "fp32",
        "processors": f"{os.cpu_count()}, {torch.get_num_threads()} threads",
        "memory": f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free",
    }
    problems = [text for text in (opt.unused_gpu(),) if text]
    if cuda and not devices:
        problems.append("this torch is built for CUDA, but finds no GPU; see nvidia-smi")
    return facts, problems


def _results() -> Found:
    """Compare what the default models make of noise on a GPU and on the CPU."""
    import numpy as np

    from restore_cli import load_model
    from restore_cli.inference.devices import get_device
    from restore_cli.weights.manifest import default_model

    if (device := str(get_device("auto"))) == "cpu":
        return {}, []
    differences: dict[str, int] = {}
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for name in (default_model(1), default_model(4)):
        made = [load_model(name, device=d, precision="fp32")(noise) for d in ("cpu", device)]
        differences[name] = int(np.ptp(made, axis=0).max())
    wrong = [name for name, difference in differences.items() if difference > _DIFFERENT]
    return (
        {f"{name}, CPU - {device}": f"up to {n} of 255" for name, n in differences.items()},
        [f"{name} gives wrong results on {device}; use --device cpu" for name in wrong],
    )


def _verified(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names of the weights that are whole, and the problems of the others."""
    from restore_cli.weights.store import locate, verify

    good, problems = [], []
    for name in names:
        try:
            verify(locate(name, None))
        except RestoreError as error:
            problems.append(f"{error}; {error.hint}")
        else:
            good.append(name)
    return good, problems


def _weights() -> Found:
    from restore_cli.weights.manifest import load_manifest

    known = load_manifest().checkpoints.values()
    good, problems = _verified(c.name for c in known if c.source.startswith("bundled:"))
    return {"weights": f"verified: {', '.join(good) or 'none'}"}, problems


def _own_weights() -> Found:
    from restore_cli.weights import user

    folder, names = user.folder(), user.names()
    problems = []
    if not folder.is_absolute():
        problems.append(
            f"the folder of your weights '{folder}' depends on the current folder; set "
            "XDG_DATA_HOME to a whole path"
        )
    if not is_writable(folder):
        problems.append(f"'{folder}' cannot be written to; set XDG_DATA_HOME to another folder")
    problems += _verified(names)[1]
    return {"your weights": f"{len(names)} in {folder}"}, problems


def _cache() -> Found:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    nearest = existing(folder)
    free = shutil.disk_usage(nearest if nearest.exists() else nearest.parent).free
    offline = ", offline" if constants.HF_HUB_OFFLINE else ""
    problems = []
    variable = "HF_HUB_CACHE" if os.environ.get("HF_HUB_CACHE") else "HF_HOME"
    if not folder.is_absolute():
        problems.append(
            f"the cache '{folder}' depends on the current folder; set {variable} to a whole path"
        )
    try:
        address = urlsplit(constants.ENDPOINT)
        usable = address.scheme in ("https", "http") and bool(address.hostname)
        usable &= address.port != 0
    except ValueError:  # e.g. the port is not a number
        usable = False
    if not usable:
        problems.append(f"HF_ENDPOINT '{constants.ENDPOINT}' is not the address of a server")
    places = (folder, folder / ".locks")  # of downloads
    if locked := next((str(place) for place in places if not is_writable(place)), ""):
        problems.append(f"'{locked}' cannot be written to; set {variable} to another folder")
    try:
        tempfile.gettempdir()
    except OSError:
        problems.append("no temporary files can be written; set TMPDIR to a folder with free space")
    if free < 1e9:
        problems.append(f"only {free / 1e9:.2f} GB are free in '{nearest}'")
    place = f"{folder} ({free / 1e9:.0f} GB free{offline}), {constants.ENDPOINT}"
    return {"cache": place}, problems
