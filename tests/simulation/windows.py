"""Windows of elapsed time from local starts, enumerated forward: the judge's own, apart from the product's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from tests.simulation.setup import Window

_DAY = 86400


@lru_cache(maxsize=4096)
def starts(window: Window, day: int) -> tuple[float, ...]:
    """Return the Unix times at which a window begins on a local day, counted from 1970-01-01.

    A local time that comes twice begins it twice; one that doesn't exist begins it at the next instant that does.
    """
    zone = ZoneInfo(window.zone)
    local = datetime(1970, 1, 1, window.hour, window.minute) + timedelta(days=day)  # noqa: DTZ001 - a local time
    found = []
    for fold in (0, 1):
        moment = local.replace(tzinfo=zone, fold=fold).timestamp()
        back = datetime.fromtimestamp(moment, UTC).astimezone(zone).replace(tzinfo=None)
        if back == local:
            found.append(moment)
    if not found:  # in the hour that doesn't exist: walk on, a minute at a time
        before = local.replace(tzinfo=zone, fold=1).timestamp()
        moment = before
        while datetime.fromtimestamp(moment, UTC).astimezone(zone).replace(tzinfo=None) < local:
            moment += 60
        while datetime.fromtimestamp(moment - 60, UTC).astimezone(zone).replace(tzinfo=None) >= local:
            moment -= 60
        found.append(moment)
    return tuple(sorted(set(found)))


def is_open(windows: tuple[Window, ...], at: float) -> bool:
    """Return whether a Unix time lies in one of the windows."""
    day = int(at // _DAY)
    return any(
        start <= at < start + window.seconds
        for window in windows
        for each in range(day - 2 - int(window.seconds // _DAY), day + 2)
        for start in starts(window, each)
    )
