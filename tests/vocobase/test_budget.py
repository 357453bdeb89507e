"""The request budget: the limit that holds whatever happens, who goes first, and what waiting ends in."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from exporter.config import Config
from exporter.errors import QuotaError
from exporter.simulator import SimulatorOptions, create_app, simulator_of
from exporter.telemetry import Telemetry
from exporter.vocobase import Priority, RequestBudget, VocobaseClient
from tests.support.clock import ManualClock, settle

FAR = 1e6
ROOM = "the budget of 1 requests a minute has no room"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Use:
    """One request, as planned and as it went. Times are in eighths of a second, so that sums are exact."""

    arrives: int
    priority: Priority
    lasts: int
    patience: int
    cancelled_after: int | None
    outcome: str = "waiting"
    started: float = FAR
    ended: float = FAR

    async def run(self, budget: RequestBudget, clock: ManualClock) -> None:
        await clock.sleep(self.arrives / 8)
        try:
            async with budget.request(self.priority, (self.arrives + self.patience) / 8):
                self.started = clock.monotonic()
                self.outcome = "sent"
                await clock.sleep(self.lasts / 8)
        except QuotaError:
            self.outcome = "refused"
        except asyncio.CancelledError:
            self.outcome = "cancelled" if self.outcome == "waiting" else "sent"
        finally:
            self.ended = clock.monotonic()

    async def cancel(self, task: asyncio.Task[None], clock: ManualClock) -> None:
        if self.cancelled_after is not None:
            await clock.sleep((self.arrives + self.cancelled_after) / 8)
            task.cancel()


uses = st.builds(
    Use,
    arrives=st.integers(1, 1600),
    priority=st.sampled_from(Priority),
    lasts=st.integers(0, 400) | st.just(0),
    patience=st.integers(0, 2000),
    cancelled_after=st.none() | st.none() | st.integers(0, 1000),
)
pauses = st.lists(st.tuples(st.integers(1, 1600), st.integers(0, 800)), max_size=2)


async def play(per_minute: int, plan: list[Use], stops: list[tuple[int, int]]) -> RequestBudget:
    clock = ManualClock()
    budget = RequestBudget(per_minute, clock)

    async def stop(at: int, seconds: int) -> None:
        await clock.sleep(at / 8)
        budget.pause(seconds / 8)

    tasks = [asyncio.create_task(use.run(budget, clock)) for use in plan]
    helpers = [asyncio.create_task(use.cancel(task, clock)) for use, task in zip(plan, tasks, strict=True)]
    helpers += [asyncio.create_task(stop(*each)) for each in stops]
    await clock.advance(2000)
    assert all(task.done() for task in (*tasks, *helpers))
    assert budget.remaining == per_minute, "a place was lost"
    return budget


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.lists(uses, min_size=1, max_size=14), pauses)
def test_the_limit_holds_whatever_happens(per_minute: int, plan: list[Use], stops: list[tuple[int, int]]) -> None:
    asyncio.run(play(per_minute, plan, stops))
    sent = [use for use in plan if use.outcome == "sent"]
    for last in sent:  # the fullest windows begin where a request ends; each may arrive anywhere between start and end
        window = [use for use in sent if use.ended >= last.ended and use.started < last.ended + 60]
        assert len(window) <= per_minute
    for at, seconds in stops:
        assert not [use for use in sent if at / 8 < use.started < (at + seconds) / 8]
    for use in plan:
        assert use.outcome in {"sent", "refused", "cancelled"}
        if use.outcome == "refused":
            assert use.ended == (use.arrives + use.patience) / 8
        for other in sent:
            waited = use.arrives / 8 < other.started < min(use.started, use.ended)
            first = (use.priority, use.arrives) < (other.priority, other.arrives)
            assert not (waited and first), "somebody was overtaken"


async def take(budget: RequestBudget, order: list[str], name: str, priority: Priority, deadline: float = FAR) -> None:
    async with budget.request(priority, deadline):
        order.append(name)


async def test_who_asked_first_goes_first_and_polls_before_all_others() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(1, clock)
    await take(budget, order, "first", Priority.DISCOVERY)
    waiting = []
    for name, priority in [
        ("discovery 1", Priority.DISCOVERY),
        ("heal 1", Priority.HEAL),
        ("poll 1", Priority.POLL),
        ("discovery 2", Priority.DISCOVERY),
        ("poll 2", Priority.POLL),
        ("heal 2", Priority.HEAL),
    ]:
        waiting.append(asyncio.create_task(take(budget, order, name, priority)))
        await settle()
    await clock.advance(59.875)
    assert order == ["first"]
    await clock.advance(0.125)
    assert order == ["first", "poll 1"]
    await clock.advance(300)
    assert order == ["first", "poll 1", "poll 2", "heal 1", "heal 2", "discovery 1", "discovery 2"]
    await asyncio.gather(*waiting)


async def test_a_place_is_taken_until_a_minute_after_the_answer() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(1, clock)
    async with budget.request(Priority.POLL, FAR):
        waiting = asyncio.create_task(take(budget, order, "next", Priority.POLL))
        await clock.advance(100)
        assert (budget.remaining, order) == (0, [])
    await clock.advance(59)
    assert (budget.remaining, order) == (0, [])
    await clock.advance(1)
    assert order == ["next"]
    await waiting


async def test_an_answer_that_fails_takes_its_place_too() -> None:
    budget = RequestBudget(2, ManualClock())
    with pytest.raises(OSError, match="broken"):
        async with budget.request(Priority.POLL, FAR):
            raise OSError("broken")
    assert budget.remaining == 1


async def test_no_room_in_time_is_said_at_the_deadline() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(1, clock)
    await take(budget, order, "first", Priority.POLL)
    waiting = asyncio.create_task(take(budget, order, "second", Priority.POLL, deadline=30))
    await clock.advance(29.875)
    assert not waiting.done()
    await clock.advance(0.125)
    with pytest.raises(QuotaError) as caught:
        await waiting
    assert str(caught.value) == ROOM
    assert order == ["first"]


async def test_no_room_for_a_pause_says_how_long_that_lasts() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(1, clock)
    budget.pause(45)
    assert (budget.paused_for, budget.remaining) == (45, 0)
    waiting = asyncio.create_task(take(budget, order, "first", Priority.POLL, deadline=30))
    await clock.advance(30)
    with pytest.raises(QuotaError) as caught:
        await waiting
    assert str(caught.value) == f"{ROOM}; the API asked us to wait another 15 s"


@pytest.mark.parametrize(
    ("seconds", "paused"), [(None, 60), (0, 0), (-5, 0), (0.5, 0.5), (90, 90), (3600, 3600), (1e9, 3600)]
)
async def test_a_pause_lasts_as_long_as_the_api_says_within_reason(seconds: float | None, paused: float) -> None:
    budget = RequestBudget(1, ManualClock())
    budget.pause(seconds)
    assert budget.paused_for == paused
    assert budget.remaining == (0 if paused else 1)


async def test_a_second_pause_never_shortens_the_first() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(1, clock)
    budget.pause(30)
    waiting = asyncio.create_task(take(budget, order, "first", Priority.POLL))
    await clock.advance(10)
    budget.pause(5)
    assert budget.paused_for == 20
    budget.pause(40)
    await clock.advance(39)
    assert order == []
    await clock.advance(1)
    assert order == ["first"]
    await waiting


async def test_who_is_cancelled_while_waiting_leaves_the_queue() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(1, clock)
    await take(budget, order, "first", Priority.POLL)
    gone = asyncio.create_task(take(budget, order, "gone", Priority.POLL))
    await settle()
    next_one = asyncio.create_task(take(budget, order, "next", Priority.POLL))
    await settle()
    gone.cancel()
    await clock.advance(60)
    assert order == ["first", "next"]
    await next_one
    assert gone.cancelled()


async def test_who_is_cancelled_at_the_moment_of_the_grant_hands_the_place_on() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(1, clock)
    await take(budget, order, "first", Priority.POLL)
    gone = asyncio.create_task(take(budget, order, "gone", Priority.POLL))
    await settle()
    next_one = asyncio.create_task(take(budget, order, "next", Priority.POLL))
    advancing = asyncio.create_task(clock.advance(60))
    # Until the place is granted, and not one step longer.
    while clock.monotonic() < 60 or budget.remaining:  # noqa: ASYNC110 - the very step is the point
        await asyncio.sleep(0)
    assert not gone.done()
    gone.cancel()
    await advancing
    assert order == ["first", "next"]
    assert gone.cancelled()
    await next_one


async def test_what_remains() -> None:
    clock = ManualClock()
    budget = RequestBudget(3, clock)
    assert budget.remaining == 3
    async with budget.request(Priority.POLL, FAR):
        assert budget.remaining == 2
        async with budget.request(Priority.HEAL, FAR):
            assert budget.remaining == 1
        await clock.advance(59)
        assert budget.remaining == 1
        await clock.advance(1)
        assert budget.remaining == 2
    await clock.advance(60)
    assert budget.remaining == 3


async def test_reading_what_remains_changes_nothing() -> None:
    """It is read in another thread."""
    clock = ManualClock()
    budget = RequestBudget(3, clock)
    for _ in range(2):
        async with budget.request(Priority.POLL, FAR):
            await clock.advance(30)
    for seconds, remaining in ((0, 1), (29, 1), (1, 2), (30, 3), (100, 3)):
        await clock.advance(seconds)
        before = repr(vars(budget))
        assert budget.remaining == remaining
        assert repr(vars(budget)) == before


async def test_how_long_places_are_held_is_a_smoothed_mean_of_answered_and_failed_requests() -> None:
    clock = ManualClock()
    budget = RequestBudget(10, clock)
    assert budget.held == 0
    async with budget.request(Priority.POLL, FAR):
        await clock.advance(20)
    assert budget.held == pytest.approx(2)  # one of ten
    for _ in range(60):
        with contextlib.suppress(OSError):
            async with budget.request(Priority.POLL, FAR):
                await clock.advance(20)
                raise OSError("broken")
    assert budget.held == pytest.approx(20, rel=0.01)
    await clock.advance(60)
    for _ in range(10):
        async with budget.request(Priority.POLL, FAR):
            pass
    assert budget.held == pytest.approx(20 / math.e, rel=0.1)


async def test_waiting_for_a_place_is_not_holding_one() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(1, clock)
    await take(budget, order, "first", Priority.POLL)
    waiting = asyncio.create_task(take(budget, order, "second", Priority.POLL))
    await clock.advance(60)
    await waiting
    assert budget.held == 0


@pytest.mark.parametrize(("urgent", "first"), [(False, "heal"), (True, "look-up")])
async def test_an_urgent_look_up_has_the_rank_of_a_poll(urgent: bool, first: str) -> None:  # noqa: FBT001 - a parameter
    clock, order = ManualClock(), list[str]()
    app = create_app(SimulatorOptions(dids=1, rate_limit=0), clock=clock.time, sleep=clock.sleep)
    config = Config.model_validate({"accounts": [{"api_key_env": "VOCOBASE_API_KEY"}]})
    budget = RequestBudget(1, clock)
    client = VocobaseClient(
        config,
        "default",
        SecretStr("rg_live_test"),
        budget=budget,
        observer=Telemetry(),
        clock=clock,
        transport=httpx.ASGITransport(app),
    )
    await take(budget, order, "before", Priority.POLL)
    heal = asyncio.create_task(take(budget, order, "heal", Priority.HEAL))
    await settle()
    look_up = asyncio.create_task(client.connections(deadline=FAR, urgent=urgent))
    await clock.advance(60)
    for _ in range(100):  # the pool of connections has locks of its own
        await settle()
    assert order == (["before", "heal"] if first == "heal" else ["before"])
    assert len(simulator_of(app).requests("connections")) == (first == "look-up")
    await clock.advance(60)
    for _ in range(100):
        await settle()
    await asyncio.gather(heal, look_up)
    await client.aclose()
