"""When what is done. The one place that knows APScheduler.

A poll per target, a look-up of connections per account, a tick every second that drops stale data and renders the
exporter's own metrics, and chores. Polls of one target never overlap; a run that can't happen is counted.

APScheduler plans on the wall clock, which may be set. Forward, everything is due at once: it runs once, and goes on as
planned. Back, nothing would be due until the clock has caught up, so all plans are set back, too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog
from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, EVENT_JOB_MAX_INSTANCES, EVENT_JOB_MISSED
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from exporter.config import format_duration
from exporter.logs import FailureLog, place_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from exporter.clock import Clock
    from exporter.config import Config
    from exporter.model import Target
    from exporter.poller import Poller
    from exporter.telemetry import Telemetry
    from exporter.vocobase import RequestBudget

DISCOVER_EVERY: Final = timedelta(minutes=10)
REPLAN_EVERY: Final = timedelta(minutes=1)
TICK: Final = timedelta(seconds=1)
FULL: Final = 0.95  # of the places for polls that are planned with; the rest is for retries
CLOCK_SET: Final = 2.0  # seconds; what the wall clock moves by within a second, beyond that second, when it was set
_SHORTER: Final = 0.9  # of a running interval: one that fits and is longer than that isn't worth a change
_CROWDED: Final = 0.5  # of an interval; where the first polls take longer, they are spread well enough
_GOLDEN: Final = 0.6180339887498949  # multiples of it, modulo 1, spread evenly however many there are

log = structlog.stdlib.get_logger(__name__)


class SpreadTrigger(BaseTrigger):  # type: ignore[misc] # APScheduler has no types
    """Fires when its turn comes, then after a phase of its own, then every interval less a random part of the jitter.

    All in seconds; without a phase it fires first after an interval. The jitter only ever shortens a wait, so no two
    polls are further apart than the interval. Intervals that have passed already are skipped, so that however late it
    is, one run makes up for all that were missed, and the jobs stay spread.
    """

    def __init__(
        self, interval: float, jitter: float, phase: float | None, rng: random.Random, *, turn: float = 0.0
    ) -> None:
        self._interval = interval
        self._jitter = jitter
        self._phase = phase
        self._turn = turn
        self._rng = rng
        self._first: datetime | None = None

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return when to fire next."""
        interval = timedelta(seconds=self._interval)
        if previous_fire_time is None:
            if self._phase is None:
                return now + interval
            self._first = now + timedelta(seconds=self._turn)
            return self._first
        if self._phase is not None and previous_fire_time == self._first:
            fire = previous_fire_time + timedelta(seconds=self._phase)
        else:
            fire = previous_fire_time + interval - timedelta(seconds=self._rng.uniform(0, self._jitter))
        return fire + max(0, (now - fire) // interval) * interval


def phase(index: int, interval: float) -> float:
    """Return the n-th target's place in the interval, in seconds, more than 0 and at most `interval`."""
    return interval * (1 - index * _GOLDEN % 1)


def until_phase(phase: float, turn: float, interval: float) -> float:
    """Return the seconds from a target's first poll, which has its turn, to the second: at most `interval`."""
    return (phase - turn) % interval or interval


def worth_changing(running: float, fitting: float) -> bool:
    """Return whether another interval fits so much better: polls would use up the budget, or could be more frequent."""
    return running < fitting * FULL or fitting < running * _SHORTER


def fitting_interval(interval: float, jitter: float, targets: int, for_polls: float, held: float = 0.0) -> float:
    """Return the interval, at least `interval` seconds, at which so many targets fit into a key's budget.

    `for_polls` is how many places of it polls have. `held` is how many seconds a request takes: for so long, and a
    minute more, it has its place.
    """
    needed = targets * (60 + held) / (for_polls * FULL)
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
        budgets: Mapping[str, RequestBudget],
        rng: random.Random | None = None,
        discover_every: timedelta = DISCOVER_EVERY,
        replan_every: timedelta = REPLAN_EVERY,
    ) -> None:
        """`key_of` says which accounts share a key, and so one of the `budgets`, which are by account."""
        self._config = config
        self._poller = poller
        self._telemetry = telemetry
        self._failures = FailureLog(clock)
        self._clock = clock
        self._key_of = key_of
        self._budgets = budgets
        self._planning = asyncio.Lock()
        self._discover_every = discover_every
        self._replan_every = replan_every
        self._clock_watch: asyncio.Task[None] | None = None
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._jobs: dict[Target, float] = {}  # the interval each target's job runs at
        self._added = 0
        self._turns: dict[object, float] = {}  # when the next poll out of turn may begin, by key, on `monotonic`
        self._scheduler = AsyncIOScheduler(timezone=UTC)
        logging.getLogger("apscheduler").setLevel(logging.CRITICAL)  # the listeners say it, and say it once
        self._scheduler.add_listener(self._missed, EVENT_JOB_MISSED | EVENT_JOB_MAX_INSTANCES)
        self._scheduler.add_listener(self._broken, EVENT_JOB_ERROR)
        self._scheduler.add_listener(self._worked, EVENT_JOB_EXECUTED)

    def add_chore(self, name: str, every: timedelta, run: Callable[[], Awaitable[None]]) -> None:
        """Do something else regularly, too."""
        self._add(name, run, [], self._regularly(every), every)

    def next_poll(self, target: Target) -> float | None:
        """Return the Unix time at which a target's next poll is due; `None` where none is planned."""
        job = self._scheduler.get_job(_job_id(target)) if target in self._jobs else None
        due: datetime | None = job.next_run_time if job else None
        return due.timestamp() if due else None

    def start(self) -> None:
        """Look up the connections, poll what is found, and go on doing so."""
        for account in self._key_of:
            self._look_up(account)
        self.add_chore("tick", TICK, self._poller.tick)
        self.add_chore("plan", self._replan_every, self._plan)
        self._scheduler.start()
        self._clock_watch = asyncio.create_task(self._watch_clock(), name="clock watch")

    async def reconfigure(
        self,
        config: Config,
        *,
        key_of: Mapping[str, object],
        budgets: Mapping[str, RequestBudget],
        changed: Collection[str],
    ) -> None:
        """Go by another configuration from now on. Accounts that `changed`, or are new, are asked at once."""
        gone = self._key_of.keys() - key_of.keys()
        self._config, self._key_of, self._budgets = config, key_of, budgets
        for account in gone:
            self._scheduler.remove_job(_discovery_id(account))
        await self._plan(anew=True)
        for account in changed:
            self._look_up(account)
        for target in self._jobs:
            if target.account in changed:
                due = self._now() + timedelta(seconds=self._turn(target))
                self._scheduler.modify_job(_job_id(target), next_run_time=due)

    def stop(self) -> None:
        """Start nothing any more and cancel what runs."""
        if self._clock_watch:
            self._clock_watch.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    async def _watch_clock(self) -> None:
        """Notice when the wall clock is set."""
        ahead = self._clock.time() - self._clock.monotonic()
        while True:
            await self._clock.sleep(TICK.total_seconds())
            before, ahead = ahead, self._clock.time() - self._clock.monotonic()
            change = ahead - before
            if abs(change) > CLOCK_SET:
                log.warning("the clock was set", seconds=round(change, 3))
            if change < -CLOCK_SET:  # forward, jobs that were due have been planned anew by now: never move those
                for job in self._scheduler.get_jobs():
                    moved = job.next_run_time + timedelta(seconds=change)
                    self._scheduler.modify_job(job.id, next_run_time=moved)

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)

    def _regularly(self, every: timedelta) -> SpreadTrigger:
        return SpreadTrigger(every.total_seconds(), 0, None, self._rng)

    def _look_up(self, account: str) -> None:
        """Look up an account's connections now, and regularly."""
        every = self._discover_every
        self._add(_discovery_id(account), self._discover, [account], self._regularly(every), every, now=True)

    async def _discover(self, account: str) -> None:
        listed = await self._poller.discover(account)
        await self._plan()
        if not listed and account in self._key_of:
            retry = self._now() + self._config.poll.interval
            self._scheduler.modify_job(_discovery_id(account), next_run_time=retry)

    async def _plan(self, *, anew: bool = False) -> None:
        """Give every target its job, at an interval that fits into the budget; `anew`, whatever it runs at now."""
        async with self._planning:
            poll = self._config.poll
            interval, jitter = poll.interval.total_seconds(), poll.jitter.total_seconds()
            intervals = self._intervals(interval, jitter, anew=anew)
            if intervals == self._jobs and not anew:
                return
            self._warn(interval, intervals)
            await self._poller.plan(intervals)
            self._give_jobs(intervals, jitter, anew=anew)

    def _give_jobs(self, intervals: dict[Target, float], jitter: float, *, anew: bool) -> None:
        sharing = Counter(self._key_of[target.account] for target in intervals)
        for target in self._jobs.keys() - intervals.keys():
            self._scheduler.remove_job(_job_id(target))
        for target, seconds in intervals.items():
            if self._jobs.get(target) == seconds and not anew:
                continue
            if target in self._jobs:
                trigger = SpreadTrigger(seconds, jitter, seconds, self._rng)
                self._change(_job_id(target), trigger, self._jobs[target], seconds)
            else:
                turn = self._turn(target)
                crowded = sharing[self._key_of[target.account]] * self._spacing(target) > seconds * _CROWDED
                second = seconds if crowded else until_phase(phase(self._added, seconds), turn, seconds)
                trigger = SpreadTrigger(seconds, jitter, second, self._rng, turn=turn)
                self._added += 1
                self._add(_job_id(target), self._poller.poll, [target], trigger, timedelta(seconds=seconds))
        self._jobs = intervals

    def _turn(self, target: Target) -> float:
        """Return in how many seconds a target can be polled that is to be at once: the key's budget sets the pace."""
        key, now = self._key_of[target.account], self._clock.monotonic()
        turn = max(now, self._turns.get(key, now))
        self._turns[key] = turn + self._spacing(target)
        return turn - now

    def _spacing(self, target: Target) -> float:
        """Return how many seconds apart the polls of a key can be, so that none has to wait for a place."""
        return 60 / self._budgets[target.account].for_polls

    def _intervals(self, interval: float, jitter: float, *, anew: bool) -> dict[Target, float]:
        """Return what fits. Where nothing but the speed of the answers changed, small differences are passed over."""
        targets = sorted(target for target in self._poller.fleet.targets if target.account in self._key_of)
        sharing = Counter(self._key_of[target.account] for target in targets)
        shared = Counter(self._key_of.get(target.account) for target in self._jobs)
        intervals = {}
        for target in targets:
            key, budget = self._key_of[target.account], self._budgets[target.account]
            fitting = fitting_interval(interval, jitter, sharing[key], budget.for_polls, budget.held)
            running = self._jobs.get(target)
            keep = running and not anew and sharing[key] == shared[key] and not worth_changing(running, fitting)
            intervals[target] = running if running and keep else fitting
        return intervals

    def _change(self, job_id: str, trigger: BaseTrigger, before: float, after: float) -> None:
        """Give a job another interval, in seconds; its next wait changes with it, so that the jobs stay spread."""
        now = self._now()
        left = max(self._scheduler.get_job(job_id).next_run_time - now, timedelta())
        self._scheduler.modify_job(
            job_id,
            trigger=trigger,
            next_run_time=now + left * (after / before),
            misfire_grace_time=_grace(timedelta(seconds=after)),
        )

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
        every: timedelta,
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
            misfire_grace_time=_grace(every),
            **({"next_run_time": self._now()} if now else {}),
        )

    def _missed(self, event: Any) -> None:  # noqa: ANN401 - APScheduler has no types
        self._telemetry.missed_runs.inc()
        log.debug("run missed", job=event.job_id)

    def _broken(self, event: Any) -> None:  # noqa: ANN401 - APScheduler has no types
        if isinstance(event.exception, asyncio.CancelledError):
            return  # by `stop`
        self._telemetry.failed_runs.inc()
        kind = type(event.exception).__name__
        self._failures.failed("scheduled job", kind, f"{kind} at {place_of(event.exception)}", job=event.job_id)

    def _worked(self, event: Any) -> None:  # noqa: ANN401 - APScheduler has no types
        self._failures.worked("scheduled job", job=event.job_id)


def _grace(every: timedelta) -> int:
    """Return after how many whole seconds a run that is late doesn't happen: never while it is the latest one due."""
    return math.ceil(every.total_seconds()) + 1


def _discovery_id(account: str) -> str:
    return f"discover {account}"


def _job_id(target: Target) -> str:
    return f"poll {target.account} {target.connection}"
