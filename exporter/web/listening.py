"""Sockets to listen on: a port on one address or all of the machine's, or a path."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING, Any, Final

from exporter.addresses import UnixAddress
from exporter.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from exporter.addresses import Address

BACKLOG: Final = 128
UNIX_MODE: Final = 0o660  # the owner and the group may ask


def open_all(addresses: Iterable[Address | UnixAddress], named: str = "web.listen_address") -> list[socket.socket]:
    """Open the sockets for all addresses, or none. Raises `StartupError` as `open_sockets` does."""
    sockets: list[socket.socket] = []
    try:
        for address in addresses:
            sockets += open_sockets(address, named)
    except StartupError:
        remove(unix_paths(sockets))
        for sock in sockets:
            sock.close()
        raise
    return sockets


def open_sockets(address: Address | UnixAddress, named: str = "web.listen_address") -> Sequence[socket.socket]:
    """Open the sockets for an address; without a host IPv4 and IPv6.

    Raises `StartupError`; it says what the address is `named` where it was given.
    """
    try:
        if isinstance(address, UnixAddress):
            return [_unix(address.path)]
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


def name_of(sock: socket.socket) -> str:
    """Return where a socket listens, as the configuration writes it."""
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def unix_paths(sockets: Iterable[socket.socket]) -> dict[str, int]:
    """Return the paths of the unix sockets among those that are open, each with its inode."""
    paths = [sock.getsockname() for sock in sockets if sock.family == socket.AF_UNIX]
    return {path: os.lstat(path).st_ino for path in paths if os.path.lexists(path)}


def remove(paths: Mapping[str, int]) -> None:
    """Remove paths of unix sockets, unless somebody else has put something there since."""
    for path, inode in paths.items():
        with contextlib.suppress(OSError):
            if os.lstat(path).st_ino == inode:
                os.unlink(path)  # noqa: PTH108 - a path is a text here


def _unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        _clear(path)
        sock.bind(path)
        os.chmod(path, UNIX_MODE)  # noqa: PTH101 - nobody can connect before it listens
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _clear(path: str) -> None:
    """Remove a socket that nobody listens on, as a daemon that was killed leaves it. Raises `OSError` for others."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(None, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        reached = probe.connect_ex(path)
    if reached != errno.ECONNREFUSED:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    os.unlink(path)  # noqa: PTH108 - a path is a text here


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
    return os.strerror(error.errno) if error.errno else str(error.args[-1])
