"""When what is done. The one place that knows APScheduler.

Three kinds of jobs: a poll per target, a look-up of connections per account, and a tick every second that drops stale
data and renders the exporter's own metrics. Polls of one target never overlap; a run that can't happen is counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.interval import IntervalTrigger

from exporter.config import format_duration
from exporter.logs import FailureLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from exporter.clock import Clock
    from exporter.config import Config
    from exporter.model import Target
    from exporter.poller import Poller
    from exporter.telemetry import Telemetry

DISCOVER_EVERY: Final = timedelta(minutes=10)
TICK: Final = timedelta(seconds=1)
POLLS_SHARE: Final = 0.95  # of the budget; the rest is for look-ups and retries
_GOLDEN: Final = 0.6180339887498949  # multiples of it, modulo 1, spread evenly however many there are

log = structlog.stdlib.get_logger(__name__)


class SpreadTrigger(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """Fires now, then after a phase of its own, then every interval less a random part of the jitter.

    All in seconds. The jitter only ever shortens a wait, so no two polls are further apart than the interval.
    """

    def __init__(self, interval: float, jitter: float, phase: float, rng: random.Random) -> None:
        self._interval = interval
        self._jitter = jitter
        self._phase = phase
        self._rng = rng
        self._first: datetime | None = None

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return when to fire next."""
        if previous_fire_time is None:
            self._first = now
            return now
        if previous_fire_time == self._first:
            return previous_fire_time + timedelta(seconds=self._phase)
        return previous_fire_time + timedelta(seconds=self._interval - self._rng.uniform(0, self._jitter))


def phase(index: int, interval: float) -> float:
    """Return the seconds, more than 0 and at most `interval`, after which the n-th target is polled the second time."""
    return interval * (1 - index * _GOLDEN % 1)


def fitting_interval(interval: float, jitter: float, targets: int, per_minute: int) -> float:
    """Return the interval, at least `interval` seconds, at which so many targets fit into a key's budget."""
    needed = targets * 60 / (per_minute * POLLS_SHARE)
    return interval if interval - jitter / 2 >= needed else max(interval, needed + jitter / 2)


class Scheduler:
    """Runs the poller on time, on the running event loop."""

    def __init__(
        self,
        config: Config,
        poller: Poller,
        telemetry: Telemetry,
        clock: Clock,
        *,
        key_of: Mapping[str, object],
        rng: random.Random | None = None,
        discover_every: timedelta = DISCOVER_EVERY,
    ) -> None:
        """`key_of` says which accounts share a key, and so a budget."""
        self._config = config
        self._poller = poller
        self._telemetry = telemetry
        self._failures = FailureLog(clock)
        self._key_of = key_of
        self._discover_every = discover_every
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._jobs: dict[Target, float] = {}  # the interval each target's job runs at
        self._added = 0
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)  # the listeners say it, and say it once
        self._scheduler.add_listener(self._missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(self._broken, EVENT_JOB_ERROR)

    def add_chore(self, name: str, every: timedelta, run: Callable[[], Awaitable[None]]) -> None:
        """Do something else regularly, too."""
        self._add(name, run, [], IntervalTrigger(seconds=every.total_seconds(), timezone=UTC), every)

    def start(self) -> None:
        """Look up the connections, poll what is found, and go on doing so."""
        for account in self._key_of:
            every = IntervalTrigger(seconds=self._discover_every.total_seconds(), timezone=UTC)
            self._add(_discovery_id(account), self._discover, [account], every, self._discover_every, now=True)
        self._add("tick", self._poller.tick, [], IntervalTrigger(seconds=TICK.total_seconds(), timezone=UTC), TICK)
        self._scheduler.start()

    def stop(self) -> None:
        """Start nothing any more and cancel what runs."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def _discover(self, account: str) -> None:
        settled = await self._poller.discover(account)
        await self._plan()
        if not settled:
            retry = datetime.now(UTC) + self._config.poll.interval
            self._scheduler.modify_job(_discovery_id(account), next_run_time=retry)

    async def _plan(self) -> None:
        """Give every target its job, at an interval that fits into the budget."""
        targets = sorted(self._poller.fleet.targets)
        sharing = Counter(self._key_of[target.account] for target in targets)
        poll, budget = self._config.poll, self._config.api.requests_per_minute
        interval, jitter = poll.interval.total_seconds(), poll.jitter.total_seconds()
        intervals = {
            target: fitting_interval(interval, jitter, sharing[self._key_of[target.account]], budget)
            for target in targets
        }
        if intervals == self._jobs:
            return
        self._warn(interval, intervals)
        await self._poller.plan(intervals)
        for target in self._jobs.keys() - intervals.keys():
            self._scheduler.remove_job(_job_id(target))
        for target, seconds in intervals.items():
            if self._jobs.get(target) == seconds:
                continue
            trigger = SpreadTrigger(seconds, jitter, phase(self._added, seconds), self._rng)
            if target in self._jobs:
                self._scheduler.modify_job(_job_id(target), trigger=trigger)
            else:
                self._added += 1
                self._add(_job_id(target), self._poller.poll, [target], trigger, timedelta(seconds=seconds))
        self._jobs = intervals

    def _warn(self, wanted: float, intervals: Mapping[Target, float]) -> None:
        longest = max(intervals.values(), default=wanted)
        if longest > wanted and longest != max(self._jobs.values(), default=wanted):
            log.warning(
                "the request budget is too small for poll.interval, so polls are further apart",
                requests_per_minute=self._config.api.requests_per_minute,
                targets=len(intervals),
                poll_interval=format_duration(timedelta(seconds=wanted)),
                fitting_interval=format_duration(timedelta(seconds=round(longest + 0.5))),
                stale_after=format_duration(self._config.poll.stale_after),
            )

    def _add(
        self,
        job_id: str,
        run: Callable[..., Awaitable[None]],
        args: list[Any],
        trigger: BaseTrigger,
        grace: timedelta,
        *,
        now: bool = False,
    ) -> None:
        self._scheduler.add_job(
            run,
            trigger,
            args,
            id=job_id,
            replace_existing=True,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=max(1, int(grace.total_seconds())),
            **({"next_run_time": datetime.now(UTC)} if now else {}),
        )

    def _missed(self, event: Any) -> None:  # noqa: ANN401 - APScheduler has no types
        self._telemetry.missed_runs.inc()
        log.debug("run missed", job=event.job_id)

    def _broken(self, event: Any) -> None:  # noqa: ANN401 - APScheduler has no types
        if isinstance(event.exception, asyncio.CancelledError):
            return  # by `stop`
        self._failures.failed("scheduled job", type(event.exception).__name__, str(event.exception), job=event.job_id)


def _discovery_id(account: str) -> str:
    return f"discover {account}"


def _job_id(target: Target) -> str:
    return f"poll {target.account} {target.connection}"
