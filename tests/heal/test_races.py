"""What happens in the moments between a poll, its decision, the claim, the request and its record."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.errors import StoreError
from exporter.model import HealState, Outcome
from exporter.store.records import Status
from tests.support.bench import Bench, next_poll, until
from tests.support.clock import settle
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.snapshots import TargetState

ELSEWHERE = "6f1d5f5e-1d2f-4a67-8d6a-6c8a3a0f7c11"


async def decided_and_waiting(bench: Bench) -> TargetState:
    """Get to where a heal waits for its place; return a newer poll, not taken in yet, that sees nothing broken."""
    await bench.rounds(1)
    fine = bench.state.snapshot
    assert fine is not None
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(1)
    bench.simulator.add_fault("latency:sync:seconds=0.2,count=1")
    await next_poll(bench, lambda: bench.client.budget.pause(1.0))
    await until(lambda: bool(bench.controller._sender.waiting))  # noqa: SLF001 - nothing else tells
    now = bench.clock.time()
    snapshot = replace(fine, at=now, asked=bench.clock.monotonic(), heard=bench.clock.monotonic())
    return replace(bench.state, snapshot=snapshot, polls=bench.state.polls + 1)


async def place_granted(bench: Bench) -> None:
    """Let the heal that waits have its place and connection."""
    await bench.clock.advance(2.0)
    await until(lambda: not bench.controller._sender.waiting)  # noqa: SLF001 - nothing else tells
    await settle()


async def test_a_poll_that_waits_to_be_judged_has_the_last_word(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    newest = await decided_and_waiting(bench)
    released = threading.Event()
    bench.controller._worker.executor.submit(released.wait, PATIENCE)  # noqa: SLF001 - as a database that hangs
    assert bench.state.snapshot
    none = replace(bench.state.snapshot, dids={})
    elsewhere = replace(bench.state, target=replace(bench.target, connection_id=ELSEWHERE), snapshot=none)
    bench.controller.polled(elsewhere, elsewhere)
    bench.controller.polled(bench.state, newest)
    await place_granted(bench)
    released.set()
    await bench.controller.settle()
    assert (bench.sent, bench.attempts()) == (0, [])
    assert [line["reason"] for line in bench.said("heal not claimed")] == [
        "the newest poll asks for no heal: nothing to heal"
    ]


async def test_what_an_older_poll_asked_for_is_void_when_the_newest_can_not_be_judged(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench: Bench = await start()
    newest = await decided_and_waiting(bench)

    def fails(*_: Any) -> None:  # noqa: ANN401 - as the ledger is asked
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(bench.store.ledger, "look", fails)
        bench.controller.polled(bench.state, newest)
        await until(lambda: bool(bench.said("store failed")))
    await place_granted(bench)
    await bench.controller.settle()
    assert (bench.sent, bench.attempts()) == (0, [])


async def test_an_answer_that_came_while_the_store_was_down_is_recorded_afterwards(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench: Bench = await start()
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])

    def fails(*_: Any) -> None:  # noqa: ANN401 - as the ledger is asked
        raise StoreError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(bench.store.ledger, "answered", fails)
        await bench.rounds(2)
        assert [(each.status, each.http_status) for each in bench.attempts()] == [(Status.SENT, None)]
    await bench.clock.advance(60.0)
    await bench.controller.tick()
    assert [(each.status, each.http_status) for each in bench.attempts()] == [(Status.VERIFYING, 200)]
    assert bench.sent == 1


async def under_way(bench: Bench, seconds: int) -> None:
    """Get to where a request was received, which is answered so many seconds later."""
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    bench.simulator.add_fault(f"latency:call_ready:seconds={seconds}")
    await bench.rounds(1)
    await next_poll(bench)
    await until(lambda: bench.sent == 1)


async def test_a_request_that_takes_minutes_stays_that_of_its_replica(start: Callable[..., Any]) -> None:
    bench: Bench = await start(patience="10m")
    await under_way(bench, 200)
    for _ in range(3):
        await bench.clock.advance(60.0)
        await bench.controller.tick()
        assert [each.status for each in bench.attempts()] == [Status.SENT]
    await bench.clock.advance(60.0)
    await bench.controller.settle()
    assert [(each.status, each.http_status) for each in bench.attempts()] == [(Status.VERIFYING, 200)]


async def test_an_answer_that_comes_soon_after_a_stop_is_recorded(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    await under_way(bench, 20)
    stopping = asyncio.create_task(bench.controller.stop())
    await settle()
    await bench.clock.advance(25.0)
    await stopping
    assert [(each.status, each.http_status) for each in bench.attempts()] == [(Status.VERIFYING, 200)]


async def test_what_is_claimed_when_it_stops_is_not_sent_and_says_so(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench: Bench = await start()
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(1)
    claim, claimed, go_on = bench.store.ledger.claim, threading.Event(), threading.Event()

    def claim_and_wait(*asked: Any) -> object:  # noqa: ANN401 - as the ledger is asked
        answer = claim(*asked)
        claimed.set()
        go_on.wait(PATIENCE)
        return answer

    monkeypatch.setattr(bench.store.ledger, "claim", claim_and_wait)
    await next_poll(bench)
    await until(claimed.is_set)
    stopping = asyncio.create_task(bench.controller.stop())
    await settle()
    go_on.set()
    await stopping
    [attempt] = bench.attempts()
    assert (attempt.outcome, attempt.charged, bench.sent) == (Outcome.NOT_SENT, False, 0)
    assert attempt.reason == "the exporter stopped before the request left, so nothing was sent"


async def test_429_of_a_poll_pauses_other_replicas_too(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    other: Bench = await start(like=bench)
    await bench.rounds(1)
    bench.simulator.add_fault("status:sync:status=429,retry_after=600,count=1")
    await next_poll(bench)
    await bench.controller.tick()
    await other.controller.tick()
    assert bench.client.budget.paused_for > 500
    assert other.client.budget.paused_for == pytest.approx(bench.client.budget.paused_for, abs=1)


async def test_time_in_which_polls_fail_is_not_time_in_which_anything_was_seen(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"confirm_for": "10m"})
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    bench.simulator.add_fault("status:sync:status=500")
    await bench.rounds(11)
    bench.simulator.clear_faults()
    await bench.rounds(1)
    assert (bench.sent, bench.heal_state(number)) == (0, HealState.PENDING)
    await bench.rounds(10)
    assert bench.sent == 1
