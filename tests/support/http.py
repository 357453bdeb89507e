"""HTTP by hand: what goes over the socket is what the test wrote, to the byte."""

from __future__ import annotations

import gzip
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO

from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text, unzipped where it was zipped."""
        zipped = self.headers.get("content-encoding") == "gzip"
        return (gzip.decompress(self.body) if zipped else self.body).decode()


def connect(port: int, patience: float = PATIENCE) -> socket.socket:
    """Open a connection to a port on loopback."""
    return socket.create_connection(("127.0.0.1", port), timeout=patience)


def ask(
    port: int, target: str, method: str = "GET", headers: Mapping[str, str] | None = None, *, patience: float = PATIENCE
) -> Reply:
    """Send one request on a connection of its own and return the answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "test", **(headers or {})}.items())
    with connect(port, patience) as sock:
        sock.sendall(f"{method} {target} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode("latin-1"))
        with sock.makefile("rb") as stream:
            return read_reply(stream, method)


def read_reply(stream: BinaryIO, method: str = "GET") -> Reply:
    """Read one answer. `EOFError` where the connection ends before one begins."""
    first = stream.readline()
    if not first:
        raise EOFError("the connection ended without an answer")
    status = int(first.split()[1])
    headers = {}
    for line in iter(stream.readline, b"\r\n"):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    bodiless = method == "HEAD" or status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
    length = headers.get("content-length")
    body = b"" if bodiless else stream.read(int(length)) if length else stream.read()
    return Reply(status, headers, body)


def read_to_end(sock: socket.socket) -> bytes:
    """Return what comes until the other side closes, politely or not. `TimeoutError` where it doesn't."""
    received = b""
    try:
        while piece := sock.recv(65536):
            received += piece
    except ConnectionError:
        pass
    return received


def sample(text: str, name: str, **labels: str) -> float | None:
    """Return the value of the one series with these labels among others; `None` where there is none."""
    found = [
        each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
        if each.name == name and labels.items() <= each.labels.items()
    ]
    assert len(found) <= 1, f"{len(found)} series of {name} match {labels}"
    return found[0] if found else None
