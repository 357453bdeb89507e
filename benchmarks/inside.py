"""What a poll costs inside, step by step, and what grows with the fleet."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import statistics
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from benchmarks.parts import ACCOUNT, INTERVAL, Nowhere, poller_of
from benchmarks.running import base_url
from exporter.config import Account
from exporter.exposition import Exposition
from exporter.exposition.deflate import compress
from exporter.model import Target
from exporter.simulator import SimulatorOptions, create_app, simulator_of
from exporter.snapshots import Fleet, TargetState, Watch, poll_succeeded
from exporter.telemetry import Telemetry
from exporter.vocobase import parse_sync

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.running import Running

SHARE: Final = 0.01  # of the DIDs, that change from poll to poll
TICK: Final = 0.001  # seconds between two looks at the event loop
BROKEN: Final = ["NO_BOT", "ROUTING_MISSING"]


@dataclass(frozen=True, slots=True)
class Steps:
    """CPU seconds of one poll."""

    receive: float
    parse: float
    diff: float
    render: float
    compress: float

    @property
    def total(self) -> float:
        """Return the sum."""
        return self.receive + self.after

    @property
    def after(self) -> float:
        """Return what comes after the answer is there."""
        return self.parse + self.diff + self.render + self.compress


@dataclass(frozen=True, slots=True)
class Lag:
    """How late the event loop woke up, in seconds: the worst within a poll (median of polls), of all, and at rest."""

    median: float
    worst: float
    at_rest: float


@contextmanager
def settled() -> Iterator[None]:
    """Collect garbage and freeze what is left, as the daemon does at its start."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class Changer:
    """Changes some DIDs of a simulator in another process, others each time."""

    def __init__(self, api: Running, numbers: Sequence[str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", api.port)
        self._numbers = numbers
        self._many = max(1, round(len(numbers) * SHARE))
        self._at = 0

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def change(self) -> None:
        """Break the next ones."""
        for number in (self._numbers[(self._at + each) % len(self._numbers)] for each in range(self._many)):
            self.set_issues(number, BROKEN)
        self._at += self._many

    def set_issues(self, number: str, issues: Sequence[str]) -> None:
        """Say what is wrong with a DID."""
        self._connection.request("PUT", f"/control/dids/{number}", json.dumps({"issues": list(issues)}))
        answer = self._connection.getresponse()
        answer.read()
        if answer.status != http.client.OK:
            raise RuntimeError(f"the simulator answered {answer.status}")


async def steps_of_poll(api: Running, rounds: int) -> Steps:
    """Poll a simulator's only target again and again; return the medians."""
    telemetry = Telemetry()
    exposition, watch = Exposition(telemetry.render), Watch.of(Account(name=ACCOUNT, api_key_env="BENCH_KEY"))
    found: list[Steps] = []
    async with poller_of(base_url(api), Nowhere(), telemetry) as (poller, client):
        (target,) = poller.fleet.targets
        await poller.poll(target)
        fleet = poller.fleet
        exposition.update(fleet, target)
        with closing(Changer(api, _numbers(fleet, target))) as changer, settled():
            for _ in range(rounds):
                changer.change()
                times = [time.process_time()]
                reading = await client.sync(target.connection_id, deadline=time.monotonic() + INTERVAL)
                times.append(time.process_time())
                answer = parse_sync(reading.body)
                times.append(time.process_time())
                fleet = poll_succeeded(fleet, target, answer, watch, at=time.time(), duration=0.1)
                times.append(time.process_time())
                before = exposition.bodies
                exposition.update(fleet, target)
                times.append(time.process_time())
                compressing = _compressing(before.text.plain, exposition.bodies.text.plain)
                receive, parse, diff, update = (after - at for at, after in pairwise(times))
                found.append(Steps(receive, parse, diff, max(0.0, update - compressing), compressing))
    return Steps(*(statistics.median(getattr(each, item.name) for each in found) for item in fields(Steps)))


def _numbers(fleet: Fleet, target: Target) -> list[str]:
    snapshot = fleet.targets[target].snapshot
    if not snapshot:
        raise RuntimeError("the poll failed")
    return list(snapshot.dids)


def _compressing(before: Sequence[bytes], after: Sequence[bytes]) -> float:
    """Return the CPU seconds that compressing what is new takes."""
    known = set(map(id, before))
    begun = time.process_time()
    for text in after:
        if id(text) not in known:
            compress(text)
    return time.process_time() - begun


async def lag_of_polls(api: Running, rounds: int) -> Lag:
    """Poll as the daemon does, and watch how late its event loop is meanwhile."""
    telemetry = Telemetry()
    exposition = Exposition(telemetry.render)
    worst: list[float] = []
    async with poller_of(base_url(api), exposition, telemetry) as (poller, _):
        (target,) = poller.fleet.targets
        await poller.poll(target)
        with closing(Changer(api, _numbers(poller.fleet, target))) as changer, settled():
            at_rest = await _worst_lag(asyncio.create_task(asyncio.sleep(1)))
            for _ in range(rounds):
                await asyncio.to_thread(changer.change)
                worst.append(await _worst_lag(asyncio.create_task(poller.poll(target))))
    return Lag(statistics.median(worst), max(worst), at_rest)


async def _worst_lag(work: asyncio.Task[None]) -> float:
    worst = 0.0
    while not work.done():
        begun = time.perf_counter()
        await asyncio.sleep(TICK)
        worst = max(worst, time.perf_counter() - begun - TICK)
    await work
    return worst


def work_after_poll(targets: int, dids: int, rounds: int) -> float:
    """Return the CPU seconds that rendering and compressing take after a poll of one of so many targets.

    Each target has so many DIDs. Nothing goes over the network here.
    """
    simulator = simulator_of(create_app(SimulatorOptions(dids=targets * dids, connections=targets, rate_limit=0)))
    watch = Watch.of(Account(name=ACCOUNT, api_key_env="BENCH_KEY"))
    exposition = Exposition(Telemetry().render)
    connections = list(simulator.fleet.connections.values())
    fleet = Fleet()
    for each in connections:
        fleet = fleet.with_target(TargetState(Target(ACCOUNT, each.connection_id)))

    def polled(index: int) -> tuple[Fleet, Target]:
        target = Target(ACCOUNT, connections[index].connection_id)
        answer = parse_sync(simulator.wire.sync(connections[index]))
        return poll_succeeded(fleet, target, answer, watch, at=time.time(), duration=0.1), target

    for index in range(targets):
        fleet, _ = polled(index)
    exposition.update(fleet)
    found: list[float] = []
    with settled():
        for turn in range(rounds):
            index = turn * 7 % targets
            for did in connections[index].dids()[turn :: round(1 / SHARE)]:
                simulator.set_did(did.phone_number, issues=BROKEN)
            fleet, target = polled(index)
            begun = time.process_time()
            exposition.update(fleet, target)
            found.append(time.process_time() - begun)
    return statistics.median(found)
