"""uvicorn that answers every request with the same bytes: the most that a server on it can do.

Run as `constant.py PORT SOURCE_PORT`; the bytes are what the exporter on the second port answers to a gzip scrape.
"""

from __future__ import annotations

import http.client
import sys
from typing import TYPE_CHECKING

import uvicorn

from exporter.web.server import KEEP_ALIVE

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


def main(port: int, source: int) -> None:
    """Serve until told to stop."""
    connection = http.client.HTTPConnection("127.0.0.1", source)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    body = connection.getresponse().read()
    connection.close()
    headers = [(b"content-length", str(len(body)).encode()), (b"content-encoding", b"gzip")]

    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            lifespan="off",
            log_level="critical",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
    ).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
