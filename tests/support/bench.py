"""The controller with the real poller, client and store against the simulator, in process: what tests drive."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.simulator import Simulator, simulator_of

if TYPE_CHECKING:
    import io
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

LONG = 20.0  # seconds of real time after which a test has failed
QUICK = {
    "mode": "enforce",
    "confirm_polls": 2,
    "confirm_for": "50s",
    "verify_within": "170s",
    "hold_off_polls": 1,
    "backoff": {"initial": "2m", "max": "4m"},
}
CALL_READY = "call_ready"


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

    async def drive(self, work: asyncio.Task[None]) -> None:
        """Let time pass only where something waits for it."""
        async with asyncio.timeout(LONG):
            while not work.done():
                await asyncio.wait({work}, timeout=0.5)
                if not work.done():
                    await self.clock.advance(0.05)
        work.result()

    async def rounds(self, count: int) -> None:
        """Let minutes go by: signs of life, and a poll in each."""
        for _ in range(count):
            await self.clock.advance(60.0)
            await self.controller.tick()
            await self.drive(asyncio.ensure_future(self.poller.poll(self.target)))
            await self.controller.settle()

    def said(self, message: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["msg"] == message]
