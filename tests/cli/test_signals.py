"""Signals: whatever ends a command, nothing incomplete is left, and the status says so."""

import importlib
import os
import signal
import subprocess
import sys
import time
from io import BytesIO

import psutil
import pytest
from conftest import ROOT
from training_runs import save_photos

from restore_cli.cli._signals import exit_status_for, install_signal_handlers
from restore_cli.errors import Interrupted
from restore_cli.image.vips import VipsImage, save_with_vips

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to send")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def usual():
    """The usual effects, also of processes started here: what runs in the background has others."""
    before = {number: signal.getsignal(number) for number in (*SIGNALS, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_each_signal_has_its_status():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    install_signal_handlers()
    with pytest.raises(Interrupted) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert exit_status_for(stop.value) == 143
    with pytest.raises(KeyboardInterrupt) as stop:
        os.kill(os.getpid(), signal.SIGINT)
    assert exit_status_for(stop.value) == exit_status_for(None) == 130
    os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_import_is_not_torn(tmp_path, monkeypatch, name):
    install_signal_handlers()
    code = f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\n"
    (tmp_path / "half_imported.py").write_text(f"{code}time.sleep(0.2)\nwhole = 1\n")
    monkeypatch.syspath_prepend(tmp_path)

    def import_and_wait():
        importlib.import_module("half_imported")
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        import_and_wait()
    assert sys.modules["half_imported"].whole == 1
    del sys.modules["half_imported"]


def test_a_signal_while_libvips_writes_is_not_lost():
    install_signal_handlers()

    class File(BytesIO):
        def write(self, data):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().write(data)

    file = File()

    def save_and_wait():
        save_with_vips("png", file, VipsImage.black(9, 9))
        time.sleep(5)

    with pytest.raises(Interrupted):
        save_and_wait()
    assert b"IEND" in file.getvalue()


def started(*arguments, folder):
    return subprocess.Popen(
        [sys.executable, "-m", "restore_cli", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process, done, seconds=120):
    until = time.monotonic() + seconds
    while not done():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_pictures_are_whole_after_a_signal(tmp_path, tiny_weights, number):
    save_photos(tmp_path / "in", [(48, 60)] * 200)
    command = ["image", "in", "-o", "out", "-w", str(tiny_weights), "--tile", "32"]
    process = started(*command, "--overlap", "8", folder=tmp_path)
    wait_for(process, lambda: len(list(tmp_path.glob("out/*.png"))) > 2)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "interrupted" in said
    assert 2 < len(list(tmp_path.glob("out/*.png"))) < 200
    assert not list(tmp_path.glob("out/.*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_page_ends_without_a_traceback(tmp_path, monkeypatch, number):
    pytest.importorskip("uvicorn")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = started("serve", "--port", "0", folder=tmp_path)
    assert process.stdout.readline().startswith("http")
    time.sleep(1)  # the address is printed before uvicorn handles signals
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said == "interrupted; no incomplete files are left\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, number):
    save_photos(tmp_path / "in", [(200, 240)] * 60)
    command = ["degrade", "in", "-o", "out", "--recipe", "shake", "--jobs", "2"]
    process = started(*command, folder=tmp_path)
    wait_for(process, lambda: list(tmp_path.glob("out/records/*")))
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(number)
    process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
