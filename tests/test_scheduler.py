"""When what is done: the arithmetic on its own, the rest on the real clock with short intervals."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from structlog.testing import capture_logs

from exporter.app import build_poller
from exporter.clock import SystemClock
from exporter.config import Config, Settings
from exporter.errors import QuotaError
from exporter.exposition import Exposition
from exporter.scheduler import DISCOVER_EVERY, POLLS_SHARE, Scheduler, SpreadTrigger, fitting_interval, phase
from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of
from exporter.telemetry import Telemetry
from exporter.vocobase import RequestBudget, VocobaseClient
from exporter.vocobase.budget import Priority
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from exporter.poller import Poller

NOW = datetime(2026, 6, 1, tzinfo=UTC)
INTERVALS = st.floats(0.1, 3600)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
    per_minute=st.integers(1, 100_000),
)
def test_the_interval_fits_the_budget_and_is_not_stretched_without_need(
    interval: float, jitter_part: float, targets: int, per_minute: int
) -> None:
    jitter = interval * jitter_part
    fitting = fitting_interval(interval, jitter, targets, per_minute)
    requests = targets * 60 / (fitting - jitter / 2)  # in a minute; a wait is half the jitter shorter on average
    assert fitting >= interval
    assert requests <= per_minute * POLLS_SHARE * (1 + 1e-9)
    if fitting > interval:
        assert targets * 60 / (interval - jitter / 2) > per_minute * POLLS_SHARE
        assert requests == pytest.approx(per_minute * POLLS_SHARE)


def test_by_default_57_targets_fit_into_the_budget_of_a_key() -> None:
    assert fitting_interval(60, 0, 57, 60) == 60
    assert fitting_interval(60, 0, 58, 60) == pytest.approx(61.05, abs=0.01)
    assert fitting_interval(60, 5, 100, 60) == pytest.approx(107.76, abs=0.01)


@dataclass(slots=True)
class Running:
    """A scheduler at work, and what it works with."""

    simulator: Simulator
    poller: Poller
    telemetry: Telemetry

    def polls(self) -> dict[str, list[float]]:
        """Return when each connection was polled."""
        seen: dict[str, list[float]] = {}
        for each in self.simulator.requests("sync"):
            seen.setdefault(each.connection_id, []).append(each.time)
        return seen

    def lookups(self) -> list[float]:
        """Return when the connections were looked up."""
        return [each.time for each in self.simulator.requests("connections")]

    @property
    def missed(self) -> float:
        """How many runs were missed."""
        return self.telemetry.registry.get_sample_value("voicelink_exporter_scheduler_missed_runs_total") or 0.0


async def until(condition: Callable[[], object], within: float = 10) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the simulator
            await asyncio.sleep(0.01)


@asynccontextmanager
async def scheduling(
    *,
    interval: str = "100ms",
    budget: int = 100_000,
    discover_every: timedelta = DISCOVER_EVERY,
    **options: Any,  # noqa: ANN401 - the simulator's
) -> AsyncIterator[Running]:
    config = Config.model_validate(
        {
            "api": {"requests_per_minute": budget, "timeout": "5s"},
            "accounts": [{"api_key_env": "VOCOBASE_API_KEY"}],
            "poll": {"interval": interval, "jitter": "0s"},
        }
    )
    key, clock, telemetry = SecretStr("rg_live_test"), SystemClock(), Telemetry()
    app = create_app(SimulatorOptions(**{"dids": 4, "rate_limit": 0, **options}))
    client = VocobaseClient(
        config,
        "default",
        key,
        budget=RequestBudget(budget, clock),
        observer=telemetry,
        clock=clock,
        transport=httpx.ASGITransport(app),
    )
    exposition = Exposition(telemetry.render)
    poller = build_poller(Settings(config, {"default": key}), {"default": client}, exposition, clock)
    scheduler = Scheduler(config, poller, telemetry, clock, key_of={"default": "key"}, discover_every=discover_every)
    scheduler.start()
    try:
        yield Running(simulator_of(app), poller, telemetry)
    finally:
        scheduler.stop()
        await poller.stop()
        poller.close()
        await client.aclose()


async def test_every_target_is_polled_at_once_and_then_at_the_interval() -> None:
    async with scheduling(connections=4, interval="200ms") as running:
        await until(lambda: len(running.polls()) == 4 and all(len(times) >= 5 for times in running.polls().values()))
        began = running.lookups()[0]
        for times in running.polls().values():
            assert times[0] - began < 0.5
            for earlier, later in pairwise(times[1:]):
                assert later - earlier == pytest.approx(0.2, abs=0.15)
        assert len(running.lookups()) == 1
        seconds = sorted(times[1] for times in running.polls().values())
        assert seconds[-1] - seconds[0] > 0.08  # spread, not all at once
        assert {state.interval for state in running.poller.fleet.targets.values()} == {0.2}


async def test_stop_ends_it() -> None:
    async with scheduling() as running:
        await until(lambda: len(running.simulator.requests("sync")) > 3)
    seen = len(running.simulator.requests())
    await asyncio.sleep(0.3)
    assert len(running.simulator.requests()) == seen


async def test_a_run_that_cannot_happen_is_counted_and_polls_of_a_target_never_overlap() -> None:
    async with scheduling(latency=0.55) as running:
        await until(lambda: len(running.simulator.requests("sync")) >= 3)
        (times,) = running.polls().values()
        assert all(later - earlier > 0.5 for earlier, later in pairwise(times))
        assert running.missed >= 4
        assert running.missed == pytest.approx(5 * len(times), abs=6)


async def test_no_run_is_missed_while_the_api_is_quick() -> None:
    async with scheduling(interval="300ms") as running:
        await until(lambda: len(running.simulator.requests("sync")) >= 4)
        assert running.missed == 0


async def test_connections_that_could_not_be_listed_are_looked_up_again_at_the_interval() -> None:
    async with scheduling(connections=2) as running:
        running.simulator.add_fault("status:connections:status=401")
        await until(lambda: len(running.lookups()) >= 4)
        for earlier, later in pairwise(running.lookups()):
            assert 0.09 < later - earlier < 0.4
        running.simulator.clear_faults()
        await until(lambda: len(running.poller.fleet.targets) == 2)
        settled = len(running.lookups())
        await asyncio.sleep(0.4)
        assert len(running.lookups()) == settled


async def test_listed_connections_are_looked_up_again_later() -> None:
    assert timedelta(minutes=10) == DISCOVER_EVERY
    async with scheduling(discover_every=timedelta(seconds=0.4)) as running:
        await until(lambda: len(running.lookups()) >= 4)
        for earlier, later in pairwise(running.lookups()):
            assert later - earlier == pytest.approx(0.4, abs=0.2)


async def test_polls_come_and_go_with_the_targets() -> None:
    async with scheduling(connections=2, discover_every=timedelta(seconds=0.2)) as running:
        first, second = running.simulator.connection_ids
        await until(lambda: len(running.polls()) == 2)
        running.simulator.set_connection(second, status="DISABLED")
        await until(lambda: len(running.poller.fleet.targets) == 1)
        await until(lambda: running.lookups()[-1] > running.polls()[second][-1])
        gone = len(running.polls()[second])
        on = len(running.polls()[first])
        await until(lambda: len(running.polls()[first]) > on + 4)
        assert len(running.polls()[second]) == gone
        running.simulator.set_connection(second, status="ACTIVE")
        await until(lambda: len(running.polls()[second]) > gone + 2)
        assert running.missed == 0


async def test_where_the_budget_is_too_small_polls_are_further_apart_and_that_is_said_once() -> None:
    with capture_logs() as logs:
        async with scheduling(connections=3, budget=900, discover_every=timedelta(seconds=0.2)) as running:
            await until(
                lambda: len(running.polls()) == 3 and all(len(times) >= 6 for times in running.polls().values())
            )
            stretched = fitting_interval(0.1, 0, 3, 900)
            assert stretched == pytest.approx(0.2105, abs=0.001)
            assert {state.interval for state in running.poller.fleet.targets.values()} == {stretched}
            for times in running.polls().values():
                for earlier, later in pairwise(times[1:]):
                    assert later - earlier == pytest.approx(stretched, abs=0.15)
            assert len(running.lookups()) > 2
    said = [entry for entry in logs if "budget" in str(entry["event"])]
    assert said == [
        {
            "event": "the request budget is too small for poll.interval, so polls are further apart",
            "log_level": "warning",
            "requests_per_minute": 900,
            "targets": 3,
            "poll_interval": "100ms",
            "fitting_interval": "1s",
            "stale_after": "5m",
        }
    ]


async def test_a_warning_names_an_interval_that_fits() -> None:
    with capture_logs() as logs:
        async with scheduling(connections=3, budget=30, interval="4s") as running:
            await until(lambda: len(running.polls()) == 3)
    (said,) = (entry["fitting_interval"] for entry in logs if "budget" in str(entry["event"]))
    assert said == "7s"
    assert fitting_interval(7, 0, 3, 30) == 7


async def test_a_budget_that_is_too_small_is_never_exceeded_and_every_target_gets_its_turn() -> None:
    """On a clock of its own: ten minutes of 25 targets and 10 requests a minute, against the vendor's own limit."""
    clock = ManualClock()
    app = create_app(SimulatorOptions(dids=25, connections=25, rate_limit=10), clock=clock.time, sleep=clock.sleep)
    simulator, telemetry, key = simulator_of(app), Telemetry(), SecretStr("rg_live_test")
    config = Config.model_validate({"api": {"requests_per_minute": 10}, "accounts": [{"api_key_env": "X"}]})
    budget = RequestBudget(10, clock)
    client = VocobaseClient(
        config, "default", key, budget=budget, observer=telemetry, clock=clock, transport=httpx.ASGITransport(app)
    )
    interval = fitting_interval(60, 0, 25, 10)
    served: list[int] = []

    async def target(index: int) -> None:
        trigger = SpreadTrigger(interval, 0, phase(index, interval), random.Random(index))  # noqa: S311 - a test
        fire = trigger.get_next_fire_time(None, NOW)
        while True:
            await clock.sleep((fire - NOW).total_seconds() - clock.monotonic())
            try:
                await client.sync(simulator.connection_ids[index], deadline=clock.monotonic() + interval)
                served.append(index)
            except QuotaError:
                pass
            fire = trigger.get_next_fire_time(fire, fire)

    tasks = [asyncio.create_task(target(index)) for index in range(25)]
    for _ in range(600):
        await clock.advance(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.aclose()
    assert {seen.status for seen in simulator.requests()} == {200}
    counts = [served.count(index) for index in range(25)]
    assert min(counts) >= 2
    assert max(counts) - min(counts) <= 2
    assert len(served) >= 75
    assert budget.per_minute == 10
    assert Priority.POLL < Priority.DISCOVERY
