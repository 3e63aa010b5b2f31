"""Fetches datasets from the Hub: downloads archives and unpacks only the needed files."""

from __future__ import annotations

import re
import shutil
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, hf_hub_download

from restore_cli.datasets.registry import USER_DATA, Dataset
from restore_cli.errors import NoInputError, UsageError
from restore_cli.files import remedy, write_then_rename
from restore_cli.weights.hub import hub_errors


def fetch(dataset: Dataset, folder: Path, note: Callable[[str], None]) -> None:
    """Fetch a dataset that has a `hub` entry into a folder; complete files are kept.

    `note` is called with a line about the source and the licence.

    Raises:
        UsageError: the dataset is not on the Hub.
        NoInputError: no connection, or a broken archive.
    """
    if dataset.hub is None:
        raise UsageError(
            f"dataset '{dataset.name}' cannot be fetched by restore",
            hint="leave out --fetch"
            if dataset.home == USER_DATA
            else f"get it from {dataset.home}; expected {dataset.layout}",
        )
    hub = dataset.hub
    note(f"fetching {dataset.name} from {hub.repository}@{hub.revision[:12]}: {hub.licence}")
    download = partial(hf_hub_download, repo_type="dataset", revision=hub.revision)
    with hub_errors(f"fetch '{hub.repository}'", NoInputError):
        names = hub.archives or tuple(
            name
            for name in HfApi().list_repo_files(
                hub.repository, repo_type="dataset", revision=hub.revision
            )
            if name.endswith(".zip")
        )
    for name in names:
        with hub_errors(f"fetch '{hub.repository}'", NoInputError):
            archive = download(hub.repository, name)
        unpack(Path(archive), folder / Path(name).stem, re.compile(hub.members))


def unpack(archive: Path, folder: Path, members: re.Pattern[str]) -> int:
    """Unpack the members that match, each atomically; return the number of written files.

    Existing complete files are kept. Raises `NoInputError` if the archive is not a zip file, or has
    a broken member or a path outside the folder.
    """
    written = 0
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                if member.is_dir() or not members.fullmatch(member.filename):
                    continue
                place = PurePosixPath(member.filename)
                if place.is_absolute() or ".." in place.parts or ":" in member.filename:
                    raise NoInputError(
                        f"'{archive}' contains '{member.filename}', a path outside the folder",
                        hint="do not unpack it; fetch the archive from its authors",
                    )
                target = folder.joinpath(*place.parts)
                if target.exists() and target.stat().st_size == member.file_size:
                    continue
                with (
                    write_then_rename(target) as temporary,
                    content.open(member) as source,
                    temporary.open("wb") as stream,
                ):
                    shutil.copyfileobj(source, stream)  # zipfile verifies the checksum at the end
                written += 1
    except OSError as error:
        raise NoInputError(f"cannot unpack to '{folder}': {error}", hint=remedy(error)) from error
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise NoInputError(
            f"'{archive}' is broken: {error}", hint="delete it and fetch again"
        ) from error
    return written
