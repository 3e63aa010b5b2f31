"""Pictures through pipes, lists of them, runs that are killed: as a shell would do it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from conftest import restore
from PIL import Image
from typer.testing import CliRunner

from restore_cli.cli._terminal import Bar
from restore_cli.cli.app import app
from restore_cli.files import write_then_rename

COMMAND = [sys.executable, "-m", "restore_cli", "image"]


def make(path, seed=0, size=(16, 12)):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def shell(*arguments, stdin=b""):
    """As in a pipe, but in this process, which has imported torch already."""
    return CliRunner().invoke(app, ["image", *map(str, arguments)], input=stdin)


def test_a_picture_through_a_pipe(tmp_path, tiny_weights):
    data = make(tmp_path / "a.png").read_bytes()
    done = shell("-", "-w", tiny_weights, "-x2", stdin=data)
    assert done.exit_code == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout_bytes)) as image:
        assert (image.format, image.size) == ("PNG", (32, 24))
    named = shell("-", "-o", "-", "-w", tiny_weights, "-f", "jpeg", stdin=data)
    assert named.stdout_bytes.startswith(b"\xff\xd8\xff")
    filed = shell("-", "-w", tiny_weights, "-o", tmp_path / "b.png", "--json", stdin=data)
    assert json.loads(filed.stdout_bytes.splitlines()[0])["status"] == "restored"
    broken = shell("-", "-w", tiny_weights, stdin=b"no picture")
    assert broken.exit_code == 1
    assert broken.stdout_bytes == b""
    assert "'stdin' is not a picture" in broken.stderr


def test_lists_of_files(tmp_path, tiny_weights):
    paths = [make(tmp_path / name, seed) for seed, name in enumerate(("a b.png", "ü\nx.png"))]
    text = b"\0".join(os.fsencode(path) for path in paths)
    out = tmp_path / "out"
    log = tmp_path / "log/m.jsonl"
    arguments = ("--files-from", "-", "-0", "-o", out, "-w", tiny_weights, "--manifest", log)
    done = shell(*arguments, stdin=text)
    assert done.exit_code == 0, done.stderr
    assert len(list(out.iterdir())) == 2
    records = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert [record["input_sha256"] for record in records] == digests
    empty = shell("--files-from", "-", "-w", tiny_weights, stdin=b"")
    assert empty.exit_code == 3


def test_frames(tiny_weights):
    frames = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3), np.uint8)
    done = shell("--raw", "16x12", "-w", tiny_weights, stdin=frames.tobytes())
    assert done.exit_code == 0, done.stderr
    assert len(done.stdout_bytes) == 3 * 48 * 64 * 3
    one = shell("--raw", "16x12", "-w", tiny_weights, stdin=frames[1].tobytes())
    assert done.stdout_bytes[48 * 64 * 3 :][: 48 * 64 * 3] == one.stdout_bytes
    cut = shell("--raw", "16x12", "-w", tiny_weights, stdin=frames.tobytes()[:-1])
    assert cut.exit_code == 1
    assert "frame 3" in cut.stderr
    empty = shell("--raw", "16x12", "-w", tiny_weights, stdin=b"")
    assert empty.exit_code == 3
    assert "no frames arrived on stdin" in empty.stderr


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def leftover(path, process):
    """The temporary file that another process would write for an output."""
    with suppress(KeyError), write_then_rename(path) as temporary:
        raise KeyError
    return path.parent / temporary.name.replace(f"-{os.getpid()}-", f"-{process}-")


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_200_pictures_killed_in_the_middle_and_resumed(tmp_path, tiny_weights):
    for n in range(200):
        make(tmp_path / f"in/{n:03}.png", n, size=(9, 8))
    arguments = [*COMMAND, str(tmp_path / "in"), "-w", str(tiny_weights), "-j", "4"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [*arguments, "-o", str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not killed.exists() or len(list(killed.glob("*_x4.png"))) < 60:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = leftover(killed / "000_x4.png", process.pid)
    left.write_text("as a run that is killed leaves it")
    before = hashes(killed)
    assert 60 <= len([name for name in before if name.endswith("_x4.png")]) < 200
    resumed = subprocess.run(
        [*arguments, "-o", str(killed), "--resume", "--json"], capture_output=True, check=True
    )
    statuses = [json.loads(line).get("status") for line in resumed.stdout.splitlines()]
    assert statuses.count("skipped") == len([n for n in before if n.endswith("_x4.png")])
    subprocess.run([*arguments, "-o", str(whole)], capture_output=True, check=True)
    assert hashes(killed) == hashes(whole)  # temporary files included
    assert len(hashes(whole)) == 200


@pytest.mark.slow
def test_resume_goes_by_content(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png")
    arguments = (source, "-w", tiny_weights, "--json", "--resume")

    def status(*more):
        done = shell(*arguments, *more)
        return json.loads(done.stdout_bytes.splitlines()[0])["status"], done

    assert status()[0] == "restored"
    assert status()[0] == "skipped"
    os.utime(source)
    assert status()[0] == "skipped"  # a date is not content
    make(source, seed=1)
    assert status()[0] == "restored"  # another picture of the same name
    assert status("--self-ensemble")[0] == "restored"  # other options
    make(tmp_path / "a_x4.png")
    outcome, done = status()
    assert outcome == "failed"  # not ours to overwrite
    assert "was not written by restore" in done.stderr
    assert status("--on-exists", "skip")[0] == "skipped"
    with Image.open(tmp_path / "a_x4.png") as foreign:
        assert foreign.size == (16, 12)  # still the other's
    assert status("--on-exists", "overwrite")[0] == "restored"


@pytest.mark.slow
def test_the_reader_goes_away(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png", size=(200, 200))
    command = [*COMMAND, str(source), "-o", "-", "-w", str(tiny_weights)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert b"Traceback" not in errors
    assert b"rror" not in errors


def test_what_cannot_be(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png")
    for arguments, message in (
        ((source, "-o", "-", "--json"), "cannot both go to stdout"),
        ((), "no pictures were given"),
        ((source, source.with_name("b.png"), "-o", "-"), "no such file"),
        (("-", "--files-from", "-"), "both a picture and the list"),
        (("--raw", "3"), "is not a size"),
        ((source, "-0"), "--null needs --files-from"),
        ((source, "--raw", "3x3"), "--raw reads stdin"),
        (("--raw", "3x3", "--dry-run", "--json"), "--raw excludes --json, --dry-run"),
        (("--raw", "3x3", "--quality", "5"), "--quality does not apply to raw frames"),
        ((source, "--bit-depth", "12"), "not found"),
    ):
        done = shell(*arguments, "-w", tiny_weights)
        assert done.exit_code in (2, 3)
        assert message in done.stderr


def test_the_plan(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png", size=(100, 80))
    done = shell(source, "-n", "-w", tiny_weights, "--tile", "64", "--overlap", "8")
    assert done.exit_code == 0, done.stderr
    assert b"100x80 -> 400x320\t4\t" in done.stdout_bytes
    assert not (tmp_path / "a_x4.png").exists()
    plan = json.loads(shell(source, "-n", "-w", tiny_weights, "--json").stdout)
    assert (plan["input_width"], plan["width"], plan["tiles"]) == (100, 400, 1)


def test_fail_fast(tmp_path, tiny_weights):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_text("no")
    done = shell(tmp_path, "-w", tiny_weights, "--fail-fast")
    assert done.exit_code == 1
    assert "1 of 2 pictures failed; 1 not tried" in done.stderr
    assert "b.png" not in done.stderr


def test_a_file_called_minus(tmp_path, tiny_weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.png").rename("-")
    done = shell("./-", "-w", tiny_weights, "-o", "b.png")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "b.png").exists()
    wrong = shell("-", "-w", tiny_weights, "-o", "b.mp4", stdin=(tmp_path / "-").read_bytes())
    assert wrong.exit_code == 2


def test_own_files_are_not_overwritten(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png")
    before = source.read_bytes()
    for option in ("--compare", "--manifest"):
        for target in (source, tmp_path / "b.png"):
            done = shell(source, "-w", tiny_weights, "-o", tmp_path / "b.png", option, target)
            assert done.exit_code == 2
            assert "is one of the inputs or outputs" in done.stderr
    assert source.read_bytes() == before
    listed = tmp_path / "list.html"
    listed.write_text(f"{source}\n")
    both = ("--compare", tmp_path / "c.html", "--manifest", tmp_path / "c.html")
    over = ("--compare", listed, "--on-exists", "overwrite")
    for options in (both, ("--manifest", listed), over):
        done = shell("--files-from", listed, "-w", tiny_weights, *options)
        assert done.exit_code == 2
        assert "is one of the inputs or outputs" in done.stderr
    assert listed.read_text() == f"{source}\n"
    assert not (tmp_path / "b.png").exists()


def test_a_list_with_a_wrong_name_is_told_apart_from_an_argument(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text('"a.png"\n')
    done = restore("image", "--files-from", listed)
    assert done.exit_code == 3
    assert "must contain paths, one per line, without quotes" in done.stderr
    make(tmp_path / "a.png")
    listed.write_text(f'"{tmp_path / "a.png"}"\r\n\x1a')  # as Windows copies paths
    assert restore("image", "--files-from", listed, "-m", "bicubic", "-n").exit_code == 0


def test_pictures_in_subfolders_are_not_left_out_silently(tmp_path):
    make(tmp_path / "photos/sub/a.png")
    done = restore("image", tmp_path / "photos", "-m", "bicubic", "-n")
    assert (done.exit_code, "add --recursive" in done.stderr) == (3, True), done.stderr
    make(tmp_path / "photos/b.png")
    done = restore("image", tmp_path / "photos", "-m", "bicubic", "-n")
    assert done.exit_code == 0
    assert "left out: 1 picture in subfolders; to include them, add --recursive" in done.stderr
    assert (
        "left out" not in restore("image", tmp_path / "photos", "-r", "-m", "bicubic", "-n").stderr
    )


def test_a_manifest_is_not_appended_to_another_file(tmp_path):
    make(tmp_path / "a.png")
    make(tmp_path / "other.png")
    before = (tmp_path / "other.png").read_bytes()
    common = ("image", tmp_path / "a.png", "-m", "bicubic", "-o", tmp_path / "b.png")
    done = restore(*common, "--manifest", tmp_path / "other.png")
    assert (done.exit_code, "is not a manifest" in done.stderr) == (2, True)
    assert (tmp_path / "other.png").read_bytes() == before
    for _ in range(2):
        again = ("--manifest", tmp_path / "log.jsonl", "--on-exists", "overwrite")
        assert restore(*common, *again).exit_code == 0
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2


def test_long_lists_of_names_are_cut(tmp_path):
    done = restore("recipes", "show", "nothing-like-it")
    assert "more; see `restore recipes list`" in done.stderr
    assert len(done.stderr.splitlines()[1]) < 400


def test_names_of_inputs_are_suggested(tmp_path):
    make(tmp_path / "photo.png")
    assert (
        f"did you mean '{tmp_path / 'photo.png'}'" in restore("image", tmp_path / "foto.png").stderr
    )
    assert "there is no folder" in restore("image", tmp_path / "none" / "a.png").stderr


def test_options_of_restore_itself_behind_the_command(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    source = make(tmp_path / "a.png")
    for place in (0, 2, 6):
        words: list[object] = [
            "image",
            source,
            "-m",
            "bicubic",
            "-x1",
            "-o",
            tmp_path / f"{place}.png",
        ]
        words[place:place] = ["--no-color", "--no-progress"]
        done = restore(*words)
        assert done.exit_code == 0, done.stderr
        assert os.environ.pop("NO_COLOR") == "1"
        assert Bar.hidden
    assert restore("models").exit_code == 0
    assert not Bar.hidden


@pytest.mark.slow
def test_closed_streams(tmp_path, tiny_weights):
    source = make(tmp_path / "a.png")
    line = f"{sys.executable} -m restore_cli image -w {tiny_weights}"
    for shell_line, message in (
        (f"{line} - <&-", "stdin is closed"),
        (f"{line} {source} -o - >&-", "stdout is closed"),
    ):
        done = subprocess.run(
            ["bash", "-c", shell_line], stderr=subprocess.PIPE, text=True, check=False
        )
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_frames_stop_when_nobody_reads(tiny_weights):
    command = [*COMMAND, "--raw", "16x12", "-w", str(tiny_weights)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    with suppress(BrokenPipeError):
        for _ in range(100_000):  # without an end it would take minutes
            process.stdin.write(bytes(16 * 12 * 3))
    with suppress(BrokenPipeError):
        process.stdin.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert b"Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "ascii:strict", "latin-1", "utf-8"])
def test_names_in_any_language_end_no_batch(tmp_path, encoding):
    """Each picture has a note with its name, and the names are none that the stream can show."""
    names = [b"a.png", "n\u00f6\u65e5\U0001f600.png".encode(), b"\xff\xfe.png", b"z.png"]
    folder = tmp_path / "\u65e5"
    for seed, name in enumerate(names):
        make(folder / os.fsdecode(name), seed, (96, 96))
    run = subprocess.run(
        [*COMMAND, folder, "--model", "bicubic", "-x1", "-f", "jpeg", "--lossless", "-o", "out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert b"Traceback" not in run.stderr
    assert run.stderr.count(b"jpeg cannot be lossless") == 1  # said once, with a count
    assert b"and 2 more" in run.stderr
    assert len(run.stdout.splitlines()) == len(names)
    assert b"out/\xff\xfe_deblurred.jpg" in run.stdout  # the next program finds the file
    assert (b"\\u65e5" in run.stderr) == (encoding != "utf-8")


@pytest.mark.slow
def test_json_of_any_name_is_json(tmp_path):
    make(tmp_path / os.fsdecode(b"\xff\xe4.png"))
    run = subprocess.run(
        [*COMMAND, tmp_path, "--model", "bicubic", "-x1", "-q", "--json"],
        capture_output=True,
        check=False,
    )
    first = json.loads(run.stdout.decode().splitlines()[0])
    assert os.fsencode(first["output"]).endswith(b"\xff\xe4_deblurred.png")


@pytest.mark.slow
def test_the_work_goes_on_when_nobody_reads_what_is_said(tmp_path):
    for n in range(3):
        make(tmp_path / f"{n}.png", n)
    process = subprocess.Popen(
        [*COMMAND, tmp_path, "--model", "bicubic", "-x1", "-f", "jpeg", "--lossless", "-o", "out"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    process.stderr.close()
    assert process.wait(timeout=120) == 0
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a full disk is needed")  # noqa: PTH110
def test_help_on_a_full_disk_is_one_line():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: cannot write to stdout: No space left on device\n"
