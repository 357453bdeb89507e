"""A daemon that lost a part ends as a whole, in order, and says so: it doesn't live on without that part."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from exporter.accounts import account_runtimes
from exporter.addresses import parse_address
from exporter.app import end, serve
from exporter.clock import SystemClock
from exporter.config import Config, Settings
from exporter.errors import StartupError
from exporter.heal.controller import Controller
from exporter.parts import Exporter
from exporter.running import run_until_stopped
from exporter.simulator import SimulatorOptions, create_app, simulator_of
from exporter.store import Store
from exporter.web.listening import open_sockets
from exporter.web.server import Server
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from structlog.typing import EventDict

    from exporter.running import Listening

KEY = "rg_live_MadeUpKeyOfTheTests"


@pytest.fixture
def log() -> Iterator[list[EventDict]]:
    """Return what is logged; what `serve` froze is given back."""
    with capture_logs() as logs:
        yield logs
    gc.unfreeze()


class Dying(Server):
    """Serves until it is told to die."""

    def __init__(self) -> None:
        super().__init__(create_app(SimulatorOptions(dids=2)))
        self.dies = asyncio.Event()

    async def main_loop(self) -> None:
        dies, lives = asyncio.create_task(self.dies.wait()), asyncio.create_task(super().main_loop())
        await asyncio.wait([dies, lives], return_when=asyncio.FIRST_COMPLETED)
        if self.dies.is_set():
            lives.cancel()
            await self.shutdown()
            raise RuntimeError("made up")
        dies.cancel()


class Breaking(Controller):
    """Breaks when it is to end."""

    async def stop(self) -> None:
        await super().stop()
        raise RuntimeError("made up")


def listening(server: Server) -> Listening:
    return server, open_sockets(parse_address("127.0.0.1:0"))


def settings(folder: Path, simulator: Listening) -> Settings:
    port = simulator[1][0].getsockname()[1]
    config = Config.model_validate(
        {
            "api": {"base_url": f"http://127.0.0.1:{port}/api/v2", "requests_per_minute": 600},
            "accounts": [{"name": "default", "api_key_env": "VOCOBASE_API_KEY"}],
            "poll": {"interval": "1s", "jitter": "0s", "stale_after": "10s"},
            "store": {"url": f"sqlite:///{folder}/store.db"},
            "web": {"listen_address": "127.0.0.1:0"},
        }
    )
    return Settings(config, {"default": SecretStr(KEY)})


async def until_logged(log: list[EventDict], event: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while event not in events(log):  # noqa: ASYNC110 - the log has no event for it
            await asyncio.sleep(0.01)


def events(log: list[EventDict]) -> list[str]:
    return [str(each["event"]) for each in log]


def errors(log: list[EventDict]) -> list[EventDict]:
    return [each for each in log if each["log_level"] == "error"]


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_a_web_server_that_dies_takes_the_daemon_along(tmp_path: Path, log: list[EventDict]) -> None:
    server = Dying()
    simulator = listening(server)
    before = tasks()
    daemon = asyncio.create_task(serve(settings(tmp_path, simulator), beside=[simulator]))
    await until_logged(log, "polled")
    server.dies.set()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(StartupError) as caught:
            await daemon
    assert str(caught.value) == "the web server ended by a fault; the log says where"
    assert events(log)[-2:] == ["stopping", "stopped"]
    (error,) = errors(log)
    assert isinstance(error["exc_info"], RuntimeError)
    assert tasks() <= before


async def test_healing_that_ends_takes_the_daemon_along(tmp_path: Path, log: list[EventDict]) -> None:
    simulator = listening(Dying())
    before = tasks()
    daemon = asyncio.create_task(serve(settings(tmp_path, simulator), beside=[simulator]))
    await until_logged(log, "polled")
    (healing,) = (task for task in asyncio.all_tasks() if task.get_name() == "healing")
    healing.cancel()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(StartupError) as caught:
            await daemon
    assert str(caught.value) == "the healing ended by a fault; the log says where"
    assert events(log)[-2:] == ["stopping", "stopped"]
    assert len(errors(log)) == 1
    assert tasks() <= before


async def test_a_task_that_breaks_is_logged_with_its_error(log: list[EventDict]) -> None:
    async def breaks() -> None:
        raise KeyError("made up")

    @contextlib.asynccontextmanager
    async def during() -> AsyncIterator[Sequence[asyncio.Task[None]]]:
        yield [asyncio.create_task(breaks(), name="healing")]

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(StartupError):
            await run_until_stopped([listening(Dying())], during())
    (error,) = errors(log)
    assert isinstance(error["exc_info"], KeyError)


async def test_a_part_that_breaks_at_its_end_leaves_the_others_theirs(tmp_path: Path, log: list[EventDict]) -> None:
    app = create_app(SimulatorOptions(dids=2))
    server = Server(app)
    simulator = listening(server)
    serving = asyncio.create_task(server.serve(list(simulator[1])))
    chosen = settings(tmp_path, simulator)
    exporter = Exporter(chosen)
    breaking = Breaking(
        chosen.config,
        Store(chosen.config),
        account_runtimes(chosen, exporter.clients.of_account, exporter.poller.watches),
        annotator=exporter.poller,
        observer=exporter.telemetry,
        clock=SystemClock(),
    )
    await exporter.controller.stop()
    exporter.poller.listener = breaking
    exporter.controller = breaking
    await exporter.poller.discover("default")
    (target,) = exporter.poller.fleet.targets
    await exporter.poller.plan({target: 60.0})
    simulator_of(app).add_fault("hang:sync")
    poll = asyncio.create_task(exporter.poller.poll(target))
    async with asyncio.timeout(PATIENCE):
        while not any(each.endpoint == "sync" for each in simulator_of(app).requests()):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
        await end(exporter)
        await asyncio.wait([poll])
    exporter.poller.close()
    (error,) = errors(log)
    assert error["part"] == "healing"
    with pytest.raises(RuntimeError, match="closed"):
        await exporter.clients.of_account["default"].connections(deadline=float("inf"))
    server.should_exit = True
    await serving


async def test_a_context_that_breaks_at_its_end_leaves_the_servers_theirs(log: list[EventDict]) -> None:
    @contextlib.asynccontextmanager
    async def during() -> AsyncIterator[Sequence[asyncio.Task[None]]]:
        yield []
        raise KeyError("made up")

    before = tasks()
    asyncio.get_running_loop().call_later(0.3, os.kill, os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(KeyError):
            await run_until_stopped([listening(Dying())], during())
    assert tasks() <= before
    assert errors(log) == []
