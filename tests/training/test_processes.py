"""Training in processes of its own: killed at any moment, and shared by two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from training_runs import DEBLURRING, assert_same, make_recipe, rows, weights_of, write_toml

pytestmark = pytest.mark.slow

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def start(arguments, launcher=()):
    command = [sys.executable, *launcher, "-m", "restore_cli", "train", *map(str, arguments)]
    command += ["--precision", "fp32"]  # sums in another order differ less
    return subprocess.Popen(
        command,
        env=os.environ | ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out, err


def steps(run):
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path, photos, held_out):
    """Twice: once wherever the clock falls, once while a state is being written."""
    recipe = make_recipe(DEBLURRING | {"steps": 8}, {"steps": 30}, save_every=3, validate_every=4)
    toml = write_toml(tmp_path / "tiny.toml", recipe)

    def arguments(run):
        common = ("--data", photos, "--validation", held_out, "--resume", "auto", "-d", "cpu")
        return (toml, *common, "-o", run)

    whole = start(arguments(tmp_path / "whole"))
    run = tmp_path / "killed"
    rng = np.random.default_rng()
    for moment in ("somewhere", "while writing"):
        process = start(arguments(run))
        before = steps(run)
        while process.poll() is None:
            if moment == "somewhere" and steps(run) > before + 2:
                time.sleep(rng.uniform(0, 1))
                break
            if moment == "while writing" and steps(run) > before and any(run.glob(".*.part")):
                break
        process.send_signal(signal.SIGKILL)
        process.communicate()
    finish(start(arguments(run)))
    out, _ = finish(whole)
    assert out.strip() == str(tmp_path / "whole/weights.safetensors")
    assert_same(weights_of(tmp_path / "whole"), weights_of(run))
    assert [row["step"] for row in rows(run)] == list(range(1, 39))
    names = {path.name for path in run.iterdir()}
    assert names == {
        "best.safetensors",
        "curves.png",
        "metrics.jsonl",
        "state.pt",
        "validation",
        "validation.png",
        "weights.safetensors",
    }


def test_two_processes_give_the_result_of_one_also_when_resumed(tmp_path, photos):
    toml = write_toml(tmp_path / "tiny.toml", make_recipe({"steps": 5, "batch": 4}))
    shorter = write_toml(tmp_path / "shorter.toml", make_recipe({"steps": 3, "batch": 4}))
    alone = start((toml, "--data", photos, "-o", tmp_path / "one", "-d", "cpu"))
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = ("--data", photos, "-o", tmp_path / "two", "-d", "cpu", "--resume", "auto")
    finish(start((shorter, *arguments), launcher))
    out, err = finish(start((toml, *arguments), launcher))
    finish(alone)
    assert out.strip() == str(tmp_path / "two/weights.safetensors"), err  # only the first speaks
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        if not name.startswith("optimizer"):
            # Sums in another order; Adam's first steps make 2e-4 of a sign that flips near zero.
            assert torch.allclose(tensor.float(), two[name].float(), atol=1e-3), name
    losses = [[row["loss"] for row in rows(tmp_path / run)] for run in ("one", "two")]
    assert len(losses[1]) == 5
    assert losses[0] == pytest.approx(losses[1], rel=5e-3)
    assert losses[0][0] == pytest.approx(losses[1][0], abs=2e-6)  # the same data, seen once
