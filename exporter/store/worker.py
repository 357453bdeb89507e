"""The thread in which the store is used, so that a slow database delays what waits for it and nothing else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import structlog

from exporter.errors import StoreError
from exporter.logs import FailureLog
from exporter.store.records import Opened
from exporter.threads import DaemonThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.clock import Clock
    from exporter.store.store import Store

ANSWER_WITHIN: Final = 15.0  # seconds for one database call; later it counts as down
TRY_AGAIN: Final = 10.0  # seconds after a failure before a start asks the store again
STORE_DOWN: Final = "the store does not answer, and nothing is sent that can't be recorded; the log says why"
T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


class StoreObserver(Protocol):
    """Receiver of the store's state, for metrics."""

    def store_answers(self, *, up: bool) -> None:
        """Note whether the store answers."""


class StoreWorker:
    """Thread that calls the store, one call after the other, and knows whether it answers."""

    def __init__(self, store: Store, clock: Clock, observer: StoreObserver | None = None) -> None:
        self.store = store
        self.up = False
        self.why_down = STORE_DOWN  # as of the last failure; where a person has to act, it says how
        self.executor = DaemonThread("store")
        self._clock = clock
        self._observer = observer
        self._failures = FailureLog(clock)
        self._failed_at = float("-inf")

    @property
    def failed_just_now(self) -> bool:
        """Whether it failed so lately that asking again is not worth waiting for."""
        return not self.up and self._clock.monotonic() - self._failed_at < TRY_AGAIN

    async def open(self) -> Opened | None:
        """Open the store unless it is open. Returns which one this call opened, if it did. Raises `StoreError`."""
        if self.up:
            return None
        opened = await self.call(self.store.open)
        self.up = True
        self._report(up=True)
        self._failures.worked("store")
        if opened is Opened.MADE:
            log.info("a new store was made, which knows of no pause, quarantine or heal", store=self.store.name)
        elif opened is Opened.ANOTHER:
            log.warning(
                "another store is used from now on, as a person has accepted it; what the one before knew is not in it",
                store=self.store.name,
            )
        return opened

    async def call(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - the function's
        """Call a method of the store in its thread. Raises `StoreError` when it fails or takes too long."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer = await asyncio.get_running_loop().run_in_executor(self.executor, function, *args)
        except TimeoutError:
            self._down(StoreError(f"the store does not answer within {ANSWER_WITHIN:g} s"))
            raise StoreError("the store does not answer") from None
        except StoreError as error:
            self._down(error)
            raise
        return answer

    def close(self) -> None:
        """End the thread when it has done what it was given; nobody waits for that."""
        self.executor.shutdown(wait=False)

    def _down(self, error: StoreError) -> None:
        self.up, self._failed_at = False, self._clock.monotonic()
        self.why_down = STORE_DOWN if type(error) is StoreError else str(error)
        self._report(up=False)
        self._failures.failed("store", type(error).__name__, str(error))

    def _report(self, *, up: bool) -> None:
        if self._observer:
            self._observer.store_answers(up=up)
