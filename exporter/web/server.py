"""uvicorn, with limits on what a client may do and without its own idea of signals."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.web.listening import BACKLOG, remove, unix_paths

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

HEADER_TIMEOUT: Final = 10.0  # seconds from a connection's or request's first byte to the end of its headers
HANDSHAKE_TIMEOUT: Final = 10.0  # seconds from a connection to the end of its TLS handshake
TAKE_TIMEOUT: Final = 30.0  # seconds that a client has to take what is sent to it
KEEP_ALIVE: Final = 75  # seconds an idle connection is kept; Prometheus scrapes again within that
MAX_HEADERS: Final = 16_384  # bytes of request line and headers
MAX_CONNECTIONS: Final = 512  # beyond that, requests are answered 503
DRAIN: Final = 3.0  # seconds that running requests have at the end


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 in which nobody can hold a connection without sending its headers and taking its answers in time."""

    handshake_timeout = HANDSHAKE_TIMEOUT
    header_timeout = HEADER_TIMEOUT
    take_timeout = TAKE_TIMEOUT
    _deadline: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn does
        """Start the clock."""
        super().connection_made(transport)
        # `pause_writing` tells of every byte that the client doesn't take; under TLS, of those beyond the 64 KiB that
        # asyncio holds for the socket. There 0 would mean a pause with nothing to take.
        transport.set_write_buffer_limits(high=1 if self._encrypted else 0)
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
            # A goodbye under TLS waits for the other side's.
            hang_up = self.transport.abort if self._encrypted else self.transport.close
            self._deadline = self.loop.call_later(self.header_timeout, hang_up)

    @property
    def _encrypted(self) -> bool:
        return self.transport.get_extra_info("sslcontext") is not None

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

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, as uvicorn does, but give TLS a bound of ours: nobody holds a connection by half a handshake."""
        config = self.config
        kind = cast("type[GuardedProtocol]", config.http_protocol_class)
        protocol = functools.partial(kind, config=config, server_state=self.server_state, app_state={})
        shake, goodbye = (kind.handshake_timeout, kind.take_timeout) if config.ssl else (None, None)
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                protocol,
                sock=sock,
                ssl=config.ssl,
                backlog=BACKLOG,
                ssl_handshake_timeout=shake,
                ssl_shutdown_timeout=goodbye,
            )
            for sock in sockets or ()
        ]
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let running requests end, but hang up on clients that don't take their answer in time."""
        hang_up = asyncio.get_running_loop().call_later(DRAIN, self._hang_up)
        paths = unix_paths(sockets or ())
        try:
            await super().shutdown(sockets)
        finally:
            hang_up.cancel()
            remove(paths)

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
