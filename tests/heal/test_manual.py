"""Healing by hand: what changed between the plan, a person's yes and the claim is said, and not sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.heal.manual import ON_PROBATION, Candidate, Manual, Report
from exporter.model import HealState
from exporter.store.records import DidRecord, Status
from tests.support.driving import drive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from exporter.model import Target
    from exporter.snapshots import TargetState
    from tests.support.bench import Bench


class Person:
    """Who has a plan with one broken DID, and says yes to it."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.number: str = bench.simulator.numbers[0]
        config = bench.controller._heal  # noqa: SLF001 - the bench's
        accounts = bench.controller._accounts  # noqa: SLF001 - the bench's
        self.manual = Manual(config, bench.store, accounts, clock=bench.clock)
        self.candidate: Candidate

    async def plan(self) -> None:
        self.bench.simulator.set_did(self.number, issues=["NO_BOT"])
        await self.bench.rounds(1)
        [self.candidate] = self.manual.candidates(self.bench.state)

    async def poll(self, target: Target) -> TargetState:
        await self.bench.poller.poll(target)
        return self.bench.state

    async def says_yes(self, *, force: bool) -> Report:
        return await drive(self.manual.send(self.candidate, self.poll, force=force), self.bench.clock)

    def know(self, state: HealState, **more: Any) -> None:  # noqa: ANN401 - fields of the record
        now = self.bench.clock.time()
        before = self.bench.store.ledger.records(now)[0].get(self.number, DidRecord(self.number))
        after = replace(before, state=state, since=now, **more)
        assert self.bench.store.ledger.move(before, lambda _, __: after, now)


@pytest.fixture
async def person(start: Callable[..., Any]) -> AsyncIterator[Person]:
    person = Person(await start({"mode": "off"}))
    await person.plan()
    yield person
    person.manual._worker.close()  # noqa: SLF001 - its command ends with the process


async def test_what_was_agreed_to_is_sent(person: Person) -> None:
    report = await person.says_yes(force=False)
    assert (report.words, report.open) == ("answered with ready: true; the polls decide", True)
    assert person.bench.sent == 1
    [row] = person.bench.attempts()
    assert (row.status, row.manual) == (Status.VERIFYING, True)


@pytest.mark.parametrize("force", [False, True])
async def test_a_did_that_was_repaired_since_the_prompt_is_not_sent(person: Person, *, force: bool) -> None:
    person.bench.simulator.set_did(person.number, issues=[])
    report = await person.says_yes(force=force)
    assert report.words == "not sent: it changed meanwhile: it has none of the issues that healing is for"
    assert (person.bench.sent, person.bench.attempts()) == (0, [])


async def test_a_did_whose_issues_changed_since_the_prompt_is_not_sent(person: Person) -> None:
    person.bench.simulator.set_did(person.number, issues=["ROUTING_MISSING"])
    report = await person.says_yes(force=True)
    assert report.words == "not sent: it changed meanwhile: its issues are ROUTING_MISSING"
    assert person.bench.sent == 0


async def test_a_did_on_probation_is_not_sent_whatever_is_forced(person: Person) -> None:
    person.know(HealState.PROBATION)
    report = await person.says_yes(force=True)
    assert report.words == f"not sent: {ON_PROBATION}"
    assert person.bench.sent == 0


async def test_where_the_last_poll_fails_nothing_is_sent_whatever_is_forced(person: Person) -> None:
    person.bench.simulator.add_fault("status:sync:status=500")
    report = await person.says_yes(force=True)
    assert report.words == "not sent: the poll right before it failed, so nothing is known of the number now"
    assert person.bench.sent == 0


async def test_a_pause_since_the_prompt_stops_what_is_not_forced(person: Person) -> None:
    person.bench.store.ledger.pause("maintenance", person.bench.clock.time())
    report = await person.says_yes(force=False)
    assert report.words.startswith("not sent: paused: maintenance")
    assert person.bench.sent == 0
    assert (await person.says_yes(force=True)).open
    assert person.bench.sent == 1


async def test_a_backoff_since_the_prompt_stops_what_is_not_forced(person: Person) -> None:
    person.know(HealState.BACKOFF, until=person.bench.clock.time() + 600.0, reason="it did not help")
    report = await person.says_yes(force=False)
    assert report.words.startswith("not sent: it is in backoff for another")
    assert person.bench.sent == 0
    assert (await person.says_yes(force=True)).open
    assert person.bench.sent == 1


async def test_a_poll_that_began_before_the_answer_confirms_nothing(person: Person) -> None:
    await person.says_yes(force=False)
    await person.bench.rounds(1)
    clean = person.bench.state
    assert clean.snapshot is not None
    old = replace(clean, snapshot=replace(clean.snapshot, at=clean.snapshot.at - 3600.0))
    assert [person.manual.verified(old, person.number) for _ in range(3)] == [False, False, False]
    assert [person.manual.verified(clean, person.number) for _ in range(2)] == [False, True]
    assert [row.status for row in person.bench.attempts()] == [Status.ENDED]
