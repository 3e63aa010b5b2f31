"""The page: what it takes, what it refuses, and that a browser can use it."""

from __future__ import annotations

import ast
import asyncio
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from conftest import ROOT
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("starlette")
pytest.importorskip("multipart")
import httpx

from restore_cli.cli.app import app as command
from restore_cli.errors import PictureError, RestoreError, UsageError
from restore_cli.files import FULL, remedy
from restore_cli.formatting import format_duration
from restore_cli.image.containers import jpeg_segment
from restore_cli.inference.restorer import RestorerOptions
from restore_cli.jobs.estimate import listed_seconds
from restore_cli.jobs.task_choice import TaskChoice
from restore_cli.serving import job_queue as queues
from restore_cli.serving.job_queue import BusyError, JobQueue, JobSettings
from restore_cli.serving.listening import addresses, listen
from restore_cli.serving.result_limits import _choices
from restore_cli.serving.visitor_messages import for_visitors
from restore_cli.serving.web import Guard, Limits, make_app
from restore_cli.weights.manifest import default_checkpoint

HOST = "http://127.0.0.1"


def picture(width=24, height=20, kind="PNG", mode="RGB"):
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def queue():
    made = JobQueue(RestorerOptions(torch.device("cpu"), dtype=None), max_pixels=100_000)
    yield made
    made.close()
    assert not made._root.exists()


def wait_for(queue, key):
    for _ in range(600):
        job = queue.find(key)
        if job.state in ("done", "failed"):
            return job
        time.sleep(0.1)
    raise AssertionError("it does not end")


def taken(queue, name, **settings):
    queue.reserve_slot()
    return queue.new(name, JobSettings("gfn", **settings))


def restored(queue, name, content, **settings):
    job = taken(queue, name, **settings)
    job.source.write_bytes(content)
    queue.submit(job)
    return wait_for(queue, job.key)


def scope(path, headers):
    """Of a POST, for a server that speaks to the application itself."""
    facts = {"type": "http", "method": "POST", "path": path, "headers": headers}
    return facts | {"query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1"}


class Client:
    """Requests to the application, without a socket."""

    def __init__(self, app):
        self.app = app

    def __call__(self, method, path, **more):
        async def ask():
            transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=HOST) as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())


@pytest.fixture
def client(queue):
    return Client(make_app(queue, Limits(max_upload_bytes=200_000)))


def test_a_picture_comes_back_as_the_command_line_makes_it(client, queue, tmp_path):
    form = {"files": {"picture": ("a b.png", picture())}, "data": {"model": "gfn"}}
    answer = client("POST", "/jobs", **form)
    assert answer.status_code == 202
    key = answer.json()["key"]
    wait_for(queue, key)
    state = client("GET", f"/jobs/{key}").json()
    assert (state["state"], state["file"], state["size"]) == ("done", "a b_x4.png", "96x80")
    assert state["after"].startswith("data:image/jpeg;base64,")
    file = client("GET", f"/jobs/{key}/file")
    assert file.headers["content-disposition"].startswith("attachment")
    assert file.headers["content-type"] == "application/octet-stream"
    (tmp_path / "a b.png").write_bytes(picture())
    done = CliRunner().invoke(command, ["image", str(tmp_path / "a b.png"), "-m", "gfn", "-q"])
    assert file.content == Path(done.stdout.strip()).read_bytes()


def test_a_script_gets_the_result_in_one_request(client, queue):
    form = {"files": {"picture": ("a b.png", picture())}, "data": {"model": "gfn", "scale": "2"}}
    key = client("POST", "/jobs", **form).json()["key"]
    wait_for(queue, key)
    answer = client("POST", "/restore", **form)
    assert answer.status_code == 200
    assert answer.content == client("GET", f"/jobs/{key}/file").content
    assert "a b_x2.png" in unquote(answer.headers["content-disposition"])
    notes = client("GET", f"/jobs/{key}").json()["notes"]
    assert json.loads(answer.headers["restore-notes"]) == notes


def test_a_script_is_told_what_is_wrong(client):
    answer = client("POST", "/restore", files={"picture": ("a.png", picture()[:60])})
    assert answer.status_code == 400
    assert "a.png" in answer.json()["error"]


def test_a_script_is_not_asked_whether_it_can_wait(client, monkeypatch):
    monkeypatch.setattr("restore_cli.serving.result_limits.LONG_SECONDS", 0.0)
    form = {"files": {"picture": ("a.png", picture())}, "data": {"model": "gfn"}}
    assert client("POST", "/jobs", **form).status_code == 400
    assert client("POST", "/restore", **form).status_code == 200


def test_a_script_that_hangs_up_cancels_its_picture(queue):
    app, sent = make_app(queue, Limits(max_upload_bytes=200_000)), []
    form = httpx.Request("POST", HOST, files={"picture": ("a.png", picture())})
    messages = [{"type": "http.request", "body": form.read()}]

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", form.headers["content-type"].encode()), (b"host", b"localhost")]
    asyncio.run(app(scope("/restore", headers), receive, send))
    assert sent[0]["status"] == 400
    assert b"cancelled" in sent[1]["body"]
    assert queue._places == 0


def test_choices_are_followed(queue):
    job = restored(queue, "a.tif", picture(kind="TIFF"), scale=2, format="jpeg")
    assert job.error == ""
    with Image.open(job.target) as made:
        assert (made.format, made.size) == ("JPEG", (48, 40))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.png", b"no picture", "a.png"),
        ("a.png", picture()[:60], "a.png"),
        ("a.png", picture(100, 100), "pixels"),
    ],
)
def test_what_is_no_picture_ends_in_one_line(queue, name, content, message):
    job = restored(queue, name, content)
    assert job.state == "failed"
    assert message in job.error
    assert "\n" not in job.error
    assert str(job.folder) not in job.error
    assert restored(queue, "b.png", picture()).state == "done"  # the next one is not harmed


def test_a_defect_does_not_end_the_queue(queue, monkeypatch):
    monkeypatch.setattr(queues, "run", lambda *args, **options: 1 / 0)
    assert "internal error" in restored(queue, "a.png", picture()).error
    monkeypatch.undo()
    assert restored(queue, "a.png", picture()).state == "done"


def test_a_script_is_told_who_is_to_blame(client, queue, monkeypatch):
    def answer():
        files = {"picture": ("a.png", picture())}
        failed = client("POST", "/restore", files=files, data={"model": "bicubic"})
        assert not list(queue._root.iterdir())  # a failed picture does not fill the disk
        return failed.status_code, failed.json()["error"]

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queues, "run", lambda *args, **options: 1 / 0)
    assert answer() == (500, "internal error of restore: ZeroDivisionError")
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.mkstemp", full)
    said = "cannot write 'a_x4.png': No space left on device (tell the owner of this page)"
    assert answer() == (507, said)
    monkeypatch.undo()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("", (), {"free": 9}))
    said = (
        "need about 2,073 bytes in the server's folder, but only 9 bytes are free (tell the owner"
    )
    status, text = answer()
    assert (status, said in text) == (507, True), text


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd.png",
        "..\\x.png",
        "/a/b.png",
        "a\nb\0.png",
        ".png",
        "字" * 300 + ".png",
        "NUL.png",
    ],
)
def test_names_stay_in_their_folder(queue, name):
    try:
        job = queue.new(name, JobSettings("gfn"))
    except PictureError:
        return
    assert job.source.parent.parent == job.folder
    assert not re.search(r'[\x00-\x1f\u202e<>:"/\\|?*\[\]{}]', job.source.name)
    assert len(job.source.name.encode()) <= 120
    assert job.source.stem.lower() != "nul"
    assert job.source.suffix == ".png"


def test_names_as_browsers_escape_them(queue):
    assert taken(queue, "12%22 disc%0A.png").source.name == "12_ disc_.png"
    queue.release_slot()


def test_names_keep_the_letters_of_every_script(queue):
    queue.reserve_slot()
    job = queue.new("ra\u0308k e\u0301 हिन्दी ไฟล์ 🙂.png", JobSettings("gfn"))
    assert job.source.name == "räk é हिन्दी ไฟล์ 🙂.png"
    queue.release_slot()


@pytest.mark.parametrize("name", ["a.mp4", "a.txt", "a", "", "a.html", "a.svg"])
def test_other_files_are_refused_by_name(queue, name):
    with pytest.raises(PictureError, match="the suffix of a picture"):
        queue.new(name, JobSettings("gfn"))


def test_too_many_waiting_are_sent_away(queue):
    """Those on their way are counted, and give their places back."""
    queue.max_waiting = 2
    first, _ = taken(queue, "a.png"), taken(queue, "b.png")
    with pytest.raises(BusyError):
        queue.reserve_slot()
    queue.discard(first)
    queue.release_slot()
    assert not first.folder.exists()
    assert restored(queue, "c.png", picture()).state == "done"
    assert queue._places == 1


def test_many_may_wait_and_none_is_forgotten(queue):
    queue.max_waiting, queue.max_kept = 6, 2
    jobs = []
    for n in range(6):
        jobs.append(taken(queue, f"{n}.png"))
        jobs[-1].source.write_bytes(picture(8, 8))
    for job in jobs:
        queue.submit(job)
    assert wait_for(queue, jobs[-1].key).state == "done"
    assert queue.ahead_of(jobs[-1]) == 0


def test_work_that_nobody_waits_for_is_given_up(queue, monkeypatch):
    monkeypatch.setattr(queues, "_POLL_TIMEOUT", -1.0)
    assert "no page waits for this picture any more" in restored(queue, "a.png", picture()).error


def test_cancelling_frees_the_place_and_stops_the_work(queue, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    raise_if_abandoned = JobQueue._raise_if_abandoned

    def slow(self, job):
        begun.set()
        go_on.wait(10)
        raise_if_abandoned(self, job)

    monkeypatch.setattr(JobQueue, "_raise_if_abandoned", slow)
    jobs = [taken(queue, f"{n}.png") for n in range(3)]
    for job in jobs:
        job.source.write_bytes(picture())
        queue.submit(job)
    begun.wait(10)
    assert queue._places == 2
    queue.cancel(jobs[1])
    queue.cancel(jobs[1])
    assert (jobs[1].state, jobs[1].error, queue._places) == ("failed", "cancelled", 1)
    assert queue.ahead_of(jobs[2]) == 1
    queue.cancel(jobs[0])
    go_on.set()
    assert wait_for(queue, jobs[2].key).state == "done"
    assert (jobs[0].state, jobs[0].error) == ("failed", "cancelled")


def test_cancelling_through_the_page(client, queue):
    job = taken(queue, "a.png")
    queue._jobs[job.key] = job
    address = f"/jobs/{job.key}"
    away = client("DELETE", address, headers={"origin": "http://elsewhere.example"})
    assert (away.status_code, job.cancelled) == (403, False)
    assert (client("DELETE", address).status_code, job.cancelled) == (204, True)
    assert client("DELETE", "/jobs/x").status_code == 404
    queue.release_slot()


def test_a_picture_that_is_too_large_comes_with_choices(client, queue, monkeypatch):
    """The fixture allows results of 100,000 pixels."""

    def sent(**fields):
        files = {"picture": ("photo.jpg", picture(120, 100, "JPEG"))}
        return client("POST", "/jobs", files=files, data={"model": "gfn", **fields})

    answer = sent()
    assert answer.status_code == 400
    assert "480x400" in answer.json()["error"]
    shrink, kept, same = answer.json()["choices"]
    assert kept["fields"] == {"model": "gfn", "scale": "keep", "sure": "1"}
    assert same["fields"] == {"model": "maxim", "scale": "", "sure": "1"}
    assert all("120x100" in one["label"] for one in (kept, same))
    assert sent(sure="1").status_code == 400
    assert (list(queue._root.iterdir()), queue._places) == ([], 0)
    begun = sent(**shrink["fields"])
    assert begun.json()["notes"] == ["it was shrunk to 86x72 first"]
    job = wait_for(queue, begun.json()["key"])
    assert job.target.name == "photo_x4.jpg"
    with Image.open(job.target) as made:
        assert (made.size, made.format) == ((344, 288), "JPEG")
    # Large, but not too large: it is made when it is asked for twice.
    monkeypatch.setattr("restore_cli.serving.result_limits.LARGE_PIXELS", 50_000)
    monkeypatch.setattr(queue, "max_pixels", 200_000)
    anyway = sent().json()["choices"][-1]
    assert anyway["fields"] == {"sure": "1"}
    assert sent(**anyway["fields"]).status_code == 202


@pytest.mark.parametrize(
    ("task", "first"), [("keep", "Keep 120x100"), ("x1", "Deblur"), ("x4", "Keep")]
)
def test_what_takes_long_is_asked_first_and_what_fits_it_best_comes_first(
    client, queue, monkeypatch, task, first
):
    """Where the limit is shorter than the work."""
    monkeypatch.setattr("restore_cli.serving.result_limits.LONG_SECONDS", 0.05)
    monkeypatch.setattr(queue, "max_pixels", 10**8)
    advice = TaskChoice(task, "so it is seen")
    monkeypatch.setattr("restore_cli.serving.result_limits.choose_for_run", lambda *_, **__: advice)

    def sent(**fields):
        files = {"picture": ("photo.jpg", picture(120, 100, "JPEG"))}
        return client("POST", "/jobs", files=files, data={"model": "gfn", **fields})

    answer = sent().json()
    assert "would be 480x400, which is 0.2 megapixels, and take about 1 s" in answer["error"]
    assert ("so it is seen" in answer["error"]) == (task != "x4")
    assert [choice["label"].split()[0] for choice in answer["choices"]][-1] == "Continue"
    assert answer["choices"][0]["label"].startswith(first)
    kept = next(one for one in answer["choices"] if one["label"].startswith("Keep"))
    begun = sent(**kept["fields"])
    job = wait_for(queue, begun.json()["key"])
    assert (job.error, job.target.name) == ("", "photo_deblurred.jpg")
    with Image.open(job.target) as made:
        assert made.size == (120, 100)


@pytest.mark.parametrize(
    ("task", "model", "size"),
    [
        pytest.param("x4", "maxim-mscam", (96, 80), marks=pytest.mark.slow),
        ("x1", "maxim", (24, 20)),
        pytest.param("half", "maxim+bicubic", (24, 20), marks=pytest.mark.slow),
        pytest.param("keep", "maxim-mscam", (24, 20), marks=pytest.mark.slow),
    ],
)
def test_without_a_model_the_server_chooses(client, queue, monkeypatch, task, model, size):
    tried = []

    def choose(paths, *, max_pixels, restore):
        tried.append(restore(torch.rand(1, 3, 64, 64)).shape)
        return TaskChoice(task, "so it is seen")

    monkeypatch.setattr("restore_cli.serving.result_limits.choose_for_run", choose)
    monkeypatch.setattr("restore_cli.serving.result_limits.LONG_SECONDS", 0.001)

    def sent(**fields):
        files = {"picture": ("photo.png", picture())}
        return client("POST", "/jobs", files=files, data={"model": "", "scale": ""} | fields).json()

    asked = sent()
    assert "so it is seen" in asked["error"]
    assert asked["choices"][0]["fields"] == {"sure": "1"}
    begun = sent(**asked["choices"][0]["fields"])
    assert begun["notes"] == [f"{model}: so it is seen"]
    job = wait_for(queue, begun["key"])
    assert (job.error, job.settings.model) == ("", model)
    with Image.open(job.target) as made:
        assert made.size == size
    assert tried == [(1, 3, 64, 64)] * 2
    sent(model="gfn", sure="1")
    assert len(tried) == 2


def test_times_are_those_of_the_settings_and_of_this_machine(monkeypatch):
    checkpoint, options = default_checkpoint("maxim"), RestorerOptions(torch.device("cpu"))
    seconds = {}
    for times in (1, 2, 100):
        rate = 75e9 * times
        monkeypatch.setattr("restore_cli.jobs.estimate.cpu_convolution_rate", lambda _, r=rate: r)
        seconds[times] = listed_seconds(checkpoint, 10**6, options)
    assert seconds[1] == 2 * seconds[2] == 8 * seconds[100] > 0
    eight = listed_seconds(checkpoint, 10**6, replace(options, self_ensemble=True))
    assert eight == 8 * seconds[100]
    assert listed_seconds(checkpoint, 10**6, replace(options, device=torch.device("cuda"))) is None
    ensemble = JobSettings("maxim", self_ensemble=True)
    ways = _choices(ensemble, (1000, 1000), 10**9, replace(options, self_ensemble=True))
    anyway = ways["all"]
    all_eight = replace(options, self_ensemble=True)
    small = listed_seconds(default_checkpoint("maxim-mscam"), 250**2, all_eight)
    assert ways["keep"].label.endswith(f": about {format_duration(small)}")
    assert anyway.label == f"Continue anyway: about {format_duration(eight)}"


def test_a_broken_picture_that_is_to_be_shrunk(client, queue):
    files = {"picture": ("photo.jpg", picture(300, 300, "JPEG")[:900])}
    answer = client("POST", "/jobs", files=files, data={"model": "gfn", "shrink": "1"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("cannot read 'photo.jpg': ")
    assert str(queue._root) not in answer.text
    assert (list(queue._root.iterdir()), queue._places) == ([], 0)


def test_closing_leaves_the_picture_at_work_and_no_file(monkeypatch):
    queue = JobQueue(RestorerOptions(torch.device("cpu")))
    begun, go_on = threading.Event(), threading.Event()
    raise_if_abandoned = JobQueue._raise_if_abandoned

    def slow(self, job):
        begun.set()
        go_on.wait(10)
        raise_if_abandoned(self, job)

    monkeypatch.setattr(JobQueue, "_raise_if_abandoned", slow)
    jobs = [taken(queue, "a.png") for _ in range(3)]
    for job in jobs:
        job.source.write_bytes(picture())
        queue.submit(job)
    begun.wait(10)
    threading.Timer(0.3, go_on.set).start()
    with monkeypatch.context() as patch:
        patch.setattr(queue._thread, "join", begun.wait)
        assert not queue.close()  # a tile takes longer than it waits
    queue._thread.join(10)
    assert queue.close()
    assert not queue._root.exists()
    assert jobs[0].state == "failed"
    assert jobs[2].state == "waiting"


def test_pipelines_are_kept_by_what_they_compute(queue):
    for settings in ({"format": "png"}, {"format": "webp"}, {"scale": 2}):
        assert restored(queue, "a.png", picture(8, 8), **settings).state == "done"
    assert len(queue._ready) == 1
    assert restored(queue, "a.png", picture(8, 8), self_ensemble=True).state == "done"
    assert len(queue._ready) == 2


def test_old_jobs_go_with_their_files(queue):
    queue.max_kept = 2
    jobs = [restored(queue, f"{n}.png", picture(8, 8)) for n in range(4)]
    assert queue.find(jobs[0].key) is None
    assert not jobs[0].folder.exists()
    assert queue.find(jobs[3].key) is jobs[3]


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        ({"files": {"picture": ("a.png", b"0" * 300_000)}}, 413, "larger than"),
        ({"files": {"picture": ("a.txt", b"0")}}, 400, "the suffix of a picture"),
        ({"data": {"picture": "text"}}, 400, "no file"),
        ({"files": {"picture": ("a.png", b"0")}, "data": {"model": "gfm"}}, 400, "Did you mean"),
        ({"files": {"picture": ("a.png", b"0")}, "data": {"scale": "9"}}, 400, "between 1 and 8"),
        ({"files": {"picture": ("a.png", b"0")}, "data": {"model": "gfn+gfn"}}, 400, "several"),
        (
            {"files": {"picture": ("a.png", b"0")}, "data": {"scale": "x"}},
            400,
            "neither a number nor",
        ),
        ({"files": {"picture": ("a.png", b"0")}, "data": {"format": "exe"}}, 400, "unknown format"),
        ({"files": {"picture": ("a.png", b"0")}, "data": {"weights": "/x"}}, 400, "unknown fields"),
        (
            {"files": {"picture": ("a.png", b"0")}, "data": {"scale": "9" * 5000}},
            400,
            "neither a number nor",
        ),
        (
            {"files": {"picture": ("a.png", b"0")}, "data": {"model": ["gfn", "bicubic"]}},
            400,
            "['model'] are given twice",
        ),
        (
            {"files": {"picture": ("a.png", b"0")}, "data": {"self_ensemble": "maybe"}},
            400,
            "self_ensemble 'maybe' is neither on nor off",
        ),
        ({"params": {"scale": "2"}, "files": {"picture": ("a.png", b"0")}}, 400, "curl -F scale"),
        ({"content": b"0", "headers": {"content-encoding": "gzip"}}, 415, "compressed (gzip)"),
        ({"data": {"scale": "2"}}, 400, "curl -F picture"),
        ({"headers": {"origin": "http://elsewhere.example"}}, 403, "other sites"),
        ({"headers": {"origin": "https://proxy"}}, 403, "at 'https://proxy', not at '127.0.0.1'"),
        ({"headers": {"origin": "http://["}}, 403, "other sites"),
        ({"headers": {"host": "elsewhere.example"}}, 400, "is not served under the name"),
        ({"headers": {"host": "192.0.2.1:8000"}}, 400, "is not served under the name"),
        ({"headers": {"host": "["}}, 400, "is not served under the name"),
        ({"headers": {"host": "evil.example@localhost"}}, 400, "is not served under the name"),
        ({"headers": {"host": "localhost#x"}}, 400, "is not served under the name"),
        ({"headers": {"host": "localhost/../evil"}}, 400, "is not served under the name"),
    ],
)
def test_requests_that_are_refused(client, queue, more, status, message):
    answer = client("POST", "/jobs", **more)
    assert answer.status_code == status
    if message:
        assert message in answer.json()["error"]
    assert list(queue._root.iterdir()) == []
    assert queue._places == 0


def test_pictures_on_their_way_are_counted_before_they_are_here(client, queue):
    queue.max_waiting = 0
    answer = client("POST", "/jobs", files={"picture": ("a.png", b"0" * 300_000)})
    assert answer.status_code == 503  # not 413: nothing was read


def test_a_picture_that_never_comes_gives_its_place_back(queue):
    async def body():
        yield b"--x"
        await asyncio.sleep(60)

    client = Client(make_app(queue, Limits(max_upload_bytes=200_000, request_timeout=0.05)))
    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = client("POST", "/jobs", content=body(), headers=headers)
    assert answer.status_code == 408
    assert queue._places == 0


def test_a_visitor_who_leaves_is_no_error_of_the_server(queue):
    app, sent = make_app(queue, Limits(max_upload_bytes=200_000)), []
    messages = [
        {"type": "http.request", "body": b"--x", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"host", b"localhost")]
    asyncio.run(app(scope("/jobs", headers), receive, send))
    assert sent[0]["status"] == 400
    assert queue._places == 0


def test_an_unknown_charset_is_refused(client, queue):
    headers = {"content-type": "multipart/form-data; boundary=XX; charset=undefined"}
    form = b'--XX\r\nContent-Disposition: form-data; name="scale"\r\n\r\n4\r\n--XX--\r\n'
    assert client("POST", "/jobs", content=form, headers=headers).status_code == 400
    assert queue._places == 0


def test_a_smaller_scale_does_not_let_larger_pictures_in(queue):
    """The network enlarges by four whatever the scale; the fixture allows 100,000 pixels."""
    assert restored(queue, "a.png", picture(80, 80), scale=1).state == "failed"
    assert restored(queue, "a.png", picture(60, 60), scale=1).state == "done"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("192.0.2.1:8000", 200),
        ("[2001:db8::1]:8000", 200),
        ("studio.local", 200),
        ("elsewhere.example:8000", 400),
        ("192.0.2.1.elsewhere.example", 400),
        ("", 400),
    ],
)
def test_a_public_page_is_called_by_number_or_by_a_name_that_was_given(queue, host, status):
    """Or a page of another site could be made to name this machine."""
    client = Client(make_app(queue, Limits(1000, hosts=("studio.local",), allow_ip_hosts=True)))
    assert client("GET", "/", headers={"host": host}).status_code == status


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000"])
def test_a_page_for_this_machine_is_called_by_its_own_names(queue, host):
    assert (
        Client(make_app(queue, Limits(1000)))("GET", "/", headers={"host": host}).status_code == 200
    )


def test_the_owner_is_told_of_a_host_that_was_refused_and_the_visitor_what_to_do(queue):
    told = []
    client = Client(make_app(queue, Limits(1000, on_refused=told.append)))
    for host in ("studio.lan:8000", "studio.lan:8000", "a b\x1b[2J"):
        headers = {"host": host, "accept": "text/html"}
        answer = client("GET", "/", headers=headers)
        assert answer.headers["content-type"].startswith("text/plain")
    assert "not served under the name 'a?b?[2J'" in answer.text
    assert "--" not in answer.text
    assert told == ["studio.lan", "a?b?[2J"]
    for n in range(100):
        client("GET", "/", headers={"host": f"{n}.example"})
    assert len(told) == 20


def test_addresses_are_such_that_a_browser_can_open(monkeypatch):
    own = {"192.0.2.1": "192.168.1.20", "2001:db8::1": ""}
    monkeypatch.setattr("restore_cli.serving.listening._own", own.get)
    assert addresses("127.0.0.1", 80) == ["http://127.0.0.1:80/"]
    assert addresses("0.0.0.0", 80) == ["http://192.168.1.20:80/", "http://127.0.0.1:80/"]
    assert addresses("::", 80) == ["http://[::1]:80/"]


def test_an_address_of_this_machine_can_be_listened_at():
    for address in addresses("0.0.0.0", 80):
        listen(urlsplit(address).hostname, 0).close()


@pytest.mark.parametrize("number", sorted(FULL))
def test_a_full_disk_is_a_matter_of_the_owner(number):
    error = f"cannot write 'a.png': no room ({remedy(OSError(number, ''))})"
    assert for_visitors(error) == "cannot write 'a.png': no room (tell the owner of this page)"


def test_no_hint_names_an_option_to_a_visitor():
    """Every hint of the layers that a visitor's picture passes through."""
    said = []
    for folder in ("image", "inference", "jobs", "models", "weights"):
        for path in (ROOT / "restore_cli" / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.keyword) and node.arg == "hint":
                    said += [
                        part.value
                        for part in ast.walk(node.value)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    ]
    assert len(said) > 50
    for hint in said:
        assert "--" not in for_visitors(f"it is wrong ({hint})")


def test_a_disk_without_room_leaves_nothing(client, queue, monkeypatch):
    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    answer = client("POST", "/jobs", files={"picture": ("a.png", picture())})
    assert answer.status_code == 507
    assert "cannot store" in answer.json()["error"]
    assert list(queue._root.iterdir()) == []
    assert queue._places == 0


def test_a_machine_without_temporary_files_is_one_error(queue, monkeypatch):
    def none(**_):
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", none)
    with pytest.raises(RestoreError, match="no temporary files can be written"):
        replace(queue)


def test_a_full_disk_during_the_upload_is_the_same_error(client, queue, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("starlette.datastructures.UploadFile.write", full)
    answer = client("POST", "/jobs", files={"picture": ("a.png", picture())})
    assert (answer.status_code, "cannot store" in answer.json()["error"]) == (507, True)
    assert queue._places == 0


def test_a_temporary_folder_that_the_system_deleted_is_made_again(client, queue):
    old = restored(queue, "a.png", picture())
    shutil.rmtree(queue._root)
    assert client("GET", f"/jobs/{old.key}").status_code == 404
    assert client("GET", f"/jobs/{old.key}/file").status_code == 404
    assert restored(queue, "b.png", picture()).state == "done"


def test_keys_that_nobody_has(client):
    assert client("GET", "/jobs/x").status_code == 404
    assert client("GET", "/jobs/x/file").status_code == 404
    assert client("GET", "/jobs/..%2f..%2fetc/file").status_code == 404


def exchanged(app, receive):
    """Messages that an application sends for a POST whose body comes from `receive`."""
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=a")]
    scope = {"type": "http", "method": "POST", "path": "/jobs", "headers": headers}
    asyncio.run(app(scope | {"query_string": b"", "http_version": "1.1"}, receive, send))
    return sent


def test_an_upload_that_stalls_gives_its_place_back(queue):
    pieces = [{"type": "http.request", "body": b"--a\r\n", "more_body": True}]

    async def receive():
        return pieces.pop() if pieces else await asyncio.sleep(60)

    sent = exchanged(make_app(queue, Limits(max_upload_bytes=1000, idle_timeout=0.05)), receive)
    assert (sent[0]["status"], b"nothing arrived" in sent[1]["body"]) == (408, True)
    assert queue._places == 0


def test_an_upload_that_the_end_of_the_server_cuts_off_is_answered():
    async def cut_off(scope, receive, send):
        raise asyncio.CancelledError

    sent = exchanged(Guard(cut_off, Limits(max_upload_bytes=1000)), None)
    assert (sent[0]["status"], b"was stopped" in sent[1]["body"]) == (503, True)


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"content-type": "multipart/form-data"}, b""),
        ({"content-type": "multipart/form-data; boundary=a"}, b"--a\r\nbroken"),
        ({"content-type": "multipart/form-data; boundary=a"}, b"no boundary"),
    ],
)
def test_every_error_is_json(client, headers, content):
    answer = client("POST", "/jobs", headers=headers, content=content)
    assert answer.status_code == 400
    assert answer.json()["error"]
    raw = client("POST", "/jobs", headers={"content-type": "image/png"}, content=b"a")
    assert (raw.status_code, "image/png" in raw.json()["error"]) == (400, True)
    assert client("PUT", "/jobs").json()["error"] == "Method Not Allowed"
    assert client("PUT", "/jobs").headers["allow"]


def test_a_form_without_its_end_is_refused_since_its_last_field_is_lost(client, queue):
    headers = {"content-type": "multipart/form-data; boundary=a"}
    head = b'--a\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
    form = head + picture() + b'\r\n--a\r\nContent-Disposition: form-data; name="model"\r\n\r\ngfn'
    for end, status in ((b"", 400), (b"\r\n", 400), (b"\r\n--a--", 202), (b"\r\n--a--\r\n", 202)):
        answer = client("POST", "/jobs", content=form + end, headers=headers)
        assert (answer.status_code, "incomplete" in answer.text) == (status, status == 400)


def test_what_is_switched_off_is_off(client, queue):
    for value, on in {"1": True, "on": True, "0": False, "false": False}.items():
        files = {"picture": ("a.png", picture())}
        data = {"model": "gfn", "self_ensemble": value}
        key = client("POST", "/jobs", files=files, data=data).json()["key"]
        assert queue.find(key).settings.self_ensemble == on


def test_addresses_of_every_spelling_of_all():
    for host in ("0", "0.0.0.0"):
        assert addresses(host, 8000)[-1] == "http://127.0.0.1:8000/"


@pytest.mark.slow
def test_a_server_without_stdout(tmp_path):
    """It serves; with a full one it ends. Neither leaves anything."""
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    program = [sys.executable, "-m", "restore_cli", "serve", "--port", str(port)]
    options = {"env": os.environ | {"TMPDIR": str(tmp_path)}, "stderr": subprocess.PIPE}
    closed = subprocess.Popen(["sh", "-c", 'exec "$@" >&-', "sh", *program], text=True, **options)
    for _ in range(600):
        try:
            assert httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
            break
        except httpx.TransportError:
            time.sleep(0.1)
    closed.terminate()
    said = closed.communicate(timeout=60)[1]
    assert (closed.returncode, "Traceback" in said) == (143, False), said
    full = ["sh", "-c", 'exec "$@" >/dev/full', "sh", *program]
    assert subprocess.run(full, timeout=120, check=False, **options).returncode == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["192.168..1", "a" * 64 + ".local", "nowhere.invalid"])
def test_hosts_that_are_no_addresses(name):
    with pytest.raises(UsageError, match="is not an address"):
        listen(name, 0)


@pytest.mark.parametrize("name", ["photos.local:8000", "http://photos.local", "a,b"])
def test_host_names_that_would_never_match(name):
    done = CliRunner().invoke(command, ["serve", "--port", "0", "--allow-host", name])
    assert (done.exit_code, "without http://" in done.stderr) == (2, True)


def test_what_shrinking_leaves_out_is_told(client, queue):
    photo = picture(300, 300, "JPEG")
    middle = len(photo) * 2 // 3
    photo = photo[:middle] + b"\xff\xd3" + photo[middle:]  # a marker amid the pixels
    photo = photo[:2] + jpeg_segment(0xFE, b"a comment") + photo[2:]
    files = {"picture": ("photo.jpg", photo)}
    begun = client("POST", "/jobs", files=files, data={"model": "gfn", "shrink": "1"}).json()
    shrunk, damage, lost = begun["notes"]
    assert "it was shrunk to" in shrunk
    assert "it is damaged" in damage
    assert lost == "left out: comment"


def test_page_lists_what_can_run_and_fetches_nothing(client):
    answer = client("GET", "/")
    text = answer.text
    assert '<select id="model"><option value="">' in text
    assert 'value="maxim-mscam"' in text
    assert not re.search(r"https?://", text)
    nonce = re.search(r"script-src 'nonce-([^']+)'", answer.headers["content-security-policy"])[1]
    assert text.count(f'nonce="{nonce}"') == 2
    assert "onclick" not in text
    assert "oninput" not in text


@pytest.fixture
def server(tmp_path):
    """`restore serve`, as a process."""
    pytest.importorskip("uvicorn")
    process = subprocess.Popen(
        [sys.executable, "-m", "restore_cli", "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    timer = threading.Timer(120, process.kill)
    timer.start()
    try:
        yield process, process.stdout.readline().strip()
    finally:
        timer.cancel()
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.slow
def test_command_serves_and_goes_when_told(server):
    process, address = server
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    with urllib.request.urlopen(address) as answer:
        assert b"Choose a picture" in answer.read()
    request = urllib.request.Request(address, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)
    port = address.rsplit(":", 1)[1].strip("/")
    taken = CliRunner().invoke(command, ["serve", "--port", port])
    assert taken.exit_code == 2
    assert f"127.0.0.1:{port}" in taken.stderr
    process.terminate()
    assert process.wait(timeout=30) in (0, -15, 143)
