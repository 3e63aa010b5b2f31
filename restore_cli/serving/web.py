"""The Starlette application: the page and the addresses that it uses.

The page loads nothing from other servers. Visitors cannot see each other's pictures, since jobs
have keys that cannot be guessed. Pages of other sites cannot use the server through a visitor's
browser: the Host header must be an allowed name or an IP address (against DNS rebinding), and the
Origin must be this page.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restore_cli.errors import DeviceError, RestoreError, UsageError
from restore_cli.files import is_disk_full
from restore_cli.image import FORMATS
from restore_cli.inference.pipeline import split_names
from restore_cli.jobs.compare import page_template
from restore_cli.models.registry import MODELS
from restore_cli.serving.job_queue import BusyError, Job, JobQueue, JobSettings, StorageError
from restore_cli.serving.result_limits import ConfirmationRequiredError, fit_to_limits
from restore_cli.serving.visitor_messages import for_visitors
from restore_cli.weights.manifest import default_model, load_manifest

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
_SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("", "0", "false", "no", "off"), False
)
_END = 6  # bytes: `--` ends the last boundary of a form, and a line end or two may follow
_WAIT = 0.1  # seconds between two looks at a job whose client waits for the response
_MAX_REPORTED_HOSTS = 20  # refused host names that are reported; visitors can invent any number


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for requests."""

    max_upload_bytes: int  # most bytes of a request
    hosts: tuple[str, ...] = LOOPBACK  # allowed names in the Host header
    allow_ip_hosts: bool = False  # whether any IP address is allowed as well
    request_timeout: float = 600.0  # time that a request may take to arrive
    idle_timeout: float = 30.0  # longest time in which nothing of it arrives
    on_refused: Callable[[str], None] = lambda name: None  # called once with every refused name


class TooLargeError(RestoreError):
    """A request has too many bytes."""


class TooSlowError(RestoreError):
    """A request takes too long to arrive."""


_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(:\d*)?", re.ASCII | re.IGNORECASE)  # and port


class Guard:
    """Middleware that refuses requests for other hosts, and aborts those that are too large."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self.reported_hosts: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._is_ours(headers.get("host", "")):
            await self._refusal(headers)(scope, receive, send)
            return
        taken, more, begun, end = 0, True, False, b""
        in_parts = headers.get("content-type", "").lower().startswith(_FORMS[0])

        async def counted() -> Message:
            nonlocal taken, more, end
            try:
                async with asyncio.timeout(self.limits.idle_timeout if more else None):
                    message = await receive()
            except TimeoutError as error:
                raise TooSlowError(
                    f"nothing arrived for {self.limits.idle_timeout:.0f} s"
                ) from error
            more = message.get("more_body", False)
            taken += len(message.get("body", b""))
            if taken > self.limits.max_upload_bytes:
                raise TooLargeError(
                    f"the picture is larger than {self.limits.max_upload_bytes / 1e6:.0f} MB",
                    hint="send it as JPEG, or make it smaller first",
                )
            end = (end + message.get("body", b""))[-_END:]
            if in_parts and message["type"] == "http.request" and not more and b"--" not in end:
                raise UsageError("the form is incomplete: its last boundary is missing")
            return message

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except asyncio.CancelledError:  # the server ends
            if not begun:
                await _refused("the server was stopped", 503)(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        if not (found := _HOST.fullmatch(host)):
            return False
        name = found[1].strip("[]").lower()
        if self.limits.allow_ip_hosts:
            with contextlib.suppress(ValueError):
                return bool(ip_address(name))
        return name in self.limits.hosts

    def _refusal(self, headers: Headers) -> Response:
        """Return the response to a request with a wrong host name, and report the name."""
        host = headers.get("host", "")
        name = re.sub(r"[^\w.:\[\]-]", "?", re.sub(r":\d*$", "", host)[:100], flags=re.ASCII)
        if (
            name
            and name not in self.reported_hosts
            and len(self.reported_hosts) < _MAX_REPORTED_HOSTS
        ):
            self.reported_hosts.add(name)
            self.limits.on_refused(name)  # in which ? stands for what no host name has
        text = (
            f"This page is not served under the name '{name}'. Open the address that was printed "
            "when the server was started, or ask its owner to allow this name: the server's "
            "terminal shows how."
        )
        if "text/html" in headers.get("accept", ""):
            return PlainTextResponse(text + "\n", 400)
        return _refused(text, 400)


def make_app(queue: JobQueue, limits: Limits) -> Starlette:
    """Return the application: `/`, `/jobs`, `/jobs/KEY` and `/jobs/KEY/file`; `/restore`."""
    site = _Site(queue, limits)

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(queue.close)

    return Starlette(
        routes=[
            Route("/", site.page),
            Route("/restore", site.restore, methods=["POST"]),
            Route("/jobs", site.submit, methods=["POST"]),
            Route("/jobs/{key}", site.state),
            Route("/jobs/{key}", site.cancel, methods=["DELETE"]),
            Route("/jobs/{key}/file", site.file),
        ],
        middleware=[Middleware(Guard, limits=limits)],
        exception_handlers={
            RestoreError: _failed,
            HTTPException: _refused_by_starlette,
            ClientDisconnect: lambda _, error: _refused("the picture did not arrive", 400),
            UnicodeError: lambda _, error: _refused("the form cannot be decoded", 400),
        },
        lifespan=life,
    )


class _Site:
    """The handlers of all addresses."""

    def __init__(self, queue: JobQueue, limits: Limits) -> None:
        self.queue, self.limits = queue, limits
        self.shrinking = threading.Lock()  # only one picture is shrunk at a time
        self.template = page_template("serving/page.html.j2")

    async def page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        ready = load_manifest().defaults
        text = self.template.render(
            nonce=nonce,
            models=[model for name, model in MODELS.items() if name in ready],
            formats=sorted(FORMATS),
            most=self.limits.max_upload_bytes,
        )
        policy = (
            f"default-src 'none'; img-src data:; connect-src 'self'; base-uri 'none'; "
            f"form-action 'none'; frame-ancestors 'none'; "
            f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        )
        headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
        return HTMLResponse(text, headers=headers)

    async def submit(self, request: Request) -> Response:
        job, notes = await self._accept(request)
        return JSONResponse({"key": job.key, "notes": notes}, 202)

    async def restore(self, request: Request) -> Response:
        """For scripts: the response to the form is the restored file."""
        job, notes = await self._accept(request, sure=True)
        while job.state in ("waiting", "running"):
            if await request.is_disconnected():
                self.queue.cancel(job)
            self.queue.find(job.key)  # somebody waits
            await asyncio.sleep(_WAIT)
        if job.target is None:
            return _refused(for_visitors(job.error), _status(job.failure))
        return self._attachment(job, {"Restore-Notes": json.dumps([*notes, *_notes(job)])})

    async def _accept(self, request: Request, *, sure: bool = False) -> tuple[Job, tuple[str, ...]]:
        """Put the picture of a form into the queue; return its job, and notes."""
        _check_head(request)
        self.queue.reserve_slot()
        try:
            async with asyncio.timeout(self.limits.request_timeout):
                job, notes = await self._receive(request, sure=sure)
        except BaseException as error:
            self.queue.release_slot()
            if isinstance(error, TimeoutError):
                raise TooSlowError(
                    f"the picture took longer than {self.limits.request_timeout:.0f} s to arrive"
                ) from error
            if isinstance(error, OSError):  # also of Starlette's own copy of the upload
                raise StorageError.of(error) from error
            raise
        self.queue.submit(job)
        return job, notes

    async def cancel(self, request: Request) -> Response:
        _check_origin(request)
        job = self.queue.find(request.path_params["key"])
        if job is None:
            return _refused("this picture is no longer stored", 404)
        self.queue.cancel(job)
        return Response(status_code=204)

    async def _receive(self, request: Request, *, sure: bool) -> tuple[Job, tuple[str, ...]]:
        """Store the picture of a form; return its job, and notes on what was done to it."""
        async with request.form(max_files=1, max_fields=8) as form:
            upload = form.get("picture")
            if not isinstance(upload, UploadFile):
                kind = request.headers.get("content-type") or "missing"
                text = "there is no file 'picture' in the form, or it is incomplete"
                if not kind.startswith(_FORMS):
                    text = f"the picture must be in a form, but the content type is {kind}"
                raise UsageError(text, hint="send it as curl -F picture=@photo.jpg does")
            names = [name for name, _ in form.multi_items()]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise UsageError(f"fields {twice} are given twice", hint="give each once")
            fields = {key: str(value) for key, value in form.items() if key != "picture"}
            shrink = _is_on("shrink", fields.pop("shrink", ""))
            sure = _is_on("sure", fields.pop("sure", "")) or sure
            automatic = not fields.get("model") and not fields.get("scale")
            settings = _settings(fields)
            job = self.queue.new(upload.filename or "", settings)
            try:
                with job.source.open("wb") as file:
                    while chunk := await upload.read(1 << 20):
                        await run_in_threadpool(file.write, chunk)
                wishes = {"automatic": automatic, "shrink": shrink, "sure": sure}
                return await run_in_threadpool(self._fitted, job, **wishes)
            except BaseException:  # e.g. the disk is full, or the visitor disconnected
                self.queue.discard(job)
                raise

    def _fitted(self, job: Job, **wishes: bool) -> tuple[Job, tuple[str, ...]]:
        with self.shrinking:
            return fit_to_limits(job, self.queue, **wishes)

    async def state(self, request: Request) -> Response:
        job = self.queue.find(request.path_params["key"])
        # Systems delete old temporary folders.
        if job is None or (job.target is not None and not job.folder.exists()):
            return _refused("this picture is no longer stored", 404)
        return JSONResponse(_facts(job, self.queue), headers={"Cache-Control": "no-store"})

    async def file(self, request: Request) -> Response:
        job = self.queue.find(request.path_params["key"])
        if job is None or job.target is None or job.state != "done" or not job.target.exists():
            return _refused("there is no result for this picture", 404)
        return self._attachment(job)

    def _attachment(self, job: Job, headers: dict[str, str] | None = None) -> FileResponse:
        """Return the result as a file, which a browser never displays as a page of this server."""
        assert job.target is not None
        return FileResponse(
            job.target,
            media_type="application/octet-stream",
            filename=job.target.name,
            headers={"X-Content-Type-Options": "nosniff", **(headers or {})},
        )


def _check_head(request: Request) -> None:
    """Refuse a form of another site, a compressed one, and fields that are not in the form."""
    _check_origin(request)
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":  # answered as RFC 9110 says, 15.5.16
        text = f"the form is compressed ({encoding}); send it without Content-Encoding"
        raise HTTPException(415, text, {"Accept-Encoding": "identity"})
    if request.url.query:
        raise UsageError(
            f"'{request.url.query}' in the address is not read",
            hint="send fields in the form, as curl -F scale=2 does",
        )


def _check_origin(request: Request) -> None:
    """Refuse requests of pages of other sites; those of programs do not name an origin."""
    origin, host = request.headers.get("origin"), request.headers.get("host")
    with contextlib.suppress(ValueError):  # of an origin that is no address
        if origin is None or urlsplit(origin).netloc == host:
            return
    raise HTTPException(
        403,
        "pages of other sites cannot submit or cancel pictures, and this one is at "
        f"'{origin}', not at '{host}' (a proxy must pass on the header Host)",
    )


def _failed(_: Request, error: Exception) -> Response:
    if isinstance(error, ConfirmationRequiredError):
        choices = [dataclasses.asdict(choice) for choice in error.choices]
        return JSONResponse({"error": str(error), "choices": choices}, 400)
    hint = getattr(error, "hint", "")
    return _refused(for_visitors(f"{error}{f' ({hint})' if hint else ''}"), _status(error))


def _status(error: Exception | None) -> int:
    """Return the status of HTTP for an error; 400 if the picture or the form is to blame."""
    statuses = {BusyError: 503, TooLargeError: 413, TooSlowError: 408, StorageError: 507}
    if is_disk_full(error):
        return 507
    ours = isinstance(error, RestoreError | None) and not isinstance(error, DeviceError)
    kinds = (code for kind, code in statuses.items() if isinstance(error, kind))
    return next(kinds, 400 if ours else 500)


def _settings(fields: dict[str, str]) -> JobSettings:
    known = {field.name for field in dataclasses.fields(JobSettings)} - {"keep"}
    if unknown := sorted(set(fields) - known):
        known |= {"shrink"}  # taken before
        raise UsageError(f"unknown fields {unknown}", hint=f"known: {', '.join(sorted(known))}")
    scale = fields.get("scale") or None
    keep = scale == "keep"
    if scale is not None and not keep and not (scale.isdecimal() and len(scale) < 5):
        raise UsageError(f"scale '{scale[:20]}' is neither a number nor 'keep'")
    form = fields.get("format") or None
    if form is not None and form not in FORMATS:
        raise UsageError(f"unknown format '{form}'", hint=f"known: {', '.join(sorted(FORMATS))}")
    factor = int(scale) if scale and not keep else None
    model = fields.get("model") or default_model(factor)
    if len(split_names(model)) > 1:
        raise UsageError(f"'{model}' names several models", hint="choose one")
    return JobSettings(
        model=model,
        scale=factor,
        format=form,
        self_ensemble=_is_on("self_ensemble", fields.get("self_ensemble", "")),
        keep=keep,
    )


def _is_on(field: str, value: str) -> bool:
    if (known := _SWITCHES.get(value.strip().lower())) is None:
        raise UsageError(f"{field} '{value[:20]}' is neither on nor off", hint="use 1 or 0")
    return known


def _facts(job: Job, queue: JobQueue) -> dict[str, object]:
    facts: dict[str, object] = {
        "state": job.state,
        "share": job.share,
        "ahead": queue.ahead_of(job),
    }
    if job.state == "failed":
        facts["error"] = for_visitors(job.error)
    if job.state == "done" and job.target is not None and job.comparison is not None:
        facts |= dataclasses.asdict(job.comparison) | {"name": job.source.name}
        facts |= {
            "file": job.target.name,
            "bytes": job.target.stat().st_size,
            "seconds": round(job.seconds, 1),
            "notes": _notes(job),
        }
    return facts


def _notes(job: Job) -> list[str]:
    return [for_visitors(note) for note in job.notes]


def _refused(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status)


def _refused_by_starlette(_: Request, error: Exception) -> Response:
    """Return the answer to a form, an address or a method that Starlette does not accept."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)
