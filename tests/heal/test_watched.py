"""What the controller holds of a target: which polls tell of a DID, and which sends wait for another number's heal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.heal.decide import Send
from exporter.heal.watched import held_by_did_id, is_listed
from exporter.model import MISSING, Did, Entry, HealState, Snapshot, Target
from exporter.store.records import Attempt, Counts, DidRecord, Status

ONE, TWO, THREE = "+918011223344", "+918011223345", "+918011223346"
OPEN = Attempt(7, ONE, "main", "default", Status.AMBIGUOUS, "token", "me", ("NO_BOT",), {}, 1.0, did_id=812)


def send(number: str, did_id: int | None) -> Send:
    return Send(number, ("NO_BOT",), {}, None, did_id=did_id)


SENDS = [send(ONE, 812), send(TWO, 812), send(THREE, 813), send(THREE, None)]
SAME = "another number has the same did_id, and of that: "


def test_a_send_waits_for_the_heal_of_the_same_did_under_another_number() -> None:
    assert held_by_did_id(SENDS, {}, {ONE: Counts(open=OPEN)}, 0.0) == {TWO: f"{SAME}attempt 7 is open"}
    assert held_by_did_id(SENDS, {}, {ONE: Counts(open=replace(OPEN, did_id=None))}, 0.0) == {}
    assert held_by_did_id(SENDS, {}, {ONE: Counts()}, 0.0) == {}


@pytest.mark.parametrize(
    ("state", "did_id", "now", "held"),
    [
        (HealState.QUARANTINED, 812, 99.0, {TWO: f"{SAME}quarantined: it failed"}),
        (HealState.QUARANTINED, None, 99.0, {}),
        (HealState.BACKOFF, 812, 9.0, {TWO: f"{SAME}backoff: it failed"}),
        (HealState.BACKOFF, 812, 10.0, {}),
        (HealState.PROBATION, 812, 9.0, {}),
    ],
)
def test_a_send_waits_for_what_followed_from_a_heal_of_the_same_did_under_another_number(
    state: HealState, did_id: int | None, now: float, held: dict[str, str]
) -> None:
    record = DidRecord(ONE, state=state, until=10.0, reason="it failed", did_id=did_id)
    assert held_by_did_id(SENDS, {ONE: record}, {}, now) == held


@pytest.mark.parametrize(
    ("entry", "listed"),
    [
        (Entry(ONE, "NO_BOT", did_id=812), True),
        (Entry(ONE, "NO_BOT"), True),
        (Entry(ONE, "NO_BOT", did_id=813), False),
        (Entry(ONE, "NO_BOT", did_id=813, id_remembered=True), True),
        (Entry(ONE, MISSING), False),
        (Entry(TWO, "NO_BOT", did_id=812), False),
    ],
)
def test_a_poll_tells_of_the_did_that_the_api_listed_in_it(entry: Entry, *, listed: bool) -> None:
    snapshot = Snapshot(Target("main"), 1.0, {entry.number: Did(entry, entry.state)})
    assert is_listed(snapshot, OPEN) is listed
    if listed:
        assert is_listed(snapshot, replace(OPEN, did_id=None))
