"""A poller with the real client, the real rendering and a simulator, in process, on a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from exporter.config import Account, Config
from exporter.exposition import Exposition
from exporter.poller import Poller, Polling
from exporter.shards import ALL, Shard
from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of
from exporter.telemetry import Telemetry
from exporter.vocobase import VocobaseClient
from tests.support.budgets import Unpaced
from tests.support.clock import ManualClock
from tests.support.driving import drive
from tests.support.transport import over

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Callable

    from exporter.model import Target
    from exporter.poller import Sink

KEY = "rg_live_canary0123456789"


async def _forever(_: float) -> None:
    await asyncio.Event().wait()


@dataclass
class Parts:
    """What a test has in hand. The simulator is `simulators[account]`."""

    poller: Poller
    clock: ManualClock
    exposition: Exposition
    telemetry: Telemetry
    simulators: dict[str, Simulator]
    log: io.StringIO
    clients: dict[str, VocobaseClient]
    budgets: dict[str, Unpaced]
    default: str = field(default="main")

    @property
    def simulator(self) -> Simulator:
        return self.simulators[self.default]

    @property
    def targets(self) -> list[Target]:
        return sorted(self.poller.fleet.targets)

    async def poll(self, target: Target | None = None) -> None:
        """Poll one target, or all of them, to the end."""
        for each in [target] if target else self.targets:
            await drive(self.poller.poll(each), self.clock)

    async def discover(self, account: str = "main") -> bool:
        """Look up the connections of an account; poll nothing."""
        listed = await drive(self.poller.discover(account), self.clock)
        await self.poller.plan(dict.fromkeys(self.targets, 60.0))
        return listed

    @property
    def text(self) -> str:
        """What /metrics would say."""
        return b"".join(self.exposition.bodies.text.plain).decode()

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value of the one series that has these labels; `None` where there is none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        found = [
            line
            for line in self.text.split("\n")
            if line.startswith(f"{name}{{") and all(each in line for each in wanted)
        ]
        assert len(found) <= 1
        return float(found[0].rpartition(" ")[2]) if found else None

    def said(self, *messages: str) -> list[dict[str, Any]]:
        """Return what was logged, or of that what has one of these messages."""
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if not messages or line["msg"] in messages]


@pytest.fixture
async def start(log: io.StringIO) -> AsyncIterator[Callable[..., Parts]]:
    """Return what makes a poller: options of the simulator, the account's configuration, of the API and of the poller.

    `accounts` makes several, each with a simulator of its own; `wrap` puts a sink around the exposition; `online=False`
    leaves the simulator out; a `stuck` one never gets to the end of a wait.
    """
    async with contextlib.AsyncExitStack() as stack:

        def begin(
            *,
            accounts: dict[str, dict[str, Any]] | None = None,
            account: dict[str, Any] | None = None,
            api: dict[str, Any] | None = None,
            wrap: Callable[[Sink], Sink] | None = None,
            hash_key: bytes | None = None,
            online: bool = True,
            stuck: bool = False,
            shard: Shard = ALL,
            **options: Any,  # noqa: ANN401 - any option of the simulator
        ) -> Parts:
            clock, telemetry = ManualClock(), Telemetry()
            named = {
                name: Account.model_validate({"name": name, "api_key_env": "KEY", **given})
                for name, given in (accounts or {"main": account or {}}).items()
            }
            config = Config.model_validate({"api": {"base_url": "http://simulator/api/v2", **(api or {})}})
            clients, simulators, budgets = {}, {}, {}
            for name in named:
                app = create_app(
                    SimulatorOptions(**options), clock=clock.time, sleep=_forever if stuck else clock.sleep
                )
                simulators[name] = simulator_of(app)
                budget = budgets[name] = Unpaced(config.api.requests_per_minute, clock)
                telemetry.watch_budget(name, lambda budget=budget: budget.remaining)  # type: ignore[misc]
                clients[name] = VocobaseClient(
                    config,
                    name,
                    SecretStr(KEY),
                    budget=budget,
                    observer=telemetry,
                    clock=clock,
                    transport=over(httpx.ASGITransport(app)) if online else None,
                )
                stack.push_async_callback(clients[name].aclose)
            exposition = Exposition(telemetry.render)
            sink = wrap(exposition) if wrap else exposition
            poller = Poller(Polling(named, clients, 300.0, hash_key), sink, clock=clock, shard=shard)
            stack.callback(poller.close)
            stack.push_async_callback(poller.stop)
            return Parts(poller, clock, exposition, telemetry, simulators, log, clients, budgets, next(iter(named)))

        yield begin
