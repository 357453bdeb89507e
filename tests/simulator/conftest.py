"""A simulator in process, with a clock that stands still and sleeps that take no time."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

HEADERS = {"Authorization": "Bearer rg_live_test"}


@pytest.fixture
def now() -> list[float]:
    """Return the time, to be changed in place."""
    return [1_800_000_000.0]


@pytest.fixture
def slept() -> list[float]:
    """Return what was slept."""
    return []


@pytest.fixture
async def start(
    now: list[float], slept: list[float]
) -> AsyncIterator[Callable[..., tuple[httpx.AsyncClient, Simulator]]]:
    """Return what makes a simulator with the options given, and a client of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        def begin(**options: Any) -> tuple[httpx.AsyncClient, Simulator]:  # noqa: ANN401 - any option
            app = create_app(SimulatorOptions(**options), clock=lambda: now[0], sleep=sleep)
            transport = httpx.ASGITransport(app)
            client = httpx.AsyncClient(transport=transport, base_url="http://simulator/api/v2", headers=HEADERS)
            stack.push_async_callback(client.aclose)
            return client, simulator_of(app)

        yield begin


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, Simulator]]]:
    """Return what serves a simulator over real HTTP and answers its base URL."""
    with contextlib.ExitStack() as stack:

        def begin(**options: Any) -> tuple[str, Simulator]:  # noqa: ANN401 - any option
            app = create_app(SimulatorOptions(**options))
            listener = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(20)
                listener.close()

            stack.callback(stop)
            return f"http://127.0.0.1:{listener.getsockname()[1]}/api/v2", simulator_of(app)

        yield begin
