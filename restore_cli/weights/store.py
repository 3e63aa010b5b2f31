"""Finds weights by name, fetches them, and verifies their files."""

from __future__ import annotations

import errno
import logging
import os
import re
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from restore_cli.errors import WeightsError, unknown_name
from restore_cli.files import sha256
from restore_cli.weights import user
from restore_cli.weights.checkpoint import CheckpointFile, read_checkpoint
from restore_cli.weights.file_kinds import PICKLES, DamagedFileError, detect_kind
from restore_cli.weights.hub import check_reachable, hub_errors
from restore_cli.weights.manifest import Checkpoint, default_checkpoint, load_manifest

if TYPE_CHECKING:
    from huggingface_hub import DeleteCacheStrategy

BUNDLED = Path(__file__).parent / "bundled"
_DAMAGED = "the installation is damaged: install restore again"
RUN_WEIGHTS_FILES = RESULT, BEST = "weights.safetensors", "best.safetensors"  # of a training run
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[\w./-]+)@(?P<revision>[\w./-]+)")


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights."""

    name: str  # a checkpoint's name, or the user's name for the file
    path: Path  # local path
    sha256: str = ""  # expected digest; "" if none is known
    checkpoint: Checkpoint | None = None  # its manifest entry, or None if it is not listed
    license: str = ""  # SPDX licence of the weights, or "" if none is stated


def locate(weights: str | None, model: str | None) -> WeightsFile:
    """Find weights, and fetch them if they are on the Hub; `read` and `verify` verify them.

    Args:
        weights: name of a checkpoint or of the user's own weights; path of a `.safetensors` file or
            of the folder of a training run; `hf://owner/repo/file.safetensors@revision`; or None
            for the model's default.
        model: name of the model; needed if `weights` is None.

    Raises:
        UsageError: unknown checkpoint.
        WeightsError: the model has no checkpoint, or the weights are missing or unreachable.
    """
    if weights is None:
        return _listed(default_checkpoint(str(model)))
    for checkpoint in load_manifest().checkpoints.values():
        if weights in (checkpoint.name, checkpoint.source):
            return _listed(checkpoint)
    if weights.startswith("hf://"):
        return _existing(WeightsFile(weights, _download(weights)))
    if (own := user.find(weights)) is not None:
        return _existing(WeightsFile(own.name, own.path, own.sha256, license=own.license))
    return _of_path(weights)


def _of_path(weights: str) -> WeightsFile:
    """Return a file, or the weights in the folder of a training run."""
    path = Path(weights)
    if path.is_dir():
        return _of_run(path)
    if path.suffix.lower() in PICKLES and path.is_file():
        detect_kind(path)  # whose errors say more
        raise WeightsError(
            f"'{weights}' is not safetensors, and pickled files may contain code",
            hint=f"convert it: restore weights import {weights} -o NAME.safetensors",
        )
    if path.is_file():
        return WeightsFile(weights, path)
    if path.suffix.lower() in {".safetensors", *PICKLES} or len(path.parts) > 1:
        raise WeightsError(f"no weights file '{weights}'", hint="see `restore weights list`")
    raise unknown_name("checkpoint", weights, user.all_names())


def read(file: WeightsFile) -> CheckpointFile:
    """Read a file once, and verify its sha256; raises `WeightsError` if either fails."""
    try:
        content = _read(file)
    except WeightsError:
        if file.sha256 and file.path.is_file():
            _check_digest(file, sha256(file.path))
        raise
    _check_digest(file, content.sha256)
    return content


def _read(file: WeightsFile) -> CheckpointFile:
    """Read a file; the remedy for a damaged one in the Hub's cache is to fetch it again."""
    try:
        return read_checkpoint(file.path)
    except DamagedFileError as error:
        if not file.name.startswith("hf://"):
            raise
        raise WeightsError(str(error), hint=_remedy_for(file)) from error


def verify(file: WeightsFile) -> WeightsFile:
    """Verify the sha256 of a file, and return the record with it; without one, read the file.

    Raises `WeightsError` if it is missing, has another digest than expected, or is not safetensors.
    """
    try:
        found = sha256(file.path) if file.sha256 else _read(file).sha256
    except OSError as error:
        raise WeightsError(f"cannot read '{file.path}': {error.strerror}") from error
    _check_digest(file, found)
    return replace(file, sha256=found)


def _check_digest(file: WeightsFile, found: str) -> None:
    if file.sha256 not in ("", found):
        raise WeightsError(
            f"'{file.path}' is not '{file.name}': sha256 {found}, expected {file.sha256}",
            hint=_remedy_for(file),
        )


def _remedy_for(file: WeightsFile) -> str:
    """Return what to do about a file that has changed."""
    if file.path.is_relative_to(BUNDLED):
        return _DAMAGED
    if file.path.parent == user.folder():
        return f"run `restore weights remove {file.name}`, then add it again"
    if file.checkpoint or file.name.startswith("hf://"):
        return f"run `restore weights remove {file.name}`, then fetch it again"
    return "the file was changed in the meantime; run the command again"


def _listed(checkpoint: Checkpoint) -> WeightsFile:
    """Return the file of a listed checkpoint, not verified yet."""
    scheme, _, rest = checkpoint.source.partition(":")
    path = BUNDLED / rest if scheme == "bundled" else _download(checkpoint.source)
    return _existing(
        WeightsFile(checkpoint.name, path, checkpoint.sha256, checkpoint, checkpoint.license)
    )


def _existing(file: WeightsFile) -> WeightsFile:
    if not file.path.is_file():
        raise WeightsError(
            f"the file of '{file.name}' is missing: '{file.path}'", hint=_remedy_for(file)
        )
    return file


def _of_run(folder: Path) -> WeightsFile:
    """Return the weights in the folder of a training run: the final, else the best ones so far."""
    path = next((folder / name for name in RUN_WEIGHTS_FILES if (folder / name).is_file()), None)
    if path is None:
        raise WeightsError(
            f"'{folder}' contains no weights: neither {' nor '.join(RUN_WEIGHTS_FILES)}",
            hint="give a .safetensors file, or the --output folder of `restore train`",
        )
    return WeightsFile(str(path), path)


def _hub_address(uri: str) -> re.Match[str]:
    """Split `hf://owner/repo/file@revision`."""
    match = _HUB.fullmatch(uri)
    if match is None:
        raise WeightsError(
            f"'{uri}' is not hf://owner/repo/file.safetensors@revision",
            hint="the revision is a commit, a tag or a branch",
        )
    return match


def _download(uri: str) -> Path:
    """Return the path of `hf://owner/repo/file@revision` in the Hub's cache; fetch if needed."""
    repository, file, revision = _hub_address(uri).group("repo", "file", "revision")
    with hub_errors(f"fetch '{uri}'"):
        from huggingface_hub import hf_hub_download  # noqa: PLC0415  as in `hub_errors`
        from huggingface_hub.errors import LocalEntryNotFoundError  # noqa: PLC0415

        fetch = partial(hf_hub_download, repository, file, revision=revision)
        try:
            fetch(local_files_only=True)
        except LocalEntryNotFoundError:
            check_reachable(repository, file, revision)
        return Path(fetch())


def remove(source: str) -> int:
    """Delete the user's own weights, or fetched ones from the Hub's cache; return freed bytes.

    Of `hf://owner/repo/file@revision`, the whole revision is deleted.

    Raises:
        UsageError: unknown checkpoint.
        WeightsError: bundled, not in the cache, or not allowed.
    """
    if (freed := user.remove(source)) is not None:
        return freed
    with hub_errors(f"remove '{source}'"):
        from huggingface_hub import scan_cache_dir  # noqa: PLC0415  as above
        from huggingface_hub.errors import CacheNotFound  # noqa: PLC0415

    listed = load_manifest().checkpoints
    hub = source.startswith("hf://")
    if not hub and source not in listed:
        raise unknown_name("checkpoint", source, user.all_names())
    uri = source if hub else listed[source].source
    match = _hub_address(source) if hub else _HUB.fullmatch(uri)
    if match is None:
        raise WeightsError(
            f"'{source}' is part of the installation, and cannot be removed",
            hint="`restore weights list` shows which weights are bundled",
        )
    try:
        cache = scan_cache_dir()
    except (CacheNotFound, ValueError):  # the latter if it is a file
        repositories = []
    else:
        repositories = [repo for repo in cache.repos if repo.repo_id == match["repo"]]
    commits = [
        revision.commit_hash
        for repository in repositories
        for revision in repository.revisions
        if match["revision"] in (revision.commit_hash, *revision.refs)
    ]
    if not commits:
        raise WeightsError(f"'{source}' is not in the cache", hint="nothing was removed")
    with hub_errors(f"remove '{source}'"):
        return _delete(cache.delete_revisions(*commits))


def _delete(strategy: DeleteCacheStrategy) -> int:
    """Delete files of the Hub's cache; return the freed bytes. Raises `OSError`."""
    # What may not be deleted is only logged, with a traceback.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    strategy.execute()
    for path in (*strategy.repos, *strategy.snapshots, *strategy.blobs):
        if os.path.lexists(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return int(strategy.expected_freed_size)
