"""Attempts whose replica is gone: what was not sent is released, what may have been sent is never freed by time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.model import Outcome
from exporter.store.ledger import GONE_AFTER
from exporter.store.records import Status
from tests.support.ledgers import (
    ANSWERED,
    HOUR,
    KEY_MARK,
    NOT_SENT,
    NOW,
    NUMBER,
    allow,
    claimed,
    counts,
    keep,
    row,
    sent,
    verifying,
)

if TYPE_CHECKING:
    from exporter.store import Store
    from tests.store.conftest import Open

OTHER = "+918011223345"
LATER = NOW + GONE_AFTER


def test_a_claim_is_released_once_its_replica_is_gone_for_a_minute(store: Store, another: Open) -> None:
    two = another("two")
    assert store.ledger.heartbeat(NOW).released == ()
    attempt = claimed(store)
    assert two.ledger.heartbeat(LATER - 1).released == ()
    assert two.ledger.heartbeat(LATER).released == (attempt,)
    released = row(store, attempt)
    assert (released.status, released.outcome, released.ended_at) == (Status.ENDED, Outcome.NOT_SENT, LATER)
    assert released.reason == "its replica was gone for 60 s before it sent"
    assert (released.charged, released.feeds, released.sent_at) == (False, False, None)
    assert two.ledger.heartbeat(LATER).released == ()
    claimed(two)  # the DID is free


def test_who_wakes_up_after_a_minute_does_not_send_any_more(store: Store, another: Open) -> None:
    attempt = claimed(store)
    another("two").ledger.heartbeat(LATER)
    assert store.ledger.begin_send(attempt, allow, LATER) is not None
    mine = claimed(another("three"), now=LATER)
    assert store.ledger.begin_send(attempt, allow, LATER) is not None
    assert row(store, mine).status is Status.CLAIMED


def test_what_may_have_been_sent_becomes_ambiguous_and_stays_so(store: Store, another: Open) -> None:
    two = another("two")
    store.ledger.heartbeat(NOW)
    attempt = sent(store)
    assert two.ledger.heartbeat(LATER - 1).released == ()
    assert row(store, attempt).status is Status.SENT
    assert two.ledger.heartbeat(LATER).released == ()
    found = row(store, attempt)
    assert (found.status, found.answered_at, found.outcome, found.ended_at) == (Status.AMBIGUOUS, LATER, None, None)
    assert found.reason == "its replica was gone for 60 s while it waited for the answer"
    assert (found.charged, found.feeds) == (True, True)
    for weeks in range(1, 60):
        two.ledger.heartbeat(NOW + weeks * 7 * 24 * HOUR)
        two.ledger.prune(NOW + weeks * 7 * 24 * HOUR)
    assert row(store, attempt) == found
    assert counts(store).open == found


def test_the_answer_of_who_was_thought_gone_is_recorded(store: Store, another: Open) -> None:
    attempt = sent(store)
    another("two").ledger.heartbeat(LATER)
    assert store.ledger.answered(attempt, ANSWERED, keep, LATER + 5)
    assert (row(store, attempt).status, row(store, attempt).answered_at) == (Status.VERIFYING, LATER + 5)


def test_what_waits_for_the_polls_is_nobodys_orphan(store: Store, another: Open) -> None:
    attempt = verifying(store)
    another("two").ledger.heartbeat(NOW + 24 * HOUR)
    assert row(store, attempt).status is Status.VERIFYING


def test_a_replica_that_lives_keeps_what_it_works_on(store: Store, another: Open) -> None:
    two = another("two")
    claim, request = claimed(store), sent(store, OTHER)
    for seconds in range(0, 600, 10):
        assert store.ledger.heartbeat(NOW + seconds, (claim.id, request.id)).released == ()
        assert two.ledger.heartbeat(NOW + seconds).released == ()
    assert (row(store, claim).status, row(store, request).status) == (Status.CLAIMED, Status.SENT)


def test_a_replica_gives_up_what_it_lost_on_the_way_itself(store: Store) -> None:
    claim, request, busy = claimed(store), sent(store, OTHER), claimed(store, "+918011223346")
    assert store.ledger.heartbeat(LATER - 1, (busy.id,)).released == ()
    assert [each.id for each in store.ledger.heartbeat(LATER, (busy.id,)).released] == [claim.id]
    assert row(store, request).status is Status.AMBIGUOUS
    assert row(store, busy).status is Status.CLAIMED


def test_a_replica_that_never_gave_a_sign_of_life_is_gone_as_well(store: Store, another: Open) -> None:
    attempt = claimed(store)
    assert [each.id for each in another("two").ledger.heartbeat(LATER).released] == [attempt.id]


def test_orphans_are_taken_over_once(store: Store, another: Open) -> None:
    numbers = [f"+9180112233{index:02}" for index in range(10)]
    for number in numbers:
        claimed(store, number)
    two, three = another("two"), another("three")
    assert sorted(each.number for each in two.ledger.heartbeat(LATER).released) == numbers
    assert three.ledger.heartbeat(LATER).released == ()


def test_what_was_released_counts_against_no_budget(store: Store, another: Open) -> None:
    claimed(store)
    two = another("two")
    two.ledger.heartbeat(LATER)
    facts = two.ledger.account(KEY_MARK, LATER)
    assert (facts.open, facts.sent, facts.recent) == ((), (), ())
    assert NUMBER not in two.ledger.records(LATER)[1]


def test_what_its_own_replica_ended_is_not_released_again(store: Store, another: Open) -> None:
    attempt = claimed(store)
    assert store.ledger.answered(attempt, NOT_SENT, keep, NOW)
    assert another("two").ledger.heartbeat(LATER).released == ()
    assert row(store, attempt).ended_at == NOW
