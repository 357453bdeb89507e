"""Times and counts as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_TWO: Final = 2
JUST_NOW: Final = 0.5  # seconds
LATE: Final = 5.0  # seconds; what is due takes a moment


def span(seconds: float) -> str:
    """Return how long something is, in its two largest units: `2 h 5 min`."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
        if len(parts) == _TWO:
            break
    return " ".join(filter(None, parts)) or "0 s"


def due(seconds: float) -> str:
    """Return when something is to happen, so many seconds from now."""
    if seconds > JUST_NOW:
        return f"in {span(seconds)}"
    return "now" if seconds > -LATE else f"overdue for {span(-seconds)}"


def utc(moment: datetime) -> str:
    """Return a time with its day."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(moment: datetime) -> str:
    """Return a time as RFC 3339."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def count(number: int, one: str, many: str = "") -> str:
    """Return a number of things."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
