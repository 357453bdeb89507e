"""The request budget: the limits that hold whatever happens, who goes first, and what waiting ends in."""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import QuotaError
from exporter.vocobase import Place, Priority, RequestBudget, share_for_heals
from exporter.vocobase.budget import LEAVES_WITHIN
from tests.support.budgets import rested
from tests.support.clock import ManualClock, settle

FAR = 1e6
ROOM = "the budget of 1 requests a minute has no room"
RATES = [1, 2, 3, 4, 5, 6, 10, 12, 20, 60]  # whose gap is a whole number of seconds, so that sums are exact


# Whatever happens


@dataclass
class Use:
    """One request, as planned and as it went. Times are in eighths of a second, so that sums are exact."""

    arrives: int
    priority: Priority
    lasts: int
    patience: int | None = None
    cancelled_after: int | None = None
    prepares: int | None = None  # how long it is until it can leave: it reserves its place
    decides: int = 0  # how long it takes from its turn until it leaves
    changes_its_mind: bool = False
    outcome: str = "waiting"
    placed: float = FAR
    turn: float = FAR
    started: float = FAR
    ended: float = FAR

    @property
    def deadline(self) -> float:
        return FAR if self.patience is None else (self.arrives + self.patience) / 8

    @property
    def prepared(self) -> float:
        return self.placed + (self.prepares or 0) / 8

    async def run(self, budget: RequestBudget, clock: ManualClock) -> None:
        await clock.sleep(self.arrives / 8 - clock.monotonic())
        try:
            if self.prepares is None:
                async with budget.request(self.priority, self.deadline) as place:
                    self.placed = self.turn = clock.monotonic()
                    await self.use(place, clock)
            else:
                async with budget.reserve(self.priority, self.deadline) as place:
                    self.placed = clock.monotonic()
                    await clock.sleep(self.prepares / 8)
                    await place.turn(self.deadline)
                    self.turn = clock.monotonic()
                    await clock.sleep(self.decides / 8)
                    if place.leaves():
                        await self.use(place, clock)
                    else:
                        self.outcome = "too late"
        except QuotaError:
            self.outcome = "refused"
        except asyncio.CancelledError:
            self.outcome = self.outcome if self.outcome == "sent" else "cancelled"
        finally:
            self.ended = clock.monotonic()

    async def use(self, place: Place, clock: ManualClock) -> None:
        if self.changes_its_mind:
            place.unused()
            self.outcome = "unused"
        else:
            self.started, self.outcome = clock.monotonic(), "sent"
            await clock.sleep(self.lasts / 8)

    async def cancel(self, task: asyncio.Task[None], clock: ManualClock) -> None:
        if self.cancelled_after is not None:
            await clock.sleep((self.arrives + self.cancelled_after) / 8)
            task.cancel()


uses = st.builds(
    Use,
    arrives=st.integers(1, 1600),
    priority=st.sampled_from(Priority),
    lasts=st.just(0) | st.integers(0, 400),
    patience=st.none() | st.integers(0, 2000),
    cancelled_after=st.none() | st.none() | st.integers(0, 1000),
    prepares=st.none() | st.integers(0, 200),
    decides=st.just(0) | st.integers(0, 60),
    changes_its_mind=st.sampled_from([False, False, False, True]),
)
pauses = st.lists(st.tuples(st.integers(1, 1600), st.integers(0, 800)), max_size=2)


async def play(budget: RequestBudget, clock: ManualClock, plan: list[Use], stops: list[tuple[int, int]]) -> None:
    async def stop(at: int, seconds: int) -> None:
        await clock.sleep(at / 8)
        budget.pause(seconds / 8)

    tasks = [asyncio.create_task(use.run(budget, clock)) for use in plan]
    helpers = [asyncio.create_task(use.cancel(task, clock)) for use, task in zip(plan, tasks, strict=True)]
    helpers += [asyncio.create_task(stop(*each)) for each in stops]
    await clock.advance(4000)
    assert all(task.done() for task in (*tasks, *helpers)), "somebody starved"
    assert budget.remaining == budget.per_minute, "a place was lost"
    assert [budget.waiting(kind) for kind in Priority] == [0, 0, 0]


def fullest(moments: list[float]) -> int:
    """Return the most of them in any minute."""
    return max((sum(first <= each < first + 60 for each in moments) for first in moments), default=0)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(RATES), st.integers(0, 3), st.lists(uses, min_size=1, max_size=16), pauses)
def test_the_limits_hold_whatever_happens(
    per_minute: int, heal_share: int, plan: list[Use], stops: list[tuple[int, int]]
) -> None:
    async def run() -> RequestBudget:
        clock = ManualClock()
        budget = RequestBudget(per_minute, clock, heal_share=heal_share)
        await play(budget, clock, plan, stops)
        return budget

    budget = asyncio.run(run())
    sent = sorted((use for use in plan if use.outcome == "sent"), key=lambda use: use.started)
    for last in sent:  # the fullest windows begin where a request ends; each may arrive anywhere between start and end
        window = [use for use in sent if use.ended >= last.ended and use.started < last.ended + 60]
        assert len(window) <= per_minute
    for earlier, later in pairwise([0.0, *(use.started for use in sent)]):
        assert later - earlier >= 60 / per_minute
    for use in sent:
        assert use.started <= use.turn + LEAVES_WITHIN
        assert not [at for at, seconds in stops if at / 8 < use.started < (at + seconds) / 8]
        places = [
            other for other in plan if other.placed <= use.placed and (other.ended + 60 * (other in sent)) > use.placed
        ]
        polls = [other for other in places if other.priority is Priority.POLL]
        heals = [other for other in places if other.priority is Priority.HEAL]
        if use.priority is Priority.POLL:
            assert len(polls) <= per_minute - budget.heal_share - budget.look_up_share
        if use.priority is not Priority.HEAL:
            assert len(places) - len(heals) <= per_minute - budget.heal_share
    for use in plan:
        assert use.outcome in {"sent", "refused", "cancelled", "unused", "too late"}
        if use.outcome == "refused":
            assert use.ended == (use.deadline if use.placed == FAR else max(use.deadline, use.prepared))
        for other in sent:
            assert_not_overtaken(use, other, urgent=budget.heal_share > 0)


def assert_not_overtaken(use: Use, other: Use, *, urgent: bool) -> None:
    waited = use.arrives / 8 < other.placed < min(use.placed, use.ended)
    same = use.priority is other.priority and (use.prepares is None) == (other.prepares is None)
    assert not (waited and same and use.arrives < other.arrives), "somebody was overtaken by their like"
    if urgent and use.priority is Priority.HEAL is not other.priority:
        assert not (waited and other.prepares is None), "a heal was overtaken"
        assert not use.prepared < other.turn < min(use.turn, use.ended), "a heal's turn was taken"


@dataclass
class Life:
    """A process from its start to its death, in eighths of a second."""

    lasts: int
    plan: list[Use] = field(default_factory=list)


async def live(lives: list[Life], per_minute: int, heal_share: int, clock: ManualClock) -> None:
    for life in lives:
        began = clock.monotonic()
        budget = RequestBudget(per_minute, clock, heal_share=heal_share)
        for use in life.plan:
            use.arrives += int(began * 8)
        tasks = [asyncio.create_task(use.run(budget, clock)) for use in life.plan]
        await clock.advance(life.lasts / 8)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


hasty = st.builds(
    Use,
    arrives=st.integers(0, 80),
    priority=st.sampled_from(Priority),
    lasts=st.just(0) | st.integers(0, 80),
    prepares=st.none() | st.integers(0, 80),
    decides=st.just(0) | st.integers(0, 60),
)
lives = st.lists(st.builds(Life, st.integers(1, 640), st.lists(hasty, min_size=5, max_size=25)), min_size=2, max_size=8)


@settings(max_examples=150, deadline=None)
@given(lives, st.sampled_from(RATES), st.integers(0, 3))
def test_however_often_the_process_dies_the_key_keeps_to_its_limit(
    lives: list[Life], per_minute: int, heal_share: int
) -> None:
    asyncio.run(live(lives, per_minute, heal_share, ManualClock()))
    moments = sorted(use.started for life in lives for use in life.plan if use.outcome == "sent")
    assert fullest(moments) <= per_minute
    for earlier, later in pairwise([0.0, *moments]):
        assert later - earlier >= 60 / per_minute


@pytest.mark.parametrize("seconds", [3, 10, 59])
async def test_a_crash_loop_of_forty_targets_keeps_to_the_limit_and_gets_on(seconds: int) -> None:
    lives = [Life(seconds * 8, [Use(0, Priority.POLL, 4) for _ in range(40)]) for _ in range(10)]
    await live(lives, 20, 2, ManualClock())
    moments = sorted(use.started for life in lives for use in life.plan if use.outcome == "sent")
    assert fullest(moments) <= 20
    # The last moment of a life is the first of the next, so that a life of 3 s just misses what it waited 3 s for.
    assert len(moments) >= 10 * min(17, (seconds - 1) // 3)


# The pace


async def take(budget: RequestBudget, order: list[str], name: str, priority: Priority, deadline: float = FAR) -> None:
    async with budget.request(priority, deadline):
        order.append(name)


async def moments_of(budget: RequestBudget, clock: ManualClock, count: int, moments: list[float]) -> None:
    for _ in range(count):
        async with budget.request(Priority.POLL, FAR):
            moments.append(clock.monotonic())


@pytest.mark.parametrize(("per_minute", "gap"), [(60, 1), (20, 3), (1, 60), (100_000, 0.0006)])
async def test_requests_leave_at_an_even_pace_and_the_first_after_a_gap(per_minute: int, gap: float) -> None:
    clock, moments = ManualClock(), list[float]()
    budget = RequestBudget(per_minute, clock)
    work = asyncio.create_task(moments_of(budget, clock, 3, moments))
    await clock.advance(gap * 3.5)
    assert moments == pytest.approx([gap, 2 * gap, 3 * gap])
    assert budget.gap == gap
    await work


async def test_a_pause_neither_shortens_a_gap_nor_saves_requests_up() -> None:
    clock, moments = ManualClock(), list[float]()
    budget = RequestBudget(20, clock)
    work = asyncio.create_task(moments_of(budget, clock, 5, moments))
    await clock.advance(3)
    budget.pause(1)
    await clock.advance(3)
    budget.pause(10)
    await clock.advance(30)
    assert moments == [3, 6, 16, 19, 22]
    await work


async def test_another_limit_is_another_pace_at_once() -> None:
    clock, moments = ManualClock(), list[float]()
    budget = RequestBudget(1, clock)
    work = asyncio.create_task(moments_of(budget, clock, 6, moments))
    await clock.advance(10)
    budget.resize(60, 0)
    await clock.advance(1)
    assert moments == [10, 11]
    budget.resize(6, 0)
    await clock.advance(20)
    assert moments == [10, 11, 21, 31]
    budget.resize(3, 0)  # what was sent before counts on
    await clock.advance(39.875)
    assert moments == [10, 11, 21, 31]
    await clock.advance(0.125)
    assert moments == [10, 11, 21, 31, 71]
    await clock.advance(20)
    assert moments == [10, 11, 21, 31, 71, 91]
    await work


async def test_who_waits_wakes_up_no_more_often_than_something_may_have_changed() -> None:
    clock, moments = ManualClock(), list[float]()
    slept: list[float] = []
    sleep = clock.sleep

    async def counted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(seconds)

    clock.sleep = counted  # type: ignore[method-assign] # counts
    budget = RequestBudget(20, clock)
    work = [asyncio.create_task(moments_of(budget, clock, 1, moments)) for _ in range(40)]
    await clock.advance(200)
    assert len(moments) == 40
    assert len([each for each in slept if each < FAR / 2]) <= 3 * 40
    assert min(slept) > 0
    await asyncio.gather(*work)


# The window


async def test_a_place_is_taken_until_a_minute_after_the_answer() -> None:
    clock, order = ManualClock(), list[str]()
    budget = rested(1, clock)
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
    budget = rested(2, ManualClock())
    with pytest.raises(OSError, match="broken"):
        async with budget.request(Priority.POLL, FAR):
            raise OSError("broken")
    assert budget.remaining == 1


async def test_what_remains() -> None:
    clock = ManualClock()
    budget = rested(3, clock)
    assert budget.remaining == 3
    async with budget.request(Priority.POLL, FAR):
        assert budget.remaining == 2
        await clock.advance(20)
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
    budget = rested(3, clock)
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
    budget = rested(10, clock)
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
    for _ in range(10):
        await clock.advance(60)
        async with budget.request(Priority.POLL, FAR):
            pass
    assert budget.held == pytest.approx(20 / math.e, rel=0.1)


async def test_waiting_for_a_place_is_not_holding_one() -> None:
    clock, order = ManualClock(), list[str]()
    budget = rested(1, clock)
    await take(budget, order, "first", Priority.POLL)
    waiting = asyncio.create_task(take(budget, order, "second", Priority.POLL))
    await clock.advance(60)
    await waiting
    assert budget.held == 0


# Who goes first, and what is kept for whom


async def queue_up(budget: RequestBudget, order: list[str], *names: str) -> list[asyncio.Task[None]]:
    kinds = {"look-up": Priority.DISCOVERY, "heal": Priority.HEAL, "poll": Priority.POLL}
    tasks = []
    for name in names:
        tasks.append(asyncio.create_task(take(budget, order, name, kinds[name.split()[0]])))
        await settle()
    return tasks


async def test_heals_go_before_polls_and_polls_before_look_ups_and_who_asked_first_goes_first() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(10, clock, heal_share=1)
    names = ("look-up 1", "heal 1", "poll 1", "look-up 2", "poll 2", "heal 2")
    waiting = await queue_up(budget, order, *names)
    assert [budget.waiting(kind) for kind in Priority] == [2, 2, 2]
    await clock.advance(12)
    assert order == ["heal 1", "heal 2"]
    await clock.advance(24)
    assert order == ["heal 1", "heal 2", "poll 1", "poll 2", "look-up 1", "look-up 2"]
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(("per_minute", "share"), [(3, 0), (9, 1)])
async def test_for_whom_no_share_is_kept_goes_with_the_polls(per_minute: int, share: int) -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(per_minute, clock, heal_share=share)
    waiting = await queue_up(budget, order, "poll 1", "look-up", "poll 2", "heal")
    await clock.advance(200)
    assert order == (["heal"] if share else []) + ["poll 1", "look-up", "poll 2"] + ([] if share else ["heal"])
    await asyncio.gather(*waiting)


@pytest.mark.parametrize(
    ("per_minute", "heals", "share", "for_polls"),
    [
        (1, 10, 0, 0.9),
        (3, 10, 0, 2.9),
        (4, 10, 1, 2.9),
        (9, 10, 1, 7.9),
        (10, 10, 1, 8),
        (20, 10, 2, 17),
        (60, 10, 6, 53),
        (60, 2, 2, 57),
        (1000, 10, 10, 989),
    ],
)
async def test_what_is_kept_and_what_is_left_for_polls(
    per_minute: int, heals: int, share: int, for_polls: float
) -> None:
    budget = RequestBudget(per_minute, ManualClock(), heal_share=share_for_heals(per_minute, heals))
    assert budget.heal_share == share
    assert budget.for_polls == pytest.approx(for_polls)


@pytest.mark.parametrize(("per_minute", "left"), [(1, 1), (2, 1), (10, 1), (60, 12)])
async def test_polls_are_left_a_place_however_much_is_asked_for_heals(per_minute: int, left: int) -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(per_minute, clock, heal_share=min(per_minute, 47))
    waiting = await queue_up(budget, order, *["poll"] * per_minute)
    await clock.advance(60)
    assert len(order) == left
    for task in waiting:
        task.cancel()


async def test_polls_leave_places_for_heals_and_look_ups_and_look_ups_for_heals() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(20, clock, heal_share=2)
    waiting = await queue_up(budget, order, *["poll"] * 40)
    await clock.advance(59)
    assert order == ["poll"] * 17
    waiting += await queue_up(budget, order, *["look-up"] * 3)
    await clock.advance(3)
    assert order == ["poll"] * 17 + ["look-up"]
    waiting += await queue_up(budget, order, "heal", "heal")
    await clock.advance(1)
    assert order[18:] == ["heal"]
    await clock.advance(3)
    assert order[19:] == ["heal"]
    for task in waiting:
        task.cancel()


async def test_heals_beyond_their_share_take_places_of_polls_and_look_ups_keep_theirs() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(20, clock, heal_share=2)
    waiting = await queue_up(budget, order, *["heal"] * 5, *["poll"] * 40, "look-up")
    await clock.advance(60)
    assert order == ["heal"] * 5 + ["poll"] * 14 + ["look-up"]
    for task in waiting:
        task.cancel()


async def test_another_share_counts_at_once() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(20, clock, heal_share=2)
    waiting = await queue_up(budget, order, *["poll"] * 40)
    await clock.advance(59)
    assert len(order) == 17
    budget.resize(20, 0)
    await clock.advance(3)
    assert len(order) == 19
    budget.resize(20, 6)
    await clock.advance(18)  # six places are free again, all of which are kept now
    assert len(order) == 19
    await clock.advance(1)
    assert len(order) == 20
    for task in waiting:
        task.cancel()


# Places that are held before the request can leave


async def test_a_reserved_place_counts_and_its_request_leaves_at_its_turn() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(20, clock, heal_share=2)
    async with budget.reserve(Priority.HEAL, FAR) as place:
        assert (clock.monotonic(), budget.remaining) == (0, 19)  # a place needs no turn
        polls = await queue_up(budget, order, *["poll"] * 3)
        await clock.advance(5)
        assert order == ["poll"]
        turn = asyncio.create_task(place.turn(FAR))
        await settle()
        assert budget.waiting(Priority.HEAL) == 1
        await clock.advance(1)
        await turn
        assert (clock.monotonic(), budget.waiting(Priority.HEAL)) == (6, 0)
        await clock.advance(1)
        assert place.leaves()
        await clock.advance(2)
        assert order == ["poll"]
        await clock.advance(1)
        assert order == ["poll"] * 2
    await clock.advance(59)
    assert budget.remaining == 17 + 1 - 1  # the first poll's is free again, the third poll's is taken
    await asyncio.gather(*polls)


async def test_nothing_else_leaves_until_the_turn_is_used_but_no_longer_than_it_lasts() -> None:
    clock, order = ManualClock(), list[str]()
    budget = rested(60, clock, heal_share=6)
    async with budget.reserve(Priority.HEAL, FAR) as place:
        await place.turn(FAR)
        polls = await queue_up(budget, order, "poll")
        await clock.advance(LEAVES_WITHIN + 0.875)
        assert order == []
        await clock.advance(0.125)
        assert order == ["poll"]
        assert not place.leaves()
    assert budget.remaining == 59
    await asyncio.gather(*polls)


@pytest.mark.parametrize("how", ["never had its turn", "unused", "too late", "paused", "broken"])
async def test_a_place_without_a_request_is_free_at_once_and_keeps_nobody_waiting(how: str) -> None:
    clock, order = ManualClock(), list[str]()
    budget = rested(1, clock)
    waiting: list[asyncio.Task[None]] = []
    with contextlib.suppress(OSError):
        async with budget.reserve(Priority.HEAL, FAR) as place:
            waiting += await queue_up(budget, order, "poll")
            await clock.advance(100)
            assert order == []
            if how == "broken":
                raise OSError
            if how != "never had its turn":
                await place.turn(FAR)
            if how == "unused":
                place.unused()
            if how == "too late":
                await clock.advance(LEAVES_WITHIN + 1)
                assert not place.leaves()
            if how == "paused":
                budget.pause(5)
                assert not place.leaves()
    await settle()
    assert order == ([] if how == "paused" else ["poll"])
    await clock.advance(5)
    assert order == ["poll"]
    assert budget.held == 0
    await asyncio.gather(*waiting)


async def test_a_request_may_give_its_place_back_too() -> None:
    clock, order = ManualClock(), list[str]()
    budget = rested(1, clock)
    async with budget.request(Priority.HEAL, FAR) as place:
        place.unused()
        assert not place.leaves()
    assert budget.remaining == 1
    await take(budget, order, "next", Priority.POLL)
    assert (order, clock.monotonic()) == (["next"], 0)


async def test_what_is_given_back_does_not_undo_what_left_meanwhile() -> None:
    clock, moments = ManualClock(), list[float]()
    budget = rested(20, clock, heal_share=2)
    async with budget.reserve(Priority.HEAL, FAR) as place:
        await place.turn(FAR)
        work = asyncio.create_task(moments_of(budget, clock, 2, moments))
        await clock.advance(LEAVES_WITHIN + 3)
        place.unused()
        await settle()
        assert moments == [LEAVES_WITHIN + 3]
    await clock.advance(3)
    assert moments == [LEAVES_WITHIN + 3, LEAVES_WITHIN + 6]
    await work


async def test_a_turn_may_be_waited_for_again() -> None:
    clock = ManualClock()
    budget = rested(20, clock)
    async with budget.reserve(Priority.HEAL, FAR) as place:
        await place.turn(FAR)
        await clock.advance(LEAVES_WITHIN + 1)
        assert not place.leaves()
        await place.turn(FAR)
        assert place.leaves()
    assert budget.remaining == 19
    await clock.advance(60)
    assert budget.remaining == 20


async def test_a_turn_that_does_not_come_is_said_at_the_deadline_and_costs_nothing() -> None:
    clock = ManualClock()
    budget = rested(1, clock)
    budget.pause(30)
    work = asyncio.create_task(take(budget, [], "heal", Priority.HEAL, deadline=20))
    await clock.advance(30)
    with pytest.raises(QuotaError):
        await work
    async with budget.reserve(Priority.HEAL, FAR) as place:
        budget.pause(30)
        turn = asyncio.create_task(place.turn(clock.monotonic() + 10))
        await clock.advance(10)
        with pytest.raises(QuotaError) as caught:
            await turn
        assert str(caught.value) == f"{ROOM}; the API asked us to wait another 20 s"
    await clock.advance(20)
    assert budget.remaining == 1


# What waiting ends in


async def test_no_room_in_time_is_said_at_the_deadline() -> None:
    clock, order = ManualClock(), list[str]()
    budget = rested(1, clock)
    await take(budget, order, "first", Priority.POLL)
    waiting = asyncio.create_task(take(budget, order, "second", Priority.POLL, deadline=30))
    await clock.advance(29.875)
    assert not waiting.done()
    await clock.advance(0.125)
    with pytest.raises(QuotaError) as caught:
        await waiting
    assert str(caught.value) == ROOM
    assert order == ["first"]


async def test_a_place_that_comes_at_the_deadline_comes_in_time() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(2, clock)
    waiting = asyncio.create_task(take(budget, order, "first", Priority.POLL, deadline=60))
    await clock.advance(10)
    budget.resize(1, 0)  # from now on, it would come at 60 s by a timer that is set at 30 s: later than the deadline's
    await clock.advance(50)
    await waiting
    assert order == ["first"]


async def test_no_room_for_a_pause_says_how_long_that_lasts() -> None:
    clock, order = ManualClock(), list[str]()
    budget = rested(1, clock)
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
    budget = rested(1, clock)
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
    budget = rested(1, clock)
    await take(budget, order, "first", Priority.POLL)
    gone, next_one = await queue_up(budget, order, "poll gone", "poll next")
    assert budget.waiting(Priority.POLL) == 2
    gone.cancel()
    await settle()
    assert budget.waiting(Priority.POLL) == 1
    await clock.advance(60)
    assert order == ["first", "poll next"]
    await next_one
    assert gone.cancelled()


async def test_who_is_cancelled_at_the_moment_of_the_grant_hands_the_place_on() -> None:
    clock, order = ManualClock(), list[str]()
    budget = rested(1, clock)
    await take(budget, order, "first", Priority.POLL)
    gone, next_one = await queue_up(budget, order, "poll gone", "poll next")
    advancing = asyncio.create_task(clock.advance(60))
    # Until the place is granted, and not one step longer.
    while clock.monotonic() < 60 or budget.remaining:  # noqa: ASYNC110 - the very step is the point
        await asyncio.sleep(0)
    assert not gone.done()
    gone.cancel()
    await advancing
    assert order == ["first", "poll next"]
    assert gone.cancelled()
    await next_one


async def test_who_is_cancelled_at_the_moment_of_its_turn_hands_that_on() -> None:
    clock, order = ManualClock(), list[str]()
    budget = RequestBudget(20, clock)

    async def reserve() -> None:
        async with budget.reserve(Priority.HEAL, FAR) as place:
            await place.turn(FAR)
            raise AssertionError

    gone = asyncio.create_task(reserve())
    await settle()
    polls = await queue_up(budget, order, "poll")
    advancing = asyncio.create_task(clock.advance(3))
    while budget.waiting(Priority.HEAL):  # noqa: ASYNC110 - the very step is the point
        await asyncio.sleep(0)
    assert not gone.done()
    gone.cancel()
    await advancing
    assert order == ["poll"]
    assert gone.cancelled()
    assert budget.remaining == 19
    await asyncio.gather(*polls)
