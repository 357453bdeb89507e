"""What tests of healing share."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from exporter.config import Config
from exporter.exposition import Exposition
from exporter.heal.controller import Controller, fingerprint
from exporter.poller import Poller, Polling
from exporter.simulator import SimulatorOptions, create_app
from exporter.store import Store
from exporter.telemetry import Telemetry
from exporter.vocobase import RequestBudget, VocobaseClient
from tests.support.api import KEY
from tests.support.bench import QUICK, Bench
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    import io
    from collections.abc import AsyncIterator, Callable, Iterator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Return a folder that is gone afterwards, in memory where the machine has such."""
    shared = Path("/dev/shm")  # noqa: S108 - the kernel's, and what is made in it is private
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture
async def start(log: io.StringIO, memory_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Return what starts a replica: options of `heal`, and of the simulator; `like` shares the API and the clock."""
    async with contextlib.AsyncExitStack() as stack:

        async def begin(
            heal: dict[str, Any] | None = None,
            *,
            like: Bench | None = None,
            patience: str = "30s",
            **options: Any,  # noqa: ANN401 - any option
        ) -> Bench:
            clock = like.clock if like else ManualClock()
            file = memory_path / "ledger.db"
            config = Config.model_validate(
                {
                    "api": {"base_url": "http://simulator/api/v2", "timeout": patience},
                    "accounts": [{"name": "main", "api_key_env": "KEY"}],
                    "heal": {**QUICK, **(heal or {})},
                    "store": {"url": f"sqlite:///{file}"},
                }
            )
            app = (
                like.app
                if like
                else create_app(SimulatorOptions(**{"dids": 10, **options}), clock=clock.time, sleep=clock.sleep)
            )
            telemetry, account = Telemetry(), config.accounts[0]
            client = VocobaseClient(
                config,
                "main",
                SecretStr(KEY),
                budget=RequestBudget(60, clock),
                observer=telemetry,
                clock=clock,
                transport=httpx.ASGITransport(app),
            )
            exposition = Exposition(telemetry.render)
            polling = Polling({"main": account}, {"main": client}, 300.0, heal_mode=config.heal.mode)
            poller = Poller(polling, exposition, clock=clock)
            store = Store(config)
            controller = Controller(
                config,
                store,
                {"main": client},
                poller.watches,
                annotator=poller,
                observer=telemetry,
                fingerprints={"main": fingerprint(account, KEY, config)},
                clock=clock,
            )
            poller.listener = controller
            running = asyncio.create_task(controller.run())
            await poller.discover("main")
            await poller.plan(dict.fromkeys(poller.fleet.targets, 60.0))

            async def end() -> None:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await controller.stop()
                await poller.stop()
                poller.close()
                await client.aclose()

            stack.push_async_callback(end)
            return Bench(app, clock, store, poller, controller, client, telemetry, file, log)

        yield begin
