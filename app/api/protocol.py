"""HTTP/1.1 as uvicorn speaks it over h11, with a time limit on heads, and our words for what is no HTTP.

Not over httptools, which loses the body of a request that offers to upgrade to HTTP/2, as Java's client does.
"""

import asyncio
import json

import h11
from ulid import ULID
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.errors import PROBLEM_JSON, TITLES, problem_body


class Protocol(H11Protocol):
    """uvicorn's keep-alive limit runs from a connection's start, or its last answer, to the end of the next head."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, but bytes alone do not stop the clock: a whole head does, in `handle_events`."""
        self.conn.receive_data(data)
        self.handle_events()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection; a client that had begun a request is told why."""
        begun, _ = self.conn.trailing_data
        if begun and not self.transport.is_closing():
            self._refuse(408, "the head of the request did not arrive in time")
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read as HTTP, then close the connection."""
        self._refuse(400, "this is not HTTP/1.1")

    def _refuse(self, status: int, detail: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            request_id = str(ULID())
            body = json.dumps(problem_body(status, detail, request_id=request_id)).encode()
            headers = [
                ("Content-Type", PROBLEM_JSON),
                ("Content-Length", str(len(body))),
                ("X-Request-ID", request_id),
                ("Connection", "close"),
            ]
            start = h11.Response(status_code=status, headers=headers, reason=TITLES[status].encode())
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """An offer to upgrade may be left unanswered, and is not worth a line in the log."""
