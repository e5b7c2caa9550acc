"""HTTP/1.1 as uvicorn speaks it over h11, with our words for what is no HTTP.

Not over httptools, which loses the body of a request that offers to upgrade to HTTP/2, as Java's client does.
"""

import json

import h11
from ulid import ULID
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.api.errors import PROBLEM_JSON, problem_body


class Protocol(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be read as HTTP, then close the connection."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            request_id = str(ULID())
            body = json.dumps(problem_body(400, "this is not HTTP/1.1", request_id=request_id)).encode()
            headers = {"Content-Type": PROBLEM_JSON, "X-Request-ID": request_id, "Connection": "close"}
            start = h11.Response(status_code=400, headers=[*headers.items()], reason=b"Bad Request")
            for event in (start, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """An offer to upgrade may be left unanswered, and is not worth a line in the log."""
