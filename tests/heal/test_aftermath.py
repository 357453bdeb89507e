"""What is known of a DID once an attempt on it ended: probation, backoff or quarantine, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from exporter.config.schema import Heal
from exporter.heal import aftermath
from exporter.heal.aftermath import after_move, backoff_seconds
from exporter.heal.decide import Move
from exporter.model import HealState, Outcome
from exporter.store.records import Counts, DidRecord

NOW = 1_800_000_000.0
NUMBER = "+918011223344"
HEAL = Heal()  # the defaults are what people run


def record(state: HealState, **more: Any) -> DidRecord:  # noqa: ANN401 - any field
    return DidRecord(NUMBER, "main", "default", state, **{"version": 3, "reason": "so it is", **more})


@pytest.mark.parametrize(
    ("failures", "jitter", "seconds"),
    [
        (1, 0.0, 600),
        (2, 0.0, 1200),
        (3, 0.0, 2400),
        (6, 0.0, 19200),
        (7, 0.0, 21600),
        (99, 0.0, 21600),
        (1, 1.0, 750),
        (99, 1.0, 27000),
    ],
)
def test_backoff_doubles_up_to_its_longest_plus_jitter(failures: int, jitter: float, seconds: float) -> None:
    assert backoff_seconds(HEAL, failures, jitter) == seconds


def after_end(outcome: Outcome, *, charged: int, known: DidRecord | None = None, **more: bool) -> DidRecord:
    return aftermath.after_end(
        known or DidRecord(NUMBER),
        Counts(charged=(NOW,) * charged),
        outcome,
        config=HEAL,
        now=NOW,
        jitter=0,
        reason="so it is",
        **{"quarantine": False, "backoff": True, **more},
    )


def test_an_attempt_that_ends_without_backoff_leaves_its_did_idle() -> None:
    after = after_end(Outcome.FAILED, charged=0, known=record(HealState.VERIFYING, until=NOW), backoff=False)

    assert after == record(HealState.IDLE, since=NOW, until=0.0, reason="so it is")


def test_a_verified_attempt_leads_to_probation_and_keeps_the_count() -> None:
    after = after_end(Outcome.SUCCEEDED, charged=3, known=record(HealState.BACKOFF, failures=2, until=NOW))

    assert (after.state, after.failures, after.until, after.forgotten_at) == (HealState.PROBATION, 0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("charged", "state"), [(1, HealState.BACKOFF), (2, HealState.BACKOFF), (3, HealState.QUARANTINED)]
)
@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.AMBIGUOUS, Outcome.REJECTED])
def test_the_last_attempt_that_did_not_help_leads_to_quarantine(
    outcome: Outcome, charged: int, state: HealState
) -> None:
    assert after_end(outcome, charged=charged).state is state


def test_backoff_counts_the_failures_since_the_last_verified_heal() -> None:
    after = after_end(Outcome.FAILED, charged=1, known=record(HealState.IDLE, failures=2))

    assert (after.failures, after.until) == (3, NOW + 2400)


def test_an_answer_that_blames_our_request_quarantines_at_once() -> None:
    assert after_end(Outcome.REJECTED, charged=1, quarantine=True).state is HealState.QUARANTINED


def test_an_answer_that_is_not_the_dids_fault_leaves_it_idle() -> None:
    after = after_end(Outcome.REJECTED, charged=0, backoff=False)

    assert (after.state, after.until, after.failures) == (HealState.IDLE, 0.0, 0)


# Whole records: nothing else changes

KNOWN = record(HealState.IDLE, failures=1, since=1.0, until=2.0, broken_since=3.0, forgotten_at=4.0, heal_issues=("A",))


@pytest.mark.parametrize(
    ("outcome", "charged", "more", "changed"),
    [
        (
            Outcome.SUCCEEDED,
            3,
            {},
            {"state": HealState.PROBATION, "failures": 0, "until": 0.0, "broken_since": None},
        ),
        (
            Outcome.FAILED,
            3,
            {},
            {"state": HealState.QUARANTINED, "until": 0.0, "reason": "3 attempts in 1d: so it is"},
        ),
        (Outcome.REJECTED, 1, {"quarantine": True}, {"state": HealState.QUARANTINED, "until": 0.0}),
        (Outcome.REJECTED, 3, {"quarantine": True}, {"state": HealState.QUARANTINED, "until": 0.0}),
        (Outcome.NOT_SENT, 0, {"backoff": False}, {"state": HealState.IDLE, "until": 0.0}),
        (Outcome.NOT_SENT, 0, {}, {"state": HealState.BACKOFF, "failures": 2, "until": NOW + 1200}),
    ],
)
def test_what_is_known_after_an_attempt(
    outcome: Outcome, charged: int, more: dict[str, bool], changed: dict[str, Any]
) -> None:
    expected = replace(KNOWN, **{"since": NOW, "reason": "so it is", **changed})
    assert after_end(outcome, charged=charged, known=replace(KNOWN, reason="so it was"), **more) == expected


def test_attempts_before_the_window_do_not_count() -> None:
    window = HEAL.attempts_window.total_seconds()
    for ago, state in ((window + 1, HealState.BACKOFF), (window - 1, HealState.QUARANTINED)):
        after = aftermath.after_end(
            KNOWN,
            Counts(charged=(NOW - ago, NOW, NOW)),
            Outcome.FAILED,
            quarantine=False,
            backoff=True,
            reason="so it is",
            config=HEAL,
            now=NOW,
            jitter=1.0,
        )
        assert after.state is state
    assert (
        aftermath.after_end(
            KNOWN,
            Counts(charged=(NOW,)),
            Outcome.FAILED,
            quarantine=False,
            backoff=True,
            reason="so it is",
            config=HEAL,
            now=NOW,
            jitter=1.0,
        ).until
        == NOW + 1500
    )


def moved(known: DidRecord, state: HealState, *, relapse: bool = False, charged: int = 1) -> DidRecord:
    move = Move(known, state, "so it is", relapse)
    return after_move(move, attempts=Counts(charged=(NOW,) * charged), config=HEAL, now=NOW, jitter=1.0)


@pytest.mark.parametrize(
    ("before", "state", "changed"),
    [
        (HealState.PROBATION, HealState.IDLE, {"failures": 0, "forgotten_at": NOW, "broken_since": None}),
        (HealState.QUARANTINED, HealState.IDLE, {"failures": 0, "forgotten_at": NOW, "broken_since": None}),
        (HealState.BACKOFF, HealState.IDLE, {}),  # the attempts go on counting
        (HealState.BACKOFF, HealState.PROBATION, {}),
        (HealState.IDLE, HealState.QUARANTINED, {}),
    ],
)
def test_what_is_known_after_a_move(before: HealState, state: HealState, changed: dict[str, Any]) -> None:
    known = replace(KNOWN, state=before, reason="so it was")
    expected = replace(known, **{"state": state, "since": NOW, "until": 0.0, "reason": "so it is", **changed})
    assert moved(known, state) == expected


def test_a_relapse_is_a_failure_of_its_attempt() -> None:
    known = replace(KNOWN, state=HealState.PROBATION, reason="so it was")
    expected = replace(known, state=HealState.BACKOFF, since=NOW, reason="so it is", failures=2, broken_since=None)
    assert moved(known, HealState.BACKOFF, relapse=True) == replace(expected, until=NOW + 1500)
    assert moved(known, HealState.BACKOFF, relapse=True, charged=3) == replace(
        expected, state=HealState.QUARANTINED, failures=1, until=0.0, reason="3 attempts in 1d: so it is"
    )
