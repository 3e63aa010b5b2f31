"""The socket, opened before networks are loaded: a port that is taken costs no seconds."""

from __future__ import annotations

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
            f"cannot listen at {host}:{port}: {error.strerror}",
            hint="choose another --port, or 0 for any that is free, or an address of this machine",
        ) from error
