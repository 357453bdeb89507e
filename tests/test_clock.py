"""The machine's clock."""

from __future__ import annotations

import time

import pytest

from exporter.clock import SystemClock


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_it_tells_the_time() -> None:
    clock = SystemClock()
    assert time.time() - clock.time() < 5
    assert clock.monotonic() <= time.monotonic()


async def test_it_sleeps_as_long_as_it_is_told_and_not_at_all_for_less_than_nothing() -> None:
    clock = SystemClock()
    started = clock.monotonic()
    await clock.sleep(-1_000_000)
    assert clock.monotonic() - started < 5
    await clock.sleep(0.02)
    assert clock.monotonic() - started >= 0.02
