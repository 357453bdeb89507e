"""The machine's clock."""

from __future__ import annotations

import asyncio
import runpy
import time

import pytest

from exporter import clock as clocks
from exporter.clock import SET, Lease, SystemClock
from tests.support.clock import ManualClock


def test_it_tells_the_time() -> None:
    clock = SystemClock()
    assert time.time() - clock.time() < 5
    assert clock.monotonic() <= time.monotonic()


async def test_it_sleeps_as_long_as_asked_for_and_not_at_all_for_less_than_nothing() -> None:
    clock = SystemClock()
    started = clock.monotonic()
    await clock.sleep(-1_000_000)
    assert clock.monotonic() - started < 5
    await clock.sleep(0.02)
    assert clock.monotonic() - started >= 0.02


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has it")
def test_its_monotonic_time_is_that_which_goes_on_while_the_machine_is_suspended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def clock_gettime(which: int) -> float:
        asked.append(which)
        return 7.0

    monkeypatch.setattr(time, "clock_gettime", clock_gettime)
    assert SystemClock().monotonic() == 7.0
    assert asked == [time.CLOCK_BOOTTIME]


class Hands(ManualClock):
    """A clock whose two times are set one by one."""

    def pass_monotonic(self, seconds: float) -> None:
        """Let time pass of which the wall clock knows nothing, as where it is set back meanwhile."""
        self._elapsed += seconds
        self._set -= seconds


def test_a_lease_lasts_for_less_than_its_seconds_by_both_clocks() -> None:
    clock = Hands()
    clock.pass_monotonic(50.0)  # so that the clocks read something else than their differences
    lease = Lease.begin(clock, 5.0)
    assert lease.expired == ""
    clock.pass_monotonic(SET)
    clock.set_by(4.75)
    assert lease.expired == ""
    clock.set_by(0.25)
    assert lease.expired == "5.0 s passed by the wall clock"


def test_a_lease_ends_by_the_monotonic_clock() -> None:
    clock = Hands()
    clock.pass_monotonic(50.0)
    lease = Lease.begin(clock, 5.0)
    clock.set_by(4.0)
    clock.pass_monotonic(4.75)
    assert lease.expired == ""
    clock.pass_monotonic(0.25)
    assert lease.expired == "5.0 s passed by the monotonic clock"


def test_a_lease_ends_when_the_clock_was_set_back_by_more_than_clocks_differ_anyhow() -> None:
    clock = Hands()
    lease = Lease.begin(clock, 5.0)
    clock.pass_monotonic(3.0)
    clock.set_by(2.0)
    assert lease.expired == ""
    clock.set_by(-0.25)
    assert lease.expired == "the wall clock was set back by 1.2 s"


def test_where_there_is_no_such_clock_it_takes_pythons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME", raising=False)
    monkeypatch.setattr(time, "monotonic", lambda: 8.0)
    assert runpy.run_path(clocks.__file__)["SystemClock"]().monotonic() == 8.0


async def test_it_asks_for_just_as_much_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    for seconds in (-1.0, 0.0, 0.25):
        await SystemClock().sleep(seconds)
    assert asked == [0.0, 0.0, 0.25]
