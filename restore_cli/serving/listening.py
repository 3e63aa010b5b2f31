"""The socket, opened before anything is loaded: a port that is taken costs no seconds."""

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
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {getattr(error, 'strerror', None) or error}",
            hint="choose another --port, or 0 for any that is free",
        ) from error
