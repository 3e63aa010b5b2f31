"""Weights from the Hub: the real client against a server that misbehaves."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hub_server import Hub, serve
from huggingface_hub.errors import LocalEntryNotFoundError

from restore_cli.errors import WeightsError
from restore_cli.weights.hub import _transport_error, hub_errors
from restore_cli.weights.store import locate, remove

REPOSITORY, FILE = "someone/weights", "net.safetensors"
# What `restore` does with weights, in a process of its own.
SCRIPT = """
import sys
from restore_cli.errors import RestoreError
from restore_cli.weights.manifest import load_manifest
from restore_cli.weights.store import locate, verify
uri, digest = sys.argv[1:]
try:
    if digest:
        known = load_manifest().checkpoints
        some, changes = next(iter(known.values())), {"source": uri, "sha256": digest}
        known["listed"] = some.model_copy(update=changes | {"name": "listed"})
        found = verify(locate("listed", None))
    else:
        found = locate(uri, None)
except RestoreError as error:
    print(f"{error} | {error.hint}")
    sys.exit(error.exit_code)
print(found.path)
"""


@dataclass
class Client:
    """A user's machine: its own cache, and what it is told of the Hub."""

    hub: Hub
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, revision: str, digest: str = "", file: str = FILE, repository=REPOSITORY):
        uri = f"hf://{repository}/{file}@{revision}"
        return [sys.executable, "-c", SCRIPT, uri, digest]

    def settings(self):
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        return kept | {
            "HF_ENDPOINT": self.hub.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "1",
            "HF_HUB_ETAG_TIMEOUT": "1",
            **self.environment,
        }

    def fetch(self, *arguments, **options):
        done = subprocess.run(
            self.command(*arguments, **options),
            capture_output=True,
            text=True,
            env=self.settings(),
            check=False,
        )
        return done.returncode, done.stdout.strip(), done.stderr


@pytest.fixture
def hub():
    hub = Hub()
    server = serve(hub)
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def client(hub, tmp_path):
    return Client(hub, tmp_path / "home")


CONTENT = b"weights" * 20_000


@pytest.mark.slow
def test_good_weights_come_once(hub, client):
    commit = hub.commit(REPOSITORY, {FILE: CONTENT})
    digest = hashlib.sha256(CONTENT).hexdigest()
    for _ in range(2):
        code, path, _ = client.fetch(commit, digest)
        assert code == 0
        assert Path(path).read_bytes() == CONTENT
    assert len([line for line in hub.asked if line.startswith(f"GET /{REPOSITORY}")]) == 1


@pytest.mark.slow
def test_a_download_that_is_cut_goes_on_where_it_was(hub, client):
    commit = hub.commit(REPOSITORY, {FILE: CONTENT})
    hub.fault, hub.faults = "cut", 1
    code, path, errors = client.fetch(commit)
    if code:  # the client gave up; the next call takes up what is there
        code, path, errors = client.fetch(commit)
    assert code == 0, (path, errors)
    assert Path(path).read_bytes() == CONTENT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "message"),
    [("cut", "was lost"), ("503", "cannot fetch"), ("hang", "was lost")],
)
def test_a_hub_out_of_order(hub, client, fault, message):
    commit = hub.commit(REPOSITORY, {FILE: CONTENT})
    hub.fault = fault
    code, text, errors = client.fetch(commit)
    assert code == 4, errors
    assert message in text
    assert "|" in text
    assert text.rpartition("|")[2].strip()  # a remedy
    assert "\n" not in text
    hub.fault = ""
    assert client.fetch(commit)[0] == 0  # nothing broken was left in the cache


@pytest.mark.slow
def test_another_content_than_listed_is_refused(hub, client):
    hub.commit(REPOSITORY, {FILE: b"others"})
    code, text, _ = client.fetch("main", hashlib.sha256(CONTENT).hexdigest())
    assert code == 4
    assert "is not 'listed'" in text


@pytest.mark.slow
def test_a_branch_that_moved_is_noticed(hub, client):
    first = hub.commit(REPOSITORY, {FILE: CONTENT})
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert client.fetch("main", digest)[0] == 0
    hub.commit(REPOSITORY, {FILE: b"newer"})
    assert client.fetch("main", digest)[0] == 4
    assert client.fetch(first, digest)[0] == 0  # a commit stays what it is


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"revision": "0" * 40}, "Revision"),
        ({"file": "other.safetensors"}, "Entry"),
        ({"repository": "someone/else"}, "Repository"),
    ],
)
def test_what_is_not_there(hub, client, change, words):
    commit = hub.commit(REPOSITORY, {FILE: CONTENT})
    code, text, _ = client.fetch(**({"revision": commit} | change))
    assert code == 4
    assert "HF_TOKEN" in text
    assert words in text or "404" in text


@pytest.mark.slow
def test_a_private_repository(hub, client):
    commit = hub.commit(REPOSITORY, {FILE: CONTENT})
    hub.token = "hf_secret"
    code, text, _ = client.fetch(commit)
    assert code == 4
    assert "HF_TOKEN" in text
    client.environment["HF_TOKEN"] = "hf_secret"
    assert client.fetch(commit)[0] == 0


@pytest.mark.slow
def test_offline_with_and_without_a_cache(hub, client):
    commit = hub.commit(REPOSITORY, {FILE: CONTENT})
    client.environment["HF_HUB_OFFLINE"] = "1"
    code, text, _ = client.fetch(commit)
    assert code == 4
    assert "HF_HUB_OFFLINE" in text
    assert hub.asked == []
    del client.environment["HF_HUB_OFFLINE"]
    assert client.fetch(commit)[0] == 0
    client.environment["HF_HUB_OFFLINE"] = "1"
    asked = len(hub.asked)
    assert client.fetch(commit)[0] == 0
    assert len(hub.asked) == asked


@pytest.mark.slow
def test_two_processes_at_once(hub, client):
    commit = hub.commit(REPOSITORY, {FILE: CONTENT})
    results = []

    def fetch():
        results.append(client.fetch(commit, hashlib.sha256(CONTENT).hexdigest()))

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [code for code, _, _ in results] == [0, 0]
    assert results[0][1] == results[1][1]
    assert Path(results[0][1]).read_bytes() == CONTENT


@pytest.mark.slow
def test_what_was_fetched_can_be_removed(hub, client):
    commit = hub.commit(REPOSITORY, {FILE: CONTENT})
    path = Path(client.fetch(commit)[1])
    command = [sys.executable, "-m", "restore_cli", "weights", "remove"]

    def remove(name, settings=None):
        return subprocess.run(
            [*command, name],
            capture_output=True,
            text=True,
            env=settings or client.settings(),
            check=False,
        )

    done = remove(f"hf://{REPOSITORY}/{FILE}@{commit}")
    assert done.returncode == 0, done.stderr
    assert "0.1 MB freed" in done.stderr
    assert not path.exists()
    for cache in (None, __file__):  # a file is no cache either
        settings = client.settings() | ({"HF_HUB_CACHE": cache} if cache else {})
        again = remove(f"hf://{REPOSITORY}/{FILE}@{commit}", settings)
        assert again.returncode == 4
        assert "is not in the cache" in again.stderr
    assert remove("mprnet-mscam-lite.shake").returncode == 4


def test_errors_of_the_disk_have_a_remedy_for_the_disk():
    with pytest.raises(WeightsError) as caught, hub_errors("fetch it"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "check owner" not in caught.value.hint
    assert "HF_HOME" in caught.value.hint


ADDRESS = "hf://owner/name/a.safetensors@main"


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch):
    asked = []

    def download(*_, local_files_only=False, **__):
        asked.append("the cache" if local_files_only else "the Hub, five times")
        raise LocalEntryNotFoundError("not there")

    def refuse(url):
        asked.append("the Hub")
        raise _transport_error()("connection refused")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    with pytest.raises(WeightsError, match="the Hub cannot be reached: connection refused"):
        locate(ADDRESS, None)
    assert asked == ["the cache", "the Hub"]


def test_a_folder_in_the_cache_has_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(WeightsError, match="is missing") as caught:
        locate(ADDRESS, None)
    assert f"restore weights remove {ADDRESS}" in caught.value.hint


def test_what_may_not_be_removed_is_an_error(monkeypatch, tmp_path, capfd):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "a.safetensors").write_bytes(b"0" * 1000)
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path))
    address = ADDRESS.replace("main", "0" * 40)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", refuse)
        with pytest.raises(WeightsError, match=r"cannot remove .*Permission denied") as caught:
            remove(address)
    assert "HF_HOME" in caught.value.hint
    assert "Traceback" not in capfd.readouterr().err
    assert remove(address) == 1000
    assert not snapshot.exists()


def test_an_address_of_the_hub_that_is_none():
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:bad"}
    done = subprocess.run(
        [sys.executable, "-m", "restore_cli", "weights", "path", ADDRESS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "HF_ENDPOINT" in done.stderr
