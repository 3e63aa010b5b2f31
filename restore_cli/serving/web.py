"""The page and its few addresses, for Starlette.

Nothing is fetched from elsewhere, and nothing of a visitor's reaches another: jobs have keys
that cannot be guessed. Pages of other sites cannot use the server through a visitor's browser:
requests must name this host by a name that its owner gave or by its number, which no other site's
name can become, and come from its own page.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restore_cli.errors import RestoreError, UsageError
from restore_cli.image import FORMATS
from restore_cli.models.registry import MODELS
from restore_cli.serving.job_queue import BusyError, Job, JobQueue, JobSettings
from restore_cli.weights.manifest import default_model, load_manifest

LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a visitor may ask for.

    Attributes:
        upload: bytes of a request.
        hosts: names that a request may call this server by.
        numbers: whether any address in numbers will do as well.
        seconds: that a request may take to arrive.
    """

    upload: int
    hosts: tuple[str, ...] = LOOPBACK
    numbers: bool = False
    seconds: float = 600.0


class TooLargeError(RestoreError):
    """A request of more bytes than are taken."""


class TooSlowError(RestoreError):
    """A request that does not end."""


class Guard:
    """Refuses requests for other hosts, and breaks off those that are too large."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits, self.most = app, limits, limits.upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self._is_ours(Headers(scope=scope).get("host", "")):
            refusal = _refused("this is not the host that was asked for", 400)
            await refusal(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self.most:
                raise TooLargeError(
                    f"the picture is larger than {self.most / 1e6:.0f} MB",
                    hint="use the command line, which has no limit",
                )
            return message

        await self.app(scope, counted, send)

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""  # in small letters
        except ValueError:
            return False
        if self.limits.numbers:
            with contextlib.suppress(ValueError):
                return bool(ip_address(name))
        return name in self.limits.hosts


def make_app(queue: JobQueue, limits: Limits) -> Starlette:
    """The application: `/`, `/jobs`, `/jobs/KEY` and `/jobs/KEY/file`."""
    site = _Site(queue, limits)

    @contextlib.asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(queue.close)

    return Starlette(
        routes=[
            Route("/", site.page),
            Route("/jobs", site.submit, methods=["POST"]),
            Route("/jobs/{key}", site.state),
            Route("/jobs/{key}/file", site.file),
        ],
        middleware=[
            Middleware(Guard, limits=limits),
        ],
        exception_handlers={RestoreError: _failed},
        lifespan=life,
    )


class _Site:
    """What answers at each address."""

    def __init__(self, queue: JobQueue, limits: Limits) -> None:
        self.queue, self.limits = queue, limits
        pages = Environment(loader=PackageLoader("restore_cli", "."), autoescape=True)
        self.template = pages.get_template("serving/page.html.j2")

    async def page(self, request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        manifest = load_manifest()
        ready = {one.model for one in manifest.checkpoints.values() if one.default}
        text = self.template.render(
            nonce=nonce,
            models=[model for name, model in MODELS.items() if name in ready],
            chosen=default_model(),
            formats=sorted(FORMATS),
            megabytes=self.limits.upload // 1_000_000,
        )
        policy = (
            f"default-src 'none'; img-src data:; connect-src 'self'; base-uri 'none'; "
            f"form-action 'none'; frame-ancestors 'none'; "
            f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        )
        headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"}
        return HTMLResponse(text, headers=headers)

    async def submit(self, request: Request) -> Response:
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            return _refused("another site's page cannot submit pictures", 403)
        self.queue.reserve_place()
        try:
            async with asyncio.timeout(self.limits.seconds):
                job = await self._receive(request)
        except BaseException as error:
            self.queue.release_place()
            if isinstance(error, TimeoutError):
                raise TooSlowError(
                    f"the picture took longer than {self.limits.seconds:.0f} s to arrive"
                ) from error
            raise
        self.queue.submit(job)
        return JSONResponse({"key": job.key}, 202)

    async def _receive(self, request: Request) -> Job:
        """The picture of a form, in its job's folder."""
        async with request.form(max_files=1, max_fields=8) as form:
            upload = form.get("picture")
            if not isinstance(upload, UploadFile):
                raise UsageError("there is no file 'picture' in the form")
            settings = _settings(
                {key: str(value) for key, value in form.items() if key != "picture"}
            )
            job = self.queue.new(upload.filename or "", settings)
            try:
                with job.source.open("wb") as file:
                    while chunk := await upload.read(1 << 20):
                        await run_in_threadpool(file.write, chunk)
            except BaseException as error:  # a full disk, or a visitor who left
                self.queue.discard(job)
                if isinstance(error, OSError):
                    raise RestoreError(f"no room for the picture: {error.strerror}") from error
                raise
        return job

    async def state(self, request: Request) -> Response:
        job = self.queue.find(request.path_params["key"])
        if job is None:
            return _refused("this picture is not kept any more", 404)
        return JSONResponse(_facts(job, self.queue), headers={"Cache-Control": "no-store"})

    async def file(self, request: Request) -> Response:
        job = self.queue.find(request.path_params["key"])
        if job is None or job.target is None or job.state != "done":
            return _refused("this picture is not there", 404)
        # Never shown by the browser as a page of this server.
        return FileResponse(
            job.target,
            media_type="application/octet-stream",
            filename=job.target.name,
            headers={"X-Content-Type-Options": "nosniff"},
        )


def _failed(_: Request, error: Exception) -> Response:
    statuses = {BusyError: 503, TooLargeError: 413, TooSlowError: 408}
    status = next((code for kind, code in statuses.items() if isinstance(error, kind)), 400)
    hint = getattr(error, "hint", "")
    return _refused(f"{error}{f' ({hint})' if hint else ''}", status)


def _settings(fields: dict[str, str]) -> JobSettings:
    known = {field.name for field in dataclasses.fields(JobSettings)}
    if unknown := sorted(set(fields) - known):
        raise UsageError(f"unknown fields {unknown}", hint=f"known: {', '.join(sorted(known))}")
    scale = fields.get("scale") or None
    if scale is not None and not scale.isdecimal():
        raise UsageError(f"scale '{scale}' is not a number")
    form = fields.get("format") or None
    if form is not None and form not in FORMATS:
        raise UsageError(f"format '{form}' is not known", hint=", ".join(sorted(FORMATS)))
    factor = int(scale) if scale else None
    return JobSettings(
        model=fields.get("model") or default_model(factor),
        scale=factor,
        format=form,
        self_ensemble=bool(fields.get("self_ensemble")),
    )


def _facts(job: Job, queue: JobQueue) -> dict[str, object]:
    facts: dict[str, object] = {
        "state": job.state,
        "share": job.share,
        "ahead": queue.ahead_of(job),
    }
    if job.state == "failed":
        facts["error"] = job.error
    if job.state == "done" and job.target is not None and job.shown is not None:
        facts |= dataclasses.asdict(job.shown) | {"name": job.source.name}
        facts |= {
            "file": job.target.name,
            "bytes": job.target.stat().st_size,
            "seconds": round(job.seconds, 1),
            "notes": list(job.notes),
        }
    return facts


def _refused(message: str, status: int) -> Response:
    return JSONResponse({"error": message}, status)
