"""Ways to the API that need no socket, and report the moments of a request as httpcore does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable


class Traced(httpx.AsyncBaseTransport):
    """Transport that has a connection at once, and asks before the first byte whether the request may leave."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trace = request.extensions.get("trace")
        if trace:
            await trace("http11.send_request_headers.started", {"request": request})
        return await self._inner.handle_async_request(request)


class Unreachable(httpx.AsyncBaseTransport):
    """Transport that has no connection, and says so before anything could leave."""

    def __init__(self, error: httpx.TransportError) -> None:
        self._error = error

    async def handle_async_request(self, _: httpx.Request) -> httpx.Response:
        raise self._error


def over(inner: httpx.AsyncBaseTransport) -> Callable[[httpx.Limits], httpx.AsyncBaseTransport]:
    """Return what makes a client's transports of one that replaces the network."""
    return lambda _: inner if isinstance(inner, Unreachable) else Traced(inner)
