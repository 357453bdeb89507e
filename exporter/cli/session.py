"""What a command that asks the API once needs: clients, a poller, and a fleet that was just polled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog
from rich.console import Console
from rich.progress import Progress

from exporter.accounts import credential
from exporter.cli.ledger import store_of
from exporter.clients import Clients, build_poller
from exporter.clock import SystemClock
from exporter.errors import Reason, StoreError
from exporter.exposition import Exposition
from exporter.telemetry import Telemetry

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from exporter.config import Settings

log = structlog.stdlib.get_logger(__name__)

NEXT_STEPS: Final = {
    Reason.AUTH: "The API refuses the key: check what api_key_env or api_key_file of the account names",
    Reason.FORBIDDEN: "The key is valid, but may not do this: check the account's balance and approval at Vocobase",
    Reason.VALIDATION: "The API finds the request invalid: check the ids under connections of the account",
    Reason.NOT_FOUND: "The API knows no such connection: check the ids under connections, and api.base_url",
    Reason.RATE_LIMITED: "Something else uses up the request limit of this key: try again in a minute",
    Reason.SERVER_ERROR: "The API has a fault: try again later",
    Reason.TIMEOUT: "The API did not answer in time: try again, or raise api.timeout",
    Reason.CONNECT: "There is no connection: check the network, the proxy and api.base_url",
    Reason.TOO_LARGE: "The answer is longer than api.max_response_bytes: raise it",
}


class Session:
    """A fleet that was polled when the context was entered."""

    def __init__(self, settings: Settings) -> None:
        telemetry = Telemetry()
        self.settings = settings
        self.clock = SystemClock()
        self._clients = Clients(telemetry, self.clock)
        self._clients.use(settings, self._clients.prepare(settings))
        self.clients = self._clients.of_account
        self.poller = build_poller(settings, self.clients, Exposition(telemetry.render), self.clock)
        self.store = store_of(settings, self.clock)

    async def __aenter__(self) -> Self:
        """Poll every target once, showing progress on a terminal when there are several.

        Where there is a store, keys that the API asked somebody to pause wait until that is over.
        """
        try:
            await asyncio.to_thread(self._attach)
            if self.store.opened:
                await asyncio.to_thread(self._take_over_pauses)
            await self._poll()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close what was opened."""
        await self._close()

    @property
    def unknown(self) -> list[str]:
        """The targets whose poll failed, each in words."""
        return [
            f"account {target.account}, connection {target.connection}: the poll failed "
            f"({state.failure or Reason.OTHER}), so nothing is known of its numbers. "
            f"{NEXT_STEPS.get(state.failure or Reason.OTHER, 'The log says why')}"
            for target, state in sorted(self.poller.fleet.targets.items())
            if not state.up
        ]

    def _attach(self) -> None:
        """Use the store if there is one; to poll, none is needed."""
        if not self.store.is_missing:
            with suppress(StoreError):
                self.store.attach()

    def _take_over_pauses(self) -> None:
        with suppress(StoreError):
            for name, client in self.clients.items():
                mark, now = credential(self.settings.api_keys[name].get_secret_value()), self.clock.time()
                left = self.store.ledger.account(mark, now).key_paused_until - now
                client.budget.pause(left)
                if left > 1:
                    log.warning("the API asked for a pause, and requests wait", account=name, seconds=round(left))

    async def _poll(self) -> None:
        for account in self.clients:
            await self.poller.discover(account)
        targets = sorted(self.poller.fleet.targets)
        config = self.settings.config
        waiting = 2 * len(targets) * max((client.budget.gap for client in self.clients.values()), default=0.0)
        patience = max(config.poll.interval, config.api.timeout).total_seconds() + waiting
        await self.poller.plan(dict.fromkeys(targets, patience))
        console = Console(stderr=True)
        quiet = not console.is_terminal or len(targets) == 1
        with Progress(console=console, transient=True, disable=quiet) as progress:
            task = progress.add_task("polling", total=len(targets))
            for done in asyncio.as_completed([self.poller.poll(target) for target in targets]):
                await done
                progress.advance(task)

    async def _close(self) -> None:
        self.poller.close()
        self.store.close()
        await self._clients.close()
