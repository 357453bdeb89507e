"""What the store remembers, for people who look."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from exporter.errors import StoreError
from exporter.threads import DaemonThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.store.records import Attempt, Transition, Wanted
    from exporter.store.store import Store

ANSWER_WITHIN: Final = 5.0  # seconds for one look; a page without its past is better than none
MOST_WAITING: Final = 32  # looks at once; more are refused, so that none waits for long
T = TypeVar("T")


class Archive:
    """Reads of the past, one after the other in a thread of their own, so that looking never delays healing.

    Opens nothing: where the store wasn't opened yet, or doesn't answer, every method raises `StoreError`.
    """

    def __init__(self, store: Store, within: float = ANSWER_WITHIN) -> None:
        """`within` is how many seconds a look may take."""
        self._store = store
        self._within = within
        self._thread = DaemonThread("archive")
        self._waiting = 0

    async def transitions(self, number: str, limit: int = 1000) -> list[Transition]:
        """Return a DID's changes of state, newest first."""
        return await self._look(lambda: self._store.history.of(number, limit))

    async def attempts(self, number: str | None = None, limit: int = 1000) -> list[Attempt]:
        """Return the ledger's rows, of one DID or of all, newest first."""
        return await self._look(lambda: self._store.ledger.history(number, limit))

    async def page(self, wanted: Wanted, offset: int, limit: int) -> tuple[int, list[Attempt]]:
        """Return how many of the ledger's rows are wanted, and some of them, newest first."""
        return await self._look(lambda: self._store.ledger.page(wanted, offset, limit))

    def close(self) -> None:
        """End the thread when it has done what it was given."""
        self._thread.shutdown()

    async def _look(self, read: Callable[[], T]) -> T:
        if not self._store.opened:
            raise StoreError("the store is not open yet")
        if self._waiting >= MOST_WAITING:
            raise StoreError("too many look at the store at once")
        self._waiting += 1
        work: asyncio.Future[Any] = asyncio.wrap_future(self._thread.submit(read))
        work.add_done_callback(self._done)
        try:
            async with asyncio.timeout(self._within):
                answer: T = await asyncio.shield(work)
        except TimeoutError:
            raise StoreError(f"the store does not answer within {self._within:g} s") from None
        return answer

    def _done(self, work: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # nobody may be left to take it
