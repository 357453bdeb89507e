"""Healing while the configuration changes: what was sent is seen through, what was only decided is dropped."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from exporter.accounts import account_runtimes
from exporter.config import Config, Settings
from exporter.model import Outcome
from exporter.poller import Polling
from exporter.store.records import Status
from tests.support.api import KEY
from tests.support.bench import QUICK, Bench, Held, until
from tests.support.clock import settle
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from exporter.accounts import AccountRuntime

    Given = tuple[Config, Mapping[str, AccountRuntime]]
    Change = Callable[[Bench], Awaitable[Given]]


async def configured(bench: Bench, heal: dict[str, Any] | None = None, **account: Any) -> Given:  # noqa: ANN401 - its keys
    """Give the polls these options of `heal` and of the account, and return what the controller is to go on with."""
    config = Config.model_validate(
        {
            "api": {"base_url": "http://simulator/api/v2", "timeout": "30s"},
            "accounts": [{"name": "main", "api_key_env": "KEY", **account}],
            "heal": {**QUICK, **(heal or {})},
            "store": {"url": f"sqlite:///{bench.file}"},
        }
    )
    clients, accounts = {"main": bench.client}, {"main": config.accounts[0]}
    await bench.poller.reconfigure(Polling(accounts, clients, 300.0, heal_mode=config.heal.mode))
    return config, account_runtimes(Settings(config, {"main": SecretStr(KEY)}), clients, bench.poller.watches)


async def reconfigure(bench: Bench, heal: dict[str, Any] | None = None, **account: Any) -> None:  # noqa: ANN401 - its keys
    """Go on with these options of `heal` and of the account."""
    await bench.controller.reconfigure(*await configured(bench, heal, **account))


async def test_the_same_again_goes_on_where_it_was(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(1)
    assert bench.heal_state(number) == "pending"
    await reconfigure(bench)
    await bench.rounds(1)
    assert bench.sent == 1


async def test_a_change_holds_off_and_confirms_anew(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(1)
    await reconfigure(bench, {"hold_off_polls": 2, "max_per_hour": 11})
    await bench.rounds(1)
    assert bench.sent == 0
    assert [guard.value for guard, _ in bench.controller.active_guards(bench.target)] == ["hold_off"]
    assert bench.controller.last_decision(bench.target, number).startswith("NO_BOT in 1 of 2 complete polls")
    await bench.rounds(1)
    assert bench.sent == 1


async def test_after_a_change_the_first_heal_is_verified_before_a_second_is_sent(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    numbers = bench.simulator.numbers
    bench.simulator.set_did(numbers[0], issues=["NO_BOT"])
    await bench.rounds(5)
    assert bench.attempts()[0].outcome is Outcome.SUCCEEDED
    await reconfigure(bench, {"max_per_hour": 11})
    for number in numbers[1:4]:
        bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    assert bench.sent == 2
    await bench.rounds(3)
    assert bench.sent == 4


async def test_what_was_sent_is_seen_through_when_healing_is_switched_off(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    assert bench.attempts()[0].status is Status.VERIFYING
    await reconfigure(bench, {"mode": "off"})
    assert bench.healing.mode == "off"
    assert bench.healing.blocked == frozenset()
    assert bench.heal_state(number) == ""
    await bench.controller.tick()
    await bench.rounds(3)
    assert bench.attempts()[0].outcome is Outcome.SUCCEEDED
    assert bench.heal_state(number) == ""
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(4)
    assert bench.sent == 1


async def test_an_answer_that_comes_after_a_change_is_recorded(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault("latency:call_ready:seconds=20")
    await bench.rounds(1)
    await bench.start_poll()
    await until(lambda: bench.sent == 1)
    await reconfigure(bench, {"mode": "off"}, exclude=[number])
    await bench.clock.advance(25.0)
    await bench.controller.settle()
    [attempt] = bench.attempts()
    assert (attempt.status, attempt.http_status) == (Status.VERIFYING, 200)


CHANGED = "the configuration changed since it was decided"


async def nothing(bench: Bench) -> Given:
    return await configured(bench)


async def opt_out(bench: Bench) -> Given:
    return await configured(bench, dids=[{"did_number": bench.simulator.numbers[0], "heal": False}])


async def remove_the_account(_: Bench) -> Given:
    return Config.model_validate({}), {}


CHANGES = [opt_out, remove_the_account]


@pytest.mark.parametrize("change", CHANGES)
async def test_what_waits_for_its_place_is_not_claimed_under_another_configuration(
    start: Callable[..., Any], change: Change
) -> None:
    bench: Bench = await start()
    await bench.wait_for_place()
    await bench.controller.reconfigure(*await change(bench))
    await bench.clock.advance(2.0)
    await bench.controller.settle()
    assert (bench.sent, bench.attempts()) == (0, [])
    assert [line["reason"] for line in bench.said("heal not claimed")] == [CHANGED]


async def test_what_waits_for_its_place_is_sent_when_the_new_configuration_is_the_same(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start()
    await bench.wait_for_place()
    await reconfigure(bench)
    await bench.clock.advance(2.0)
    await bench.controller.settle()
    assert bench.sent == 1


async def change_after_the_claim(bench: Bench, monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Let a heal be claimed, and the configuration change before it leaves."""
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(1)
    claim = Held(bench.store.ledger.claim)
    monkeypatch.setattr(bench.store.ledger, "claim", claim)
    await bench.start_poll()
    await claim.reached()
    assert bench.attempts()[0].status is Status.CLAIMED
    changing = asyncio.create_task(bench.controller.reconfigure(*await change(bench)))
    await settle()
    claim.go_on.set()
    await changing
    await bench.controller.settle()


@pytest.mark.parametrize("change", CHANGES)
async def test_a_claim_of_the_old_configuration_is_not_sent_under_the_new_one(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    bench: Bench = await start()
    await change_after_the_claim(bench, monkeypatch, change)
    assert bench.sent == 0
    [attempt] = bench.attempts()
    assert (attempt.outcome, attempt.reason, attempt.sent_at) == (Outcome.NOT_SENT, CHANGED, None)


async def test_a_claim_is_sent_when_the_new_configuration_is_the_same(
    start: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench: Bench = await start()
    await change_after_the_claim(bench, monkeypatch, nothing)
    assert bench.sent == 1


@pytest.mark.parametrize("breaks_at", [0, 1])
async def test_a_poll_that_waits_is_not_judged_by_a_configuration_that_it_was_not_made_for(
    start: Callable[..., Any], breaks_at: int
) -> None:
    hasty = {"confirm_polls": 1, "confirm_for": "0s"}
    bench: Bench = await start(hasty)
    await bench.rounds(1)
    released = threading.Event()
    bench.controller._worker.executor.submit(released.wait, PATIENCE)  # noqa: SLF001 - as a database that hangs
    for poll in range(2):  # one is being judged, one waits
        if poll == breaks_at:
            bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
        await bench.clock.advance(1.0)
        await bench.drive(asyncio.ensure_future(bench.poller.poll(bench.target)))
    given = await configured(bench, hasty, exclude=[bench.simulator.numbers[0]])
    changing = asyncio.create_task(bench.controller.reconfigure(*given))
    await settle()
    released.set()
    await changing
    await bench.controller.settle()
    assert bench.attempts() == []


async def test_an_account_that_is_gone_is_forgotten_and_its_polls_with_it(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(1)
    state = bench.state
    config = Config.model_validate({"accounts": [{"name": "other", "api_key_env": "KEY"}]})
    await bench.controller.reconfigure(config, {})
    bench.controller.polled(state, state)
    await bench.controller.settle()
    await bench.controller.tick()
    assert bench.controller.active_guards(bench.target) == ()
    assert bench.controller.last_decision(bench.target, bench.simulator.numbers[0]) == ""
    assert (bench.sent, bench.said("healing broke on a poll")) == (0, [])


async def test_attempts_count_within_the_new_window(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"max_attempts": 1, "attempts_window": "5m", "backoff": {"initial": "1m", "max": "1m"}})
    number = bench.simulator.numbers[0]
    bench.simulator.add_fault("status:call_ready:status=409,count=1")
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    now = bench.clock.time()
    assert len(bench.store.ledger.records(now)[1][number].charged) == 1
    await bench.rounds(6)
    now = bench.clock.time()
    assert number not in bench.store.ledger.records(now)[1]
    await reconfigure(bench, {"max_attempts": 1, "attempts_window": "1h"})
    await bench.controller.tick()
    assert len(bench.store.ledger.records(now)[1][number].charged) == 1
