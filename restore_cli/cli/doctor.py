"""`restore doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors
from restore_cli.errors import RestoreError
from restore_cli.files import existing, is_writable
from restore_cli.version import __version__

PACKAGES = (
    *("torch", "numpy", "pyvips", "pillow", "opencv-python-headless", "safetensors"),
    *("huggingface-hub", "typer", "rich"),
)
EXTRAS = {
    **{"pillow-heif": "heif", "av": "video", "ray": "ray", "tensorboard": "tensorboard"},
    **{"accelerate": "train", "matplotlib": "train", "onnxruntime": "onnx", "spandrel": "zoo"},
    **{"starlette": "serve", "scipy": "mat"},
}
EPILOG = """
Examples:

  restore doctor

  restore doctor --json > report.json
"""


@handle_errors
def doctor(json: opt.JsonOpt = False) -> None:
    """Print versions, devices and caches; report problems with remedies (exit status 1)."""
    facts, problems = _software(), []
    facts["restore runs"], remarks = _command()
    problems += remarks
    hardware, remarks = _hardware()
    facts |= hardware
    problems += remarks
    facts["weights"], remarks = _weights()
    problems += remarks
    facts["cache"], remarks = _cache()
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


def _software() -> dict[str, object]:
    facts: dict[str, object] = {
        "restore": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }
    for package in PACKAGES:
        facts[package] = _version(package) or "missing"
    for package, extra in EXTRAS.items():
        facts[package] = _version(package) or f"not installed: restore-cli[{extra}]"
    return facts


def _command() -> tuple[str, list[str]]:
    """Find the program that a shell runs as `restore`; the Debian package `dump` has one too."""
    scripts = Path(sysconfig.get_path("scripts"))
    found = shutil.which("restore")
    if found is None:
        return f"nothing: '{scripts}' is not in PATH", []
    path = Path(found)
    with suppress(OSError):
        # The script of another environment is fine; on Windows it is a binary launcher.
        if path.parent == scripts or b"restore_cli" in path.read_bytes()[:4096]:
            return found, []
    return f"{found}, which is another program", [
        f"'restore' runs {found}, which is not this program; call restore-cli, or put "
        f"'{scripts}' first in PATH"
    ]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hardware() -> tuple[dict[str, object], list[str]]:
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


def _weights() -> tuple[str, list[str]]:
    from restore_cli.weights.manifest import load_manifest
    from restore_cli.weights.store import fetch

    good, problems = [], []
    for checkpoint in load_manifest().checkpoints.values():
        if not checkpoint.source.startswith("bundled:"):
            continue
        try:
            fetch(checkpoint)
        except RestoreError as error:
            problems.append(f"{error}; {error.hint}")
        else:
            good.append(checkpoint.name)
    return f"verified: {', '.join(good) or 'none'}", problems


def _cache() -> tuple[str, list[str]]:
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
    if not is_writable(folder):
        problems.append(f"'{folder}' cannot be written to; set {variable} to another folder")
    if free < 1e9:
        problems.append(f"only {free / 1e9:.2f} GB are free in '{nearest}'")
    return f"{folder} ({free / 1e9:.0f} GB free{offline}), {constants.ENDPOINT}", problems
