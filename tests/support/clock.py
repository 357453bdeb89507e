"""A clock whose hands the test turns."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class ManualClock:
    """Starts at a fixed moment and moves by `advance` alone; sleepers wake when their time has come."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._start = now
        self._elapsed = 0.0
        self._set = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._tickets = count()

    def time(self) -> float:
        return self._start + self._elapsed + self._set

    def monotonic(self) -> float:
        return self._elapsed

    @contextmanager
    def earlier(self, seconds: float) -> Iterator[None]:
        """Make something that has been there for so long."""
        self._elapsed -= seconds
        yield
        self._elapsed += seconds

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._tickets), waker))
        await waker

    def set_by(self, seconds: float) -> None:
        """Set the wall clock forward, or back, as NTP or a person does; also what a suspended machine finds."""
        self._set += seconds

    @property
    def awaited(self) -> bool:
        """Whether anything waits for time to go on."""
        return any(not waker.done() for _, _, waker in self._sleepers)

    async def go_on(self) -> None:
        """Move on to when the next sleeper wakes, if any sleeps."""
        due = min((when for when, _, waker in self._sleepers if not waker.done()), default=None)
        if due is not None:
            await self.advance(max(0.0, due - self._elapsed))

    async def advance(self, seconds: float) -> None:
        """Move on, waking sleepers in order and letting each run before the next."""
        end = self._elapsed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            when, _, waker = heapq.heappop(self._sleepers)
            self._elapsed = max(self._elapsed, when)  # a thread may have let time pass meanwhile
            if not waker.done():
                waker.set_result(None)
                await settle()
        self._elapsed = max(self._elapsed, end)
        await settle()


async def settle(rounds: int = 25) -> None:
    """Let everything run that can run without time going on."""
    for _ in range(rounds):
        await asyncio.sleep(0)
