"""From a seed that fails to a short story: events are left out as long as the same promise is broken."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.simulation.run import Result

Which = tuple[int, int]  # storm and event
Try = "Callable[[frozenset[Which]], Result]"


def shrink(
    events: Sequence[Which],
    attempt: Callable[[frozenset[Which]], Result],
    seconds: float,
    now: Callable[[], float] = time.monotonic,
) -> tuple[frozenset[Which], Result | None]:
    """Return as few events as still break what all of them break, and the result of those.

    `attempt` runs with some of the events; at most for so many `seconds` of real time in all. Where all together don't
    break anything, returns them without a result.
    """
    end = now() + seconds
    first = attempt(frozenset(events))
    if not first.wrong:
        return frozenset(events), None
    rule, best, kept = first.wrong[0].rule, first, list(events)
    size = max(1, len(kept) // 2)
    while now() < end:
        smaller = False
        start = 0
        while start < len(kept) and now() < end:
            rest = kept[:start] + kept[start + size :]
            result = attempt(frozenset(rest))
            if any(wrong.rule == rule for wrong in result.wrong):
                kept, best, smaller = rest, result, True
            else:
                start += size
        if size == 1 and not smaller:
            break
        size = max(1, size // 2)
    return frozenset(kept), best
