"""`restore serve`."""

from __future__ import annotations

import logging
import re
import signal
import webbrowser
from socket import gethostname
from typing import TYPE_CHECKING, Annotated

import typer

from restore_cli.cli import _options as opt
from restore_cli.cli import _output as out
from restore_cli.cli._messages import handle_errors
from restore_cli.cli._process import abandon_threads
from restore_cli.errors import Interrupted, UsageError, require

if TYPE_CHECKING:
    from socket import socket as Socket

    from starlette.applications import Starlette

_NAME = re.compile(r"[\w.-]+")  # of a host
EPILOG = """
Examples:
  restore serve
  restore serve --port 9000 --max-upload 20 --open
  restore serve --host 0.0.0.0
  curl -F picture=@blurry.png -o sharp.png http://127.0.0.1:8000/restore

By default the page can be reached only from this machine. With --host
0.0.0.0, phones on the same network can open the first printed address. There
is no password.
"""


@handle_errors
def serve(
    host: Annotated[
        str, opt.option(help="Address to listen on; 0.0.0.0 for all.", metavar="ADDRESS")
    ] = "127.0.0.1",
    port: Annotated[
        int, opt.option(help="Port to listen on; 0 for any free port.", min=0, max=65535)
    ] = 8000,
    max_upload: Annotated[
        int, opt.option(help="Refuse files larger than this, in MB.", min=1, metavar="MB")
    ] = 50,
    max_pixels: Annotated[
        int,
        opt.option(
            help="Refuse pictures whose result has more than N pixels. Default: 100 million.",
            min=1,
            show_default=False,
        ),
    ] = 100_000_000,
    waiting: Annotated[int, opt.option(help="Pictures that may wait in the queue.", min=1)] = 8,
    allow_host: Annotated[
        list[str] | None,
        opt.option(
            help="Another host name under which browsers may open the page, e.g. of a proxy.",
            metavar="NAME",
        ),
    ] = None,
    device: opt.DeviceOpt = "auto",
    open_page: Annotated[bool, opt.option("--open", help="Open the page in a browser.")] = False,
    verbose: opt.VerboseOpt = 0,
) -> None:
    """Serve a web page to restore pictures and compare before and after.

    One picture is restored at a time. Prints the address of the page, and runs
    until Ctrl-C.
    """
    require("serve", "python_multipart", "starlette", "uvicorn")
    for name in allow_host or ():
        if not _NAME.fullmatch(name):
            raise UsageError(
                f"--allow-host '{name}' is not a host name",
                hint="one name, without http:// and the port",
            )
    from restore_cli.serving.listening import addresses, listen

    socket = listen(host, port)
    from restore_cli.inference.devices import get_device
    from restore_cli.inference.memory import keep_freed_memory
    from restore_cli.inference.restorer import RestorerOptions
    from restore_cli.serving.job_queue import JobQueue
    from restore_cli.serving.web import LOOPBACK, Limits, make_app

    keep_freed_memory()
    local = host in LOOPBACK
    port = socket.getsockname()[1]
    found = addresses(host, port)
    names = {name.lower() for name in (*LOOPBACK, host, *(allow_host or ()))}
    if not local:
        machine = gethostname().lower()
        names |= {machine, f"{machine}.local"}
    queue = JobQueue(RestorerOptions(get_device(device), dtype=None), max_pixels, waiting)
    try:
        limits = Limits(
            max_upload * 1_000_000,
            tuple(names),
            allow_ip_hosts=not local,
            on_refused=_tell_of_refused,
        )
        if not local:
            who = "everybody who can reach an address"
            out.echo_err(f"note: there is no password: {who} can use the page")
        for address in found:
            out.echo(address)
        if open_page:
            webbrowser.open(found[-1])
        _run(make_app(queue, limits), socket)
    finally:
        if not queue.close():
            abandon_threads()
    raise typer.Exit


def _run(app: Starlette, socket: Socket) -> None:
    """Serve until a signal arrives."""
    import uvicorn

    from restore_cli.serving.connections import TimedConnection

    config = uvicorn.Config(
        app,
        log_level="warning",
        log_config=None,  # uvicorn's own fails if stdout is closed
        server_header=False,
        timeout_graceful_shutdown=2,
        limit_concurrency=64,
        http=TimedConnection,
        ws="none",
    )
    # Malformed requests, and connections cut at shutdown, are not worth reporting.
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    hung_up: list[Interrupted] = []

    def hang_up(number: int, _: object) -> None:
        # Uvicorn handles SIGTERM; an exception inside its loop would print a traceback.
        hung_up.append(Interrupted(number))
        signal.raise_signal(signal.SIGTERM)

    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, hang_up)
    try:
        uvicorn.Server(config).run(sockets=[socket])
    except Interrupted as stop:
        raise hung_up[0] if hung_up else stop from None


def _is_news(record: logging.LogRecord) -> bool:
    return bool(record.exc_info) or record.levelno >= logging.CRITICAL


def _tell_of_refused(name: str) -> None:
    allow = f"; to allow this name, use --allow-host '{name}'" if _NAME.fullmatch(name) else ""
    out.echo_err(f"note: a request for the host '{name}' was refused{allow}")
