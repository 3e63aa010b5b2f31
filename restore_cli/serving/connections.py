"""HTTP connections with time limits for the head of a request and for reading the response."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SECONDS = 10.0  # for a request's line and headers; browsers send them in one piece
READING_SECONDS = 60.0  # in which a client must take something of a response that waits for it


class TimedConnection(H11Protocol):
    """Uvicorn's HTTP/1.1 connection, closed when a request's head or its reader is too slow.

    Uvicorn limits only the time between two requests, and each byte restarts it: idle visitors,
    or those that send a header byte by byte, would use up the connections of the server. The time
    for the body of a request that is not answered yet is limited by `Guard`. Uvicorn has no limit
    either for a response that nobody reads.
    """

    _timer: asyncio.TimerHandle | None = None
    _reading_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(exc)
        self._stop()
        self._stop_reading_timer()

    def pause_writing(self) -> None:
        """Begin to wait until the client takes what was sent."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """Stop waiting for the client."""
        super().resume_writing()
        self._stop_reading_timer()

    def _wait(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(SECONDS, self._close_if_waiting)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wait_for_reader(self) -> None:
        self._stop_reading_timer()
        unread = self.transport.get_write_buffer_size()
        self._reading_timer = self.loop.call_later(READING_SECONDS, self._abort_if_unread, unread)

    def _abort_if_unread(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._wait_for_reader()
        else:
            self.transport.abort()

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()

    def _close_if_waiting(self) -> None:
        state: Any = self.conn.their_state
        cycle: Any = self.cycle
        # An answered request may have a body that never ends.
        answered = cycle is not None and cycle.response_complete
        if (state is h11.IDLE or answered) and not self.transport.is_closing():
            self.transport.close()
