"""Connections that only wait are closed; those that are used are not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time

import pytest

pytest.importorskip("uvicorn")
import uvicorn

from restore_cli.serving import connections
from restore_cli.serving.connections import TimedConnection

LARGE = 30_000_000  # bytes, more than the system buffers
HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n"


async def count_bytes(scope, receive, send):
    if scope["type"] != "http":
        return
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    if scope["path"] == "/large":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": bytes(LARGE)})
        return
    headers = [(b"content-length", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": str(size).encode()})


@pytest.fixture
def connect(monkeypatch):
    """Opens connections to a server of at most three, which wait for 0.5 s."""
    monkeypatch.setattr(connections, "SECONDS", 0.5)
    monkeypatch.setattr(connections, "READING_SECONDS", 0.5)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        count_bytes, log_level="critical", http=TimedConnection, limit_concurrency=4, lifespan="off"
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])))
    thread.start()
    opened = []

    def connect():
        opened.append(socket.create_connection(listening.getsockname(), timeout=20))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()
    server.should_exit = True
    thread.join()


def answer(connection):
    received = b""
    while part := connection.recv(1000):
        received += part
        if b"\r\n\r\n" in received and not received.endswith(b"\r\n\r\n"):
            return received
    return received


def test_idle_connections_do_not_block_the_page(connect):
    idle = [connect() for _ in range(4)]
    idle[0].sendall(HEAD[:20])  # a part of a head is no request either
    blocked = connect()
    blocked.sendall(HEAD + b"body")
    assert b"503" in answer(blocked)
    for one in idle:
        assert one.recv(1) == b""  # closed by the server
    free = connect()
    free.sendall(HEAD + b"body")
    assert answer(free).endswith(b"4")


def test_a_connection_in_use_is_not_closed(connect):
    used = connect()
    used.sendall(HEAD + b"bo")
    time.sleep(1)  # a slow upload
    used.sendall(b"dy")
    assert answer(used).endswith(b"4")
    used.sendall(HEAD + b"body")  # and again, through the same connection
    assert answer(used).endswith(b"4")
    assert used.recv(1) == b""


def test_a_body_that_never_ends_does_not_keep_an_answered_connection_open(connect):
    early = connect()
    early.sendall(HEAD.replace(b"/ ", b"/early ", 1))
    assert answer(early).endswith(b"0")
    early.sendall(b"b")
    assert early.recv(1) == b""


def test_responses_that_nobody_reads_do_not_block_the_page(connect):
    for _ in range(3):
        connect().sendall(HEAD.replace(b"/ ", b"/large ", 1) + b"body")
    time.sleep(1)
    free = connect()
    free.sendall(HEAD + b"body")
    assert answer(free).endswith(b"4")


def test_a_slow_reader_gets_all(connect):
    slow = connect()
    slow.sendall(HEAD.replace(b"/ ", b"/large ", 1) + b"body")
    received = 0
    while part := slow.recv(1 << 20):
        received += len(part)
        time.sleep(0.05)
    assert received > LARGE


def test_a_head_that_drips_is_cut_off(connect):
    slow = connect()
    sent = 0
    with contextlib.suppress(ConnectionError):
        for byte in HEAD[:-1] + b"X: " + b"y" * 1000:
            slow.sendall(bytes([byte]))
            sent += 1
            time.sleep(0.02)
    assert sent < 500  # of a thousand bytes in 20 s
