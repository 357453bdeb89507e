"""The daemon: runs the parts and their server, and ends all in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog

from exporter import __version__
from exporter.clock import SystemClock
from exporter.config import suspicious
from exporter.parts import Exporter
from exporter.running import STOP_WITHIN, run_until_stopped
from exporter.shards import ALL, Shard
from exporter.web.listening import name_of, open_all
from exporter.web.security import Security
from exporter.web.server import Server
from exporter.web.site import Health, Site, create_site

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path
    from socket import socket

    from exporter.config import Settings
    from exporter.running import Listening, Task

LOOK: Final = timedelta(seconds=1)  # between two looks at the files of the web configuration

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says of the daemon beyond its configuration.

    `load` reads the configuration anew, for a reload; without it there is none. `lifecycle` lets it be asked for over
    HTTP, too. `web_file` is the web configuration. `started` is called once, with the address that it listens on first.
    """

    load: Callable[[], Settings] | None = None
    lifecycle: bool = False
    shard: Shard = ALL
    web_file: Path | None = None
    started: Callable[[str], None] = lambda _: None


DEFAULTS: Final = Options()


def site_of(exporter: Exporter, reload: Callable[[], Awaitable[None]] | None = None) -> Site:
    """Return what the pages are about; `reload` is what `/-/reload` does, where there is such a page."""
    return Site(
        config=lambda: exporter.settings.config,
        watcher=exporter.poller,
        renderer=exporter.exposition,
        planner=exporter.scheduler,
        healer=exporter.controller,
        past=exporter.archive,
        reload=reload,
        health=partial(_health, exporter),
    )


def _health(exporter: Exporter) -> Health:
    clients, shard = exporter.clients.of_account.items(), exporter.shard
    return Health(
        {name: (client.budget.remaining, client.budget.per_minute) for name, client in clients},
        (shard.index, shard.total) if shard.total > 1 else None,
    )


async def serve(settings: Settings, options: Options = DEFAULTS, *, beside: Sequence[Listening] = ()) -> None:
    """Run the daemon until SIGTERM or SIGINT; servers `beside` it live as long.

    Raises `ConfigError` for the web configuration, and `StartupError`.
    """
    security = Security(options.web_file, SystemClock())
    sockets = open_all(settings.config.web.listen_address)
    exporter = Exporter(settings, shard=options.shard)
    security.report_to(exporter.telemetry.web_config_read)
    exporter.scheduler.add_chore("look at the web configuration", LOOK, security.look)
    exporter.exposition.refresh_own()
    reload = partial(exporter.reload, options.load, security.reread) if options.load else None
    site = security.around(create_site(site_of(exporter, reload if options.lifecycle else None)))
    gc.freeze()  # what is there now stays: no use in walking it at every collection

    @contextlib.asynccontextmanager
    async def polling() -> AsyncIterator[Sequence[Task]]:
        healing = asyncio.create_task(exporter.controller.run(), name="healing")
        try:
            exporter.scheduler.start()
            _log_start(settings, sockets)
            options.started(name_of(sockets[0]))
            yield [healing]
        finally:
            healing.cancel()  # nothing is claimed any more; what is under way may still end
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN / 2):
                    await end(exporter)
            with _survived("poller"):
                exporter.poller.close()
            security.close()

    await run_until_stopped([(Server(site, **security.server_options), sockets), *beside], polling(), reload)


def _log_start(settings: Settings, sockets: Sequence[socket]) -> None:
    for name in settings.unknown_environment:
        log.warning("an environment variable means nothing to the exporter", variable=name)
    for problem in suspicious(settings):
        log.warning("the configuration may hold a mistake", problem=problem)
    config = settings.config
    if settings.key_travels_in_the_clear:
        log.warning("api.base_url is not https, so the API key travels in the clear", base_url=config.api.base_url)
    log.info(
        "started",
        version=__version__,
        accounts=len(config.accounts),
        addresses=",".join(map(name_of, sockets)),
        store=settings.store or "none",
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
    with _survived("clients"):
        await exporter.clients.close()


@contextlib.contextmanager
def _survived(part: str) -> Iterator[None]:
    """See to it that a part that breaks at the end leaves the others theirs."""
    try:
        yield
    except Exception:
        log.exception("a part broke when it was to end", part=part)
