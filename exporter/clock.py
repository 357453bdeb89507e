"""Time as an argument: whoever needs a clock is handed one, so tests turn the hands themselves."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time, a steady counter and waiting. All in seconds."""

    def time(self) -> float:
        """Return the wall time as a Unix timestamp."""

    def monotonic(self) -> float:
        """Return a counter that never goes back; only differences mean something."""

    async def sleep(self, seconds: float) -> None:
        """Return after so many seconds; at once for zero or less."""


class SystemClock:
    """The machine's clock."""

    def time(self) -> float:
        """Return the wall time as a Unix timestamp."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(max(0.0, seconds))
