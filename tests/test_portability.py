"""What other systems and devices lack or do differently, simulated: Windows, WSL, MPS."""

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import picture, restore, rgb8
from PIL import Image
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from typer.core import TyperGroup
from typer.main import get_command

from restore_cli import files, metrics, processes
from restore_cli.cli.app import app
from restore_cli.datasets.degrade_job import check_unique_names
from restore_cli.errors import NoInputError, UsageError
from restore_cli.image import folders
from restore_cli.inference.memory import is_out_of_memory
from restore_cli.jobs import inputs
from restore_cli.models.layers import memory_format
from restore_cli.models.registry import MODELS
from restore_cli.resample import resize_bicubic
from restore_cli.training.data import upload
from restore_cli.training.losses import LOSSES
from restore_cli.weights import user

META = torch.device("meta")


def save_picture(path):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(rgb8(picture(16, 24))).save(path)


class NoFloat64(TorchDispatchMode):
    """A device without float64, as MPS."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "meta":
                assert tensor.dtype != torch.float64, func
        return made


class Packed(TorchFunctionMode):
    """Convolutions and attention take packed maps only: on MPS, views have given wrong values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in (torch.conv2d, torch.conv_transpose2d, scaled_dot_product_attention):
            for x in args[:3]:
                if isinstance(x, torch.Tensor):
                    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
                    assert x.is_contiguous() or last, (x.shape, x.stride())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", MODELS)
def test_networks_run_on_mps(name):
    model = MODELS[name]
    with META:
        network = model.build(model.tiny).eval()
        image = torch.rand(1, 3, *map(model.size.padded, (128, 192)))
    with NoFloat64(), Packed(), torch.no_grad():
        network(image)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_run_on_mps(name, monkeypatch):
    mps = SimpleNamespace(device=torch.device("mps"), float=lambda: 32, double=lambda: 64)
    assert metrics._wide(mps) == 32
    monkeypatch.setattr(metrics, "_wide", lambda image: image.float())
    with NoFloat64():
        LOSSES[name](torch.empty(1, 3, 64, 64, device=META), torch.empty(1, 3, 64, 64, device=META))


def test_long_axes_are_resampled_on_mps():
    with NoFloat64():
        assert resize_bicubic(torch.empty(1, 3, 8, 4000, device=META), 4, 2000).shape[-1] == 2000


def test_memory_format_and_copies_of_mps(monkeypatch):
    assert memory_format(torch.device("mps")) == torch.contiguous_format
    copied = []
    monkeypatch.setattr(
        torch.Tensor, "to", lambda x, device, non_blocking: copied.append(non_blocking) or x
    )
    upload([torch.zeros(3, 4, 4)], torch.device("mps"))
    assert copied == [False]
    assert is_out_of_memory(RuntimeError("Invalid buffer size: 9.75 GiB"))


@pytest.fixture
def windows(monkeypatch):
    """What can be had of Windows without a drive letter."""
    for module in (files, folders):
        monkeypatch.setattr(module, "WINDOWS", True)
    monkeypatch.setattr(files, "fcntl", None)
    monkeypatch.setattr(files, "_has_long_paths", lambda: False)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.delattr(os, "pathconf", raising=False)


def test_a_picture_is_restored(windows, tmp_path):
    save_picture(tmp_path / "a.png")
    done = restore("image", tmp_path / "a.png", "-m", "bicubic", "-x2", "-o", tmp_path / "b.png")
    assert done.exit_code == 0, done.stderr


def test_a_disk_without_modes(monkeypatch, tmp_path):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with files.write_then_rename(tmp_path / "a") as temporary:
        temporary.write_text("a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_a_scanner_holds_for_a_moment(windows, tmp_path):
    tries = []

    def commit(temporary, path):
        tries.append(path)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "in use")
        temporary.replace(path)

    with files.write_then_rename(tmp_path / "a", commit) as temporary:
        temporary.write_text("a")
    assert (tmp_path / "a").read_text() == "a"
    assert len(tries) == 3


def test_the_error_is_not_hidden_by_the_file_that_stays(windows, monkeypatch, tmp_path):
    def hold(*_, **__):
        raise PermissionError(errno.EACCES, "in use")

    monkeypatch.setattr(Path, "unlink", hold)
    with (
        pytest.raises(OSError, match="No space"),
        files.write_then_rename(tmp_path / "a"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_arguments_reach_us_as_they_are(monkeypatch):
    """Typer replaces patterns in those that it reads itself."""
    given = []
    monkeypatch.setattr(TyperGroup, "main", lambda self, args, **options: given.append(args))
    monkeypatch.setattr(sys, "argv", ["restore", "image", "photo[1].jpg", "--include", "*.jpg"])
    get_command(app).main(standalone_mode=False)
    assert given == [sys.argv[1:]]


def test_information_on_a_pattern(tmp_path):
    save_picture(tmp_path / "b[1].png")
    save_picture(tmp_path / "b1.png")
    done = restore("info", tmp_path / "b*.png")
    assert done.stdout.count("b1.png") == done.stdout.count("b[1].png") == 1
    assert "b1.png" not in restore("info", tmp_path / "b[1].png").stdout


def test_a_drive_that_does_not_exist(windows, monkeypatch):
    monkeypatch.setattr(os.path, "lexists", lambda _: False)
    with pytest.raises(UsageError, match="does not exist"):
        files.existing(Path("/a/b"))
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(NoInputError, match="no such file"):
        inputs.pictures(Path("/a/*.png"))


def test_a_folder_that_only_seems_writable(windows, monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "denied")

    assert files.is_writable(tmp_path)
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert not files.is_writable(tmp_path)


def test_lengths_of_names(windows, tmp_path, monkeypatch):
    files.check_path_length(Path("/", "名" * 200))
    with pytest.raises(UsageError, match="255 characters"):
        files.check_path_length(Path("/", "a" * 256))
    with pytest.raises(UsageError, match="260 characters"):  # with the name of a temporary file
        files.check_path_length(Path("/", "a" * 190, "b.png"))
    monkeypatch.setattr(files, "_has_long_paths", lambda: True)
    files.check_path_length(Path("/", "a" * 190, "b.png"))


def test_junctions_are_not_followed(windows, monkeypatch, tmp_path):
    save_picture(tmp_path / "My Pictures" / "a.png")
    save_picture(tmp_path / "other" / "b.png")
    monkeypatch.setattr(folders, "_is_junction", lambda entry: entry.name == "My Pictures")
    found = folders.list_pictures(tmp_path, recursive=True)
    assert [path.name for path in found] == ["b.png"]


@pytest.mark.skipif(os.name == "nt", reason="knows the encoding of the console")
def test_lists_in_the_encoding_of_the_console(monkeypatch):
    monkeypatch.setattr(os, "fsdecode", lambda name: name.decode("utf-8", "surrogatepass"))
    with pytest.raises(UsageError, match="not valid UTF-8"):
        inputs.read_list(b"\x82.jpg\n", separator=b"\n")


def test_a_closed_pipe_is_an_invalid_argument(windows):
    assert files.is_closed_pipe(OSError(errno.EINVAL, "Invalid argument"))
    assert not files.is_closed_pipe(OSError(errno.ENOSPC, "No space left on device"))


def test_more_processes_than_windows_can_wait_for(monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    processes.ProcessPool(64).shutdown()


def test_cores_of_the_job(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert processes.usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert processes.usable_cores() == os.cpu_count()


def test_names_that_differ_in_case_only(monkeypatch):
    pair = [Path("a/IMG.jpg"), Path("b/img.png")]
    monkeypatch.setattr(sys, "platform", "linux")
    check_unique_names(pair)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(UsageError, match="two inputs are called 'img'"):
        check_unique_names(pair)


def test_own_weights_are_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_data_path", lambda *_, **__: Path("/elsewhere"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user.folder() == tmp_path / "restore-cli" / "weights"
    monkeypatch.delenv("XDG_DATA_HOME")
    assert user.folder() == Path("/elsewhere/weights")
