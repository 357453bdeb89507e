"""Times of the store under clocks that are set: nothing becomes older by that, and nothing stays in the future."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.clock import SET
from exporter.model import HealState, Outcome
from exporter.store import stamps as reading
from exporter.store.records import AccountRecord, Attempt, DidRecord, EndedAttempt, Status
from exporter.store.stamps import StampReader
from tests.support.clock import ManualClock

HOUR = 3600.0


class Hands(ManualClock):
    """A clock that passes at once."""

    def passes(self, seconds: float) -> None:
        self._elapsed += seconds


@pytest.fixture
def clock() -> Hands:
    clock = Hands()
    clock.passes(1000.0)  # what it counts from means nothing
    return clock


@pytest.fixture
def stamps(clock: Hands) -> StampReader:
    return StampReader(clock)


def test_while_the_clock_is_right_stamps_are_what_they_are(clock: Hands, stamps: StampReader) -> None:
    at = clock.time() - 10.0
    clock.passes(90.0)
    assert (stamps.local(at), stamps.age(at), stamps.earliest) == (at, 100.0, clock.time())


def test_a_clock_set_forward_makes_nothing_older(clock: Hands, stamps: StampReader) -> None:
    at = clock.time()
    clock.passes(60.0)
    clock.set_by(6 * HOUR)
    assert stamps.age(at) == 60.0
    assert clock.time() - stamps.local(at) == 60.0
    later = clock.time()
    clock.passes(30.0)
    assert stamps.age(later) <= 30.0  # what is written now is new, too
    assert stamps.age(at) == 90.0


def test_a_stamp_of_the_future_is_of_now_and_ages(clock: Hands, stamps: StampReader) -> None:
    at = clock.time() + 6 * HOUR
    assert stamps.age(at) == 0.0
    clock.passes(HOUR)
    assert stamps.age(at) == HOUR
    assert clock.time() - stamps.local(at) == HOUR
    clock.passes(6 * HOUR)
    assert stamps.age(at) == 7 * HOUR


def test_a_stamp_written_before_the_clock_was_set_back_is_of_now_when_it_is_read(
    clock: Hands, stamps: StampReader
) -> None:
    at = clock.time()
    clock.set_by(-HOUR)
    assert stamps.age(at) == 0.0
    clock.passes(60.0)
    assert stamps.age(at) == 60.0


def test_a_second_ahead_is_no_fault(clock: Hands, stamps: StampReader) -> None:
    at = clock.time() + 0.9
    assert (stamps.age(at), stamps.local(at)) == (0.0, at)


@given(
    moves=st.lists(
        st.one_of(
            st.tuples(st.just("pass"), st.floats(0.0, 2 * HOUR)),
            st.tuples(st.just("set"), st.floats(-48 * HOUR, 48 * HOUR)),
            st.tuples(st.just("write"), st.just(0.0)),
        ),
        max_size=30,
    )
)
def test_nothing_is_ever_read_as_older_than_it_is_nor_frozen(moves: list[tuple[str, float]]) -> None:
    clock = Hands()
    stamps = StampReader(clock)
    written: list[tuple[float, float]] = []
    for move, seconds in moves:
        if move == "pass":
            clock.passes(seconds)
        elif move == "set":
            clock.set_by(seconds)
        else:
            written.append((clock.time(), clock.monotonic()))
        for stamp, at in written:
            assert stamps.age(stamp) <= clock.monotonic() - at + 1.001
    ages = [stamps.age(stamp) for stamp, _ in written]
    clock.passes(50 * HOUR)
    for (stamp, _), age in zip(written, ages, strict=True):
        assert stamps.age(stamp) >= age
        assert stamps.age(stamp) >= 50 * HOUR - 1.001


def test_what_does_not_change_is_timed_by_the_monotonic_clock(clock: Hands, stamps: StampReader) -> None:
    assert stamps.unchanged_for("a", 1.0) == 0.0
    clock.passes(30.0)
    clock.set_by(-HOUR)
    assert stamps.unchanged_for("a", 1.0) == 30.0
    assert stamps.unchanged_for("a", 2.0) == 0.0
    clock.passes(5.0)
    stamps.retain({"b"})
    assert stamps.unchanged_for("a", 2.0) == 0.0


def test_a_stamp_may_be_as_far_ahead_as_clocks_differ(clock: Hands, stamps: StampReader) -> None:
    clock.passes(10.0)
    assert stamps.local(clock.time() + SET) == clock.time() + SET
    assert stamps.local(clock.time() + SET + 0.5) == clock.time()
    at = clock.time() + SET
    assert stamps.age(at) == 0.0
    clock.passes(10.0)
    assert stamps.age(at) == 10.0  # it was read ten seconds ago


def test_what_was_read_before_the_clock_was_set_back_is_no_younger_for_it(clock: Hands, stamps: StampReader) -> None:
    at = clock.time()
    assert stamps.local(at) == at
    clock.passes(1000.0)
    clock.set_by(-900.0)
    assert stamps.age(at) == 1000.0
    assert stamps.local(at) == clock.time() - 1000.0
    assert stamps.age(at - 50.0) == 150.0  # by its stamp alone, since it was not read before
    clock.set_by(+900.0)
    assert stamps.local(at) == at


def test_what_is_not_believed_is_forgotten_when_there_is_too_much_of_it(
    clock: Hands, stamps: StampReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_REMEMBERED", 2)
    one, two, three = (clock.time() + HOUR * each for each in (1, 2, 3))
    for stamp in (one, two):
        assert stamps.age(stamp) == 0.0
    clock.passes(10.0)
    assert stamps.age(three) == 0.0
    assert [stamps.age(each) for each in (two, three)] == [10.0, 0.0]
    assert stamps.age(one) == 0.0  # it was the oldest


def row(number: int, *times: float | None, is_open: bool = True) -> tuple[int, bool, tuple[float | None, ...]]:
    return number, is_open, times


def test_what_is_new_since_the_last_look_is_no_older_than_that(clock: Hands, stamps: StampReader) -> None:
    old, behind = clock.time() - HOUR, clock.time() - 2 * HOUR
    stamps.look(1, [row(1, old)])  # what was there before is believed
    clock.passes(60.0)
    stamps.look(2, [row(1, old), row(2, behind)])
    assert stamps.age(behind) == 0.0
    assert stamps.age(old) == HOUR + 60.0
    clock.passes(60.0)
    assert stamps.age(behind) == 60.0


def test_a_stamp_that_a_row_gets_later_is_new(clock: Hands, stamps: StampReader) -> None:
    claimed, sent = clock.time() - HOUR, clock.time() - HOUR + 1.0
    stamps.look(1, [row(1, claimed, None)])
    clock.passes(60.0)
    stamps.look(1, [row(1, claimed, sent)])
    assert (stamps.age(claimed), stamps.age(sent)) == (HOUR + 60.0, 0.0)


def test_what_may_have_been_written_since_the_last_look_is_believed(clock: Hands, stamps: StampReader) -> None:
    stamps.look(0, [])
    clock.passes(60.0)
    within, before = clock.time() - 60.0 - SET, clock.time() - 60.0 - SET - 0.5
    stamps.look(2, [row(1, within), row(2, before)])
    assert (stamps.age(within), stamps.age(before)) == (60.0 + SET, 0.0)


def test_the_gap_is_that_to_the_look_before(clock: Hands, stamps: StampReader) -> None:
    stamps.look(0, [])
    clock.passes(HOUR)
    stamps.look(0, [])
    clock.passes(60.0)
    stamp = clock.time() - HOUR / 2
    stamps.look(1, [row(1, stamp)])
    assert stamps.age(stamp) == 0.0


def test_a_look_knows_which_rows_are_open_and_which_is_the_highest(clock: Hands, stamps: StampReader) -> None:
    assert (stamps.looked, stamps.highest, stamps.open_rows) == (False, 0, ())
    now = clock.time()
    stamps.look(9, [row(4, now), row(5, now, is_open=False), row(7, now)])
    assert (stamps.looked, stamps.highest, stamps.open_rows) == (True, 9, (4, 7))
    stamps.look(9, [row(4, now, is_open=False)])
    assert (stamps.highest, stamps.open_rows) == (9, ())


def test_which_rows_were_there_so_many_seconds_ago(clock: Hands, stamps: StampReader) -> None:
    assert stamps.highest_before(60.0) == 0
    stamps.look(3, [])
    assert stamps.highest_before(60.0) == 3  # those of the first look may be as old as they say
    clock.passes(10.0)
    stamps.look(5, [])
    clock.passes(10.0)
    stamps.look(5, [])
    stamps.look(4, [])  # what was deleted does not come back
    clock.passes(10.0)
    stamps.look(6, [])
    assert [stamps.highest_before(seconds) for seconds in (0.0, 9.0, 10.0, 20.0, 29.0, 30.0, 99.0)] == [
        6,
        5,
        5,
        5,
        3,
        3,
        3,
    ]


def test_for_how_long_it_has_looked_counts_from_the_first_look(clock: Hands, stamps: StampReader) -> None:
    assert not stamps.has_looked_for(0.0)
    stamps.look(3, [])
    assert (stamps.has_looked_for(0.0), stamps.has_looked_for(1.0)) == (True, False)
    clock.passes(10.0)
    stamps.look(5, [])
    assert (stamps.has_looked_for(10.0), stamps.has_looked_for(10.5)) == (True, False)


def test_a_look_of_just_then_counts_however_many_rows_there_were(clock: Hands, stamps: StampReader) -> None:
    stamps.look(10**6, [])
    clock.passes(10.0)
    stamps.look(10**6 + 1, [])
    clock.passes(10.0)
    assert [stamps.highest_before(seconds) for seconds in (10.0, 10.5)] == [10**6 + 1, 10**6]


def test_a_row_counts_from_the_look_that_showed_it_first(clock: Hands, stamps: StampReader) -> None:
    now = clock.time()
    assert stamps.local_of(1, now - 30.0) == now - 30.0  # there was no look
    stamps.look(3, [])
    clock.passes(60.0)
    stamps.look(5, [])
    clock.passes(60.0)
    stamps.look(6, [])
    clock.passes(60.0)
    assert [stamps.local_of(row, now - 30.0) for row in (3, 4, 5, 6, 7)] == [
        now - 30.0,  # it may be as old as it says
        now + 60.0,
        now + 60.0,
        now + 120.0,
        now + 180.0,  # the next look will show it
    ]
    assert stamps.local_of(5, now + 90.0) == now + 90.0
    clock.set_by(HOUR)
    assert stamps.local_of(5, now - 30.0) == now + HOUR + 60.0


def test_old_looks_are_forgotten(clock: Hands, stamps: StampReader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_REMEMBERED", 2)
    for highest in (1, 2, 3):
        stamps.look(highest, [])
        clock.passes(10.0)
    assert (stamps.highest_before(99.0), stamps.highest_before(15.0)) == (2, 2)
    assert stamps.highest_before(5.0) == 3


def test_a_stamp_that_comes_with_another_value_is_new(clock: Hands, stamps: StampReader) -> None:
    old, behind = clock.time() - HOUR, clock.time() - 2 * HOUR
    stamps.note("did", 1, old)
    clock.passes(60.0)
    stamps.note("did", 1, old)
    assert stamps.age(old) == HOUR + 60.0
    clock.passes(30.0)
    stamps.note("did", 2, behind)
    assert stamps.age(behind) == 0.0
    stamps.note("another", 1, clock.time() - 3 * HOUR)  # nobody knows since when it is there
    assert stamps.age(clock.time() - 3 * HOUR) == 3 * HOUR


def test_the_value_before_was_read_when_it_was_read_last(clock: Hands, stamps: StampReader) -> None:
    stamps.note("did", 1, clock.time())
    clock.passes(2 * HOUR)
    stamps.note("did", 1, clock.time() - 2 * HOUR)
    clock.passes(60.0)
    stamp = clock.time() - HOUR
    stamps.note("did", 2, stamp)
    assert stamps.age(stamp) == 0.0


def test_what_was_not_there_when_all_were_read_is_new(clock: Hands, stamps: StampReader) -> None:
    first, later, unlisted = clock.time() - HOUR, clock.time() - 600.0, clock.time() - 3 * HOUR
    stamps.note("first", 1, first, listed=True)
    stamps.all_listed()
    clock.passes(60.0)
    stamps.note("later", 1, later, listed=True)
    stamps.note("unlisted", 1, unlisted)
    assert [stamps.age(each) for each in (first, later, unlisted)] == [HOUR + 60.0, 0.0, 3 * HOUR + 60.0]


def test_a_change_from_nothing_is_noticed(clock: Hands, stamps: StampReader) -> None:
    assert stamps.unchanged_for("a", None) == 0.0
    clock.passes(30.0)
    assert stamps.unchanged_for("a", None) == 30.0
    clock.passes(30.0)
    assert stamps.unchanged_for("a", None) == 60.0
    assert stamps.unchanged_for("a", 1.0) == 0.0
    stamps.retain({"a"})
    clock.passes(5.0)
    assert stamps.unchanged_for("a", 1.0) == 5.0


def test_a_clock_that_was_set_forward_and_back_is_as_early_as_it_ever_was(clock: Hands, stamps: StampReader) -> None:
    right = clock.time()
    clock.set_by(HOUR)
    assert stamps.earliest == right
    clock.passes(60.0)
    assert stamps.earliest == right + 60.0
    clock.set_by(-2 * HOUR)
    assert stamps.earliest == clock.time()
    clock.set_by(5 * HOUR)
    assert stamps.earliest == clock.time() - 5 * HOUR


def test_under_a_clock_that_was_set_stamps_are_as_this_clock_would_have_written_them(
    clock: Hands, stamps: StampReader
) -> None:
    at = clock.time() - 100.0
    clock.set_by(SET)
    assert stamps.local(at) == at
    clock.set_by(0.5)
    assert stamps.local(at) == at + SET + 0.5
    assert clock.time() - stamps.local(at) == 100.0


def attempt(**times: float | None) -> Attempt:
    known: dict[str, float | None] = {"claimed_at": 0.0, **times}
    return Attempt(7, "+918011223344", "main", "default", Status.VERIFYING, "token", "me", (), {}, **known)  # type: ignore[arg-type]


def test_every_time_of_an_attempt_is_read(clock: Hands, stamps: StampReader) -> None:
    names = ("claimed_at", "sent_at", "answered_at", "ended_at", "observed_at", "broken_since")
    now = clock.time()
    times: dict[str, float | None] = {name: now - 100.0 * (index + 1) for index, name in enumerate(names)}
    clock.set_by(HOUR)
    read = stamps.attempt(attempt(**times))
    assert [clock.time() - getattr(read, name) for name in names] == [100.0 * (index + 1) for index in range(6)]
    nothing = stamps.attempt(attempt(claimed_at=now))
    assert [getattr(nothing, name) for name in names[1:]] == [None] * 5


def test_a_backoff_keeps_its_length(clock: Hands, stamps: StampReader) -> None:
    now = clock.time()
    clock.set_by(HOUR)
    held = DidRecord("+918011223344", state=HealState.BACKOFF, since=now, until=now + 600.0, broken_since=now - 60.0)
    read = stamps.record(held)
    assert (read.since, read.until, read.broken_since) == (now + HOUR, now + HOUR + 600.0, now + HOUR - 60.0)
    free = stamps.record(DidRecord("+918011223344", since=now))
    assert (free.until, free.broken_since, free.state) == (0.0, None, HealState.IDLE)


def test_every_time_of_an_account_is_read(clock: Hands, stamps: StampReader) -> None:
    now = clock.time()
    clock.set_by(HOUR)
    known = AccountRecord(
        "mark",
        resumed_at=now - 1.0,
        latched_at=now - 2.0,
        key_paused_at=now - 3.0,
        forbidden_at=now - 4.0,
        recent=(EndedAttempt(1, "main", Outcome.FAILED, now - 9.0),),
    )
    read = stamps.account(known)
    assert (read.resumed_at, read.latched_at, read.key_paused_at, read.forbidden_at) == tuple(
        now + HOUR - each for each in (1.0, 2.0, 3.0, 4.0)
    )
    assert read.recent[0].ended_at == now + HOUR - 9.0


@pytest.mark.parametrize("name", ["resumed_at", "latched_at", "key_paused_at", "forbidden_at"])
def test_a_time_of_an_account_that_is_new_is_no_older_than_the_look_before(
    clock: Hands, stamps: StampReader, name: str
) -> None:
    def read(at: float) -> float:
        known = AccountRecord("mark", resume_mark=at if name == "resumed_at" else 0.0, **{name: at})  # type: ignore[arg-type]
        return clock.time() - float(getattr(stamps.account(known), name))

    old, behind = clock.time() - HOUR, clock.time() - 2 * HOUR
    assert read(old) == HOUR
    clock.passes(60.0)
    assert read(behind) == 0.0


def test_what_is_new_of_one_account_is_not_new_of_another(clock: Hands, stamps: StampReader) -> None:
    stamps.account(AccountRecord("one", latched_at=clock.time() - HOUR))
    at = clock.time() - 2 * HOUR
    other = stamps.account(AccountRecord("two", latched_at=at))
    assert other.latched_at == at
