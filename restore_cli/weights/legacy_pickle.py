"""PyTorch's format before 1.6: pickles in a row, then the numbers. Builds tensors, runs nothing.

PyTorch's own safe reader takes state dicts of this format, but not whole modules, which is what one
of the papers' authors shipped in it.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
# Classes as a pickle of protocol 2 names them: torch's layers, and the authors' (GFN).
_CLASS = r"networks\.GFN_4x|torch\.nn\.modules\.\w+|torch\.nn\.parallel\.data_parallel"


class InertModule:
    """Stands for any pickled module: attributes, no behaviour."""


def module_classes(content: bytes) -> set[tuple[str, str]]:
    """Module and name of every class of a network that a pickle among these bytes may mention."""
    found = re.findall(rf"c({_CLASS})\n(\w+)\n".encode(), content)
    return {(module.decode(), name.decode()) for module, name in found}


def read_legacy(path: Path) -> Any:
    """What was saved: containers, tensors, and `InertModule` for modules.

    Raises:
        pickle.UnpicklingError: a name that is not on the list, or not this format.
        Exception: damaged files fail in every way that unpickling can.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        if _Unpickler(stream, size).load() != MAGIC_NUMBER:
            raise pickle.UnpicklingError("no PyTorch file")
        if _Unpickler(stream, size).load() != PROTOCOL_VERSION:
            raise pickle.UnpicklingError("a version of PyTorch's format that nobody wrote")
        if not _Unpickler(stream, size).load()["little_endian"]:
            raise pickle.UnpicklingError("written on a big-endian machine")
        unpickler = _Unpickler(stream, size)
        content = unpickler.load()
        for key in _Unpickler(stream, size).load():
            unpickler.fill(str(key), stream)
        unpickler.refuse_unfilled()
    return content


class _Unpickler(pickle.Unpickler):
    """An allow-list. All it hands out is its own or immutable, so that a pickle can change nothing.

    Storages come after the pickle: tensors are made as views of zeros, which `fill` fills.
    """

    _TYPES: ClassVar[dict[str, torch.dtype]] = {
        "DoubleStorage": torch.float64,
        "FloatStorage": torch.float32,
        "HalfStorage": torch.float16,
        "LongStorage": torch.int64,
        "IntStorage": torch.int32,
        "ByteStorage": torch.uint8,
    }

    def __init__(self, stream: IO[bytes], size: int) -> None:
        super().__init__(stream)
        self._left = size  # bytes that storages may still claim: a short file has small tensors
        self._storages: dict[str, Tensor] = {}
        self._filled: set[str] = set()
        self._module = type("InertModule", (InertModule,), {})
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): OrderedDict,
            ("builtins", "set"): set,
            ("__builtin__", "set"): set,
            ("torch._utils", "_rebuild_tensor"): self._tensor,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            ("torch.nn.backends.thnn", "_get_thnn_function_backend"): self._nothing,
            **{("torch", name): dtype for name, dtype in self._TYPES.items()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name."""
        if re.fullmatch(_CLASS, module) and re.fullmatch(r"\w+", name):
            return self._module
        if (module, name) not in self._known:
            raise pickle.UnpicklingError(f"the name {module}.{name} is forbidden")
        return self._known[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """A storage, or the class of a module that was saved with its source text."""
        if pid[0] == "module":
            return pid[1]
        kind, dtype, key, _, count, view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or view is not None:
            raise pickle.UnpicklingError(f"the reference {kind!r} is forbidden")
        if key not in self._storages:
            self._left -= int(count) * dtype.itemsize
            if count < 0 or self._left < 0:
                raise pickle.UnpicklingError("its tensors are larger than the file")
            self._storages[key] = torch.zeros(int(count), dtype=dtype)
        return self._storages[key]

    def fill(self, key: str, stream: IO[bytes]) -> None:
        """Read the numbers of one storage."""
        storage = self._storages[key]
        count = int.from_bytes(stream.read(8), "little")
        content = stream.read(storage.numel() * storage.itemsize)
        if count != storage.numel() or len(content) < storage.numel() * storage.itemsize:
            raise pickle.UnpicklingError("the file is cut off")
        if count:
            storage.copy_(torch.frombuffer(bytearray(content), dtype=storage.dtype))
        self._filled.add(key)

    def refuse_unfilled(self) -> None:
        """Raise when a tensor's numbers were not in the file."""
        if self._filled != set(self._storages):
            raise pickle.UnpicklingError("the file lacks numbers of its tensors")

    def _tensor(self, storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
        if prod(size) > storage.numel():  # repeated values; no network has them
            raise pickle.UnpicklingError("a tensor is larger than its storage")
        return storage.as_strided(tuple(size), tuple(stride), offset)

    def _parameter(self, tensor: Tensor, *_: object) -> Tensor:
        return tensor

    def _nothing(self, *_: object) -> None:
        """Functions that old pickles of modules call for bookkeeping."""
