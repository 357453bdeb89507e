"""Which part of the targets a daemon polls: the same on every machine, nothing twice, and little moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import Target
from exporter.shards import ALL, Shard, jump_hash, parse_shard

TARGETS = [Target(f"account {index % 7}", f"connection-{index}") for index in range(2000)]


@pytest.mark.parametrize(
    ("key", "buckets", "bucket"),
    [(1, 1, 0), (42, 57, 43), (0xDEAD10CC, 1, 0), (0xDEAD10CC, 666, 361), (256, 1024, 520)],
)
def test_a_key_falls_into_the_bucket_that_other_implementations_give_it(key: int, buckets: int, bucket: int) -> None:
    assert jump_hash(key, buckets) == bucket


@given(st.integers(0, 2**64 - 1), st.integers(1, 200))
def test_one_bucket_more_moves_keys_to_it_alone(key: int, buckets: int) -> None:
    before, after = jump_hash(key, buckets), jump_hash(key, buckets + 1)
    assert 0 <= before < buckets
    assert after in {before, buckets}


@pytest.mark.parametrize("total", [1, 2, 3, 10])
def test_every_target_is_in_one_shard_and_shards_are_about_the_same_size(total: int) -> None:
    shards = [Shard(index, total) for index in range(total)]
    owners = [[shard.index for shard in shards if shard.owns(target, together=False)] for target in TARGETS]
    assert {len(each) for each in owners} == {1}
    sizes = [owners.count([index]) for index in range(total)]
    assert min(sizes) > 0.7 * len(TARGETS) / total


def test_one_shard_more_moves_about_its_share() -> None:
    def owner(target: Target, total: int) -> int:
        return next(index for index in range(total) if Shard(index, total).owns(target, together=False))

    moved = [target for target in TARGETS if owner(target, 4) != owner(target, 5)]
    assert {owner(target, 5) for target in moved} == {4}
    assert len(moved) / len(TARGETS) == pytest.approx(1 / 5, abs=0.03)


def test_a_target_stays_where_it_is_from_version_to_version() -> None:
    """Another spelling of the key would move targets at an upgrade, and with them what they remember."""
    owners = [
        next(index for index in range(5) if Shard(index, 5).owns(target, together=False))
        for target in (Target("default"), Target("default", "5a2b"), Target("a", "1"), Target("b", "1"))
    ]
    assert owners == [0, 4, 1, 1]


def test_an_account_can_be_kept_together() -> None:
    for total in (2, 5):
        owners = {
            index
            for index in range(total)
            for target in TARGETS
            if target.account == "account 3" and Shard(index, total).owns(target, together=True)
        }
        assert len(owners) == 1


def test_one_shard_of_one_is_everything() -> None:
    assert all(ALL.owns(target, together=together) for target in TARGETS for together in (True, False))


@pytest.mark.parametrize(
    ("index", "total", "shard"),
    [
        ("0", "1", Shard(0, 1)),
        ("2", "3", Shard(2, 3)),
        ("voicelink-exporter-2", "3", Shard(2, 3)),
        ("voicelink-exporter-5", "3", Shard(2, 3)),
        ("x-0", "1", Shard(0, 1)),
    ],
)
def test_what_the_command_line_may_say(index: str, total: str, shard: Shard) -> None:
    assert parse_shard(index, total) == shard


@pytest.mark.parametrize(
    ("index", "total", "problem"),
    [
        ("3", "3", "--shard: '3' is no part of 3; give a number from 0 to 2, or a pod's name"),
        ("-1", "3", "--shard: '-1' is no part of 3; give a number from 0 to 2, or a pod's name"),
        ("", "3", "--shard: '' is no part of 3; give a number from 0 to 2, or a pod's name"),
        ("one", "3", "--shard: 'one' is no part of 3; give a number from 0 to 2, or a pod's name"),
        ("exporter-", "3", "--shard: 'exporter-' is no part of 3; give a number from 0 to 2, or a pod's name"),
        ("0", "0", "--total-shards: '0' is no number from 1 to 9999"),
        ("0", "-2", "--total-shards: '-2' is no number from 1 to 9999"),
        ("0", "10000", "--total-shards: '10000' is no number from 1 to 9999"),
        ("0", "٣", "--total-shards: '٣' is no number from 1 to 9999"),
    ],
)
def test_what_it_may_not_say(index: str, total: str, problem: str) -> None:
    with pytest.raises(ValueError, match=r"^--") as raised:
        parse_shard(index, total)
    assert str(raised.value) == problem
