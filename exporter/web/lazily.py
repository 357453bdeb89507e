"""Parts of the site that are loaded when somebody asks for them first, in a thread, so that start-up doesn't pay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send


class Lazily:
    """An ASGI application that `make` makes at the first request; those that come meanwhile wait for it."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on."""
        await (self._made or await self._load())(scope, receive, send)

    async def _load(self) -> ASGIApp:
        async with self._lock:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made
