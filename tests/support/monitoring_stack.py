"""Prometheus and Alertmanager as real processes on loopback."""

from __future__ import annotations

import json
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.support.http import ask
from tests.support.processes import program, until
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def free_port() -> int:
    """Return a port that nobody listened on a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def get_json(port: int, path: str) -> Any:  # noqa: ANN401 - JSON
    """Return what is answered, whatever the status; answers may come in chunks."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        with connection.getresponse() as reply:
            return json.load(reply)
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A Prometheus that runs."""

    port: int

    def get(self, path: str, **parameters: str | float) -> Any:  # noqa: ANN401 - JSON
        """Ask its API; return what is under `data`. A query that it refuses is an `AssertionError` with its words."""
        said = get_json(self.port, f"/api/v1/{path}?{urlencode(parameters)}")
        assert said["status"] == "success", said["error"]
        return said["data"]

    def results(self, expr: str, *, end: float, hours: float = 0) -> list[Any]:
        """Return the results of a query at a moment, or over the hours before it."""
        if not hours:
            found: list[Any] = self.get("query", query=expr, time=end)["result"]
        else:
            found = self.get("query_range", query=expr, start=end - hours * 3600, end=end, step=60)["result"]
        return found


@contextmanager
def prometheus(config: Path, data: Path) -> Iterator[Prometheus]:
    """Run Prometheus on a configuration and a folder of data."""
    port = free_port()
    with program(
        require("prometheus"),
        f"--config.file={config}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=60d",
        "--rules.alert.resend-delay=1s",
    ) as process:
        process.until_said("Server is ready to receive web requests")
        yield Prometheus(port)
        assert "level=error" not in process.err, process.err


@contextmanager
def alertmanager(config: Path) -> Iterator[int]:
    """Run Alertmanager, alone and on loopback; answer its port."""
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as data,
        program(
            require("prometheus-alertmanager"),
            f"--config.file={config}",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.path={data}",
            "--cluster.listen-address=",
        ),
    ):
        until(lambda: ask(port, "/-/ready").status == 200, "Alertmanager is ready")
        yield port
