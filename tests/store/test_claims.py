"""Who may send: one claim a DID whatever happens at once, and no budget overdrawn by a crowd."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, insert, select
from sqlalchemy.exc import IntegrityError

from exporter.config import Config
from exporter.heal.guards import blocking_reasons
from exporter.model import HealState, Outcome
from exporter.store.records import OPEN, Attempt, Refused, Result, Status
from exporter.store.tables import heal_attempts
from tests.support.ledgers import (
    ACCOUNT,
    KEY_MARK,
    NOT_SENT,
    NOW,
    NUMBER,
    allow,
    claimed,
    did,
    keep,
    row,
    sent,
    verifying,
    wish,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.store import Store
    from exporter.store.ledger import Judge
    from exporter.store.records import AccountRecord, Counts, DidRecord
    from tests.store.conftest import Open

OTHER = "+918011223345"
CROWD = 8
ROUNDS = 25


def test_of_many_that_claim_a_did_at_once_one_gets_it(another: Open) -> None:
    replicas = [another(f"replica-{index}") for index in range(CROWD)]
    barrier = Barrier(CROWD, timeout=30)

    def claim(replica: Store) -> list[Attempt]:
        mine = []
        for turn in range(ROUNDS):
            barrier.wait()
            answer = replica.ledger.claim(wish(), allow, NOW + turn)
            barrier.wait()
            if isinstance(answer, Attempt):
                mine.append(answer)
                assert replica.ledger.answered(answer, NOT_SENT, keep, NOW + turn)  # it makes room for the next round
            else:
                assert answer == Refused(("an attempt on it is open already",))
        return mine

    with ThreadPoolExecutor(CROWD) as threads:
        won = [attempt for each in threads.map(claim, replicas) for attempt in each]
    assert sorted(attempt.claimed_at for attempt in won) == [NOW + turn for turn in range(ROUNDS)]
    assert len(replicas[0].ledger.history()) == ROUNDS


@pytest.mark.parametrize("status", OPEN)
def test_a_second_open_row_cannot_even_be_written(store: Store, url: str, status: Status) -> None:
    attempt = claimed(store)
    values = {name: getattr(attempt, name) for name in heal_attempts.columns.keys()}  # noqa: SIM118 - no dictionary
    values |= {"id": None, "account": "another", "token": "another", "status": status}
    values |= {"issues": [], "heal_issues": [], "steps": []}
    del values["id"]
    engine = create_engine(url)
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(insert(heal_attempts), values)
    with engine.begin() as connection:  # what has ended is no reason against it
        connection.execute(insert(heal_attempts), values | {"status": Status.ENDED})
    engine.dispose()


def test_another_account_does_not_get_a_did_either(store: Store) -> None:
    claimed(store)
    assert store.ledger.claim(wish(account="another"), allow, NOW) == Refused(("an attempt on it is open already",))
    assert isinstance(store.ledger.claim(wish("+918011223345", "another"), allow, NOW), Attempt)


@pytest.mark.parametrize(
    ("most", "judge"),
    [
        (5, lambda facts, *_: ["enough in an hour"] if len(facts.sent) >= 5 else []),
        (3, lambda facts, *_: ["enough at once"] if len(facts.open) >= 3 else []),
    ],
    ids=["an hour", "in flight"],
)
@pytest.mark.parametrize("names", [[ACCOUNT], [f"account {index}" for index in range(CROWD)]], ids=["one", "many"])
def test_a_crowd_does_not_overdraw_the_budget_of_a_key(
    another: Open, most: int, judge: Judge, names: list[str]
) -> None:
    """Whether its replicas call the account alike or not."""
    replicas = [another(f"replica-{index}") for index in range(CROWD)]
    barrier = Barrier(CROWD, timeout=30)

    def claim(index: int) -> list[Attempt]:
        barrier.wait()
        numbers = [f"+9180{index}000000{each}" for each in range(4)]
        wishes = [wish(number, names[index % len(names)], credential=KEY_MARK) for number in numbers]
        answers = [replicas[index].ledger.claim(each, judge, NOW) for each in wishes]
        mine = [answer for answer in answers if isinstance(answer, Attempt)]
        assert all(replicas[index].ledger.begin_send(attempt, judge, NOW) is None for attempt in mine)
        return mine

    with ThreadPoolExecutor(CROWD) as threads:
        won = [attempt for each in threads.map(claim, range(CROWD)) for attempt in each]
    assert len(won) == most
    facts = replicas[0].ledger.account(KEY_MARK, NOW)
    assert len(facts.open) == len(facts.sent) == most


def test_every_place_of_a_budget_can_be_used(store: Store) -> None:
    config = Config.model_validate({"heal": {"max_per_hour": 4, "requests_per_minute": 2, "max_in_flight": 1}}).heal

    def judge_at(now: float) -> Judge:
        def judge(facts: AccountRecord, record: DidRecord, counts: Counts) -> Iterable[str]:
            return blocking_reasons(
                facts, record, counts, health=None, config=config, now=now, ramp_start=0.0, fingerprint=""
            )

        return judge

    moments = []
    for second in (0, 5, 10, 59, 60, 64, 65, 69, 70, 120, 3599, 3604, 3605, 3609, 3610, 3660, 3669, 3670, 3674, 3675):
        now = NOW + second
        attempt = store.ledger.claim(wish(f"+91801{second:07}"), judge_at(now), now)
        if isinstance(attempt, Attempt):
            assert store.ledger.begin_send(attempt, judge_at(now), now) is None
            refused = store.ledger.claim(wish(), judge_at(now), now)
            assert isinstance(refused, Refused)
            assert any(reason.startswith("max_in_flight: ") for reason in refused.reasons)
            assert store.ledger.answered(attempt, replace(NOT_SENT, outcome=Outcome.REJECTED), keep, now)
            moments.append(second)
    assert moments == [0, 5, 65, 70, 3605, 3610, 3670, 3675]  # windows are 5 s longer, for what leaves late


def test_only_the_holder_of_the_claim_can_send(store: Store, another: Open) -> None:
    attempt = claimed(store)
    stolen = replace(attempt, token="00000000-0000-0000-0000-000000000000")
    assert another("two").ledger.begin_send(stolen, allow, NOW) == Refused(("its claim is not open any more",))
    assert row(store, attempt).status is Status.CLAIMED
    assert store.ledger.begin_send(attempt, allow, NOW + 1) is None
    assert (row(store, attempt).status, row(store, attempt).sent_at) == (Status.SENT, NOW + 1)


def test_a_claim_is_turned_into_sent_once(another: Open) -> None:
    replicas = [another(f"replica-{index}") for index in range(CROWD)]
    barrier = Barrier(CROWD, timeout=30)
    attempt = claimed(replicas[0])

    def send(replica: Store) -> bool:
        barrier.wait()
        return replica.ledger.begin_send(attempt, allow, NOW) is None

    with ThreadPoolExecutor(CROWD) as threads:
        assert sorted(threads.map(send, replicas)) == [False] * (CROWD - 1) + [True]


def test_nothing_but_a_claim_is_turned_into_sent(store: Store) -> None:
    for number, make in (("+918011223341", sent), ("+918011223342", verifying)):
        attempt = make(store, number)
        assert store.ledger.begin_send(attempt, allow, NOW + 1) is not None
        assert row(store, attempt).sent_at == NOW
    attempt = claimed(store)
    assert store.ledger.answered(attempt, NOT_SENT, keep, NOW)
    assert store.ledger.begin_send(attempt, allow, NOW + 1) is not None
    assert row(store, attempt).sent_at is None


def test_what_came_up_since_the_claim_holds_the_request_back(store: Store, another: Open) -> None:
    def judge(facts: AccountRecord, *_: object) -> Iterable[str]:
        return [facts.paused] if facts.paused else []

    attempt = store.ledger.claim(wish(), judge, NOW)
    assert isinstance(attempt, Attempt)
    another("two").ledger.pause("the weather", NOW)
    assert store.ledger.begin_send(attempt, judge, NOW) == Refused(("the weather",))
    assert row(store, attempt).status is Status.CLAIMED
    assert store.ledger.claim(wish("+918011223345"), judge, NOW) == Refused(("the weather",))


def test_a_request_is_not_judged_by_its_own_claim(store: Store) -> None:
    asked: list[Any] = []
    other = claimed(store, "+918011223345")
    attempt = claimed(store)

    def judge(*seen: Any) -> Iterable[str]:  # noqa: ANN401 - three of its own types
        asked.append(seen)
        return ()

    assert store.ledger.begin_send(attempt, judge, NOW) is None
    ((facts, record, counts),) = asked
    assert [each.id for each in facts.open] == [other.id]
    assert facts.sent == (NOW,)
    assert (record.number, counts.open) == (NUMBER, None)


def test_what_observe_mode_would_send_is_recorded_and_open_to_nobody(store: Store) -> None:
    attempt = store.ledger.would_send(wish(), allow, NOW)
    assert isinstance(attempt, Attempt)
    assert (attempt.status, attempt.outcome, attempt.ended_at) == (Status.ENDED, Outcome.WOULD_SEND, NOW)
    assert store.ledger.begin_send(attempt, allow, NOW) is not None
    facts = store.ledger.account(KEY_MARK, NOW)
    assert (facts.open, facts.sent, facts.recent, facts.would) == ((), (), (), (NOW,))
    assert store.ledger.would_send(wish(), lambda *_: ["no"], NOW) == Refused(("no",))
    assert len(store.ledger.history()) == 1


def test_a_refused_claim_writes_no_attempt(store: Store, url: str) -> None:
    assert store.ledger.claim(wish(), lambda *_: ("one", "two"), NOW) == Refused(("one", "two"))
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(select(heal_attempts)).all() == []
    engine.dispose()


def test_a_request_that_could_not_be_made_is_a_row_that_is_over(store: Store, another: Open) -> None:
    result = replace(NOT_SENT, reason="no connection", feeds=True)

    def left_alone(record: DidRecord, _: Counts) -> DidRecord:
        return replace(record, state=HealState.BACKOFF, until=NOW + 60)

    attempt = store.ledger.not_sent(wish(), result, allow, left_alone, NOW)
    assert isinstance(attempt, Attempt)
    assert attempt == row(another("two"), attempt)
    assert (attempt.status, attempt.outcome, attempt.ended_at) == (Status.ENDED, Outcome.NOT_SENT, NOW)
    assert (attempt.reason, attempt.charged, attempt.feeds, attempt.sent_at) == ("no connection", False, True, None)
    assert (did(store).state, did(store).until) == (HealState.BACKOFF, NOW + 60)
    facts = store.ledger.account(KEY_MARK, NOW)
    assert (facts.open, facts.sent, [each.id for each in facts.recent]) == ((), (), [attempt.id])
    assert store.ledger.begin_send(attempt, allow, NOW) is not None


def test_a_request_that_could_not_be_made_is_not_recorded_where_another_is_open_or_something_speaks_against_it(
    store: Store,
) -> None:
    assert store.ledger.not_sent(wish(), NOT_SENT, lambda *_: ["no"], keep, NOW) == Refused(("no",))
    assert store.ledger.history() == []
    claimed(store)

    def judge(_: AccountRecord, __: DidRecord, seen: Counts) -> Iterable[str]:
        return [f"attempt {seen.open.id} is open"] if seen.open else []

    assert store.ledger.not_sent(wish(), NOT_SENT, judge, keep, NOW) == Refused(("attempt 1 is open",))
    assert NUMBER not in store.ledger.records(NOW)[0]


# One DID under two numbers


def test_a_did_whose_number_is_spelled_in_another_way_is_the_same_did(store: Store, another: Open) -> None:
    held = store.ledger.claim(wish(did_id=812), allow, NOW)
    assert isinstance(held, Attempt)
    assert another("two").ledger.claim(wish(OTHER, did_id=812), allow, NOW) == Refused(
        ("an attempt on it is open already",)
    )
    assert another("two").ledger.claim(wish(OTHER, did_id=812), guarded, NOW) == Refused(
        (f"attempt {held.id} on it is open",)
    )
    assert isinstance(another("two").ledger.claim(wish(OTHER, did_id=813), guarded, NOW), Attempt)


def test_without_an_id_the_number_alone_is_the_lock(store: Store) -> None:
    for number in (NUMBER, OTHER):
        assert isinstance(store.ledger.claim(wish(number, did_id=None), allow, NOW), Attempt)


def guarded(_: AccountRecord, record: DidRecord, known: Counts) -> list[str]:
    """Name what speaks against a claim, as the guards do."""
    states = [f"it is {record.state}: {record.reason}"] if record.state is not HealState.IDLE else []
    opened = [f"attempt {known.open.id} on it is open"] if known.open else []
    return [*opened, *states, *([f"{len(known.charged)} attempts"] if known.charged else [])]


@pytest.mark.parametrize("state", [HealState.QUARANTINED, HealState.BACKOFF])
def test_what_is_known_of_a_did_by_another_number_holds_for_this_one(store: Store, state: HealState) -> None:
    def after(record: DidRecord, _: Counts) -> DidRecord:
        return replace(record, state=state, since=NOW, until=NOW + 600, reason="it did not help")

    first = store.ledger.claim(wish(did_id=812), allow, NOW)
    assert isinstance(first, Attempt)
    assert store.ledger.begin_send(first, allow, NOW) is None
    failed = Result(Status.ENDED, Outcome.REJECTED, "refused", charged=True, feeds=True)
    assert store.ledger.answered(first, failed, after, NOW)
    refused = store.ledger.claim(wish(OTHER, did_id=812), guarded, NOW)
    assert refused == Refused(
        (f"it is {state}: it did not help (under another number with the same did_id)", "1 attempts")
    )
