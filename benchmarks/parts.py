"""The product's parts, joined for a measurement."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from benchmarks.running import KEY
from exporter.clients import Clients
from exporter.clock import SystemClock
from exporter.config import Config, Settings
from exporter.poller import Poller, Polling

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from exporter.model import Target
    from exporter.poller import Sink
    from exporter.snapshots import Fleet
    from exporter.telemetry import Telemetry
    from exporter.vocobase import VocobaseClient

ACCOUNT: Final = "bench"
INTERVAL: Final = 60.0


class Nowhere:
    """A sink that shows nothing."""

    def update(self, fleet: Fleet, target: Target | None = None) -> None:
        """Show nothing."""

    def refresh_own(self) -> None:
        """Show nothing."""


@asynccontextmanager
async def poller_of(api: str, sink: Sink, telemetry: Telemetry) -> AsyncIterator[tuple[Poller, VocobaseClient]]:
    """Return a poller that knows its targets, and its client. `api` is the simulator's base URL."""
    limits = {"base_url": api, "requests_per_minute": 100_000}
    config = Config.model_validate({"api": limits, "accounts": [{"name": ACCOUNT, "api_key_env": "BENCH_KEY"}]})
    clock = SystemClock()
    settings, clients = Settings(config, {ACCOUNT: SecretStr(KEY)}), Clients(telemetry, clock)
    clients.use(settings, clients.prepare(settings))
    accounts = {account.name: account for account in config.accounts}
    poller = Poller(Polling(accounts, clients.of_account, INTERVAL * 60), sink, clock=clock)
    try:
        await poller.discover(ACCOUNT)
        await poller.plan(dict.fromkeys(poller.fleet.targets, INTERVAL))
        yield poller, clients.of_account[ACCOUNT]
    finally:
        poller.close()
        await clients.close()
