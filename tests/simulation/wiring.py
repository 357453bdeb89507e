"""The one place that knows the product: how a daemon is built, run and ended, and whose clocks and threads it gets."""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import random
import sys
import time
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import datetime, timedelta
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import apscheduler.executors.base
import apscheduler.schedulers.base
import httpcore
import httpcore._async.http11
import httpx
import structlog
from pydantic import SecretStr

import exporter.cli.session
import exporter.clients
import exporter.clock
import exporter.parts
import exporter.scheduler
from exporter.app import end
from exporter.cli import heal, ledger
from exporter.config import Config, Settings
from exporter.parts import Exporter
from exporter.store import Store
from exporter.threads import DaemonThread
from tests.simulation.clocks import ACTIVE, VirtualDatetime, VirtualTime
from tests.simulation.database import hooked
from tests.simulation.network import Net
from tests.support.sinks import Silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.clocks import Machine
    from tests.simulation.process import Process
    from tests.simulation.setup import Setup
    from tests.simulation.vendor import Vendor
    from tests.simulation.world import World

_STOP_WITHIN: Final = 4.0  # seconds that the daemon's own end may take


class Clock:
    """A machine's clocks, as the product takes them: wall time, a counter with suspended time, and sleep."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def time(self) -> float:
        """Return Unix time."""
        return self._machine.wall()

    def monotonic(self) -> float:
        """Return the counter."""
        return self._machine.boot()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the running event loop."""
        await asyncio.sleep(max(0.0, seconds))


class Transport(httpx.AsyncBaseTransport):
    """The real transport on the simulated network. Called, it returns one of its own for some limits."""

    def __init__(self, net: Net, limits: httpx.Limits | None = None) -> None:
        limits = limits or httpx.Limits(max_connections=100, max_keepalive_connections=20)
        self._net = net
        self._inner = httpx.AsyncHTTPTransport(verify=_context())
        self._inner._pool = httpcore.AsyncConnectionPool(  # noqa: SLF001 - there is no other way in
            ssl_context=_context(),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            network_backend=net,
        )

    def __call__(self, limits: httpx.Limits) -> Transport:
        """Return another transport on the same network."""
        return Transport(self._net, limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request."""
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close its connections."""
        await self._inner.aclose()


@cache
def _context() -> Any:  # noqa: ANN401 - ssl's
    return httpx.create_ssl_context()


def settings_of(setup: Setup, url: str) -> Settings:
    """Return the product's settings for a setup."""
    keys = {account.name: SecretStr(account.key) for account in setup.accounts}
    return Settings(Config.model_validate(setup.as_config(url)), keys)


class Daemon:
    """One daemon in a process. `main` runs until `stop` is called, or the process is killed."""

    def __init__(self, world: World, process: Process, vendor: Vendor, setup: Setup, url: str) -> None:
        self._url = url
        self._settings = settings_of(setup, url)
        self._process = process
        process.net = Net(world, process, vendor)
        self._stopping: asyncio.Event | None = None
        self.exporter: Exporter | None = None

    async def main(self) -> None:
        """Do what the daemon does, without its web server and signals."""
        self._stopping = asyncio.Event()
        clock = Clock(self._process.machine)
        built = self.exporter = Exporter(self._settings, clock, transport=Transport(self._process.net))
        built.poller._sink = Silent()  # noqa: SLF001 - rendering is no part of this
        healing = asyncio.create_task(built.controller.run(), name="healing")
        built.scheduler.start()
        await self._stopping.wait()
        healing.cancel()
        try:
            async with asyncio.timeout(_STOP_WITHIN):
                await end(built)
        except TimeoutError:
            pass
        built.poller.close()

    def stop(self) -> None:
        """Do what SIGTERM does."""
        if self._stopping:
            self._stopping.set()

    async def reload(self, setup: Setup) -> None:
        """Do what SIGHUP does, with another configuration."""
        if self.exporter:
            await self.exporter.reload(lambda: settings_of(setup, self._url))


# Commands

NEW_STORE: Final = "new_store" in inspect.signature(ledger.resume).parameters
"""Whether a person can say that a store is meant to be new."""
_commands: Any = ledger


def pause(setup: Setup, url: str) -> None:
    """Do what `heal pause` does."""
    ledger.pause(settings_of(setup, url), "the weather")


def resume(setup: Setup, url: str, *, new_store: bool = False) -> None:
    """Do what `heal resume` does."""
    more = ("the weather",) if NEW_STORE else ()
    _commands.resume(settings_of(setup, url), *more, **({"new_store": new_store} if NEW_STORE else {}))


def release(setup: Setup, url: str, number: str) -> None:
    """Do what `heal release` does."""
    ledger.release(settings_of(setup, url), number, "the weather")


async def heal_run(setup: Setup, url: str, numbers: tuple[str, ...], *, force: bool) -> None:
    """Do what `heal run` does, without asking."""
    wanted = heal.Wanted(numbers, all_healable=False, yes=True, force=force)
    await heal.run(settings_of(setup, url), wanted)


def make_store(setup: Setup, url: str) -> None:
    """Make a store as a first start does."""
    store = Store(settings_of(setup, url).config)
    store.open()
    store.close()


# Time, threads and chance


def _inline_init(self: Any, name: str, threads: int = 1) -> None:  # noqa: ANN401, ARG001
    self.is_store = True


def _inline_submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401, ARG001
    future: Future[Any] = Future()
    future.set_running_or_notify_cancel()
    try:
        future.set_result(fn(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - what waits for it decides
        future.set_exception(error)
    return future


def _inline_shutdown(self: Any, wait: bool = False, *, cancel_futures: bool = False) -> None:  # noqa: ANN401, ARG001, FBT001, FBT002
    return None


def _clients_of_a_command(*args: Any) -> Any:  # noqa: ANN401
    process = ACTIVE.process
    if process is None or process.net is None:
        raise AssertionError("a command has to run in a process of its own")
    return exporter.clients.Clients(*args, transport=Transport(process.net))


class _Quiet(structlog.stdlib.BoundLogger):
    """Logger that says nothing."""


def _drop(*_: Any, **__: Any) -> None:  # noqa: ANN401
    return None


for _name in ("debug", "info", "warning", "warn", "error", "exception", "critical", "fatal", "log", "msg"):
    setattr(_Quiet, _name, _drop)


class _Chance:
    """What takes the place of the operating system's randomness."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(f"{seed}/chance")  # noqa: S311 - the same each time

    def urandom(self, count: int) -> bytes:
        """Return so many bytes."""
        return self._random.randbytes(count)

    def generator(self) -> type[random.Random]:
        """Return a class that is seeded where nobody seeds it."""
        source = self._random

        class Seeded(random.Random):
            def __init__(self, x: Any = None) -> None:  # noqa: ANN401
                super().__init__(source.getrandbits(64) if x is None else x)

        return Seeded


@contextmanager
def installed(seed: str, *, exact: bool = True, quiet: bool = True) -> Iterator[None]:
    """Give the product virtual time, no threads, and chance that a seed decides, while the context lasts.

    Without `exact` what it does every second and every ten seconds is done less often, which saves most of the work.
    """
    virtual, chance = VirtualTime(time), _Chance(seed)
    random.seed(f"{seed}/global")
    with ExitStack() as stack:

        def replace(where: Any, name: str, value: Any) -> None:  # noqa: ANN401
            before = getattr(where, name)
            setattr(where, name, value)
            stack.callback(setattr, where, name, before)

        if "sniffio" not in sys.modules and find_spec("sniffio") is None:
            sys.modules["sniffio"] = None  # type: ignore[assignment] # else httpcore looks for it at each connection
            stack.callback(sys.modules.pop, "sniffio")
        for module in (apscheduler.executors.base, apscheduler.schedulers.base, exporter.scheduler):
            if getattr(module, "datetime", None) is datetime:
                replace(module, "datetime", VirtualDatetime)
        for module in (exporter.clock, httpcore._async.http11):  # noqa: SLF001
            replace(module, "time", virtual)
        if not exact:
            replace(exporter.parts, "HEAL_TICK", timedelta(seconds=40))
            replace(exporter.scheduler, "TICK", timedelta(seconds=10))
        replace(exporter.cli.session, "Clients", _clients_of_a_command)
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        replace(DaemonThread, "__init__", _inline_init)
        replace(DaemonThread, "submit", _inline_submit)
        replace(DaemonThread, "shutdown", _inline_shutdown)
        context = _context()
        replace(httpx, "create_ssl_context", lambda *_, **__: context)
        replace(os, "urandom", chance.urandom)
        replace(sys, "unraisablehook", lambda _: None)  # what was killed complains when it is collected
        replace(random, "Random", chance.generator())
        if quiet:
            structlog.configure(wrapper_class=_Quiet, cache_logger_on_first_use=True)
            stack.callback(structlog.reset_defaults)
        stack.enter_context(hooked())
        yield
