"""Whatever the way to a fleet, its bytes are the same, and what didn't change isn't rendered again."""

from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import Reason
from exporter.exposition import FAMILIES, Exposition
from exporter.model import Connection, Target
from exporter.snapshots import Fleet, TargetState, expire, poll_failed
from tests.support.fleet import IDS, NOW, ONE, THREE, TWO, A, B, C, entry, fleet_of, polled, watch
from tests.support.reference import reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.model import Entry

ALONE = Target("alone")
TARGETS = (A, B, C, ALONE)
STATES = ("READY", "NO_BOT", "NEW", "NEWER", "x")


def nothing() -> tuple[bytes, bytes]:
    return b"", b""


def text_of(exposition: Exposition) -> bytes:
    return b"".join(exposition.bodies.text.plain)


def lines_of(exposition: Exposition, target: Target, number: str) -> list[bytes]:
    return [lines for _, lines in exposition.did_lines(target, number)]


def rendered(fleet: Fleet) -> Exposition:
    exposition = Exposition(nothing)
    exposition.update(fleet)
    return exposition


def as_before(before: Iterable[bytes], after: Iterable[bytes]) -> list[bool]:
    return [one is other for one, other in zip(before, after, strict=True) if one or other]  # b"" is always the same


ENTRIES = st.lists(
    st.builds(
        lambda number, state, name: entry(number, state, friendly_name=name),
        st.sampled_from((ONE, TWO, THREE)),
        st.sampled_from(STATES),
        st.sampled_from(("", "a", 'b"\n')),
    ),
    max_size=3,
)
WHATS = st.sampled_from(("poll", "poll", "poll", "fail", "expire", "remove", "add", "connections", "plan"))
STEPS = st.lists(st.tuples(WHATS, st.sampled_from(TARGETS), ENTRIES, st.booleans()), max_size=20)


def step(fleet: Fleet, what: str, target: Target, entries: list[Entry], at: float) -> Fleet:
    state = fleet.targets.get(target)
    if what == "connections":
        listed = {Target("default", each): Connection(each, name=f"{at}") for each in IDS[: len(entries)]}
        return replace(fleet, connections=listed)
    if state is None:
        return fleet.with_target(TargetState(target)) if what == "add" else fleet
    if what == "poll":
        return polled(fleet, target, *entries, at=at, by=watch(exclude=(THREE,) if at % 2 else ()))
    if what == "remove":
        return fleet.without(target)
    changed = {
        "fail": poll_failed(state, Reason.OTHER, at - NOW),
        "expire": expire(state, NOW + 1000, 300),
        "plan": replace(state, interval=at - NOW),
    }
    return fleet.with_target(changed.get(what, state))


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_the_way_does_not_matter(steps: list[tuple[str, Target, list[Entry], bool]]) -> None:
    fleet, exposition = fleet_of(A, B), Exposition(nothing)
    exposition.update(fleet)
    for index, (what, target, entries, all_at_once) in enumerate(steps, 1):
        fleet = step(fleet, what, target, entries, NOW + index)
        of_all = all_at_once or what in {"connections", "add", "remove"}
        exposition.update(fleet, None if of_all else target)
        bodies = exposition.bodies
        plain = b"".join(bodies.text.plain), b"".join(bodies.openmetrics.plain)
        assert plain == reference(fleet)
        assert (gzip.decompress(bodies.text.gzip), gzip.decompress(bodies.openmetrics.gzip)) == plain
    assert exposition.bodies.text.gzip == rendered(fleet).bodies.text.gzip
    assert exposition.bodies.openmetrics.gzip == rendered(fleet).bodies.openmetrics.gzip


def test_a_did_that_did_not_change_is_not_rendered_again() -> None:
    fleet = polled(fleet_of(A, B), A, entry(ONE), entry(TWO))
    fleet = polled(fleet, B, entry(THREE))
    exposition = rendered(fleet)
    before = {number: lines_of(exposition, A, number) for number in (ONE, TWO)}
    other = lines_of(exposition, B, THREE)
    assert len(other) == sum(family.level == "did" for family in FAMILIES)
    exposition.update(polled(fleet, A, entry(ONE), entry(TWO, "NO_BOT"), at=NOW + 60), A)
    assert all(as_before(before[ONE], lines_of(exposition, A, ONE)))
    assert not any(as_before(before[TWO], lines_of(exposition, A, TWO)))
    assert all(as_before(other, lines_of(exposition, B, THREE)))


def test_work_is_in_proportion_to_what_changed() -> None:
    numbers = [f"+9180{index:08}" for index in range(500)]
    fleet = polled(fleet_of(A), A, *map(entry, numbers))
    exposition = rendered(fleet)
    before = {number: lines_of(exposition, A, number) for number in numbers}
    changed = set(numbers[::100])
    entries = [entry(number, "NO_BOT" if number in changed else "READY") for number in numbers]
    exposition.update(polled(fleet, A, *entries, at=NOW + 60), A)
    assert {number for number in numbers if lines_of(exposition, A, number)[0] is not before[number][0]} == changed


def test_what_is_kept_of_families_and_targets_that_did_not_change_is_served_again() -> None:
    fleet = polled(polled(fleet_of(A, B), A, entry(ONE)), B, entry(TWO))
    exposition = rendered(fleet)
    before = exposition.bodies.text.plain
    exposition.update(polled(fleet, A, entry(ONE, friendly_name="new"), at=NOW + 60), A)
    after = exposition.bodies.text.plain
    fresh = [part for part in after if not any(part is old for old in before)]
    names = {part.partition(b"{")[0] for part in fresh}
    assert names == {b"voicelink_did_info", b"voicelink_polls_total", b"voicelink_poll_last_success_timestamp_seconds"}
    assert all(IDS[0].encode() in part and IDS[1].encode() not in part for part in fresh)


def test_a_new_word_is_on_every_did_of_every_target_at_once() -> None:
    fleet = polled(polled(fleet_of(A, B), A, entry(ONE)), B, entry(TWO))
    exposition = rendered(fleet)
    fleet = polled(fleet, B, entry(TWO, "NEW"))
    exposition.update(fleet, B)
    assert text_of(exposition).count(b'state="NEW"') == 3  # two DIDs, and the count of B's
    assert text_of(exposition) == reference(fleet)[0]


def test_a_target_that_left_is_not_served_whoever_is_asked_about() -> None:
    fleet = polled(polled(fleet_of(A, B), A, entry(ONE)), B, entry(TWO))
    exposition = rendered(fleet)
    exposition.update(fleet.without(B), B)
    assert IDS[1].encode() not in text_of(exposition)
    assert exposition.did_lines(B, TWO) == []


def test_one_did_alone() -> None:
    exposition = rendered(polled(fleet_of(A, B), A, entry(ONE, "NO_BOT"), entry(TWO)))
    lines = b"".join(lines_of(exposition, A, ONE)).decode()
    assert f'phone_number="{ONE}"' in lines
    assert TWO not in lines
    assert [family.name for family, _ in exposition.did_lines(A, ONE)] == [
        family.name for family in FAMILIES if family.level == "did"
    ]
    assert exposition.did_lines(A, THREE) == exposition.did_lines(B, ONE) == exposition.did_lines(C, ONE) == []


def test_own_metrics_are_read_when_asked_for_and_the_fleet_stays() -> None:
    values = iter("123")

    def own() -> tuple[bytes, bytes]:
        value = next(values).encode()
        return b"own %b\n" % value, b"own %b.0\n" % value

    exposition = Exposition(own)
    fleet = polled(fleet_of(A), A, entry(ONE))
    exposition.update(fleet)
    exposition.refresh_own()
    bodies = exposition.bodies
    text, openmetrics = reference(fleet)
    assert b"".join(bodies.text.plain) == text + b"own 2\n"
    assert b"".join(bodies.openmetrics.plain) == openmetrics.removesuffix(b"# EOF\n") + b"own 2.0\n# EOF\n"


def test_who_serves_keeps_what_it_took() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE))
    exposition = rendered(fleet)
    taken = exposition.bodies
    content = b"".join(taken.text.plain), taken.text.gzip
    exposition.update(polled(fleet, A, entry(ONE, "NO_BOT")), A)
    assert exposition.bodies is not taken
    assert (b"".join(taken.text.plain), taken.text.gzip) == content


def test_after_a_failure_half_way_everything_is_rendered_anew() -> None:
    broken = False

    def own() -> tuple[bytes, bytes]:
        if broken:
            raise MemoryError
        return b"", b""

    fleet = polled(polled(fleet_of(A, B), A, entry(ONE), entry(TWO, "NO_BOT")), B, entry(THREE))
    exposition = Exposition(own)
    exposition.update(fleet)
    before = exposition.bodies
    fleet = polled(fleet, A, entry(ONE), entry(TWO), at=NOW + 60)
    broken = True
    with pytest.raises(MemoryError):
        exposition.update(fleet, A)
    assert exposition.bodies is before
    broken = False
    exposition.update(polled(fleet, A, entry(ONE), entry(TWO), at=NOW + 120), A)
    expected, _ = reference(polled(fleet, A, entry(ONE), entry(TWO), at=NOW + 120))
    assert b"".join(exposition.bodies.text.plain) == expected


def test_what_the_api_does_not_say_of_expiry_is_not_said() -> None:
    exposition = rendered(polled(fleet_of(A), A, entry(ONE, expired=None), entry(TWO, expired=True)))
    lines = [line for line in b"".join(exposition.bodies.text.plain).splitlines() if b"did_expired{" in line]
    assert [line.endswith(b" 1.0") for line in lines] == [True]
