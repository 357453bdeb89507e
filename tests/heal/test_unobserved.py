"""Attempts whose targets no poll observes any more: they lock their own DID, say so, and hold nothing else back."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from exporter.config import Config, Settings
from exporter.model import Outcome
from exporter.parts import Exporter
from exporter.simulator import SimulatorOptions, create_app, simulator_of
from exporter.store.records import Status
from tests.support.api import KEY
from tests.support.clock import ManualClock
from tests.support.driving import drive
from tests.support.transport import over

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Awaitable
    from pathlib import Path

    from exporter.model import Target
    from exporter.simulator import Simulator

HEAL: dict[str, Any] = {
    "mode": "enforce",
    "confirm_polls": 2,
    "confirm_for": "50s",
    "verify_within": "5m",
    "hold_off_polls": 1,
    "max_in_flight": 1,
}


class Fleet:
    """One exporter with the connections of a simulator, polled by hand on a manual clock."""

    def __init__(self, file: Path) -> None:
        self.clock = ManualClock()
        self.app = create_app(
            SimulatorOptions(dids=10, connections=2, rate_limit=0), clock=self.clock.time, sleep=self.clock.sleep
        )
        self.simulator: Simulator = simulator_of(self.app)
        self.file = file
        self.exporter: Exporter
        self.log: io.StringIO

    def configured(self, **account: Any) -> Settings:  # noqa: ANN401 - any key of an account
        config = Config.model_validate(
            {
                "api": {"base_url": "http://simulator/api/v2", "requests_per_minute": 100_000},
                "accounts": [{"name": "main", "api_key_env": "KEY", **account}],
                "heal": HEAL,
                "store": {"url": f"sqlite:///{self.file}"},
            }
        )
        return Settings(config, {"main": SecretStr(KEY)})

    @property
    def targets(self) -> list[Target]:
        return sorted(self.exporter.poller.fleet.targets)

    def numbers_of(self, target: Target) -> list[str]:
        truth = self.simulator.truth()
        return [number for number in self.simulator.numbers if truth[number].connection_id == target.connection_id]

    async def driven(self, work: Awaitable[object]) -> None:
        await drive(work, self.clock)

    async def rounds(self, count: int) -> None:
        """Let minutes go by: a poll of every target in each."""
        exporter = self.exporter
        for _ in range(count):
            await self.clock.advance(60.0)
            await exporter.controller.tick()
            await exporter.poller.tick()
            await self.driven(exporter.poller.refresh(self.targets))
            await self.driven(exporter.controller.settle())

    def metric(self, name: str, **labels: str) -> float | None:
        return self.exporter.telemetry.registry.get_sample_value(name, labels)


@pytest.fixture
async def fleet(memory_path: Path, log: io.StringIO) -> AsyncIterator[Fleet]:
    fleet = Fleet(memory_path / "ledger.db")
    fleet.exporter = exporter = Exporter(
        fleet.configured(), fleet.clock, transport=over(httpx.ASGITransport(fleet.app))
    )
    fleet.log = log
    running = asyncio.create_task(exporter.controller.run())
    await fleet.driven(exporter.poller.discover("main"))
    await exporter.poller.plan(dict.fromkeys(exporter.poller.fleet.targets, 60.0))
    yield fleet
    running.cancel()
    await exporter.controller.stop()
    await exporter.poller.stop()
    exporter.poller.close()
    exporter.archive.close()
    await exporter.clients.close()


async def left_open(fleet: Fleet) -> tuple[str, str]:
    """Send a heal of which nobody knows what came of it; return its number, and one of the other connection."""
    one, two = fleet.targets
    number, other = fleet.numbers_of(one)[0], fleet.numbers_of(two)[0]
    fleet.simulator.add_fault("status:call_ready:status=500,count=1")
    fleet.simulator.set_did(number, issues=["NO_BOT"])
    await fleet.rounds(3)
    [attempt] = fleet.exporter.archive._store.ledger.history()  # noqa: SLF001 - looked at
    assert (attempt.number, attempt.status) == (number, Status.AMBIGUOUS)
    return number, other


async def goes(fleet: Fleet, how: str) -> None:
    """Let the first connection not be observed any more."""
    one, two = fleet.targets
    if how == "inactive":
        fleet.simulator.set_connection(one.connection, status="INACTIVE")
        await fleet.driven(fleet.exporter.poller.discover("main"))
    elif how == "not listed":
        fleet.simulator.set_did(fleet.numbers_of(one)[0], removed=True)
    elif how == "polls fail":
        fleet.simulator.add_fault(f"status:sync:status=500,connection={one.connection_id}")
    else:
        settings = fleet.configured(connections=[two.connection_id])
        await fleet.driven(fleet.exporter.reload(lambda: settings))
        await fleet.driven(fleet.exporter.poller.discover("main"))


@pytest.mark.parametrize("how", ["inactive", "polls fail", "not listed", "dropped by a reload"])
async def test_what_no_poll_observes_locks_its_did_and_nothing_else(fleet: Fleet, how: str) -> None:
    number, other = await left_open(fleet)
    await goes(fleet, how)
    fleet.simulator.set_did(other, issues=["NO_BOT"])

    await fleet.rounds(3)
    assert len(fleet.simulator.requests("call_ready")) == 1  # it may still come: the first of a run is not verified
    assert fleet.metric("voicelink_heal_unobserved", account="main") == 0
    await fleet.rounds(8)

    assert len(fleet.simulator.requests("call_ready")) == 2
    assert fleet.simulator.truth()[other].ready
    assert fleet.metric("voicelink_heal_unobserved", account="main") == 1
    rows = fleet.exporter.archive._store.ledger.history(number)  # noqa: SLF001 - looked at
    assert [row.status for row in rows] == [Status.AMBIGUOUS]
    assert [each.number for each in fleet.exporter.controller.unobserved] == [number]
    lines = [json.loads(line) for line in fleet.log.getvalue().splitlines()]
    said = [line for line in lines if line["msg"] == "observing a heal failed"]
    assert len(said) == 1
    assert said[0]["phone_number"] == number
    assert f"voicelink-exporter heal release {number} --reason TEXT" in said[0]["error"]


async def test_a_number_that_vanished_and_is_back_and_broken_is_not_sent_again_before_its_attempt_has_ended(
    fleet: Fleet,
) -> None:
    number, _ = await left_open(fleet)
    await goes(fleet, "not listed")
    await fleet.rounds(12)
    fleet.simulator.set_did(number, removed=False, issues=["NO_BOT"])
    await fleet.rounds(3)
    assert len(fleet.simulator.requests("call_ready")) == 1
    assert fleet.metric("voicelink_heal_unobserved", account="main") == 0
    (row,) = fleet.exporter.archive._store.ledger.history(number)  # noqa: SLF001 - looked at
    assert (row.status, row.did_id) == (Status.AMBIGUOUS, fleet.simulator.truth()[number].did_id)


async def test_what_is_observed_again_is_ended_by_the_polls(fleet: Fleet) -> None:
    number, _ = await left_open(fleet)
    one = fleet.targets[0]
    await goes(fleet, "inactive")
    await fleet.rounds(8)
    assert fleet.metric("voicelink_heal_unobserved", account="main") == 1

    fleet.simulator.set_connection(one.connection, status="ACTIVE")
    fleet.simulator.set_did(number, issues=[])
    await fleet.driven(fleet.exporter.poller.discover("main"))
    await fleet.exporter.poller.plan(dict.fromkeys(fleet.targets, 60.0))
    await fleet.rounds(4)

    assert fleet.metric("voicelink_heal_unobserved", account="main") == 0
    [row] = fleet.exporter.archive._store.ledger.history(number)  # noqa: SLF001 - looked at
    assert row.outcome is Outcome.SUCCEEDED


async def test_a_release_ends_it(fleet: Fleet) -> None:
    number, _ = await left_open(fleet)
    await goes(fleet, "inactive")
    await fleet.rounds(8)
    fleet.exporter.archive._store.ledger.release(number, "looked at it", fleet.clock.time())  # noqa: SLF001 - as the command does
    await fleet.rounds(1)
    assert fleet.metric("voicelink_heal_unobserved", account="main") == 0
    assert fleet.exporter.controller.unobserved == ()


async def test_what_is_observed_holds_the_ramp_for_as_long_as_it_is_open(fleet: Fleet) -> None:
    number, other = await left_open(fleet)
    fleet.simulator.set_did(other, issues=["NO_BOT"])
    for _ in range(6):  # every other poll fails, so that nothing is seen for long enough to end it
        await goes(fleet, "polls fail")
        await fleet.rounds(1)
        fleet.simulator.clear_faults()
        await fleet.rounds(1)
    rows = fleet.exporter.archive._store.ledger.history(number)  # noqa: SLF001 - looked at
    assert [row.status for row in rows] == [Status.AMBIGUOUS]
    assert fleet.metric("voicelink_heal_unobserved", account="main") == 0
    assert len(fleet.simulator.requests("call_ready")) == 1


async def test_what_was_observed_while_the_store_was_away_is_no_reason_to_send_more(fleet: Fleet) -> None:
    number, other = await left_open(fleet)
    _, two = fleet.targets
    away = fleet.file.with_suffix(".away")
    fleet.file.rename(away)
    fleet.simulator.set_did(other, issues=["NO_BOT"])
    await fleet.rounds(7)
    away.rename(fleet.file)

    for _ in range(4):  # the other connection's polls come first
        await fleet.clock.advance(20.0)
        await fleet.exporter.controller.tick()
        await fleet.driven(fleet.exporter.poller.poll(two))
        await fleet.driven(fleet.exporter.controller.settle())

    rows = fleet.exporter.archive._store.ledger.history(number)  # noqa: SLF001 - looked at
    assert [row.status for row in rows] == [Status.AMBIGUOUS]
    assert len(fleet.simulator.requests("call_ready")) == 1
    assert fleet.metric("voicelink_heal_unobserved", account="main") == 0
