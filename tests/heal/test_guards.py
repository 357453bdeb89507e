"""Every guard of the fleet: what it holds back, and from and until exactly when."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from exporter.config.schema import Heal
from exporter.heal import policy
from exporter.heal.policy import TargetView
from exporter.heal.watched import unhealthy_of as unhealthy_dids
from exporter.model import READY, Did, Entry, Guard, HealState, Outcome, Target
from exporter.store.records import AccountRecord, Attempt, Counts, DidRecord, Status

NOW = 1_800_000_000.0
NUMBER = "+918011223344"
HEAL = Heal()
TARGET = Target("main")
GOOD = TargetView(TARGET, at=NOW, interval=60.0, complete_polls=3, total=100, listed=100)


def attempt(number: int, status: Status = Status.ENDED, **more: Any) -> Attempt:  # noqa: ANN401 - any field
    return Attempt(
        number, f"+91801122{number:04}", "main", "default", status, "t", "me", (), {}, claimed_at=NOW, **more
    )


def ended(*outcomes: Outcome, last: float = NOW) -> tuple[Attempt, ...]:
    """Return ended attempts, the newest first, a minute apart."""
    return tuple(attempt(index, outcome=outcome, ended_at=last - 60 * index) for index, outcome in enumerate(outcomes))


def facts(**more: Any) -> AccountRecord:  # noqa: ANN401 - any field
    return AccountRecord("main", **{"verified_at": NOW - 1, **more})


def held(
    known: AccountRecord, *, config: Heal = HEAL, now: float = NOW, ramp_start: float = 0.0, observing: bool = False
) -> set[Guard]:
    return {guard for guard, _ in policy.account_guards(known, config, now, ramp_start=ramp_start, observing=observing)}


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
        ({"key_paused_until": NOW + 0.1}, {Guard.RATE_LIMITED}),
        ({"key_paused_until": NOW}, set()),
        ({"sent": (NOW - 59.9,) * 9}, set()),
        ({"sent": (NOW - 59.9,) * 10}, {Guard.RATE_LIMITED}),
        ({"sent": (NOW - 69.9,) * 10}, {Guard.RATE_LIMITED}),  # what left late may have come within the minute
        ({"sent": (NOW - 70.0,) * 10}, set()),
        ({"sent": (NOW + 30.0,) * 10}, {Guard.RATE_LIMITED}),  # a clock that was set back frees nothing
        ({"sent": (NOW - 3000.0,) * 11}, set()),
        ({"sent": (NOW - 3000.0,) * 12}, {Guard.MAX_PER_HOUR}),
        ({"open": OPEN}, set()),
        ({"open": (*OPEN, attempt(5, Status.VERIFYING))}, {Guard.MAX_IN_FLIGHT}),
    ],
)
def test_what_the_ledger_says_of_an_account_holds_it_back(known: dict[str, Any], guards: set[Guard]) -> None:
    assert held(facts(**known)) == guards


def test_observe_mode_counts_what_it_would_have_sent_and_nothing_else() -> None:
    known = facts(sent=(NOW,) * 99, open=OPEN * 2, verified_at=0.0)
    assert held(known, observing=True) == set()
    assert held(replace(known, would=(NOW - 1,) * 10), observing=True) == {Guard.RATE_LIMITED}
    assert held(replace(known, would=(NOW - 600,) * 12), observing=True) == {Guard.MAX_PER_HOUR}
    assert held(replace(known, paused="x", latched="y"), observing=True) == {Guard.PAUSED, Guard.ACCOUNT_LATCHED}


@pytest.mark.parametrize(
    ("known", "ramp_start"),
    [
        ({"verified_at": NOW - 10}, NOW - 10),  # after the start
        ({"verified_at": NOW - 10, "resumed_at": NOW - 10}, 0.0),  # after resume
        (  # after a breaker that closed
            {
                "verified_at": NOW - 10,
                "recent": ended(Outcome.SUCCEEDED, *[Outcome.FAILED] * 3, last=NOW - 10),
            },
            0.0,
        ),
    ],
)
def test_the_first_heal_is_verified_before_a_second_is_sent(known: dict[str, Any], ramp_start: float) -> None:
    assert held(facts(**known), ramp_start=ramp_start) == set()
    assert held(facts(**known, open=OPEN[:1]), ramp_start=ramp_start) == {Guard.MAX_IN_FLIGHT}
    verified = {**known, "verified_at": NOW - 9}
    if "recent" in known:
        verified["recent"] = (attempt(9, outcome=Outcome.SUCCEEDED, ended_at=NOW - 9), *known["recent"])
    assert held(facts(**verified, open=OPEN), ramp_start=ramp_start) == set()


# The breaker

BAD = (Outcome.FAILED, Outcome.AMBIGUOUS, Outcome.REJECTED)


@pytest.mark.parametrize(
    ("recent", "open_", "now", "held_back"),
    [
        (BAD, (), NOW, True),
        (BAD, (), NOW + 1799.9, True),
        (BAD, (), NOW + 1800, False),  # one is tried
        (BAD, OPEN[:1], NOW + 1800, True),  # while it is tried, no other
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
    assert {guard for guard, _ in policy.target_guards(replace(GOOD, **change), HEAL, NOW)} == guards


def polled(view: TargetView, *, unhealthy: int = 0, listed: int = 100, config: Heal = HEAL, **more: Any) -> TargetView:  # noqa: ANN401
    known = {"at": view.at + 60, "total": listed, "listed": listed, "resumed_at": 0.0, **more}
    return policy.view_after(view, unhealthy=unhealthy, config=config, **known)


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
    view = polled(replace(GOOD, total=total, listed=total), unhealthy=unhealthy, listed=total, config=config)

    assert (Guard.MAX_UNHEALTHY in {guard for guard, _ in policy.target_guards(view, config, view.at)}) is over


NOT_READY = {"+918011220001": "NO_BOT", "+918011220002": "MISSING"}
ELSEWHERE = replace(attempt(9, Status.SENT), connection="another")


@pytest.mark.parametrize(
    ("open_", "unhealthy"),
    [
        ((), 2),
        *(((attempt(7, status),), 3) for status in Status if status is not Status.ENDED),  # ready, but under treatment
        ((attempt(1, Status.SENT),), 2),  # counted once
        ((attempt(7, Status.VERIFYING), attempt(8, Status.AMBIGUOUS)), 4),
        ((ELSEWHERE,), 2),
        ((replace(ELSEWHERE, connection="default", account="another"),), 2),
    ],
)
def test_dids_under_treatment_count_asunhealthy_of(open_: tuple[Attempt, ...], unhealthy: int) -> None:
    states = {f"+91801122{digit:04}": READY for digit in range(10)} | NOT_READY
    dids = [Did(Entry(number, state), state) for number, state in states.items()]
    counts = {"+918011220000": Counts(charged=(NOW,)), **{each.number: Counts(open=each) for each in open_}}

    assert unhealthy_dids(dids, counts, TARGET) == unhealthy


def test_after_too_many_unhealthy_three_polls_in_a_row_have_to_be_under_it() -> None:
    held_back = []
    view = GOOD
    for unhealthy in (0, 31, 30, 0, 31, 0, 0, 0, 0):
        view = polled(view, unhealthy=unhealthy)
        held_back.append(view.held_since_over)

    assert held_back == [False, True, True, True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("before", "now", "doubted"),
    [(100, 90, False), (100, 89, True), (20, 18, False), (20, 17, True), (5, 3, False), (5, 2, True), (30, 27, False)],
)
def test_a_poll_that_lost_more_than_a_tenth_and_at_least_three_is_doubted(before: int, now: int, doubted: bool) -> None:  # noqa: FBT001
    view = polled(replace(GOOD, total=before, listed=before), listed=now)

    assert bool(view.suspect) is doubted


def test_configured_dids_that_went_missing_are_lost_though_they_are_still_shown() -> None:
    assert polled(GOOD, total=100, listed=80).suspect


def test_three_polls_that_agree_end_the_doubt() -> None:
    view = polled(GOOD, listed=50)
    doubted = []
    for _ in range(3):
        view = polled(view, listed=50)
        doubted.append(bool(view.suspect))

    assert doubted == [True, True, False]


def test_polls_that_do_not_agree_prolong_the_doubt() -> None:
    view = polled(GOOD, listed=50)
    for listed in (40, 30, 50, 40, 50):
        view = polled(view, listed=listed)
        assert view.suspect


def test_the_fleet_coming_back_ends_the_doubt_at_once() -> None:
    assert not polled(polled(GOOD, listed=50), listed=99).suspect


def test_a_person_ends_the_doubt() -> None:
    view = polled(GOOD, listed=50)

    assert polled(view, listed=50, resumed_at=view.suspect_at - 1).suspect
    assert not polled(view, listed=50, resumed_at=view.suspect_at + 1).suspect


def test_the_first_poll_is_not_compared_with_anything_but_the_first_after_a_lost_store_is() -> None:
    assert not polled(TargetView(TARGET), listed=10).suspect
    assert polled(replace(GOOD, complete_polls=0), listed=10).suspect


# What speaks against one request


def objections(record: DidRecord | None = None, counts: Counts | None = None, **more: Any) -> list[str]:  # noqa: ANN401
    known = {"view": GOOD, "config": HEAL, "now": NOW, "ramp_start": 0.0, "version": 0, **more}
    return list(policy.objections(facts(), record or DidRecord(NUMBER), counts or Counts(), **known))


@pytest.mark.parametrize(
    ("record", "counts", "more", "said"),
    [
        (DidRecord(NUMBER), Counts(), {}, []),
        (DidRecord(NUMBER), Counts(open=OPEN[0]), {}, ["attempt 1 on it is open"]),
        (DidRecord(NUMBER, state=HealState.QUARANTINED, reason="x"), Counts(), {}, ["it is quarantined: x"]),
        (DidRecord(NUMBER, state=HealState.BACKOFF, until=NOW + 9), Counts(), {}, ["it is left alone for another 9 s"]),
        (DidRecord(NUMBER, state=HealState.BACKOFF, until=NOW), Counts(), {}, []),
        (DidRecord(NUMBER, version=1), Counts(), {}, ["another replica changed what is known of it"]),
        (DidRecord(NUMBER), Counts(charged=(NOW,) * 2), {}, []),
        (DidRecord(NUMBER), Counts(charged=(NOW,) * 3), {}, ["3 attempts within 1d are the most"]),
        (DidRecord(NUMBER), Counts(would_at=NOW - 1), {}, []),
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
    assert objections(record, counts, **more) == said


def test_guards_of_account_and_target_speak_against_a_request_unless_a_person_forces_it() -> None:
    view = replace(GOOD, held_since_over=True, complete_polls=0, at=NOW - 999)

    def named(**more: Any) -> set[str]:  # noqa: ANN401
        return {text.partition(":")[0] for text in objections(view=view, **more)}

    assert named() == {"max_unhealthy", "hold_off", "stale"}
    assert named(forced=policy.FORCEABLE) == {"stale"}


def test_force_never_passes_the_vendors_limit_the_lock_or_the_lack_of_data() -> None:
    assert frozenset(Guard) - policy.FORCEABLE == {Guard.STORE, Guard.RATE_LIMITED, Guard.STALE}
