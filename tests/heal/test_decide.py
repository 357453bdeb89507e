"""Decisions about one DID, row by row: what an observation is, and when each state is left."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.config.schema import ConfiguredDid, Heal
from exporter.heal import decide as deciding
from exporter.heal.aftermath import after_move
from exporter.heal.decide import (
    Decision,
    Kind,
    Move,
    Observation,
    Resolve,
    Send,
    Track,
    advance,
    asked_after,
    classify,
    judged_by,
    request_body,
)
from exporter.model import MISSING, READY, Did, Entry, HealState, Target
from exporter.store.records import Attempt, Counts, DidRecord, Status
from exporter.vocobase import parse_sync
from tests.support.fleet import EVERYTHING, fleet_of, polled, shown, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.snapshots import Watch

NOW = 1_800_000_000.0
NUMBER = "+918011223344"
CONNECTION = "00000000-0000-4000-8000-000000000001"
TARGET = Target("main", CONNECTION)
HEAL = Heal()  # the defaults are what people run


def entry(state: str = "NO_BOT", *issues: str, **known: Any) -> Entry:  # noqa: ANN401 - any field
    return Entry(
        NUMBER, state, issues or (() if state == READY else (state,)), **{"did_id": 812, "client_id": 415, **known}
    )


def did(state: str = "NO_BOT", *issues: str, **known: Any) -> Did:  # noqa: ANN401 - any field
    return Did(entry(state, *issues, **known), state)


def attempt(status: Status = Status.VERIFYING, **more: Any) -> Attempt:  # noqa: ANN401 - any field
    values: dict[str, Any] = {"claimed_at": NOW, "sent_at": NOW + 1, "answered_at": NOW + 2, **more}
    return Attempt(7, NUMBER, "main", CONNECTION, status, "token", "me", ("NO_BOT",), {}, **values)


def record(state: HealState, **more: Any) -> DidRecord:  # noqa: ANN401 - any field
    return DidRecord(NUMBER, "main", CONNECTION, state, **{"version": 3, "reason": "so it is", **more})


def decide(
    seen_did: Did | None,
    track: Track,
    record: DidRecord | None = None,
    counts: Counts | None = None,
    *,
    config: Heal = HEAL,
    configured: ConfiguredDid | None = None,
    now: float = NOW,
) -> Decision:
    return deciding.decide(
        seen_did,
        classify(seen_did, configured, config.issues),
        track,
        record or DidRecord(NUMBER),
        counts or Counts(),
        target=TARGET,
        configured=configured,
        config=config,
        now=now,
    )


UNMAPPED = "no client is mapped; map one at VoiceLink, or name client_id in the configuration of this DID"
CONFIRMED = Track(broken_polls=3, broken_for=120.0, broken_since=NOW - 120)


# What an observation is


@pytest.mark.parametrize(
    ("seen", "configured", "kind", "why"),
    [
        (did(READY), None, Kind.CLEAN, ""),
        (did("NO_BOT"), None, Kind.HEALABLE, ""),
        (did("NO_BOT", "NO_BOT", "ROUTING_MISSING"), None, Kind.HEALABLE, ""),
        (did("NO_VOCOBASE_AGENT"), None, Kind.CLEAN, ""),
        (did("NO_VOCOBASE_AGENT", "NO_VOCOBASE_AGENT", "NO_BOT"), None, Kind.HEALABLE, ""),
        (Did(Entry(NUMBER, "NO_BOT", (), did_id=1, client_id=2), "NO_BOT"), None, Kind.HEALABLE, ""),
        (None, None, Kind.ABSENT, "the API does not list it"),
        (did(MISSING), None, Kind.ABSENT, "the API does not list it"),
        (did("NO_BOT"), ConfiguredDid(did_number=NUMBER, heal=False), Kind.OTHER, "the configuration says heal: false"),
        (did(READY, "NO_BOT"), None, Kind.OTHER, "the API says READY and names an issue at once"),
        (did("NO_BOT", repeated=True), None, Kind.OTHER, "the API lists it more than once"),
        (did("NO_BOT", did_id=None), None, Kind.OTHER, "the API names no purchased DID for it"),
        (did("NO_BOT", expired=None), None, Kind.OTHER, "the API does not say whether it is expired"),
        (did("NO_BOT", expired=True), None, Kind.OTHER, "it is expired at VoiceLink; renew it there"),
        (did("NO_BOT", client_id=None), None, Kind.OTHER, UNMAPPED),
        (did("NO_BOT", client_id=None), ConfiguredDid(did_number=NUMBER), Kind.OTHER, UNMAPPED),
        (did("NO_BOT", client_id=None), ConfiguredDid(did_number=NUMBER, client_id=4), Kind.HEALABLE, ""),
    ],
)
def test_an_observation_is_clean_healable_or_other(
    seen: Did | None, configured: ConfiguredDid | None, kind: Kind, why: str
) -> None:
    observed = classify(seen, configured, HEAL.issues)

    assert (observed.kind, observed.why_not) == (kind, why)


def test_what_is_not_healable_has_its_issues_all_the_same() -> None:
    assert classify(did("NO_BOT", "NO_BOT", "NO_VOCOBASE_AGENT", expired=True), None, HEAL.issues).issues == ("NO_BOT",)
    assert classify(did(READY), None, HEAL.issues) == Observation(Kind.CLEAN, (), "")


@pytest.mark.parametrize(
    ("configured", "more"),
    [
        (None, {}),
        (ConfiguredDid(did_number=NUMBER), {}),
        (ConfiguredDid(did_number=NUMBER, client_id=4), {"client_id": 4}),
        (
            ConfiguredDid(did_id=812, agent_id=CONNECTION, bot_name="Sales", websocket_url="wss://bot.example/x?t=1"),
            {"agent_id": CONNECTION, "bot_name": "Sales", "websocket_url": "wss://bot.example/x?t=1"},
        ),
    ],
)
def test_a_request_says_only_what_the_configuration_of_that_did_names(
    configured: ConfiguredDid | None, more: dict[str, object]
) -> None:
    ours = {"did_id": 812, "connection_id": CONNECTION}

    assert request_body(did(), TARGET, configured) == ours | more
    assert request_body(did(), Target("main"), configured) == {"did_id": 812} | more


def heard(**remote: object) -> Entry:
    """Return the entry of an answer in which VoiceLink's own part of a broken DID says no more than that."""
    part = {"client_id": 415, "is_expired": False, **remote}
    said = {"phone_number": NUMBER, "state": "NO_BOT", "issues": ["NO_BOT"], "remote_did": part}
    [found] = parse_sync(json.dumps({"success": True, "data": {"readiness": [said]}}).encode()).entries
    return found


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"did_id": 812, "did_number": "918011223344"}, {"did_id": 812}),
        ({"did_id": "812", "did_number": ""}, {"did_id": 812}),
        ({"did_number": "918011223344"}, {"did_number": "918011223344"}),
        ({"did_id": None, "did_number": "918011223344"}, {"did_number": "918011223344"}),
        ({"did_id": 0, "did_number": "918011223344"}, {"did_number": "918011223344"}),
        ({"did_id": None, "did_number": ""}, None),  # it was named once, but is not any more
    ],
)
@pytest.mark.parametrize("watched", [EVERYTHING, watch(812)])
def test_a_did_goes_by_its_id_as_this_very_poll_named_it_and_by_its_number_only_without_one(
    watched: Watch, said: dict[str, Any], names: dict[str, Any] | None
) -> None:
    fleet = polled(fleet_of(TARGET), TARGET, heard(did_id=812), by=watched)
    seen = shown(polled(fleet, TARGET, heard(**said), by=watched), TARGET)[NUMBER]

    observation = classify(seen, watched.find(seen.entry), HEAL.issues)

    assert observation.why_not == ("" if names else "the API names no purchased DID for it")
    if names:
        assert request_body(seen, Target("main"), None) == names


# By which issues a DID is judged

WIDER = Heal(issues=("NO_BOT", "ROUTING_MISSING", "NO_VOCOBASE_AGENT"))
NARROWER = Heal(issues=("ROUTING_MISSING",))
BOTH = ("NO_BOT", "ROUTING_MISSING")


@pytest.mark.parametrize("config", [HEAL, WIDER, NARROWER])
def test_an_open_attempt_is_judged_by_the_issues_that_its_maker_heals(config: Heal) -> None:
    judged = judged_by(DidRecord(NUMBER), attempt(heal_issues=("NO_BOT",)), config)

    assert judged == ("NO_BOT",)


def test_an_open_attempt_that_does_not_say_is_judged_by_what_it_was_made_for_and_what_is_healed_here() -> None:
    assert judged_by(DidRecord(NUMBER), attempt(), NARROWER) == ("NO_BOT", "ROUTING_MISSING")


@pytest.mark.parametrize("state", [HealState.PROBATION, HealState.BACKOFF, HealState.QUARANTINED])
def test_what_followed_from_an_attempt_is_judged_by_its_issues_whoever_looks(state: HealState) -> None:
    for config in (HEAL, WIDER, NARROWER):
        assert judged_by(record(state, heal_issues=("NO_BOT",)), None, config) == ("NO_BOT",)
    assert judged_by(record(state), None, NARROWER) == ("ROUTING_MISSING",)


def test_a_did_about_which_nothing_is_known_is_judged_by_what_is_healed_here() -> None:
    assert judged_by(record(HealState.IDLE, heal_issues=("NO_BOT",)), None, NARROWER) == ("ROUTING_MISSING",)


# Following a DID from poll to poll


def follow(track: Track, seen_did: Did | None, passed: float, open_attempt: Attempt | None = None) -> Track:
    return advance(track, classify(seen_did, None, HEAL.issues), NOW, passed, open_attempt)


def test_broken_polls_are_counted_and_timed_from_the_first() -> None:
    track = follow(Track(), did(), 60)
    assert (track.broken_polls, track.broken_for, track.broken_since) == (1, 0, NOW)
    track = follow(track, did("ROUTING_MISSING"), 60)  # another issue: the same incident
    assert (track.broken_polls, track.broken_for, track.broken_since) == (2, 60, NOW)
    track = follow(track, did(), 0)  # polls failed in between: no time is added and none is lost
    assert (track.broken_polls, track.broken_for) == (3, 60)
    assert follow(track, did(READY), 60) == Track(clean_polls=1)


@pytest.mark.parametrize("seen", [None, did("NO_BOT", expired=True), did("NO_BOT", client_id=None)])
def test_what_is_not_healable_starts_the_confirmation_anew(seen: Did | None) -> None:
    track = follow(CONFIRMED, seen, 60)

    assert (track.broken_polls, track.broken_for, track.clean_polls) == (0, 0, 0)


def test_what_was_seen_before_the_answer_says_nothing_about_it() -> None:
    track = follow(Track(clean_polls=5, clean_for=300), did(READY), 60, attempt())

    assert (track.attempt, track.clean_polls, track.clean_for, track.unresolved_for) == (7, 1, 0, 0)


@pytest.mark.parametrize("status", [Status.CLAIMED, Status.SENT])
def test_nothing_is_verified_before_there_is_an_answer(status: Status) -> None:
    track = follow(Track(clean_polls=5), did(READY), 60, attempt(status))

    assert track.attempt is None
    decision = decide(did(READY), replace(track, clean_polls=9), counts=Counts(open=attempt(status)))
    assert (decision.state, decision.action) == (HealState.IN_FLIGHT, None)


@pytest.mark.parametrize(
    ("known", "asked_at", "counts"),
    [
        ({}, NOW + 2, False),
        ({}, NOW + 2.001, True),
        ({"answered_at": None}, NOW + 1, False),
        ({"answered_at": None}, NOW + 1.001, True),
        ({"answered_at": None, "sent_at": None}, NOW, False),
    ],
)
def test_only_polls_that_were_asked_after_the_answer_count(
    known: dict[str, Any],
    asked_at: float,
    counts: bool,  # noqa: FBT001
) -> None:
    assert asked_after(attempt(**known), asked_at) is counts


# Idle and pending


@pytest.mark.parametrize(
    ("polls", "seconds", "sends"), [(3, 120.0, True), (2, 500.0, False), (9, 119.9, False), (4, 180.0, True)]
)
def test_a_did_is_sent_when_it_was_broken_for_long_enough_in_enough_polls(
    polls: int,
    seconds: float,
    sends: bool,  # noqa: FBT001
) -> None:
    decision = decide(did(), Track(broken_polls=polls, broken_for=seconds, broken_since=NOW - seconds))

    assert decision.state is HealState.PENDING
    assert isinstance(decision.action, Send) is sends


def test_what_is_sent_names_the_issues_and_since_when() -> None:
    decision = decide(did("NO_BOT", "NO_BOT", "NO_VOCOBASE_AGENT"), CONFIRMED)

    body = {"did_id": 812, "connection_id": CONNECTION}
    assert decision.action == Send(NUMBER, ("NO_BOT",), body, NOW - 120, did_id=812)


def test_what_is_sent_says_what_the_configuration_of_the_did_names() -> None:
    configured = ConfiguredDid(did_number=NUMBER, client_id=77)
    decision = decide(did(), CONFIRMED, configured=configured)

    assert isinstance(decision.action, Send)
    assert decision.action.body == {"did_id": 812, "connection_id": CONNECTION, "client_id": 77}


@pytest.mark.parametrize("seen", [None, did(READY), did("NO_BOT", expired=True), did(READY, "NO_BOT"), did(MISSING)])
def test_what_is_not_healable_is_idle(seen: Did | None) -> None:
    decision = decide(seen, CONFIRMED)

    assert (decision.state, decision.action) == (HealState.IDLE, None)


@pytest.mark.parametrize(
    ("mode", "ago", "sends"), [("observe", 3599.9, False), ("observe", 3600.0, True), ("enforce", 1.0, True)]
)
def test_observe_mode_leaves_a_did_alone_for_an_hour_and_enforce_mode_does_not_care(
    mode: str,
    ago: float,
    sends: bool,  # noqa: FBT001
) -> None:
    config = Heal.model_validate({"mode": mode})

    decision = decide(did(), CONFIRMED, counts=Counts(would_at=NOW - ago), config=config)

    assert isinstance(decision.action, Send) is sends


# Verifying


@pytest.mark.parametrize("status", [Status.VERIFYING, Status.AMBIGUOUS])
def test_two_clean_polls_verify_and_nothing_less(status: Status) -> None:
    counts = Counts(open=attempt(status))
    one = decide(did(READY), Track(attempt=7, clean_polls=1), counts=counts)
    two = decide(did(READY), Track(attempt=7, clean_polls=2), counts=counts)
    of_another = decide(did(READY), Track(attempt=6, clean_polls=9), counts=counts)

    assert one.action is None
    assert isinstance(two.action, Resolve)
    assert two.action.succeeded
    assert of_another.action is None


@pytest.mark.parametrize(("seconds", "ends"), [(599.9, False), (600.0, True)])
@pytest.mark.parametrize("seen", [did(), None, did("NO_BOT", expired=True)])
def test_an_attempt_that_the_polls_do_not_confirm_in_time_has_failed(
    seen: Did | None,
    seconds: float,
    ends: bool,  # noqa: FBT001
) -> None:
    decision = decide(seen, Track(attempt=7, unresolved_for=seconds), counts=Counts(open=attempt()))

    assert isinstance(decision.action, Resolve) is ends
    if isinstance(decision.action, Resolve):
        assert not decision.action.succeeded


def test_a_did_that_flaps_does_not_keep_its_attempt_open_for_ever() -> None:
    track, open_attempt = Track(), attempt()
    for poll in range(12):
        seen = did(READY) if poll % 2 else did()
        track = follow(track, seen, 60.0, open_attempt)
        decision = decide(seen, track, counts=Counts(open=open_attempt))
        assert isinstance(decision.action, Resolve) is (poll == 10)
        if decision.action:
            break
    assert track.unresolved_for == 600


def test_a_poll_that_is_clean_when_time_is_up_gets_its_second() -> None:
    open_attempt = attempt()
    track = replace(follow(Track(), did(), 60.0, open_attempt), unresolved_for=590.0)

    track = follow(track, did(READY), 60.0, open_attempt)
    assert decide(did(READY), track, counts=Counts(open=open_attempt)).action is None

    track = follow(track, did(READY), 60.0, open_attempt)
    action = decide(did(READY), track, counts=Counts(open=open_attempt)).action
    assert isinstance(action, Resolve)
    assert action.succeeded


def test_time_in_which_polls_failed_does_not_count_against_an_attempt() -> None:
    track = follow(Track(attempt=7, unresolved_for=599), did(), 0.0, attempt())

    assert track.unresolved_for == 599


# Probation, backoff, quarantine


@pytest.mark.parametrize(("seconds", "leaves"), [(3599.9, False), (3600.0, True)])
@pytest.mark.parametrize("state", [HealState.PROBATION, HealState.QUARANTINED])
def test_probation_and_quarantine_end_when_clean_for_long_enough(
    state: HealState,
    seconds: float,
    leaves: bool,  # noqa: FBT001
) -> None:
    known = record(state, failures=2, forgotten_at=1.0, until=5.0)
    decision = decide(did(READY), Track(clean_polls=60, clean_for=seconds), known)

    assert (decision.action is not None) is leaves
    if isinstance(decision.action, Move):
        assert decision.action.state is HealState.IDLE
        after = after_move(decision.action, attempts=Counts(), config=HEAL, now=NOW, jitter=0)
        assert (after.state, after.failures, after.forgotten_at) == (HealState.IDLE, 0, NOW)


@pytest.mark.parametrize("seen", [did(), None, did("NO_BOT", client_id=None), did(READY)])
def test_nothing_else_leaves_quarantine(seen: Did | None) -> None:
    decision = decide(seen, replace(CONFIRMED, clean_for=10.0), record(HealState.QUARANTINED), now=NOW + 10**9)

    assert (decision.state, decision.action) == (HealState.QUARANTINED, None)
    assert f"heal release {NUMBER}" in decision.why


def test_a_did_that_breaks_within_probation_relapses_into_backoff_with_its_attempts() -> None:
    decision = decide(did(), Track(broken_polls=1), record(HealState.PROBATION, forgotten_at=5.0))

    assert isinstance(decision.action, Move)
    assert decision.action.relapse
    once = after_move(decision.action, attempts=Counts(charged=(NOW,)), config=HEAL, now=NOW, jitter=0)
    assert (once.state, once.until, once.failures, once.forgotten_at) == (HealState.BACKOFF, NOW + 600, 1, 5.0)
    often = after_move(decision.action, attempts=Counts(charged=(NOW,) * 3), config=HEAL, now=NOW, jitter=0)
    assert often.state is HealState.QUARANTINED


@pytest.mark.parametrize("seen", [None, did("NO_VOCOBASE_AGENT"), did(READY)])
def test_probation_goes_on_while_the_issue_is_not_seen(seen: Did | None) -> None:
    assert decide(seen, Track(), record(HealState.PROBATION)).action is None


@pytest.mark.parametrize(
    ("seen", "track", "now", "becomes"),
    [
        (did(), CONFIRMED, NOW + 599.9, None),
        (did(), CONFIRMED, NOW + 600, HealState.IDLE),
        (None, Track(), NOW + 600, HealState.IDLE),
        (did(READY), Track(clean_polls=1), NOW, None),
        (did(READY), Track(clean_polls=2), NOW, HealState.PROBATION),
        (did(READY), Track(clean_polls=2), NOW + 600, HealState.PROBATION),
    ],
)
def test_backoff_ends_with_its_time_or_when_the_did_mends_by_itself(
    seen: Did | None, track: Track, now: float, becomes: HealState | None
) -> None:
    action = decide(seen, track, record(HealState.BACKOFF, until=NOW + 600, failures=2), now=now).action

    assert (action.state if isinstance(action, Move) else None) is becomes
    if isinstance(action, Move):
        after = after_move(action, attempts=Counts(), config=HEAL, now=now, jitter=0)
        assert (after.failures, after.forgotten_at) == (2, 0.0)  # nothing is forgotten yet


def test_attempts_that_are_the_most_by_now_quarantine() -> None:
    config = Heal.model_validate({"max_attempts": 2})
    decision = decide(did(), CONFIRMED, counts=Counts(charged=(NOW - 7200, NOW - 3600)), config=config)

    assert isinstance(decision.action, Move)
    assert decision.action.state is HealState.QUARANTINED
    after = after_move(decision.action, attempts=Counts(), config=config, now=NOW, jitter=0.0)
    assert (after.state, after.reason) == (HealState.QUARANTINED, "2 attempts in 1d")


# What each decision says


def moved(known: DidRecord, state: HealState, why: str, *, relapse: bool = False) -> Decision:
    return Decision(NUMBER, state, why, Move(known, state, why, relapse))


def test_each_decision_names_its_did_its_state_and_why() -> None:
    idle, probation = record(HealState.IDLE), record(HealState.PROBATION)
    backoff, quarantined = record(HealState.BACKOFF, until=NOW + 600), record(HealState.QUARANTINED)
    two = Track(broken_polls=2, broken_for=60.0, broken_since=NOW - 60)
    clean = Track(clean_polls=60, clean_for=3600.0)
    both = did("NO_BOT", "NO_BOT", "ROUTING_MISSING")
    send = Send(NUMBER, ("NO_BOT", "ROUTING_MISSING"), {"did_id": 812, "connection_id": CONNECTION}, NOW - 120, 3, 812)
    for known, seen, track, expected in (
        (idle, did(READY), Track(clean_polls=1), Decision(NUMBER, HealState.IDLE, "nothing to heal")),
        (
            idle,
            did("NO_BOT", expired=True),
            CONFIRMED,
            Decision(NUMBER, HealState.IDLE, "not healable: it is expired at VoiceLink; renew it there"),
        ),
        (
            idle,
            both,
            two,
            Decision(NUMBER, HealState.PENDING, "NO_BOT, ROUTING_MISSING in 2 of 3 complete polls, for 60 s of 2m"),
        ),
        (idle, both, CONFIRMED, Decision(NUMBER, HealState.PENDING, "NO_BOT, ROUTING_MISSING confirmed", send)),
        (
            quarantined,
            did(),
            CONFIRMED,
            Decision(
                NUMBER,
                HealState.QUARANTINED,
                f"quarantined: so it is; lift it with heal release {NUMBER} --reason TEXT",
            ),
        ),
        (quarantined, did(READY), clean, moved(quarantined, HealState.IDLE, "clean for 1h, so it leaves quarantine")),
        (
            probation,
            did(READY),
            Track(clean_polls=1),
            Decision(NUMBER, HealState.PROBATION, "repaired; on probation for 1h"),
        ),
        (probation, did(READY), clean, moved(probation, HealState.IDLE, "clean for 1h: its attempts are forgotten")),
        (
            probation,
            both,
            two,
            moved(probation, HealState.BACKOFF, "broken again (NO_BOT, ROUTING_MISSING)", relapse=True),
        ),
        (
            backoff,
            did(),
            CONFIRMED,
            Decision(NUMBER, HealState.BACKOFF, "in backoff for another 600 s: so it is"),
        ),
        (backoff, did(READY), Track(clean_polls=2), moved(backoff, HealState.PROBATION, "recovered by itself")),
    ):
        assert decide(seen, track, known) == expected
    assert decide(did(), CONFIRMED, backoff, now=NOW + 600) == moved(backoff, HealState.IDLE, "backoff is over")


@pytest.fixture
def _in_kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_in_kolkata")
def test_each_decision_on_an_attempt_names_its_did_its_state_and_why() -> None:
    verifying, idle = attempt(), record(HealState.IDLE)
    for open_attempt, track, expected in (
        (
            attempt(Status.SENT),
            Track(),
            Decision(NUMBER, HealState.IN_FLIGHT, "a request is under way since 08:00:00 UTC"),
        ),
        (
            verifying,
            Track(attempt=7),
            Decision(NUMBER, HealState.VERIFYING, "sent; 2 complete polls without the issue will tell"),
        ),
        (
            verifying,
            Track(attempt=7, clean_polls=2),
            Decision(
                NUMBER,
                HealState.VERIFYING,
                "the polls see it repaired",
                Resolve(verifying, succeeded=True, reason="2 complete polls without the issue"),
            ),
        ),
        (
            verifying,
            Track(attempt=7, unresolved_for=600.0),
            Decision(
                NUMBER,
                HealState.VERIFYING,
                "the polls still see the issue",
                Resolve(verifying, succeeded=False, reason="not repaired within 10m of complete polls"),
            ),
        ),
    ):
        assert decide(did(), track, idle, Counts(open=open_attempt)) == expected


def test_what_is_not_sent_says_why() -> None:
    observing = Heal.model_validate({"mode": "observe"})
    decision = decide(did(), CONFIRMED, record(HealState.IDLE), Counts(would_at=NOW - 60), config=observing)
    assert decision == Decision(NUMBER, HealState.PENDING, "observe mode would have sent within the last hour")
    once = Heal.model_validate({"max_attempts": 1})
    known = record(HealState.IDLE)
    decision = decide(did(), CONFIRMED, known, Counts(charged=(NOW - 60,)), config=once)
    assert decision == moved(replace(known, heal_issues=once.issues), HealState.QUARANTINED, "1 attempts in 1d")


def test_a_did_that_is_not_listed_neither_ends_its_attempt_nor_brings_its_end_nearer() -> None:
    opened, gone = attempt(Status.AMBIGUOUS), Observation(Kind.ABSENT)
    track = Track(attempt=opened.id, unresolved_for=500.0)
    for _ in range(5):
        track = advance(track, gone, NOW, 600.0, opened)
        assert track.unresolved_for == 500.0
        assert decide(None, track, counts=Counts(open=opened)).action is None
    track = advance(track, Observation(Kind.HEALABLE, ("NO_BOT",)), NOW, 600.0, opened)
    assert track.unresolved_for == 500.0  # since when it is back nobody knows
    track = advance(track, Observation(Kind.HEALABLE, ("NO_BOT",)), NOW, 99.0, opened)
    assert track.unresolved_for == 599.0


def test_an_attempt_whose_time_is_up_does_not_end_by_a_poll_that_does_not_list_the_did() -> None:
    opened = attempt(Status.VERIFYING)
    clean = advance(
        Track(attempt=opened.id, unresolved_for=590.0), Observation(Kind.CLEAN), NOW, 60.0, opened
    )  # the second clean poll, which would verify it, does not come
    track = advance(clean, Observation(Kind.ABSENT), NOW, 60.0, opened)
    assert decide(None, track, counts=Counts(open=opened)).action is None


def test_two_who_heal_different_issues_do_not_move_a_did_to_and_fro() -> None:
    known = record(HealState.PROBATION, heal_issues=("NO_BOT",))
    for config in (HEAL, NARROWER):
        seen = classify(did("ROUTING_MISSING"), None, judged_by(known, None, config))
        track = advance(Track(), seen, NOW, 60.0, None)
        decision = deciding.decide(
            None, seen, track, known, Counts(), target=TARGET, configured=None, config=config, now=NOW
        )
        assert (seen.kind, decision.action) == (Kind.CLEAN, None)


def test_an_answer_makes_everything_count_anew_but_since_when_it_is_broken() -> None:
    before = Track(broken_polls=3, broken_for=120.0, broken_since=NOW - 120)
    assert follow(before, did(), 60.0, attempt()) == Track(broken_polls=1, broken_since=NOW - 120, attempt=7)


def test_clean_time_is_counted_from_poll_to_poll() -> None:
    track = follow(Track(), did(READY), 60.0)
    assert track.clean_for == 0
    track = follow(track, did(READY), 60.0)
    track = follow(track, did(READY), 45.0)
    assert (track.clean_polls, track.clean_for) == (3, 105.0)
