"""What asks the API: a client for each account, and a poller that uses them. All that a command needs to ask once."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from exporter.poller import Poller, Polling
from exporter.shards import ALL, Shard
from exporter.vocobase import RequestBudget, VocobaseClient, share_for_heals, ssl_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from exporter.clock import Clock
    from exporter.config import Settings
    from exporter.poller import Sink
    from exporter.telemetry import Telemetry


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


def build_poller(
    settings: Settings,
    clients: Mapping[str, VocobaseClient],
    sink: Sink,
    clock: Clock,
    shard: Shard = ALL,
) -> Poller:
    """Return a poller of the shard's targets that shows what it finds in `sink`."""
    return Poller(polling(settings, clients), sink, clock=clock, shard=shard)


def polling(settings: Settings, clients: Mapping[str, VocobaseClient]) -> Polling:
    """Return what a poller goes by."""
    return Polling(
        {account.name: account for account in settings.config.accounts},
        clients,
        settings.config.poll.stale_after.total_seconds(),
        settings.hash_key.get_secret_value().encode() if settings.hash_key else None,
        settings.config.heal.mode,
    )
