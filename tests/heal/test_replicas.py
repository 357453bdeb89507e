"""Several controllers on one ledger: whatever tells them apart, none undoes or repeats what another did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from exporter.model import Guard, HealState, Outcome
from exporter.store.records import Status
from tests.support.api import CREDENTIAL

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.bench import Bench

NARROW = {"issues": ["ROUTING_MISSING"]}


async def rounds(count: int, *benches: Bench) -> None:
    """Let minutes go by, in each of which every replica polls."""
    for _ in range(count):
        for bench in benches:
            await bench.rounds(1)


def state_of(bench: Bench, number: str) -> HealState:
    """Return what all replicas know of a DID."""
    record = bench.store.ledger.records(bench.clock.time())[0].get(number)
    return record.state if record else HealState.IDLE


# Replicas that heal different issues


async def test_a_replica_that_heals_other_issues_does_not_end_an_attempt(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"verify_within": "1h"})
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    assert [each.status for each in bench.attempts()] == [Status.VERIFYING]
    bench.simulator.set_did(number, issues=["NO_BOT"])  # it did not last
    narrow: Bench = await start({**NARROW, "verify_within": "1h"}, like=bench)

    await narrow.rounds(5)

    assert [each.status for each in bench.attempts()] == [Status.VERIFYING]
    assert narrow.heal_state(number) == "verifying"
    bench.simulator.set_did(number, issues=["ROUTING_MISSING"])  # which the attempt was to mend as well
    await narrow.rounds(5)
    assert [each.status for each in bench.attempts()] == [Status.VERIFYING]
    bench.simulator.set_did(number, issues=[])
    await narrow.rounds(2)
    assert bench.attempts()[0].outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("most", "state"), [(5, HealState.BACKOFF), (1, HealState.QUARANTINED)], ids=["backoff", "quarantine"]
)
async def test_a_replica_that_heals_other_issues_does_not_forget_what_followed_from_an_attempt(
    start: Callable[..., Any], most: int, state: HealState
) -> None:
    long = {"backoff": {"initial": "12h", "max": "12h"}, "probation": "3m", "max_attempts": most}
    bench: Bench = await start(long)
    number = bench.simulator.numbers[0]
    bench.simulator.add_fault("status:call_ready:status=409,count=1")
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    assert state_of(bench, number) is state
    narrow: Bench = await start({**long, **NARROW}, like=bench)

    await narrow.rounds(10)

    assert state_of(bench, number) is state
    assert narrow.heal_state(number) == state.value
    bench.simulator.set_did(number, issues=[])
    await narrow.rounds(3)
    assert state_of(bench, number) is (HealState.PROBATION if most > 1 else state)


async def test_replicas_that_heal_different_issues_send_one_request(start: Callable[..., Any]) -> None:
    wide: Bench = await start()
    narrow: Bench = await start(NARROW, like=wide)
    number = wide.simulator.numbers[0]
    wide.simulator.set_did(number, issues=["NO_BOT", "ROUTING_MISSING"])

    await rounds(12, wide, narrow)

    assert (wide.sent, [each.outcome for each in wide.attempts()]) == (1, [Outcome.SUCCEEDED])


# Accounts that have one key

NAMES: list[dict[str, dict[str, Any]]] = [{"renamed": {}}, {"main": {}, "beside": {}}]


@pytest.mark.parametrize("accounts", NAMES, ids=["renamed", "two"])
async def test_what_is_left_of_a_budget_is_left_of_it_for_every_account_of_the_key(
    start: Callable[..., Any], accounts: dict[str, dict[str, Any]]
) -> None:
    one = {"max_per_hour": 1}
    bench: Bench = await start(one)
    first, second = bench.simulator.numbers[:2]
    bench.simulator.set_did(first, issues=["NO_BOT"])
    await bench.rounds(5)
    assert bench.sent == 1
    bench.simulator.set_did(second, issues=["NO_BOT"])
    other: Bench = await start(one, like=bench, accounts=accounts)

    await other.rounds(20)

    assert (other.sent, other.healing.blocked) == (1, frozenset({Guard.MAX_PER_HOUR}))


async def test_two_accounts_with_one_key_send_one_heal_until_it_is_verified(start: Callable[..., Any]) -> None:
    numbers = [f"+91801122334{digit}" for digit in range(4, 8)]
    halves = {
        name: {"dids": [{"did_number": number} for number in part]}
        for name, part in (("main", numbers[:2]), ("beside", numbers[2:]))
    }
    bench: Bench = await start(accounts=halves)
    assert bench.simulator.numbers[:4] == numbers
    for number in (numbers[0], numbers[2]):
        bench.simulator.set_did(number, issues=["NO_BOT"])

    await bench.rounds(3)
    assert bench.sent == 1
    await bench.rounds(6)
    assert [each.outcome for each in bench.attempts()] == [Outcome.SUCCEEDED] * 2
    assert {each.account for each in bench.attempts()} == {"main", "beside"}
    assert {each.credential for each in bench.attempts()} == {CREDENTIAL}


@pytest.mark.parametrize("accounts", NAMES, ids=["renamed", "two"])
async def test_a_latch_holds_every_account_of_the_key(
    start: Callable[..., Any], accounts: dict[str, dict[str, Any]]
) -> None:
    bench: Bench = await start()
    bench.simulator.add_fault("status:call_ready:status=401,count=1")
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(3)
    assert bench.healing.blocked == {Guard.ACCOUNT_LATCHED}
    other: Bench = await start(like=bench, accounts=accounts)

    await other.rounds(10)

    assert (other.sent, other.healing.blocked) == (1, frozenset({Guard.ACCOUNT_LATCHED}))


@pytest.mark.parametrize("accounts", NAMES, ids=["renamed", "two"])
async def test_an_open_breaker_holds_every_account_of_the_key(
    start: Callable[..., Any], accounts: dict[str, dict[str, Any]]
) -> None:
    often = {"breaker": {"failures": 2, "open_for": "6h"}, "backoff": {"initial": "1m", "max": "1m"}}
    bench: Bench = await start(often)
    bench.simulator.add_fault("status:call_ready:status=409")
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(10)
    assert (bench.sent, bench.healing.blocked) == (2, frozenset({Guard.BREAKER}))
    bench.simulator.clear_faults()
    bench.simulator.set_did(bench.simulator.numbers[1], issues=["NO_BOT"])
    other: Bench = await start(often, like=bench, accounts=accounts)

    await other.rounds(10)

    assert other.sent == 2
    assert Guard.BREAKER in other.healing.blocked


# A vendor that refuses whatever we come with


async def test_a_latch_is_not_lifted_by_who_was_refused_itself(start: Callable[..., Any]) -> None:
    """Each of two replicas was refused with a configuration of its own; both poll, and all polls succeed."""
    sections: list[dict[str, Any]] = [{}, {"max_per_hour": 11}]
    first: Bench = await start(sections[0])
    first.simulator.add_fault("status:call_ready:status=401")
    second: Bench = await start(sections[1], like=first)
    for number in first.simulator.numbers[:3]:
        first.simulator.set_did(number, issues=["NO_BOT"])

    await rounds(25, first, second)
    assert first.sent == 2
    again = [await start(section, like=first) for section in sections]
    await rounds(25, second, *again, first)

    assert first.sent == 2
    assert len({each.replica for each in first.attempts()}) == 2
    assert {each.http_status for each in first.attempts()} == {401}
    assert len(first.store.ledger.account(CREDENTIAL, first.clock.time()).refused) == 2
    for bench in (first, second, *again):
        assert bench.healing.blocked == {Guard.ACCOUNT_LATCHED}
