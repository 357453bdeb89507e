"""uvicorn, with limits on what a client may do and without its own idea of signals."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

    from exporter.config import Address

HEADER_TIMEOUT: Final = 10.0  # seconds from a connection's or request's first byte to the end of its headers
TAKE_TIMEOUT: Final = 30.0  # seconds that a client has to take what is sent to it
KEEP_ALIVE: Final = 75  # seconds an idle connection is kept; Prometheus scrapes again within that
MAX_HEADERS: Final = 16_384  # bytes of request line and headers
MAX_CONNECTIONS: Final = 512  # beyond that, requests are answered 503
DRAIN: Final = 3.0  # seconds that running requests have at the end
BACKLOG: Final = 128


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 in which nobody can hold a connection without sending its headers and taking its answers in time."""

    header_timeout = HEADER_TIMEOUT
    take_timeout = TAKE_TIMEOUT
    _deadline: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Start the clock."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `pause_writing` tells of every byte that the client doesn't take
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in {socket.AF_INET, socket.AF_INET6}:
            # asyncio sets this only where the socket names its protocol; without it a small answer waits 40 ms.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a request is whole, start it when another begins."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Start the clock of a client that doesn't take its answer. Closing would wait for it: this hangs up."""
        super().pause_writing()
        self._taken()
        self._untaken = self.loop.call_later(self.take_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop that clock."""
        self._taken()
        super().resume_writing()

    def _watch(self) -> None:
        cycle = cast("RequestResponseCycle | None", self.cycle)  # uvicorn declares it too narrowly
        if cycle and not cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.header_timeout, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None


class Server(uvicorn.Server):
    """A server on sockets that are open already. Whoever runs it owns the signals and sets `should_exit`.

    `options` are uvicorn's own and win over the ones chosen here.
    """

    def __init__(self, app: ASGIApp, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        chosen: dict[str, Any] = {
            "http": GuardedProtocol,
            "ws": "none",
            "lifespan": "off",
            "interface": "asgi3",
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "proxy_headers": False,
            "h11_max_incomplete_event_size": MAX_HEADERS,
            "limit_concurrency": MAX_CONNECTIONS,
            "timeout_keep_alive": KEEP_ALIVE,
            "timeout_graceful_shutdown": DRAIN + 0.5,  # what then still runs is cancelled
        }
        super().__init__(uvicorn.Config(app, **{**chosen, **options}))
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what strangers send is no news

    def capture_signals(self) -> AbstractContextManager[None]:  # type: ignore[override] # a narrower manager will do
        """Leave the signals alone."""
        return nullcontext()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests end, but hang up on clients that don't take their answer in time."""
        hang_up = asyncio.get_running_loop().call_later(DRAIN, self._hang_up)
        try:
            await super().shutdown(sockets)
        finally:
            hang_up.cancel()

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def open_sockets(address: Address, named: str = "web.listen_address") -> Sequence[socket.socket]:
    """Open the sockets for an address; without a host IPv4 and IPv6.

    Raises `StartupError`; it says what the address is `named` where it was given.
    """
    try:
        if address.host:
            family, kind, _, _, where = socket.getaddrinfo(
                address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            return [_listening(socket.socket(family, kind), where)]
        if socket.has_dualstack_ipv6():
            return [
                socket.create_server(("", address.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
            ]
        return [socket.create_server(("", address.port), backlog=BACKLOG)]
    except (OSError, UnicodeError) as error:
        raise StartupError(f"{named}: can't listen on {address}: {_reason(error)}") from None


def _listening(sock: socket.socket, where: Any) -> socket.socket:  # noqa: ANN401 - depends on the family
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, (socket.gaierror, UnicodeError)):
        return "the name can't be resolved"
    return os.strerror(error.errno) if error.errno else str(error)
