"""From the name of weights to a verified file on this disk."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from restore_cli.errors import WeightsError
from restore_cli.files import sha256
from restore_cli.weights.manifest import (
    Checkpoint,
    default_checkpoint,
    get_checkpoint,
    load_manifest,
)

BUNDLED = Path(__file__).parent / "bundled"
_OTHER_WEIGHTS = frozenset({".pth", ".pt", ".ckpt", ".bin", ".pkl"})
_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[\w./-]+)@(?P<revision>[\w./-]+)")


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A file of weights.

    Attributes:
        name: for people: a checkpoint's name, or what the user gave.
        path: on this disk.
        sha256: of its content.
        checkpoint: its manifest entry, or None for a file that is not listed.
    """

    name: str
    path: Path
    sha256: str
    checkpoint: Checkpoint | None


def locate(weights: str | None, model: str | None) -> WeightsFile:
    """Find weights, fetch them if they are on the Hub, and verify them.

    Args:
        weights: a checkpoint's name, a path to a `.safetensors` file,
            `hf://owner/repo/file.safetensors@revision`, or None for the model's default.
        model: a model's name; needed when `weights` is None.

    Raises:
        UsageError: unknown checkpoint.
        WeightsError: a model without one, missing, unreachable, or not what the manifest says.
    """
    if weights is None:
        return fetch(default_checkpoint(str(model)))
    for checkpoint in load_manifest().checkpoints.values():
        if checkpoint.source == weights:
            return fetch(checkpoint)
    if weights.startswith("hf://"):
        path = _download(weights)
        return WeightsFile(weights, path, sha256(path), None)
    path = Path(weights)
    if path.suffix in _OTHER_WEIGHTS:
        raise WeightsError(
            f"'{weights}' is not safetensors, and pickled files may hold programs",
            hint=f"restore weights import {weights} -o NAME.safetensors reads the authors' files",
        )
    if path.suffix == ".safetensors" or len(path.parts) > 1:
        if not path.is_file():
            raise WeightsError(f"no weights file '{weights}'", hint="see `restore weights list`")
        return WeightsFile(weights, path, sha256(path), None)
    return fetch(get_checkpoint(weights))


def fetch(checkpoint: Checkpoint) -> WeightsFile:
    """The verified file of a listed checkpoint.

    Raises:
        WeightsError: missing, unreachable, or of another content.
    """
    path = _local_path(checkpoint)
    if not path.is_file():
        raise WeightsError(
            f"the bundled file of '{checkpoint.name}' is missing: '{path}'",
            hint="the installation is damaged: pip install --force-reinstall restore-cli",
        )
    found = sha256(path)
    if found != checkpoint.sha256:
        raise WeightsError(
            f"'{path}' is not '{checkpoint.name}': sha256 {found}, expected {checkpoint.sha256}",
            hint="delete that file and fetch it again; it will not be used",
        )
    return WeightsFile(checkpoint.name, path, found, checkpoint)


def _local_path(checkpoint: Checkpoint) -> Path:
    scheme, _, rest = checkpoint.source.partition(":")
    return BUNDLED / rest if scheme == "bundled" else _download(checkpoint.source)


def _download(uri: str) -> Path:
    """Fetch `hf://owner/repo/file@revision` into the Hub's own cache, or take it from there."""
    from huggingface_hub import hf_hub_download  # noqa: PLC0415  0.4 s, not needed for bundled weights
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    match = _HUB.fullmatch(uri)
    if match is None:
        raise WeightsError(
            f"'{uri}' is not hf://owner/repo/file.safetensors@revision",
            hint="the revision pins the weights: a commit, a tag or a branch",
        )
    try:
        return Path(hf_hub_download(match["repo"], match["file"], revision=match["revision"]))
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"'{uri}' is not in the cache and the Hub cannot be reached",
            hint="check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then try again",
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise WeightsError(
            f"cannot fetch '{uri}': {reason}",
            hint="check owner, repo, file and revision; private repos need HF_TOKEN",
        ) from error
    except transport_error() as error:
        raise WeightsError(
            f"the download of '{uri}' broke off: {error}",
            hint="try again: it goes on where it stopped; HF_HUB_DOWNLOAD_TIMEOUT=60 waits longer",
        ) from error


def remove(source: str) -> int:
    """Delete fetched weights from the Hub's cache.

    Args:
        source: a checkpoint's name, or `hf://owner/repo/file@revision`; the whole revision goes.

    Returns:
        Bytes that were freed.

    Raises:
        UsageError: unknown checkpoint.
        WeightsError: bundled, or not in the cache.
    """
    from huggingface_hub import scan_cache_dir  # noqa: PLC0415  as above
    from huggingface_hub.errors import CacheNotFound  # noqa: PLC0415

    uri = source if source.startswith("hf://") else get_checkpoint(source).source
    match = _HUB.fullmatch(uri)
    if match is None:
        raise WeightsError(f"'{source}' is part of the installation", hint="it cannot be removed")
    try:
        cache = scan_cache_dir()
    except CacheNotFound:
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
    strategy = cache.delete_revisions(*commits)
    strategy.execute()
    return int(strategy.expected_freed_size)


def transport_error() -> type[BaseException]:
    """What the Hub's client raises for a network that fails.

    The client under it has changed its name twice; its errors keep this ancestor.
    """
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415  as above

    return next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
