"""One complete poll of a target against what is known of its DIDs: about whom something is said, and by which track."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.config.schema import Account, ConfiguredDid, Heal
from exporter.heal import assess as assessing
from exporter.heal.assess import Assessment, Followed, restarted
from exporter.heal.decide import Decision, Kind, Move, Observation, Resolve, Send, Track
from exporter.model import READY, Did, HealState
from exporter.snapshots import Watch
from exporter.store.records import Attempt, Counts, DidRecord, Status
from tests.support.fleet import EVERYTHING, ONE, THREE, TWO, A, B, entry, fleet_of, polled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.model import Entry, Target

NOW = 1_800_000_000.0
HEAL = Heal()
HELD = Track(broken_polls=3, broken_for=120.0, broken_since=NOW - 120)
PENDING = Track(broken_polls=4, broken_for=180.0, broken_since=NOW - 120)
HERE: dict[str, Any] = {"account": A.account, "connection": A.connection}


def broken(number: str = ONE, state: str = "NO_BOT", *issues: str) -> Entry:
    return entry(number, state, *issues, did_id=812, client_id=415)


def attempt(number: str = ONE, status: Status = Status.VERIFYING, **more: Any) -> Attempt:  # noqa: ANN401 - any field
    where = {**HERE, "claimed_at": NOW - 90, "sent_at": NOW - 89, "answered_at": NOW - 88, **more}
    return Attempt(7, number, status=status, token="t", replica="me", issues=("NO_BOT",), body={}, **where)


def assess(
    *entries: Entry,
    followed: Mapping[str, Followed] | None = None,
    records: Mapping[str, DidRecord] | None = None,
    counts: Mapping[str, Counts] | None = None,
    by: Watch = EVERYTHING,
    asked_at: float = NOW - 1,
    config: Heal = HEAL,
    elsewhere: Sequence[tuple[Target, Did]] = (),
) -> Assessment:
    snapshot = polled(fleet_of(A), A, *entries, by=by, at=NOW).targets[A].snapshot
    assert snapshot is not None
    return assessing.assess(
        snapshot,
        by,
        followed or {},
        records or {},
        counts or {},
        broken=elsewhere,
        config=config,
        asked_at=asked_at,
        passed=60.0,
        now=NOW,
    )


def test_a_fleet_that_is_fine_is_not_worth_a_word() -> None:
    found = assess(entry(ONE), entry(TWO), broken(THREE, "NO_VOCOBASE_AGENT"))
    assert (found.decisions, found.followed, found.sends, found.states, found.changes) == ((), {}, [], {}, False)


def test_sends_are_left_out_with_the_reason_and_all_else_stays() -> None:
    send, moved = Send(ONE, (), {}, 5.0), Move(DidRecord(THREE), HealState.IDLE, "it is over", relapse=False)
    one = Decision(ONE, HealState.PENDING, "it is broken", send)
    two = Decision(TWO, HealState.PENDING, "it is broken", replace(send, number=TWO))
    three = Decision(THREE, HealState.IDLE, "it is over", moved)
    found = Assessment((one, two, three), {ONE: Followed(HELD)})
    assert found.without_sends({ONE: "it left", THREE: "it left", "another": "it left"}) == Assessment(
        (replace(one, action=None, why="it left"), two, three), {ONE: Followed(HELD)}
    )


def test_what_is_broken_is_followed_from_the_first_poll() -> None:
    found = assess(broken(TWO), broken(ONE, "NO_VOCOBASE_AGENT", "NO_VOCOBASE_AGENT", "ROUTING_MISSING"), entry(THREE))
    assert [each.number for each in found.decisions] == [ONE, TWO]
    assert found.states == {ONE: HealState.PENDING, TWO: HealState.PENDING}
    assert found.followed == dict.fromkeys((ONE, TWO), Followed(Track(broken_polls=1, broken_since=NOW)))
    assert (found.sends, found.changes) == ([], False)


def test_a_state_without_an_issue_is_an_issue() -> None:
    found = assess(replace(broken(), issues=()))
    assert found.states == {ONE: HealState.PENDING}


def test_what_is_ready_with_an_issue_is_worth_a_word_and_not_healed() -> None:
    (decision,) = assess(broken(ONE, READY, "NO_BOT")).decisions
    assert decision == Decision(ONE, HealState.IDLE, "not healable: the API says READY and names an issue at once")


def test_what_is_confirmed_is_sent_and_the_longest_broken_first() -> None:
    followed = {
        ONE: Followed(HELD),
        TWO: Followed(replace(HELD, broken_since=NOW - 500)),
        THREE: Followed(replace(HELD, broken_since=NOW - 120)),
    }
    found = assess(broken(ONE), broken(TWO), broken(THREE), followed=followed)
    assert [send.number for send in found.sends] == [TWO, ONE, THREE]
    body = {"did_id": 812, "connection_id": A.connection_id}
    assert found.sends[1] == Send(ONE, ("NO_BOT",), body, NOW - 120, 0, 812)
    assert found.followed[ONE] == Followed(PENDING)
    assert not found.changes  # a send changes nothing before it


def test_a_send_since_nobody_knows_when_comes_first() -> None:
    sends = (Send(ONE, (), {}, 5.0), Send(TWO, (), {}, None))
    found = Assessment(tuple(Decision(each.number, HealState.PENDING, "", each) for each in sends), {})
    assert [send.number for send in found.sends] == [TWO, ONE]


def test_what_was_healable_is_followed_until_it_is_forgotten() -> None:
    found = assess(entry(ONE), followed={ONE: Followed(HELD), TWO: Followed(HELD)})
    assert found.decisions == (Decision(ONE, HealState.IDLE, "nothing to heal"),)  # the other is not in the poll
    assert found.followed == {ONE: Followed(Track(clean_polls=1))}
    away = assess(broken(ONE, "EXPIRED", "EXPIRED"), followed={ONE: Followed(HELD)})
    assert away.followed == {ONE: Followed(Track(clean_polls=1))}


def test_what_is_idle_and_has_nothing_to_remember_is_forgotten() -> None:
    known = {ONE: DidRecord(ONE, **HERE)}
    found = assess(entry(TWO), followed={}, records=known)
    assert (found.decisions, found.followed) == ((), {})


@pytest.mark.parametrize(
    ("where", "listed", "concerned"),
    [
        (HERE, False, True),  # it is gone, and its quarantine is not
        ({**HERE, "account": "another"}, False, False),
        ({**HERE, "connection": "another"}, False, False),
        ({"account": "another", "connection": "another"}, True, True),  # it came here
    ],
)
def test_what_is_held_is_looked_after_where_it_is(where: dict[str, Any], listed: bool, concerned: bool) -> None:  # noqa: FBT001
    record = DidRecord(ONE, state=HealState.QUARANTINED, reason="three", **where)
    found = assess(*([entry(ONE)] if listed else []), entry(TWO), records={ONE: record})
    assert found.states == ({ONE: HealState.QUARANTINED} if concerned else {})
    track = Track(clean_polls=1) if listed else Track()
    assert found.followed == ({ONE: Followed(track, 0)} if concerned else {})


@pytest.mark.parametrize(
    ("where", "listed", "concerned"),
    [
        ({}, False, True),
        ({"account": "another"}, False, False),
        ({"connection": "another"}, False, False),
        ({"account": "another", "connection": "another"}, True, True),
    ],
)
def test_an_open_attempt_is_looked_after_where_its_did_is(
    where: dict[str, Any],
    listed: bool,  # noqa: FBT001
    concerned: bool,  # noqa: FBT001
) -> None:
    counts = {ONE: Counts(open=attempt(**where)), TWO: Counts(charged=(NOW,))}
    found = assess(*([entry(ONE)] if listed else []), entry(TWO), counts=counts)
    assert found.states == ({ONE: HealState.VERIFYING} if concerned else {})


def test_a_did_of_which_nothing_is_known_belongs_to_the_target() -> None:
    followed = {ONE: Followed(Track(broken_polls=2, broken_for=60.0, broken_since=NOW - 60))}
    often = Heal.model_validate({"max_attempts": 1})
    counts = {ONE: Counts(charged=(NOW - 60,))}
    (decision,) = assess(broken(), followed=followed, counts=counts, config=often).decisions
    assert isinstance(decision.action, Move)
    assert decision.action.record == DidRecord(ONE, A.account, A.connection, heal_issues=often.issues)
    assert decision.action.state is HealState.QUARANTINED


def test_a_record_that_changed_after_the_poll_began_says_more_than_the_poll() -> None:
    known = DidRecord(ONE, state=HealState.PROBATION, since=NOW - 1, version=4, **HERE)
    found = assess(broken(), entry(TWO), followed={ONE: Followed(HELD, 4)}, records={ONE: known})
    assert found.decisions == (Decision(ONE, HealState.PROBATION, "it changed after this poll began"),)
    assert found.followed == {ONE: Followed(Track(), 4)}
    before = {ONE: replace(known, since=NOW - 1.001)}
    (decision,) = assess(broken(), followed={ONE: Followed(HELD, 4)}, records=before).decisions
    assert isinstance(decision.action, Move)


def test_others_are_assessed_after_one_that_changed_meanwhile() -> None:
    known = DidRecord(ONE, state=HealState.PROBATION, since=NOW, **HERE)
    found = assess(broken(ONE), broken(TWO), records={ONE: known})
    assert found.states == {ONE: HealState.PROBATION, TWO: HealState.PENDING}


def test_an_open_attempt_is_verified_whenever_its_record_changed() -> None:
    known = DidRecord(ONE, since=NOW, **HERE)
    counts = {ONE: Counts(open=attempt())}
    found = assess(broken(), records={ONE: known}, counts=counts)
    assert found.states == {ONE: HealState.VERIFYING}
    assert found.followed[ONE].track.attempt == 7


def test_a_poll_that_began_before_the_answer_verifies_nothing() -> None:
    followed = {ONE: Followed(Track(attempt=7, clean_polls=1))}
    counts = {ONE: Counts(open=attempt(answered_at=NOW - 10))}
    early = assess(entry(), followed=followed, counts=counts, asked_at=NOW - 10)
    assert (early.followed[ONE].track.attempt, early.changes) == (None, False)
    late = assess(entry(), followed=followed, counts=counts, asked_at=NOW - 9)
    assert isinstance(late.decisions[0].action, Resolve)
    assert late.changes


def test_a_track_starts_anew_when_another_replica_changed_the_record() -> None:
    known = DidRecord(ONE, version=5, **HERE)
    same = assess(broken(), followed={ONE: Followed(HELD, 5)}, records={ONE: known})
    assert same.followed == {ONE: Followed(PENDING, 5)}
    assert same.sends[0].version == 5
    other = assess(broken(), followed={ONE: Followed(HELD, 4)}, records={ONE: known})
    assert other.followed == {ONE: Followed(Track(broken_polls=1, broken_since=NOW - 120), 5)}


def test_what_the_configuration_says_of_a_did_counts() -> None:
    dids = (ConfiguredDid(did_number=ONE, heal=False), ConfiguredDid(did_number=TWO, bot_name="Sales"))
    by = Watch.of(Account(name="default", api_key_env="KEY", dids=dids))
    found = assess(broken(ONE), broken(TWO), followed={ONE: Followed(HELD), TWO: Followed(HELD)}, by=by)
    assert found.decisions[0].why == "not healable: the configuration says heal: false"
    assert found.sends[0].body["bot_name"] == "Sales"


def test_a_did_is_judged_by_what_its_attempt_was_made_for() -> None:
    narrow = Heal.model_validate({"issues": ["ROUTING_MISSING"]})
    counts = {ONE: Counts(open=attempt(heal_issues=("NO_BOT",)))}
    followed = {ONE: Followed(Track(attempt=7, unresolved_for=5.0))}
    found = assess(broken(), followed=followed, counts=counts, config=narrow)
    assert found.followed[ONE].track == Track(broken_polls=1, broken_since=NOW, attempt=7, unresolved_for=65.0)


VERIFIED_BY_THE_NEXT = {ONE: Followed(Track(clean_polls=1, clean_for=3600.0, attempt=7))}


def did(number: str, *, state: str = "NO_BOT", **more: Any) -> Did:  # noqa: ANN401 - any field of an entry
    return Did(entry(number, state, **more), state)


@pytest.mark.parametrize(
    ("healed_id", "seen", "elsewhere", "why"),
    [
        (812, entry(ONE, did_id=812), [], ""),
        (812, entry(ONE), [], ""),
        (None, entry(ONE, did_id=812), [], ""),
        (812, entry(ONE, did_id=900), [], "the API lists it with did_id 900, and 812 was healed"),
        (
            812,
            entry(ONE, did_id=812),
            [(B, did(ONE))],
            f"it has no issue here, and NO_BOT on connection {B.connection}",
        ),
        (812, entry(ONE, did_id=812), [(B, did(ONE, did_id=812))], f"NO_BOT on connection {B.connection}"),
        (812, entry(ONE, did_id=812), [(B, did(ONE, did_id=900))], ""),
        (812, entry(ONE), [(A, did(TWO, did_id=812))], "it has no issue here, and NO_BOT under another number"),
        (812, entry(ONE), [(B, did(TWO, did_id=812))], f"NO_BOT on connection {B.connection}"),
        (None, entry(ONE, did_id=812), [(A, did(TWO, did_id=812))], "NO_BOT under another number"),
        (812, entry(ONE, did_id=812), [(A, did(TWO, did_id=813)), (B, did(THREE))], ""),
        (812, entry(ONE, did_id=812), [(B, did(ONE, state="NO_VOCOBASE_AGENT"))], ""),
        (812, entry(ONE, did_id=812), [(A, did(ONE))], ""),  # what it was before in its own target
    ],
)
@pytest.mark.parametrize("state", [HealState.QUARANTINED, HealState.BACKOFF, HealState.IDLE])
def test_an_attempt_or_a_record_is_ended_by_what_is_seen_of_its_did_where_nothing_says_otherwise(
    healed_id: int | None, seen: Entry, elsewhere: list[tuple[Target, Did]], why: str, state: HealState
) -> None:
    records = {ONE: DidRecord(ONE, state=state, since=NOW - 4000, until=NOW + 9, did_id=healed_id, reason="it failed")}
    counts = {ONE: Counts(open=attempt(did_id=healed_id))} if state is HealState.IDLE else {}
    found = assess(seen, followed=VERIFIED_BY_THE_NEXT, records=records, counts=counts, elsewhere=elsewhere)
    [decision] = found.decisions
    if not why:
        expected = Resolve if state is HealState.IDLE else Move
        assert isinstance(decision.action, expected)
        assert getattr(decision.action, "succeeded", True)
    else:
        assert decision.action is None
        assert why in decision.why
        assert found.followed[ONE].track.clean_polls == 0


def test_an_attempt_is_not_ended_as_failed_by_another_did_of_its_number_either() -> None:
    track = Track(attempt=7, unresolved_for=9999.0)
    counts = {ONE: Counts(open=attempt(did_id=900))}
    [decision] = assess(broken(ONE), followed={ONE: Followed(track)}, counts=counts).decisions
    assert decision.action is None
    counts = {ONE: Counts(open=attempt(did_id=812))}
    [decision] = assess(broken(ONE), followed={ONE: Followed(track)}, counts=counts).decisions
    assert isinstance(decision.action, Resolve)


def test_what_was_decided_on_counts_from_now_on() -> None:
    assert restarted(Followed(HELD, 3)) == Followed(Track(broken_since=NOW - 120), 3)
    assert Followed() == Followed(Track(), 0)
    assert Observation(Kind.CLEAN).issues == ()
