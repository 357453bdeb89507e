"""What becomes of an attempt after its claim, and what people and the API's refusals leave behind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.model import HealState, Outcome
from exporter.store.records import LATE, Attempt, DidRecord, Result, Status, Wanted
from exporter.store.rows import lock
from tests.support.clock import ManualClock
from tests.support.ledgers import (
    ACCOUNT,
    ANSWERED,
    CONNECTION,
    HOUR,
    KEY_MARK,
    NOT_SENT,
    NOW,
    NUMBER,
    allow,
    claimed,
    counts,
    did,
    ended,
    keep,
    mark,
    open_store,
    quarantined,
    row,
    sent,
    verifying,
    wish,
)

if TYPE_CHECKING:
    from exporter.store import Store
    from exporter.store.records import Counts
    from tests.store.conftest import Open

DAY = 24 * HOUR
AMBIGUOUS = Result(Status.AMBIGUOUS, None, "no answer in time", charged=True, feeds=True)
OTHER = "+918011223345"
LATCHING = "+918011223399"
ANYTHING: Any = {
    "text": 'बॉट नहीं है 🤖 »quoted« \\ "twice" \t\n',
    "none": None,
    "true": True,
    "numbers": [0, -1, 2**53 + 1, 1.5, 1e300],
    "nested": {"": [[], {}, [{"deep": [None]}]]},
    "half a pair": "\ud83d",
    "nothing": "\x00",
}


def refused(reason: str, fingerprint: str, **more: Any) -> Result:  # noqa: ANN401 - any field
    """Return what becomes of a request that the API refuses in a way that latches the account."""
    known = {"charged": False, "feeds": True, "latch": reason, "fingerprint": fingerprint, **more}
    return Result(Status.ENDED, Outcome.REJECTED, reason, **known)


def latch(store: Store, fingerprint: str = "print", account: str = ACCOUNT, now: float = NOW) -> None:
    """Have the API refuse a request that an account made with a credential and configuration."""
    assert store.ledger.answered(sent(store, LATCHING, account, now), refused("401", fingerprint), keep, now)


def backoff(record: DidRecord, seen: Counts) -> DidRecord:
    return replace(record, state=HealState.BACKOFF, since=NOW, until=NOW + HOUR, failures=len(seen.charged))


# What comes back is what went in


def test_an_attempt_comes_back_as_it_was_written(store: Store, another: Open) -> None:
    body = {"did_number": "918011223344", "bot_name": "बिक्री ☎", "client_id": 415}
    healed = ("ROUTING_MISSING", "NO_BOT", "ऐसे ही")
    wanted = wish(
        issues=("NO_BOT", "ROUTING_MISSING"), body=body, manual=True, broken_since=NOW - 9, heal_issues=healed
    )
    attempt = store.ledger.claim(wanted, allow, NOW)
    assert isinstance(attempt, Attempt)
    assert attempt == store.ledger.history()[0] == another("two").ledger.history(NUMBER)[0]
    assert (attempt.body, attempt.issues) == (body, ("NO_BOT", "ROUTING_MISSING"))
    assert (attempt.replica, attempt.manual, attempt.broken_since) == ("one", True, NOW - 9)
    assert (attempt.credential, attempt.heal_issues, attempt.observed_at) == (KEY_MARK, healed, NOW)


def test_an_answer_comes_back_as_it_was_written(store: Store) -> None:
    attempt = sent(store)
    steps = ({"step": "create_bot", "status": "done"}, ANYTHING)
    result = replace(ANSWERED, http_status=200, steps=steps, readiness_before=ANYTHING, readiness={"state": "READY"})
    assert store.ledger.answered(attempt, result, keep, NOW + 0.125)
    found = row(store, attempt)
    assert (found.steps, found.readiness_before, found.readiness) == (steps, ANYTHING, {"state": "READY"})
    assert (found.http_status, found.answered_at, found.reason) == (200, NOW + 0.125, ANSWERED.reason)
    assert (found.charged, found.feeds, found.outcome, found.ended_at) == (True, True, None, None)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_know_does_not_keep_an_answer_from_being_recorded(
    store: Store, number: float
) -> None:
    attempt = sent(store)
    result = replace(ANSWERED, steps=({"seconds": number},), readiness={"deep": [{"seconds": number}]})
    assert store.ledger.answered(attempt, result, keep, NOW)
    found = row(store, attempt)
    assert found.steps == ({"seconds": None},)
    assert found.readiness == {"deep": [{"seconds": None}]}


def test_names_of_any_allowed_length_are_kept_whole(store: Store, another: Open) -> None:
    account, number, replica, state, key = "ä" * 200, f"did:{10**18}", "r" * 200, "A" * 64, "k" * 80
    other = another(replica)
    other.ledger.heartbeat(NOW)
    attempt = other.ledger.claim(wish(number, account, credential=key), allow, NOW)
    assert isinstance(attempt, Attempt)
    assert other.ledger.begin_send(attempt, allow, NOW) is None
    assert other.ledger.answered(attempt, replace(ANSWERED, reason="ö" * 5000), keep, NOW)
    assert other.ledger.resolve(attempt, Outcome.FAILED, "ß" * 5000, quarantined("é" * 5000), NOW)
    found = row(store, attempt)
    again = other.ledger.claim(wish(number, account, credential=key), allow, NOW + 1)
    assert isinstance(again, Attempt)
    assert other.ledger.answered(again, refused("ü" * 5000, "f" * 64), quarantined("é" * 5000), NOW + 1)
    assert (found.account, found.number, found.replica, found.reason) == (account, number, replica, "ß" * 5000)
    assert did(store, number).reason == "é" * 5000
    facts = store.ledger.account(key, NOW)
    assert (facts.latched, facts.refused) == ("ü" * 5000, frozenset({"f" * 64}))
    assert len(state) == 64  # states and codes are cut off there long before


def test_the_newest_attempts_come_first_and_no_more_than_asked_for(store: Store) -> None:
    for turn in range(5):
        ended(store, Outcome.FAILED, NUMBER if turn % 2 else OTHER, now=NOW + turn)
    assert [attempt.claimed_at - NOW for attempt in store.ledger.history()] == [4, 3, 2, 1, 0]
    assert [attempt.claimed_at - NOW for attempt in store.ledger.history(OTHER, limit=2)] == [4, 2]
    assert store.ledger.history("+918011223300") == []


# Answers and what the polls say


def test_an_answer_that_settles_it_ends_the_attempt_and_notes_what_follows(store: Store) -> None:
    attempt = sent(store)
    rejected = Result(
        Status.ENDED, Outcome.REJECTED, "the API refuses (409)", charged=True, feeds=True, http_status=409
    )
    assert store.ledger.answered(attempt, rejected, backoff, NOW + 1)
    found = row(store, attempt)
    assert (found.status, found.outcome, found.ended_at) == (Status.ENDED, Outcome.REJECTED, NOW + 1)
    record = did(store)
    assert (record.state, record.failures, record.version) == (HealState.BACKOFF, 1, 1)
    assert (record.account, record.connection) == (ACCOUNT, CONNECTION)


def test_an_answer_that_the_polls_have_to_judge_leaves_the_did_taken(store: Store) -> None:
    for number, result in ((NUMBER, ANSWERED), (OTHER, AMBIGUOUS)):
        attempt = sent(store, number)
        assert store.ledger.answered(attempt, result, backoff, NOW)
        assert counts(store, number).open == row(store, attempt)
        assert number not in store.ledger.records(NOW)[0]


def test_the_polls_decide_once(store: Store, another: Open) -> None:
    attempt = verifying(store)
    assert store.ledger.resolve(attempt, Outcome.SUCCEEDED, "mended", backoff, NOW + 1)
    assert not another("two").ledger.resolve(attempt, Outcome.FAILED, "not mended", quarantined(), NOW + 2)
    assert (row(store, attempt).outcome, did(store).state) == (Outcome.SUCCEEDED, HealState.BACKOFF)
    assert store.ledger.account(KEY_MARK, NOW + 2).verified_at == NOW + 1


def test_the_polls_of_any_replica_decide(store: Store, another: Open) -> None:
    attempt = sent(store)
    assert store.ledger.answered(attempt, AMBIGUOUS, keep, NOW)
    assert another("two").ledger.resolve(attempt, Outcome.SUCCEEDED, "mended", keep, NOW)


@pytest.mark.parametrize("make", [claimed, sent])
def test_the_polls_decide_nothing_while_the_request_may_be_under_way(store: Store, make: Any) -> None:  # noqa: ANN401
    attempt = make(store)
    assert not store.ledger.resolve(attempt, Outcome.FAILED, "not mended", quarantined(), NOW)
    assert row(store, attempt).open


def test_a_late_answer_is_recorded_while_the_attempt_is_open(store: Store) -> None:
    attempt = sent(store)
    assert store.ledger.answered(attempt, AMBIGUOUS, keep, NOW)
    assert store.ledger.answered(attempt, replace(ANSWERED, http_status=200), keep, NOW + 90)
    assert (row(store, attempt).status, row(store, attempt).http_status) == (Status.VERIFYING, 200)


def test_a_late_answer_changes_nothing_after_the_end(store: Store) -> None:
    attempt = sent(store)
    assert store.ledger.answered(attempt, AMBIGUOUS, keep, NOW)
    assert store.ledger.resolve(attempt, Outcome.AMBIGUOUS, "not mended", quarantined(), NOW + 1)
    latching = Result(Status.ENDED, Outcome.REJECTED, "401", charged=False, feeds=True, latch="401")
    before = (row(store, attempt), did(store))
    assert not store.ledger.answered(attempt, latching, backoff, NOW + 2)
    assert (row(store, attempt), did(store)) == before


def test_only_the_holder_of_the_claim_can_record_an_answer(store: Store) -> None:
    attempt = sent(store)
    assert not store.ledger.answered(replace(attempt, token="another"), NOT_SENT, keep, NOW)
    assert row(store, attempt).status is Status.SENT


# What is known of a DID


def test_a_move_on_an_older_view_is_refused(store: Store, another: Open) -> None:
    ended(store, Outcome.FAILED)
    before = did(store)
    assert another("two").ledger.move(before, backoff, NOW)
    assert not store.ledger.move(before, quarantined(), NOW)
    assert (did(store).state, did(store).version) == (HealState.BACKOFF, before.version + 1)


def test_a_did_with_an_open_attempt_is_not_moved(store: Store) -> None:
    ended(store, Outcome.FAILED)
    before = did(store)
    claimed(store)
    assert not store.ledger.move(before, quarantined(), NOW)


def test_attempts_count_within_their_window_and_until_they_are_forgotten(another: Open) -> None:
    store = another("one", attempts_window="24h")
    for hours in (0, 1):
        ended(store, Outcome.FAILED, now=NOW + hours * HOUR)
    at = NOW + 2 * HOUR
    assert counts(store, now=at).charged == (NOW, NOW + HOUR)
    assert counts(store, now=NOW + DAY + 1).charged == (NOW + HOUR,)
    assert store.ledger.move(did(store), lambda record, _: replace(record, forgotten_at=at), at)
    assert NUMBER not in store.ledger.records(at)[1] or counts(store, now=at).charged == ()
    ended(store, Outcome.FAILED, now=at)
    assert counts(store, now=at).charged == (at,)
    assert NUMBER not in store.ledger.records(at + DAY)[1]


@pytest.mark.parametrize("seconds", [-DAY, DAY])
def test_what_is_forgotten_is_what_there_was_whatever_a_clock_says(store: Store, seconds: float) -> None:
    ended(store, Outcome.FAILED)
    assert store.ledger.move(did(store), lambda record, _: replace(record, forgotten_at=NOW + seconds), NOW)
    ended(store, Outcome.FAILED, now=NOW + 1)
    assert counts(store, now=NOW + 1).charged == (NOW + 1,)


def test_what_was_not_charged_does_not_count(store: Store) -> None:
    attempt = claimed(store)
    assert store.ledger.answered(attempt, NOT_SENT, keep, NOW)
    assert NUMBER not in store.ledger.records(NOW)[1]
    assert store.ledger.account(KEY_MARK, NOW).sent == ()


def test_a_budget_counts_an_hour_of_what_was_or_may_be_sent(store: Store) -> None:
    sent(store, "+918011223341", now=NOW - HOUR - LATE)
    sent(store, "+918011223342", now=NOW - HOUR - LATE + 1)
    ended(store, Outcome.SUCCEEDED, "+918011223343", now=NOW - 2)
    claimed(store, "+918011223344", now=NOW - 1)
    claimed(store, "+918011223345", "another", now=NOW)
    facts = store.ledger.account(KEY_MARK, NOW)
    assert sorted(facts.sent) == [NOW - HOUR - LATE + 1, NOW - 2, NOW - 1]
    assert len(facts.open) == 3


def test_the_breaker_sees_the_last_ended_attempts_that_count_newest_first(store: Store) -> None:
    for turn, outcome in enumerate([Outcome.FAILED, Outcome.SUCCEEDED, Outcome.AMBIGUOUS]):
        ended(store, outcome, now=NOW + turn)
    unfed = claimed(store, OTHER)
    assert store.ledger.answered(unfed, NOT_SENT, keep, NOW + 9)
    recent = store.ledger.account(KEY_MARK, NOW + 9).recent
    assert [each.outcome for each in recent] == [Outcome.AMBIGUOUS, Outcome.SUCCEEDED, Outcome.FAILED]


def test_what_was_there_before_a_start_is_as_old_as_it_says(store: Store, url: str) -> None:
    attempt = verifying(store)
    assert store.ledger.resolve(attempt, Outcome.SUCCEEDED, "mended", backoff, NOW)
    other = verifying(store, OTHER)
    clock = ManualClock(NOW + 100)
    again = open_store(url, "again", clock)
    again.ledger.open_attempts()
    again.ledger.account(KEY_MARK, clock.time())
    facts, records, counted = (look := again.ledger.look(KEY_MARK, clock.time())).account, look.records, look.counts
    assert (records[NUMBER].since, records[NUMBER].until) == (NOW, NOW + HOUR)
    assert (facts.verified_at, facts.sent, counted[NUMBER].charged) == (NOW, (NOW, NOW), (NOW,))
    assert [(each.id, each.answered_at) for each in facts.open] == [(other.id, NOW)]
    again.close()


# People


def test_a_pause_holds_every_account_until_it_is_lifted(store: Store, another: Open) -> None:
    store.ledger.pause("the carrier's maintenance", NOW)
    for account in (ACCOUNT, "another"):
        assert another("two").ledger.account(account, NOW).paused == "the carrier's maintenance"
    store.ledger.pause("and longer", NOW)
    assert store.ledger.account(KEY_MARK, NOW).paused == "and longer"
    store.ledger.resume(NOW)
    assert (store.ledger.account(KEY_MARK, NOW).paused, store.ledger.account(KEY_MARK, NOW).resumed_at) == (None, NOW)


def test_resume_lifts_latches_forgets_who_was_refused_and_leaves_the_budgets(store: Store) -> None:
    latch(store)
    ended(store, Outcome.FAILED)
    store.ledger.resume(NOW)
    facts = store.ledger.account(KEY_MARK, NOW)
    assert (facts.latched, facts.refused, facts.sent) == (None, frozenset(), (NOW, NOW))


def test_a_latch_is_lifted_by_a_credential_or_configuration_that_was_never_refused_alone(
    store: Store, another: Open
) -> None:
    latch(store, "print")
    facts = another("two").ledger.account(KEY_MARK, NOW)
    assert (facts.latched, facts.refused, facts.latched_at) == ("401", frozenset({"print"}), NOW)
    assert store.ledger.account(mark("another"), NOW).latched is None
    assert not store.ledger.unlatch(KEY_MARK, "print")
    assert not store.ledger.unlatch(mark("another"), "new")
    assert store.ledger.unlatch(KEY_MARK, "new")
    assert not store.ledger.unlatch(KEY_MARK, "newer")
    facts = store.ledger.account(KEY_MARK, NOW)
    assert (facts.latched, facts.refused) == (None, frozenset({"print"}))


def test_all_who_were_refused_are_remembered_and_none_of_them_lifts_a_latch(store: Store, another: Open) -> None:
    two = another("two")
    latch(store, "one")
    assert two.ledger.unlatch(KEY_MARK, "two")
    latch(two, "two", now=NOW + 1)
    for fingerprint in ("one", "two"):
        assert not store.ledger.unlatch(KEY_MARK, fingerprint)
        assert not two.ledger.unlatch(KEY_MARK, fingerprint)
    facts = store.ledger.account(KEY_MARK, NOW + 1)
    assert (facts.latched, facts.refused) == ("401", frozenset({"one", "two"}))
    assert store.ledger.unlatch(KEY_MARK, "three")


def test_who_was_refused_twice_is_remembered_once(store: Store) -> None:
    latch(store)
    latch(store, now=NOW + 1)
    assert store.ledger.account(KEY_MARK, NOW + 1).refused == {"print"}


def test_an_answer_latches_notes_a_403_and_pauses_the_key(store: Store) -> None:
    no = Result(Status.ENDED, Outcome.REJECTED, "no", charged=True, feeds=True)
    for number, more in (
        ("+918011223341", {"latch": "401", "fingerprint": "print"}),
        ("+918011223342", {"forbidden": True}),
        ("+918011223343", {"key_pause": 60.0}),
        ("+918011223344", {"key_pause": 5.0}),
    ):
        assert store.ledger.answered(sent(store, number), replace(no, **more), keep, NOW)
    facts = store.ledger.account(KEY_MARK, NOW)
    assert (facts.latched, facts.refused, facts.latched_at) == ("401", frozenset({"print"}), NOW)
    assert (facts.forbidden_at, facts.key_paused_until) == (NOW, NOW + 60)


def test_a_second_403_within_ten_minutes_latches_the_account(store: Store) -> None:
    forbidden = Result(Status.ENDED, Outcome.REJECTED, "403", charged=True, feeds=True, forbidden=True, fingerprint="p")
    latched = []
    for seconds in (0, 600, 1199):
        assert store.ledger.answered(sent(store), forbidden, keep, NOW + seconds)
        latched.append(store.ledger.account(KEY_MARK, NOW + seconds).latched)
    assert latched == [None, None, "403, twice within 10 minutes"]
    assert store.ledger.account(KEY_MARK, NOW).refused == {"p"}


def test_a_key_is_paused_for_every_replica_and_never_for_less(store: Store, another: Open) -> None:
    store.ledger.pause_key(KEY_MARK, 60, NOW)
    another("two").ledger.pause_key(KEY_MARK, 5, NOW + 1)
    assert store.ledger.account(KEY_MARK, NOW).key_paused_until == NOW + 60
    another("two").ledger.pause_key(KEY_MARK, 60, NOW + 1)
    assert store.ledger.account(KEY_MARK, NOW).key_paused_until == NOW + 61
    assert store.ledger.account(mark("another"), NOW).key_paused_until == 0.0


def test_a_pause_that_a_clock_put_into_the_future_does_not_keep_one_from_being_noted(store: Store) -> None:
    store.ledger.pause_key(KEY_MARK, 60, NOW + 24 * HOUR)
    store.ledger.pause_key(KEY_MARK, 5, NOW)
    facts = store.ledger.account(KEY_MARK, NOW)
    assert (facts.key_paused_at, facts.key_paused_for) == (NOW, 5)


def test_that_a_poll_saw_an_attempt_is_noted_for_every_replica_and_never_back(store: Store, another: Open) -> None:
    attempt, other = verifying(store), verifying(store, OTHER)
    another("two").ledger.observed([attempt.id], NOW + 60, NOW + 60)
    another("three").ledger.observed([attempt.id], NOW + 30, NOW + 60)
    assert [each.observed_at for each in store.ledger.open_attempts()] == [NOW + 60, NOW]
    assert row(store, other).observed_at == NOW
    store.ledger.observed([], NOW + 90, NOW + 90)
    assert row(store, attempt).observed_at == NOW + 60


def test_that_a_poll_saw_an_attempt_is_noted_over_the_stamp_of_a_clock_that_was_ahead(store: Store) -> None:
    attempt = verifying(store)
    store.ledger.observed([attempt.id], NOW + HOUR, NOW + HOUR)
    store.ledger.observed([attempt.id], NOW + 60, NOW + 61)
    assert row(store, attempt).observed_at == NOW + 60


# Accounts and their key


def test_accounts_with_one_key_and_one_that_was_renamed_share_what_is_known_of_the_key(
    store: Store, another: Open
) -> None:
    two = another("two")
    for name, number in (("before", OTHER), ("after", NUMBER), ("beside", "+918011223346")):
        attempt = two.ledger.claim(wish(number, name, credential=KEY_MARK), allow, NOW)
        assert isinstance(attempt, Attempt)
        assert two.ledger.begin_send(attempt, allow, NOW) is None
        assert two.ledger.answered(attempt, ANSWERED, keep, NOW)
        if name != "beside":
            assert two.ledger.resolve(attempt, Outcome.FAILED, "not mended", backoff, NOW)
    latch(store, "print")
    store.ledger.pause_key(KEY_MARK, 60, NOW)
    facts = store.ledger.account(KEY_MARK, NOW)
    assert len(facts.sent) == 4
    assert [each.account for each in facts.open] == ["beside"]
    assert [each.account for each in facts.recent if each.outcome is Outcome.FAILED] == ["after", "before"]
    assert (facts.latched, facts.key_paused_until) == ("401", NOW + 60)
    alone = store.ledger.account(mark("beside"), NOW)
    assert (alone.sent, alone.open, alone.recent, alone.latched) == ((), (), (), None)


def test_a_release_lifts_quarantine_and_forgets_the_attempts(store: Store) -> None:
    attempt = verifying(store)
    assert store.ledger.resolve(attempt, Outcome.FAILED, "not mended", quarantined("three attempts"), NOW)
    assert store.ledger.release(NUMBER, "looked at it", NOW + 1) == ["lifted quarantined: three attempts"]
    record = did(store)
    assert (record.state, record.failures, record.forgotten_at) == (HealState.IDLE, 0, NOW + 1)
    assert (record.reason, record.account, record.version) == ("released by hand: looked at it", ACCOUNT, 2)
    assert counts(store).charged == ()
    assert store.ledger.release(NUMBER, "again", NOW + 2) == []


@pytest.mark.parametrize("result", [ANSWERED, AMBIGUOUS])
def test_a_release_ends_an_attempt_that_waits_for_the_polls(store: Store, result: Result) -> None:
    attempt = sent(store)
    assert store.ledger.answered(attempt, result, keep, NOW)
    assert store.ledger.release(NUMBER, "it is mended", NOW + 1) == ["ended its open attempt"]
    found = row(store, attempt)
    assert (found.status, found.outcome, found.ended_at) == (Status.ENDED, Outcome.AMBIGUOUS, NOW + 1)
    assert found.reason == "released by hand: it is mended"
    claimed(store, now=NOW + 2)


@pytest.mark.parametrize("make", [claimed, sent])
def test_a_release_leaves_a_request_that_may_be_under_way(store: Store, make: Any) -> None:  # noqa: ANN401
    attempt = make(store)
    assert store.ledger.release(NUMBER, "impatience", NOW) == []
    assert row(store, attempt).open


def test_a_release_of_what_nobody_knows_does_nothing(store: Store) -> None:
    assert store.ledger.release("+918011223300", "why not", NOW) == []


# Forgetting


def test_what_ended_long_ago_is_forgotten_and_what_is_open_is_kept(store: Store) -> None:
    kept = [claimed(store, "+918011223341"), sent(store, "+918011223342"), verifying(store, "+918011223343")]
    ambiguous = sent(store, "+918011223344")
    assert store.ledger.answered(ambiguous, AMBIGUOUS, keep, NOW)
    ended(store, Outcome.FAILED, "+918011223345")
    recent = ended(store, Outcome.FAILED, "+918011223346", now=NOW + 100 * DAY)
    assert store.ledger.prune(NOW + 90 * DAY) == 1
    left = {attempt.id for attempt in store.ledger.history()}
    assert left == {each.id for each in (*kept, ambiguous, recent)}


def test_what_is_idle_for_long_is_forgotten_and_what_is_held_is_kept(store: Store) -> None:
    for number, after in ((NUMBER, keep), (OTHER, quarantined())):
        attempt = verifying(store, number)
        assert store.ledger.resolve(attempt, Outcome.FAILED, "not mended", after, NOW)
    store.ledger.prune(NOW + 90 * DAY)
    assert set(store.ledger.records(NOW)[0]) == {OTHER}
    assert store.ledger.history() == []


# Looking


def test_a_page_of_the_ledger_counts_what_is_wanted_and_returns_some_of_it(store: Store) -> None:
    numbers = (OTHER, NUMBER, OTHER, NUMBER, OTHER)
    made = [ended(store, Outcome.FAILED, number, now=NOW + index) for index, number in enumerate(numbers)]
    ids = [attempt.id for attempt in reversed(made)]

    def page(wanted: Wanted, offset: int = 0, limit: int = 10) -> tuple[int, list[int]]:
        total, attempts = store.ledger.page(wanted, offset, limit)
        return total, [attempt.id for attempt in attempts]

    assert page(Wanted()) == (5, ids)
    assert page(Wanted(), 1, 2) == (5, ids[1:3])
    assert page(Wanted(), 5, 2) == (5, [])
    assert page(Wanted(number=NUMBER)) == (2, [ids[1], ids[3]])
    assert page(Wanted(number="+1")) == (0, [])
    assert page(Wanted(account=ACCOUNT, outcome=Outcome.FAILED)) == (5, ids)
    assert page(Wanted(account="another")) == (0, [])
    assert page(Wanted(outcome=Outcome.WOULD_SEND)) == (0, [])


def test_who_looks_waits_for_nobody_who_writes(store: Store) -> None:
    attempt = sent(store)
    with store.ledger._database.transaction() as writing:  # noqa: SLF001 - to hold on to it
        lock(writing, KEY_MARK)
        assert [each.id for each in store.ledger.history()] == [attempt.id]
        assert store.ledger.page(Wanted(), 0, 10)[0] == 1
        assert store.history.of(NUMBER) == []
