"""The rate limit, with a clock that the test moves."""

from __future__ import annotations

from exporter.web.limit import TokenBucket
from tests.support.clock import ManualClock


async def test_a_burst_passes_and_then_one_each_interval() -> None:
    clock = ManualClock()
    bucket = TokenBucket(0.5, 3, clock)
    assert [bucket.wait() for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    await clock.advance(0.25)
    assert bucket.wait() == 0.25
    await clock.advance(0.25)
    assert [bucket.wait(), bucket.wait()] == [0, 0.5]


async def test_a_long_quiet_saves_up_no_more_than_a_burst() -> None:
    clock = ManualClock()
    bucket = TokenBucket(0.5, 2, clock)
    await clock.advance(3600)
    assert [bucket.wait() for _ in range(3)] == [0, 0, 0.5]


async def test_who_is_refused_uses_nothing_up() -> None:
    clock = ManualClock()
    bucket = TokenBucket(1, 1, clock)
    assert bucket.wait() == 0
    for _ in range(10):
        await clock.advance(0.0625)
        assert bucket.wait() > 0
    await clock.advance(0.375)
    assert bucket.wait() == 0
