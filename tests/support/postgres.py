"""A private PostgreSQL on loopback that never outlives its test: no unix socket, no other user's files."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

from tests.support.patience import PATIENCE
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD: Final = "pg-canary-Zq7"
_INSTALLED: Final = Path("/usr/lib/postgresql")  # where Debian keeps each version's programs, off PATH
_SETTINGS: Final = {
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "fsync": "off",  # a machine that loses power is no part of these tests
    "shared_buffers": "16MB",
    "max_connections": "60",
}


def find(name: str) -> str:
    """Return where a program of PostgreSQL is; where there is none, CI fails and anybody else's test is skipped."""
    versions = sorted(_INSTALLED.glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]), reverse=True)
    return str(versions[0]) if versions else require(name)


class Cluster:
    """A server with a database for each test. As root it runs as somebody else, which it insists on."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._log = folder / "log"
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
            shutil.chown(folder, "nobody")
        with socket.create_server(("127.0.0.1", 0)) as sock:
            self.port: int = sock.getsockname()[1]
        self._names = count(1)
        self._server: subprocess.Popen[bytes] | None = None
        secret = folder / "password"
        secret.write_text(PASSWORD)
        how = ("--username=owner", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C")
        subprocess.run(
            [find("initdb"), f"--pgdata={self._data}", "--no-sync", *how],
            check=True,
            capture_output=True,
            cwd=folder,
            **self._as,
        )

    @property
    def log(self) -> str:
        """What the server wrote."""
        return self._log.read_text(errors="replace")

    def url(self, database: str, password: str = PASSWORD) -> str:
        """Return what `store.url` is for a database."""
        return f"postgresql+psycopg://owner:{password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """Connect past the product."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="owner", password=PASSWORD, dbname=database, autocommit=True
        )

    def create(self) -> str:
        """Make an empty database and return its name."""
        name = f"test{next(self._names)}_{secrets.token_hex(4)}"
        with self.connect("postgres") as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return name

    def start(self) -> None:
        """Start the server and wait until it answers."""
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                [find("postgres"), "-D", str(self._data), "-p", str(self.port), *settings],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._data,
                **self._as,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError:
                assert self._server.poll() is None, self.log
                assert time.monotonic() < deadline, self.log
                time.sleep(0.05)
            else:
                return

    def send(self, number: signal.Signals) -> None:
        """Send the server and all its workers a signal, as SIGSTOP and SIGCONT."""
        assert self._server
        for pid in (self._server.pid, *_children(self._server.pid)):
            os.kill(pid, number)

    def stop(self, *, crash: bool = False) -> None:
        """Stop the server, hanging up on everybody; `crash`: without a word and without writing anything more."""
        if self._server:
            self._server.send_signal(signal.SIGQUIT if crash else signal.SIGINT)
            self._server.wait(PATIENCE)
            self._server = None


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a server while the context lasts."""
    find("initdb")
    folder = Path(tempfile.mkdtemp(prefix="voicelink-pg-"))
    try:
        server = Cluster(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop(crash=True)
    finally:
        shutil.rmtree(folder)


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()]
