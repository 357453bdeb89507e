"""Healing under clocks that are wrong or set: no budget is refilled, no pause lasts longer, nothing stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from exporter.config import Config
from exporter.model import Guard, Outcome
from exporter.store import Store
from exporter.store.records import Status
from tests.support.clock import ManualClock
from tests.support.ledgers import claimed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.bench import Bench

HOUR = 3600.0
DAY = 24 * HOUR
ONE_RATE_LIMIT = "status:call_ready:status=429,count=1"


class Other(ManualClock):
    """The clock of another machine: its monotonic time is that of the first, its wall clock is not."""

    def __init__(self, first: ManualClock, off: float) -> None:
        super().__init__()
        self._first = first
        self._off = off

    def time(self) -> float:
        return self._first.time() + self._off

    def monotonic(self) -> float:
        return self._first.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._first.sleep(seconds)

    async def advance(self, seconds: float) -> None:
        await self._first.advance(seconds)


async def test_a_pause_that_was_noted_while_the_clock_was_ahead_lasts_no_longer_than_asked_for(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start()
    bench.clock.set_by(6 * HOUR)
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault(ONE_RATE_LIMIT)
    await bench.rounds(2)
    assert bench.sent == 1
    bench.clock.set_by(-6 * HOUR)
    before = len(bench.simulator.requests("sync"))
    await bench.rounds(6)
    assert len(bench.simulator.requests("sync")) >= before + 4
    assert bench.sent == 2
    assert bench.simulator.truth()[number].ready


async def test_a_restart_after_the_clock_was_set_back_waits_no_longer_than_the_pause(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    bench.clock.set_by(6 * HOUR)
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    bench.simulator.add_fault(ONE_RATE_LIMIT)
    await bench.rounds(2)
    bench.clock.set_by(-6 * HOUR)
    again: Bench = await start(like=bench)
    await again.rounds(6)
    assert again.sent == 2


async def test_a_start_asks_nothing_while_the_key_is_paused(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    bench.simulator.add_fault("status:sync:status=429,retry_after=900,count=1")
    await bench.rounds(1)
    await bench.controller.tick()
    paused_until = bench.clock.time() + bench.client.budget.paused_for
    asked = len(bench.simulator.requests())
    await start(like=bench)
    assert bench.simulator.requests()[asked:] == []
    assert bench.clock.time() < paused_until


@pytest.mark.parametrize("what", ["sync", "connections"])
async def test_a_pause_that_any_request_is_told_to_make_holds_for_every_process_at_once(
    start: Callable[..., Any], what: str
) -> None:
    bench: Bench = await start()
    other: Bench = await start(like=bench)
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await other.rounds(1)
    bench.simulator.add_fault(f"status:{what}:status=429,retry_after=900,count=1")
    if what == "sync":
        await bench.drive(bench.poller.poll(bench.target))
    else:
        await bench.drive(bench.poller.discover("main"))
    await other.rounds(1)
    assert (other.sent, other.attempts()) == (0, [])
    asked = len(bench.simulator.requests())
    await start(like=bench)  # and for one that starts
    assert bench.simulator.requests()[asked:] == []


async def test_a_heal_that_was_answered_while_the_clock_was_ahead_stops_nothing(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"max_in_flight": 1})
    bench.clock.set_by(HOUR)
    one, two = bench.simulator.numbers[:2]
    bench.simulator.set_did(one, issues=["NO_BOT"])
    await bench.rounds(3)
    assert bench.sent == 1
    bench.clock.set_by(-HOUR)
    bench.simulator.set_did(two, issues=["NO_BOT"])
    await bench.rounds(8)
    assert bench.sent == 2
    assert bench.simulator.truth()[two].ready


async def test_a_clock_that_is_set_forward_refills_no_budget(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"max_per_hour": 2, "max_in_flight": 5})
    for number in bench.simulator.numbers[:3]:
        bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(10)
    assert bench.sent == 2
    bench.clock.set_by(2 * HOUR)
    await bench.rounds(20)
    assert bench.sent == 2
    assert Guard.MAX_PER_HOUR in bench.healing.blocked
    await bench.rounds(40)
    assert bench.sent == 3


async def test_a_clock_that_is_set_forward_after_a_restart_refills_no_budget(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"max_per_hour": 1})
    for number in bench.simulator.numbers[:2]:
        bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(6)
    assert bench.sent == 1
    again: Bench = await start({"max_per_hour": 1}, like=bench)
    await again.rounds(1)
    bench.clock.set_by(2 * HOUR)
    await again.rounds(6)
    assert again.sent == 1
    assert again.healing.blocked == {Guard.MAX_PER_HOUR}


async def test_a_clock_that_is_set_forward_after_a_restart_ends_no_hour_of_observe_mode(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start({"mode": "observe"})
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(4)
    assert [each.outcome for each in bench.attempts()] == [Outcome.WOULD_SEND]
    again: Bench = await start({"mode": "observe"}, like=bench)
    await again.rounds(1)
    bench.clock.set_by(2 * HOUR)
    await again.rounds(6)
    assert [each.outcome for each in bench.attempts()] == [Outcome.WOULD_SEND]


async def test_a_clock_that_is_set_forward_ends_no_backoff(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"backoff": {"initial": "30m", "max": "30m"}})
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault("status:call_ready:status=409")
    await bench.rounds(3)
    assert (bench.sent, bench.heal_state(number)) == (1, "backoff")
    bench.clock.set_by(6 * HOUR)
    await bench.rounds(10)
    assert (bench.sent, bench.heal_state(number)) == (1, "backoff")
    await bench.rounds(40)
    assert bench.sent == 2


async def test_a_clock_that_is_set_forward_brings_no_attempts_back_that_were_used_up(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"max_attempts": 2, "backoff": {"initial": "1m", "max": "1m"}})
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault("status:call_ready:status=409")
    await bench.rounds(4)
    assert bench.sent == 1
    bench.clock.set_by(48 * HOUR)
    await bench.rounds(20)
    assert (bench.sent, bench.heal_state(number)) == (2, "quarantined")


async def test_a_replica_whose_clock_is_behind_does_not_refill_the_budgets_of_others(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"max_per_hour": 2, "max_in_flight": 5})
    behind: Bench = await start(
        {"max_per_hour": 2, "max_in_flight": 5}, like=bench, clock=Other(bench.clock, -6 * HOUR)
    )
    for number in bench.simulator.numbers[:3]:
        bench.simulator.set_did(number, issues=["NO_BOT"])
    for _ in range(20):
        await behind.rounds(1)
        await bench.controller.tick()
        await bench.drive_poll()
    assert bench.sent == 2


async def test_nor_does_it_in_a_store_that_took_the_place_of_a_lost_one(start: Callable[..., Any]) -> None:
    heal = {"max_per_hour": 2, "max_in_flight": 5, "verify_within": "5m", "backoff": {"initial": "5m", "max": "10m"}}
    bench: Bench = await start(heal)
    behind: Bench = await start(heal, like=bench, clock=Other(bench.clock, -6 * HOUR))
    for number in bench.simulator.numbers[:2]:
        bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(70)  # what the lost store showed is more than an hour old by then
    assert bench.sent == 2
    for each in bench.file.parent.iterdir():
        each.unlink()
    await bench.rounds(1)
    person = Store(Config.model_validate({"store": {"url": f"sqlite:///{bench.file}"}}), clock=bench.clock)
    person.begin_anew("the disk was exchanged")
    person.close()
    await bench.rounds(1)  # it looks at the new store before there is anything in it
    for number in bench.simulator.numbers[2:5]:
        bench.simulator.set_did(number, issues=["NO_BOT"])
    for _ in range(30):
        await behind.rounds(1)
        await bench.controller.tick()
        await bench.drive_poll()
    assert bench.sent == 4


async def test_a_replica_whose_clock_is_ahead_does_not_stop_the_others(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"max_in_flight": 5})
    ahead: Bench = await start({"max_in_flight": 5}, like=bench, clock=Other(bench.clock, 6 * HOUR))
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    bench.simulator.add_fault(ONE_RATE_LIMIT)
    await ahead.rounds(2)
    assert ahead.sent == 1
    await bench.rounds(6)  # the other is gone
    assert bench.sent == 2


async def test_a_replica_whose_clock_is_ahead_leaves_others_their_claims(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    ahead: Bench = await start(like=bench, clock=Other(bench.clock, 6 * HOUR))
    await bench.rounds(1)
    attempt = claimed(bench.store, now=bench.clock.time())
    for _ in range(5):
        bench.store.ledger.heartbeat(bench.clock.time(), {attempt.id})
        await ahead.controller.tick()
        assert [each.status for each in bench.attempts()] == [Status.CLAIMED]
        await bench.clock.advance(30.0)
    for _ in range(4):  # the other gives no sign of life any more
        await ahead.controller.tick()
        await bench.clock.advance(30.0)
    assert [each.status for each in bench.attempts()] == [Status.ENDED]


async def refused_once(bench: Bench) -> str:
    """Have a heal refused, which is charged; return its number."""
    number: str = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault("status:call_ready:status=409,count=1")
    await bench.rounds(2)
    assert [each.charged for each in bench.attempts()] == [True]
    return number


async def test_a_clock_that_is_set_forward_prunes_nothing_that_counts(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"backoff": {"initial": "1d", "max": "1d"}})
    number = await refused_once(bench)
    bench.clock.set_by(400 * DAY)
    await bench.clock.advance(HOUR + 1.0)
    await bench.controller.tick()
    assert [each.number for each in bench.attempts()] == [number]


async def test_a_short_retention_keeps_what_counts(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"attempts_window": "12h", "backoff": {"initial": "1d", "max": "1d"}}, retention="10m")
    number = await refused_once(bench)
    await bench.clock.advance(6 * HOUR)
    await bench.controller.tick()
    assert [each.number for each in bench.attempts()] == [number]
    await bench.clock.advance(7 * HOUR)
    await bench.controller.tick()
    assert bench.attempts() == []


async def test_a_heal_that_was_verified_while_the_clock_was_ahead_is_none_of_a_new_start(
    start: Callable[..., Any],
) -> None:
    """The ramp of a start: its first heal is verified before a second is sent."""
    bench: Bench = await start({"max_in_flight": 3})
    bench.clock.set_by(HOUR)
    first, *more = bench.simulator.numbers[:3]
    bench.simulator.set_did(first, issues=["NO_BOT"])
    await bench.rounds(4)
    assert bench.simulator.truth()[first].ready
    assert bench.store.ledger.history()[0].outcome is Outcome.SUCCEEDED
    bench.clock.set_by(-HOUR)
    again: Bench = await start({"max_in_flight": 3}, like=bench)
    for number in more:
        again.simulator.set_did(number, issues=["NO_BOT"])
    await again.rounds(2)
    assert again.sent == 2
    await again.rounds(4)
    assert again.sent == 3
