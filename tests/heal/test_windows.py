"""When windows are open, over every kind of change of the clocks: by hand, and compared minute by minute."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.config.schema import Heal, Window
from exporter.config.values import parse_duration
from exporter.heal.windows import _edges, open_window

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTE = 60
BERLIN, NEW_YORK, LORD_HOWE, SANTIAGO = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago"


def windows(*each: tuple[str, str, str]) -> tuple[Window, ...]:
    values = [{"cron": cron, "duration": duration, "timezone": timezone} for cron, duration, timezone in each]
    return Heal.model_validate({"windows": values}).windows


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.fixture(params=["America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"])
def machine_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have this process live in another time zone, and know of no window yet."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    _edges.cache_clear()
    yield request.param
    monkeypatch.undo()
    time.tzset()
    _edges.cache_clear()


@pytest.mark.usefixtures("machine_zone")
@pytest.mark.parametrize("day", ["2026-03-08", "2026-03-29", "2026-10-25", "2026-11-01", "2026-12-31", "2027-01-01"])
def test_the_time_zone_of_the_machine_does_not_matter(day: str) -> None:
    window, start = windows(("30 2 * * *", "1h", "UTC")), moment(f"{day}T02:30+00:00")
    assert [bool(open_window(window, start + seconds)) for seconds in (-1, 0, 3599, 3600)] == [False, True, True, False]


# By hand. Each row: the time in UTC from which on it is open, and the time from which on it is shut.
#
# 2026      | clocks go      | at (UTC)         | local, before and after
# Berlin    | back 1 h       | 2026-10-25 01:00 | 03:00+02:00 is 02:00+01:00
#           | forward 1 h    | 2026-03-29 01:00 | 02:00+01:00 is 03:00+02:00
# New York  | back 1 h       | 2026-11-01 06:00 | 02:00-04:00 is 01:00-05:00
#           | forward 1 h    | 2026-03-08 07:00 | 02:00-05:00 is 03:00-04:00
# Lord Howe | back 30 min    | 2026-04-04 15:00 | 02:00+11:00 is 01:30+10:30, on 5 April
#           | forward 30 min | 2026-10-03 15:30 | 02:00+10:30 is 02:30+11:00, on 4 October
# Santiago  | back 1 h       | 2026-04-05 03:00 | 24:00-03:00 is 23:00-04:00, on 4 April
#           | forward 1 h    | 2026-09-06 04:00 | 24:00-04:00 is 01:00-03:00, on 6 September


@pytest.mark.parametrize(
    ("cron", "duration", "timezone", "open_from", "shut_from"),
    [
        # A start that happens twice opens twice, each time for the whole duration.
        ("30 2 * * *", "1h", BERLIN, "2026-10-25T00:30", "2026-10-25T02:30"),  # two that touch
        ("30 2 * * *", "10m", BERLIN, "2026-10-25T00:30", "2026-10-25T00:40"),
        ("30 2 * * *", "10m", BERLIN, "2026-10-25T01:30", "2026-10-25T01:40"),
        ("0 2 * * *", "90m", BERLIN, "2026-10-25T00:00", "2026-10-25T02:30"),  # 01:00 UTC is 02:00 again
        ("45 1 * * *", "6h", NEW_YORK, "2026-11-01T05:45", "2026-11-01T12:45"),
        ("15 * * * *", "30m", NEW_YORK, "2026-11-01T04:15", "2026-11-01T04:45"),
        ("15 * * * *", "30m", NEW_YORK, "2026-11-01T05:15", "2026-11-01T05:45"),
        ("15 * * * *", "30m", NEW_YORK, "2026-11-01T06:15", "2026-11-01T06:45"),
        ("15 * * * *", "30m", NEW_YORK, "2026-11-01T07:15", "2026-11-01T07:45"),
        ("45 1 * * *", "20m", LORD_HOWE, "2026-04-04T14:45", "2026-04-04T15:05"),
        ("45 1 * * *", "20m", LORD_HOWE, "2026-04-04T15:15", "2026-04-04T15:35"),
        ("45 1 * * *", "30m", LORD_HOWE, "2026-04-04T14:45", "2026-04-04T15:45"),
        ("15 1 * * *", "10m", LORD_HOWE, "2026-04-04T14:15", "2026-04-04T14:25"),  # once: only 30 min are repeated
        ("30 23 * * sat", "15m", SANTIAGO, "2026-04-05T02:30", "2026-04-05T02:45"),
        ("30 23 * * sat", "15m", SANTIAGO, "2026-04-05T03:30", "2026-04-05T03:45"),
        ("0 0 * * sun", "2h", SANTIAGO, "2026-04-05T04:00", "2026-04-05T06:00"),  # once: midnight comes once
        # A start whose local time is skipped opens at the end of the gap.
        ("30 2 * * *", "1h", BERLIN, "2026-03-29T01:00", "2026-03-29T02:00"),
        ("0 2 * * *", "1h", BERLIN, "2026-03-29T01:00", "2026-03-29T02:00"),
        ("0,20,59 2 * * *", "5m", BERLIN, "2026-03-29T01:00", "2026-03-29T01:05"),  # three of them, at once
        ("0 3 * * *", "1h", BERLIN, "2026-03-29T01:00", "2026-03-29T02:00"),
        ("45 2 * * *", "6h", NEW_YORK, "2026-03-08T07:00", "2026-03-08T13:00"),
        ("15 * * * *", "5m", NEW_YORK, "2026-03-08T07:00", "2026-03-08T07:05"),
        ("15 * * * *", "5m", NEW_YORK, "2026-03-08T07:15", "2026-03-08T07:20"),
        ("15 2 * * *", "20m", LORD_HOWE, "2026-10-03T15:30", "2026-10-03T15:50"),
        ("30 2 * * *", "20m", LORD_HOWE, "2026-10-03T15:30", "2026-10-03T15:50"),
        ("0 0 * * *", "1h", SANTIAGO, "2026-09-06T04:00", "2026-09-06T05:00"),
        ("30 0 6 9 *", "1h", SANTIAGO, "2026-09-06T04:00", "2026-09-06T05:00"),
        # A start before the change counts elapsed time over it.
        ("0 1 * * *", "3h", BERLIN, "2026-10-24T23:00", "2026-10-25T02:00"),
        ("0 1 * * *", "3h", BERLIN, "2026-03-29T00:00", "2026-03-29T03:00"),
        ("0 22 * * sat", "12h", NEW_YORK, "2026-11-01T02:00", "2026-11-01T14:00"),
        ("0 22 * * sat", "12h", NEW_YORK, "2026-03-08T03:00", "2026-03-08T15:00"),
        ("0 0 * * *", "3h", LORD_HOWE, "2026-04-04T13:00", "2026-04-04T16:00"),
        ("0 0 * * *", "3h", LORD_HOWE, "2026-10-03T13:30", "2026-10-03T16:30"),
        ("0 22 * * *", "3h", SANTIAGO, "2026-04-05T01:00", "2026-04-05T04:00"),
        ("0 22 * * *", "3h", SANTIAGO, "2026-09-06T02:00", "2026-09-06T05:00"),
        # A whole day was skipped: 2011-12-30 did not happen in Samoa.
        ("0 12 30 12 *", "2h", "Pacific/Apia", "2011-12-30T10:00", "2011-12-30T12:00"),
        # Changes at midnight, local and of UTC, and at that of a year.
        ("30 23 4 5 *", "10m", "Asia/Pyongyang", "2018-05-04T15:00", "2018-05-04T15:10"),
        ("30 1 * * *", "10m", "Africa/Tripoli", "2013-03-29T00:00", "2013-03-29T00:10"),
        ("30 23 31 12 *", "10m", "Europe/Lisbon", "1912-01-01T00:00", "1912-01-01T00:10"),
    ],
)
def test_a_window_is_open_exactly_from_its_start_for_its_duration(
    cron: str, duration: str, timezone: str, open_from: str, shut_from: str
) -> None:
    begin, end = moment(f"{open_from}+00:00"), moment(f"{shut_from}+00:00")
    asked = windows((cron, duration, timezone))

    seen = [bool(open_window(asked, at)) for at in (begin - 0.001, begin, end - 0.001, end)]
    assert seen == [False, True, True, False]
    assert all(open_window(asked, begin + at) for at in range(0, int(end - begin), MINUTE))


def test_a_window_that_is_shorter_than_a_second() -> None:
    asked, start = windows(("0 9 * * *", "250ms", "UTC")), moment("2026-01-01T09:00+00:00")

    assert [bool(open_window(asked, start + at)) for at in (-0.01, 0, 0.2, 0.25)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("cron", "duration", "at", "is_open"),
    [
        ("0 0 29 2 *", "4y", "2027-02-27T12:00", True),
        ("0 0 29 2 *", "3y", "2027-02-28T12:00", False),
        ("0 0 29 2 *", "9000y", "2027-02-28T12:00", True),  # longer than any calendar goes back
        ("0 0 29 2 */7", "9000y", "2127-12-31T12:00", True),  # a Sunday last in 2088
        ("0 0 */31 2 mon#5", "9000y", "2027-02-28T12:00", False),  # 1 February is no fifth Monday
        ("0 0 1 1 *", "1m", "1970-01-01T00:00", True),
        ("59 23 31 12 *", "2m", "1970-01-01T00:00", True),
    ],
)
def test_a_window_that_starts_rarely_or_lasts_long(cron: str, duration: str, at: str, is_open: bool) -> None:  # noqa: FBT001
    assert bool(open_window(windows((cron, duration, "UTC")), moment(f"{at}+00:00"))) is is_open


def test_the_first_open_window_is_named() -> None:
    asked = windows(("0 1 * * *", "1h", "UTC"), ("0 5 * * *", "90m", BERLIN), ("* 3,5 * * *", "1m", "UTC"))
    text = {hour: open_window(asked, moment(f"2026-01-01T{hour:02}:30+00:00")) for hour in range(7)}

    assert text == {
        0: "",
        1: "0 1 * * * for 1h (UTC)",
        2: "",
        3: "* 3,5 * * * for 1m (UTC)",
        4: "0 5 * * * for 1h30m (Europe/Berlin)",
        5: "* 3,5 * * * for 1m (UTC)",
        6: "",
    }
    assert open_window(asked, moment("2026-01-01T05:10+00:00")) == text[4]  # the third is open as well
    assert open_window((), 0.0) == ""


# Against an enumeration that shares nothing with the code: every minute of UTC, one after the other.

NAMES = {name: index for index, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def field(text: str, least: int, most: int) -> frozenset[int]:
    """Return what one field of a cron matches: `*`, `a`, `a-b`, each with `/step` or without, and lists of them."""
    values: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        begin = least if first == "*" else int(NAMES.get(first, first))
        end = most if first == "*" or (step and not last) else int(NAMES.get(last or first, last or first))
        values.update(range(begin, end + 1, int(step or 1)))
    return frozenset(values)


class Matcher:
    """Whether a local minute matches a cron: the days as in Debian's cron, where one with a star narrows the other."""

    def __init__(self, cron: str) -> None:
        self.minutes, self.hours, self.days, self.months, self.weekdays = (
            field(text, *bounds) for text, bounds in zip(cron.split(), BOUNDS, strict=True)
        )
        self.both = any(text.startswith("*") for text in (cron.split()[2], cron.split()[4]))

    def __call__(self, local: datetime) -> bool:
        if local.minute not in self.minutes or local.hour not in self.hours or local.month not in self.months:
            return False
        day, weekday = local.day in self.days, bool(self.weekdays & {local.isoweekday(), local.isoweekday() % 7})
        return (day and weekday) if self.both else (day or weekday)


@lru_cache
def minutes(timezone: str, begin: int, end: int) -> list[tuple[int, list[datetime]]]:
    """Return each minute of UTC with its local time, and before it those local times that were skipped just then."""
    zone = ZoneInfo(timezone)
    clock = [(at, datetime.fromtimestamp(at, zone).replace(tzinfo=None)) for at in range(begin - MINUTE, end, MINUTE)]
    result = []
    for (_, before), (at, local) in pairwise(clock):
        skipped = int((local - before) / timedelta(minutes=1)) - 1
        result.append((at, [local, *(before + timedelta(minutes=each) for each in range(1, skipped + 1))]))
    return result


def enumerated(cron: str, duration: str, timezone: str, begin: int, end: int) -> dict[int, bool]:
    """Return for each minute whether a window is open."""
    matches, lasts = Matcher(cron), int(parse_duration(duration).total_seconds())
    earlier = begin - 31 * 60 * MINUTE
    assert lasts <= begin - earlier
    until, result = 0, {}
    for at, local in minutes(timezone, earlier, end):
        if any(matches(each) for each in local):
            until = at + lasts
        if at >= begin:
            result[at] = at < until
    return result


CHANGES = [
    (BERLIN, "2026-03-29T01:00"),
    (BERLIN, "2026-10-25T01:00"),
    (NEW_YORK, "2026-03-08T07:00"),
    (NEW_YORK, "2026-11-01T06:00"),
    (LORD_HOWE, "2026-04-04T15:00"),
    (LORD_HOWE, "2026-10-03T15:30"),
    (SANTIAGO, "2026-04-05T03:00"),
    (SANTIAGO, "2026-09-06T04:00"),
    ("Antarctica/Troll", "2026-03-29T01:00"),  # by two hours
    ("Antarctica/Troll", "2026-10-25T01:00"),
    ("Africa/Tripoli", "2012-11-10T00:00"),  # at midnight of UTC
    ("Africa/Tripoli", "2013-03-29T00:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),  # by a day
    ("America/Caracas", "2016-05-01T07:00"),  # for good, by half an hour
]
CRONS = [
    ("30 2 * * *", "1h"),
    ("45 1 * * *", "6h"),
    ("15 * * * *", "30m"),
    ("* * * * *", "1m"),
    ("* 1-3 * * *", "1m"),
    ("*/7 * * * *", "3m"),
    ("*/15 0-4 * * *", "1m"),
    ("3-50/9 */2 * * *", "11m"),
    ("5/20 1/2 * * *", "17m"),
    ("0,30 1,2,3 * * *", "29m"),
    ("0 * * * *", "59m"),
    ("0 * * * *", "1h"),
    ("59 * * * *", "1m"),
    ("0 0 * * *", "1m"),
    ("0 0 * * *", "23h"),
    ("0 0 * * *", "24h"),
    ("30 0 * * *", "1d1m"),
    ("0 2 * * *", "30h"),
    ("0 2 * * *", "10m"),
    ("0 3 * * *", "10m"),
    ("59 1 * * *", "2m"),
    ("59 2 * * *", "2m"),
    ("45 23 * * *", "90m"),
    ("15 1,23 * * *", "20m"),
    ("0 9 * * mon-fri", "8h"),
    ("0 22 * * fri,sat", "10h"),
    ("30 2 * * sun", "45m"),
    ("15 2 * * 7", "5m"),
    ("30 1 * * 6-7", "2h"),
    ("30 0 30 12 *", "4h"),
    ("0 2 29 3 sun", "30h"),
    ("30 1 1-7 * *", "3h"),
    ("20 2 */2 * *", "26h"),
    ("0 4 */2 * mon-fri/2", "13h"),
    ("45 1,2 1,5,8,25,29 3,4,10,11 sun", "35m"),
    ("0 0 1 1 *", "30h"),
]


def compare(cron: str, duration: str, timezone: str, change: str) -> None:
    middle, days = int(moment(f"{change}+00:00")), 3 * 86_400
    expected = enumerated(cron, duration, timezone, middle - days, middle + days)
    asked = windows((cron, duration, timezone))

    wrong = [
        f"{datetime.fromtimestamp(at, UTC):%d %H:%M} {'shut' if is_open else 'open'}"
        for at, is_open in expected.items()
        if bool(open_window(asked, at)) is not is_open
    ]
    assert not wrong, f"of {len(expected)} minutes {len(wrong)} are wrong: {wrong[:4]}"


@pytest.mark.parametrize(("cron", "duration"), CRONS)
@pytest.mark.parametrize(("timezone", "change"), CHANGES)
def test_every_minute_is_as_enumerated(cron: str, duration: str, timezone: str, change: str) -> None:
    compare(cron, duration, timezone, change)


def one_of(least: int, most: int) -> st.SearchStrategy[str]:
    """Return fields. None is `a-a/step`, which only CronSim takes for `a/step`."""
    each = st.integers(least, most)
    spans = st.lists(each, min_size=2, max_size=2, unique=True).map(lambda ends: f"{min(ends)}-{max(ends)}")
    steps = st.builds("{}/{}".format, st.just("*") | spans, st.integers(1, 9))
    lists = st.lists(each.map(str) | spans | steps, min_size=1, max_size=3).map(",".join)
    return st.just("*") | lists


@settings(deadline=None)  # what is local time in each minute is worked out once, and takes long
@given(
    cron=st.tuples(one_of(0, 59), one_of(0, 4), one_of(1, 31), st.just("*"), one_of(0, 6)).map(" ".join),
    length=st.integers(1, 90) | st.integers(1, 30 * 60),
    change=st.sampled_from(CHANGES),
)
def test_every_minute_of_any_cron_is_as_enumerated(cron: str, length: int, change: tuple[str, str]) -> None:
    compare(cron, f"{length}m", *change)


def test_the_enumeration_sees_the_changes_that_it_is_meant_for() -> None:
    jumps = set()
    for timezone, change in CHANGES:
        at, zone = int(moment(f"{change}+00:00")), ZoneInfo(timezone)
        before, after = (datetime.fromtimestamp(each, zone).utcoffset() or timedelta() for each in (at - 1, at))
        jumps.add((after - before) / timedelta(minutes=1))

    assert jumps == {60.0, -60.0, 30.0, -30.0, 120.0, -120.0, 1440.0}
