"""What becomes of a request: every row of the result table, through the real client and ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from exporter.errors import QuotaError
from exporter.heal.executor import SEND_WITHIN, execute, result_of
from exporter.model import HealState, Outcome
from exporter.store import Store
from exporter.store.records import Attempt, DidRecord, Refused, Result, Status, Wish
from tests.support.api import api_config, client_of
from tests.support.clock import ManualClock
from tests.support.healing import config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.store.ledger import Ledger

NOW = 1_800_000_000.0
NUMBER = "+918011223344"
GOOD = {
    "success": True,
    "data": {"ready": False, "steps": [{"step": "resolve_did", "status": "done", "data": {"raw": 1}}]},
}


def answer(status: int, **more: str) -> Callable[[], httpx.Response]:
    return lambda: httpx.Response(status, headers=more, json={"success": False, "error": {"code": "NO"}})


def raised(error: Exception) -> Callable[[], httpx.Response]:
    def reply() -> httpx.Response:
        raise error

    return reply


async def result(reply: Callable[[], httpx.Response], *, gate: bool = True, wait: float = 0.0) -> tuple[Result, int]:
    """Return what became of one request, and how many were made."""
    made, clock = 0, ManualClock()

    def handle(_: httpx.Request) -> httpx.Response:
        nonlocal made
        made += 1
        return reply()

    async def begin() -> bool:
        await clock.advance(wait)
        return gate

    async with client_of(api_config(), clock=clock, transport=httpx.MockTransport(handle)) as client:
        found = await execute(client, {"did_number": "1"}, begin, clock=clock, claimed_at=0.0, fingerprint="print")
    return found, made


@pytest.mark.parametrize(
    ("reply", "status", "outcome", "flags"),
    [
        (lambda: httpx.Response(200, json=GOOD), Status.VERIFYING, None, "charged feeds"),
        (lambda: httpx.Response(200, text="<html>"), Status.AMBIGUOUS, None, "charged feeds"),
        (lambda: httpx.Response(200, json={"success": False}), Status.AMBIGUOUS, None, "charged feeds"),
        (lambda: httpx.Response(200, json={"success": True, "data": []}), Status.AMBIGUOUS, None, "charged feeds"),
        (answer(500), Status.AMBIGUOUS, None, "charged feeds"),
        (answer(503), Status.AMBIGUOUS, None, "charged feeds"),
        (raised(httpx.ReadTimeout("")), Status.AMBIGUOUS, None, "charged feeds"),
        (raised(httpx.ReadError("")), Status.AMBIGUOUS, None, "charged feeds"),
        (raised(httpx.WriteError("")), Status.AMBIGUOUS, None, "charged feeds"),
        (raised(httpx.RemoteProtocolError("")), Status.AMBIGUOUS, None, "charged feeds"),
        (raised(httpx.ConnectError("")), Status.ENDED, Outcome.NOT_SENT, "feeds backoff"),
        (raised(httpx.ConnectTimeout("")), Status.ENDED, Outcome.NOT_SENT, "feeds backoff"),
        (answer(400), Status.ENDED, Outcome.REJECTED, "charged feeds backoff quarantine"),
        (answer(422), Status.ENDED, Outcome.REJECTED, "charged feeds backoff quarantine"),
        (answer(404), Status.ENDED, Outcome.REJECTED, "charged feeds backoff"),
        (answer(409), Status.ENDED, Outcome.REJECTED, "charged feeds backoff"),
        (answer(401), Status.ENDED, Outcome.REJECTED, "feeds latch"),
        (answer(403), Status.ENDED, Outcome.REJECTED, "charged feeds backoff forbidden"),
        (answer(429), Status.ENDED, Outcome.REJECTED, "60"),
        (answer(429, **{"Retry-After": "7"}), Status.ENDED, Outcome.REJECTED, "7"),
        (answer(301, Location="http://x/"), Status.ENDED, Outcome.REJECTED, "feeds latch"),
        (answer(307, Location="http://x/"), Status.ENDED, Outcome.REJECTED, "feeds latch"),
        (answer(304), Status.ENDED, Outcome.REJECTED, "feeds latch"),
    ],
)
async def test_each_answer_is_treated_as_the_table_says_and_sent_once(
    reply: Callable[[], httpx.Response], status: Status, outcome: Outcome | None, flags: str
) -> None:
    found, made = await result(reply)

    said = {name for name in ("charged", "feeds", "quarantine", "forbidden") if getattr(found, name)}
    said |= {"backoff"} if found.backoff and status is Status.ENDED else set()
    said |= {"latch"} if found.latch else set()
    said |= {f"{found.key_pause:g}"} if found.key_pause is not None else set()
    assert (found.status, found.outcome, said, made) == (status, outcome, set(flags.split()), 1)


async def test_the_steps_of_an_answer_are_kept_without_raw() -> None:
    found, _ = await result(lambda: httpx.Response(200, json=GOOD))

    assert found.steps == ({"step": "resolve_did", "status": "done", "data": {}},)


@pytest.mark.parametrize(("gate", "wait"), [(False, 0.0), (True, SEND_WITHIN), (True, 99.0)])
async def test_nothing_is_sent_without_the_gate_or_too_long_after_the_claim(gate: bool, wait: float) -> None:  # noqa: FBT001
    found, made = await result(lambda: httpx.Response(200, json=GOOD), gate=gate, wait=wait)

    assert (found.outcome, found.charged, found.feeds, found.backoff, made) == (
        Outcome.NOT_SENT,
        False,
        False,
        False,
        0,
    )


async def test_something_is_sent_just_in_time() -> None:
    assert (await result(lambda: httpx.Response(200, json=GOOD), wait=SEND_WITHIN - 0.1))[1] == 1


def test_our_own_budget_is_nobodys_fault() -> None:
    found = result_of(QuotaError("no room"), fingerprint="")

    assert (found.outcome, found.charged, found.feeds, found.backoff) == (Outcome.NOT_SENT, False, False, False)


# In the ledger


@pytest.fixture
def ledger(memory_path: Path) -> Iterator[Ledger]:
    store = Store(config_of("plain", f"sqlite:///{memory_path / 'ledger.db'}"), "me")
    store.open()
    yield store.ledger
    store.close()


def claimed(ledger: Ledger, number: str = NUMBER, now: float = NOW) -> Attempt:
    found = ledger.claim(Wish(number, "main", "default", ("NO_BOT",), {}), lambda *_: (), now)
    assert isinstance(found, Attempt)
    assert ledger.begin_send(found, lambda *_: (), now)
    return found


def forbidden() -> Result:
    return Result(Status.ENDED, Outcome.REJECTED, "403", charged=True, feeds=True, forbidden=True, latch_print="print")


def quarantined(record: DidRecord, _: object) -> DidRecord:
    return DidRecord(record.number, state=HealState.QUARANTINED)


@pytest.mark.parametrize(("later", "latched"), [(0.0, True), (599.9, True), (600.0, False)])
def test_a_second_403_within_ten_minutes_latches_however_the_two_overlapped(
    ledger: Ledger,
    later: float,
    latched: bool,  # noqa: FBT001
) -> None:
    one, two = claimed(ledger), claimed(ledger, "+918011223345")

    ledger.answered(one, forbidden(), quarantined, NOW)
    assert ledger.account("main", NOW).latched is None
    ledger.answered(two, forbidden(), quarantined, NOW + later)

    facts = ledger.account("main", NOW + later)
    assert (facts.latched is not None, facts.latch_print == "print") == (latched, latched)


def test_the_last_place_in_a_budget_can_be_used(ledger: Ledger) -> None:
    sent = []

    def judge(facts: object, *_: object) -> list[str]:
        sent.append(len(facts.sent))  # type: ignore[attr-defined]
        return ["no place"] if sent[-1] >= 1 else []

    found = ledger.claim(Wish(NUMBER, "main", "default", (), {}), judge, NOW)
    assert isinstance(found, Attempt)
    assert ledger.begin_send(found, judge, NOW)
    assert sent == [0, 0]


def test_a_claim_whose_replica_is_gone_is_released_and_what_may_have_been_sent_is_not(
    ledger: Ledger, memory_path: Path
) -> None:
    ledger.alive(NOW)
    claimed(ledger)
    only = ledger.claim(Wish("+918011223345", "main", "default", (), {}), lambda *_: (), NOW)
    assert isinstance(only, Attempt)
    other = Store(config_of("plain", f"sqlite:///{memory_path / 'ledger.db'}"), "other")

    assert other.ledger.alive(NOW + 59.9) == []
    assert [each.id for each in other.ledger.alive(NOW + 60)] == [only.id]
    assert [each.status for each in ledger.history(NUMBER)] == [Status.AMBIGUOUS]
    assert not ledger.begin_send(only, lambda *_: (), NOW + 61)  # it comes back too late
    other.ledger.alive(NOW + 10**8)
    assert [each.status for each in ledger.history(NUMBER)] == [Status.AMBIGUOUS]
    other.close()


def test_only_the_holder_of_a_claim_may_send_on_it(ledger: Ledger) -> None:
    found = ledger.claim(Wish(NUMBER, "main", "default", (), {}), lambda *_: (), NOW)
    assert isinstance(found, Attempt)

    assert not ledger.begin_send(replace(found, token="another"), lambda *_: (), NOW)
    assert not ledger.answered(replace(found, token="another"), forbidden(), quarantined, NOW)
    assert ledger.begin_send(found, lambda *_: (), NOW)


def test_a_did_has_one_open_attempt_whatever_the_judges_say(ledger: Ledger) -> None:
    claimed(ledger)

    again = ledger.claim(Wish(NUMBER, "main", "default", (), {}), lambda *_: (), NOW)
    assert isinstance(again, Refused)


def test_an_attempt_that_was_lost_by_its_own_replica_is_taken_over(ledger: Ledger) -> None:
    one = claimed(ledger)

    ledger.alive(NOW + 60, {one.id})
    assert ledger.history(NUMBER)[0].status is Status.SENT
    ledger.alive(NOW + 60)
    assert ledger.history(NUMBER)[0].status is Status.AMBIGUOUS


def test_a_late_answer_still_counts(ledger: Ledger) -> None:
    one = claimed(ledger)
    ledger.alive(NOW + 60)

    assert ledger.answered(one, forbidden(), quarantined, NOW + 90)
    assert ledger.history(NUMBER)[0].status is Status.ENDED
    assert not ledger.answered(one, forbidden(), quarantined, NOW + 91)


def test_budgets_count_what_was_sent_in_the_last_hour_whatever_became_of_it(ledger: Ledger) -> None:
    ledger.answered(claimed(ledger), forbidden(), quarantined, NOW + 1)
    ledger.claim(Wish("+918011223345", "main", "default", (), {}), lambda *_: (), NOW)

    assert len(ledger.account("main", NOW + 3609).sent) == 2  # ten seconds more, for what left late
    assert ledger.account("main", NOW + 3610).sent == ()


def test_a_request_under_way_is_not_ended_by_a_release_nor_its_did_moved(ledger: Ledger) -> None:
    claimed(ledger)

    assert ledger.release(NUMBER, "looked at", NOW) == []
    assert not ledger.move(DidRecord(NUMBER, "main"), quarantined, NOW)
    assert ledger.history(NUMBER)[0].status is Status.SENT


def test_a_change_made_on_an_older_view_is_refused(ledger: Ledger) -> None:
    assert ledger.move(DidRecord(NUMBER, "main"), quarantined, NOW)
    assert not ledger.move(DidRecord(NUMBER, "main"), quarantined, NOW)
