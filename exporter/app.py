"""The composition root: builds the parts, joins them, runs them and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from socket import socket
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter import __version__
from exporter.clock import Clock, SystemClock
from exporter.errors import StartupError
from exporter.exposition import Exposition
from exporter.heal.controller import Controller, fingerprint
from exporter.poller import Poller
from exporter.scheduler import Scheduler
from exporter.store import Archive, Store
from exporter.telemetry import Telemetry
from exporter.vocobase import RequestBudget, VocobaseClient, ssl_context
from exporter.web import Health, Server, Site, create_site, open_sockets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import SecretStr

    from exporter.config import Settings

HEAL_TICK: Final = timedelta(seconds=10)
STOP_WITHIN: Final = 8.0  # seconds from the signal to the end, whatever hangs

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Exporter:
    """The parts that run."""

    settings: Settings
    poller: Poller
    scheduler: Scheduler
    exposition: Exposition
    clients: Mapping[str, VocobaseClient]
    telemetry: Telemetry
    controller: Controller
    archive: Archive


def build(settings: Settings, clock: Clock | None = None, **transport: Any) -> Exporter:  # noqa: ANN401 - the client's
    """Join the parts. Nothing runs yet; call it with an event loop running.

    `transport` replaces the network, as for `VocobaseClient`.
    """
    clock, telemetry = clock or SystemClock(), Telemetry()
    telemetry.configured(clock.time())
    clients = build_clients(settings, telemetry, clock, **transport)
    exposition = Exposition(telemetry.render)
    poller = build_poller(settings, clients, exposition, clock)
    keys = {name: key.get_secret_value() for name, key in settings.api_keys.items()}
    store = Store(settings.config)
    controller = Controller(
        settings.config,
        store,
        clients,
        poller.watches,
        annotator=poller,
        observer=telemetry,
        fingerprints=build_fingerprints(settings),
        clock=clock,
    )
    poller.listener = controller
    budgets = {name: client.budget for name, client in clients.items()}
    scheduler = Scheduler(settings.config, poller, telemetry, clock, key_of=keys, budgets=budgets)
    scheduler.add_chore("look after heals", HEAL_TICK, controller.tick)
    return Exporter(settings, poller, scheduler, exposition, clients, telemetry, controller, Archive(store))


def site_of(exporter: Exporter) -> Site:
    """Return what the pages are about."""
    return Site(
        config=lambda: exporter.settings.config,
        watcher=exporter.poller,
        renderer=exporter.exposition,
        planner=exporter.scheduler,
        healer=exporter.controller,
        past=exporter.archive,
        health=lambda: Health(
            {name: (client.budget.remaining, client.budget.per_minute) for name, client in exporter.clients.items()}
        ),
    )


def build_fingerprints(settings: Settings) -> dict[str, str]:
    """Return for each account a mark that changes with its credential and the configuration."""
    return {
        account.name: fingerprint(account, settings.api_keys[account.name].get_secret_value(), settings.config)
        for account in settings.config.accounts
    }


def build_clients(
    settings: Settings,
    telemetry: Telemetry,
    clock: Clock,
    **transport: Any,  # noqa: ANN401 - the client's
) -> dict[str, VocobaseClient]:
    """Return a client for each account; accounts with the same key share its budget."""
    context = ssl_context()
    budgets: dict[str, RequestBudget] = {}

    def client(account: str, key: SecretStr) -> VocobaseClient:
        per_minute = settings.config.api.requests_per_minute
        budget = budgets.setdefault(key.get_secret_value(), RequestBudget(per_minute, clock))
        telemetry.watch_budget(account, lambda: budget.remaining)
        return VocobaseClient(
            settings.config, account, key, budget=budget, observer=telemetry, clock=clock, tls=context, **transport
        )

    return {account: client(account, key) for account, key in settings.api_keys.items()}


def build_poller(
    settings: Settings, clients: Mapping[str, VocobaseClient], exposition: Exposition, clock: Clock
) -> Poller:
    """Return a poller of all accounts that shows what it finds in `exposition`."""
    config = settings.config
    return Poller(
        {account.name: account for account in config.accounts},
        clients,
        exposition,
        clock=clock,
        stale_after=config.poll.stale_after.total_seconds(),
        heal_mode=config.heal.mode,
        hash_key=settings.hash_key.get_secret_value().encode() if settings.hash_key else None,
    )


Listening = tuple[Server, Sequence[socket]]
Task = asyncio.Task[None]


async def serve(settings: Settings, *, beside: Sequence[Listening] = ()) -> None:
    """Run the daemon until SIGTERM or SIGINT; servers `beside` it live as long. Raises `StartupError`."""
    sockets = open_sockets(settings.config.web.listen_address)
    exporter = build(settings)
    exporter.exposition.refresh_own()
    site = create_site(site_of(exporter))
    gc.freeze()  # what is there now stays: no use in walking it at every collection

    @contextlib.asynccontextmanager
    async def polling() -> AsyncIterator[Sequence[Task]]:
        healing = asyncio.create_task(exporter.controller.run(), name="healing")
        try:
            exporter.scheduler.start()
            _log_start(settings, sockets)
            yield [healing]
        finally:
            healing.cancel()  # nothing is claimed any more; what is under way may still end
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN / 2):
                    await end(exporter)
            with _survived("poller"):
                exporter.poller.close()

    await run_until_stopped([(Server(site), sockets), *beside], polling())


async def run_until_stopped(
    servers: Sequence[Listening], during: contextlib.AbstractAsyncContextManager[Sequence[Task]] | None = None
) -> None:
    """Run servers, and a context within them, until SIGTERM or SIGINT; then end them gracefully.

    None of the servers, and none of the tasks that the context gives, may end before that: if one does, all are ended
    and `StartupError` names it. A daemon that lacks a part is worse than a restart.
    """
    with _signals() as stop:
        tasks = [asyncio.create_task(server.serve(list(sockets)), name="web server") for server, sockets in servers]
        try:
            async with during or contextlib.nullcontext(()) as others:
                supervised = [*tasks, *others]
                for task in supervised:
                    task.add_done_callback(lambda _: stop.set())
                await stop.wait()
                ended = [task.get_name() for task in supervised if _has_ended(task)]
                log.info("stopping")
        finally:
            for server, _ in servers:
                server.should_exit = True
            _, late = await asyncio.wait(tasks, timeout=STOP_WITHIN / 2)
            for task in late:
                task.cancel()
    log.info("stopped")
    if ended:
        raise StartupError(f"the {ended[0]} ended by a fault; the log says where")


def _has_ended(task: Task) -> bool:
    """Tell whether a task has ended that should not have, and log why."""
    if task.done():
        error = None if task.cancelled() else task.exception()
        log.error("the %s ended by a fault", task.get_name(), exc_info=error)
    return task.done()


def _log_start(settings: Settings, sockets: Sequence[socket]) -> None:
    for name in settings.unknown_environment:
        log.warning("an environment variable means nothing to the exporter", variable=name)
    config = settings.config
    if config.api.base_url.startswith("http://"):
        log.warning("api.base_url is not https, so the API key travels in the clear", base_url=config.api.base_url)
    log.info(
        "started",
        version=__version__,
        accounts=len(config.accounts),
        addresses=",".join("{}:{}".format(*sock.getsockname()[:2]) for sock in sockets),
    )


async def end(exporter: Exporter) -> None:
    """End the parts in order; polls are abandoned before healing has its time, which may be all there is."""
    with _survived("scheduler"):
        exporter.scheduler.stop()
    with _survived("poller"):
        await exporter.poller.stop()
    with _survived("healing"):
        await exporter.controller.stop()
    exporter.archive.close()
    for client in exporter.clients.values():
        with _survived("client"):
            await client.aclose()


@contextlib.contextmanager
def _survived(part: str) -> Iterator[None]:
    """See to it that a part that breaks at the end leaves the others theirs."""
    try:
        yield
    except Exception:
        log.exception("a part broke when it was to end", part=part)


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """Own the signals: SIGTERM and SIGINT set the event; SIGHUP does nothing, where by default it would kill."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(
        signal.SIGHUP, lambda: log.warning("SIGHUP does nothing: restart to read the configuration")
    )
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
