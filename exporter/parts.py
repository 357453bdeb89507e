"""The parts of the exporter: built, joined, and given another configuration while they run."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.accounts import account_runtimes
from exporter.clock import Clock, SystemClock
from exporter.errors import ConfigError, StartupError
from exporter.exposition import Exposition
from exporter.heal.controller import Controller
from exporter.poller import Poller, Polling
from exporter.scheduler import Scheduler
from exporter.shards import ALL, Shard
from exporter.store import Archive, Store
from exporter.telemetry import Telemetry
from exporter.vocobase import RequestBudget, VocobaseClient, share_for_heals, ssl_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from exporter.config import Settings

HEAL_TICK: Final = timedelta(seconds=10)

log = structlog.stdlib.get_logger(__name__)


class Clients:
    """The accounts' clients. What was sent with a key counts on, whatever the configuration becomes."""

    def __init__(self, telemetry: Telemetry, clock: Clock, shard: Shard = ALL, **transport: Any) -> None:  # noqa: ANN401
        """`transport` replaces the network, as for `VocobaseClient`. Shards divide a key's budget evenly."""
        self.of_account: dict[str, VocobaseClient] = {}
        self._settings: Settings | None = None
        self._telemetry = telemetry
        self._clock = clock
        self._shard = shard
        self._transport = transport
        self._tls: ssl.SSLContext | None = None
        self._budgets: dict[str, RequestBudget] = {}  # by key; kept when no account uses it, as it may come back
        self._retiring: set[asyncio.Task[None]] = set()

    def prepare(self, settings: Settings) -> dict[str, VocobaseClient]:
        """Return a client for each account, the one it has where that still does. Changes nothing yet.

        Raises `StartupError` where the environment allows no client.
        """
        self._tls = self._tls or ssl_context()
        return {account: self._kept(account, settings) or self._new(account, settings) for account in settings.api_keys}

    def use(self, settings: Settings, clients: Mapping[str, VocobaseClient]) -> None:
        """Take prepared clients into use. Those that nobody needs any more are closed when their requests are over."""
        before, self.of_account, self._settings = self.of_account, dict(clients), settings
        for budget in self._budgets.values():
            budget.resize(*self._limits(settings))
        for account in before.keys() - clients.keys():
            self._telemetry.forget_budget(account)
        for account, client in clients.items():
            self._telemetry.watch_budget(account, partial(getattr, client.budget, "remaining"))
        for client in set(before.values()) - set(clients.values()):
            task = asyncio.create_task(client.retire(), name=f"retire {client.account}")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """Close them all, whatever they are doing."""
        for task in list(self._retiring):
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        for client in self.of_account.values():
            await client.aclose()

    def _kept(self, account: str, settings: Settings) -> VocobaseClient | None:
        before = self._settings
        same = before and (before.config.api, before.api_keys.get(account)) == (
            settings.config.api,
            settings.api_keys[account],
        )
        return self.of_account.get(account) if same else None

    def _new(self, account: str, settings: Settings) -> VocobaseClient:
        key = settings.api_keys[account]
        budget = self._budgets.get(key.get_secret_value())
        if budget is None:
            per_minute, heal_share = self._limits(settings)
            budget = RequestBudget(per_minute, self._clock, heal_share=heal_share)
            self._budgets[key.get_secret_value()] = budget
        return VocobaseClient(
            settings.config,
            account,
            key,
            budget=budget,
            observer=self._telemetry,
            clock=self._clock,
            tls=self._tls,
            **self._transport,
        )

    def _limits(self, settings: Settings) -> tuple[int, int]:
        """Return how many requests a minute a key may make, and how many of them are kept for heals."""
        per_minute, heal = max(1, settings.config.api.requests_per_minute // self._shard.total), settings.config.heal
        return per_minute, share_for_heals(per_minute, heal.requests_per_minute) if heal.mode == "enforce" else 0


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
        await self.poller.reconfigure(_polling(settings, clients))
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


def build_poller(
    settings: Settings,
    clients: Mapping[str, VocobaseClient],
    exposition: Exposition,
    clock: Clock,
    shard: Shard = ALL,
) -> Poller:
    """Return a poller of the shard's targets that shows what it finds in `exposition`."""
    return Poller(_polling(settings, clients), exposition, clock=clock, shard=shard)


def _polling(settings: Settings, clients: Mapping[str, VocobaseClient]) -> Polling:
    return Polling(
        {account.name: account for account in settings.config.accounts},
        clients,
        settings.config.poll.stale_after.total_seconds(),
        settings.hash_key.get_secret_value().encode() if settings.hash_key else None,
        settings.config.heal.mode,
    )


def _keys(settings: Settings) -> dict[str, str]:
    return {name: key.get_secret_value() for name, key in settings.api_keys.items()}
