"""A real Ray cluster of two machines, both here, one of them killed in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from asking import request, spec
from PIL import Image
from typer.testing import CliRunner

from restore_cli.cli.app import app
from restore_cli.errors import DeviceError
from restore_cli.jobs.plan import plan
from restore_cli.jobs.restoration import Restoration
from restore_cli.jobs.workers import restore_with_workers

ray_workers = pytest.importorskip("restore_cli.jobs.ray_workers")
cluster_utils = pytest.importorskip("ray.cluster_utils")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = cluster_utils.Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "object_store_memory": 10**8, "include_dashboard": False},
    )
    cluster.second = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    cluster.wait_for_nodes()
    before = signal.getsignal(signal.SIGTERM)
    yield cluster
    cluster.shutdown()
    signal.signal(signal.SIGTERM, before)  # Ray leaves its own


def test_bare_exceptions_of_ray_are_errors_of_the_device(monkeypatch, tmp_path):
    def fail(**_):
        raise Exception("the node timed out")  # noqa: TRY002  as Ray raises it

    monkeypatch.setattr(ray_workers.ray, "init", fail)
    asked = request(tmp_path, output=tmp_path)
    with pytest.raises(DeviceError, match="no Ray cluster at 'local': the node timed out"):
        ray_workers.RayWorkers(spec("bicubic", None), asked, "local", None)


def test_one_machine_dies_and_no_picture_is_lost(cluster, tmp_path, tiny_weights):
    (tmp_path / "in").mkdir()
    for n in range(60):
        values = np.random.default_rng(n).integers(0, 256, (16, 18, 3), np.uint8)
        Image.fromarray(values).save(tmp_path / f"in/{n:02}.png")
    (tmp_path / "in/bad.png").write_text("no picture")
    pipeline = spec("mprnet-mscam", tiny_weights).load()
    work = Restoration(request(tmp_path / "in", output=tmp_path / "out"), pipeline)
    workers = ray_workers.RayWorkers(pipeline.spec, work.request, cluster.address, None)
    assert workers.count == 2
    outcomes = []
    for outcome in restore_with_workers(workers, work, plan(work.request, pipeline.spec)):
        outcomes.append(outcome)
        if len(outcomes) == 5:
            cluster.remove_node(cluster.second, allow_graceful=False)
    names = [outcome.item.source.name for outcome in outcomes]
    assert len(names) == len(set(names)) == 61  # each once
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert ["not a picture" in str(outcome.error) for outcome in failed] == [True]
    assert len(list((tmp_path / "out").iterdir())) == 60
    whole = tmp_path / "whole"
    command = [sys.executable, "-m", "restore_cli", "image", str(tmp_path / "in")]
    command += ["--precision", "fp32"]  # as on a cluster
    subprocess.run(
        [*command, "-o", str(whole), "-w", str(tiny_weights)], capture_output=True, check=False
    )
    for path in whole.iterdir():
        with Image.open(path) as one, Image.open(tmp_path / "out" / path.name) as other:
            assert np.abs(np.array(one).astype(int) - np.array(other)).max() <= 1

    # And by the command, on the machine that is left.
    arguments = ["image", str(tmp_path / "in"), "-w", str(tiny_weights), "--engine", "ray"]
    arguments += ["--address", cluster.address, "-o", str(tmp_path / "again"), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1  # of the one that is no picture
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["status"], summary["restored"], summary["failed"]) == ("summary", 60, 1)
    assert "the Ray cluster" in done.stderr


def test_no_cluster_is_an_error_not_a_wait(tiny_weights):
    with pytest.raises(DeviceError, match="no Ray cluster"):
        ray_workers.RayWorkers(spec("gfn"), request(tiny_weights), "auto", None)
