"""The Hugging Face Hub: errors of its client as errors of restore, with remedies; uploads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from restore_cli.errors import RestoreError, UsageError, WeightsError
from restore_cli.files import remedy
from restore_cli.formatting import first_line

_NAMES = (
    "check owner, name, file and revision, and HF_ENDPOINT if it is set; private repositories and "
    "writing need HF_TOKEN or `hf auth login`"
)


@contextmanager
def hub_errors(action: str, kind: type[RestoreError] = WeightsError) -> Iterator[None]:
    """Convert errors of the Hub's client in the block into errors of restore.

    The action is what was tried, e.g. "fetch 'hf://...'" or "write to 'owner/name'".

    Raises:
        UsageError: not the name of a repository.
        RestoreError: of the given kind: no connection, token or permission, or an unknown name.
    """
    from huggingface_hub import errors  # noqa: PLC0415  0.4 s, not needed for bundled weights

    transport = _transport_error()
    # httpx does not derive it from ValueError, as others do
    invalid = getattr(sys.modules[transport.__module__.partition(".")[0]], "InvalidURL", ValueError)
    try:
        yield
    except errors.LocalTokenNotFoundError as error:
        raise kind(
            f"cannot {action}: the Hub requires a token", hint="run `hf auth login`"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        reason = f": {first_line(error.__cause__)}" if error.__cause__ else ""
        raise kind(
            f"cannot {action}: it is not in the cache and the Hub cannot be reached{reason}",
            hint="check the network, HF_ENDPOINT and HF_HUB_OFFLINE, then try again",
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(f"cannot {action}: {first_line(error)}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise kind(
            f"cannot {action}: the Hub answered with {status}: {first_line(error)}", hint=_NAMES
        ) from error
    except (transport, ConnectionError, TimeoutError) as error:
        raise kind(
            f"cannot {action}: the connection to the Hub was lost: {first_line(error)}",
            hint="try again; the download resumes. HF_HUB_DOWNLOAD_TIMEOUT=60 waits longer",
        ) from error
    except (OSError, ValueError, invalid) as error:  # the last two: HF_ENDPOINT is no address
        disk = isinstance(error, OSError) and error.errno is not None  # full, or not writable
        hint = f"{remedy(error)}; HF_HOME sets the folder of the cache" if disk else _NAMES
        raise kind(f"cannot {action}: {first_line(error)}", hint=hint) from error


def _transport_error() -> type[BaseException]:
    """Return the ancestor that errors of the client's HTTP library, changed twice, have kept."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415  as above

    return next(one for one in HfHubHTTPError.__mro__ if one.__name__ == "HTTPError")


def check_reachable(repository: str, file: str, revision: str) -> None:
    """Raise `LocalEntryNotFoundError` if the Hub does not answer when it is asked for a file.

    A download would try it again for half a minute before it says so.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url  # noqa: PLC0415  as above

    try:
        get_hf_file_metadata(hf_hub_url(repository, file, revision=revision))
    except errors.HfHubHTTPError:
        pass  # it answers; the download states the error, or tries again
    except (errors.OfflineModeIsEnabled, _transport_error()) as error:
        raise errors.LocalEntryNotFoundError(str(error)) from error


def push(repository: str, files: list[Path], *, private: bool) -> str:
    """Upload files as one commit to `owner/name`, and return the commit, 40 hex digits.

    The repository is created if it is missing, and is then private if that is wanted.

    Raises:
        UsageError: not the name of a repository.
        WeightsError: no token, no permission to write, or no connection.
    """
    from huggingface_hub import CommitOperationAdd, HfApi  # noqa: PLC0415  as above

    api = HfApi()
    with hub_errors(f"write to '{repository}'"):
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.create_commit(
            repository,
            [CommitOperationAdd(file.name, file) for file in files],
            commit_message=f"Weights from restore train: {files[0].stem}",
        )
    return str(done.oid)
