"""The real API client on a simulator: in process, or over HTTP on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from pydantic import SecretStr

from exporter.accounts import credential
from exporter.clock import SystemClock
from exporter.config import Config
from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of
from exporter.vocobase import RequestBudget, VocobaseClient
from tests.support.budgets import rested
from tests.support.clock import ManualClock
from tests.support.patience import PATIENCE
from tests.support.transport import over

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    from exporter.clock import Clock

    Message = MutableMapping[str, Any]
    App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

KEY = "rg_live_Canary1234567890"
CREDENTIAL = credential(KEY)


@dataclass
class Requests:
    """What a client told about its requests."""

    done: list[tuple[str, str, str, float]] = field(default_factory=list)

    def request_done(self, account: str, endpoint: str, status: str, seconds: float) -> None:
        self.done.append((account, endpoint, status, seconds))

    @property
    def statuses(self) -> list[str]:
        return [status for _, _, status, _ in self.done]


def api_config(base_url: str = "http://simulator/api/v2", **api: Any) -> Config:  # noqa: ANN401 - any key of `api`
    seconds = api.pop("timeout", None)
    if seconds is not None:
        api["timeout"] = timedelta(seconds=seconds)
    return Config.model_validate({"api": {"base_url": base_url, **api}})


@contextlib.asynccontextmanager
async def client_of(
    config: Config,
    *,
    clock: Clock | None = None,
    requests: Requests | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    tls: ssl.SSLContext | None = None,
    per_minute: int | None = None,
) -> AsyncIterator[VocobaseClient]:
    """Make a client whose first request needs no wait; on the machine's clock, hardly any does."""
    clock = clock or SystemClock()
    if isinstance(clock, ManualClock):
        budget = rested(per_minute or 60, clock)
    else:
        budget = RequestBudget(per_minute or 60_000, clock)
        await clock.sleep(2 * budget.gap)
    client = VocobaseClient(
        config,
        "main",
        SecretStr(KEY),
        budget=budget,
        observer=requests or Requests(),
        clock=clock,
        tls=tls,
        transport=over(transport) if transport else None,
    )
    try:
        yield client
    finally:
        await client.aclose()


class Scripted(httpx.AsyncBaseTransport):
    """Answers with what a function makes of a request: for what the simulator has no fault for."""

    def __init__(self, answer: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> None:
        self.answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self.answer(request)


def simulated(**options: Any) -> tuple[Simulator, httpx.ASGITransport]:  # noqa: ANN401 - any option
    """Return a simulator and the way to it that needs no socket."""
    app = create_app(SimulatorOptions(**options))
    return simulator_of(app), httpx.ASGITransport(app)


@contextlib.asynccontextmanager
async def served(app: App, **options: Any) -> AsyncIterator[str]:  # noqa: ANN401 - any option of uvicorn
    """Serve an app on a free port of loopback, on the running event loop; answers its address without a path."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, **options)
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listener]))  # noqa: SLF001 - `serve` would take over our signals
        try:
            async with asyncio.timeout(PATIENCE):
                while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(0.001)
            yield f"http{'s' if config.is_ssl else ''}://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@contextlib.asynccontextmanager
async def served_simulator(**options: Any) -> AsyncIterator[tuple[Simulator, str]]:  # noqa: ANN401 - any option
    """Serve a simulator over real HTTP; answers it and its base URL."""
    app = create_app(SimulatorOptions(**options))
    async with served(app) as address:
        yield simulator_of(app), f"{address}/api/v2"


@contextlib.asynccontextmanager
async def answering(
    answer: bytes, *, hang: bool = False, endless: bool = False
) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve bytes as they are on loopback, as no HTTP library would; answers the address and what came in.

    Each connection gets the answer to what it sends first; then it is closed, unless it is to `hang`, or to get the
    answer's last line again and again without end.
    """
    received: list[bytes] = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            received.append(await reader.read(65536))
            writer.write(answer)
            await writer.drain()
            while endless:
                writer.write(answer.rpartition(b"\n")[2])
                await writer.drain()
            if hang:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", received
    finally:
        server.close()
        for writer in writers:
            writer.close()
        await server.wait_closed()
