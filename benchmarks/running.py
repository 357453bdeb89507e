"""The processes that are measured: each in its own, on loopback, ended when the measurement is over."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

KEY: Final = "rg_live_benchmark"
PATIENCE: Final = 120.0  # seconds for a process to be there
MIB: Final = 1 << 20
_ROOT: Final = Path(__file__).resolve().parent.parent


class Running:
    """A process that listens on a port of loopback."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.port = port
        self._process = process
        self._about = psutil.Process(process.pid)

    @property
    def rss(self) -> float:
        """Resident memory in MiB."""
        return self._about.memory_info().rss / MIB

    @property
    def cpu(self) -> float:
        """CPU seconds it has used, user and system."""
        times = self._about.cpu_times()
        return float(times.user + times.system)

    def check(self) -> None:
        """Raise `RuntimeError` when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._process.args!r} ended with {self._process.returncode}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def started(port: int, words: Sequence[str], environ: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Start this Python with some arguments; end it at the end."""
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=_ROOT,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Running(process, port)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def simulator(dids: int, connections: int, *, churn: float = 0.0, outage: float = 600.0) -> Iterator[Running]:
    """Run the simulator; `churn` as its flag says. It is there when this returns."""
    port = free_port()
    flags = {"dids": dids, "connections": connections, "churn": churn, "outage": outage, "rate-limit": 0}
    words = [f"--{name}={value}" for name, value in flags.items()]
    with started(port, ["-m", "exporter", "simulate", f"--listen=127.0.0.1:{port}", *words]) as running:
        wait_for(running, lambda: listens(port))
        yield running


@contextlib.contextmanager
def exporter(api: Running, interval: str, *, python: Sequence[str] = ()) -> Iterator[Running]:
    """Run the exporter on a simulator; it may not be there yet when this returns."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bench.yml")
        file.write_text(
            f'api: {{base_url: "{base_url(api)}", requests_per_minute: 100000}}\n'
            "accounts: [{name: bench, api_key_env: BENCH_KEY}]\n"
            f'poll: {{interval: {interval}, jitter: "0s", stale_after: 1h}}\n'
            f'web: {{listen_address: "127.0.0.1:{port}"}}\n'
            f'store: {{url: "sqlite:///{folder}/bench.db"}}\n',
            encoding="utf-8",
        )
        words = [*python, "-m", "exporter", "serve", f"--config.file={file}", "--log.level=warn"]
        with started(port, words, {"BENCH_KEY": KEY}) as running:
            yield running


def base_url(api: Running) -> str:
    """Return where the simulator's API is."""
    return f"http://127.0.0.1:{api.port}/api/v2"


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def answers(port: int, path: str) -> bool:
    """Whether it answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_for(running: Running, there: Callable[[], bool], pause: float = 0.02) -> None:
    """Wait until something is so. Raises `RuntimeError` when the process ends or the patience does."""
    deadline = time.monotonic() + PATIENCE
    while not there():
        running.check()
        if time.monotonic() > deadline:
            raise RuntimeError("waited for too long")
        time.sleep(pause)
