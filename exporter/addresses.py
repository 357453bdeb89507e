"""Where to listen: host and port, or a unix socket, each read from text once. Needs no configuration."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final

UNIX_PREFIX: Final = "unix:"
_ADDRESS: Final = re.compile(
    r"(?:(?P<host>[A-Za-z0-9_.-]+)|\[(?P<ipv6>[0-9A-Fa-f:.%a-z]+)\])?:(?P<port>\d{1,5})", re.ASCII
)
_LONGEST_SOCKET: Final = 103  # bytes of a path, as the narrowest system has it


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. An empty host is every address of the machine, IPv4 and IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `HOST:PORT`, `:PORT` or `[IPV6]:PORT`. Raises `ValueError` for anything else. Port 0 is any free one."""
    match = _ADDRESS.fullmatch(text)
    if not match or int(match["port"]) > 65535:  # noqa: PLR2004 - ports end there
        raise ValueError(f"{text!r:.80} is not an address; write HOST:PORT, :PORT or [IPV6]:PORT")
    return Address(match["host"] or match["ipv6"] or "", int(match["port"]))


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix socket to listen on, by its absolute path."""

    path: str

    def __str__(self) -> str:
        return f"{UNIX_PREFIX}{self.path}"


def parse_listen_address(text: str) -> Address | UnixAddress:
    """Read what `parse_address` reads, or `unix:/PATH`. Raises `ValueError` for anything else."""
    if text.startswith(UNIX_PREFIX):
        path = text.removeprefix(UNIX_PREFIX)
        if not path.startswith("/") or "\0" in path:
            raise ValueError("the path of a unix socket has to be absolute, as unix:/run/voicelink-exporter.sock")
        if len(os.fsencode(path)) > _LONGEST_SOCKET:
            raise ValueError(f"the path of a unix socket has at most {_LONGEST_SOCKET} bytes")
        return UnixAddress(path)
    try:
        return parse_address(text)
    except ValueError as error:
        raise ValueError(f"{error} or unix:/PATH".replace(" or [IPV6]", ", [IPV6]")) from None
