"""What tests of healing share."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from exporter.accounts import account_runtimes
from exporter.config import Config, Settings
from exporter.exposition import Exposition
from exporter.heal.controller import Controller
from exporter.poller import Poller, Polling
from exporter.simulator import SimulatorOptions, create_app
from exporter.store import Store
from exporter.telemetry import Telemetry
from exporter.vocobase import VocobaseClient
from tests.support.api import KEY
from tests.support.bench import QUICK, Bench
from tests.support.budgets import Unpaced
from tests.support.clock import ManualClock
from tests.support.transport import over

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Return a folder that is gone afterwards, in memory where the machine has such."""
    shared = Path("/dev/shm")  # noqa: S108 - the kernel's, and what is made in it is private
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
async def start(log: io.StringIO, memory_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Return what starts a replica: options of `heal`, and of the simulator; `like` shares the API and the clock.

    `accounts` have one key; each is a name, and what else its section of the configuration says.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def begin(
            heal: dict[str, Any] | None = None,
            *,
            like: Bench | None = None,
            clock: ManualClock | None = None,
            patience: str = "30s",
            accounts: Mapping[str, dict[str, Any]] = MappingProxyType({"main": {}}),
            retention: str = "90d",
            **options: Any,  # noqa: ANN401 - any option
        ) -> Bench:
            clock = clock or (like.clock if like else ManualClock())
            file = memory_path / "ledger.db"
            config = Config.model_validate(
                {
                    "api": {"base_url": "http://simulator/api/v2", "timeout": patience},
                    "accounts": [{"name": name, "api_key_env": "KEY", **more} for name, more in accounts.items()],
                    "heal": {**QUICK, **(heal or {})},
                    "store": {"url": f"sqlite:///{file}", "retention": retention},
                }
            )
            app = (
                like.app
                if like
                else create_app(SimulatorOptions(**{"dids": 10, **options}), clock=clock.time, sleep=clock.sleep)
            )
            telemetry, budget = Telemetry(), Unpaced(60, clock)
            clients = {
                name: VocobaseClient(
                    config,
                    name,
                    SecretStr(KEY),
                    budget=budget,
                    observer=telemetry,
                    clock=clock,
                    transport=over(httpx.ASGITransport(app)),
                )
                for name in accounts
            }
            exposition = Exposition(telemetry.render)
            named = {account.name: account for account in config.accounts}
            poller = Poller(Polling(named, clients, 300.0, heal_mode=config.heal.mode), exposition, clock=clock)
            store = Store(config, clock=clock)
            settings = Settings(config, dict.fromkeys(accounts, SecretStr(KEY)))
            controller = Controller(
                config,
                store,
                account_runtimes(settings, clients, poller.watches),
                annotator=poller,
                observer=telemetry,
                clock=clock,
            )
            poller.listener = controller
            running = asyncio.create_task(controller.run())
            first = next(iter(clients.values()))
            bench = Bench(app, clock, store, poller, controller, first, telemetry, file, log)
            for name in accounts:
                await bench.drive(asyncio.ensure_future(poller.discover(name)))
            await poller.plan(dict.fromkeys(poller.fleet.targets, 60.0))

            async def end() -> None:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await controller.stop()
                await poller.stop()
                poller.close()
                for client in clients.values():
                    await client.aclose()

            stack.push_async_callback(end)
            return bench

        yield begin
