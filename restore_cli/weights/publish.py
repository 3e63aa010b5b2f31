"""Uploads weights to the Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from restore_cli.weights.hub import hub_errors


def push(repository: str, files: list[Path], *, private: bool) -> str:
    """Upload files as one commit to `owner/name`, and return the commit, 40 hex digits.

    The repository is created if it is missing, and is then private if that is wanted.

    Raises:
        UsageError: not the name of a repository.
        WeightsError: no token, no permission to write, or no connection.
    """
    api = HfApi()
    with hub_errors(f"write to '{repository}'"):
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(
            repository,
            [CommitOperationAdd(file.name, file) for file in files],
            commit_message=f"Weights from restore train: {files[0].stem}",
        )
    return str(done.oid)
