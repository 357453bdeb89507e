"""The network between a process and the vendor, beneath httpcore: latency, handshakes, resets, closed connections."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import httpcore

from tests.simulation.process import Point

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from tests.simulation.process import Process
    from tests.simulation.world import World


@dataclass
class Weather:
    """How the network is for a process right now. Seconds, and what becomes of a connection that is to be opened."""

    latency: Callable[[], float]  # one way
    connect: str = ""  # refused, unresolved, hangs; else it works
    tcp_late: float = 0.0  # more seconds until the connection is there
    tls: str = ""  # fails, hangs; else it works
    tls_late: float = 0.0


class Server(Protocol):
    """Who answers."""

    def weather(self, process: Process) -> Weather:
        """Return how the network is for a process now."""

    def opened(self, link: Link) -> None:
        """Note that a connection is there."""

    def received(self, link: Link, data: bytes, left_at: float) -> None:
        """Take in bytes, the first of which left at a true time."""

    def closed(self, link: Link) -> None:
        """Note that the client closed a connection."""


@dataclass(eq=False)
class Link:
    """One TCP connection, as both ends see it."""

    number: int
    net: Net
    process: Process
    opened_at: float
    requests: int = 0
    answered_at: float | None = None  # the last answer, on the server's side
    closed_by_server: bool = False
    closed_by_client: bool = False
    arrived: bytearray = field(default_factory=bytearray)  # at the client, not yet read
    ended: bool = False  # the server's end reached the client
    broken: bool = False  # a reset reached the client
    reader: asyncio.Future[None] | None = None
    outgoing: bytearray = field(default_factory=bytearray)
    left_at: float = 0.0

    def wake(self) -> None:
        """Tell who waits for bytes that there are some, or none any more."""
        if self.reader and not self.reader.done():
            self.reader.set_result(None)


class Net(httpcore.AsyncNetworkBackend):
    """One process's way to the vendor."""

    def __init__(self, world: World, process: Process, server: Server) -> None:
        self.world = world
        self.process = process
        self.server = server
        self.links: list[Link] = []
        process.closers.append(self._drop)

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - there is one
        port: int,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
        local_address: str | None = None,  # noqa: ARG002
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Open a connection to the vendor."""
        weather = self.server.weather(self.process)
        seconds = 2 * weather.latency() + weather.tcp_late if weather.connect != "hangs" else 1e6
        await self.wait(seconds, timeout)
        if weather.connect == "refused":
            raise httpcore.ConnectError("connection refused") from ConnectionRefusedError(111, "refused")
        if weather.connect == "unresolved":
            raise httpcore.ConnectError("no such name") from socket.gaierror(-2, "unknown name")
        link = Link(self.world.ticket(), self, self.process, self.world.now)
        self.links.append(link)
        self.server.opened(link)
        return Stream(self, link)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def wait(self, seconds: float, timeout: float | None) -> None:  # noqa: ASYNC109 - httpcore's
        """Wait for the other side, which answers after so many seconds; at most for `timeout`."""
        answered: asyncio.Future[None] = self.process.loop.create_future()

        def answer() -> None:
            if not answered.done():
                answered.set_result(None)

        self.world.later(seconds, lambda: self.process.deliver(answer))
        try:
            async with asyncio.timeout(timeout):
                await answered
        except TimeoutError:
            raise httpcore.ConnectTimeout from None

    # What leaves and what comes

    def send(self, link: Link, data: bytes) -> None:
        """Let bytes leave. What leaves in one moment arrives together."""
        if not link.outgoing:
            link.left_at = self.world.now
            self.world.later(self.server.weather(self.process).latency(), lambda: self._arrive(link))
        link.outgoing += data

    def _arrive(self, link: Link) -> None:
        data, link.outgoing = bytes(link.outgoing), bytearray()
        if link.closed_by_server:
            self.reset(link)
        else:
            self.server.received(link, data, link.left_at)

    def give(self, link: Link, data: bytes, then: Callable[[], None] = lambda: None) -> None:
        """Let bytes of the server's reach the client after the way back; `then` runs when they are there."""

        def arrive() -> None:
            if not link.closed_by_client and not link.broken and link.process.alive:
                link.arrived += data
                link.wake()
                then()

        self.world.later(self.server.weather(self.process).latency(), lambda: self.process.deliver(arrive))

    def finish(self, link: Link) -> None:
        """Close the server's side."""

        def arrive() -> None:
            link.ended = True
            link.wake()

        link.closed_by_server = True
        self.world.later(self.server.weather(self.process).latency(), lambda: self.process.deliver(arrive))

    def reset(self, link: Link) -> None:
        """Break the connection from the server's side."""

        def arrive() -> None:
            link.broken = True
            link.wake()

        link.closed_by_server = True
        self.world.later(self.server.weather(self.process).latency(), lambda: self.process.deliver(arrive))

    def close(self, link: Link) -> None:
        """Close the client's side."""
        if not link.closed_by_client:
            link.closed_by_client = True
            self.server.closed(link)
            if link in self.links:
                self.links.remove(link)

    def _drop(self) -> None:
        for link in list(self.links):
            self.close(link)


class Stream(httpcore.AsyncNetworkStream):
    """The client's end of a connection, as httpcore wants it."""

    def __init__(self, net: Net, link: Link) -> None:
        self._net = net
        self._link = link

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        """Return what came, at the end nothing."""
        link = self._link
        try:
            async with asyncio.timeout(timeout):
                while not (link.arrived or link.ended or link.broken):
                    link.reader = asyncio.get_running_loop().create_future()
                    await link.reader
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        if link.broken:
            raise httpcore.ReadError("connection reset by peer")
        data = bytes(link.arrived[:max_bytes])
        del link.arrived[:max_bytes]
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - never waits
        """Let bytes leave."""
        link, process = self._link, self._net.process
        if not buffer or not process.alive:
            return
        if link.broken or link.closed_by_client:
            raise httpcore.WriteError("broken pipe")
        if process.traps and b"/call-ready" in buffer:
            process.passes(Point.POST, before=True)
        self._net.send(link, buffer)

    async def aclose(self) -> None:
        """Close it."""
        self._net.close(self._link)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,  # noqa: ARG002 - there is nothing to encrypt
        server_hostname: str | None = None,  # noqa: ARG002
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's
    ) -> httpcore.AsyncNetworkStream:
        """Shake hands."""
        weather = self._net.server.weather(self._net.process)
        seconds = 4 * weather.latency() + weather.tls_late if weather.tls != "hangs" else 1e6
        try:
            await self._net.wait(seconds, timeout)
        except BaseException:
            self._net.close(self._link)
            raise
        if weather.tls == "fails":
            self._net.close(self._link)
            raise httpcore.ConnectError("handshake failure")
        if self._link.broken:
            raise httpcore.ConnectError("connection reset by peer")
        return self

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - httpcore's
        """Tell whether something came, or the end."""
        if info == "is_readable":
            return bool(self._link.arrived) or self._link.ended or self._link.broken
        return None
