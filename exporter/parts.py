"""The parts of the exporter: built, joined, and given another configuration while they run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.accounts import account_runtimes
from exporter.clients import Clients, build_poller, polling
from exporter.clock import Clock, SystemClock
from exporter.errors import ConfigError, StartupError
from exporter.exposition import Exposition
from exporter.heal.controller import Controller
from exporter.scheduler import Scheduler
from exporter.shards import ALL, Shard
from exporter.store import Archive, Store
from exporter.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.config import Settings
    from exporter.vocobase import RequestBudget, VocobaseClient

HEAL_TICK: Final = timedelta(seconds=10)

log = structlog.stdlib.get_logger(__name__)


class Exporter:
    """The parts, joined. Nothing runs yet when it is made; make it with an event loop running."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        shard: Shard = ALL,
        **transport: Any,  # noqa: ANN401
    ) -> None:
        """`transport` replaces the network, as for `VocobaseClient`."""
        self.settings = settings
        self.shard = shard
        self.clock = clock or SystemClock()
        self.telemetry = Telemetry()
        self.telemetry.sharded(shard)
        self.telemetry.configured(self.clock.time())
        self._show_limits()
        self.telemetry.unobserved(dict.fromkeys((account.name for account in settings.config.accounts), 0))
        self.clients = Clients(self.telemetry, self.clock, shard, **transport)
        self.clients.use(settings, self.clients.prepare(settings))
        self.exposition = Exposition(self.telemetry.render)
        self.poller = build_poller(settings, self.clients.of_account, self.exposition, self.clock, shard)
        store = Store(settings.config, clock=self.clock, problem=settings.store_problem)
        self.archive = Archive(store)
        self.controller = Controller(
            settings.config,
            store,
            account_runtimes(settings, self.clients.of_account, self.poller.watches),
            annotator=self.poller,
            observer=self.telemetry,
            clock=self.clock,
        )
        self.poller.listener = self.controller
        keys, budgets = _keys(settings), self._budgets()
        self.scheduler = Scheduler(
            settings.config, self.poller, self.telemetry, self.clock, key_of=keys, budgets=budgets
        )
        self.scheduler.add_chore("look after heals", HEAL_TICK, self.controller.tick)
        self._reloading = asyncio.Lock()

    async def reload(self, load: Callable[[], Settings], also: Callable[[], None] = lambda: None) -> None:
        """Go by what `load` returns, whole or not at all; `also` reads what else there is, and may refuse.

        Raises `ConfigError` with every problem; then everything stays as it was, and the metrics and the log say so.
        """
        async with self._reloading:
            self.telemetry.reload_successful.set(0)  # until it is done
            try:
                settings = await asyncio.to_thread(load)
                clients = self._prepared(settings)
                await asyncio.to_thread(also)
            except ConfigError as error:
                problems = "; ".join(error.problems)
                log.warning("the configuration was not reloaded, the one before stays", problems=problems)
                raise
            await self._apply(settings, clients)
            self.telemetry.configured(self.clock.time())

    def _prepared(self, settings: Settings) -> dict[str, VocobaseClient]:
        """Check what only a running exporter can refuse, and return the clients to go on with. Changes nothing."""
        before, after = self.settings.config, settings.config
        changed = {
            "store.url": before.store.url != after.store.url,
            "web.listen_address": before.web.listen_address != after.web.listen_address,
        }
        problems = [
            f"{key}: can't be changed while the exporter runs; restart it" for key, other in changed.items() if other
        ]
        if problems:
            raise ConfigError(problems)
        try:
            return self.clients.prepare(settings)
        except StartupError as error:
            raise ConfigError([str(error)]) from None

    async def _apply(self, settings: Settings, clients: dict[str, VocobaseClient]) -> None:
        config, running = settings.config, self.clients.of_account
        were = {account.name: account for account in self.settings.config.accounts}
        changed = {
            account.name
            for account in config.accounts
            if were.get(account.name) != account or running.get(account.name) is not clients[account.name]
        }
        self.settings = settings
        self._show_limits()
        await self.poller.reconfigure(polling(settings, clients))
        await self.controller.reconfigure(config, account_runtimes(settings, clients, self.poller.watches))
        self.clients.use(settings, clients)
        await self.scheduler.reconfigure(config, key_of=_keys(settings), budgets=self._budgets(), changed=changed)
        log.info(
            "configuration reloaded",
            accounts=len(clients),
            new=len(clients.keys() - were.keys()),
            changed=len(changed & were.keys()),
            gone=len(were.keys() - clients.keys()),
        )

    def _show_limits(self) -> None:
        config = self.settings.config
        self.telemetry.heal_limits((account.name for account in config.accounts), config.heal.max_per_hour)

    def _budgets(self) -> dict[str, RequestBudget]:
        return {account: client.budget for account, client in self.clients.of_account.items()}


def _keys(settings: Settings) -> dict[str, str]:
    return {name: key.get_secret_value() for name, key in settings.api_keys.items()}
