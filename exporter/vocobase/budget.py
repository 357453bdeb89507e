"""The request budget of one API key: a sliding window that every use of the key shares.

The vendor counts requests as they arrive. We can't see that moment, only that it lies between sending and the end of
the answer, so a request occupies its place from the moment it may be sent until 60 seconds after its answer ended: then
no 60-second window of the vendor's, wherever it begins, holds more requests than the budget.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count
from typing import TYPE_CHECKING, Final

from exporter.errors import QuotaError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exporter.clock import Clock

WINDOW: Final = 60.0  # seconds, the vendor's
PAUSE: Final = 60.0  # seconds after a 429 that doesn't say how long
LONGEST_PAUSE: Final = 3600.0  # seconds; a longer Retry-After is a mistake, and would blind us


class Priority(IntEnum):
    """Who goes first when the budget is short; within one priority, who asked first."""

    POLL = 0
    HEAL = 1
    DISCOVERY = 2


class RequestBudget:
    """At most `per_minute` requests in any 60 seconds, most urgent first.

    Belongs to one event loop; `remaining` may be read from any thread. `pause` stops everything until its time is over.
    `per_minute` may be changed: what was sent before counts on.
    `held` is how many seconds a request takes, for which it has its place beyond the window: a smoothed mean, of about
    the last `per_minute` requests.
    """

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self.per_minute = per_minute
        self.held = 0.0
        self._clock = clock
        self._active = 0
        self._ended: deque[float] = deque()
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = count()
        self._paused_until = 0.0
        self._timer: asyncio.Task[None] | None = None

    @property
    def remaining(self) -> int:
        """How many requests could be sent right now."""
        if self.paused_for:
            return 0
        horizon = self._clock.monotonic() - WINDOW
        ended = sum(moment > horizon for moment in tuple(self._ended))  # a copy in one step, whatever the loop does
        return max(0, self.per_minute - self._active - ended)

    @property
    def paused_for(self) -> float:
        """Seconds until a pause ends; 0 when there is none."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    def pause(self, seconds: float | None) -> None:
        """Send nothing for so long; `None` is a minute. Never shortens a pause."""
        wait = min(PAUSE if seconds is None else max(seconds, 0.0), LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, self._clock.monotonic() + wait)

    @asynccontextmanager
    async def request(self, priority: Priority, deadline: float) -> AsyncIterator[None]:
        """Hold a place in the budget while a request runs.

        `deadline` is on the clock's `monotonic`; `QuotaError` when there is no place by then.
        """
        await self._acquire(priority, deadline)
        began = self._clock.monotonic()
        try:
            yield
        finally:
            now = self._clock.monotonic()
            self._active -= 1
            self._ended.append(now)
            self.held += (now - began - self.held) / self.per_minute
            self._dispatch()

    async def _acquire(self, priority: Priority, deadline: float) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._tickets), place))
        self._dispatch()
        if place.done():
            return
        patience = asyncio.ensure_future(self._clock.sleep(deadline - self._clock.monotonic()))
        try:
            await asyncio.wait({place, patience}, return_when=asyncio.FIRST_COMPLETED)
            if not place.done():
                raise QuotaError(
                    f"the budget of {self.per_minute} requests a minute has no room"
                    + (f"; the API asked us to wait another {self.paused_for:.0f} s" if self.paused_for else "")
                )
        except asyncio.CancelledError:
            if place.done():  # granted and cancelled in the same moment: nothing was sent
                self._active -= 1
                self._dispatch()
            raise
        finally:
            patience.cancel()
            place.cancel()

    def _room(self) -> int:
        horizon = self._clock.monotonic() - WINDOW
        while self._ended and self._ended[0] <= horizon:
            self._ended.popleft()
        return max(0, self.per_minute - self._active - len(self._ended))

    def _dispatch(self) -> None:
        """Grant places while there are some; otherwise come back when there may be."""
        while self._queue and (self._queue[0][2].done() or (self._room() and not self.paused_for)):
            place = heapq.heappop(self._queue)[2]
            if not place.done():
                self._active += 1
                place.set_result(None)
        if self._queue and (self._timer is None or self._timer.done()):
            self._timer = asyncio.ensure_future(self._dispatch_later())

    async def _dispatch_later(self) -> None:
        while self._queue:
            wait = self.paused_for
            if not wait and not self._room():
                if not self._ended:
                    return  # every place is taken by a running request, whose end dispatches
                wait = self._ended[0] + WINDOW - self._clock.monotonic()
            await self._clock.sleep(wait)
            self._timer = None
            self._dispatch()
            if self._timer is not None:
                return
