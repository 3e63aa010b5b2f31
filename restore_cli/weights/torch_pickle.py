"""Reads files of `torch.save`, zip and legacy. Builds tensors and containers; executes nothing.

PyTorch's own safe reader does not read the pickled modules that the authors of one paper shipped in
the legacy format. A file of a few bytes can make it crash, hang or fill the memory, and it refuses
weights because of a harmless value beside them. This reader is an allow-list in pure Python: every
name maps to a class of its own or to an immutable one, and all memory is bounded by the file size.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from types import NoneType
from typing import IO, Any, ClassVar

import torch
from torch import Tensor

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
_CLASSES = re.compile(r"(networks\.GFN_4x|torch\.nn\.modules\.\w+|torch\.nn\.parallel\.\w+)\.\w+")
# Values that are not needed: paths, times, numbers, states of random generators. They become None.
_VALUES = re.compile(
    r"pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path"
    r"|datetime\.(datetime|date|time|timedelta|timezone)"
    r"|decimal\.Decimal|fractions\.Fraction|uuid\.UUID|_codecs\.encode"
    r"|numpy\.(dtype|ndarray|_?core\.multiarray\.scalar|random\.[\w.]+|dtypes\.\w+)"
)
_ARRAYS = re.compile(r"numpy\._?core\.(multiarray\._reconstruct|numeric\._frombuffer)")
_BUILTINS = ("builtins", "__builtin__")
_FACTORIES = ("list", "dict", "int", "float", "str", "tuple", "bool", "complex", "frozenset")
# Of nested tuples, with repeated ones counted again: hashing a deep one overflows the interpreter's
# stack, and hashing or printing (t, t) takes twice as long as t.
_MAX_TUPLE_DEPTH, _MAX_TUPLE_PARTS = 100, 10_000
_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


# How tensors are saved whose type has no storage of its own: float8, uint16, ...; complex numbers.
_UNREAD = re.compile(r"torch\._utils\._rebuild_tensor_v3|torch\.Complex\w+Storage")


class UnreadTensorError(pickle.UnpicklingError):
    """The file has tensors of a type that is not read."""


class InertModule:
    """Stand-in for a pickled object: attributes without behaviour."""


class InertArray:
    """Stand-in for a NumPy array, without its values."""

    def __init__(self, *_: object) -> None:
        pass


class InertDict(dict[Any, Any]):
    """Stand-in for dictionaries of other classes; attributes are dropped."""


def read_torch(path: Path) -> Any:
    """Read the saved object: containers, tensors, and `InertModule` for modules.

    Raises:
        pickle.UnpicklingError: a name that is not allowed, or inconsistent sizes.
        Exception: a damaged file can raise anything.
    """
    return _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)


def _read_zip(path: Path) -> Any:
    """Read a file of torch 1.6 or later: an archive with a pickle and one file per storage."""
    with zipfile.ZipFile(path) as archive:
        files = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if "data.pkl" not in files:
            raise pickle.UnpicklingError("not a PyTorch file")
        if any(info.compress_type != zipfile.ZIP_STORED for info in files.values()):
            raise pickle.UnpicklingError("its entries are compressed, which PyTorch never does")
        if "byteorder" in files and archive.read(files["byteorder"]) != b"little":
            raise pickle.UnpicklingError("written on a big-endian machine")
        with archive.open(files["data.pkl"]) as stream:
            unpickler = _Unpickler(stream, path.stat().st_size)
            content = unpickler.load()
        for key in unpickler.storages:
            with archive.open(files[f"data/{key}"]) as stream:
                unpickler.fill(key, stream)
    return content


def _read_legacy(path: Path) -> Any:
    """Read a file of torch before 1.6: several pickles, then the values of every storage."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        begin = _Unpickler(stream, size).load()
        if isinstance(begin, Mapping):  # of a plain pickle
            return begin
        if begin != MAGIC_NUMBER:
            raise pickle.UnpicklingError("not a PyTorch file")
        if _Unpickler(stream, size).load() != PROTOCOL_VERSION:
            raise pickle.UnpicklingError("an unknown version of PyTorch's format")
        if not _Unpickler(stream, size).load()["little_endian"]:
            raise pickle.UnpicklingError("written on a big-endian machine")
        unpickler = _Unpickler(stream, size)
        content = unpickler.load()
        keys = _Unpickler(stream, size).load()
        for key in keys:
            count = int.from_bytes(stream.read(8), "little")
            if count != unpickler.storages[key].numel():
                raise pickle.UnpicklingError("the file is truncated")
            unpickler.fill(key, stream)
        if set(keys) != set(unpickler.storages):
            raise pickle.UnpicklingError("the file lacks the values of some tensors")
    return content


class _Unpickler(pickle._Unpickler):
    """The allow-list. Tensors are views of zeros; their storages are read after the pickle."""

    stack: list[Any]

    def __init__(self, stream: IO[bytes], size: int) -> None:
        # Python 2 wrote strings as bytes, e.g. the source text of modules in any encoding.
        super().__init__(stream, encoding="utf-8", errors="replace")
        self.storages: dict[str, Tensor] = {}
        self._left = size  # bytes that storages may still claim
        self._tuples: dict[int, tuple[int, int]] = {}  # id -> depth, parts
        self._kept: list[Any] = []
        self._known: dict[str, Any] = {
            "collections.OrderedDict": OrderedDict,
            "collections.defaultdict": self._dict,
            "collections.Counter": self._dict,
            "collections.deque": lambda *_: [],  # which the unpickler fills
            "builtins.set": set,
            "__builtin__.set": set,
            # The factory of a defaultdict, which is never called.
            **{f"{b}.{n}": self._nothing for b in _BUILTINS for n in _FACTORIES},
            "torch._utils._rebuild_tensor": self._tensor,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch.nn.backends.thnn._get_thnn_function_backend": self._nothing,
            "torch.device": self._nothing,
            "torch.Size": self._nothing,
            # Values that training scripts save beside the weights.
            "argparse.Namespace": InertModule,
            "types.SimpleNamespace": InertModule,
            "easydict.EasyDict": InertDict,
            "addict.addict.Dict": InertDict,
            "yacs.config.CfgNode": InertDict,
            **{f"torch.{name}": dtype for name, dtype in _TYPES.items()},
            **{str(dtype): dtype for dtype in _TYPES.values()},
        }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; raises `UnreadTensorError` for types not read."""
        full = f"{module}.{name}"
        if _CLASSES.fullmatch(full):
            return InertModule
        if full in self._known:
            return self._known[full]
        if _VALUES.fullmatch(full):
            return self._nothing
        if _ARRAYS.fullmatch(full):
            return InertArray
        if full == "torch.storage._load_from_bytes":
            raise pickle.UnpicklingError("its tensors were saved by pickle.dump, not by torch.save")
        if _UNREAD.fullmatch(full):
            raise UnreadTensorError("tensors of a type that is not read, e.g. float8 or complex")
        raise pickle.UnpicklingError(f"the name {full} is not allowed")

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage, or the class of a module that was saved with its source text."""
        if pid[0] == "module":
            return pid[1]
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or any(v for v in view):
            raise pickle.UnpicklingError(f"the reference {kind!r} is not allowed")
        key = str(key)
        if key not in self.storages:
            self._left -= int(count) * dtype.itemsize
            if count < 0 or self._left < 0:
                raise pickle.UnpicklingError("its tensors are larger than the file")
            self.storages[key] = torch.zeros(int(count), dtype=dtype)
        return self.storages[key]

    def fill(self, key: str, stream: IO[bytes]) -> None:
        """Read the values of one storage."""
        storage = self.storages[key]
        wanted = storage.numel() * storage.itemsize
        content = stream.read(wanted)
        if len(content) < wanted:
            raise pickle.UnpicklingError("the file is truncated")
        if wanted:
            storage.copy_(torch.frombuffer(bytearray(content), dtype=storage.dtype))

    def load_build(self) -> None:
        """Set attributes of stand-ins; those of dictionaries are dropped."""
        state, holder = self.stack.pop(), self.stack[-1]
        if type(holder) is InertModule and isinstance(state, dict):
            holder.__dict__.update({str(name): value for name, value in state.items()})
        elif not isinstance(holder, OrderedDict | InertArray | InertDict | NoneType):
            raise pickle.UnpicklingError(f"a state for {type(holder).__name__} is not allowed")

    def append_tuple(self, before: Callable[[Any], None]) -> None:
        """Let `before` build a tuple, and refuse one that cannot be hashed in a short time."""
        before(self)
        made = self.stack[-1]
        known = [self._tuples.get(id(part), (0, 1)) for part in made]
        depth = 1 + max((depth for depth, _ in known), default=0)
        parts = 1 + sum(parts for _, parts in known)
        if depth > _MAX_TUPLE_DEPTH or parts > _MAX_TUPLE_PARTS:
            raise pickle.UnpicklingError("tuples are nested too deeply")
        self._tuples[id(made)] = depth, parts
        self._kept.append(made)  # so that no other object gets its id

    def _tensor(self, storage: Tensor, offset: int, size: Any, stride: Any, *_: object) -> Tensor:
        if prod(size) > storage.numel():  # would repeat values, as no network does
            raise pickle.UnpicklingError("a tensor is larger than its storage")
        return storage.as_strided(tuple(size), tuple(stride), offset)

    def _dict(self, *arguments: object) -> InertDict:
        """Make a dictionary from the arguments of a defaultdict or a Counter."""
        held = next((one for one in arguments if isinstance(one, dict)), {})
        return InertDict(held)

    def _nothing(self, *_: object) -> None:
        """Stand-in for calls whose result is not needed."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(pickle._Unpickler.dispatch)


def _guarded(before: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda unpickler: unpickler.append_tuple(before)


_Unpickler.dispatch[pickle.BUILD[0]] = _Unpickler.load_build
for _code in (pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3):
    _Unpickler.dispatch[_code[0]] = _guarded(_Unpickler.dispatch[_code[0]])
