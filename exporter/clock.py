"""Time as an argument: what needs a clock is given one, so that tests and simulations can replace it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final, Protocol, Self

SET: Final = 1.0  # seconds by which two clocks may differ over a few seconds before one of them was set
_BOOTTIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


class Clock(Protocol):
    """Wall time, monotonic time and waiting. All in seconds."""

    def time(self) -> float:
        """Return the wall time as a Unix timestamp."""

    def monotonic(self) -> float:
        """Return a counter that never goes back; only differences mean something."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; at once for zero or less."""


class SystemClock:
    """The machine's clock. Its monotonic time goes on while the machine is suspended, where the system offers that."""

    def time(self) -> float:
        """Return the wall time as a Unix timestamp."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some fixed moment: CLOCK_BOOTTIME on Linux, else what Python calls monotonic."""
        return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class Lease:
    """Span of time in which something may be done, measured by the wall clock and by the monotonic clock.

    A suspended machine may stop the one, and a clock that is set moves the other: the lease is over as soon as either
    says so, and when the wall clock was set back, since then nothing is known of how much time passed.
    """

    clock: Clock
    seconds: float
    wall: float
    monotonic: float

    @classmethod
    def begin(cls, clock: Clock, seconds: float) -> Self:
        """Return a lease that begins now."""
        return cls(clock, seconds, clock.time(), clock.monotonic())

    @property
    def expired(self) -> str:
        """Return which clock says that the lease is over, in words; an empty string while it lasts."""
        wall, monotonic = self.clock.time() - self.wall, self.clock.monotonic() - self.monotonic
        if monotonic >= self.seconds:
            return f"{monotonic:.1f} s passed by the monotonic clock"
        if wall >= self.seconds:
            return f"{wall:.1f} s passed by the wall clock"
        if wall < monotonic - SET:
            return f"the wall clock was set back by {monotonic - wall:.1f} s"
        return ""
