"""A token bucket: so many requests at once, then one each interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.clock import Clock


class TokenBucket:
    """Lets `burst` requests through at once after a quiet time, and one each `interval` seconds in the long run."""

    def __init__(self, interval: float, burst: int, clock: Clock) -> None:
        self.interval = interval
        self.burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._counted = clock.monotonic()

    def wait(self) -> float:
        """Return 0 and take a token, or the seconds until there is one."""
        now = self._clock.monotonic()
        self._tokens = min(self.burst, self._tokens + (now - self._counted) / self.interval)
        self._counted = now
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) * self.interval
