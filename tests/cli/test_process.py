import os
import subprocess
import sys

import pytest

from restore_cli.cli._process import limit_thread_spinning

SCRIPT = """
import atexit, sys, threading
from restore_cli.cli._process import abandon_threads, fast_exit
class Slow:
    def __del__(self):
        print("taken apart")
kept = Slow()
atexit.register(print, "called")
sys.stdout.write("flushed ")
{before}
fast_exit(3)
"""


def run(before=""):
    script = SCRIPT.format(before=before)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )


def test_an_error_is_printed_even_if_the_terminal_has_no_columns():
    done = subprocess.run(
        [sys.executable, "-m", "restore_cli", "info", "nosuch.png"],
        env=os.environ | {"COLUMNS": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "nosuch.png" in done.stderr


def test_leaving_calls_and_flushes_and_takes_nothing_apart():
    left = run()
    assert (left.returncode, left.stdout, left.stderr) == (3, "flushed called\n", "")


def test_threads_are_waited_for():
    left = run("threading.Timer(0.2, print, ['thread ']).start()")
    assert "thread" in left.stdout
    assert "taken apart" in left.stdout  # the usual way


def test_abandoned_threads_are_not_waited_for():
    left = run("threading.Thread(target=threading.Event().wait).start(); abandon_threads()")
    assert (left.returncode, left.stdout, left.stderr) == (3, "flushed called\n", "")


@pytest.mark.parametrize("policy", ["", "PASSIVE"])
def test_threads_spin_briefly_unless_told_otherwise(policy, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    limit_thread_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == (None if policy else "20000")
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
