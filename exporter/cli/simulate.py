"""`simulate`: the bundled stand-in of the API alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import structlog

from exporter.addresses import parse_address
from exporter.errors import StartupError
from exporter.running import run_until_stopped
from exporter.simulator import create_app
from exporter.web.listening import open_sockets
from exporter.web.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket

    from exporter.simulator import SimulatorOptions

T = TypeVar("T")
log = structlog.stdlib.get_logger(__name__)


def address_of(text: str, flag: str, parse: Callable[[str], T]) -> T:
    """Read an address that a flag gives. Raises `StartupError`."""
    try:
        return parse(text)
    except ValueError as error:
        raise StartupError(f"{flag}: {error}") from None


def url_of(sockets: Sequence[socket]) -> str:
    """Return the URL of what listens there."""
    host, port = sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def simulate(listen: str, options: SimulatorOptions) -> None:
    """Run the simulator until SIGTERM or SIGINT. Raises `StartupError`."""
    sockets = open_sockets(address_of(listen, "--listen", parse_address), "--listen")
    log.info("simulating", base_url=f"{url_of(sockets)}/api/v2", dids=options.dids, connections=options.connections)
    await run_until_stopped([(Server(create_app(options)), sockets)])
