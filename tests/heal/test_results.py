"""What becomes of a request: every row of the result table, through the real sender, client and ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import httpx
import pytest

from exporter.accounts import AccountRuntime
from exporter.config.schema import Account, Heal
from exporter.errors import AuthError, ForbiddenError, LeaseExpiredError, QuotaError, RedirectError, RejectedError
from exporter.heal.decide import Send
from exporter.heal.guards import GuardCheck
from exporter.heal.results import failed
from exporter.heal.sender import HealRequest, HealSender, Sent
from exporter.model import HealState, Outcome, Target
from exporter.snapshots import Watch
from exporter.store import Store
from exporter.store.records import SEND_WITHIN, Attempt, DidRecord, Refused, Result, Status, Wish
from exporter.store.worker import StoreWorker
from tests.support.api import api_config, client_of
from tests.support.clock import ManualClock
from tests.support.healing import config_of
from tests.support.ledgers import keep
from tests.support.transport import Unreachable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from exporter.store.ledger import Ledger

NOW = 1_800_000_000.0
NUMBER = "+918011223344"
MARK = "mark of the key"
GOOD = {
    "success": True,
    "data": {"ready": False, "steps": [{"step": "resolve_did", "status": "done", "data": {"raw": 1}}]},
}
SEND = Send(NUMBER, ("NO_BOT",), {"did_id": 812}, None)

Reply = Callable[[], httpx.Response]


def answer(status: int, **more: str) -> Reply:
    return lambda: httpx.Response(status, headers=more, json={"success": False, "error": {"code": "NO"}})


def raised(error: Exception) -> Reply:
    def reply() -> httpx.Response:
        raise error

    return reply


def good(status: int = 200) -> Reply:
    return lambda: httpx.Response(status, json=GOOD)


class Cut(httpx.AsyncByteStream):
    """Body of an answer that breaks off."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"success": true'
        raise httpx.ReadError("gone")


def broken(status: int) -> Reply:
    return lambda: httpx.Response(status, stream=Cut())


@pytest.fixture
def store(memory_path: Path) -> Iterator[Store]:
    store = Store(config_of("plain", f"sqlite:///{memory_path / 'ledger.db'}"), "me")
    store.open()
    yield store
    store.close()


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return store.ledger


@dataclass
class Way:
    """Way of one heal from the decision to the API, and what happens on it."""

    store: Store
    reply: Reply
    unreachable: httpx.TransportError | None = None
    meanwhile: Callable[[int], str] = lambda _: ""  # called with how often a guard check was asked; may object
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    made: int = 0

    async def go(self) -> Sent:
        """Send, and return what came of it."""
        clock, reserved, asked = self.clock, asyncio.Event(), 0

        def handle(_: httpx.Request) -> httpx.Response:
            self.made += 1
            return self.reply()

        async def revise() -> Send:
            reserved.set()
            return SEND

        def withdrawn() -> str:
            nonlocal asked
            asked += 1
            return self.meanwhile(asked)

        check = GuardCheck(Heal(), "print", clock.time, lambda: 0.0, lambda: None, withdrawn)
        transport = Unreachable(self.unreachable) if self.unreachable else httpx.MockTransport(handle)
        worker = StoreWorker(self.store, clock)
        async with client_of(api_config(), clock=clock, transport=transport, per_minute=60_000) as client:
            account = Account(name="main", api_key_env="KEY")
            runtime = AccountRuntime(account, Heal(), client, Watch.of(account), "print", MARK)
            sender = HealSender(worker, clock, lambda _: keep)
            request = HealRequest(runtime, Target("main"), SEND)
            sending = asyncio.create_task(sender.send(request, revise, check, patience=60.0))
            while not (reserved.is_set() or sending.done()):  # for its place in the budget
                await clock.advance(0.001)
            sent = await sending
        worker.close()
        return sent

    @property
    def row(self) -> Attempt:
        """The only row there is."""
        [found] = self.store.ledger.history()
        return found


def flags_of(found: Result) -> set[str]:
    said = {name for name in ("charged", "feeds", "quarantine", "forbidden") if getattr(found, name)}
    said |= {"backoff"} if found.backoff is not False and found.status is Status.ENDED else set()
    said |= {"latch"} if found.latch else set()
    return said | ({f"{found.key_pause:g}"} if found.key_pause is not None else set())


@pytest.mark.parametrize(
    ("reply", "status", "outcome", "http_status", "flags"),
    [
        (good(), Status.VERIFYING, None, 200, "charged feeds"),
        (good(201), Status.VERIFYING, None, 201, "charged feeds"),
        (good(202), Status.VERIFYING, None, 202, "charged feeds"),
        (lambda: httpx.Response(200, text="<html>"), Status.AMBIGUOUS, None, 200, "charged feeds"),
        (lambda: httpx.Response(202, text="<html>"), Status.AMBIGUOUS, None, 202, "charged feeds"),
        (lambda: httpx.Response(200, json={"success": False}), Status.AMBIGUOUS, None, 200, "charged feeds"),
        (lambda: httpx.Response(200, json={"success": True, "data": []}), Status.AMBIGUOUS, None, 200, "charged feeds"),
        (lambda: httpx.Response(204), Status.AMBIGUOUS, None, 204, "charged feeds"),
        (good(206), Status.AMBIGUOUS, None, 206, "charged feeds"),
        (broken(200), Status.AMBIGUOUS, None, 200, "charged feeds"),
        (answer(408), Status.AMBIGUOUS, None, 408, "charged feeds"),
        (answer(425), Status.AMBIGUOUS, None, 425, "charged feeds"),
        (answer(499), Status.AMBIGUOUS, None, 499, "charged feeds"),
        (answer(500), Status.AMBIGUOUS, None, 500, "charged feeds"),
        (answer(503), Status.AMBIGUOUS, None, 503, "charged feeds"),
        (raised(httpx.ReadTimeout("")), Status.AMBIGUOUS, None, None, "charged feeds"),
        (raised(httpx.ReadError("")), Status.AMBIGUOUS, None, None, "charged feeds"),
        (raised(httpx.WriteError("")), Status.AMBIGUOUS, None, None, "charged feeds"),
        (raised(httpx.RemoteProtocolError("")), Status.AMBIGUOUS, None, None, "charged feeds"),
        (answer(400), Status.ENDED, Outcome.REJECTED, 400, "charged feeds backoff quarantine"),
        (answer(422), Status.ENDED, Outcome.REJECTED, 422, "charged feeds backoff quarantine"),
        (answer(404), Status.ENDED, Outcome.REJECTED, 404, "charged feeds backoff"),
        (answer(409), Status.ENDED, Outcome.REJECTED, 409, "charged feeds backoff"),
        (answer(401), Status.ENDED, Outcome.REJECTED, 401, "feeds latch"),
        (answer(403), Status.ENDED, Outcome.REJECTED, 403, "charged feeds backoff forbidden"),
        (answer(429), Status.ENDED, Outcome.REJECTED, 429, "60"),
        (answer(429, **{"Retry-After": "7"}), Status.ENDED, Outcome.REJECTED, 429, "7"),
        (answer(301, Location="http://x/"), Status.ENDED, Outcome.REJECTED, 301, "feeds latch"),
        (answer(307, Location="http://x/"), Status.ENDED, Outcome.REJECTED, 307, "feeds latch"),
        (answer(304), Status.ENDED, Outcome.REJECTED, 304, "feeds latch"),
    ],
)
async def test_each_answer_is_treated_as_the_table_says_and_sent_once(
    store: Store, reply: Reply, *, status: Status, outcome: Outcome | None, http_status: int | None, flags: str
) -> None:
    way = Way(store, reply)

    found = (await way.go()).result

    assert found is not None
    assert (found.status, found.outcome, flags_of(found), way.made) == (status, outcome, set(flags.split()), 1)
    row = way.row
    assert (row.status, row.outcome, row.http_status) == (status, outcome, http_status)
    assert (row.charged, row.feeds, row.reason) == (found.charged, found.feeds, found.reason)
    assert row.sent_at == pytest.approx(way.clock.time(), abs=1.0)
    assert row.credential == MARK


@pytest.mark.parametrize("error", [httpx.ConnectError(""), httpx.ConnectTimeout(""), httpx.ProxyError("")])
async def test_without_a_connection_nothing_is_claimed_and_the_row_says_why(
    store: Store, error: httpx.TransportError
) -> None:
    way = Way(store, good(), unreachable=error)

    found = (await way.go()).result

    assert found is not None
    assert (found.status, found.outcome, flags_of(found)) == (Status.ENDED, Outcome.NOT_SENT, {"feeds", "backoff"})
    row = way.row
    assert (row.status, row.outcome, row.sent_at, row.charged, row.feeds) == (
        Status.ENDED,
        Outcome.NOT_SENT,
        None,
        False,
        True,
    )
    assert row.reason.startswith("no connection to simulator")


async def test_the_steps_of_an_answer_are_kept_without_raw(store: Store) -> None:
    way = Way(store, good())
    await way.go()

    assert way.row.steps == ({"step": "resolve_did", "status": "done", "data": {}},)


@pytest.mark.parametrize(
    ("ready", "reason"),
    [
        (True, "answered with ready: true; the polls decide"),
        (False, "answered with ready: false; the polls decide"),
        (None, "answered with ready: none; the polls decide"),
    ],
)
async def test_what_an_answer_says_of_the_number_is_kept_with_what_it_says_was_done(
    store: Store, *, ready: bool | None, reason: str
) -> None:
    data = {"ready": ready, "readiness_before": {"state": "NO_BOT"}, "readiness": {"state": "READY"}}
    way = Way(store, lambda: httpx.Response(200, json={"success": True, "data": data}))
    await way.go()

    row = way.row
    assert (row.reason, row.readiness_before, row.readiness) == (reason, {"state": "NO_BOT"}, {"state": "READY"})


# Between the decision, the claim and the request

CLAIM, BEGIN = 1, 2  # the guards are asked when it is claimed, and when it is about to leave


async def test_what_is_refused_when_it_is_claimed_leaves_no_row_and_says_why(store: Store) -> None:
    way = Way(store, good(), meanwhile=lambda asked: "not now" if asked == CLAIM else "")

    assert await way.go() == Sent(reasons=("not now",))
    assert (way.made, store.ledger.history()) == (0, [])


async def test_what_is_refused_after_its_claim_is_not_sent_and_its_row_says_why(store: Store) -> None:
    way = Way(store, good(), meanwhile=lambda asked: "not any more" if asked == BEGIN else "")

    found = (await way.go()).result

    assert found is not None
    assert (found.outcome, flags_of(found), way.made) == (Outcome.NOT_SENT, set(), 0)
    assert (way.row.outcome, way.row.reason, way.row.sent_at) == (Outcome.NOT_SENT, "not any more", None)


@pytest.mark.parametrize("when", [CLAIM, BEGIN])
@pytest.mark.parametrize(
    ("passes", "is_set", "sends", "why"),
    [
        (SEND_WITHIN - 0.1, 0.0, True, ""),
        (SEND_WITHIN, 0.0, False, "5.0 s passed by the monotonic clock"),
        (99.0, 0.0, False, "99.0 s passed by the monotonic clock"),
        (0.0, SEND_WITHIN - 0.1, True, ""),
        (0.0, SEND_WITHIN, False, "5.0 s passed by the wall clock"),  # a suspended machine's other clock stood still
        (0.0, -0.9, True, ""),
        (0.0, -1.1, False, "the wall clock was set back by 1.1 s"),
        (4.0, -5.1, False, "the wall clock was set back by 5.1 s"),  # it would have passed by neither
    ],
)
async def test_a_request_leaves_within_five_seconds_of_its_claim_by_every_clock_or_never(
    store: Store, when: int, *, passes: float, is_set: float, sends: bool, why: str
) -> None:
    clock = ManualClock(NOW)

    def meanwhile(asked: int) -> str:
        if asked == when:
            clock._elapsed += passes  # noqa: SLF001 - from the store's thread, where nothing can be awaited
            clock.set_by(is_set)
        return ""

    way = Way(store, good(), meanwhile=meanwhile, clock=clock)
    found = (await way.go()).result

    assert found is not None
    assert way.made == sends
    if not sends:
        assert (found.outcome, flags_of(found)) == (Outcome.NOT_SENT, set())
        assert way.row.outcome is Outcome.NOT_SENT
        assert way.row.reason == f"more than 5 s after the claim ({why}), so the request was not sent"


@pytest.mark.parametrize("error", [QuotaError("no room"), LeaseExpiredError("too late")])
def test_our_own_budget_and_our_own_clock_are_nobodys_fault(error: QuotaError | LeaseExpiredError) -> None:
    found = failed(error, fingerprint="")

    assert (found.outcome, flags_of(found)) == (Outcome.NOT_SENT, set())


@pytest.mark.parametrize(
    "error", [AuthError("no", status=401), RedirectError("away", status=302), ForbiddenError("not you", status=403)]
)
def test_what_may_latch_the_account_says_with_which_credential_and_configuration(error: RejectedError) -> None:
    assert failed(error, fingerprint="print").fingerprint == "print"


def test_the_status_of_a_refusal_is_its_own_whatever_else_is_said_of_the_answer() -> None:
    found = failed(RejectedError("conflict", status=409), fingerprint="print", http_status=200)

    assert (found.http_status, found.outcome) == (409, Outcome.REJECTED)


# In the ledger


def wish(number: str = NUMBER, account: str = "main") -> Wish:
    return Wish(number, account, "default", ("NO_BOT",), {}, credential=MARK)


def claimed(ledger: Ledger, number: str = NUMBER, now: float = NOW) -> Attempt:
    found = ledger.claim(wish(number), lambda *_: (), now)
    assert isinstance(found, Attempt)
    assert ledger.begin_send(found, lambda *_: (), now) is None
    return found


def forbidden() -> Result:
    return Result(Status.ENDED, Outcome.REJECTED, "403", charged=True, feeds=True, forbidden=True, fingerprint="print")


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
    assert ledger.account(MARK, NOW).latched is None
    ledger.answered(two, forbidden(), quarantined, NOW + later)

    facts = ledger.account(MARK, NOW + later)
    assert (facts.latched is not None, "print" in facts.refused) == (latched, latched)


def test_the_last_place_in_a_budget_can_be_used(ledger: Ledger) -> None:
    sent = []

    def judge(facts: object, *_: object) -> list[str]:
        sent.append(len(facts.sent))  # type: ignore[attr-defined]
        return ["no place"] if sent[-1] >= 1 else []

    found = ledger.claim(wish(), judge, NOW)
    assert isinstance(found, Attempt)
    assert ledger.begin_send(found, judge, NOW) is None
    assert sent == [0, 0]


def test_a_claim_whose_replica_is_gone_is_released_and_what_may_have_been_sent_is_not(
    ledger: Ledger, memory_path: Path
) -> None:
    ledger.heartbeat(NOW)
    claimed(ledger)
    only = ledger.claim(wish("+918011223345"), lambda *_: (), NOW)
    assert isinstance(only, Attempt)
    other = Store(config_of("plain", f"sqlite:///{memory_path / 'ledger.db'}"), "other")

    assert other.ledger.heartbeat(NOW + 59.9).released == ()
    assert [each.id for each in other.ledger.heartbeat(NOW + 60).released] == [only.id]
    assert [each.status for each in ledger.history(NUMBER)] == [Status.AMBIGUOUS]
    assert isinstance(ledger.begin_send(only, lambda *_: (), NOW + 61), Refused)  # it comes back too late
    other.ledger.heartbeat(NOW + 10**8)
    assert [each.status for each in ledger.history(NUMBER)] == [Status.AMBIGUOUS]
    other.close()


def test_only_the_holder_of_a_claim_may_send_on_it(ledger: Ledger) -> None:
    found = ledger.claim(wish(), lambda *_: (), NOW)
    assert isinstance(found, Attempt)

    assert isinstance(ledger.begin_send(replace(found, token="another"), lambda *_: (), NOW), Refused)
    assert not ledger.answered(replace(found, token="another"), forbidden(), quarantined, NOW)
    assert ledger.begin_send(found, lambda *_: (), NOW) is None


def test_a_did_has_one_open_attempt_whatever_the_judges_say(ledger: Ledger) -> None:
    claimed(ledger)

    again = ledger.claim(wish(), lambda *_: (), NOW)
    assert isinstance(again, Refused)


def test_an_attempt_that_was_lost_by_its_own_replica_is_taken_over(ledger: Ledger) -> None:
    one = claimed(ledger)

    ledger.heartbeat(NOW + 60, {one.id})
    assert ledger.history(NUMBER)[0].status is Status.SENT
    ledger.heartbeat(NOW + 60)
    assert ledger.history(NUMBER)[0].status is Status.AMBIGUOUS


def test_a_late_answer_still_counts(ledger: Ledger) -> None:
    one = claimed(ledger)
    ledger.heartbeat(NOW + 60)

    assert ledger.answered(one, forbidden(), quarantined, NOW + 90)
    assert ledger.history(NUMBER)[0].status is Status.ENDED
    assert not ledger.answered(one, forbidden(), quarantined, NOW + 91)


def test_budgets_count_what_was_sent_in_the_last_hour_whatever_became_of_it(ledger: Ledger) -> None:
    ledger.answered(claimed(ledger), forbidden(), quarantined, NOW + 1)
    ledger.claim(wish("+918011223345"), lambda *_: (), NOW)

    assert len(ledger.account(MARK, NOW + 3604).sent) == 2  # five seconds more, for what left late
    assert ledger.account(MARK, NOW + 3605).sent == ()


def test_a_request_under_way_is_not_ended_by_a_release_nor_its_did_moved(ledger: Ledger) -> None:
    claimed(ledger)

    assert ledger.release(NUMBER, "looked at", NOW) == []
    assert not ledger.move(DidRecord(NUMBER, "main"), quarantined, NOW)
    assert ledger.history(NUMBER)[0].status is Status.SENT


def test_a_change_made_on_an_older_view_is_refused(ledger: Ledger) -> None:
    assert ledger.move(DidRecord(NUMBER, "main"), quarantined, NOW)
    assert not ledger.move(DidRecord(NUMBER, "main"), quarantined, NOW)
