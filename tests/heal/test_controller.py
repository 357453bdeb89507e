"""The controller with the real poller, client and store against the simulator, in process."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.config import Config
from exporter.model import Guard, HealState, Outcome
from exporter.store import Store
from exporter.store.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable


from tests.support.api import CREDENTIAL
from tests.support.bench import CALL_READY, Bench
from tests.support.patience import PATIENCE


async def test_a_broken_did_is_healed_and_nobody_else_is_touched(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[3]
    bench.simulator.set_did(number, issues=["NO_BOT", "ROUTING_MISSING"])

    states = []
    for _ in range(7):
        await bench.rounds(1)
        states.append(bench.heal_state(number))

    assert states == ["pending", "in_flight", "verifying", "verifying", "probation", "probation", "probation"]
    assert bench.simulator.truth()[number].ready
    assert (bench.sent, bench.simulator.writes.heals) == (1, 1)
    assert bench.simulator.requests(CALL_READY)[0].body == {
        "did_id": bench.state.memory[number].entry.did_id,
        "connection_id": bench.target.connection_id,
    }
    assert bench.healing.attempts[Outcome.SUCCEEDED] == 1
    assert bench.healing.blocked == frozenset()
    assert b"voicelink_heal_duration_seconds_count" in bench.telemetry.render()[0]
    [attempt] = bench.attempts()
    assert attempt.http_status == 200
    assert {step["step"] for step in attempt.steps} >= {"ensure_bot", "ensure_routing"}
    assert attempt.readiness_before is not None


async def test_an_answer_that_is_not_ready_is_a_success_when_the_issue_is_gone(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT", "NO_VOCOBASE_AGENT"])

    await bench.rounds(6)

    [attempt] = bench.attempts()
    assert (attempt.outcome, bench.sent) == (Outcome.SUCCEEDED, 1)
    assert bench.said("heal answered")[0]["reason"] == "answered with ready: false; the polls decide"
    assert not bench.simulator.truth()[number].ready


async def test_an_answer_that_is_ready_is_a_failure_when_the_issue_is_still_there(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    bench.simulator.set_did(number, issues=["NO_BOT"])  # what was mended did not last until the next poll

    while not bench.attempts()[0].outcome:
        await bench.rounds(1)
    await bench.rounds(1)

    [attempt] = bench.attempts()
    assert (attempt.outcome, bench.sent) == (Outcome.FAILED, 1)
    assert bench.said("heal answered")[0]["reason"] == "answered with ready: true; the polls decide"
    assert bench.heal_state(number) == "backoff"


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("status:call_ready:status=401,count=1", "401"),
        ("status:call_ready:status=302,location=http://x/,count=1", "302"),
    ],
)
async def test_401_and_redirects_latch_until_something_changed_and_a_poll_succeeded(
    start: Callable[..., Any], fault: str, outcome: str
) -> None:
    bench: Bench = await start()
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    bench.simulator.add_fault(fault)

    await bench.rounds(10)

    assert bench.sent == 1
    assert bench.healing.blocked == {Guard.ACCOUNT_LATCHED}
    assert outcome in (bench.store.ledger.account(CREDENTIAL, bench.clock.time()).latched or "")
    again: Bench = await start(like=bench)
    await again.rounds(5)
    assert again.sent == 1  # a restart alone changes nothing
    changed: Bench = await start({"max_per_hour": 11}, like=bench)
    await changed.controller.tick()
    assert bench.store.ledger.account(CREDENTIAL, bench.clock.time()).latched
    await changed.rounds(6)
    assert changed.sent == 2
    assert bench.simulator.truth()[bench.simulator.numbers[0]].ready


async def test_a_second_403_within_ten_minutes_latches(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    for number in bench.simulator.numbers[:2]:
        bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault("status:call_ready:status=403")

    await bench.rounds(12)

    assert bench.sent == 2
    assert Guard.ACCOUNT_LATCHED in bench.healing.blocked


async def test_429_pauses_the_key_for_polls_and_other_replicas_too(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    other: Bench = await start(like=bench)
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault("status:call_ready:status=429,retry_after=200,count=1")

    await bench.rounds(2)

    assert bench.sent == 1
    assert bench.client.budget.paused_for == pytest.approx(200, abs=1)
    await other.controller.tick()
    assert other.client.budget.paused_for == pytest.approx(200, abs=1)
    [attempt] = bench.attempts()
    assert (attempt.outcome, attempt.charged) == (Outcome.REJECTED, False)
    await bench.clock.advance(200)
    await bench.rounds(7)
    assert bench.simulator.truth()[number].ready


@pytest.mark.parametrize("then", ["then=status,status=500", "then=hang"])
async def test_a_request_that_was_carried_out_and_never_answered_is_not_sent_again(
    start: Callable[..., Any], then: str
) -> None:
    bench: Bench = await start(patience="300ms")
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault(f"act_then_fail:call_ready:{then}")

    await bench.rounds(2)
    assert [each.status for each in bench.attempts()] == [Status.AMBIGUOUS]
    await bench.rounds(6)

    assert (bench.sent, bench.simulator.writes.heals) == (1, 1)
    assert [each.outcome for each in bench.attempts()] == [Outcome.SUCCEEDED]
    assert bench.heal_state(number) == "probation"


async def test_an_ambiguous_request_that_did_not_help_is_tried_again_after_backoff_and_then_quarantined(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start({"max_attempts": 2, "breaker": {"failures": 9}})
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    bench.simulator.add_fault("status:call_ready:status=500")

    await bench.rounds(30)

    assert bench.sent == 2
    assert bench.heal_state(number) == "quarantined"
    assert bench.healing.quarantined == 1
    assert bench.healing.attempts[Outcome.AMBIGUOUS] == 2


async def test_when_most_of_a_fleet_breaks_at_once_nothing_is_sent_and_the_log_says_so_once(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start(dids=200)
    await bench.rounds(3)
    for number in bench.simulator.numbers[:160]:
        bench.simulator.set_did(number, issues=["NO_BOT", "ROUTING_MISSING"])

    await bench.rounds(20)

    assert bench.sent == 0
    assert bench.healing.blocked == {Guard.MAX_UNHEALTHY}
    [line] = bench.said("healing is blocked")
    assert (line["waiting"], line["guards"]) == (160, "max_unhealthy")
    assert "160 of 200 DIDs are unhealthy" in line["why"]


async def test_observe_mode_says_what_it_would_send_and_sends_nothing(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"mode": "observe"})
    for number in bench.simulator.numbers[:3]:
        bench.simulator.set_did(number, issues=["NO_BOT"])

    await bench.rounds(59)

    assert (bench.sent, bench.healing.would) == (0, 3)  # neither ramp nor max_in_flight: all three in one poll
    assert bench.said("heal not claimed") == []  # nothing is even tried
    assert {each.outcome for each in bench.attempts()} == {Outcome.WOULD_SEND}
    await bench.rounds(6)
    assert bench.healing.would == 6


async def test_paused_healing_sends_nothing_and_resuming_releases_no_burst(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    for number in bench.simulator.numbers[:3]:
        bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(1)
    bench.store.ledger.pause("maintenance", bench.clock.time())

    await bench.rounds(10)
    assert bench.sent == 0
    assert bench.healing.blocked == {Guard.PAUSED}

    bench.store.ledger.resume(bench.clock.time())
    await bench.rounds(1)
    assert bench.sent == 1
    assert bench.healing.blocked == {Guard.MAX_IN_FLIGHT}
    await bench.rounds(10)
    assert bench.sent == 3


@pytest.mark.parametrize("lost", ["removed", "damaged"])
async def test_a_lost_store_stops_healing_and_nothing_else(start: Callable[..., Any], lost: str) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    await bench.rounds(2)
    kept = bench.file.read_bytes()
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(1)
    for each in bench.file.parent.iterdir():
        each.unlink()
    if lost == "damaged":
        bench.file.write_bytes(b"no database" * 500)
    else:
        bench.file.mkdir()

    await bench.rounds(5)

    assert bench.sent == 0
    assert bench.healing.blocked == {Guard.STORE}
    assert b"voicelink_store_up 0.0" in bench.telemetry.render()[0]
    assert (bench.state.up, bench.state.memory[number].state) == (True, "NO_BOT")
    assert len(bench.said("store failed")) == 1
    bench.file.unlink() if lost == "damaged" else bench.file.rmdir()
    bench.file.write_bytes(kept)
    await bench.rounds(6)
    assert b"voicelink_store_up 1.0" in bench.telemetry.render()[0]
    assert bench.sent == 1
    assert bench.simulator.truth()[number].ready


async def test_a_ledger_that_comes_back_holds_off_first(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"hold_off_polls": 3})
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(2)
    bench.file.rename(bench.file.with_suffix(".moved"))
    await bench.rounds(3)
    assert bench.healing.blocked == {Guard.STORE}
    bench.file.with_suffix(".moved").rename(bench.file)
    await bench.rounds(2)
    assert bench.sent == 0
    assert bench.healing.blocked == {Guard.HOLD_OFF}
    await bench.rounds(3)
    assert bench.sent == 1


async def test_polls_that_waited_while_a_ledger_came_back_do_not_count_towards_the_hold_off(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start({"hold_off_polls": 3})
    await bench.rounds(3)
    bench.file.rename(bench.file.with_suffix(".moved"))
    await bench.rounds(1)
    assert bench.healing.blocked == {Guard.STORE}
    bench.file.with_suffix(".moved").rename(bench.file)
    released = threading.Event()
    bench.controller._worker.executor.submit(released.wait, PATIENCE)  # noqa: SLF001 - the store takes long to open
    for _ in range(3):
        await bench.drive(asyncio.ensure_future(bench.poller.poll(bench.target)))
        await bench.clock.advance(1.0)
    released.set()
    await bench.controller.settle()
    await bench.controller.tick()
    assert (Guard.HOLD_OFF, "0 of 3 complete polls since the start") in bench.controller.active_guards(bench.target)


async def test_a_ledger_that_a_person_begins_anew_holds_off_first(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"hold_off_polls": 3})
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(2)
    for each in bench.file.parent.iterdir():
        each.unlink()
    await bench.rounds(5)
    assert bench.sent == 0
    assert bench.healing.blocked == {Guard.STORE}
    ((_, why),) = bench.controller.active_guards(bench.target)
    assert "is gone" in why
    assert "heal resume --new-store" in why

    person = Store(Config.model_validate({"store": {"url": f"sqlite:///{bench.file}"}}), clock=bench.clock)
    assert person.begin_anew("the disk was exchanged") is True
    await bench.rounds(2)
    assert bench.sent == 0
    assert bench.healing.blocked == {Guard.HOLD_OFF}
    assert "another store is used from now on" in bench.log.getvalue()
    await bench.rounds(3)
    assert bench.sent == 1
    for number in bench.simulator.numbers:  # what is known of those that did not change is there for the next start
        assert [each.new for each in person.history.of(number)][-1:] in (["READY"], ["NO_BOT"])
    person.close()


async def test_a_request_that_is_under_way_at_the_end_is_ambiguous(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(1)
    bench.simulator.add_fault("hang:call_ready:seconds=3000")
    await bench.clock.advance(60)
    await bench.drive(asyncio.ensure_future(bench.poller.poll(bench.target)))
    async with asyncio.timeout(PATIENCE):
        while not bench.sent:  # noqa: ASYNC110 - the simulator has no event to wait for
            await asyncio.sleep(0.005)

    await bench.controller.stop()

    [attempt] = bench.attempts()
    assert (attempt.status, attempt.charged) == (Status.AMBIGUOUS, True)


async def test_time_that_a_clock_jumped_over_is_not_time_in_which_anything_was_seen(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"confirm_for": "10m"})
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(3)
    bench.clock._start += 3600  # noqa: SLF001 - as when somebody sets the machine's clock
    await bench.rounds(3)

    assert bench.sent == 0
    assert bench.heal_state(bench.simulator.numbers[0]) == HealState.PENDING


async def test_what_was_sent_is_seen_through_after_healing_was_switched_off(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    assert [attempt.status for attempt in bench.attempts()] == [Status.VERIFYING]

    switched_off: Bench = await start({"mode": "off"}, like=bench)
    bench.simulator.set_did(bench.simulator.numbers[1], issues=["NO_BOT"])
    await switched_off.rounds(5)

    assert [attempt.outcome for attempt in bench.attempts()] == [Outcome.SUCCEEDED]
    assert bench.sent == 1
    assert switched_off.heal_state(number) == ""
    assert switched_off.healing.blocked == frozenset()


async def test_a_number_that_two_accounts_see_is_judged_by_what_is_known_of_it(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(6)
    before, now = bench.store.ledger.records(bench.clock.time())[0][number], bench.clock.time()
    bench.store.ledger.move(before, lambda record, _: replace(record, state=HealState.IDLE, account="other"), now)

    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(6)

    assert bench.sent == 2
    assert [attempt.outcome for attempt in bench.attempts()] == [Outcome.SUCCEEDED] * 2


async def test_a_poll_that_began_before_a_did_was_verified_is_no_relapse(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(2)
    old = bench.state.snapshot
    assert old is not None
    await bench.rounds(3)
    assert bench.heal_state(number) == "probation"

    late = replace(bench.state, snapshot=replace(old, at=bench.clock.time()), polls=bench.state.polls + 1)
    bench.controller.polled(bench.state, late)
    await bench.controller.settle()

    assert bench.heal_state(number) == "probation"
    assert bench.healing.relapses == 0


async def test_a_store_that_has_just_failed_does_not_hold_up_one_target_after_the_other(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start()
    bench.file.rename(bench.file.with_suffix(".moved"))
    await bench.controller.tick()
    assert len(bench.said("store failed")) == 1
    bench.file.with_suffix(".moved").rename(bench.file)  # it would answer again, but is not asked so soon
    assert await bench.controller.recall(bench.target) == {}
    assert not bench.said("store works again")
    await bench.clock.advance(10)
    await bench.controller.recall(bench.target)
    assert len(bench.said("store works again")) == 1


async def test_after_a_store_that_hung_what_is_true_now_is_judged_and_every_change_is_kept(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    await bench.rounds(2)
    released = threading.Event()
    bench.controller._worker.executor.submit(released.wait, PATIENCE)  # noqa: SLF001 - as a database that hangs
    for issues in (["NO_BOT"], [], ["NO_BOT"], [], []):
        bench.simulator.set_did(number, issues=issues)
        await bench.clock.advance(60.0)
        await bench.drive(asyncio.ensure_future(bench.poller.poll(bench.target)))
    released.set()
    await bench.controller.settle()
    assert [each.new for each in bench.store.history.of(number)] == ["READY", "NO_BOT", "READY", "NO_BOT", "READY"]
    assert len(bench.said("judging polls in time failed")) == 1
    assert bench.said("judging polls in time works again")[0]["failures"] == 2
    assert bench.sent == 0


async def test_polls_that_find_no_room_in_the_queue_go_by_unseen(start: Callable[..., Any]) -> None:
    bench: Bench = await start()
    number = bench.simulator.numbers[0]
    await bench.rounds(2)
    for _ in range(2000):
        bench.controller.polled(bench.state, bench.state)
    await bench.controller.settle()
    bench.simulator.set_did(number, issues=["NO_BOT"])
    await bench.rounds(6)
    assert [attempt.outcome for attempt in bench.attempts()] == [Outcome.SUCCEEDED]


async def test_a_poll_that_is_judged_twice_confirms_once(start: Callable[..., Any]) -> None:
    bench: Bench = await start({"confirm_polls": 3})
    await bench.rounds(2)
    bench.simulator.set_did(bench.simulator.numbers[0], issues=["NO_BOT"])
    await bench.rounds(1)
    for _ in range(5):
        bench.controller.polled(bench.state, bench.state)
    await bench.controller.settle()
    await bench.rounds(1)
    assert bench.sent == 0
    await bench.rounds(2)
    assert bench.sent == 1


async def test_a_number_that_was_open_in_a_lost_store_is_left_alone_for_as_long_as_its_end_would_have_taken(
    start: Callable[..., Any],
) -> None:
    bench: Bench = await start({"verify_within": "10m", "backoff": {"initial": "5m"}})
    one, two = bench.simulator.numbers[:2]
    bench.simulator.set_did(one, issues=["NO_BOT"])
    bench.simulator.add_fault("status:call_ready:status=504,count=1")
    await bench.rounds(2)
    assert (bench.sent, [each.status for each in bench.attempts()]) == (1, [Status.AMBIGUOUS])
    for each in bench.file.parent.iterdir():
        each.unlink()
    await bench.rounds(1)
    person = Store(Config.model_validate({"store": {"url": f"sqlite:///{bench.file}"}}), clock=bench.clock)
    person.begin_anew("the disk was exchanged")
    person.close()
    bench.simulator.set_did(two, issues=["NO_BOT"])
    await bench.rounds(9)
    assert (bench.sent, bench.simulator.truth()[two].ready) == (2, True)
    assert "an attempt on it was open in the store that was lost" in bench.controller.last_decision(bench.target, one)
    await bench.rounds(8)
    assert bench.sent == 3
