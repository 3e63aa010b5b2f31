"""The user's own weights: named once, taken everywhere, with a licence that was stated."""

from __future__ import annotations

import errno
import json
import shlex
import shutil
from pathlib import Path

import pytest
from conftest import picture, restore, rgb8
from PIL import Image
from typer.testing import CliRunner

import restore_cli
from restore_cli.cli.app import app
from restore_cli.errors import RestoreError, UsageError, WeightsError
from restore_cli.files import locked, sha256
from restore_cli.inference.loading import load_network
from restore_cli.weights import user
from restore_cli.weights.store import WeightsFile, locate, read, remove, verify

NAME = "mprnet-mscam-tiny.mine"


@pytest.fixture(autouse=True)
def registry(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def add(path, name=NAME, **options):
    options = {"overwrite": False, "digest": sha256(path)} | options
    return user.add(path, name, "mprnet-mscam", "MIT", **options)


def test_broken_records_are_removed_or_named():
    user.folder().mkdir(parents=True)
    (user.folder() / "loop.x.json").symlink_to("loop.x.json")
    assert restore("weights", "remove", "loop.x").exit_code == 0
    assert not list(user.folder().iterdir())
    (user.folder() / "a.folder.json").mkdir()
    refused = restore("weights", "remove", "a.folder")
    assert refused.exit_code == 4
    assert "a.folder.json' is a folder" in refused.stderr


@pytest.mark.parametrize("folder", ["/dev/null/x", None])
def test_a_home_that_cannot_have_weights_hides_no_file(monkeypatch, tmp_path, tiny_weights, folder):
    if folder:
        monkeypatch.setattr(user, "folder", lambda: Path(folder))
    monkeypatch.chdir(tmp_path)
    name = "w.safetensors" if folder else "w" * 240 + ".safetensors"
    shutil.copy(tiny_weights, name)
    assert locate(name, None).path == Path(name)


def test_files_without_a_known_digest_are_read_to_verify_them(tmp_path, tiny_weights):
    whole = restore("weights", "verify", tiny_weights)
    assert (whole.exit_code, "\tok\t" in whole.stdout) == (0, True)
    half = tmp_path / "half.safetensors"
    half.write_bytes(tiny_weights.read_bytes()[:-1000])
    for command in ("verify", "path"):
        broken = restore("weights", command, half)
        assert (broken.exit_code, broken.stdout) == (4, "")
        assert "not a valid safetensors file" in broken.stderr


def test_changed_and_missing_own_weights_have_the_remedy_that_works(tiny_weights):
    own = add(tiny_weights)
    own.write_bytes(own.read_bytes()[:-1000])
    remedy = f"hint: run `restore weights remove {NAME}`, then add it again"
    for command in (["info"], ["weights", "verify"], ["weights", "path"]):
        assert remedy in restore(*command, NAME).stderr
    own.unlink()
    refused = restore("info", NAME)
    assert (refused.exit_code, "is missing" in refused.stderr) == (4, True)
    assert remedy in refused.stderr


def test_verify_goes_on_after_an_unknown_name(tiny_weights):
    done = restore("weights", "verify", "nothing.x", tiny_weights)
    assert (done.exit_code, "\tok\t" in done.stdout) == (2, True)


@pytest.mark.slow
def test_a_name_works_wherever_weights_are_named(tmp_path, tiny_weights):
    done = restore("weights", "add", tiny_weights, "--name", NAME, "--license", "CC0-1.0")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{NAME}\n"
    listed = restore("weights", "list").stdout.splitlines()[-1].split("\t")
    assert (listed[0], listed[2], listed[-1]) == (NAME, "CC0-1.0", "yours")
    assert json.loads(restore("weights", "list", "--json").stdout)[-1]["own"]
    assert NAME in restore("weights", "verify", NAME).stdout
    facts = json.loads(restore("info", NAME, "--json").stdout)
    assert (facts["model"], facts["license"]) == ("mprnet-mscam", "CC0-1.0")
    assert json.loads(restore("models", "info", "mprnet-mscam", "--json").stdout)[
        "own_weights"
    ] == [NAME]
    source = tmp_path / "a.png"
    array = rgb8(picture(24, 32, 1))
    Image.fromarray(array).save(source)
    made = [tmp_path / "by_name.png", tmp_path / "by_file.png"]
    for weights, target in zip((NAME, tiny_weights), made, strict=True):
        done = restore("image", source, "-w", weights, "-o", target)
        assert done.exit_code == 0, done.stderr
    with Image.open(made[0]) as one, Image.open(made[1]) as other:
        assert one.tobytes() == other.tobytes()
    assert restore_cli.load_model(weights=NAME).scale == 4
    assert restore("weights", "remove", NAME).exit_code == 0
    assert restore("weights", "path", NAME).exit_code == 2
    assert not list(user.folder().iterdir())


def test_a_folder_of_a_run_is_its_weights(tmp_path, tiny_weights):
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(WeightsError, match="contains no weights"):
        locate(str(run), None)
    tiny_weights.rename(run / "best.safetensors")
    assert locate(str(run), None).path.name == "best.safetensors"
    (run / "best.safetensors").rename(run / "weights.safetensors")
    assert load_network(locate(str(run), None)).model.name == "mprnet-mscam"
    done = restore("weights", "add", run, "--license", "MIT")
    assert done.stdout == "mprnet-mscam.run\n", done.stderr


def test_one_wrong_name_does_not_keep_the_others(tiny_weights):
    for name in ("a.one", "a.two"):
        add(tiny_weights, name)
    done = restore("weights", "remove", "a.one", "a.three", "maxim.gopro", "a.two")
    assert done.exit_code == 4
    assert "'a.three' not found" in done.stderr
    assert "cannot be removed" in done.stderr
    assert not user.names()


def test_a_licence_is_stated_not_presumed(tiny_weights, monkeypatch):
    done = restore("weights", "add", tiny_weights, "--name", NAME)
    assert done.exit_code == 2
    assert "--license is missing" in done.stderr
    assert restore("weights", "add", tiny_weights, "--license", "as you like").exit_code == 2
    assert user.names() == []
    monkeypatch.setattr("restore_cli.cli.weights.is_terminal", lambda stream: True)
    asked = CliRunner().invoke(
        app, ["weights", "add", str(tiny_weights), "--name", NAME], input="CC-BY-4.0\n"
    )
    assert asked.exit_code == 0, asked.stderr
    assert "Licence of the weights" in asked.stderr
    assert user.find(NAME).license == "CC-BY-4.0"


@pytest.mark.parametrize("name", ["plain", "../a.b", "a.safetensors", "a.pth", "gfn-lite.shake"])
def test_names_that_would_mislead_are_refused(tiny_weights, name):
    with pytest.raises(UsageError):
        add(tiny_weights, name)
    assert user.names() == []


def test_names_are_not_taken_from_one_another(tmp_path, tiny_weights):
    add(tiny_weights)
    other = tmp_path / "other.safetensors"
    other.write_bytes(tiny_weights.read_bytes())
    with pytest.raises(UsageError, match="you have weights named"):
        add(other)
    add(other, overwrite=True)


def test_what_was_changed_or_broken_is_not_used(tiny_weights):
    path = add(tiny_weights)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for use in (load_network, verify):
        with pytest.raises(WeightsError, match=f"is not '{NAME}'") as refused:
            use(locate(NAME, None))
        assert refused.value.hint == f"run `restore weights remove {NAME}`, then add it again"
    path.with_name(f"{NAME}.json").write_text("{")
    with pytest.raises(WeightsError, match="is not a record of weights"):
        locate(NAME, None)
    listed = restore("weights", "list")  # the others
    assert (listed.exit_code, "is not a record of weights" in listed.stderr) == (0, True)
    assert remove(NAME) == len(whole) + 1
    with pytest.raises(UsageError, match="not found"):
        locate(NAME, None)


def test_what_is_added_is_what_was_loaded(tmp_path, tiny_weights):
    with pytest.raises(WeightsError, match="has changed"):
        add(tiny_weights, digest="0" * 64)
    assert user.names() == []
    assert list(user.folder().iterdir()) == []


def test_a_full_disk_leaves_neither_file_nor_record(tiny_weights, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RestoreError, match=r"No space left on device$") as raised:
        add(tiny_weights)
    assert "XDG_DATA_HOME" in raised.value.hint
    assert list(user.folder().iterdir()) == []


def test_two_processes_cannot_add_at_once(tiny_weights):
    user.folder().mkdir(parents=True)
    with (
        locked(user.folder(), RestoreError("locked")),
        pytest.raises(RestoreError, match="by another process"),
    ):
        add(tiny_weights)


def test_a_file_without_a_record_can_be_removed(tiny_weights):
    add(tiny_weights)
    (user.folder() / f"{NAME}.json").unlink()
    assert remove(NAME) > 0
    assert list(user.folder().iterdir()) == []
    unknown = restore("weights", "remove", "gfn-lite.mien")
    assert "known:" in unknown.stderr


def test_a_record_of_another_name_is_broken(tiny_weights):
    add(tiny_weights)
    record = user.folder() / f"{NAME}.json"
    shutil.copy(record, user.folder() / "other.name.json")
    with pytest.raises(WeightsError, match=r"other\.name\.json' is not a record") as raised:
        locate("other.name", None)
    assert raised.value.hint == "run `restore weights remove other.name`"
    (user.folder() / "dead.link.json").symlink_to("nowhere")
    broken = []
    assert [one.name for one in user.readable(broken.append)] == [NAME]
    assert len(broken) == 2


@pytest.mark.parametrize("name", ["-a.b", "GFN-LITE.SHAKE"])
def test_names_that_would_be_taken_for_others(name, tiny_weights):
    with pytest.raises(UsageError):
        add(tiny_weights, name)


def test_a_malformed_address_is_refused_by_remove():
    refused = restore("weights", "remove", "hf://")
    assert refused.exit_code == 4
    assert "is not hf://owner/repo" in refused.stderr


def test_a_broken_record_is_written_anew_without_loss(tiny_weights):
    path = add(tiny_weights)
    record = path.with_name(f"{NAME}.json")
    whole = record.read_bytes()
    record.write_bytes(b"\xef\xbb\xbf" + whole)  # as Notepad saves it
    assert user.find(NAME).license == "MIT"
    record.write_bytes(whole.upper())
    with pytest.raises(WeightsError, match="is not a record") as raised:
        locate(NAME, None)
    command = raised.value.hint.removeprefix("write it anew: restore ").replace(" NAME ", " MIT ")
    assert restore(*shlex.split(command)).exit_code == 0
    assert record.read_bytes() == whole
    assert path.read_bytes() == tiny_weights.read_bytes()


def test_suffixes_in_capitals(tiny_weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_weights, "OWN.SAFETENSORS")
    facts = json.loads(restore("info", "OWN.SAFETENSORS", "--json").stdout)
    assert facts["model"] == "mprnet-mscam"
    done = restore("weights", "import", "OWN.SAFETENSORS", "-o", "X.SAFETENSORS")
    assert (done.exit_code, done.stdout) == (0, "X.SAFETENSORS\n")
    assert restore("weights", "verify", "X.SAFETENSORS").exit_code == 0
    done = restore("weights", "add", "X.SAFETENSORS", "--license", "MIT")
    assert done.stdout == "mprnet-mscam.X\n"
    Path("x.PTH").write_bytes(b"\x80\x02.")
    assert "hint: convert it: restore weights import x.PTH" in restore("info", "x.PTH").stderr


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pth", b"\x80\x02.", "is not safetensors"),
        ("a.npz", b"PK\3\4", "is incomplete"),
        ("a.ckpt", b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        ("a.onnx", b"\x08\x07\0", "is an ONNX graph"),
    ],
)
def test_info_of_weights_of_others_says_what_they_are(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content)
    done = restore("info", tmp_path / name)
    assert (done.exit_code, said in done.stderr, "hint:" in done.stderr) == (4, True, True)


@pytest.mark.parametrize(
    ("content", "again"),
    [
        (lambda whole: whole[:5000], True),
        (lambda _: b"<!DOCTYPE html>", True),
        (lambda _: b"version https://git-lfs.github.com/spec/v1", True),
        (lambda _: b"\x80\x02.", False),
    ],
)
def test_a_damaged_file_of_the_hub_is_fetched_again(content, again, tmp_path, tiny_weights):
    (tmp_path / "cached").write_bytes(content(tiny_weights.read_bytes()))
    address = "hf://o/r/x.safetensors@main"
    for use in (read, verify):
        with pytest.raises(WeightsError) as raised:
            use(WeightsFile(address, tmp_path / "cached"))
        remedy = f"run `restore weights remove {address}`, then fetch it again"
        assert (raised.value.hint == remedy) == again
