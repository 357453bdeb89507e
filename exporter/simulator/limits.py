"""The rate limit of one API key.

That the window slides and that refused requests don't count are assumptions: the vendor says "60 requests a minute".
"""

from __future__ import annotations

import math
from collections import deque

WINDOW = 60.0
"""Seconds."""


class RateLimiter:
    """Counts the requests of each key in the last minute; a limit of 0 lets everything pass."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._passed: dict[str, deque[float]] = {}

    def wait(self, key: str, now: float) -> int:
        """Let a request pass and return 0, or refuse it and return the whole seconds until there is room."""
        if not self._limit:
            return 0
        passed = self._passed.setdefault(key, deque())
        while passed and passed[0] <= now - WINDOW:
            passed.popleft()
        if len(passed) >= self._limit:
            return max(1, math.ceil(passed[0] + WINDOW - now))
        passed.append(now)
        return 0
