"""Servers that run until a signal ends them, whatever is behind them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Final

import structlog

from exporter.errors import ConfigError, StartupError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from socket import socket

    from exporter.web.server import Server

    Listening = tuple[Server, Sequence[socket]]
    Task = asyncio.Task[None]

STOP_WITHIN: Final = 8.0  # seconds from the signal to the end, whatever hangs

log = structlog.stdlib.get_logger(__name__)


async def run_until_stopped(
    servers: Sequence[Listening],
    during: contextlib.AbstractAsyncContextManager[Sequence[Task]] | None = None,
    reload: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run servers, and a context within them, until SIGTERM or SIGINT; then end them gracefully. SIGHUP reloads.

    None of the servers, and none of the tasks that the context gives, may end before that: if one does, all are ended
    and `StartupError` names it. A daemon that lacks a part is worse than a restart.
    """
    async with _signals(reload) as stop:
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


@contextlib.asynccontextmanager
async def _signals(reload: Callable[[], Awaitable[None]] | None) -> AsyncIterator[asyncio.Event]:
    """Own the signals: SIGTERM and SIGINT set the event; SIGHUP reloads where that can be, and never kills.

    However many hang-ups come during a reload, one more follows.
    """
    stop, hung_up, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    reloading = loop.create_task(_follow(hung_up, reload), name="reloads")
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
        reloading.cancel()
        await asyncio.wait({reloading})


async def _follow(hung_up: asyncio.Event, reload: Callable[[], Awaitable[None]] | None) -> None:
    while await hung_up.wait():
        hung_up.clear()
        if reload is None:
            log.warning("SIGHUP does nothing here: there is no configuration to read anew")
            continue
        try:
            with contextlib.suppress(ConfigError):  # which was logged with its problems
                await reload()
        except Exception:  # a bug of ours must not end the daemon, which goes on as it was
            log.exception("the reload broke by a fault of the exporter")
