"""When what is done: the arithmetic on its own, the rest in virtual time."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from exporter.clients import build_poller
from exporter.config import Config, Settings
from exporter.scheduler import (
    DISCOVER_EVERY,
    FULL,
    REPLAN_EVERY,
    Scheduler,
    SpreadTrigger,
    fitting_interval,
    phase,
    until_phase,
    worth_changing,
)
from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of
from exporter.telemetry import Telemetry
from exporter.vocobase import Priority, RequestBudget, VocobaseClient
from tests.support.budgets import Unpaced
from tests.support.clock import ManualClock
from tests.support.sinks import Silent
from tests.support.transport import over
from tests.support.virtual import VirtualClock, use_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.applications import Starlette

    from exporter.poller import Poller

NOW = datetime(2026, 6, 1, tzinfo=UTC)
INTERVALS = st.floats(0.1, 3600)


def fire_times(interval: float, jitter: float, first: float, count: int = 30) -> list[float]:
    """Return when a trigger fires, in seconds after it was first asked."""
    trigger = SpreadTrigger(interval, jitter, first, random.Random(1))  # noqa: S311 - a test
    times = [trigger.get_next_fire_time(None, NOW)]
    while len(times) < count:
        times.append(trigger.get_next_fire_time(times[-1], times[-1]))
    return [(moment - NOW).total_seconds() for moment in times]


@given(interval=INTERVALS, jitter_part=st.floats(0, 0.99), index=st.integers(0, 10_000))
def test_a_target_is_polled_at_once_and_never_further_apart_than_the_interval(
    interval: float, jitter_part: float, index: int
) -> None:
    jitter = interval * jitter_part
    first = phase(index, interval)
    times = fire_times(interval, jitter, first)
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 0
    assert gaps[0] == pytest.approx(first, abs=2e-6)
    assert max(gaps) <= interval + 2e-6  # a datetime holds microseconds
    assert min(gaps[1:]) >= interval - jitter - 2e-6


def test_jitter_makes_the_gaps_differ_and_none_keeps_them_even() -> None:
    assert fire_times(10, 0, 4, 5) == [0, 4, 14, 24, 34]
    gaps = [later - earlier for earlier, later in pairwise(fire_times(10, 3, 4)[1:])]
    assert len(set(gaps)) > 20
    assert sum(gaps) / len(gaps) == pytest.approx(8.5, abs=0.5)


@given(index=st.integers(0, 100_000), interval=INTERVALS)
def test_a_phase_lies_within_the_interval(index: int, interval: float) -> None:
    assert 0 < phase(index, interval) <= interval


@pytest.mark.parametrize(
    ("phase", "turn", "wait"), [(60, 0, 60), (20, 5, 15), (5, 20, 45), (20, 20, 60), (50, 130, 40)]
)
def test_the_second_poll_comes_in_phase_within_an_interval_of_the_first(phase: float, turn: float, wait: float) -> None:
    assert until_phase(phase, turn, 60) == wait


@given(targets=st.integers(2, 500))
def test_phases_spread_over_the_interval_however_many_there_are(targets: int) -> None:
    phases = sorted(phase(index, 1.0) for index in range(targets))
    gaps = [later - earlier for earlier, later in pairwise([*phases, phases[0] + 1])]
    assert max(gaps) < 3 / targets
    assert min(gaps) > 0.3 / targets


@given(
    interval=INTERVALS,
    jitter_part=st.floats(0, 0.99),
    targets=st.integers(1, 10_000),
    for_polls=st.floats(0.9, 100_000),
    held=st.just(0.0) | st.floats(0, 120),
)
def test_the_interval_fits_the_budget_and_is_not_stretched_without_need(
    interval: float, jitter_part: float, targets: int, for_polls: float, held: float
) -> None:
    jitter = interval * jitter_part
    fitting = fitting_interval(interval, jitter, targets, for_polls, held)
    places = targets * (60 + held) / (fitting - jitter / 2)  # taken; a wait is half the jitter shorter on average
    assert fitting >= interval
    assert places <= for_polls * FULL * (1 + 1e-9)
    if fitting > interval:
        assert targets * (60 + held) / (interval - jitter / 2) > for_polls * FULL
        assert places == pytest.approx(for_polls * FULL)


def test_by_default_56_targets_fit_into_the_budget_of_a_key_and_50_where_it_heals() -> None:
    healing, not_healing = (RequestBudget(60, ManualClock(), heal_share=share).for_polls for share in (6, 0))
    assert fitting_interval(60, 0, 56, not_healing) == 60
    assert fitting_interval(60, 0, 57, not_healing) == pytest.approx(61.02, abs=0.01)
    assert fitting_interval(60, 0, 50, healing) == 60
    assert fitting_interval(60, 5, 100, healing) == pytest.approx(121.67, abs=0.01)
    assert fitting_interval(60, 0, 56, not_healing, held=20) == pytest.approx(79.93, abs=0.01)


def test_an_interval_is_changed_when_polls_would_use_up_the_budget_or_could_be_a_good_deal_more_frequent() -> None:
    assert [each for each in (80, 89.9, 90.1, 100, 105.2, 105.4, 120) if worth_changing(100, each)] == [
        80,
        89.9,
        105.4,
        120,
    ]


def walk(trigger: SpreadTrigger, due: datetime, now: datetime) -> list[datetime]:
    """Return the runs that are due, found as APScheduler does."""
    runs = []
    while due <= now:
        runs.append(due)
        assert len(runs) < 1000, "walks and walks"
        due = trigger.get_next_fire_time(due, now)
    return runs


@given(
    interval=INTERVALS,
    jitter_part=st.floats(0, 0.5),
    first=st.none() | st.integers(0, 100).map(lambda index: phase(index, 1.0)),
    late=st.floats(0, 90 * 86_400),
)
def test_however_late_it_is_the_runs_that_were_missed_are_few_and_the_last_is_recent(
    interval: float, jitter_part: float, first: float | None, late: float
) -> None:
    rng = random.Random(1)  # noqa: S311 - a test
    trigger = SpreadTrigger(interval, interval * jitter_part, first and first * interval, rng)
    due = trigger.get_next_fire_time(None, NOW)
    now = due + timedelta(seconds=late)
    runs = walk(trigger, due, now)
    assert len(runs) <= 4
    assert (now - runs[-1]).total_seconds() <= interval + 2e-6
    upcoming = (trigger.get_next_fire_time(runs[-1], now) - now).total_seconds()  # asked again, the jitter is another
    assert -interval * jitter_part - 2e-6 <= upcoming <= interval + 2e-6


def test_jobs_that_were_late_together_are_spread_again() -> None:
    triggers = [SpreadTrigger(60, 0, None, random.Random(1)) for _ in range(3)]  # noqa: S311 - a test
    now = NOW + timedelta(days=30, seconds=7)
    nexts = [
        trigger.get_next_fire_time(walk(trigger, NOW + timedelta(seconds=due), now)[-1], now)
        for trigger, due in zip(triggers, (0, 20, 40), strict=True)
    ]
    assert [(each - now).total_seconds() for each in nexts] == [53, 13, 33]


def test_without_a_phase_the_first_run_comes_after_an_interval() -> None:
    trigger = SpreadTrigger(10, 0, None, random.Random(1))  # noqa: S311 - a test
    assert trigger.get_next_fire_time(None, NOW) == NOW + timedelta(seconds=10)


@dataclass(slots=True)
class Chore:
    """Something else to do, that can be made to fail."""

    clock: VirtualClock
    failing: bool = False
    runs: list[float] = field(default_factory=list)

    async def run(self) -> None:
        self.runs.append(self.clock.monotonic())
        if self.failing:
            raise LookupError("+918011223344 of rg_live_test")


@dataclass(slots=True)
class Running:
    """A scheduler at work, and what it works with."""

    simulator: Simulator
    poller: Poller
    telemetry: Telemetry
    watched: RequestBudget  # the scheduler's; the requests have another, so that they don't change what it learns
    clock: VirtualClock
    chore: Chore
    began: float  # wall time when the clock began, which is never set back for the simulator

    def polls(self) -> dict[str, list[float]]:
        """Return when each connection was polled, in seconds since the clock began."""
        seen: dict[str, list[float]] = {}
        for each in self.simulator.requests("sync"):
            seen.setdefault(each.connection_id, []).append(each.time - self.began)
        return seen

    def lookups(self) -> list[float]:
        """Return when the connections were looked up, in seconds since the clock began."""
        return [each.time - self.began for each in self.simulator.requests("connections")]

    @property
    def missed(self) -> float:
        """How many runs were missed."""
        return self.telemetry.registry.get_sample_value("voicelink_exporter_scheduler_missed_runs_total") or 0.0

    @property
    def failed(self) -> float:
        """How many runs broke."""
        return self.telemetry.registry.get_sample_value("voicelink_exporter_scheduler_failed_runs_total") or 0.0

    @property
    def intervals(self) -> set[float]:
        """The intervals that are shown."""
        return {state.interval for state in self.poller.fleet.targets.values()}


def gaps(times: list[float]) -> list[float]:
    """Return how far apart moments are, to the hundredth of a second."""
    return [round(later - earlier, 2) for earlier, later in pairwise(times)]


Scheduling = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def scheduling(monkeypatch: pytest.MonkeyPatch) -> Scheduling:
    """Return what runs a scheduler on a clock that tests turn."""
    clock = VirtualClock()
    use_virtual_time(monkeypatch, clock)

    @asynccontextmanager
    async def start(
        *,
        interval: str = "60s",
        budget: int = 100_000,
        discover_every: timedelta = DISCOVER_EVERY,
        replan_every: timedelta = REPLAN_EVERY,
        chore_every: timedelta = timedelta(hours=1),
        **options: Any,  # noqa: ANN401 - the simulator's
    ) -> AsyncIterator[Running]:
        config = Config.model_validate(
            {
                "api": {"requests_per_minute": budget, "timeout": "10m"},
                "accounts": [{"api_key_env": "VOCOBASE_API_KEY"}],
                "poll": {"interval": interval, "jitter": "0s", "stale_after": "1h"},
            }
        )
        key, telemetry, chore = SecretStr("rg_live_test"), Telemetry(), Chore(clock)
        began = clock.time()
        simulated = SimulatorOptions(**{"dids": 4, "rate_limit": 0, **options})
        app = create_app(simulated, clock=lambda: began + clock.monotonic(), sleep=clock.sleep)
        client = VocobaseClient(
            config,
            "default",
            key,
            budget=Unpaced(budget, clock),
            observer=telemetry,
            clock=clock,
            transport=over(httpx.ASGITransport(app)),
        )
        poller = build_poller(Settings(config, {"default": key}), {"default": client}, Silent(), clock)
        watched = RequestBudget(budget, clock)
        scheduler = Scheduler(
            config,
            poller,
            telemetry,
            clock,
            key_of={"default": "key"},
            budgets={"default": watched},
            discover_every=discover_every,
            replan_every=replan_every,
        )
        scheduler.add_chore("chore", chore_every, chore.run)
        scheduler.start()
        try:
            yield Running(simulator_of(app), poller, telemetry, watched, clock, chore, began)
        finally:
            scheduler.stop()
            await poller.stop()
            poller.close()
            await client.aclose()

    return start


async def test_every_target_is_polled_at_once_and_then_at_the_interval(scheduling: Scheduling) -> None:
    async with scheduling(connections=4) as running:
        await running.clock.advance(310)
        assert len(running.polls()) == 4
        for times in running.polls().values():
            assert times[0] < 0.1
            assert times[1] <= 60.1
            assert len(times) >= 5
            assert set(gaps(times[1:])) == {60.0}
        assert len(running.lookups()) == 1
        seconds = sorted(times[1] for times in running.polls().values())
        assert min(gaps(seconds)) > 5  # spread, not all at once
        assert running.intervals == {60}


async def test_stop_ends_it(scheduling: Scheduling) -> None:
    async with scheduling() as running:
        await running.clock.advance(200)
        assert "clock watch" in {task.get_name() for task in asyncio.all_tasks()}
    seen = len(running.simulator.requests())
    assert seen > 3
    await running.clock.advance(3600)
    assert "clock watch" not in {task.get_name() for task in asyncio.all_tasks()}
    assert len(running.simulator.requests()) == seen


async def test_a_run_that_cannot_happen_is_counted_and_polls_of_a_target_never_overlap(scheduling: Scheduling) -> None:
    async with scheduling(interval="10s", latency=55) as running:
        await running.clock.advance(240)
        (times,) = running.polls().values()
        assert times == [55.0, 115.0, 175.0, 235.0]  # the look-up takes as long
        assert running.missed == 15


async def test_no_run_is_missed_while_the_api_is_quick(scheduling: Scheduling) -> None:
    async with scheduling(latency=0.5) as running:
        await running.clock.advance(1200)
        assert len(running.simulator.requests("sync")) >= 20
        assert running.missed == 0


@pytest.mark.parametrize("status", [401, 404])
async def test_connections_that_could_not_be_listed_are_looked_up_again_at_the_interval(
    scheduling: Scheduling, status: int
) -> None:
    async with scheduling(connections=2) as running:
        running.simulator.add_fault(f"status:connections:status={status}")
        await running.clock.advance(200)
        assert gaps(running.lookups()) == [60.0, 60.0, 60.0]
        running.simulator.clear_faults()
        await running.clock.advance(60)
        assert len(running.poller.fleet.targets) == 2
        await running.clock.advance(500)
        assert len(running.lookups()) == 5


async def test_listed_connections_are_looked_up_again_later(scheduling: Scheduling) -> None:
    async with scheduling() as running:
        await running.clock.advance(1801)
        assert gaps(running.lookups()) == [600.0, 600.0, 600.0]


async def test_polls_come_and_go_with_the_targets(scheduling: Scheduling) -> None:
    async with scheduling(connections=2) as running:
        first, second = running.simulator.connection_ids
        await running.clock.advance(590)
        running.simulator.set_connection(second, status="DISABLED")
        await running.clock.advance(20)
        assert len(running.poller.fleet.targets) == 1
        on, gone = len(running.polls()[first]), len(running.polls()[second])
        await running.clock.advance(580)
        assert len(running.polls()[first]) > on + 8
        assert len(running.polls()[second]) == gone
        running.simulator.set_connection(second, status="ACTIVE")
        await running.clock.advance(200)
        assert len(running.polls()[second]) > gone + 2


async def test_where_the_budget_is_too_small_polls_are_further_apart_and_that_is_said_once(
    scheduling: Scheduling,
) -> None:
    with capture_logs() as logs:
        async with scheduling(connections=30, budget=15) as running:
            await running.clock.advance(1300)
            stretched = fitting_interval(60, 0, 30, 14)
            assert stretched == pytest.approx(135.34, abs=0.01)
            assert running.intervals == {stretched}
            assert len(running.polls()) == 30
            for times in running.polls().values():
                assert max(gaps(times)) <= stretched + 0.01
                assert len(times) >= 1300 / stretched - 1
            assert len(running.lookups()) > 2
    said = [entry for entry in logs if "budget" in str(entry["event"])]
    assert said == [
        {
            "event": "the request budget is too small for poll.interval, so polls are further apart",
            "log_level": "warning",
            "requests_per_minute": 15,
            "targets": 30,
            "poll_interval": "1m",
            "fitting_interval": "2m16s",
            "stale_after": "1h",
        }
    ]


async def test_a_warning_names_an_interval_that_fits(scheduling: Scheduling) -> None:
    with capture_logs() as logs:
        async with scheduling(connections=3, budget=30, interval="4s") as running:
            await running.clock.advance(60)
            assert len(running.polls()) == 3
    (said,) = (entry["fitting_interval"] for entry in logs if "budget" in str(entry["event"]))
    assert said == "7s"
    assert fitting_interval(7, 0, 3, 29) == 7


async def test_slow_answers_lengthen_the_interval_and_quick_ones_shorten_it_to_the_wanted_one(
    scheduling: Scheduling,
) -> None:
    with capture_logs() as logs:
        async with scheduling(connections=3, budget=60, interval="4s") as running:
            await running.clock.advance(1)
            assert running.intervals == {4}
            running.watched.held = 13.0  # 4 s fit 73 places, of which 56 are planned with
            await running.clock.advance(2 * REPLAN_EVERY.total_seconds())
            assert running.intervals == {4}
            running.watched.held = 60.0
            await running.clock.advance(2 * REPLAN_EVERY.total_seconds())
            assert running.intervals == {fitting_interval(4, 0, 3, 59, 60)}
            running.watched.held = 62.0
            await running.clock.advance(2 * REPLAN_EVERY.total_seconds())
            assert running.intervals == {fitting_interval(4, 0, 3, 59, 60)}
            running.watched.held = 0.0
            await running.clock.advance(2 * REPLAN_EVERY.total_seconds())
            assert running.intervals == {4}
            assert running.missed == 0
    assert [entry["event"] for entry in logs if "budget" in str(entry["event"])] == [
        "the request budget is too small for poll.interval, so polls are further apart"
    ]


async def test_polls_stay_spread_when_their_interval_changes(scheduling: Scheduling) -> None:
    async with scheduling(connections=3, budget=60, interval="4s") as running:
        await running.clock.advance(20)
        running.watched.held = 1740.0
        stretched = fitting_interval(4, 0, 3, 59, 1740)
        await running.clock.advance(2 * REPLAN_EVERY.total_seconds())
        assert running.intervals == {stretched}
        before = {connection: len(times) for connection, times in running.polls().items()}
        await running.clock.advance(stretched)
        moments = sorted(times[before[each]] for each, times in running.polls().items())
        assert moments[-1] - moments[0] > 4  # more than the interval was


async def test_what_is_due_stays_due_when_the_clock_is_set_back(scheduling: Scheduling) -> None:
    with capture_logs() as logs:
        async with scheduling(interval="10m") as running:
            await running.clock.advance(1000)
            running.clock.set_by(-30 * 86_400)
            await running.clock.advance(3000)
            (times,) = running.polls().values()
            assert max(gaps(times)) <= 601
            assert max(gaps(running.lookups())) <= 601
            assert [round(run, -1) for run in running.chore.runs] == [3600]
            assert running.missed == 0
    assert [entry for entry in logs if "clock" in str(entry["event"])] == [
        {"event": "the clock was set", "log_level": "warning", "seconds": -30 * 86_400}
    ]


async def test_a_clock_that_is_set_forward_holds_up_nothing(scheduling: Scheduling) -> None:
    with capture_logs() as logs:
        async with scheduling() as running:
            await running.clock.advance(200)
            running.clock.set_by(3600)
            await running.clock.advance(300)
            (times,) = running.polls().values()
            assert max(gaps(times)) <= 61
    assert [entry["event"] for entry in logs if "clock" in str(entry["event"])] == ["the clock was set"]


async def test_a_clock_that_is_a_little_off_is_left_alone(scheduling: Scheduling) -> None:
    with capture_logs() as logs:
        async with scheduling(chore_every=timedelta(seconds=30)) as running:
            await running.clock.advance(3)
            running.clock.set_by(-1.9)
            await running.clock.advance(3)
            running.clock.set_by(-1.9)
            await running.clock.advance(30)
            assert running.chore.runs == [pytest.approx(33.8, abs=0.1)]  # due by the wall clock
    assert not [entry for entry in logs if "clock" in str(entry["event"])]


async def test_a_run_that_breaks_is_counted_and_said_once_without_what_it_dealt_with(scheduling: Scheduling) -> None:
    with capture_logs() as logs:
        async with scheduling(chore_every=timedelta(seconds=10)) as running:
            assert running.failed == 0
            running.chore.failing = True
            await running.clock.advance(35)
            assert running.failed == 3
            running.chore.failing = False
            await running.clock.advance(20)
            assert len(running.chore.runs) == 5
            assert running.failed == 3
    failed, works = (entry for entry in logs if "scheduled job" in str(entry))
    place = f"{__name__}:{Chore.run.__code__.co_firstlineno + 3}"
    assert failed == {
        "event": "scheduled job failed",
        "log_level": "warning",
        "reason": "LookupError",
        "error": f"LookupError at {place}",
        "job": "chore",
    }
    assert (works["event"], works["job"], works["failures"]) == ("scheduled job works again", "chore", 3)
    assert "+918011223344" not in str(logs)


# In virtual time, with the budget that the requests have


@dataclass(slots=True)
class Fleet:
    """An exporter's polls in virtual time, against the vendor's own limit."""

    app: Starlette
    clock: VirtualClock
    poller: Poller
    telemetry: Telemetry
    budget: RequestBudget
    scheduler: Scheduler
    client: VocobaseClient
    config: Config

    @property
    def simulator(self) -> Simulator:
        return simulator_of(self.app)

    async def die(self) -> None:
        self.scheduler.stop()
        await self.poller.stop()
        self.poller.close()
        await self.client.aclose()

    @property
    def interval(self) -> float:
        (interval,) = {state.interval for state in self.poller.fleet.targets.values()}
        return interval

    def polls(self) -> dict[str, list[float]]:
        """Return when each connection was polled, in seconds since the clock began."""
        began = self.clock.time() - self.clock.monotonic()
        seen: dict[str, list[float]] = {each: [] for each in self.simulator.connection_ids}
        for each in self.simulator.requests("sync"):
            seen[each.connection_id].append(each.time - began)
        return seen

    def assert_all_is_well(self) -> None:
        """Every target was polled, each poll worked, none was missed, and the vendor never refused one."""
        assert {state.up for state in self.poller.fleet.targets.values()} == {True}
        assert len(self.poller.fleet.targets) == len(self.simulator.connection_ids)
        assert (self.failures, self.missed) == ({}, 0)
        assert {each.status for each in self.simulator.requests()} <= {200, None}  # none while it is being answered

    async def heal(self, waits: list[float], lasts: float = 2.0) -> None:
        """Use the budget as a heal does, and note how long it waited."""
        asked = self.clock.monotonic()
        async with self.budget.reserve(Priority.HEAL, math.inf) as place:
            await self.clock.sleep(0.5)  # a connection is opened
            await place.turn(math.inf)
            waits.append(self.clock.monotonic() - asked)
            await self.clock.sleep(0.1)  # it is decided anew, and claimed
            assert place.leaves()
            await self.clock.sleep(lasts)

    @property
    def missed(self) -> float:
        return self.telemetry.registry.get_sample_value("voicelink_exporter_scheduler_missed_runs_total") or 0.0

    @property
    def failures(self) -> Counter[str]:
        """Polls that failed, by reason."""
        found: Counter[str] = Counter()
        for state in self.poller.fleet.targets.values():
            found.update({reason.value: count for reason, count in state.failures.items()})
        return +found


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Fleet]:
    """Return what starts an exporter on a clock that tests turn; `like` is one before it, whose API it asks."""
    clock = VirtualClock()
    use_virtual_time(monkeypatch, clock)
    monkeypatch.setattr("exporter.scheduler.TICK", timedelta(seconds=20))  # rendering what nobody looks at takes long

    def start(
        connections: int,
        per_minute: int,
        *,
        heal_share: int = 0,
        like: Fleet | None = None,
        **options: Any,  # noqa: ANN401 - the simulator's
    ) -> Fleet:
        options = {"dids": connections, "connections": connections, "rate_limit": per_minute, **options}
        new = partial(create_app, SimulatorOptions(**options), clock=clock.time, sleep=clock.sleep)
        app = like.app if like else new()
        config = Config.model_validate({"accounts": [{"api_key_env": "VOCOBASE_API_KEY"}]})
        key, telemetry = SecretStr("rg_live_test"), Telemetry()
        budget = RequestBudget(per_minute, clock, heal_share=heal_share)
        client = VocobaseClient(
            config,
            "default",
            key,
            budget=budget,
            observer=telemetry,
            clock=clock,
            transport=over(httpx.ASGITransport(app)),
        )
        poller = build_poller(Settings(config, {"default": key}), {"default": client}, Silent(), clock)
        scheduler = Scheduler(
            config,
            poller,
            telemetry,
            clock,
            key_of={"default": "key"},
            budgets={"default": budget},
            rng=random.Random(1),  # noqa: S311 - a test
        )
        scheduler.start()
        return Fleet(app, clock, poller, telemetry, budget, scheduler, client, config)

    return start


@pytest.mark.parametrize("seconds", [3, 10, 59])
async def test_a_crash_loop_never_sends_more_than_the_limit_and_gets_on(
    fleet: Callable[..., Fleet], seconds: int
) -> None:
    life = fleet(40, 20)
    for _ in range(10):
        await life.clock.advance(seconds)
        await life.die()
        life = fleet(40, 20, like=life)
    await life.die()
    seen = life.simulator.requests()
    assert {each.status for each in seen} <= {200, None}  # the vendor refuses what is too much
    moments = [each.time for each in seen]
    assert max(sum(first <= each < first + 60 for each in moments) for first in moments) <= 20
    assert len(moments) >= 10 * min(18, (seconds - 1) // 3)


@pytest.mark.parametrize("latency", [0.0, 20.0])
async def test_with_many_targets_on_a_small_budget_each_gets_its_first_poll_in_time(
    fleet: Callable[..., Fleet], latency: float
) -> None:
    running = fleet(40, 20, heal_share=2, latency=latency)
    await running.clock.advance(1800)
    running.assert_all_is_well()
    first = max(moments[0] for moments in running.polls().values())
    assert first < running.interval + 20
    for moments in running.polls().values():
        assert all(later - earlier < running.interval * 1.1 for earlier, later in pairwise(moments))
    await running.die()


@pytest.mark.parametrize(
    ("connections", "per_minute", "share", "minutes"), [(50, 60, 6, 10), (20, 60, 6, 10), (5, 4, 1, 60), (4, 1, 0, 200)]
)
async def test_whatever_the_budget_polls_come_at_their_interval(
    fleet: Callable[..., Fleet], connections: int, per_minute: int, share: int, minutes: int
) -> None:
    running = fleet(connections, per_minute, heal_share=share, latency=0.5)
    await running.clock.advance(minutes * 60)
    running.assert_all_is_well()
    for moments in running.polls().values():
        assert len(moments) >= minutes * 60 / running.interval - 2
        late = max(later - earlier - running.interval for earlier, later in pairwise(moments))
        assert late <= 3 * running.budget.gap + 0.5  # behind a look-up, or another's first poll
    assert len(running.simulator.requests("connections")) >= minutes // 10
    await running.die()


async def test_heals_and_look_ups_find_their_place_while_polls_fill_the_budget(fleet: Callable[..., Fleet]) -> None:
    running = fleet(40, 20, heal_share=2)
    await running.clock.advance(300)
    waits: list[float] = []
    heals = []
    for _ in range(20):  # two a minute, together
        heals += [asyncio.create_task(running.heal(waits)) for _ in range(2)]
        await running.clock.advance(61)
    assert len(waits) == 40
    assert max(waits) <= 3 * running.budget.gap
    for _ in range(5):
        look_up = asyncio.create_task(running.poller.discover("default"))
        await running.clock.advance(running.interval)
        assert look_up.done()
        assert await look_up
    running.assert_all_is_well()
    await asyncio.gather(*heals)
    await running.die()


async def test_more_heals_than_their_share_cost_polls_a_little_and_none_of_them_fails(
    fleet: Callable[..., Fleet],
) -> None:
    running = fleet(40, 20, heal_share=2)
    await running.clock.advance(300)
    waits: list[float] = []
    heals = [asyncio.create_task(running.heal(waits)) for _ in range(10)]
    await running.clock.advance(running.interval)
    assert len(waits) == 10
    assert max(waits) < 60 + 10 * running.budget.gap
    await running.clock.advance(1200)
    running.assert_all_is_well()
    await asyncio.gather(*heals)
    await running.die()


@pytest.mark.parametrize("per_minute", [1, 3])
async def test_on_a_tiny_budget_a_heal_and_a_look_up_wait_their_turn_among_the_polls(
    fleet: Callable[..., Fleet], per_minute: int
) -> None:
    running = fleet(6, per_minute)
    await running.clock.advance(3600)
    waits: list[float] = []
    heal = asyncio.create_task(running.heal(waits))
    look_up = asyncio.create_task(running.poller.discover("default"))
    await running.clock.advance(running.interval)
    assert (heal.done(), look_up.done()) == (True, True)
    assert await look_up
    await running.clock.advance(3600)
    running.assert_all_is_well()
    await running.die()


async def test_targets_of_an_account_that_changed_are_asked_in_turn_and_stay_spread(
    fleet: Callable[..., Fleet],
) -> None:
    running = fleet(15, 20)
    await running.clock.advance(590)
    now = running.clock.monotonic()
    await running.scheduler.reconfigure(
        running.config, key_of={"default": "key"}, budgets={"default": running.budget}, changed={"default"}
    )
    await running.clock.advance(150)
    running.assert_all_is_well()
    for moments in running.polls().values():
        assert [each for each in moments if now < each < now + 60]
    second = sorted(min(each for each in moments if each > now + 59) for moments in running.polls().values())
    assert max(later - earlier for earlier, later in pairwise(second)) < 7
    assert min(later - earlier for earlier, later in pairwise(second)) >= 3
    await running.die()
