"""Weights to the Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from restore_cli.errors import UsageError, WeightsError
from restore_cli.weights.store import transport_error

TRANSPORT_ERROR = transport_error()


def push(repository: str, files: list[Path], *, private: bool) -> str:
    """Upload files as one commit; the repository is made if it is missing.

    Args:
        repository: `owner/name`.
        files: to upload, under their names.
        private: of a repository that is made.

    Returns:
        The commit, 40 hex digits: a revision that stays.

    Raises:
        UsageError: not the name of a repository.
        WeightsError: no token, no right to write, or no connection.
    """
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(
            repository,
            [CommitOperationAdd(file.name, file) for file in files],
            commit_message=f"Weights from restore train: {files[0].stem}",
        )
    except LocalTokenNotFoundError as error:
        raise WeightsError("the Hub wants a token", hint="run `hf auth login`") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise WeightsError(
            f"the Hub refused '{repository}': {status}",
            hint="check that the token may write there: `hf auth whoami`",
        ) from error
    except HFValidationError as error:
        raise UsageError(f"'{repository}' is no name for the Hub: {error}") from error
    except (TRANSPORT_ERROR, OSError) as error:
        raise WeightsError(
            f"cannot reach the Hub: {error}", hint="the files are written; push again later"
        ) from error
    return str(done.oid)
