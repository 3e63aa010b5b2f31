"""Opens the socket of the server, before networks are loaded, so that errors show at once."""

from __future__ import annotations

import contextlib
import os
import socket

from restore_cli.errors import UsageError


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 stands for any free port.

    Raises `UsageError` if the port is in use, or the host is not an address of this machine.
    """
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:  # the latter of names like a..b
        reason = getattr(error, "strerror", None) or "it is not a host name"
        raise UsageError(
            f"--host '{host}' is not an address: {reason}",
            hint="use e.g. 127.0.0.1, 0.0.0.0 or ::1, without brackets",
        ) from error
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
            hint="choose another --port, or 0 for any free port, or an address of this machine",
        ) from error


def addresses(host: str, port: int) -> list[str]:
    """Return the page's addresses at a port; those that other machines can open come first."""
    hosts = {"0.0.0.0": [_own("192.0.2.1"), "127.0.0.1"], "::": [_own("2001:db8::1"), "::1"]}
    number = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0]  # of `0`, too
    found = [one for one in hosts.get(str(number), [host]) if one]
    return [f"http://{f'[{one}]' if ':' in one else one}:{port}/" for one in dict.fromkeys(found)]


def _own(elsewhere: str) -> str:
    """Return this machine's address on the route to another address; "" if there is no route.

    Nothing is sent: connecting a UDP socket only looks up the route, here to example addresses
    (RFC 5737, RFC 3849).
    """
    family = socket.AF_INET6 if ":" in elsewhere else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((elsewhere, 9))
        return str(probe.getsockname()[0])
    return ""
