"""Which targets an account has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from exporter.model import Target
from tests.support.fleet import IDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.poller.conftest import Parts

    Start = Callable[..., Parts]


def targets_of(parts: Parts, account: str = "main") -> list[Target]:
    return [Target(account, each) for each in sorted(parts.simulators[account].connection_ids)]


def infos(parts: Parts) -> list[str]:
    return [line for line in parts.text.split("\n") if line.startswith("voicelink_connection_info{")]


async def test_every_active_connection_is_a_target(start: Start) -> None:
    parts = start(connections=3)
    inactive = parts.simulator.connection_ids[1]
    parts.simulator.set_connection(inactive, status="INACTIVE")
    assert await parts.discover() is True
    assert parts.targets == [each for each in targets_of(parts) if each.connection_id != inactive]
    assert len(infos(parts)) == 3
    assert sum('status="INACTIVE"' in line for line in infos(parts)) == 1
    assert sum('is_default="true"' in line for line in infos(parts)) == 1
    assert len(parts.said("target found")) == 2
    assert [seen.query for seen in parts.simulator.requests()] == [{"provider": "voicelink"}]


async def test_configured_connections_are_the_targets_whatever_is_listed(start: Start) -> None:
    parts = start(connections=2, account={"connections": [IDS[3], IDS[1]]})
    assert await parts.discover() is True
    wanted = [Target("main", IDS[1]), Target("main", IDS[3])]
    assert parts.targets == wanted
    assert len(infos(parts)) == 2
    parts.simulator.add_fault("status:connections:status=404")
    assert await parts.discover() is False
    assert parts.targets == wanted


REFUSALS = [400, 401, 403, 404, 409, 418, 429, 500, 503]


@pytest.mark.parametrize(
    "fault",
    [
        *(f"status:connections:status={status}" for status in REFUSALS),
        *("html:connections", "not_json:connections", "wrong_types:connections:level=data", "truncate:connections"),
    ],
)
async def test_where_connections_cannot_be_listed_one_target_goes_without_a_name(start: Start, fault: str) -> None:
    parts = start()
    parts.simulator.add_fault(fault)
    assert await parts.discover() is False
    assert parts.targets == [Target("main")]
    assert infos(parts) == []
    assert [line["account"] for line in parts.said("listing of connections failed")] == ["main"]
    await parts.clock.advance(60)
    await parts.poll()
    assert parts.value("voicelink_up", account="main", connection="default") == 1
    assert parts.simulator.requests("sync")[-1].body == {"import_dids": False}


async def test_an_empty_list_is_one_target_without_a_name(start: Start) -> None:
    parts = start()
    parts.simulator.add_fault("partial:connections:percent=100")
    assert await parts.discover() is True
    assert parts.targets == [Target("main")]


async def test_a_name_that_becomes_known_replaces_the_target_without_one(start: Start) -> None:
    parts = start(dids=3)
    parts.simulator.add_fault("status:connections:status=401,count=1")
    await parts.discover()
    await parts.poll()
    assert parts.value("voicelink_dids", connection="default", state="READY") == 3
    await parts.discover()
    assert parts.targets == targets_of(parts)
    assert parts.value("voicelink_dids", connection="default", state="READY") is None
    assert len(parts.said("listing of connections works again")) == 1


@pytest.mark.parametrize(
    "fault", ["partial:connections:percent=100", "status:connections:status=403", "html:connections"]
)
async def test_targets_stay_where_the_list_is_suddenly_empty_or_gone(start: Start, fault: str) -> None:
    parts = start(connections=2)
    await parts.discover()
    await parts.poll()
    before = dict(parts.poller.fleet.targets)
    parts.simulator.add_fault(fault)
    await parts.discover()
    assert dict(parts.poller.fleet.targets) == before
    assert parts.said("target gone, it is not polled any more") == []


async def test_what_was_listed_is_told_until_there_is_another_list(start: Start) -> None:
    parts = start(connections=2)
    await parts.discover()
    before = infos(parts)
    parts.simulator.add_fault("status:connections:status=403,count=1")
    await parts.discover()
    assert infos(parts) == before
    parts.simulator.add_fault("partial:connections:percent=100")
    await parts.discover()
    assert infos(parts) == []


async def test_a_connection_that_becomes_inactive_is_polled_no_more(start: Start) -> None:
    parts = start(connections=2, dids=4)
    await parts.discover()
    await parts.poll()
    gone = Target("main", parts.simulator.connection_ids[1])
    parts.simulator.set_connection(gone.connection, status="SUSPENDED")
    await parts.discover()
    assert gone not in parts.targets
    series = [line for line in parts.text.split("\n") if gone.connection in line]
    assert [line.partition("{")[0] for line in series] == ["voicelink_connection_info"]
    (line,) = parts.said("target gone, it is not polled any more")
    assert (line["level"], line["connection"], line["status"]) == ("warn", gone.connection, "SUSPENDED")
    parts.simulator.set_connection(gone.connection, status="ACTIVE")
    await parts.discover()
    assert gone in parts.targets


async def test_a_connection_that_is_listed_no_more_is_polled_no_more(start: Start) -> None:
    parts = start(connections=2)
    await parts.discover()
    first, second = parts.simulator.connection_ids
    del parts.simulator.fleet.connections[second]
    await parts.discover()
    assert parts.targets == [Target("main", first)]
    (line,) = parts.said("target gone, it is not polled any more")
    assert (line["connection"], line["status"]) == (second, "not listed")


async def test_accounts_do_not_touch_each_other(start: Start) -> None:
    parts = start(accounts={"one": {}, "two": {}}, connections=2)
    parts.simulators["two"].add_fault("status:connections:status=403")
    await parts.discover("one")
    assert parts.poller.tried is False
    await parts.discover("two")
    assert parts.targets == [*targets_of(parts, "one"), Target("two")]
    assert len(infos(parts)) == 2
    assert parts.poller.tried is False
    await parts.poll()
    assert parts.poller.tried is True
    assert [len(simulator.requests("sync")) for simulator in parts.simulators.values()] == [2, 1]


async def test_tried_means_whatever_came_of_it(start: Start) -> None:
    parts = start()
    assert parts.poller.tried is False
    parts.simulator.add_fault("status:*:status=401")
    await parts.discover()
    assert parts.poller.tried is False
    await parts.poll()
    assert parts.poller.tried is True
    assert parts.value("voicelink_up") == 0


async def test_a_failing_list_is_said_once(start: Start) -> None:
    parts = start()
    parts.simulator.add_fault("status:connections:status=403")
    for _ in range(3):
        await parts.discover()
    assert len(parts.said("listing of connections failed")) == 1
    assert len(parts.said("target found")) == 1


async def test_an_only_connection_that_is_not_active_any_more_is_polled_on_and_that_is_said_once(start: Start) -> None:
    parts = start(connections=1)
    await parts.discover()
    before = parts.targets
    (connection,) = parts.simulator.connection_ids
    parts.simulator.set_connection(connection, status="SUSPENDED")
    await parts.discover()
    await parts.discover()
    assert parts.targets == before
    (line,) = parts.said("look-up of ACTIVE connections failed")
    assert (line["account"], line["error"]) == ("main", f"{connection} is SUSPENDED")
    parts.simulator.set_connection(connection, status="ACTIVE")
    await parts.discover()
    assert len(parts.said("look-up of ACTIVE connections works again")) == 1


@pytest.mark.parametrize("accounts", [1, 3])
async def test_a_look_up_waits_for_its_turn_after_the_polls_and_then_a_minute(start: Start, accounts: int) -> None:
    parts = start(accounts={"main": {}, **{f"other {index}": {} for index in range(accounts - 1)}})
    await parts.discover()
    parts.budgets["main"].paced = True
    patience = 60 + 60 + accounts  # that of old, an interval, and a second for each account
    parts.clients["main"].budget.pause(patience - 1)
    assert await parts.discover() is True
    parts.clients["main"].budget.pause(patience + 1)
    assert await parts.discover() is False
    (line,) = parts.said("listing of connections failed")
    assert line["reason"] == "rate_limited"


async def test_a_poll_outwaits_others_of_the_key_however_short_its_interval(start: Start) -> None:
    parts = start()
    await parts.discover()
    await parts.poller.plan(dict.fromkeys(parts.targets, 1.0))
    parts.budgets["main"].paced = True
    parts.clients["main"].budget.pause(9)
    await parts.poll()
    assert parts.value("voicelink_up") == 1
    parts.clients["main"].budget.pause(11)
    await parts.poll()
    assert parts.value("voicelink_up") == 0
