"""The product and system programs as real processes that never outlive their test.

Whatever a process of the product wrote is looked through when it has ended: no traceback and no API key, in any test.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from tests.support.http import ask, connect, read_reply
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import BinaryIO

T = TypeVar("T")
KEY = "rg_live_MadeUpKeyOfTheTests"
PRODUCT = (sys.executable, "-m", "exporter")
_FORBIDDEN = re.compile(r"Traceback \(most recent call last\)|Exception ignored|rg_live_\w+")


def until(condition: Callable[[], T], what: str, within: float = PATIENCE) -> T:
    """Ask again and again until the condition gives something true; return that. No connection means not yet."""
    deadline = time.monotonic() + within
    pause = 0.02  # who asks all the time slows down what it waits for
    while True:
        try:
            found = condition()
        except (ConnectionError, EOFError):
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(pause)
        pause = min(1.2 * pause, 0.2)


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without what the product reads, and with what is given."""
    ours = ("VOICELINK_", "VOCOBASE_", "STATE_DIRECTORY")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**inherited, **(given or {})}


def unmeasured(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a process is run without coverage."""
    return {name: value for name, value in environ.items() if not name.startswith("COV")}


def assert_clean(text: str) -> None:
    """Fail where the product showed a traceback or an API key."""
    found = _FORBIDDEN.search(text)
    if found:
        raise AssertionError(f"the product wrote {found[0]!r}:\n{text}")


@dataclass(frozen=True, slots=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


def run(*arguments: str, env: Mapping[str, str] | None = None, within: float = PATIENCE) -> Finished:
    """Run a command of the product to its end, in an empty folder, which is its state directory, too."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*PRODUCT, *arguments],
            cwd=folder,
            env={"STATE_DIRECTORY": folder, **environment(env)},
            capture_output=True,
            timeout=within,
            check=False,
            text=True,
        )
    assert_clean(done.stdout + done.stderr)
    return Finished(done.returncode, done.stdout, done.stderr)


class Running:
    """A process in an empty folder, which is its state directory, too.

    Its output goes to files, so that it never waits for a reader.
    """

    def __init__(self, command: tuple[str, ...], env: Mapping[str, str]) -> None:
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            command,
            cwd=self._folder.name,
            env={"STATE_DIRECTORY": self._folder.name, **env},
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._err,
        )
        self._kept: tuple[str, str] | None = None
        self.pid = self._process.pid

    @property
    def out(self) -> str:
        """Standard output so far."""
        return self._kept[0] if self._kept else _content(self._out)

    @property
    def err(self) -> str:
        """Standard error so far."""
        return self._kept[1] if self._kept else _content(self._err)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def wait(self, within: float = PATIENCE) -> int:
        """Wait for the end and return the exit code."""
        try:
            return self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {within:g} s:\n{self.err}") from None

    def until_said(self, pattern: str, within: float = PATIENCE) -> re.Match[str]:
        """Wait until standard error holds something."""

        def said() -> re.Match[str] | None:
            found = re.search(pattern, self.err)
            assert found or self.alive, f"ended with {self._process.returncode} before it said {pattern!r}:\n{self.err}"
            return found

        found = until(said, f"it says {pattern!r}", within)
        assert found
        return found

    def end(self, patience: float = 15.0) -> None:
        """See to it that it has ended, politely where that helps."""
        if self.alive:
            self.send(signal.SIGTERM)
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._kept = (self.out, self.err)
        self._out.close()
        self._err.close()
        self._folder.cleanup()


@contextmanager
def program(*command: str) -> Iterator[Running]:
    """Run a system program while the context lasts."""
    process = Running(command, environment())
    try:
        yield process
    finally:
        process.end()


@contextmanager
def product(*arguments: str, env: Mapping[str, str] | None = None, measured: bool = True) -> Iterator[Running]:
    """Run a command of the product while the context lasts; then look through what it wrote.

    What isn't `measured` runs without coverage, which takes a third of the time.
    """
    environ = environment(env)
    process = Running((*PRODUCT, *arguments), environ if measured else unmeasured(environ))
    try:
        yield process
    finally:
        process.end()
        assert_clean(process.out + process.err)


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulator that runs as a process."""

    process: Running
    port: int

    @property
    def env(self) -> dict[str, str]:
        """What an exporter has to be told to poll it, five times a second."""
        return {
            "VOCOBASE_API_KEY": KEY,
            "VOICELINK_API_BASE_URL": f"http://127.0.0.1:{self.port}/api/v2",
            "VOICELINK_API_REQUESTS_PER_MINUTE": "100000",
            "VOICELINK_POLL_INTERVAL": "200ms",
            "VOICELINK_POLL_JITTER": "0s",
            "VOICELINK_POLL_STALE_AFTER": "5m",
            "VOICELINK_WEB_LISTEN_ADDRESS": "127.0.0.1:0",
        }

    def control(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        """Use its control endpoint; return the JSON it answers."""
        data = b"" if body is None else json.dumps(body).encode()
        length = f"Content-Length: {len(data)}"
        head = f"{method} /control/{path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{length}\r\n\r\n"
        with connect(self.port) as sock:
            sock.sendall(head.encode() + data)
            with sock.makefile("rb") as stream:
                reply = read_reply(stream, method)
        assert reply.status < 300, reply
        return json.loads(reply.body) if reply.body else None

    def set_did(self, number: str, **change: object) -> None:
        """Change a DID."""
        self.control("PUT", f"dids/{number.removeprefix('+')}", change)

    def add_fault(self, spec: str) -> None:
        """Put a fault in force."""
        self.control("POST", "faults", {"fault": spec})

    def clear_faults(self) -> None:
        """Lift all faults."""
        self.control("DELETE", "faults")

    def requests(self, endpoint: str) -> list[dict[str, Any]]:
        """Return the requests it got at an endpoint."""
        return [seen for seen in self.control("GET", "journal")["requests"] if seen["endpoint"] == endpoint]

    def healed(self) -> list[str]:
        """Return the numbers that it was asked to heal, in the order of the requests; each goes by its id."""
        number_of = {did["did_id"]: number for number, did in self.control("GET", "fleet")["dids"].items()}
        return [number_of[request["body"]["did_id"]] for request in self.requests("call_ready")]


@contextmanager
def simulating(*flags: str) -> Iterator[Simulated]:
    """Run `simulate` without a rate limit, unless a flag sets one."""
    with product("simulate", "--listen=127.0.0.1:0", "--rate-limit=0", *flags, measured=False) as process:
        port = int(process.until_said(r"base_url=http://127\.0\.0\.1:(\d+)/")[1])
        until(lambda: ask(port, "/control/faults").status, "the simulator answers")
        yield Simulated(process, port)


@dataclass(frozen=True, slots=True)
class Served:
    """An exporter that runs as a process."""

    process: Running
    port: int

    def scrape(self) -> str:
        """Return what `/metrics` says, as text."""
        reply = ask(self.port, "/metrics")
        assert reply.status == 200
        return reply.text

    def until_ready(self) -> None:
        """Wait until every target was tried."""
        until(lambda: ask(self.port, "/-/ready").status == 200, "the exporter is ready")


@contextmanager
def serving(*flags: str, env: Mapping[str, str], command: str = "serve") -> Iterator[Served]:
    """Run `serve`, or another command that serves, until the context ends."""
    with product(command, *flags, env=env) as process:
        port = int(process.until_said(r"msg=started .*addresses=\"?127\.0\.0\.1:(\d+)")[1])
        yield Served(process, port)


def _content(file: BinaryIO) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")
