"""Parts of the site that are loaded when somebody asks for them first, in a thread, so that start-up doesn't pay."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send


T = TypeVar("T")


class Once(Generic[T]):
    """Something that `make` makes when it is asked for first, in whichever thread, and then for everybody."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: T | None = None
        self._lock = threading.Lock()

    def __call__(self) -> T:
        """Return it."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


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
