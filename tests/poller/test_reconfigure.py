"""Another configuration while polls go on: what stays, stays; what goes, goes at once; nothing old is shown as new."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from exporter.config import Account, Config
from exporter.model import HealState, Target
from exporter.poller import Polling
from exporter.snapshots import Healing
from exporter.vocobase import VocobaseClient
from tests.support.clock import settle
from tests.support.driving import drive
from tests.support.transport import over

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.poller.conftest import Parts

    Start = Callable[..., Parts]

KEY = b"0123456789abcdef"


async def reconfigure(parts: Parts, *given: dict[str, Any], **settings: Any) -> None:  # noqa: ANN401 - the poller's
    """Go on with these accounts, and the clients they had."""
    accounts = [Account.model_validate({"name": "main", "api_key_env": "KEY", **each}) for each in given or ({},)]
    chosen = {"stale_after": 300.0, **settings}
    clients = chosen.pop("clients", None) or {each.name: parts.clients[each.name] for each in accounts}
    await parts.poller.reconfigure(Polling({each.name: each for each in accounts}, clients, **chosen))


def other_client(parts: Parts) -> VocobaseClient:
    """Return another client for the same API."""
    config = Config.model_validate({"api": {"base_url": "http://simulator/api/v2"}})
    one = parts.clients["main"]
    return VocobaseClient(
        config,
        "main",
        SecretStr("rg_live_another"),
        budget=one.budget,
        observer=parts.telemetry,
        clock=parts.clock,
        transport=over(httpx.MockTransport(lambda _: httpx.Response(500))),
    )


def numbers(parts: Parts) -> list[str]:
    return [line.partition('phone_number="')[2].partition('"')[0] for line in ready_lines(parts)]


def ready_lines(parts: Parts) -> list[str]:
    return [line for line in parts.text.splitlines() if line.startswith("voicelink_did_ready{")]


async def test_the_same_again_changes_nothing(start: Start) -> None:
    parts = start(dids=5, connections=2)
    await parts.discover()
    await parts.poll()
    dids = [did for state in parts.poller.fleet.targets.values() for did in state.memory.values()]
    before = parts.text
    await reconfigure(parts)
    after = [did for state in parts.poller.fleet.targets.values() for did in state.memory.values()]
    assert all(one is other for one, other in zip(dids, after, strict=True))
    assert parts.text.partition("\nprocess_")[0] == before.partition("\nprocess_")[0]


async def test_an_account_that_is_gone_takes_its_targets_and_connections_along(start: Start) -> None:
    parts = start(dids=4, accounts={"main": {}, "second": {}})
    for account in ("main", "second"):
        await parts.discover(account)
    await parts.poll()
    kept = parts.poller.fleet.of_account("main")
    await reconfigure(parts)
    assert {target.account for target in parts.targets} == {"main"}
    assert parts.poller.fleet.of_account("main") == kept
    assert 'account="second"' not in parts.text.partition("voicelink_api_")[0]
    assert await parts.poller.discover("second") is True  # a look-up that was planned does nothing
    assert {target.account for target in parts.targets} == {"main"}


async def test_dids_that_are_not_monitored_any_more_go_at_once(start: Start) -> None:
    parts = start(dids=5)
    await parts.discover()
    await parts.poll()
    first, second, *rest = parts.simulator.numbers
    await reconfigure(parts, {"exclude": [first]})
    assert numbers(parts) == [second, *rest]
    await reconfigure(parts, {"dids": [{"did_number": second}]})
    assert numbers(parts) == [second]
    await parts.poll()
    assert numbers(parts) == [second]
    await reconfigure(parts)
    await parts.poll()
    assert numbers(parts) == [first, second, *rest]


async def test_a_missing_did_that_is_not_configured_any_more_is_not_missing(start: Start) -> None:
    parts = start(dids=2, account={"dids": [{"did_number": "+918011229999"}]})
    await parts.discover()
    await parts.poll()
    assert 'state="MISSING"' in parts.text
    await reconfigure(parts, {})
    assert numbers(parts) == []
    await parts.poll()
    assert numbers(parts) == parts.simulator.numbers


async def test_labels_and_hashes_follow_at_once(start: Start) -> None:
    parts = start(dids=1)
    await parts.discover()
    await parts.poll()
    (number,) = parts.simulator.numbers
    await reconfigure(parts, {"dids": [{"did_number": number, "labels": {"team": "sales"}}]})
    assert parts.value("voicelink_did_info", team="sales", phone_number=number) == 1
    await reconfigure(parts, hash_key=KEY)
    assert number not in parts.text
    (hashed,) = numbers(parts)
    assert parts.poller.label(number) == hashed
    await parts.poll()
    assert numbers(parts) == [hashed]
    await reconfigure(parts)
    assert numbers(parts) == [number]
    assert parts.value("voicelink_did_state_changes_total", phone_number=number) == 0


async def test_heal_states_go_when_healing_is_off(start: Start) -> None:
    parts = start(dids=2)
    await parts.discover()
    await reconfigure(parts, heal_mode="enforce")
    await parts.poll()
    number = parts.simulator.numbers[0]
    await parts.poller.annotate(parts.targets[0], Healing("enforce"), {number: HealState.PENDING})
    assert parts.value("voicelink_did_heal_state", phone_number=number) == 1
    assert parts.value("voicelink_heal_mode", mode="enforce") == 1
    await reconfigure(parts)
    assert "voicelink_did_heal_state{" not in parts.text
    assert parts.value("voicelink_heal_mode", mode="off") == 1
    assert parts.value("voicelink_heal_mode", mode="enforce") == 0


async def test_data_gets_stale_as_the_new_configuration_says(start: Start) -> None:
    parts = start(dids=1)
    await parts.discover()
    await parts.poll()
    await parts.clock.advance(100)
    await parts.poller.tick()
    assert ready_lines(parts)
    await reconfigure(parts, stale_after=90.0)
    await parts.poller.tick()
    assert not ready_lines(parts)


async def test_a_poll_with_a_client_that_was_replaced_is_abandoned(start: Start) -> None:
    parts = start(dids=2, connections=2)
    await parts.discover()
    await parts.poll()
    parts.simulator.add_fault("latency:sync:seconds=1000")
    polling = [asyncio.create_task(parts.poller.poll(target)) for target in parts.targets]
    await settle()
    other = other_client(parts)
    await reconfigure(parts, clients={"main": other})
    await asyncio.gather(*polling)
    assert all(state.polls == 1 and state.up for state in parts.poller.fleet.targets.values())
    await other.aclose()


async def test_a_poll_that_begins_while_the_change_waits_is_abandoned_too(start: Start) -> None:
    parts = start(dids=2)
    await parts.discover()
    await parts.poll()
    other = other_client(parts)
    async with parts.poller._turn:  # noqa: SLF001 - as while another poll is being shown
        changing = asyncio.create_task(reconfigure(parts, clients={"main": other}))
        await settle()
        parts.simulator.add_fault("latency:sync:seconds=5,count=1")
        polling = asyncio.create_task(parts.poller.poll(parts.targets[0]))
        await settle()
    await drive(changing, parts.clock)
    await drive(polling, parts.clock)
    assert parts.poller.fleet.targets[parts.targets[0]].polls == 1
    await other.aclose()


async def test_a_poll_with_the_same_client_is_seen_by_the_new_configuration(start: Start) -> None:
    parts = start(dids=3)
    await parts.discover()
    parts.simulator.add_fault("latency:sync:seconds=5,count=1")
    polling = asyncio.create_task(parts.poller.poll(parts.targets[0]))
    await settle()
    await reconfigure(parts, {"exclude": [parts.simulator.numbers[0]]})
    await drive(polling, parts.clock)
    assert numbers(parts) == parts.simulator.numbers[1:]


async def test_a_poll_of_an_account_that_is_gone_ends_in_nothing(start: Start) -> None:
    parts = start(dids=2, accounts={"main": {}, "second": {}})
    for account in ("main", "second"):
        await parts.discover(account)
    parts.simulators["second"].add_fault("latency:sync:seconds=5")
    (target,) = [each for each in parts.targets if each.account == "second"]
    polling = asyncio.create_task(parts.poller.poll(target))
    await settle()
    await reconfigure(parts)
    await drive(polling, parts.clock)
    assert target not in parts.poller.fleet.targets
    assert parts.said("poll failed", "poll failed by a fault of the exporter") == []


@pytest.mark.parametrize("gone", [True, False])
async def test_a_look_up_with_a_client_that_was_replaced_finds_nothing(start: Start, *, gone: bool) -> None:
    parts = start(dids=2, accounts={"main": {}, "second": {}})
    parts.simulators["second"].add_fault("latency:connections:seconds=5")
    looking = asyncio.create_task(parts.poller.discover("second"))
    await settle()
    other = other_client(parts)
    if gone:
        await reconfigure(parts)
    else:
        await reconfigure(parts, {}, {"name": "second"}, clients={"main": parts.clients["main"], "second": other})
    assert await drive(looking, parts.clock) is False
    assert parts.targets == []
    await other.aclose()


async def test_it_stays_ready_when_an_account_comes(start: Start) -> None:
    parts = start(dids=2, accounts={"main": {}, "second": {}})
    await reconfigure(parts)
    assert not parts.poller.tried
    await parts.discover()
    await parts.poll()
    assert parts.poller.tried
    await reconfigure(parts, {}, {"name": "second"})
    assert parts.poller.tried
    await parts.discover("second")
    assert parts.poller.tried
    assert Target("second", parts.simulators["second"].connection_ids[0]) in parts.targets
