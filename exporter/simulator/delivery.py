"""Faults in how an answer is sent: responses that starve, break off, swell or never come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Receive, Scope, Send

    Sleep = Callable[[float], Awaitable[None]]

PIECE = 1 << 16
MISSING_BYTES = 1024


def _over_a_socket(scope: Scope) -> bool:
    """Tell a server, which names a spec_version, from an in-process client, for which an answer must be complete."""
    return "spec_version" in scope["asgi"]


async def _break_off(scope: Scope, send: Send, start: bytes, headers: list[tuple[bytes, bytes]], status: int) -> None:
    """Send less than was promised; a server hangs up then."""
    lying = [pair for pair in headers if pair[0] != b"content-length"]
    lying.append((b"content-length", str(len(start) + MISSING_BYTES).encode()))
    await send({"type": "http.response.start", "status": status, "headers": lying})
    await send({"type": "http.response.body", "body": start, "more_body": _over_a_socket(scope)})


class Truncated(Response):
    """Promises the whole body and hangs up in the middle; in process, the cut body is all there is."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send half."""
        half = bytes(self.body)[: len(self.body) // 2]
        await _break_off(scope, send, half, self.raw_headers, self.status_code)


class Hanging(Response):
    """Says nothing for `seconds`, or until the client has gone, and then hangs up."""

    def __init__(self, seconds: float, sleep: Sleep) -> None:
        super().__init__()
        self._seconds = seconds
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing."""
        if await _unless_gone(receive, self._sleep(self._seconds)):
            await _break_off(scope, send, b"", self.raw_headers, self.status_code)


class Dripping(Response):
    """Sends a body in pieces of `size` bytes, `seconds` apart."""

    def __init__(self, base: Response, size: int, seconds: float, sleep: Sleep) -> None:
        super().__init__(bytes(base.body), base.status_code)
        self.raw_headers = base.raw_headers
        self._size = size
        self._seconds = seconds
        self._sleep = sleep

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send piece by piece."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if await _unless_gone(receive, self._drip(send)):
            await send({"type": "http.response.body", "body": b""})

    async def _drip(self, send: Send) -> None:
        body = bytes(self.body)
        for start in range(0, len(body), self._size):
            await self._sleep(self._seconds)
            await send({"type": "http.response.body", "body": body[start : start + self._size], "more_body": True})


class Swollen(Response):
    """Pads a body with spaces, which JSON allows, until it has `size` bytes, and doesn't announce its length."""

    def __init__(self, base: Response, size: int) -> None:
        super().__init__(bytes(base.body), base.status_code)
        self.raw_headers = [pair for pair in base.raw_headers if pair[0] != b"content-length"]
        self._size = size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the body and the padding."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if await _unless_gone(receive, self._swell(send)):
            await send({"type": "http.response.body", "body": b""})

    async def _swell(self, send: Send) -> None:
        body = bytes(self.body)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        missing = max(0, self._size - len(body))
        padding = b" " * min(PIECE, missing)
        while missing:
            await asyncio.sleep(0)
            piece = padding[:missing]
            missing -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _unless_gone(receive: Receive, work: Awaitable[None]) -> bool:
    """Do the work to its end, unless the client goes away first; returns whether the client is still there."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        finished = working.done()
    finally:
        for task in (working, leaving):
            task.cancel()
        outcome, _ = await asyncio.gather(working, leaving, return_exceptions=True)
    if finished and isinstance(outcome, BaseException):
        raise outcome
    return finished


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
