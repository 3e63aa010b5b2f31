"""The socket, opened before networks are loaded: a port that is taken costs no seconds."""

from __future__ import annotations

import contextlib
import os
import socket

from restore_cli.errors import UsageError


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Args:
        host: address.
        port: 0 for any that is free.

    Raises:
        UsageError: taken, or not an address of this machine.
    """
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(
            f"--host '{host}' is no address: {error.strerror}", hint="as 127.0.0.1 or 0.0.0.0"
        ) from error
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {os.strerror(error.errno or 0)}",
            hint="choose another --port, or 0 for any that is free, or an address of this machine",
        ) from error


def addresses(host: str, port: int) -> list[str]:
    """Where browsers find the page; what other machines can open comes first.

    Args:
        host: that it listens at.
        port: of the socket.
    """
    hosts = {"0.0.0.0": [_own("192.0.2.1"), "127.0.0.1"], "::": [_own("2001:db8::1"), "::1"]}
    found = [one for one in hosts.get(host, [host]) if one]
    return [f"http://{f'[{one}]' if ':' in one else one}:{port}/" for one in dict.fromkeys(found)]


def _own(elsewhere: str) -> str:
    """This machine's address in the network that leads elsewhere; "" without one.

    Nothing is sent: a UDP socket only looks up the way, here to addresses of examples (RFC 5737).
    """
    family = socket.AF_INET6 if ":" in elsewhere else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((elsewhere, 9))
        return str(probe.getsockname()[0])
    return ""
