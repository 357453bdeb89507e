"""Time as the simulation has it: true time, and the clocks of each machine, which may be wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.process import Process

EPOCH: Final = 1_792_800_000.0  # Unix time of true time 0 where nothing else is said: 2026-10-24 00:00 UTC
GRID: Final = 1024.0  # moments per second: every moment is exact as a float, on every clock


def on_grid(moment: float) -> float:
    """Return the first moment of the grid that is not before `moment`; all in seconds."""
    return math.ceil(moment * GRID) / GRID


@dataclass
class Active:
    """Process whose code runs right now, which is whose clocks are read; `None` between two steps."""

    process: Process | None = None


ACTIVE: Final = Active()


class Machine:
    """Machine with a wall clock that may be set, and steady counters that may stand still while it is suspended.

    All times are in seconds. `wall` is Unix time. `steady` is what event loops count by (CLOCK_MONOTONIC), `boot`
    counts suspended time, too (CLOCK_BOOTTIME).
    """

    def __init__(self, now: Callable[[], float], epoch: float = EPOCH) -> None:
        """`now` returns true time, `epoch` is the Unix time of its beginning."""
        self._now = now
        self._epoch = epoch
        self.wall_shift = 0.0
        self.steady_shift = 1000.0
        self.boot_shift = 5000.0
        self.suspended_at: float | None = None
        self._stands: frozenset[str] = frozenset()

    def wall(self) -> float:
        """Return Unix time as this machine has it."""
        return self._epoch + self._now() + self.wall_shift

    def steady(self) -> float:
        """Return seconds since some moment, without those of a suspension."""
        return self._now() + self.steady_shift

    def boot(self) -> float:
        """Return seconds since some moment, with those of most suspensions."""
        return self._now() + self.boot_shift

    def suspend(self, stands: frozenset[str]) -> None:
        """Stop the machine; `stands` names the counters that stand still meanwhile, out of `steady` and `boot`."""
        if self.suspended_at is None:
            self.suspended_at, self._stands = self._now(), stands

    def go_on(self) -> None:
        """Let a suspended machine go on."""
        if self.suspended_at is not None:
            away, self.suspended_at = self._now() - self.suspended_at, None
            self.steady_shift -= away if "steady" in self._stands else 0.0
            self.boot_shift -= away if "boot" in self._stands else 0.0


def _machine() -> Machine | None:
    return ACTIVE.process.machine if ACTIVE.process else None


class VirtualTime:
    """Stand-in for the `time` module inside of modules that ask it for the time."""

    CLOCK_REALTIME: Final = 0
    CLOCK_MONOTONIC: Final = 1
    CLOCK_BOOTTIME: Final = 7

    def __init__(self, real: Any) -> None:  # noqa: ANN401 - a module
        self._real = real

    def time(self) -> float:
        """Return the wall time of the active process's machine."""
        machine = _machine()
        return machine.wall() if machine else EPOCH

    def monotonic(self) -> float:
        """Return the steady counter of the active process's machine."""
        machine = _machine()
        return machine.steady() if machine else 0.0

    def clock_gettime(self, which: int) -> float:
        """Return one of the clocks that Linux numbers."""
        machine = _machine()
        if machine and which == self.CLOCK_BOOTTIME:
            return machine.boot()
        return self.time() if which == self.CLOCK_REALTIME else self.monotonic()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a module's
        return getattr(self._real, name)


class VirtualDatetime(datetime):
    """Stand-in for `datetime` inside of modules that ask it for the time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        """Return the wall time of the active process's machine."""
        machine = _machine()
        return datetime.fromtimestamp(machine.wall() if machine else EPOCH, tz)

    @classmethod
    def utcnow(cls) -> datetime:  # type: ignore[override]
        """Return the same in UTC, without a zone."""
        return cls.now(UTC).replace(tzinfo=None)
