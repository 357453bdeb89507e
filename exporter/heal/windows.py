"""When the windows of `heal.windows` are open. Pure: the same windows and the same time give the same answer.

A window lasts its duration in elapsed time from each of its starts. A start whose local time happens twice, as clocks
go back, is two starts; one whose local time is skipped is a start at the end of the gap.

CronSim's own treatment of summer time is that of Debian's cron, which differs. So CronSim is only asked for matches on
a clock without any: between two changes of a zone's offset its clock is UTC moved by a constant, and each such stretch
is searched by itself.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo

from cronsim import CronSim

from exporter.config import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.config.schema import Window

DAY: Final = 86_400
FARTHEST: Final = 50 * 366 * DAY  # how far back a start is looked for; the rarest cron matches every 40 years
KEPT: Final = 128  # days of windows, and years of zones, that are remembered


class _Change(NamedTuple):
    """A moment from which on a zone has another offset from UTC, in seconds; or the same, where a year begins."""

    at: int
    before: int
    after: int


def open_window(windows: tuple[Window, ...], now: float) -> str:
    """Return the window that the Unix time `now` lies in, in words, or an empty string."""
    day = int(now // DAY)
    for window in windows:
        edges = _edges(window.cron, window.timezone, window.duration, day)
        if bisect_right(edges, now) % 2:
            return _in_words(window.cron, window.timezone, window.duration)
    return ""


@lru_cache(KEPT)
def _in_words(cron: str, timezone: str, duration: timedelta) -> str:
    return f"{cron} for {format_duration(duration)} ({timezone})"


@lru_cache(KEPT)
def _edges(cron: str, timezone: str, duration: timedelta, day: int) -> tuple[float, ...]:
    """Return when a window opens, shuts, opens and so on, as far as that matters for one day of UTC."""
    length, begin = duration.total_seconds(), day * DAY
    starts = []
    for start in _starts(cron, timezone, begin - int(min(length, FARTHEST)), begin + DAY):
        starts.append(start)
        if start <= begin:
            break  # what started earlier shuts no later
    edges: list[float] = []
    for start in reversed(starts):
        if edges and start <= edges[-1]:
            edges[-1] = start + length
        else:
            edges += (start, start + length)
    return tuple(edges)


def _starts(cron: str, timezone: str, since: int, until: int) -> Iterator[int]:
    """Yield the starts before `until`, the latest first, one of them perhaps twice; all since `since`, if not more."""
    for (at, before, after), end in _stretches(timezone, until):
        if end <= since:
            return
        yield from (match - after for match in _matches(cron, at + after, end + after))
        if any(True for _ in _matches(cron, at + before, at + after)):  # what was skipped; nothing where clocks go back
            yield at


def _matches(cron: str, since: int, until: int) -> Iterator[int]:
    """Yield the local times, the latest first, that a cron matches; local time is written as if it were UTC."""
    if since < until:
        found = CronSim(cron, datetime.fromtimestamp(until, UTC), reverse=True)
        yield from takewhile(lambda at: at >= since, (int(each.timestamp()) for each in found))


def _stretches(timezone: str, until: int) -> Iterator[tuple[_Change, int]]:
    """Yield the stretches of one offset that lie before `until`, the latest first: their first change and their end."""
    year = datetime.fromtimestamp(until, UTC).year
    while True:
        for change in reversed(_changes(timezone, year)):
            if change.at < until:
                yield change, until
                until = change.at
        year -= 1


@lru_cache(KEPT)
def _changes(timezone: str, year: int) -> tuple[_Change, ...]:
    """Return the begin of a year of UTC, and each change of a zone's offset in it.

    One look a day is enough: no zone changed its offset and took that back within three days.
    """
    zone = ZoneInfo(timezone)

    def offset(at: int) -> int:
        return int((datetime.fromtimestamp(at, zone).utcoffset() or timedelta()).total_seconds())

    begin, end = (int(datetime(each, 1, 1, tzinfo=UTC).timestamp()) for each in (year, year + 1))
    before = offset(begin - 1)
    changes = [_Change(begin, before, before)]
    for day in range(begin, end, DAY):
        after = offset(day + DAY - 1)
        if after != before:
            seconds = range(day, day + DAY)
            at = seconds[bisect_left(seconds, 1, key=lambda second: int(offset(second) == after))]
            changes.append(_Change(at, before, after))
            before = after
    return tuple(changes)
