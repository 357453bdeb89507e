"""`/metrics`: finished bytes, chosen by what the client accepts. Nothing here waits, computes or can fail."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from starlette.datastructures import Headers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
        *firsts, last = parts if parts and scope["method"] != "HEAD" else (b"",)
        for part in firsts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": last})


@lru_cache(maxsize=64)
def wants_openmetrics(accept: str) -> bool:
    """Whether a client prefers OpenMetrics 1.0 to the text format. Without a preference it gets text."""
    best = {_OPENMETRICS: 0.0, _TEXT: 0.0}
    for media, values in _items(accept):
        if media == _OPENMETRICS and values.get("version", "") not in _VERSIONS:
            continue
        if media in best:
            best[media] = max(best[media], _quality(values))
    return best[_OPENMETRICS] > 0 and best[_OPENMETRICS] >= best[_TEXT]


@lru_cache(maxsize=64)
def wants_gzip(accept_encoding: str) -> bool:
    """Whether a client names gzip among what it takes."""
    return any(coding == "gzip" and _quality(values) > 0 for coding, values in _items(accept_encoding))


def _items(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Return what a header lists, in lower case, each with its parameters."""
    for item in header.lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        yield name, dict(part.split("=", 1) for part in parameters if "=" in part)


def _quality(parameters: Mapping[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 0.0
