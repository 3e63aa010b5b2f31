"""Atomic writes, checks of output paths, hashing, and reading of NumPy files."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import math
import os
import platform
import re
import shutil
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

from restore_cli.errors import RestoreError, UsageError, require
from restore_cli.formatting import format_bytes, reason_of

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOWS = os.name == "nt"
_DAY = 24 * 3600.0  # seconds
FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}  # a full disk, or a limit on what may be written
_REMEDIES = {
    **dict.fromkeys((None, errno.ENOSPC), "free disk space"),
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`), or choose another disk",
    errno.EDQUOT: "delete files: your quota on that disk is used up",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder on another disk; this one is read-only",
}
# The user's umask, since files of `mkstemp` are private. Read once, before threads start: it can be
# read only by setting it.
_UMASK = os.umask(0)
os.umask(_UMASK)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or its cause, means that nothing more can be written to a disk.

    A limit on the size of one file does not: the next may be smaller.
    """
    number = getattr(error and (error.__cause__ or error), "errno", None)
    return number in FULL - {errno.EFBIG}


@contextmanager
def write_then_rename(
    path: Path, commit: Callable[[Path, Path], object] = os.replace
) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it takes the name `path` if the block succeeds.

    The folder is made if it is missing. On any exception, Ctrl-C included, the temporary file is
    removed and `path` is left as it was. `commit` gives the temporary file its name; `link` is one
    that replaces no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{temporary_prefix(path)}{_machine()}-{os.getpid()}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(path):
            yield temporary
            # Disks without modes may refuse: drives of Windows in WSL, FUSE, CIFS.
            with suppress(OSError, NotImplementedError):
                temporary.chmod(0o666 & ~_UMASK)
            _patiently(lambda: commit(temporary, path))
    finally:
        with suppress(FileNotFoundError, *([PermissionError] if WINDOWS else [])):
            temporary.unlink()


def _patiently(step: Callable[[], object]) -> None:
    """On Windows, try again for a second: virus scanners and indexers open new files."""
    for seconds in (0.05, 0.1, 0.2, 0.3, 0.4) if WINDOWS else ():
        try:
            step()
        except PermissionError:
            time.sleep(seconds)
        else:
            return
    step()


def link(temporary: Path, path: Path) -> None:
    """Give a file the further name `path` in one step, or rename it where the disk has no links.

    Raises `FileExistsError` if the name is taken.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError as error:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "File exists", str(path)) from error
        temporary.replace(path)


@contextmanager
def writing(
    path: Path,
    kind: type[RestoreError] = RestoreError,
    also: type[Exception] = OSError,
    more: str = "",
) -> Iterator[None]:
    """Convert errors of the system, and `also` others, in the block into errors of that kind.

    Their hint is the remedy, and `more`.
    """
    try:
        yield
    except (OSError, also) as error:
        hint = "; ".join(filter(None, (remedy(error), more)))
        raise kind(f"cannot write '{path}': {reason_of(error)}", hint=hint) from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add the file's name to OS errors that lack one, e.g. when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def remedy(error: BaseException) -> str:
    """Return one line of advice for a failed write.

    Errors of safetensors state their number as text; one without a number, as torch raises it,
    counts as a full disk.
    """
    number = getattr(error, "errno", None)
    if stated := re.search(r"\(os error (\d+)\)", str(error)):  # of Windows, its own number
        code = int(stated[1])
        number = OSError(0, "", None, code).errno if WINDOWS else code
    return _REMEDIES.get(number, "choose another place")


def temporary_prefix(path: Path) -> str:
    """Return the prefix of the temporary files of `write_then_rename`; they end in `.part`."""
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
    return f".{path.name[:40]}.{digest}."


def is_abandoned(temporary: Path) -> bool:
    """Whether the process that wrote a temporary file of `write_then_rename` has ended.

    A file of another machine, or on Windows, where processes cannot be probed safely, counts as
    abandoned if it was not modified for a day.
    """
    machine, _, process = temporary.name.rsplit(".", 2)[1].partition("-")
    if machine == _machine() and os.name == "posix" and (number := process.split("-")[0]).isdigit():
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False  # the process is running as another user
        return int(number) == os.getpid()  # written by an earlier process with the same id
    with suppress(OSError):
        return time.time() - temporary.stat().st_mtime > _DAY
    return False


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def remove_abandoned(folder: Path) -> None:
    """Delete the temporary files in a folder whose processes have ended."""
    for path in filter(is_abandoned, folder.glob(".*.part")):
        path.unlink(missing_ok=True)


def remove_leftovers(targets: Iterable[Path]) -> None:
    """Delete the temporary files that a killed run left beside its outputs."""
    by_folder: dict[Path, set[str]] = defaultdict(set)
    for output in targets:
        by_folder[output.parent].add(temporary_prefix(output))
    for folder, prefixes in by_folder.items():
        for path in folder.glob(".*.part"):
            if path.name.rsplit(".", 2)[0] + "." in prefixes and is_abandoned(path):
                path.unlink(missing_ok=True)


def absolute(path: Path) -> Path:
    """Return an absolute path without `..`; unlike `resolve`, it keeps the names of links."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def fold(name: str) -> str:
    """Return one spelling for all spellings of a name that mean the same file here."""
    return normalize("NFC", name).casefold() if sys.platform in ("darwin", "win32") else name


def existing(folder: Path) -> Path:
    """Return the folder if it exists, even as a broken link; else its nearest existing parent.

    On Windows, raises `UsageError` if its drive does not exist.
    """
    for one in (folder, *folder.absolute().parents):
        if os.path.lexists(one):
            return one
    raise UsageError(f"'{folder.absolute().anchor}' does not exist", hint="choose another drive")


def is_writable(folder: Path) -> bool:
    """Whether files can be written into a folder that exists or can be created."""
    nearest = existing(folder)
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        return False
    if WINDOWS:  # where os.access does not read who may write
        try:
            tempfile.TemporaryFile(dir=nearest).close()
        except OSError:
            return False
    return True


def check_writable(folder: Path, option: str = "--output") -> None:
    """Raise a `UsageError` if a folder cannot be written to, or cannot be created."""
    if not is_writable(folder):
        raise UsageError(f"cannot write into '{folder}'", hint=f"choose another {option}")


def check_path_length(path: Path) -> None:
    """Raise a `UsageError` if a name or a path is longer than its file system allows."""
    nearest = existing(path.parent)
    if WINDOWS:
        most, longest, unit = 255, 32_767 if _has_long_paths() else 260, "characters"
        # Names of temporary files have up to 80 characters.
        length = max(_length(absolute(path)), _length(absolute(path.parent)) + 81)
    else:
        most, longest = (os.pathconf(nearest, name) for name in ("PC_NAME_MAX", "PC_PATH_MAX"))
        unit, length = "bytes", _length(path)
    name = max(path.parts, key=_length)
    if _length(name) > most or length >= longest:
        raise UsageError(
            f"the name '{name}' is longer than the {most} {unit} that '{nearest}' allows"
            if _length(name) > most
            else f"the path '{path}' is longer than the {longest} {unit} that the system allows",
            hint='choose a shorter --output, or a template such as -o "sharp/{name:.80}.{ext}"',
        )


def _length(path: str | Path) -> int:
    """Return the length in the units of the system's limits: UTF-16 on Windows, else bytes."""
    if WINDOWS:
        return len(str(path).encode("utf-16-le", "surrogatepass")) // 2
    return len(os.fsencode(path))


def _has_long_paths() -> bool:
    """Whether this Windows and this Python allow paths of more than 259 characters."""
    library = ctypes.WinDLL("ntdll")  # type: ignore[attr-defined]
    ask = getattr(library, "RtlAreLongPathsEnabled", None)  # since Windows 10, version 1607
    return ask is not None and bool(ask() & 0xFF)  # a BOOLEAN, of one byte


def check_free_space(folder: Path, needed: int) -> None:
    """Raise a `UsageError` if a folder's disk has fewer free bytes than needed."""
    free = shutil.disk_usage(existing(folder)).free
    if needed > free:
        needs, has = format_bytes(needed), format_bytes(free)
        raise UsageError(
            f"the pictures need about {needs} in '{folder}', but only {has} are free",
            hint="choose another --output, or a smaller --format such as jpeg",
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def locked(folder: Path, refusal: RestoreError) -> Iterator[None]:
    """Lock a folder against other processes; raise `refusal` if one of them has locked it.

    The system unlocks it when the process ends, however it ends. Where folders cannot be locked (on
    Windows, on some network file systems), no process is refused.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        except OSError:
            pass
        yield
    finally:
        os.close(handle)


def is_closed_pipe(error: BaseException | None) -> bool:
    """Whether the reader of a pipe has closed it, which Windows calls an invalid argument."""
    windows = WINDOWS and isinstance(error, OSError) and error.errno == errno.EINVAL
    return windows or isinstance(error, BrokenPipeError)


def write_to_stdout(data: bytes) -> bool:
    """Write bytes to stdout; return False if the reader of the pipe has closed it.

    Raises `RestoreError` if stdout cannot be written to, e.g. because its disk is full.
    """
    if sys.stdout is None:
        return False
    try:
        rest = memoryview(data)
        while rest:  # with PYTHONUNBUFFERED, `write` may write only a part
            if not (written := sys.stdout.buffer.write(rest)):
                raise RestoreError("cannot write to stdout: it does not accept more data now")
            rest = rest[written:]
        sys.stdout.flush()
    except OSError as error:
        if not is_closed_pipe(error):
            raise RestoreError(f"cannot write to stdout: {error.strerror}") from error
        # So that neither the next write nor Python's flush at exit fails again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def sha256(path: Path) -> str:
    """Return the hex digest of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_mat(path: Path, most: int, name: str = "") -> dict[str, Any]:
    """Read the variables of a `.mat` file, or that of this `name`, of at most `most` values each.

    Raises:
        UsageError: scipy is not installed.
        ValueError: the file is broken or of MATLAB 7.3, or a variable is missing or too large.
    """
    require("mat", "scipy", what=f"reading '{path}'")
    from scipy.io import loadmat, whosmat  # noqa: PLC0415  only for .mat
    from scipy.io.matlab import MatReadError  # noqa: PLC0415

    # With the two below, all exceptions that scipy raises; it executes nothing in broken files.
    broken = (MatReadError, TypeError, LookupError, OSError, EOFError, zlib.error)
    try:
        shapes = {one: shape for one, shape, _ in whosmat(path)}
        chosen = [one for one in shapes if name == one or not (name or one.startswith("__"))]
        if name and not chosen:
            raise ValueError(f"it has no '{name}'")
        for one in chosen:
            if math.prod(shapes[one]) > most:
                raise ValueError(f"'{one}' is too large: {shapes[one]}")
        return {one: loadmat(path, variable_names=[one])[one] for one in chosen}
    except NotImplementedError as error:
        raise ValueError("it is a MATLAB 7.3 file: save it in MATLAB with '-v7'") from error
    except (*broken, MemoryError, OverflowError) as error:
        raise ValueError(f"it is not a valid MATLAB file: {error}") from error


def read_npy(path: Path) -> NDArray[Any]:
    """Read an array of real numbers, of any shape, from a `.npy` file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is broken, or contains something else.
    """
    import numpy as np  # noqa: PLC0415  only for these files

    try:
        values = np.load(path, allow_pickle=False)
    except (EOFError, TypeError, MemoryError, SyntaxError, TokenError) as error:
        raise ValueError(f"it is not a valid .npy file: {error}") from error
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ValueError("it does not contain an array of real numbers")
    return values
