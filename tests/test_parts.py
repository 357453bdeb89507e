"""The accounts' clients under one configuration after the other, and what a reload refuses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from exporter.clients import Clients
from exporter.clock import SystemClock
from exporter.config import Config, Settings
from exporter.errors import ConfigError
from exporter.parts import Exporter
from exporter.shards import Shard
from exporter.simulator import Simulator, SimulatorOptions, create_app, simulator_of
from exporter.telemetry import Telemetry
from exporter.vocobase.budget import Priority
from tests.support.api import served_simulator
from tests.support.clock import ManualClock, settle
from tests.support.patience import PATIENCE
from tests.support.transport import over

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = "rg_live_One", "rg_live_Two"
FAR = float("inf")


def settings_of(keys: dict[str, str], **sections: Any) -> Settings:  # noqa: ANN401 - the configuration's
    """Return a configuration of accounts with these keys."""
    accounts = [{"name": name, "api_key_env": "KEY"} for name in keys]
    api = {"base_url": "http://simulator/api/v2", **sections.pop("api", {})}
    config = Config.model_validate({"api": api, "accounts": accounts, **sections})
    return Settings(config, {name: SecretStr(key) for name, key in keys.items()})


class World:
    """Clients on a simulator."""

    def __init__(self, shard: Shard | None = None) -> None:
        self.clock, self.telemetry = ManualClock(), Telemetry()
        app = create_app(SimulatorOptions(rate_limit=0), clock=self.clock.time, sleep=self.clock.sleep)
        self.simulator: Simulator = simulator_of(app)
        transport = httpx.ASGITransport(app)
        self.clients = Clients(self.telemetry, self.clock, shard or Shard(), transport=over(transport))

    def use(self, settings: Settings) -> Clients:
        self.clients.use(settings, self.clients.prepare(settings))
        return self.clients

    def remaining(self, account: str) -> float | None:
        return self.telemetry.registry.get_sample_value("voicelink_api_requests_remaining", {"account": account})


async def test_a_client_stays_while_its_key_and_the_api_do() -> None:
    world = World()
    before = dict(world.use(settings_of({"a": ONE, "b": TWO})).of_account)
    world.use(settings_of({"a": ONE, "b": "rg_live_Three", "c": TWO}, poll={"interval": "30s"}))
    after = dict(world.clients.of_account)
    assert after["a"] is before["a"]
    assert after["b"] is not before["b"]
    assert after["c"].budget is before["b"].budget
    world.use(settings_of({"a": ONE}, api={"timeout": "5s"}))
    assert world.clients.of_account["a"] is not before["a"]
    assert world.clients.of_account["a"].budget is before["a"].budget
    await world.clients.close()


async def test_what_was_sent_with_a_key_counts_whatever_the_configuration_becomes() -> None:
    world = World()
    client = world.use(settings_of({"a": ONE})).of_account["a"]
    for _ in range(5):
        await world.clock.advance(1)
        async with client.budget.request(Priority.POLL, FAR):
            pass
    world.use(settings_of({"other": TWO}))
    assert (world.remaining("a"), world.remaining("other")) == (None, 60)
    world.use(settings_of({"a": ONE}, api={"requests_per_minute": 10}))
    assert (world.remaining("a"), world.remaining("other")) == (5, None)
    await world.clients.close()


@pytest.mark.parametrize(("per_minute", "total", "each"), [(60, 3, 20), (10, 3, 3), (1, 3, 1), (60, 1, 60)])
async def test_shards_divide_a_budget(per_minute: int, total: int, each: int) -> None:
    world = World(Shard(0, total))
    clients = world.use(settings_of({"a": ONE}, api={"requests_per_minute": per_minute}))
    assert clients.of_account["a"].budget.per_minute == each
    await clients.close()


@pytest.mark.parametrize(
    ("per_minute", "heal", "total", "share"),
    [
        (60, {"mode": "enforce"}, 1, 6),
        (60, {"mode": "enforce", "requests_per_minute": 2}, 1, 2),
        (60, {"mode": "enforce"}, 3, 2),
        (3, {"mode": "enforce"}, 1, 0),
        (60, {"mode": "observe"}, 1, 0),
        (60, {}, 1, 0),
    ],
)
async def test_a_share_of_a_budget_is_kept_for_heals_where_any_are_sent(
    per_minute: int, heal: dict[str, Any], total: int, share: int
) -> None:
    world = World(Shard(0, total))
    clients = world.use(settings_of({"a": ONE}, api={"requests_per_minute": per_minute}, heal=heal))
    budget = clients.of_account["a"].budget
    assert budget.heal_share == share
    world.use(settings_of({"a": ONE}, heal={"mode": "enforce"}))
    assert (budget.per_minute, budget.heal_share) == (60 // total, 6 // total)
    world.use(settings_of({"a": ONE}))
    assert budget.heal_share == 0
    await clients.close()


async def test_a_client_that_nobody_needs_is_closed_when_its_request_is_over() -> None:
    async with served_simulator(rate_limit=0) as (simulator, base_url):  # a pool that closes hangs up for real
        clients = Clients(Telemetry(), SystemClock())
        one, two = (settings_of({"a": key}, api={"base_url": base_url}) for key in (ONE, TWO))
        clients.use(one, clients.prepare(one))
        client = clients.of_account["a"]
        simulator.add_fault("latency:sync:seconds=0.3,count=1")
        asking = asyncio.create_task(client.sync(simulator.connection_ids[0], deadline=FAR))
        async with asyncio.timeout(PATIENCE):
            while not simulator.requests("sync"):  # noqa: ASYNC110 - the simulator has no event to wait for
                await asyncio.sleep(0.005)
        clients.use(two, clients.prepare(two))
        assert b'"success"' in (await asking).body
        assert len(simulator.requests("sync")) == 1
        await settle()
        with pytest.raises(RuntimeError, match="closed"):
            await client.sync(None, deadline=FAR)
        await clients.close()


async def test_what_still_retires_at_the_end_is_closed_too() -> None:
    world = World()
    client = world.use(settings_of({"a": ONE})).of_account["a"]
    world.simulator.add_fault("hang:sync")
    asking = asyncio.create_task(client.sync(world.simulator.connection_ids[0], deadline=FAR))
    await settle()
    world.use(settings_of({"a": TWO}))
    await world.clients.close()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("retire")]


async def test_proxies_that_are_wrong_refuse_a_reload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = settings_of({"a": ONE}, store={"url": f"sqlite:///{tmp_path}/store.db"})
    exporter = Exporter(chosen)
    client = exporter.clients.of_account["a"]
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy")
    with pytest.raises(ConfigError, match="can't use the environment's proxies"):
        await exporter.reload(lambda: settings_of({"a": TWO}, store={"url": f"sqlite:///{tmp_path}/store.db"}))
    assert exporter.settings is chosen
    assert exporter.clients.of_account == {"a": client}
    name = "voicelink_exporter_config_last_reload_successful"
    assert exporter.telemetry.registry.get_sample_value(name) == 0
    exporter.poller.close()
    await exporter.clients.close()
