"""`/metrics`: finished bytes, chosen by what the client accepts. Nothing here waits, computes or can fail."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client.exposition import gzip_accepted
from starlette.datastructures import Headers

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from exporter.exposition.body import Bodies

_OPENMETRICS: Final = "application/openmetrics-text"
_TEXT: Final = "text/plain"
_VERSIONS: Final = ("", "1.0.0")  # of OpenMetrics, that we write


class HasBodies(Protocol):
    """Who renders."""

    bodies: Bodies


class Metrics:
    """An ASGI endpoint that serves the current bodies."""

    def __init__(self, source: HasBodies) -> None:
        self._source = source

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer 200, whatever the API does."""
        headers = Headers(scope=scope)
        bodies = self._source.bodies
        body = bodies.openmetrics if wants_openmetrics(headers.get("accept", "")) else bodies.text
        zipped = wants_gzip(headers.get("accept-encoding", ""))
        parts = (body.gzip,) if zipped else body.plain
        length = len(body.gzip) if zipped else body.length
        answer = [
            (b"content-type", body.content_type.encode()),
            (b"content-length", str(length).encode()),
            (b"vary", b"Accept, Accept-Encoding"),
        ]
        if zipped:
            answer.append((b"content-encoding", b"gzip"))
        await send({"type": "http.response.start", "status": 200, "headers": answer})
        if scope["method"] != "HEAD":
            for part in parts:
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@lru_cache(maxsize=64)
def wants_openmetrics(accept: str) -> bool:
    """Whether a client prefers OpenMetrics 1.0 to the text format. Without a preference it gets text."""
    best = {_OPENMETRICS: 0.0, _TEXT: 0.0}
    for item in accept.split(","):
        media, *parameters = (part.strip().lower() for part in item.split(";"))
        values = dict(part.split("=", 1) for part in parameters if "=" in part)
        if media == _OPENMETRICS and values.get("version", "") not in _VERSIONS:
            continue
        if media in best:
            best[media] = max(best[media], _quality(values.get("q", "1")))
    return best[_OPENMETRICS] > 0 and best[_OPENMETRICS] >= best[_TEXT]


@lru_cache(maxsize=64)
def wants_gzip(accept_encoding: str) -> bool:
    """Whether a client takes gzip."""
    accepted = [
        item for item in accept_encoding.lower().replace(" ", "").split(",") if not item.endswith((";q=0", ";q=0.0"))
    ]
    return gzip_accepted(",".join(accepted))


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
