"""A whole exporter on loopback, in a thread of its own: the simulator in process, the server on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest
from pydantic import SecretStr

from exporter.addresses import parse_listen_address
from exporter.app import end, site_of
from exporter.config import Config, Settings
from exporter.parts import Exporter
from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of
from exporter.web.listening import open_sockets
from exporter.web.server import Server
from exporter.web.site import create_site
from tests.support.http import Reply, ask
from tests.support.transport import over

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from exporter.poller import Poller
    from exporter.web.site import Site

T = TypeVar("T")
KEY = "rg_live_MadeUpKeyOfTheTests"
EVERYTHING: dict[str, Any] = {"accounts": [{"api_key_env": "VOCOBASE_API_KEY"}]}
QUICK = {"requests_per_minute": 60_000}  # requests leave at once, not a second apart


@dataclass(slots=True)
class Web:
    """A running exporter, as a test sees it from outside and, to set the scene, from inside."""

    simulator: Simulator
    interval: float
    port: int = 0
    exporter: Exporter = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)

    @property
    def poller(self) -> Poller:
        """Who polls."""
        return self.exporter.poller

    def get(self, target: str, method: str = "GET", **headers: str) -> Reply:
        """Ask for something; header names are written with _ for -."""
        return ask(self.port, target, method, {name.replace("_", "-"): value for name, value in headers.items()})

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the exporter's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def discover(self) -> None:
        """Look up the connections and plan their polls."""

        async def work() -> None:
            await self.poller.discover("default")
            await self.poller.plan(dict.fromkeys(self.poller.fleet.targets, self.interval))

        self.call(work())

    def poll(self) -> None:
        """Poll every target once."""

        async def work() -> None:
            for target in self.poller.fleet.targets:
                await self.poller.poll(target)

        self.call(work())

    def heal(self, polls: int = 4) -> None:
        """Poll until what is broken was judged, healed and judged again; only where it was started to heal."""
        for _ in range(polls):
            self.poll()
            self.call(self.exporter.controller.settle())
        self.call(self.exporter.controller.tick())


@pytest.fixture
def start() -> Iterator[Callable[..., Web]]:
    """Return what starts an exporter: `polled` once or not yet, with a configuration and the simulator's options.

    `change` puts something else in place of what the site is made of.
    """
    with _starting() as begin:
        yield begin


@pytest.fixture(scope="module")
def module_start() -> Iterator[Callable[..., Web]]:
    """Return the same for exporters that all tests of a module look at."""
    with _starting() as begin:
        yield begin


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    """Return an exporter of three DIDs, polled once, that all tests of a module look at and none changes."""
    with _starting() as begin:
        yield begin()


@contextlib.contextmanager
def _starting() -> Iterator[Callable[..., Web]]:
    with contextlib.ExitStack() as stack:

        def begin(
            config: dict[str, Any] | None = None,
            *,
            polled: bool = True,
            healing: bool = False,
            hash_key: str | None = None,
            change: Callable[[Site], Site] = lambda site: site,
            interval: float = 60,
            listen: str = "127.0.0.1:0",
            server: dict[str, Any] | None = None,
            **options: Any,  # noqa: ANN401 - any of the simulator's
        ) -> Web:
            given = config or EVERYTHING
            checked = Config.model_validate({**given, "api": {**QUICK, **given.get("api", {})}})
            keys = {account.name: SecretStr(KEY) for account in checked.accounts}
            settings = Settings(checked, keys, SecretStr(hash_key) if hash_key else None)
            app = create_app(SimulatorOptions(**{"dids": 3, "rate_limit": 0, **options}))
            web = Web(simulator_of(app), interval)
            ready = threading.Event()
            running: list[Server] = []

            async def live() -> None:
                exporter = Exporter(settings, transport=over(httpx.ASGITransport(app)))
                exporter.exposition.refresh_own()
                web.exporter = exporter
                heals = asyncio.create_task(exporter.controller.run()) if healing else None
                web._loop = asyncio.get_running_loop()  # noqa: SLF001 - it is this one
                sockets = open_sockets(parse_listen_address(listen))
                web.port = 0 if listen.startswith("unix:") else sockets[0].getsockname()[1]
                running.append(Server(create_site(change(site_of(exporter))), **(server or {})))
                ready.set()
                await running[0].serve(list(sockets))
                if heals:
                    heals.cancel()
                await end(exporter)
                exporter.poller.close()

            thread = threading.Thread(target=asyncio.run, args=[live()])
            thread.start()

            def stop() -> None:
                running[0].should_exit = True
                thread.join(20)

            assert ready.wait(20)
            stack.callback(stop)
            if polled:
                web.discover()
                web.poll()
            return web

        yield begin
