"""An exporter's poller and scheduler in virtual time: hours of polls in seconds, the same ones every time."""

from __future__ import annotations

import asyncio
import heapq
from concurrent.futures import Executor, Future
from datetime import datetime
from typing import TYPE_CHECKING, Any

import apscheduler.executors.base
import apscheduler.schedulers.base
from apscheduler.schedulers.asyncio import AsyncIOScheduler

import exporter.poller
from tests.support.clock import ManualClock
from tests.support.driving import idle

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import tzinfo

    import pytest


class VirtualClock(ManualClock):
    """Lets everything that can run do so before time goes on, however many steps that takes."""

    async def advance(self, seconds: float) -> None:
        end = self._elapsed + seconds
        await idle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self._elapsed, _, waker = heapq.heappop(self._sleepers)
            if not waker.done():
                waker.set_result(None)
                await idle()
        self._elapsed = end
        await idle()


class Inline(Executor):
    """Does in the calling thread what a pool is asked for, so that it is done at once."""

    def __init__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], /, *args: Any, **named: Any) -> Future[Any]:  # noqa: ANN401
        done: Future[Any] = Future()
        try:
            done.set_result(work(*args, **named))
        except Exception as error:  # noqa: BLE001 - as a pool does
            done.set_exception(error)
        return done


def use_virtual_time(monkeypatch: pytest.MonkeyPatch, clock: ManualClock) -> None:
    """Have APScheduler live by this clock, and the poller's worker do its work at once."""

    class Now(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # the plain kind, as stored
            return datetime.fromtimestamp(clock.time(), tz)

    timers: dict[AsyncIOScheduler, asyncio.Task[None]] = {}

    def start_timer(self: AsyncIOScheduler, seconds: float | None) -> None:
        async def wake_up() -> None:
            await clock.sleep(max(seconds or 0.0, 0.001))
            timers.pop(self, None)
            self.wakeup()

        stop_timer(self)
        if seconds is not None:
            timers[self] = asyncio.create_task(wake_up())

    def stop_timer(self: AsyncIOScheduler) -> None:
        timer = timers.pop(self, None)
        if timer:
            timer.cancel()

    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Now)
    monkeypatch.setattr(apscheduler.executors.base, "datetime", Now)
    monkeypatch.setattr(AsyncIOScheduler, "_start_timer", start_timer)
    monkeypatch.setattr(AsyncIOScheduler, "_stop_timer", stop_timer)
    monkeypatch.setattr(exporter.poller, "ThreadPoolExecutor", Inline)
