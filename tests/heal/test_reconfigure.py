"""Healing while the configuration changes: what was sent is seen through, what was only decided is dropped."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from exporter.config import Config
from exporter.heal.controller import fingerprint
from exporter.model import Outcome
from exporter.poller import Polling
from exporter.store.records import Status
from tests.support.api import KEY
from tests.support.bench import LONG, QUICK, Bench
from tests.support.clock import settle

if TYPE_CHECKING:
    from collections.abc import Callable


async def reconfigure(bench: Bench, heal: dict[str, Any] | None = None, **account: Any) -> None:  # noqa: ANN401 - its keys
    """Go on with these options of `heal` and of the account."""
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
    prints = {"main": fingerprint(config.accounts[0], KEY, config)}
    await bench.controller.reconfigure(config, clients, bench.poller.watches, prints)


async def next_poll(bench: Bench, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Poll a minute later; something happens while the answer is waited for. What comes of it isn't waited for."""
    await bench.clock.advance(60.0)
    await bench.controller.tick()
    polling = asyncio.create_task(bench.poller.poll(bench.target))
    await settle()
    meanwhile()
    await bench.drive(polling)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens in the store's thread."""
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110 - the store has no event for it
            await asyncio.sleep(0.01)


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
    assert [guard.value for guard, _ in bench.controller.held(bench.target)] == ["hold_off"]
    assert bench.controller.why(bench.target, number).startswith("NO_BOT in 1 of 2 complete polls")
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
    await next_poll(bench)
    await until(lambda: bench.sent == 1)
    await reconfigure(bench, {"mode": "off"}, exclude=[number])
    await bench.clock.advance(25.0)
    await bench.controller.settle()
    [attempt] = bench.attempts()
    assert (attempt.status, attempt.http_status) == (Status.VERIFYING, 200)


async def claimed_and_waiting(bench: Bench) -> None:
    """Get to the point where a heal is claimed and waits for its place in the budget."""
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(1)
    bench.simulator.add_fault("latency:sync:seconds=0.2,count=1")
    await next_poll(bench, lambda: bench.client.budget.pause(1.0))
    await until(lambda: len(bench.attempts()) == 1)
    assert bench.attempts()[0].status is Status.CLAIMED


async def test_a_claim_of_the_old_configuration_is_not_sent_under_the_new_one(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    await claimed_and_waiting(bench)
    await reconfigure(bench, dids=[{"did_number": bench.simulator.numbers[0], "heal": False}])
    await bench.clock.advance(2.0)
    await bench.controller.settle()
    assert bench.sent == 0
    assert bench.attempts()[0].outcome is Outcome.NOT_SENT


async def test_a_claim_on_an_account_that_is_gone_is_not_sent(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    await claimed_and_waiting(bench)
    await bench.controller.reconfigure(Config.model_validate({}), {}, {}, {})
    await bench.clock.advance(2.0)
    await bench.controller.settle()
    assert bench.sent == 0
    assert bench.attempts()[0].outcome is Outcome.NOT_SENT


async def test_a_claim_is_sent_when_the_new_configuration_is_the_same(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    await claimed_and_waiting(bench)
    await reconfigure(bench)
    await bench.clock.advance(2.0)
    await bench.controller.settle()
    assert bench.sent == 1


async def test_a_poll_that_waits_is_not_judged_by_a_configuration_that_it_was_not_made_for(
    start: Callable[..., Any],
) -> None:
    hasty = {"confirm_polls": 1, "confirm_for": "0s"}
    bench: Bench = await start(hasty)
    await bench.rounds(1)
    released = threading.Event()
    bench.controller._thread.submit(released.wait, LONG)  # noqa: SLF001 - as a database that hangs
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    for _ in range(2):  # one is being judged, one waits
        await bench.clock.advance(1.0)
        await bench.drive(asyncio.ensure_future(bench.poller.poll(bench.target)))
    await reconfigure(bench, hasty, exclude=[bench.simulator.numbers[0]])
    released.set()
    await bench.controller.settle()
    assert bench.attempts() == []


async def test_an_account_that_is_gone_is_forgotten_and_its_polls_with_it(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(1)
    state = bench.state
    config = Config.model_validate({"accounts": [{"name": "other", "api_key_env": "KEY"}]})
    await bench.controller.reconfigure(config, {}, {}, {})
    bench.controller.polled(state, state)
    await bench.controller.settle()
    await bench.controller.tick()
    assert bench.controller.held(bench.target) == ()
    assert bench.controller.why(bench.target, bench.simulator.numbers[0]) == ""
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
