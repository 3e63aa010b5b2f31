"""Checkpoints that others wrote: pickles of PyTorch, archives of NumPy, variables of TensorFlow.

Nothing in a file is executed. Pickles are read by unpicklers that build tensors and containers, and
refuse every other name: PyTorch's own for its zip format, `legacy_pickle` for the one before
it. Whole pickled modules name classes; for torch's layers and the classes of the one author who
shipped such files both are given a class that holds attributes and can do nothing.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from restore_cli.errors import WeightsError
from restore_cli.weights.legacy_pickle import InertModule, module_classes, read_legacy

StateDict = dict[str, Tensor]
# Where training scripts put the weights inside what they save.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "params_ema", "params")
_DEEPEST = 50  # modules inside modules; real networks have fewer than 10 levels


def read_foreign(path: Path) -> StateDict:
    """The named tensors of a file, without wrappers and `module.` prefixes.

    Args:
        path: `.safetensors`, `.npz`, a TensorFlow checkpoint (its `.index` file, or the prefix it
            was saved under), or else a pickle of PyTorch.

    Raises:
        WeightsError: missing, unreadable, of no known kind, or holding anything but weights.
    """
    if path.suffix == ".index" or path.with_name(path.name + ".index").is_file():
        return _read_tensorflow(path.with_suffix("") if path.suffix == ".index" else path)
    if not path.is_file():
        raise WeightsError(f"no file '{path}'", hint="give the checkpoint that the authors shipped")
    readers: dict[str, Callable[[Path], StateDict]] = {
        ".safetensors": _read_safetensors,
        ".npz": _read_npz,
    }
    return _without_prefix(readers.get(path.suffix, _read_pickle)(path))


def _read_safetensors(path: Path) -> StateDict:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"'{path}' is not a whole safetensors file: {error}") from error


def _read_npz(path: Path) -> StateDict:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: _from_numpy(path, name, archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise WeightsError(f"'{path}' is not a whole .npz archive of numbers: {error}") from error


def _read_tensorflow(prefix: Path) -> StateDict:
    try:
        from tensorflow.train import load_checkpoint  # noqa: PLC0415  optional, and gigabytes
    except ImportError as error:
        raise WeightsError(
            f"'{prefix}' is a TensorFlow checkpoint, and tensorflow is not installed",
            hint="pip install tensorflow, or save its variables with numpy.savez and import that",
        ) from error
    try:
        reader = load_checkpoint(str(prefix))
        names = sorted(reader.get_variable_to_shape_map())
        return {name: _from_numpy(prefix, name, reader.get_tensor(name)) for name in names}
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(f"'{prefix}' cannot be read by tensorflow: {reason}") from error


def _from_numpy(path: Path, name: str, array: Any) -> Tensor:
    """A tensor; integers (counters of the optimiser) too, text and objects not."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise WeightsError(f"'{path}': '{name}' holds {array.dtype}, not numbers")
    return torch.from_numpy(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("=")))


def _read_pickle(path: Path) -> StateDict:
    if path.stat().st_size == 0:
        raise WeightsError(f"'{path}' is empty", hint="fetch it again")
    read = _read_zip if zipfile.is_zipfile(path) else read_legacy
    try:
        content = read(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{path}' holds more than weights, or is damaged: {_reason(error)}",
            hint="nothing in it was executed; ask its author for safetensors",
        ) from error
    # What a damaged or hostile pickle raises is without limit: RuntimeError of the zip reader,
    # KeyError and IndexError of the unpickler's stack, AttributeError, TypeError, RecursionError...
    except Exception as error:
        raise WeightsError(
            f"'{path}' is not a whole PyTorch file: {_reason(error)}",
            hint="give a .pth, .pt, .pkl, .npz or .safetensors file of weights",
        ) from error
    return {name: _plain(path, name, value) for name, value in _named(path, content).items()}


def _read_zip(path: Path) -> object:
    names = (f"{module}.{name}" for module, name in module_classes(path.read_bytes()))
    inert: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (InertModule, name) for name in sorted(names)
    ]
    with torch.serialization.safe_globals(inert):
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """One line of what torch says, without its advice to switch the safety off."""
    text = str(error)
    if forbidden := re.search(r"GLOBAL ([\w.]+)", text):
        return f"the name {forbidden[1]} is forbidden"
    lines = (text.partition("WeightsUnpickler error:")[2] or text).splitlines()
    return next((line for line in lines if line and "weights_only" not in line), repr(error))


def _named(path: Path, content: object) -> Mapping[str, object]:
    """The state dict inside what was saved."""
    for _ in range(_DEEPEST):
        if isinstance(content, InertModule):
            found: dict[str, object] = {}
            _collect(path, content, "", found, 0)
            return found
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}
        inner = [content[name] for name in _WRAPPERS if name in content]
        if len(inner) != 1:
            break
        content = inner[0]
    raise WeightsError(
        f"'{path}' holds no state dict", hint=f"looked for tensors and for {', '.join(_WRAPPERS)}"
    )


def _collect(path: Path, module: object, prefix: str, found: dict[str, object], depth: int) -> None:
    """Parameters and buffers of a pickled module, in its order."""
    if not isinstance(module, InertModule) or depth > _DEEPEST:
        raise WeightsError(f"'{path}': '{prefix.rstrip('.')}' is not a module")
    parts = [vars(module).get(f"_{kind}") or {} for kind in ("parameters", "buffers", "modules")]
    if not all(isinstance(part, Mapping) for part in parts):
        raise WeightsError(f"'{path}': the module '{prefix.rstrip('.')}' is damaged")
    for part in parts[:2]:
        found |= {prefix + str(name): value for name, value in part.items() if value is not None}
    for name, child in parts[2].items():
        if child is not None:
            _collect(path, child, f"{prefix}{name}.", found, depth + 1)


def _plain(path: Path, name: str, value: object) -> Tensor:
    """A dense tensor on the CPU."""
    if not isinstance(value, Tensor):
        raise WeightsError(f"'{path}': '{name}' is {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise WeightsError(f"'{path}': '{name}' is not a plain tensor")
    return value.detach()


def _without_prefix(state: StateDict) -> StateDict:
    """Names without the `module.` of torch's wrappers, which may be nested."""
    prefix = "module."
    while state and all(name.startswith(prefix) for name in state):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state
