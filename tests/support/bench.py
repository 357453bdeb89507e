"""The controller with the real poller, client and store against the simulator, in process: what tests drive."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.simulator import Simulator, simulator_of
from tests.support.clock import settle
from tests.support.driving import drive
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    import io
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from exporter.heal.controller import Controller
    from exporter.model import Target
    from exporter.poller import Poller
    from exporter.snapshots import Healing, TargetState
    from exporter.store import Store
    from exporter.store.records import Attempt
    from exporter.telemetry import Telemetry
    from exporter.vocobase import VocobaseClient
    from tests.support.clock import ManualClock

QUICK = {
    "mode": "enforce",
    "confirm_polls": 2,
    "confirm_for": "50s",
    "verify_within": "170s",
    "hold_off_polls": 1,
    "backoff": {"initial": "2m", "max": "4m"},
}
CALL_READY = "call_ready"


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in the store's thread."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the store has no event for it
            await asyncio.sleep(0.01)


class Held:
    """A method of the ledger that waits, in the store's thread, when it is done: until it may `go_on`."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method = method
        self._done, self.go_on = threading.Event(), threading.Event()

    def __call__(self, *asked: Any) -> Any:  # noqa: ANN401 - the ledger's
        answer = self._method(*asked)
        self._done.set()
        self.go_on.wait(PATIENCE)
        return answer

    async def reached(self) -> None:
        """Return when it waits."""
        await until(self._done.is_set)


@dataclass
class Bench:
    """One replica, and the API it talks to."""

    app: Any
    clock: ManualClock
    store: Store
    poller: Poller
    controller: Controller
    client: VocobaseClient
    telemetry: Telemetry
    file: Path
    log: io.StringIO

    @property
    def simulator(self) -> Simulator:
        return simulator_of(self.app)

    @property
    def target(self) -> Target:
        return next(iter(self.poller.fleet.targets))

    @property
    def state(self) -> TargetState:
        return self.poller.fleet.targets[self.target]

    @property
    def healing(self) -> Healing:
        return self.state.healing

    @property
    def sent(self) -> int:
        return len(self.simulator.requests(CALL_READY))

    def heal_state(self, number: str) -> str:
        return self.state.memory[number].heal

    def attempts(self, number: str | None = None) -> list[Attempt]:
        return self.store.ledger.history(number)

    async def drive(self, work: Awaitable[object]) -> None:
        await drive(work, self.clock)

    async def rounds(self, count: int) -> None:
        """Let minutes go by: signs of life, and a poll of every target in each."""
        for _ in range(count):
            await self.clock.advance(60.0)
            await self.controller.tick()
            await self.drive_poll()

    async def drive_poll(self) -> None:
        """Poll, and let healing do what follows."""
        for target in sorted(self.poller.fleet.targets):
            await self.drive(self.poller.poll(target))
        await self.drive(self.controller.settle())

    async def start_poll(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Poll a minute later, and do not wait for what healing does then.

        `meanwhile` happens while the answer is waited for.
        """
        await self.clock.advance(60.0)
        await self.controller.tick()
        polling = asyncio.create_task(self.poller.poll(self.target))
        await settle()
        meanwhile()
        await self.drive(polling)

    async def wait_for_place(self) -> None:
        """Let the first number break, and its heal be decided; it waits for its place in the budget for a second."""
        self.simulator.set_did(self.simulator.numbers[0], issues=["NO_BOT"])
        await self.rounds(1)
        self.simulator.add_fault("latency:sync:seconds=0.2,count=1")
        await self.start_poll(lambda: self.client.budget.pause(1.0))
        await until(lambda: bool(self.controller._sender.waiting))  # noqa: SLF001 - nothing else tells
        assert self.attempts() == []

    def said(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["msg"] == message]


async def next_poll(bench: Bench, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Poll a minute later; something happens while the answer is waited for. What comes of it isn't waited for."""
    await bench.clock.advance(60.0)
    await bench.controller.tick()
    polling = asyncio.create_task(bench.poller.poll(bench.target))
    await settle()
    meanwhile()
    await bench.drive(polling)
