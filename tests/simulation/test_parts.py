"""The simulation's own parts: its clocks, its loop, its windows, and how it finds a short story."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.simulation.clocks import EPOCH, on_grid
from tests.simulation.fleet import Did, Fleet
from tests.simulation.judge import Rule, Wrong
from tests.simulation.process import KilledError, Point, Process, Trap
from tests.simulation.run import Result
from tests.simulation.scenario import scenario
from tests.simulation.setup import Window
from tests.simulation.shrink import shrink
from tests.simulation.stores import Faults
from tests.simulation.windows import is_open, starts
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable


class Store:
    """Thread that is the store's."""

    is_store = True


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def process(world: World) -> Process:
    process = Process(1, 0, world.machine(), Faults(), None)
    world.processes.append(process)
    return process


def test_time_passes_only_in_steps_of_the_grid(world: World, process: Process) -> None:
    seen: list[float] = []

    async def sleep() -> None:
        for _ in range(3):
            await asyncio.sleep(0.7)
            seen.append(world.now)

    process.spawn(sleep(), "sleeps")
    world.run(2.0)
    assert seen == [on_grid(0.7), on_grid(on_grid(0.7) + 0.7)]
    assert world.now == 2.0


@pytest.mark.parametrize(
    ("stands", "steady", "boot"), [("", 100.0, 100.0), ("steady", 0.0, 100.0), ("steady boot", 0.0, 0.0)]
)
def test_a_suspended_machine(world: World, process: Process, stands: str, steady: float, boot: float) -> None:
    machine = process.machine
    before = machine.steady(), machine.boot(), machine.wall()
    seen: list[float] = []

    async def sleep() -> None:
        await asyncio.sleep(5)
        seen.append(world.now)

    process.spawn(sleep(), "sleeps")
    world.at(1.0, lambda: world.suspend(machine, frozenset(stands.split()), 100.0))
    world.run(100.5)
    assert not seen
    world.run(101.0)
    assert (machine.steady(), machine.boot(), machine.wall()) == (
        before[0] + 1 + steady,
        before[1] + 1 + boot,
        EPOCH + 101,
    )
    world.run(200.0)
    assert seen == [105.0 if "steady" in stands else 101.0]


def test_a_killed_process_does_nothing_more(world: World, process: Process) -> None:
    done: list[str] = []

    def killed(it: Process) -> None:
        it.kill()
        raise KilledError

    def commit() -> None:
        process.commit(lambda: done.append("committed"))

    async def work() -> None:
        await process.loop.run_in_executor(Store(), commit)
        done.append("went on")

    process.traps.append(Trap(Point.COMMIT, killed))
    process.spawn(work(), "works")
    world.run(10.0)
    assert done == ["committed"]
    assert not process.runs


@pytest.mark.parametrize(("before", "after", "seen"), [(0.0, 0.0, 0.0), (1.0, 0.0, 1.0), (1.0, 2.0, 3.0)])
def test_a_slow_store(world: World, process: Process, before: float, after: float, seen: float) -> None:
    faults = Faults()
    faults.before, faults.after = before, after
    process.store = faults
    when: list[float] = []

    async def work() -> None:
        await process.loop.run_in_executor(Store(), lambda: when.append(world.now))
        when.append(world.now)

    process.spawn(work(), "works")
    world.run(10.0)
    assert when == [before, seen]


@pytest.mark.parametrize(
    ("window", "day", "expected"),
    [
        (Window(2, 30, 3600.0, "Europe/Berlin"), (2026, 10, 25), ["00:30", "01:30"]),  # comes twice
        (Window(1, 45, 3600.0, "America/New_York"), (2026, 11, 1), ["05:45", "06:45"]),
        (Window(2, 30, 3600.0, "Europe/Berlin"), (2027, 3, 28), ["01:00"]),  # does not exist
        (Window(2, 0, 3600.0, "America/New_York"), (2027, 3, 14), ["07:00"]),
        (Window(9, 0, 3600.0, "Asia/Kolkata"), (2026, 10, 25), ["03:30"]),
    ],
)
def test_when_a_window_begins(window: Window, day: tuple[int, int, int], expected: list[str]) -> None:
    number = int(datetime(*day, tzinfo=UTC).timestamp() // 86400)
    found = starts(window, number)
    assert [datetime.fromtimestamp(at, UTC).strftime("%H:%M") for at in found] == expected
    for at in found:
        assert not is_open((replace(window, seconds=60.0),), at - 1)
        assert is_open((replace(window, seconds=60.0),), at)
        assert is_open((replace(window, seconds=60.0),), at + 59)
    assert not is_open((replace(window, seconds=60.0),), found[-1] + 60)


def test_what_changes_shows_after_some_polls() -> None:
    fleet = Fleet()
    did = Did("+918011200000", 1, "c")
    fleet.add(did)
    fleet.poll("c")
    fleet.change(did, ("NO_BOT",), lag=2)
    shown = [sorted(fleet.poll("c").dids[did.number].issues) for _ in range(4)]
    assert shown == [[], [], ["NO_BOT"], ["NO_BOT"]]
    assert did.curable


def test_scenarios_differ_and_repeat() -> None:
    assert scenario("1") == scenario("1")
    assert len({repr(scenario(str(number))) for number in range(20)}) == 20
    first, again = scenario("1").storms(), scenario("1").storms()
    assert [next(first) for _ in range(3)] == [next(again) for _ in range(3)]


def failing_with(*needed: tuple[int, int]) -> Callable[[frozenset[tuple[int, int]]], Result]:
    def attempt(kept: frozenset[tuple[int, int]]) -> Result:
        wrong = [Wrong(1.0, Rule.LATE, "too late")] if kept.issuperset(needed) else []
        return Result("1", wrong=wrong, story=[(*each, "") for each in sorted(kept)])

    return attempt


def test_a_story_is_made_short() -> None:
    events = [(storm, event) for storm in range(5) for event in range(8)]
    kept, best = shrink(events, failing_with((1, 3), (4, 0)), 60)
    assert kept == {(1, 3), (4, 0)}
    assert best
    assert best.wrong


def test_a_story_that_is_not_the_whole() -> None:
    kept, best = shrink([(0, 0)], failing_with((1, 3)), 60)
    assert kept == {(0, 0)}
    assert best is None


def test_making_it_short_ends_in_time() -> None:
    clock = iter(range(1000))
    tries: list[Any] = []
    attempt = failing_with((0, 7))

    def counted(kept: frozenset[tuple[int, int]]) -> Result:
        tries.append(kept)
        return attempt(kept)

    shrink([(0, event) for event in range(64)], counted, 5, lambda: float(next(clock)))
    assert len(tries) <= 5
