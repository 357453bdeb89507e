"""Every guard of the fleet: what it holds back, and from and until exactly when."""

from __future__ import annotations

from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from exporter.config.schema import Heal
from exporter.heal.decide import WOULD_HOLD
from exporter.heal.guards import (
    FORCEABLE,
    ActiveGuard,
    GuardCheck,
    TargetHealth,
    account_guards,
    blocking_reasons,
    health_after,
    is_unobserved,
    observed,
    room,
    settled,
    target_guards,
)
from exporter.heal.watched import unhealthy_of
from exporter.model import READY, Did, Entry, Guard, HealState, Outcome, Target
from exporter.store.records import AccountRecord, Attempt, Counts, DidRecord, Status

NOW = 1_800_000_000.0
NUMBER = "+918011223344"
HEAL = Heal()
TARGET = Target("main")
GOOD = TargetHealth(TARGET, at=NOW, interval=60.0, complete_polls=3, total=100, listed=100)


def attempt(number: int, status: Status = Status.ENDED, **more: Any) -> Attempt:  # noqa: ANN401 - any field
    return Attempt(
        number, f"+91801122{number:04}", "main", "default", status, "t", "me", (), {}, claimed_at=NOW, **more
    )


def ended(*outcomes: Outcome, last: float = NOW) -> tuple[Attempt, ...]:
    """Return ended attempts, the newest first, a minute apart."""
    return tuple(attempt(index, outcome=outcome, ended_at=last - 60 * index) for index, outcome in enumerate(outcomes))


def facts(**more: Any) -> AccountRecord:  # noqa: ANN401 - any field
    """Return the facts of a credential with which a heal was verified a second ago, if nothing else is said."""
    return AccountRecord("mark", **{"recent": ended(Outcome.SUCCEEDED, last=NOW - 1), **more})


def held(known: AccountRecord, *, config: Heal = HEAL, now: float = NOW, **more: Any) -> set[Guard]:  # noqa: ANN401
    return {guard for guard, _ in account_guards(known, config, now, **{"ramp_start": 0.0, "fingerprint": "", **more})}


def heal(**values: Any) -> Heal:  # noqa: ANN401 - any key
    return Heal.model_validate(values)


OPEN = (attempt(1, Status.VERIFYING), attempt(2, Status.AMBIGUOUS), attempt(3, Status.SENT), attempt(4, Status.CLAIMED))


@pytest.mark.parametrize(
    ("known", "guards"),
    [
        ({}, set()),
        ({"paused": "maintenance"}, {Guard.PAUSED}),
        ({"paused": ""}, {Guard.PAUSED}),
        ({"latched": "401"}, {Guard.ACCOUNT_LATCHED}),
        ({"refused": frozenset({"print", "another"})}, {Guard.ACCOUNT_LATCHED}),  # whoever lifted the latch
        ({"refused": frozenset({"another"})}, set()),
        ({"latched": "401", "refused": frozenset({"another"})}, {Guard.ACCOUNT_LATCHED}),
        ({"key_paused_at": NOW - 59.9, "key_paused_for": 60.0}, {Guard.RATE_LIMITED}),
        ({"key_paused_at": NOW - 60.0, "key_paused_for": 60.0}, set()),
        ({"sent": (NOW - 59.9,) * 9}, set()),
        ({"sent": (NOW - 59.9,) * 10}, {Guard.RATE_LIMITED}),
        ({"sent": (NOW - 64.9,) * 10}, {Guard.RATE_LIMITED}),  # what left late may have come within the minute
        ({"sent": (NOW - 65.0,) * 10}, set()),
        ({"sent": (NOW + 30.0,) * 10}, {Guard.RATE_LIMITED}),  # a clock that was set back frees nothing
        ({"sent": (NOW - 3000.0,) * 11}, set()),
        ({"sent": (NOW - 3000.0,) * 12}, {Guard.MAX_PER_HOUR}),
        ({"sent": (NOW - 3604.9,) * 12}, {Guard.MAX_PER_HOUR}),
        ({"sent": (NOW - 3605.0,) * 12}, set()),
        ({"open": OPEN}, set()),
        ({"open": (*OPEN, attempt(5, Status.VERIFYING))}, {Guard.MAX_IN_FLIGHT}),
    ],
)
def test_what_the_ledger_says_of_an_account_holds_it_back(known: dict[str, Any], guards: set[Guard]) -> None:
    assert held(facts(**known), fingerprint="print") == guards


@pytest.mark.parametrize(
    ("seen_at", "guards"),
    [(None, {Guard.MAX_IN_FLIGHT}), (NOW + 0.1, {Guard.MAX_IN_FLIGHT}), (NOW, set()), (NOW - 9999.0, set())],
)
def test_what_no_poll_observes_takes_no_place_among_those_in_flight(seen_at: float | None, guards: set[Guard]) -> None:
    """Of five attempts that were made at once, one is on a target that was last polled at `seen_at`."""
    now = NOW + HEAL.verify_within.total_seconds()
    polled_since = tuple(replace(each, observed_at=now - 60) for each in OPEN)
    claimed_at = now - 1 if seen_at is None else NOW
    fifth = replace(attempt(5, Status.AMBIGUOUS), observed_at=seen_at, claimed_at=claimed_at)

    assert held(facts(open=(*polled_since, fifth)), now=now) == guards


def test_observe_mode_counts_what_it_would_have_sent_and_nothing_else() -> None:
    known = facts(sent=(NOW,) * 99, open=OPEN * 2, recent=())
    assert held(known, observing=True) == set()
    assert held(replace(known, would=(NOW - 1,) * 10), observing=True) == {Guard.RATE_LIMITED}
    assert held(replace(known, would=(NOW - 600,) * 12), observing=True) == {Guard.MAX_PER_HOUR}
    assert held(replace(known, paused="x", latched="y"), observing=True) == {Guard.PAUSED, Guard.ACCOUNT_LATCHED}


VERIFIED = ended(Outcome.SUCCEEDED, last=NOW - 10)


@pytest.mark.parametrize(
    ("known", "ramp_start"),
    [
        ({"recent": ()}, 0.0),  # nothing was ever verified
        ({"recent": VERIFIED}, NOW - 10),  # after the start
        ({"recent": VERIFIED, "resumed_at": NOW - 10}, 0.0),  # after resume
        ({"recent": ended(Outcome.SUCCEEDED, *[Outcome.FAILED] * 3, last=NOW - 10)}, 0.0),  # after a breaker closed
    ],
)
def test_the_first_heal_is_verified_before_a_second_is_sent(known: dict[str, Any], ramp_start: float) -> None:
    assert held(facts(**known), ramp_start=ramp_start) == set()
    assert held(facts(**known, open=OPEN[:1]), ramp_start=ramp_start) == {Guard.MAX_IN_FLIGHT}
    verified = {**known, "recent": (attempt(9, outcome=Outcome.SUCCEEDED, ended_at=NOW - 9), *known["recent"])}
    assert held(facts(**verified, open=OPEN), ramp_start=ramp_start) == set()


def test_the_ramp_waits_for_nothing_that_no_poll_observes() -> None:
    forgotten = (replace(OPEN[0], observed_at=NOW - HEAL.verify_within.total_seconds()),)

    assert held(facts(recent=(), open=forgotten)) == set()
    assert held(facts(recent=(), open=(*forgotten, OPEN[1]))) == {Guard.MAX_IN_FLIGHT}


# The breaker

BAD = (Outcome.FAILED, Outcome.AMBIGUOUS, Outcome.REJECTED)
TRIED = (replace(OPEN[0], observed_at=NOW + 1740),)


@pytest.mark.parametrize(
    ("recent", "open_", "now", "held_back"),
    [
        (BAD, (), NOW, True),
        (BAD, (), NOW + 1799.9, True),
        (BAD, (), NOW + 1800, False),  # one is tried
        (BAD, TRIED, NOW + 1800, True),  # while it is tried, no other
        (BAD, OPEN[:1], NOW + 1800, False),  # unless no poll will tell what came of it
        (BAD[:2], (), NOW, False),
        ((*BAD[:2], Outcome.SUCCEEDED, Outcome.FAILED), (), NOW, False),
        ((Outcome.SUCCEEDED, *BAD), (), NOW, False),
        ((Outcome.NOT_SENT, *BAD), (), NOW, True),  # the probe failed: open again, from then on
    ],
)
def test_the_breaker_opens_after_failures_in_a_row_and_then_tries_one(
    recent: tuple[Outcome, ...],
    open_: tuple[Attempt, ...],
    now: float,
    held_back: bool,  # noqa: FBT001
) -> None:
    assert (Guard.BREAKER in held(facts(recent=ended(*recent), open=open_), now=now)) is held_back


# Windows


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("cron", "duration", "zone", "at", "inside"),
    [
        ("0 9 * * mon-fri", "8h", "Asia/Kolkata", "2027-03-01T08:59:59.9+05:30", False),
        ("0 9 * * mon-fri", "8h", "Asia/Kolkata", "2027-03-01T09:00:00+05:30", True),
        ("0 9 * * mon-fri", "8h", "Asia/Kolkata", "2027-03-01T09:00:00.5+05:30", True),
        ("0 9 * * mon-fri", "8h", "Asia/Kolkata", "2027-03-01T16:59:59.9+05:30", True),
        ("0 9 * * mon-fri", "8h", "Asia/Kolkata", "2027-03-01T17:00:00+05:30", False),
        ("0 9 * * mon-fri", "8h", "Asia/Kolkata", "2027-03-06T12:00:00+05:30", False),  # a Saturday
        ("30 22 * * *", "4h", "UTC", "2027-03-01T22:29:59+00:00", False),
        ("30 22 * * *", "4h", "UTC", "2027-03-02T01:00:00+00:00", True),  # over midnight
        ("30 22 * * *", "4h", "UTC", "2027-03-02T02:30:00+00:00", False),
        ("0 12 31 12 *", "48h", "UTC", "2028-01-02T11:59:00+00:00", True),  # over the year's end
        ("0 0 * * mon", "2d", "UTC", "2027-03-02T23:59:00+00:00", True),
        ("*/10 * * * *", "1h", "UTC", "2027-03-01T13:37:00+00:00", True),  # longer than its own period
        # Berlin goes from 02:00 to 03:00 on 2027-03-28: a window from 01:00 lasts three hours all the same.
        ("0 1 * * *", "3h", "Europe/Berlin", "2027-03-28T00:59:00+01:00", False),
        ("0 1 * * *", "3h", "Europe/Berlin", "2027-03-28T01:00:00+01:00", True),
        ("0 1 * * *", "3h", "Europe/Berlin", "2027-03-28T04:59:00+02:00", True),
        ("0 1 * * *", "3h", "Europe/Berlin", "2027-03-28T05:00:00+02:00", False),
        ("0 9 * * *", "1h", "Europe/Berlin", "2027-03-27T08:30:00+00:00", True),  # in winter
        ("0 9 * * *", "1h", "Europe/Berlin", "2027-03-28T07:30:00+00:00", True),  # in summer
        # One that begins in the hour that does not exist begins when that hour would have.
        ("30 2 * * *", "1h", "Europe/Berlin", "2027-03-28T01:10:00+00:00", True),
        # Berlin goes back from 03:00 to 02:00 on 2027-10-31.
        ("0 1 * * *", "3h", "Europe/Berlin", "2027-10-31T03:00:00+01:00", False),
        ("0 1 * * *", "3h", "Europe/Berlin", "2027-10-31T02:30:00+02:00", True),
        ("0 1 * * *", "3h", "Europe/Berlin", "2027-10-31T01:59:59+00:00", True),
        ("0 1 * * *", "3h", "Europe/Berlin", "2027-10-31T01:30:00+00:00", True),
        ("30 2 * * *", "1h", "Europe/Berlin", "2027-10-31T02:45:00+02:00", True),
        ("30 2 * * *", "1h", "Europe/Berlin", "2027-10-31T03:45:00+01:00", False),
    ],
)
def test_nothing_is_healed_inside_a_window(cron: str, duration: str, zone: str, at: str, inside: bool) -> None:  # noqa: FBT001
    window = {"cron": cron, "duration": duration, "timezone": zone}

    assert (Guard.WINDOW in held(facts(), config=heal(windows=[window]), now=moment(at))) is inside


@pytest.mark.parametrize(("hour", "inside"), [(1, True), (3, False), (5, True), (7, False)])
def test_any_of_several_windows_holds(hour: int, inside: bool) -> None:  # noqa: FBT001
    windows = [{"cron": "0 1 * * *", "duration": "1h"}, {"cron": "0 5 * * *", "duration": "1h"}]
    now = datetime(2027, 3, 1, hour, 30, tzinfo=UTC).timestamp()

    assert (Guard.WINDOW in held(facts(), config=heal(windows=windows), now=now)) is inside


# The target's data


@pytest.mark.parametrize(
    ("change", "guards"),
    [
        ({}, set()),
        ({"complete_polls": 2}, {Guard.HOLD_OFF}),
        ({"at": NOW - 121.0}, set()),
        ({"at": NOW - 121.1}, {Guard.STALE}),
        ({"suspect": "a poll lost 5 of 10 DIDs"}, {Guard.STALE}),
        ({"held_since_over": True}, {Guard.MAX_UNHEALTHY}),
    ],
)
def test_data_that_cannot_be_relied_on_holds_healing_back(change: dict[str, Any], guards: set[Guard]) -> None:
    assert {guard for guard, _ in target_guards(replace(GOOD, **change), HEAL, NOW)} == guards


def polled(
    health: TargetHealth,
    *,
    unhealthy: int = 0,
    listed: int = 100,
    config: Heal = HEAL,
    **more: Any,  # noqa: ANN401 - any field
) -> TargetHealth:
    known = {"at": health.at + 60, "total": listed, "listed": listed, "resumed_at": 0.0, **more}
    return health_after(health, unhealthy=unhealthy, config=config, **known)


@pytest.mark.parametrize(
    ("most", "total", "unhealthy", "over"),
    [
        ("30%", 100, 30, False),
        ("30%", 100, 31, True),
        ("30%", 5, 3, False),  # never less than 3
        ("30%", 5, 4, True),
        (0, 100, 3, False),
        (0, 100, 4, True),
        (20, 100, 20, False),
        (20, 100, 21, True),
        ("100%", 4, 4, False),
    ],
)
def test_too_many_unhealthy_hold_the_target_back(most: str | int, total: int, unhealthy: int, over: bool) -> None:  # noqa: FBT001
    config = heal(max_unhealthy=most)
    health = polled(replace(GOOD, total=total, listed=total), unhealthy=unhealthy, listed=total, config=config)

    assert (Guard.MAX_UNHEALTHY in {guard for guard, _ in target_guards(health, config, health.at)}) is over


NOT_READY = {"+918011220001": "NO_BOT", "+918011220002": "MISSING"}
ELSEWHERE = replace(attempt(9, Status.SENT), connection="another")


@pytest.mark.parametrize(
    ("open_", "unhealthy"),
    [
        ((), 2),
        *(((attempt(7, status),), 3) for status in Status if status is not Status.ENDED),  # ready, but under treatment
        ((attempt(1, Status.SENT),), 2),  # counted once
        ((attempt(7, Status.VERIFYING), attempt(8, Status.AMBIGUOUS)), 4),
        ((attempt(77, Status.AMBIGUOUS),), 3),  # the target does not show it any more
        ((ELSEWHERE,), 3),  # it was made elsewhere, and is shown here
        ((replace(ELSEWHERE, connection="default", account="another"),), 3),
        ((replace(ELSEWHERE, number="+918011220077"),), 2),
        ((replace(ELSEWHERE, number="+918011220077", connection="default", account="another"),), 2),
    ],
)
def test_dids_under_treatment_count_as_unhealthy(open_: tuple[Attempt, ...], unhealthy: int) -> None:
    states = {f"+91801122{digit:04}": READY for digit in range(10)} | NOT_READY
    dids = {number: Did(Entry(number, state), state) for number, state in states.items()}
    counts = {"+918011220000": Counts(charged=(NOW,)), **{each.number: Counts(open=each) for each in open_}}

    assert unhealthy_of(dids, counts, TARGET) == unhealthy


def test_after_too_many_unhealthy_three_polls_in_a_row_have_to_be_under_it() -> None:
    held_back = []
    health = GOOD
    for unhealthy in (0, 31, 30, 0, 31, 0, 0, 0, 0):
        health = polled(health, unhealthy=unhealthy)
        held_back.append(health.held_since_over)

    assert held_back == [False, True, True, True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("before", "now", "doubted"),
    [(100, 90, False), (100, 89, True), (20, 18, False), (20, 17, True), (5, 3, False), (5, 2, True), (30, 27, False)],
)
def test_a_poll_that_lost_more_than_a_tenth_and_at_least_three_is_doubted(before: int, now: int, doubted: bool) -> None:  # noqa: FBT001
    health = polled(replace(GOOD, total=before, listed=before), listed=now)

    assert bool(health.suspect) is doubted


def test_configured_dids_that_went_missing_are_lost_though_they_are_still_shown() -> None:
    assert polled(GOOD, total=100, listed=80).suspect


def test_three_polls_that_agree_end_the_doubt() -> None:
    health = polled(GOOD, listed=50)
    doubted = []
    for _ in range(3):
        health = polled(health, listed=50)
        doubted.append(bool(health.suspect))

    assert doubted == [True, True, False]


def test_polls_that_do_not_agree_prolong_the_doubt() -> None:
    health = polled(GOOD, listed=50)
    for listed in (40, 30, 50, 40, 50):
        health = polled(health, listed=listed)
        assert health.suspect


def test_the_fleet_coming_back_ends_the_doubt_at_once() -> None:
    assert not polled(polled(GOOD, listed=50), listed=99).suspect


def test_a_person_ends_the_doubt() -> None:
    health = polled(GOOD, listed=50, resumed_at=7.0)

    assert polled(health, listed=50, resumed_at=7.0).suspect  # said before the doubt
    for resumed_at in (8.0, 6.0):  # whichever way a clock was set meanwhile
        assert not polled(health, listed=50, resumed_at=resumed_at).suspect


def test_the_first_poll_is_not_compared_with_anything_but_the_first_after_a_lost_store_is() -> None:
    assert not polled(TargetHealth(TARGET), listed=10).suspect
    assert polled(replace(GOOD, complete_polls=0), listed=10).suspect


def test_of_a_target_that_was_never_polled_nothing_is_known_and_nothing_suspected() -> None:
    assert astuple(TargetHealth(TARGET))[1:] == (0.0, 0.0, 0, 0, 0, 0, False, 0, "", 0.0, 0, 0, 0)


# What speaks against one request


def blocking(record: DidRecord | None = None, counts: Counts | None = None, **more: Any) -> list[str]:  # noqa: ANN401
    known = {"health": GOOD, "config": HEAL, "now": NOW, "ramp_start": 0.0, "fingerprint": "", "version": 0, **more}
    return list(blocking_reasons(facts(), record or DidRecord(NUMBER), counts or Counts(), **known))


@pytest.mark.parametrize(
    ("record", "counts", "more", "said"),
    [
        (DidRecord(NUMBER), Counts(), {}, []),
        (DidRecord(NUMBER), Counts(open=OPEN[0]), {}, ["attempt 1 on it is open"]),
        (DidRecord(NUMBER, state=HealState.QUARANTINED, reason="x"), Counts(), {}, ["it is quarantined: x"]),
        (DidRecord(NUMBER, state=HealState.BACKOFF, until=NOW + 9), Counts(), {}, ["it is in backoff for another 9 s"]),
        (DidRecord(NUMBER, state=HealState.BACKOFF, until=NOW), Counts(), {}, []),
        (DidRecord(NUMBER, version=1), Counts(), {}, ["another replica changed what is known of it"]),
        (DidRecord(NUMBER), Counts(charged=(NOW,) * 2), {}, []),
        (DidRecord(NUMBER), Counts(charged=(NOW,) * 3), {}, ["3 attempts within 1d are the most"]),
        (DidRecord(NUMBER), Counts(would_at=NOW - 1), {}, []),
        (DidRecord(NUMBER), Counts(would_at=NOW - WOULD_HOLD), {"observing": True}, []),
        (
            DidRecord(NUMBER),
            Counts(would_at=NOW - 1),
            {"observing": True},
            ["observe mode would have sent within the last hour"],
        ),
    ],
)
def test_what_is_known_of_a_did_speaks_against_a_request(
    record: DidRecord, counts: Counts, more: dict[str, Any], said: list[str]
) -> None:
    assert blocking(record, counts, **more) == said


def test_guards_of_account_and_target_speak_against_a_request_unless_a_person_forces_it() -> None:
    health = replace(GOOD, held_since_over=True, complete_polls=0, at=NOW - 999)

    def named(**more: Any) -> set[str]:  # noqa: ANN401
        return {text.partition(":")[0] for text in blocking(health=health, **more)}

    assert named() == {"max_unhealthy", "hold_off", "stale"}
    assert named(forced=FORCEABLE) == {"stale"}


def test_force_never_passes_the_vendors_limit_the_lock_or_the_lack_of_data() -> None:
    assert frozenset(Guard) - FORCEABLE == {Guard.STORE, Guard.RATE_LIMITED, Guard.STALE}


def test_force_passes_the_guard_and_patience_the_backoff() -> None:
    backing_off = DidRecord(NUMBER, state=HealState.BACKOFF, until=NOW + 9)
    assert blocking(backing_off, patient=False) == []
    assert blocking(version=None) == []
    assert blocking(DidRecord(NUMBER, version=3), version=None) == []


# What each guard says


@pytest.mark.parametrize(
    ("known", "config", "said"),
    [
        ({"paused": "maintenance"}, HEAL, (Guard.PAUSED, "maintenance; start again with heal resume")),
        (
            {},
            heal(windows=[{"cron": "0 8 * * *", "duration": "1h"}]),
            (Guard.WINDOW, "inside the window 0 8 * * * for 1h (UTC)"),
        ),
        (
            {"latched": "401"},
            HEAL,
            (Guard.ACCOUNT_LATCHED, "401; change the credential or the configuration, or say heal resume"),
        ),
        (
            {"refused": frozenset({"print"})},
            HEAL,
            (
                Guard.ACCOUNT_LATCHED,
                "the API refused this credential and configuration before; change one of them, or say heal resume",
            ),
        ),
        (
            {"key_paused_at": NOW, "key_paused_for": 60.0},
            HEAL,
            (Guard.RATE_LIMITED, "the API limits the rate for another 60 s"),
        ),
        ({"sent": (NOW,) * 10}, HEAL, (Guard.RATE_LIMITED, "10 heals were sent within a minute")),
        (
            {"sent": (NOW - 100.0,) * 13},
            HEAL,
            (Guard.MAX_PER_HOUR, "13 heals were sent within an hour, the most is 12"),
        ),
        (
            {"recent": ended(*[Outcome.FAILED] * 3, last=NOW - 60)},
            HEAL,
            (Guard.BREAKER, "3 heals in a row did not help; open for another 1740 s, then one is tried"),
        ),
        (
            {"open": (*OPEN, *OPEN[:1])},
            heal(max_in_flight=3),
            (Guard.MAX_IN_FLIGHT, "5 of at most 3 heals wait for their verification"),
        ),
        (
            {"open": OPEN[:2], "recent": ()},
            HEAL,
            (
                Guard.MAX_IN_FLIGHT,
                (
                    "2 of at most 1 heals wait for their verification; "
                    "the first after a start, a resume or a closed breaker goes alone"
                ),
            ),
        ),
    ],
)
def test_each_guard_of_an_account_says_why(known: dict[str, Any], config: Heal, said: ActiveGuard) -> None:
    assert list(account_guards(facts(**known), config, NOW, ramp_start=0.0, fingerprint="print")) == [said]


def test_a_breaker_that_tries_one_says_so() -> None:
    known = facts(recent=ended(*[Outcome.FAILED] * 3), open=TRIED)
    assert (Guard.BREAKER, "one heal is being tried after a row of failures") in list(
        account_guards(known, HEAL, NOW + 1800, ramp_start=0.0, fingerprint="")
    )


def test_what_observe_mode_would_have_sent_is_counted_as_such() -> None:
    known = facts(would=(NOW,) * 10)
    assert list(account_guards(known, HEAL, NOW, ramp_start=0.0, fingerprint="", observing=True)) == [
        (Guard.RATE_LIMITED, "10 heals were sent within a minute")
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"complete_polls": 1}, (Guard.HOLD_OFF, "1 of 3 complete polls since the start")),
        ({"at": NOW - 300.0}, (Guard.STALE, "the data is 300 s old; see in the log why polls fail, wait or are late")),
        (
            {"suspect": "a poll lost 5 of 10 DIDs"},
            (
                Guard.STALE,
                "a poll lost 5 of 10 DIDs; wait for 3 polls that agree, or say so with heal resume",
            ),
        ),
        (
            {"held_since_over": True, "unhealthy": 40},
            (
                Guard.MAX_UNHEALTHY,
                (
                    "40 of 100 DIDs are unhealthy, and more than 30 is too many, until 3 complete polls are under it; "
                    "find the common cause first"
                ),
            ),
        ),
        (
            {"held_since_over": True, "unhealthy": 4, "total": 5},
            (
                Guard.MAX_UNHEALTHY,
                (
                    "4 of 5 DIDs are unhealthy, and more than 3 is too many, until 3 complete polls are under it; "
                    "find the common cause first"
                ),
            ),
        ),
    ],
)
def test_each_guard_of_a_target_says_why(change: dict[str, Any], said: ActiveGuard) -> None:
    assert list(target_guards(replace(GOOD, **change), HEAL, NOW)) == [said]


def test_everything_that_speaks_against_a_request_is_named() -> None:
    record = DidRecord(NUMBER, state=HealState.QUARANTINED, reason="x", version=1)
    health = replace(GOOD, complete_polls=1)
    assert blocking(record, Counts(open=OPEN[0], charged=(NOW,) * 3), health=health) == [
        "attempt 1 on it is open",
        "it is quarantined: x",
        "another replica changed what is known of it",
        "3 attempts within 1d are the most",
        "hold_off: 1 of 3 complete polls since the start",
    ]
    assert blocking(health=None) == []


# The health of a target, poll by poll


def test_the_health_of_a_target_is_what_its_polls_said() -> None:
    first = health_after(TargetHealth(TARGET), at=NOW, total=10, unhealthy=1, config=HEAL, resumed_at=7.0, listed=9)
    assert first == TargetHealth(TARGET, at=NOW, complete_polls=1, total=10, listed=9, unhealthy=1, polls_under=1)
    second = health_after(first, at=NOW + 60, total=12, unhealthy=5, config=HEAL, resumed_at=7.0)
    assert second == TargetHealth(
        TARGET, at=NOW + 60, complete_polls=2, total=12, listed=12, unhealthy=5, held_since_over=True
    )


def test_a_doubt_says_what_was_lost_and_remembers_what_there_was() -> None:
    doubted = polled(GOOD, listed=50, resumed_at=7.0)
    assert (doubted.suspect, doubted.suspect_before) == ("a poll lost 50 of 100 DIDs", 100)
    assert (doubted.suspect_listed, doubted.suspect_agreed, doubted.suspect_resumed_at) == (50, 0, 7.0)
    agreed = polled(doubted, listed=52, resumed_at=7.0)
    assert (agreed.suspect_listed, agreed.suspect_agreed, agreed.suspect) == (52, 1, doubted.suspect)
    other = polled(agreed, listed=49, resumed_at=7.0)
    assert (other.suspect_listed, other.suspect_agreed) == (49, 0)
    over = polled(other, listed=90, resumed_at=7.0)
    assert (over.suspect, over.suspect_agreed) == ("", 0)


@pytest.mark.parametrize(
    ("before", "listed", "doubted"), [(100, 90, False), (100, 89, True), (20, 18, False), (20, 17, True), (5, 3, False)]
)
def test_a_fleet_that_came_back_but_for_what_may_be_lost_is_not_doubted_any_more(
    before: int,
    listed: int,
    doubted: bool,  # noqa: FBT001
) -> None:
    gone = polled(replace(GOOD, total=before, listed=before), listed=0)
    assert gone.suspect
    assert bool(polled(gone, listed=listed).suspect) is doubted


def test_a_second_doubt_needs_three_polls_again() -> None:
    health = polled(GOOD, listed=50)
    for _ in range(3):
        health = polled(health, listed=50)
    assert (health.suspect, health.suspect_agreed) == ("", 0)
    health = polled(health, listed=20)
    doubted = []
    for _ in range(3):
        health = polled(health, listed=20)
        doubted.append(bool(health.suspect))
    assert doubted == [True, True, False]


@pytest.mark.parametrize(("hold_off", "polls"), [(0, 1), (1, 1), (5, 5)])
def test_who_polled_once_is_taken_for_a_daemon_that_has_run_for_long(hold_off: int, polls: int) -> None:
    health = settled(TargetHealth(TARGET, at=NOW), 30.0, heal(hold_off_polls=hold_off))
    assert health == TargetHealth(TARGET, at=NOW, interval=30.0, complete_polls=polls)


def test_which_attempts_are_observed() -> None:
    now = NOW + HEAL.verify_within.total_seconds()
    seen, unseen = replace(OPEN[0], observed_at=NOW + 0.5), replace(OPEN[1], observed_at=NOW)
    assert observed(facts(open=(seen, unseen)), HEAL, now) == [seen]
    assert [is_unobserved(each, HEAL, now) for each in (seen, unseen, OPEN[2])] == [False, True, True]


def test_how_many_may_be_unverified_at_once() -> None:
    config = heal(max_in_flight=4)
    verified = facts(recent=ended(Outcome.SUCCEEDED, last=NOW))
    assert room(verified, config, ramp_start=NOW - 1) == 4
    assert room(verified, config, ramp_start=NOW) == 1
    assert room(replace(verified, resumed_at=NOW), config, ramp_start=0.0) == 1
    closed = facts(recent=ended(Outcome.SUCCEEDED, Outcome.SUCCEEDED, *[Outcome.FAILED] * 3, Outcome.SUCCEEDED))
    assert room(closed, config, ramp_start=0.0) == 4  # it closed the breaker a minute before the last
    newest = facts(recent=ended(Outcome.FAILED, Outcome.SUCCEEDED, *[Outcome.FAILED] * 3, Outcome.SUCCEEDED))
    assert room(newest, config, ramp_start=0.0) == 1
    assert room(facts(recent=ended(Outcome.SUCCEEDED, *[Outcome.FAILED] * 2)), config, ramp_start=0.0) == 4


# The question that a claim asks


def check(**more: Any) -> GuardCheck:  # noqa: ANN401 - any field
    known: dict[str, Any] = {
        "config": HEAL,
        "fingerprint": "print",
        "now": lambda: NOW,
        "ramp_start": lambda: 0.0,
        "health": lambda: GOOD,
    }
    return GuardCheck(**{**known, **more})


@pytest.mark.parametrize(
    ("known", "more", "said"),
    [
        ({}, {}, []),
        ({"paused": "x"}, {"withdrawn": lambda: "it stops"}, ["it stops"]),
        ({"paused": "x"}, {"forced": frozenset({Guard.PAUSED})}, []),
        ({"paused": "x"}, {}, ["paused: x; start again with heal resume"]),
        (
            {},
            {"health": lambda: replace(GOOD, complete_polls=1)},
            ["hold_off: 1 of 3 complete polls since the start"],
        ),
        ({}, {"health": lambda: None}, []),
        (
            {},
            {"now": lambda: NOW + 300},
            ["stale: the data is 300 s old; see in the log why polls fail, wait or are late"],
        ),
        (
            {"open": OPEN[:1]},
            {"ramp_start": lambda: NOW},
            [
                (
                    "max_in_flight: 1 of at most 1 heals wait for their verification; "
                    "the first after a start, a resume or a closed breaker goes alone"
                )
            ],
        ),
        (
            {"refused": frozenset({"print"})},
            {},
            [
                (
                    "account_latched: the API refused this credential and configuration before; change one of them, "
                    "or say heal resume"
                )
            ],
        ),
        (
            {"sent": (NOW,) * 12},
            {"config": heal(requests_per_minute=99)},
            ["max_per_hour: 12 heals were sent within an hour, the most is 12"],
        ),
        ({"sent": (NOW,) * 12}, {"observing": True}, []),
        ({}, {"version": 2}, ["another replica changed what is known of it"]),
    ],
)
def test_a_claim_asks_for_everything_that_speaks_against_it(
    known: dict[str, Any], more: dict[str, Any], said: list[str]
) -> None:
    assert list(check(**more)(facts(**known), DidRecord(NUMBER), Counts())) == said


def test_a_claim_is_as_patient_as_it_is_asked_to_be() -> None:
    record, counts = DidRecord(NUMBER, state=HealState.BACKOFF, until=NOW + 9), Counts()
    assert list(check()(facts(), record, counts)) == ["it is in backoff for another 9 s"]
    assert list(check(patient=False)(facts(), record, counts)) == []
    assert list(check().for_version(1)(facts(), DidRecord(NUMBER, version=1), counts)) == []
    assert list(check().for_version(1)(facts(), DidRecord(NUMBER), counts)) == [
        "another replica changed what is known of it"
    ]
    assert list(check()(facts(), DidRecord(NUMBER), Counts(charged=(NOW,) * 3))) == [
        "3 attempts within 1d are the most"
    ]
