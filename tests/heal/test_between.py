"""Between the decision and the request: what comes up there holds the request back, and is named."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from exporter.heal import controller
from exporter.model import Outcome
from exporter.store.records import Status
from tests.support.api import CREDENTIAL
from tests.support.bench import Held
from tests.support.clock import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.bench import Bench

    Guarding = Callable[[Bench], None]


def paused(bench: Bench) -> None:
    bench.store.ledger.pause("maintenance", bench.clock.time())


def limited(bench: Bench) -> None:
    bench.store.ledger.pause_key(CREDENTIAL, 60.0, bench.clock.time())


GUARDS = [
    (paused, "paused: maintenance; start again with heal resume"),
    (limited, "rate_limited: the API limits the rate for another 60 s"),
]


async def broken(start: Callable[..., Any]) -> tuple[Bench, str]:
    """Return a replica that heals at the next poll, and the number."""
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(1)
    return bench, number


@pytest.mark.parametrize(("comes_up", "reason"), GUARDS)
async def test_what_refuses_a_claim_is_named_in_the_log(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, comes_up: Guarding, reason: str
) -> None:
    bench, number = await broken(start)
    claim = bench.store.ledger.claim

    def late(*asked: Any) -> object:  # noqa: ANN401 - as the ledger is asked
        comes_up(bench)
        return claim(*asked)

    monkeypatch.setattr(bench.store.ledger, "claim", late)
    await bench.rounds(1)

    assert (bench.sent, bench.attempts()) == (0, [])
    [line] = bench.said("heal not claimed")
    assert (line["phone_number"], line["reason"]) == (number, reason)


@pytest.mark.parametrize(("comes_up", "reason"), GUARDS)
async def test_what_holds_a_claim_back_is_named_in_its_row_and_in_the_log(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, comes_up: Guarding, reason: str
) -> None:
    bench, number = await broken(start)
    claim = bench.store.ledger.claim

    def early(*asked: Any) -> object:  # noqa: ANN401 - as the ledger is asked
        answer = claim(*asked)
        comes_up(bench)
        return answer

    monkeypatch.setattr(bench.store.ledger, "claim", early)
    await bench.rounds(1)

    assert bench.sent == 0
    [attempt] = bench.attempts()
    assert (attempt.status, attempt.outcome, attempt.reason) == (Status.ENDED, Outcome.NOT_SENT, reason)
    assert (attempt.sent_at, attempt.charged) == (None, False)
    [line] = bench.said("heal not sent")
    assert (line["phone_number"], line["attempt"], line["reason"]) == (number, attempt.id, reason)
    assert bench.said("heal ended")[0]["outcome"] == "not_sent"
    monkeypatch.undo()
    bench.store.ledger.resume(bench.clock.time())
    await bench.rounds(3)  # nothing is held against the number
    assert bench.sent == 1


STOPPED = "the exporter stopped before the request left, so nothing was sent"


async def test_what_waits_for_its_place_at_a_stop_is_never_claimed(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    await bench.wait_for_place()

    await bench.controller.stop()
    await bench.clock.advance(60.0)

    assert (bench.sent, bench.attempts()) == (0, [])


async def test_a_stop_after_the_claim_sends_nothing_and_the_row_says_so(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, _ = await broken(start)
    claim = Held(bench.store.ledger.claim)
    monkeypatch.setattr(bench.store.ledger, "claim", claim)
    await bench.start_poll()
    await claim.reached()
    assert [each.status for each in bench.attempts()] == [Status.CLAIMED]

    stopping = asyncio.create_task(bench.controller.stop())
    await settle()
    claim.go_on.set()
    await stopping

    assert bench.sent == 0
    [attempt] = bench.attempts()
    assert (attempt.outcome, attempt.reason, attempt.sent_at) == (Outcome.NOT_SENT, STOPPED, None)
    assert (attempt.charged, attempt.feeds) == (False, False)


async def test_a_stop_just_before_the_request_leaves_sends_nothing_and_the_row_says_so(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row says `sent` already, and the database is so slow to say so that the stop does not wait for it."""
    monkeypatch.setattr(controller, "DRAIN", 0.05)
    bench, _ = await broken(start)
    begin = Held(bench.store.ledger.begin_send)
    monkeypatch.setattr(bench.store.ledger, "begin_send", begin)
    await bench.start_poll()
    await begin.reached()
    assert [each.status for each in bench.attempts()] == [Status.SENT]

    await bench.controller.stop()
    begin.go_on.set()

    assert bench.sent == 0
    [attempt] = bench.attempts()
    assert (attempt.status, attempt.outcome, attempt.reason) == (Status.ENDED, Outcome.NOT_SENT, STOPPED)
    assert (attempt.charged, attempt.feeds) == (False, False)
