"""What one poll changes of what is known of a target."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import Reason
from exporter.exposition import Exposition
from exporter.model import API_STATES, KNOWN_CODES, KNOWN_STATES, MISSING, OTHER, Anomaly, HealState, Target
from exporter.snapshots import (
    CODES,
    MOST_WORDS,
    STATES,
    Fleet,
    Healing,
    TargetState,
    annotate,
    expire,
    poll_failed,
    recalled,
)
from tests.support.fleet import (
    EVERYTHING,
    IDS,
    NOW,
    ONE,
    THREE,
    TWO,
    A,
    B,
    C,
    entry,
    fleet_of,
    missing,
    odd,
    polled,
    shown,
    states,
    watch,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.model import Did, Entry
    from exporter.snapshots import Watch

UNSHOWABLE = [
    "",
    "no_bot",
    "No_BOT",
    "_X",
    "1X",
    "NO BOT",
    "NO-BOT",
    "A" * 65,
    "NO_BOT\n",
    "ÄÖ",
    "Ⅷ",
    "A\u0660",
    "not a code!",
]
SHOWABLE = ["A", "Z9_", "KYC_PENDING", "A" * 64]
LATER = NOW + 60


# States and codes


@pytest.mark.parametrize("state", API_STATES)
def test_documented_states_are_shown_as_they_are(state: str) -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, state))
    did = shown(fleet, A)[ONE]
    assert (did.state, did.ready, did.codes) == (state, state == "READY", () if state == "READY" else (state,))
    assert (fleet.states, fleet.codes, odd(fleet, A)) == (STATES, CODES, {})


@pytest.mark.parametrize("word", SHOWABLE)
def test_an_undocumented_word_that_looks_like_a_code_is_shown_as_it_is(word: str) -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, word, word))
    did = shown(fleet, A)[ONE]
    assert (did.state, did.codes, did.ready) == (word, (word,), False)
    assert fleet.states.words == (*KNOWN_STATES, word)
    assert fleet.codes.words == (*KNOWN_CODES, word)
    assert odd(fleet, A) == {}


@pytest.mark.parametrize("word", [*UNSHOWABLE, MISSING, OTHER])
def test_a_word_that_cannot_be_shown_becomes_other_and_counts(word: str) -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, word, word, "NO_BOT"))
    did = shown(fleet, A)[ONE]
    assert (did.state, did.codes, did.ready) == (OTHER, (OTHER, "NO_BOT"), False)
    assert did.entry.state == word
    assert fleet.states.words == (*KNOWN_STATES, OTHER)
    assert fleet.codes.words == (*KNOWN_CODES, OTHER)
    assert odd(fleet, A) == {Anomaly.UNKNOWN_CODE: 2}


def test_every_unknown_word_of_every_poll_counts() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, "x", "y", "z"), entry(TWO, "READY", "w"))
    assert odd(fleet, A) == {Anomaly.UNKNOWN_CODE: 4}
    fleet = polled(fleet, A, entry(ONE, "x", "y", "z"), at=LATER)
    assert odd(fleet, A) == {Anomaly.UNKNOWN_CODE: 7}
    assert shown(fleet, A)[ONE].codes == (OTHER,)


def test_states_have_room_for_sixty_four_undocumented_words() -> None:
    words = [f"STATE_{index}" for index in range(MOST_WORDS + 2)]
    entries = [entry(f"+9180{index:08}", word, "NO_BOT") for index, word in enumerate(words)]
    fleet = polled(fleet_of(A), A, *entries)
    assert MOST_WORDS == 64
    assert list(states(fleet, A).values()) == [*words[:64], OTHER, OTHER]
    assert fleet.states.words == (*KNOWN_STATES, *words[:64], OTHER)
    assert fleet.codes == CODES
    assert odd(fleet, A) == {Anomaly.UNKNOWN_CODE: 2}


def test_codes_have_room_of_their_own() -> None:
    words = [f"CODE_{index}" for index in range(MOST_WORDS + 2)]
    fleet = polled(fleet_of(A), A, entry(ONE, "NEW_STATE", *words))
    assert shown(fleet, A)[ONE].codes == (*words[:64], OTHER)
    assert shown(fleet, A)[ONE].state == "NEW_STATE"
    assert odd(fleet, A) == {Anomaly.UNKNOWN_CODE: 2}
    assert shown(polled(fleet, A, entry(ONE, "CODE_65", "CODE_64")), A)[ONE].state == "CODE_65"


def test_other_takes_no_room_and_documented_words_need_none() -> None:
    words = [f"STATE_{index}" for index in range(MOST_WORDS)]
    fleet = polled(fleet_of(A), A, entry(ONE, "nonsense"))
    for word in words:
        fleet = polled(fleet, A, entry(ONE, word))
    assert fleet.states.words == (*KNOWN_STATES, OTHER, *words)
    for word in (*API_STATES, *words):
        assert states(polled(fleet, A, entry(ONE, word)), A) == {ONE: word}


def test_targets_share_their_words() -> None:
    fleet = polled(fleet_of(A, B), A, entry(ONE, "NEW"))
    fleet = polled(fleet, B, entry(TWO, "NEWER"))
    assert fleet.states.others == ("NEW", "NEWER")


def test_what_is_not_monitored_teaches_nothing_and_counts_nothing() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, "NEW"), entry(ONE, "nonsense"), by=watch(exclude=(ONE,)))
    assert (fleet.states, fleet.codes, odd(fleet, A), states(fleet, A)) == (STATES, CODES, {}, {})


# One poll


def test_a_complete_poll_is_a_snapshot() -> None:
    fleet = polled(fleet_of(A), A, entry(TWO), entry(ONE, "NO_BOT"), at=NOW, duration=1.5, drift=3)
    state = fleet.targets[A]
    assert state.snapshot is not None
    assert (state.snapshot.target, state.snapshot.at, state.snapshot.drift_items) == (A, NOW, 3)
    assert list(state.snapshot.dids) == [ONE, TWO]
    assert (state.up, state.polls, state.duration, state.last_success) == (True, 1, 1.5, NOW)
    assert not any(state.failures.values())
    did = state.snapshot.dids[ONE]
    assert (did.number, did.label, did.labels, did.since, did.changes) == (ONE, ONE, (), NOW, 0)


def test_nothing_of_a_snapshot_can_be_changed() -> None:
    dids = shown(polled(fleet_of(A), A, entry()), A)
    with pytest.raises(TypeError):
        dids[TWO] = dids[ONE]  # type: ignore[index]


def test_the_first_of_duplicates_wins_and_the_others_count() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, "NO_BOT"), entry(ONE), entry(TWO), entry(ONE))
    assert states(fleet, A) == {ONE: "NO_BOT", TWO: "READY"}
    assert odd(fleet, A) == {Anomaly.DUPLICATE_DID: 2}


def test_anomalies_of_the_answer_add_up() -> None:
    fleet = polled(fleet_of(A, B), A, entry(), anomalies={Anomaly.INVALID_ENTRY: 2})
    fleet = polled(fleet, A, entry(), anomalies={Anomaly.INVALID_ENTRY: 3})
    assert odd(fleet, A) == {Anomaly.INVALID_ENTRY: 5}
    assert odd(fleet, B) == {}


def test_a_did_that_left_is_gone_and_comes_back_as_new() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE), entry(TWO))
    fleet = polled(fleet, A, entry(ONE, "NO_BOT"), at=LATER)
    fleet = polled(fleet, A, entry(TWO, "NO_BOT"), at=LATER + 60)
    assert states(fleet, A) == {TWO: "NO_BOT"}
    assert (shown(fleet, A)[TWO].since, shown(fleet, A)[TWO].changes) == (LATER + 60, 0)


def test_a_failed_poll_changes_nothing_of_the_dids() -> None:
    before = polled(fleet_of(A), A, entry(), drift=1).targets[A]
    after = poll_failed(before, Reason.TIMEOUT, 30.0)
    assert (after.up, after.polls, after.duration, after.last_success) == (False, 2, 30.0, NOW)
    assert after.failures == dict.fromkeys(Reason, 0) | {Reason.TIMEOUT: 1}
    assert after.snapshot is before.snapshot
    assert after.memory is before.memory
    assert poll_failed(after, Reason.TIMEOUT, 1).failures[Reason.TIMEOUT] == 2
    assert poll_failed(after, Reason.AUTH, 1).failures == {**after.failures, Reason.AUTH: 1}


# Changes


def test_a_did_of_which_nothing_changed_stays_the_very_same_object() -> None:
    first = polled(fleet_of(A), A, entry(ONE, "x", "y", "NO_BOT"), entry(TWO))
    second = polled(first, A, entry(TWO, "NO_BOT"), entry(ONE, "x", "y", "NO_BOT"), at=LATER)
    assert shown(second, A)[ONE] is shown(first, A)[ONE]
    assert shown(second, A)[TWO] is not shown(first, A)[TWO]


def test_a_missing_did_of_which_nothing_changed_stays_the_very_same_object() -> None:
    first = polled(polled(fleet_of(A), A, entry(did_id=812), by=watch(812)), A, by=watch(812))
    assert shown(polled(first, A, by=watch(812), at=LATER), A)[ONE] is shown(first, A)[ONE]


@pytest.mark.parametrize(
    "after",
    [
        entry(friendly_name="new"),
        entry(ONE, "READY", "NO_BOT"),
        entry(expired=True),
        entry(did_id=1),
        entry(client_id=1),
        entry(agent_id="x"),
    ],
    ids=str,
)
def test_a_change_of_anything_else_is_no_change_of_state(after: Entry) -> None:
    fleet = polled(polled(fleet_of(A), A, entry()), A, after, at=LATER)
    did = shown(fleet, A)[ONE]
    assert (did.entry, did.since, did.changes) == (after, NOW, 0)


def test_a_change_of_state_is_dated_and_counted() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, "NO_BOT"))
    for index, state in enumerate(["NO_BOT", "READY", "READY", "x", "y", "NO_BOT"], 1):
        fleet = polled(fleet, A, entry(ONE, state), at=NOW + index)
    did = shown(fleet, A)[ONE]
    assert (did.state, did.since, did.changes) == ("NO_BOT", NOW + 6, 3)  # x and y are both OTHER


def test_going_missing_and_coming_back_are_changes_of_state() -> None:
    fleet = polled(fleet_of(A), A, entry(), by=watch(ONE))
    fleet = polled(fleet, A, by=watch(ONE), at=NOW + 1)
    fleet = polled(fleet, A, by=watch(ONE), at=NOW + 2)
    assert (shown(fleet, A)[ONE].since, shown(fleet, A)[ONE].changes) == (NOW + 1, 1)
    fleet = polled(fleet, A, entry(), by=watch(ONE), at=NOW + 3)
    assert (shown(fleet, A)[ONE].since, shown(fleet, A)[ONE].changes) == (NOW + 3, 2)


# Staleness


def test_a_snapshot_goes_when_it_is_older_than_it_may_be() -> None:
    state = polled(fleet_of(A), A, entry()).targets[A]
    assert expire(state, NOW + 300, 300) is state
    stale = expire(state, NOW + 300.1, 300)
    assert (stale.snapshot, stale.memory, stale.up, stale.last_success) == (None, state.memory, True, NOW)
    assert expire(stale, NOW + 900, 300) is stale


def test_a_target_never_polled_has_nothing_to_expire() -> None:
    state = TargetState(A)
    assert expire(state, NOW, 300) is state


def test_no_change_of_state_is_lost_or_invented_over_stale_data() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, "NO_BOT"), entry(TWO))
    fleet = polled(fleet, A, entry(ONE), entry(TWO), at=LATER)
    before = shown(fleet, A)
    fleet = fleet.with_target(expire(fleet.targets[A], NOW + 3600, 300))
    assert states(fleet, A) == {}
    fleet = polled(fleet, A, entry(ONE), entry(TWO, "NO_BOT"), at=NOW + 3600)
    assert shown(fleet, A)[ONE] is before[ONE]
    assert (shown(fleet, A)[TWO].since, shown(fleet, A)[TWO].changes) == (NOW + 3600, 1)


# What is monitored


def test_only_configured_dids_are_monitored_where_some_are() -> None:
    by = watch(ONE, 812)
    fleet = polled(fleet_of(A), A, entry(ONE), entry(TWO, did_id=812), entry(THREE, did_id=813), by=by)
    assert states(fleet, A) == {ONE: "READY", TWO: "READY"}


def test_excluded_numbers_are_not_monitored() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE), entry(TWO), by=watch(exclude=(TWO,)))
    assert states(fleet, A) == {ONE: "READY"}


def test_exclusion_is_stronger_than_an_id() -> None:
    assert not watch(812, exclude=(ONE,)).wants(entry(ONE, did_id=812))


def test_the_users_labels_are_on_the_configured_did() -> None:
    by = watch(ONE, 812, team="sales", area="south")
    fleet = polled(fleet_of(A), A, entry(ONE), entry(TWO, did_id=812), by=by)
    wanted = (("area", "south"), ("team", "sales"))
    assert [did.labels for did in shown(fleet, A).values()] == [wanted, wanted]
    assert [did.labels for did in shown(polled(fleet, A, by=by), A).values()] == [wanted, wanted]


def test_what_is_configured_by_number_wins_over_an_id() -> None:
    by = watch(ONE, 812)
    assert by.find(entry(ONE, did_id=812)) is by.by_number[ONE]


def test_a_keyed_hash_takes_the_place_of_the_number_in_labels() -> None:
    key = b"0123456789abcdef"
    did = shown(polled(fleet_of(A), A, entry(), by=watch(hash_key=key)), A)[ONE]
    assert did.label == hmac.new(key, ONE.encode(), hashlib.sha256).hexdigest()[:16]
    assert did.number == ONE


# MISSING


def test_a_configured_number_that_is_not_there_is_missing() -> None:
    fleet = polled(fleet_of(A), A, entry(TWO), by=watch(ONE, TWO))
    did = shown(fleet, A)[ONE]
    assert (did.state, did.ready, did.codes, did.entry.issues, did.since) == (MISSING, False, (), (), NOW)
    assert odd(fleet, A) == {}


def test_an_id_that_was_never_seen_is_called_by_its_id() -> None:
    fleet = polled(fleet_of(A), A, by=watch(812))
    did = shown(fleet, A)["did:812"]
    assert (did.state, did.label, did.entry.did_id) == (MISSING, "did:812", 812)


def test_an_id_that_is_seen_at_last_gets_its_number() -> None:
    fleet = polled(polled(fleet_of(A), A, by=watch(812)), A, entry(did_id=812), by=watch(812))
    assert states(fleet, A) == {ONE: "READY"}


def test_an_id_that_was_seen_is_missing_under_its_last_number() -> None:
    fleet = polled(fleet_of(A), A, entry(did_id=812), by=watch(812))
    fleet = polled(fleet, A, entry(TWO, did_id=812), by=watch(812))
    assert states(fleet, A) == {TWO: "READY"}
    for _ in range(2):
        fleet = polled(fleet, A, by=watch(812))
        assert states(fleet, A) == {TWO: MISSING}


def test_a_missing_did_keeps_what_names_it_and_nothing_else() -> None:
    full = entry(did_id=812, client_id=4, friendly_name="Sales", agent_id="a", bot_id="b", expired=True, did_status="x")
    fleet = polled(polled(fleet_of(A), A, full, by=watch(ONE)), A, by=watch(ONE))
    wanted = entry(ONE, MISSING, did_id=812, client_id=4, friendly_name="Sales")
    assert shown(fleet, A)[ONE].entry == type(wanted)(ONE, MISSING, did_id=812, client_id=4, friendly_name="Sales")


def test_an_id_that_the_api_leaves_out_for_once_does_not_make_a_did_missing() -> None:
    fleet = polled(fleet_of(A), A, entry(did_id=812), by=watch(812))
    fleet = polled(fleet, A, entry(ONE, "NO_BOT"), entry(TWO), by=watch(812))
    assert states(fleet, A) == {ONE: "NO_BOT"}


def test_nothing_is_missing_where_nothing_is_configured() -> None:
    assert states(polled(polled(fleet_of(A), A, entry()), A), A) == {}


def test_a_failed_poll_makes_nothing_missing() -> None:
    state = poll_failed(TargetState(A), Reason.TIMEOUT, 1.0)
    assert (state.snapshot, dict(state.memory)) == (None, {})


@pytest.mark.parametrize("did", [ONE, 812], ids=["number", "id"])
def test_what_was_never_seen_is_missing_at_the_first_target_once_all_were_asked(did: str | int) -> None:
    by, name = watch(did), did if isinstance(did, str) else f"did:{did}"
    fleet = polled(fleet_of(C, B, A), A, by=by)
    assert missing(fleet) == []
    fleet = polled(polled(fleet, B, by=by), C, by=by)
    assert missing(fleet) == []
    for target in (A, B, C, A):
        fleet = polled(fleet, target, by=by)
        assert missing(fleet) == [(A, name)]


def test_other_accounts_have_no_say_in_it() -> None:
    other = Target("another", IDS[0])
    fleet = polled(fleet_of(other, A), A, by=watch(ONE))
    assert missing(fleet) == [(A, ONE)]
    assert missing(polled(fleet_of(other, A), other, entry(ONE))) == []


@pytest.mark.parametrize("did", [ONE, 812], ids=["number", "id"])
def test_the_target_that_had_it_last_reports_it(did: str | int) -> None:
    by = watch(did)
    fleet = polled(fleet_of(A, B), B, entry(did_id=812), by=by)
    fleet = polled(fleet, A, by=by)
    assert missing(fleet) == []
    for target in (B, A, B):
        fleet = polled(fleet, target, by=by)
        assert missing(fleet) == [(B, ONE)]


@pytest.mark.parametrize("did", [ONE, 812], ids=["number", "id"])
@pytest.mark.parametrize("to", [A, C])
def test_a_did_that_moves_is_missing_nowhere(to: Target, did: str | int) -> None:
    by = watch(did)
    fleet = fleet_of(A, B, C)
    for target in (A, B, C):
        fleet = polled(fleet, target, *([entry(did_id=812)] if target == B else []), by=by)
    fleet = polled(fleet, to, entry(did_id=812), by=by)
    fleet = polled(fleet, B, by=by)
    assert missing(fleet) == []
    assert states(fleet, to) == {ONE: "READY"}


@pytest.mark.parametrize("to", [A, C])
def test_an_id_called_missing_is_no_more_so_when_another_target_gets_it(to: Target) -> None:
    by = watch(812)
    late = [B] if to == A else []
    fleet = fleet_of(B, C)
    for target in (C, B):
        fleet = polled(fleet, target, by=by)
    assert missing(fleet) == [(B, "did:812")]
    if to == A:
        fleet = fleet.with_target(TargetState(A))
    fleet = polled(fleet, to, entry(did_id=812), by=by, at=LATER)
    fleet = polled(fleet, B, by=by, at=LATER)
    assert missing(fleet) == []
    for target in (to, B, C, *late):
        fleet = polled(fleet, target, by=by, at=LATER + 1)
    assert missing(fleet) == [(to, ONE)]


def test_an_id_that_another_target_holds_under_another_number_is_not_missing() -> None:
    by = watch(812)
    fleet = polled(fleet_of(A, B), B, entry(TWO, did_id=812), by=by)
    fleet = polled(fleet, A, entry(ONE, did_id=812), by=by, at=NOW + 1)
    assert missing(polled(fleet, A, by=by, at=NOW + 2)) == []


@pytest.mark.parametrize("at", [NOW + 1, NOW - 10], ids=["later", "clock set back"])
@pytest.mark.parametrize("there", [A, C])
def test_an_id_that_came_and_went_is_missing_under_the_number_it_had(there: Target, at: float) -> None:
    by = watch(812)
    fleet = polled(fleet_of(B), B, by=by)
    assert missing(fleet) == [(B, "did:812")]
    fleet = polled(fleet.with_target(TargetState(there)), there, entry(did_id=812), by=by, at=at)
    fleet = polled(fleet, there, by=by, at=at + 1)
    assert sorted(missing(fleet)) == sorted([(there, ONE), (B, "did:812")])  # B wasn't asked since
    assert missing(polled(fleet, B, by=by, at=at + 2)) == [(there, ONE)]


@pytest.mark.parametrize("did", [ONE, 812], ids=["number", "id"])
@pytest.mark.parametrize(("first", "then"), [(A, B), (B, A)])
def test_a_target_that_slept_while_a_did_came_and_went_elsewhere_lets_go_of_it(
    first: Target, then: Target, did: str | int
) -> None:
    by = watch(did)
    fleet = polled(polled(fleet_of(A, B), then, by=by), first, entry(did_id=812), by=by)
    fleet = polled(fleet, first, by=by, at=NOW + 1)
    fleet = polled(fleet, then, entry(did_id=812), by=by, at=NOW + 2)
    fleet = polled(fleet, then, by=by, at=NOW + 3)
    fleet = polled(fleet, first, by=by, at=NOW + 4)
    assert missing(fleet) == [(then, ONE)]


def test_another_target_is_asked_to_report_when_the_one_that_had_it_last_leaves() -> None:
    by = watch(ONE)
    fleet = polled(polled(fleet_of(A, B), A, by=by), B, entry(), by=by)
    fleet = polled(polled(fleet, B, by=by).without(B), A, by=by)
    assert missing(fleet) == [(A, ONE)]


# Healing, and what was known before the start


def test_where_a_did_is_in_its_heal_is_marked_on_it_alone() -> None:
    before = polled(fleet_of(A), A, entry(ONE), entry(TWO)).targets[A]
    healing = Healing(mode="enforce", in_flight=1)
    after = annotate(before, healing, {ONE: HealState.IN_FLIGHT, TWO: HealState.IDLE, THREE: HealState.BACKOFF})
    assert after.healing == healing
    assert after.snapshot is not None
    assert [did.heal for did in after.snapshot.dids.values()] == ["in_flight", ""]
    assert after.memory is after.snapshot.dids
    assert after.memory[TWO] is before.memory[TWO]
    assert (after.memory[ONE].state, after.memory[ONE].since, after.memory[ONE].changes) == ("READY", NOW, 0)
    assert annotate(after, healing, {}).memory[ONE] == before.memory[ONE]


def test_healing_that_marks_nothing_anew_leaves_the_dids_as_they_are() -> None:
    before = annotate(polled(fleet_of(A), A, entry()).targets[A], Healing(), {ONE: HealState.PENDING})
    for states_of in (None, {ONE: HealState.PENDING}):
        after = annotate(before, Healing(would=3), states_of)
        assert (after.healing.would, after.snapshot, after.memory[ONE]) == (3, before.snapshot, before.memory[ONE])
        assert after.memory is before.memory


def test_a_mark_stays_over_polls_and_on_stale_data() -> None:
    fleet = polled(fleet_of(A), A, entry())
    stale = annotate(expire(fleet.targets[A], NOW + 301, 300), Healing(), {ONE: HealState.PROBATION})
    assert stale.snapshot is None
    fleet = polled(fleet.with_target(stale), A, entry(ONE, "NO_BOT"), at=NOW + 400)
    assert shown(fleet, A)[ONE].heal == "probation"


def test_what_was_known_before_the_start_goes_on() -> None:
    known = {ONE: ("NO_BOT", NOW - 100, 4), TWO: ("READY", NOW - 200, 2)}
    state = recalled(A, known, Healing(mode="observe"))
    assert (state.up, state.snapshot, state.healing.mode) == (None, None, "observe")
    fleet = polled(Fleet({A: state}), A, entry(ONE), entry(TWO, did_id=1))
    assert [(did.since, did.changes) for did in shown(fleet, A).values()] == [(NOW, 5), (NOW - 200, 2)]


@pytest.mark.parametrize("state", ["READY", MISSING])
def test_what_was_known_before_the_start_gets_its_labels_even_where_nothing_changed(state: str) -> None:
    fleet = Fleet({A: recalled(A, {ONE: (state, NOW - 100, 4)}, Healing())})
    by = watch(ONE, team="sales")
    fleet = polled(fleet, A, *([] if state == MISSING else [entry()]), by=by)
    did = shown(fleet, A)[ONE]
    assert (did.state, did.since, did.changes) == (state, NOW - 100, 4)
    assert (did.label, did.labels) == (ONE, (("team", "sales"),))


# A fleet


def test_targets_come_and_go_without_touching_the_others() -> None:
    fleet = polled(fleet_of(A, B), A, entry())
    more = fleet.with_target(TargetState(C))
    assert more.targets[A] is fleet.targets[A]
    assert [state.target for state in more.of_account("default")] == [A, B, C]
    assert more.without(C).targets == fleet.targets
    assert more.without(A).of_account("default") == [fleet.targets[B], more.targets[C]]
    assert more.of_account("nobody") == []


# Whatever happens

NUMBERS = (ONE, TWO, THREE)
WORDS = ("READY", "NO_BOT", "NEW", "x", MISSING, OTHER)
ENTRIES = st.lists(
    st.builds(
        lambda number, state, named: entry(number, state, did_id=800 + NUMBERS.index(number) if named else None),
        st.sampled_from(NUMBERS),
        st.sampled_from(WORDS),
        st.booleans(),
    ),
    max_size=4,
)
STEPS = st.lists(
    st.tuples(st.sampled_from((A, B, C)), st.sampled_from(("poll", "poll", "poll", "fail", "expire")), ENTRIES),
    max_size=14,
)
WATCHES = st.sampled_from((EVERYTHING, watch(ONE), watch(ONE, TWO), watch(800), watch(800, TWO), watch(800, 801)))


def _lines(fleet: Fleet) -> list[str]:
    exposition = Exposition(lambda: (b"", b""))
    exposition.update(fleet)
    return b"".join(exposition.bodies.text.plain).decode().splitlines()


def _step(fleet: Fleet, target: Target, what: str, entries: Sequence[Entry], *, by: Watch, at: float) -> Fleet:
    if what == "poll":
        return polled(fleet, target, *entries, by=by, at=at)
    state = fleet.targets[target]
    return fleet.with_target(poll_failed(state, Reason.OTHER, 1.0) if what == "fail" else expire(state, at, 3.5))


def _check_target(before: TargetState, after: TargetState, what: str) -> None:
    assert after.polls == before.polls + (what != "expire")
    assert sum(after.failures.values()) == sum(before.failures.values()) + (what == "fail")
    assert all(count >= before.anomalies[kind] for kind, count in after.anomalies.items())
    if what != "poll":
        assert after.memory is before.memory
        assert after.snapshot in (before.snapshot, None)
    elif after.snapshot:
        assert dict(after.snapshot.dids) == dict(after.memory)
    for number, did in after.memory.items():
        old = before.memory.get(number)
        if old:
            _check_did(old, did)


def _check_did(old: Did, new: Did) -> None:
    assert new.changes == old.changes + (old.state != new.state)
    assert (new.since == old.since) == (old.state == new.state)
    assert (new is old) == ((new.entry, new.state, new.codes) == (old.entry, old.state, old.codes))


def _check_rendering(fleet: Fleet) -> None:
    lines = _lines(fleet)
    assert len({line.rpartition(" ")[0] for line in lines if line[0] != "#"}) == sum(line[0] != "#" for line in lines)
    ones = [line for line in lines if line.startswith("voicelink_did_state{") and line.endswith(" 1.0")]
    zeros = [line for line in lines if line.startswith("voicelink_did_state{") and line.endswith(" 0.0")]
    count = sum(len(shown(fleet, target)) for target in fleet.targets)
    assert len(ones) == count
    assert len(zeros) == count * (len(fleet.states.words) - 1)
    ready = [line for line in lines if line.startswith("voicelink_did_ready{") and line.endswith(" 1.0")]
    assert len(ready) == sum('state="READY"' in line for line in ones)


def _where(fleet: Fleet, by: Watch) -> Mapping[str | int, list[Target]]:
    """Return which targets report each configured DID as missing."""
    found: dict[str | int, list[Target]] = {**{number: [] for number in by.by_number}, **{did: [] for did in by.by_id}}
    for target, state in fleet.targets.items():
        for did in state.memory.values():
            if did.state == MISSING:
                configured = by.find(did.entry)
                assert configured is not None
                found[configured.did_number or configured.did_id or 0].append(target)
    return found


@settings(max_examples=150, deadline=None)
@given(STEPS, WATCHES)
def test_whatever_happens(steps: list[tuple[Target, str, list[Entry]]], by: Watch) -> None:
    fleet = fleet_of(A, B, C)
    for index, (target, what, entries) in enumerate(steps, 1):
        before, fleet = fleet, _step(fleet, target, what, entries, by=by, at=NOW + index)
        _check_target(before.targets[target], fleet.targets[target], what)
        assert all(fleet.targets[other] is before.targets[other] for other in (A, B, C) if other != target)
        assert fleet.states.words[: len(before.states.words)] == before.states.words
    _check_rendering(fleet)


@settings(max_examples=150, deadline=None)
@given(STEPS, WATCHES, st.permutations((A, B, C)), st.sets(st.sampled_from(NUMBERS)))
def test_whatever_happened_one_target_reports_a_missing_did_once_all_were_asked(
    steps: list[tuple[Target, str, list[Entry]]], by: Watch, order: list[Target], there: set[str]
) -> None:
    fleet = fleet_of(A, B, C)
    for index, (target, what, entries) in enumerate(steps, 1):
        fleet = _step(fleet, target, what, entries, by=by, at=NOW + index)
    now = [entry(number, did_id=800 + NUMBERS.index(number)) for number in sorted(there)]
    for index, target in enumerate([*order, *order, *order], 100):
        fleet = _step(fleet, target, "poll", now if target == order[0] else [], by=by, at=NOW + index)
    present = {*there, *(800 + NUMBERS.index(number) for number in there)}
    assert {did: len(targets) for did, targets in _where(fleet, by).items()} == {
        did: int(did not in present) for did in (*by.by_number, *by.by_id)
    }


def test_a_clock_that_was_set_back_makes_nothing_younger() -> None:
    state = polled(fleet_of(A), A, entry()).targets[A]
    assert expire(state, NOW - 3600, 300, passed=300) is state
    assert expire(state, NOW - 3600, 300, passed=300.1).snapshot is None


def test_where_polls_are_further_apart_than_data_may_be_old_it_lasts_for_two_of_them() -> None:
    state = replace(polled(fleet_of(A), A, entry()).targets[A], interval=301.0)
    assert expire(state, NOW + 602, 300) is state
    assert expire(state, NOW + 602.1, 300).snapshot is None
