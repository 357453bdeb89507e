"""Daemons that divide the targets: each has its own, and what one doesn't see it says nothing about."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.model import Target
from exporter.shards import Shard
from tests.support.fleet import IDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.poller.conftest import Parts

    Start = Callable[..., Parts]

TOTAL = 3


def owner(target: Target, *, together: bool = False) -> int:
    return next(index for index in range(TOTAL) if Shard(index, TOTAL).owns(target, together=together))


async def test_shards_hold_disjoint_targets_that_are_all_there_are(start: Start) -> None:
    shards = [start(dids=12, connections=6, shard=Shard(index, TOTAL)) for index in range(TOTAL)]
    for parts in shards:
        await parts.discover()
        await parts.poll()
        assert parts.poller.tried
    found = [target for parts in shards for target in parts.targets]
    assert len(found) == len(set(found)) == 6
    for index, parts in enumerate(shards):
        assert {owner(target) for target in parts.targets} <= {index}
        infos = [line for line in parts.text.splitlines() if line.startswith("voicelink_connection_info{")]
        assert len(infos) == len(parts.targets)
    numbers = [number for parts in shards for state in parts.poller.fleet.targets.values() for number in state.memory]
    assert sorted(numbers) == shards[0].simulator.numbers


async def test_a_shard_without_a_target_is_ready_and_says_so_by_having_none(start: Start) -> None:
    everything = start(connections=1)
    await everything.discover()
    (target,) = everything.targets
    others = [start(connections=1, shard=Shard(index, TOTAL)) for index in range(TOTAL) if index != owner(target)]
    for parts in others:
        assert await parts.discover() is True
        assert parts.targets == []
        assert parts.poller.tried


async def test_a_list_that_fails_later_gives_no_shard_a_target_without_a_name(start: Start) -> None:
    nameless = owner(Target("main"))
    shards: list[Parts] = []
    before: list[list[Target]] = []
    for seed in range(10):
        shards = [start(connections=1, seed=seed, shard=Shard(index, TOTAL)) for index in range(TOTAL)]
        for parts in shards:
            await parts.discover()
        before = [parts.targets for parts in shards]
        if not before[nameless]:
            break
    for parts in shards:
        parts.simulator.add_fault("status:connections:status=404")
        await parts.discover()
    assert [parts.targets for parts in shards] == before


async def test_what_could_never_be_listed_is_asked_without_a_name_by_one_shard(start: Start) -> None:
    shards = [start(shard=Shard(index, TOTAL)) for index in range(TOTAL)]
    for parts in shards:
        parts.simulator.add_fault("status:connections:status=404")
        await parts.discover()
    (target,) = [target for parts in shards for target in parts.targets]
    assert target.connection_id is None


async def test_configured_connections_are_divided_too(start: Start) -> None:
    account = {"connections": list(IDS)}
    shards = [start(account=account, shard=Shard(index, TOTAL)) for index in range(TOTAL)]
    for parts in shards:
        await parts.discover()
    assert sorted(target.connection for parts in shards for target in parts.targets) == sorted(IDS)


async def test_an_account_that_names_dids_stays_together_so_that_missing_is_true(start: Start) -> None:
    everything = start(dids=6, connections=3)
    await everything.discover()
    numbers = everything.simulator.numbers
    account = {"dids": [*({"did_number": number} for number in numbers), {"did_number": "+918011229999"}]}
    shards = [start(dids=6, connections=3, account=account, shard=Shard(index, TOTAL)) for index in range(TOTAL)]
    for parts in shards:
        await parts.discover()
        await parts.poll()
        await parts.poll()
    (holding,) = [parts for parts in shards if parts.targets]
    assert len(holding.targets) == 3
    assert holding.text.count("\nvoicelink_did_ready{") == 7
    assert holding.value("voicelink_did_state", state="MISSING", phone_number="+918011229999") == 1
