"""Several processes: the same pictures as one, each once, also when a process dies under them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from threading import Lock, Timer

import numpy as np
import pytest
import torch
from asking import request, spec
from PIL import Image

from restore_cli.errors import DeviceError, PictureError, RestoreError
from restore_cli.jobs.plan import Item, plan
from restore_cli.jobs.restoration import Restoration
from restore_cli.jobs.run import restore_task
from restore_cli.jobs.session import Engine
from restore_cli.jobs.workers import (
    DeviceWorkers,
    NotReadyError,
    pack_weights,
    restore_with_workers,
    unpack_weights,
)
from restore_cli.processes import ProcessPool

CPU = torch.device("cpu")
COMMAND = [sys.executable, "-m", "restore_cli", "image"]


@pytest.fixture
def folder(tmp_path):
    for n in range(12):
        values = np.random.default_rng(n).integers(0, 256, (8, 9, 3), np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(values).save(tmp_path / f"in/{n:02}.png")
    (tmp_path / "in/bad.png").write_text("no picture")
    return tmp_path / "in"


@pytest.fixture
def pipeline(tiny_weights):
    return spec("mprnet-mscam", tiny_weights).load()


class Fragile:
    """Workers in this process that die when told to."""

    crash_errors = (OSError,)
    count = 2

    def __init__(self, work, deaths):
        self.work, self.deaths = work, dict(deaths)
        self.asked, self.closed = [], False

    def submit(self, task):
        future = Future()
        name = Path(task.name).name
        self.asked.append(name)
        if self.deaths.get(name, 0):
            self.deaths[name] -= 1
            future.set_exception(OSError("gone"))
            return future
        try:
            future.set_result(restore_task(self.work, task))
        except (PictureError, DeviceError) as error:
            future.set_exception(error)
        return future

    def close(self):
        self.closed = True


def test_pictures_of_a_dead_process_go_to_another(folder, tmp_path, pipeline):
    work = Restoration(request(folder, output=tmp_path / "out"), pipeline)
    items = plan(work.request, pipeline.spec)
    workers = Fragile(work, {"00.png": 2, "05.png": 99})
    outcomes = {o.item.source.name: o for o in restore_with_workers(workers, work, items)}
    assert len(outcomes) == 13
    assert outcomes["00.png"].status == "restored"
    assert outcomes["05.png"].error.exit_code == 5
    assert "3 processes died while restoring it" in str(outcomes["05.png"].error)
    assert "not a picture" in str(outcomes["bad.png"].error)
    assert len(list((tmp_path / "out").iterdir())) == 11
    assert workers.asked.count("00.png") == 3
    assert workers.closed


def test_a_run_whose_processes_all_die_ends(folder, tmp_path, pipeline):
    work = Restoration(request(folder, output=tmp_path / "out"), pipeline)
    items = plan(work.request, pipeline.spec)
    workers = Fragile(work, dict.fromkeys([item.source.name for item in items], 99))
    outcomes = []
    with pytest.raises(NotReadyError, match="the first 3 pictures ended every process"):
        outcomes += restore_with_workers(workers, work, items)
    assert (len(set(workers.asked)), workers.closed) == (4, True)  # two at once, three to the end


def test_without_semaphores(folder, monkeypatch):
    """As in containers without a writable /dev/shm."""

    def refused(*_, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("multiprocessing.synchronize.Lock.__init__", refused)
    with pytest.raises(RestoreError, match="cannot start other processes: Read-only"):
        DeviceWorkers(spec(), request(folder), [CPU] * 2)
    with pytest.raises(RestoreError, match="cannot start other processes: Read-only"):
        ProcessPool(2)


@pytest.mark.slow
def test_a_damaged_picture_does_not_end_a_process(tmp_path):
    noise = Image.effect_noise((64, 64), 60)
    noise.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:900])
    options = ["--model", "bicubic", "-x2", "-d", "cpu,cpu", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*COMMAND, str(tmp_path), *options], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"cannot read '{tmp_path / 'b.png'}'" in done.stderr
    assert "died" not in done.stderr


class OneProcess:
    """One process that does its queue in order; one picture kills it, with all that wait."""

    crash_errors = (OSError,)
    count = 2

    def __init__(self, restoration, killer):
        self.restoration, self.killer = restoration, killer
        self.queue, self.asked, self.lock = deque(), [], Lock()

    def submit(self, task):
        future = Future()
        with self.lock:
            again = Path(task.name).name in self.asked
            assert not (again and self.queue)  # what is suspected comes alone
            self.asked.append(Path(task.name).name)
            self.queue.append((future, task))
        Timer(0.05, self.work).start()
        return future

    def work(self):
        with self.lock:
            if not self.queue:
                return
            future, task = self.queue.popleft()
            if Path(task.name).name != self.killer:
                future.set_result(restore_task(self.restoration, task))
                return
            for dead in (future, *(waiting for waiting, _ in self.queue)):
                dead.set_exception(OSError("the process ended"))
            self.queue.clear()

    def close(self):
        pass


def test_neighbours_are_not_blamed(folder, tmp_path, pipeline):
    work = Restoration(request(folder, output=tmp_path / "out", exclude=("bad.png",)), pipeline)
    items = plan(work.request, pipeline.spec)
    workers = OneProcess(work, "03.png")
    outcomes = {o.item.source.name: o for o in restore_with_workers(workers, work, items)}
    assert [name for name, o in outcomes.items() if o.status == "failed"] == ["03.png"]
    assert len(outcomes) == 12
    assert workers.asked.count("03.png") == 3


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_videos_need_no_second_device(tmp_path):
    pictures = [Item(tmp_path / f"{n}.png", tmp_path / f"{n}_x4.png") for n in range(2)]
    engine = Engine(devices=(CPU, CPU))
    assert engine.uses_other_processes(pictures)
    assert not engine.uses_other_processes(
        [*pictures, Item(tmp_path / "a.mp4", tmp_path / "b.mp4")]
    )


@pytest.mark.slow
def test_a_process_a_device(folder, tmp_path, tiny_weights):
    arguments = [*COMMAND, str(folder), "-w", str(tiny_weights), "--json"]
    one = subprocess.run(
        [*arguments, "-o", str(tmp_path / "one")], capture_output=True, check=False
    )
    two = subprocess.run(
        [*arguments, "-o", str(tmp_path / "two"), "--device", "cpu,cpu"],
        capture_output=True,
        check=False,
    )
    assert one.returncode == two.returncode == 1, two.stderr
    assert b"on cpu, cpu" in two.stderr
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    summary = json.loads(two.stdout.splitlines()[-1])
    assert (summary["status"], summary["restored"], summary["failed"]) == ("summary", 12, 1)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_process_is_replaced(folder, tmp_path, tiny_weights):
    for n in range(12, 150):
        (folder / f"{n}.png").write_bytes((folder / "01.png").read_bytes())
    (folder / "bad.png").unlink()
    out = tmp_path / "out"
    command = [*COMMAND, str(folder), "-w", str(tiny_weights), "-o", str(out), "-d", "cpu,cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()  # one is done, so both processes are there
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for child in children:
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), signal.SIGKILL)
            break
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(output.splitlines()) == 149  # and the first
    assert len(list(out.iterdir())) == 150


@pytest.mark.slow
def test_a_process_that_cannot_begin_ends_the_run(folder, tmp_path):
    broken = spec("gfn", "gone.safetensors")
    work = Restoration(request(folder, output=tmp_path / "out"), spec("gfn").load())
    items = plan(work.request, broken)
    with pytest.raises(NotReadyError, match=r"cpu: .*gone\.safetensors"):
        list(
            restore_with_workers(
                DeviceWorkers(broken, work.request, [torch.device("cpu")]), work, items
            )
        )


@pytest.mark.slow
def test_weights_travel(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.safetensors").write_bytes(b"1")
    sent = pack_weights([str(tmp_path / "a.safetensors"), None, "name"])
    here = unpack_weights(sent, tmp_path / "there")
    assert Path(here[0]).read_bytes() == b"1"
    assert here[1:] == (None, "name")
