"""What the controller holds of a target: which polls tell of a DID, and which sends wait for another number's heal."""

from __future__ import annotations

from dataclasses import replace

from exporter.heal.decide import Send
from exporter.heal.watched import held_by_did_id, is_listed
from exporter.model import MISSING, Did, Entry, Snapshot, Target
from exporter.store.records import Attempt, Counts, Status

ONE, TWO, THREE = "+918011223344", "+918011223345", "+918011223346"
OPEN = Attempt(7, ONE, "main", "default", Status.AMBIGUOUS, "token", "me", ("NO_BOT",), {}, 1.0, did_id=812)


def send(number: str, did_id: int | None) -> Send:
    return Send(number, ("NO_BOT",), {}, None, did_id=did_id)


def test_a_send_waits_for_the_heal_of_the_same_did_under_another_number() -> None:
    sends = [send(TWO, 812), send(THREE, 813), send(THREE, None)]
    why = "attempt 7 on the same did_id is open, under another number"
    assert held_by_did_id(sends, {ONE: Counts(open=OPEN)}) == {TWO: why}
    assert held_by_did_id(sends, {ONE: Counts(open=replace(OPEN, did_id=None))}) == {}
    assert held_by_did_id(sends, {ONE: Counts()}) == {}


def test_a_poll_tells_of_what_the_api_listed_in_it() -> None:
    dids = {ONE: Did(Entry(ONE, "NO_BOT"), "NO_BOT"), TWO: Did(Entry(TWO, MISSING), MISSING)}
    snapshot = Snapshot(Target("main"), 1.0, dids)
    assert [is_listed(snapshot, number) for number in (ONE, TWO, THREE)] == [True, False, False]
