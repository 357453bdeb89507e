"""The request budget of one API key: a sliding window and a pace that every use of the key shares.

The vendor counts requests as they arrive. We can't see that moment, only that it lies between sending and the end of
the answer, so a request occupies its place from the moment it may be sent until 60 seconds after its answer ended: then
no 60-second window of the vendor's, wherever it begins, holds more requests than the budget.

The window is forgotten when the process dies. Therefore requests also leave at an even pace, and the first one waits
as if one had left just before the budget was made: a process that starts again and again keeps to the limit, too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
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
LEAVES_WITHIN: Final = 5.0  # seconds from a turn; for so long nothing else of the key leaves
FEWEST_FOR_HEALS: Final = 4  # requests a minute; of fewer none is kept for heals
FEWEST_FOR_LOOK_UPS: Final = 10  # requests a minute; of fewer none is kept for look-ups
LOOK_UPS: Final = 0.1  # requests a minute that look-ups of an account make


class Priority(IntEnum):
    """Who goes first when the budget is short; within one priority, who asked first.

    A kind for which no share of the budget is kept has the rank of a poll.
    """

    HEAL = 0
    POLL = 1
    DISCOVERY = 2


def share_for_heals(per_minute: int, heals_per_minute: int) -> int:
    """Return how many places of a budget are kept for heals, where healing may send so many requests a minute."""
    return min(heals_per_minute, max(1, per_minute // 10)) if per_minute >= FEWEST_FOR_HEALS else 0


class Place:
    """A place in the budget, held for one request. Once that may leave, it counts, unless it is said to be unused."""

    def __init__(self, budget: RequestBudget, priority: Priority) -> None:
        self.priority = priority
        self.turn_at: float | None = None  # when its turn came; None where nothing was sent, nor may be
        self._budget = budget

    async def turn(self, deadline: float) -> None:
        """Wait until the request may leave; then it has to within `LEAVES_WITHIN`.

        Until it leaves or is given up, for that long at most, nothing else of the key leaves. `QuotaError` when its
        turn doesn't come by the deadline.
        """
        await self._budget.wait(_Waiter(self, place=False, turn=True, within=LEAVES_WITHIN), deadline)

    def leaves(self) -> bool:
        """Return whether the request may leave now; where it may, it is taken to. Ask right before sending it."""
        if self._budget.depart(self):
            return True
        self.unused()
        return False

    def unused(self) -> None:
        """Note that nothing was sent, and nothing will be before another turn."""
        self._budget.give_turn_back(self)


@dataclass(eq=False, slots=True)
class _Waiter:
    """Who waits for a place in the window, for a turn in the pace, or for both at once."""

    holder: Place
    place: bool
    turn: bool
    within: float = 0.0  # seconds from its turn in which the request leaves
    ticket: int = 0
    granted: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RequestBudget:
    """At most `per_minute` requests in any 60 seconds, at least 60 / `per_minute` seconds apart, most urgent first.

    Belongs to one event loop; `remaining` may be read from any thread. `pause` stops everything until its time is over.
    `heal_share` places are kept for heals, and one of a budget that isn't tiny for look-ups: others leave them free.
    `resize` changes both: what was sent before counts on.
    `held` is how many seconds a request takes, for which it has its place beyond the window: a smoothed mean, of about
    the last `per_minute` requests.
    """

    def __init__(self, per_minute: int, clock: Clock, *, heal_share: int = 0) -> None:
        self.per_minute = per_minute
        self.held = 0.0
        self._clock = clock
        self._wanted_share = heal_share
        self._taken = dict.fromkeys(Priority, 0)  # places that aren't free, by who took them
        self._free_at: deque[tuple[float, Priority]] = deque()  # when places of requests that are over become free
        self._queues = {(kind, place): deque[_Waiter]() for kind in Priority for place in (False, True)}
        self._tickets = count()
        self._paused_until = 0.0
        self._left = self._left_before = clock.monotonic()  # when the last request left, or will have at the latest
        self._leaving: Place | None = None  # whose turn that is
        self._timer: asyncio.Task[None] | None = None
        self._wake_at = 0.0

    @property
    def gap(self) -> float:
        """Seconds between two requests, at least."""
        return WINDOW / self.per_minute

    @property
    def heal_share(self) -> int:
        """How many places are kept for heals; the polls always have one."""
        return max(0, min(self._wanted_share, self.per_minute - self.look_up_share - 1))

    @property
    def look_up_share(self) -> int:
        """How many places are kept for look-ups of connections."""
        return int(self.per_minute >= FEWEST_FOR_LOOK_UPS)

    @property
    def for_polls(self) -> float:
        """How many places polls can count on: less what is kept for others or, where nothing is, used by look-ups."""
        return self.per_minute - self.heal_share - (self.look_up_share or LOOK_UPS)

    @property
    def remaining(self) -> int:
        """How many places are free; 0 during a pause."""
        if self.paused_for:
            return 0
        now = self._clock.monotonic()
        # Copies, each made in one step, whatever the loop does meanwhile.
        free_at, taken = tuple(self._free_at), sum(tuple(self._taken.values()))
        return max(0, self.per_minute - taken + sum(moment <= now for moment, _ in free_at))

    @property
    def paused_for(self) -> float:
        """Seconds until a pause ends; 0 when there is none."""
        return max(0.0, self._paused_until - self._clock.monotonic())

    def waiting(self, priority: Priority) -> int:
        """Return how many of a kind wait for a place or a turn."""
        queues = (self._queues[priority, place] for place in (False, True))
        return sum(not waiter.granted.done() for queue in queues for waiter in queue)

    def resize(self, per_minute: int, heal_share: int) -> None:
        """From now on allow so many requests a minute, and keep such a share of them for heals."""
        self.per_minute, self._wanted_share = per_minute, heal_share
        self._dispatch()

    def pause(self, seconds: float | None) -> None:
        """Send nothing for so long; `None` is a minute. Never shortens a pause."""
        wait = min(PAUSE if seconds is None else max(seconds, 0.0), LONGEST_PAUSE)
        self._paused_until = max(self._paused_until, self._clock.monotonic() + wait)

    @asynccontextmanager
    async def request(self, priority: Priority, deadline: float) -> AsyncIterator[Place]:
        """Hold a place while a request runs, which leaves at once.

        `deadline` is on the clock's `monotonic`; `QuotaError` when there is no place by then.
        """
        place = Place(self, priority)
        await self.wait(_Waiter(place, place=True, turn=True), deadline)
        try:
            yield place
        finally:
            self._release(place)

    @asynccontextmanager
    async def reserve(self, priority: Priority, deadline: float) -> AsyncIterator[Place]:
        """Hold a place for a request that isn't ready to leave; when it is, it waits for its `turn`.

        A place whose turn never came, or that says it is unused, is free again at once. `deadline` and `QuotaError` as
        for `request`.
        """
        place = Place(self, priority)
        await self.wait(_Waiter(place, place=True, turn=False), deadline)
        try:
            yield place
        finally:
            self._release(place)

    async def wait(self, waiter: _Waiter, deadline: float) -> None:
        """Wait in line until the deadline."""
        waiter.ticket = next(self._tickets)
        self._queues[waiter.holder.priority, waiter.place].append(waiter)
        self._dispatch()
        if waiter.granted.done():
            return
        patience = asyncio.ensure_future(self._clock.sleep(deadline - self._clock.monotonic()))
        try:
            await asyncio.wait({waiter.granted, patience}, return_when=asyncio.FIRST_COMPLETED)
            self._dispatch()  # at the deadline itself is not too late
            if not waiter.granted.done():
                raise QuotaError(
                    f"the budget of {self.per_minute} requests a minute has no room"
                    + (f"; the API asked us to wait another {self.paused_for:.0f} s" if self.paused_for else "")
                )
        except asyncio.CancelledError:
            if waiter.granted.done():  # granted and cancelled in the same moment: nothing was sent
                self.give_turn_back(waiter.holder)
                if waiter.place:
                    self._release(waiter.holder)
            raise
        finally:
            patience.cancel()
            waiter.granted.cancel()

    def depart(self, place: Place) -> bool:
        """Return whether a request may leave now; from then on the next one's gap runs."""
        now = self._clock.monotonic()
        if place.turn_at is None or now > place.turn_at + LEAVES_WITHIN or self.paused_for:
            return False
        if self._leaving is place:
            self._left = now
            self._dispatch()
        return True

    def give_turn_back(self, place: Place) -> None:
        """Undo a turn that no request left in."""
        place.turn_at = None
        if self._leaving is place:
            self._left, self._leaving = self._left_before, None
            self._dispatch()

    def _release(self, place: Place) -> None:
        now = self._clock.monotonic()
        if place.turn_at is None:
            self._taken[place.priority] -= 1
        else:
            self._free_at.append((now + WINDOW, place.priority))
            self.held += (now - place.turn_at - self.held) / self.per_minute
        self._dispatch()

    def _dispatch(self) -> None:
        """Grant what can be; where somebody still waits, come back when there may be more."""
        now = self._clock.monotonic()
        while self._free_at and self._free_at[0][0] <= now:
            self._taken[self._free_at.popleft()[1]] -= 1
        while waiter := self._next(now):
            holder = waiter.holder
            self._queues[holder.priority, waiter.place].popleft()
            if waiter.place:
                self._taken[holder.priority] += 1
            if waiter.turn:
                holder.turn_at = now
                self._left_before, self._left, self._leaving = self._left, now + waiter.within, holder
            waiter.granted.set_result(None)
        if any(self._queues.values()):
            self._come_back(now)

    def _next(self, now: float) -> _Waiter | None:
        """Return who may go now, the most urgent of the first in each line."""
        for queue in self._queues.values():
            while queue and queue[0].granted.done():
                queue.popleft()
        if self.paused_for:
            return None
        first = sorted((queue[0] for queue in self._queues.values() if queue), key=self._rank)
        turn = now >= self._left + self.gap
        return next(
            (
                waiter
                for waiter in first
                if (turn or not waiter.turn) and (not waiter.place or self._room(waiter.holder.priority))
            ),
            None,
        )

    def _rank(self, waiter: _Waiter) -> tuple[Priority, bool, int]:
        kind = waiter.holder.priority
        share = {Priority.HEAL: self.heal_share, Priority.DISCOVERY: self.look_up_share}.get(kind)
        return Priority.POLL if share == 0 else kind, waiter.place, waiter.ticket

    def _room(self, kind: Priority) -> bool:
        """Return whether there is a place beyond those that are kept for others."""
        kept = 0
        if kind is not Priority.HEAL:
            kept += max(0, self.heal_share - self._taken[Priority.HEAL])
        if kind is Priority.POLL:
            kept += max(0, self.look_up_share - self._taken[Priority.DISCOVERY])
        return self.per_minute - sum(self._taken.values()) > kept

    def _come_back(self, now: float) -> None:
        """Dispatch again as soon as there may be more to grant, unless the end of a request does."""
        turn_at = self._left + self.gap
        moments = [turn_at] if turn_at > now else []
        moments += [self._free_at[0][0]] if self._free_at else []
        moments = [self._paused_until] if self.paused_for else moments
        if not moments or (self._timer and self._wake_at <= min(moments)):
            return
        if self._timer:
            self._timer.cancel()
        self._wake_at = min(moments)
        self._timer = asyncio.ensure_future(self._dispatch_later(self._wake_at - now))

    async def _dispatch_later(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._dispatch()
