"""Reads of the past that many share: whoever asks within a moment gets the same answer, and the store is asked once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from exporter.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from exporter.store.records import Attempt, Transition, Wanted
    from exporter.web.site import Past

KEPT: Final = 1.0  # seconds that an answer is given again
MOST_KEPT: Final = 64  # answers
PATIENCE: Final = 1.5  # seconds that a page waits; it is better shown without its past than late
T = TypeVar("T")


class Recent:
    """The past, asked at most once a second for the same thing. Everything raises `StoreError`."""

    def __init__(self, past: Past, monotonic: Callable[[], float]) -> None:
        self._past = past
        self._monotonic = monotonic
        self._kept: dict[Hashable, tuple[float, asyncio.Task[Any]]] = {}

    async def transitions(self, number: str) -> list[Transition]:
        """Return a DID's changes of state, newest first."""
        return await self._shared(("transitions", number), lambda: self._past.transitions(number))

    async def attempts(self, number: str) -> list[Attempt]:
        """Return a DID's rows of the ledger, newest first."""
        return await self._shared(("attempts", number), lambda: self._past.attempts(number))

    async def page(self, wanted: Wanted, offset: int, limit: int) -> tuple[int, list[Attempt]]:
        """Return how many rows of the ledger are wanted, and some of them, newest first."""
        return await self._shared((wanted, offset, limit), lambda: self._past.page(wanted, offset, limit))

    async def _shared(self, key: Hashable, read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        now = self._monotonic()
        at, task = self._kept.get(key, (now, None))
        if task is None or (task.done() and now - at > KEPT):
            task = asyncio.create_task(read(), name="look at the past")
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to take it
            self._kept.pop(key, None)
            self._kept[key] = now, task
            while len(self._kept) > MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        try:
            async with asyncio.timeout(PATIENCE):
                answer: T = await asyncio.shield(task)
        except TimeoutError:
            raise StoreError(f"the store does not answer within {PATIENCE:g} s") from None
        return answer
