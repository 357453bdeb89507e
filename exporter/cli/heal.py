"""`heal plan` and `heal run`: what healing would do now, and healing by hand. Shares the store with the daemon."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.accounts import account_runtimes
from exporter.cli.ledger import DONE, NO, attach, moment, number_of
from exporter.cli.output import COULD_NOT_TELL, plain, print_table
from exporter.cli.session import Session
from exporter.config import format_duration
from exporter.errors import StartupError
from exporter.heal.controller import release_command
from exporter.heal.manual import Manual

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from exporter.config import Settings
    from exporter.heal.manual import Candidate
    from exporter.model import Target
    from exporter.snapshots import TargetState
    from exporter.store.records import Attempt

VERIFY_EVERY: Final = 5.0  # seconds between the polls that watch a heal by hand


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `heal run` was asked for."""

    numbers: tuple[str, ...]
    all_healable: bool
    yes: bool
    force: bool


class HealSession(Session):
    """A fleet that was just polled, and the store that the daemon shares."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.accounts = account_runtimes(settings, self.clients, self.poller.watches)
        self.manual = Manual(settings.config.heal, self.store, self.accounts, clock=self.clock)

    def _attach(self) -> None:
        """Use the store of the daemon. Raises `NoStoreError` where there is none."""
        attach(self.store)
        accounts = {name: (each.credential, each.fingerprint) for name, each in self.accounts.items()}
        self.store.ledger.adopt(accounts)

    async def poll_again(self, target: Target) -> TargetState:
        """Poll a target once more, and return what is known of it then."""
        await self.poller.poll(target)
        return self.poller.fleet.targets[target]

    async def guards(self) -> list[dict[str, str]]:
        """Return which guards of the fleet hold now, and why, by target."""
        return [
            {"account": target.account, "connection": target.connection, "guard": guard.value, "why": why}
            for target, state in sorted(self.poller.fleet.targets.items())
            if state.up
            for guard, why in await asyncio.to_thread(self.manual.guards, state)
        ]

    async def candidates(self, named: Collection[str] = ()) -> list[Candidate]:
        """Return what is broken, and what is named, of every target that could be polled."""
        return [
            candidate
            for _, state in sorted(self.poller.fleet.targets.items())
            if state.up
            for candidate in await asyncio.to_thread(self.manual.candidates, state, named)
        ]


async def plan(settings: Settings, output: str) -> int:
    """Print what enforce would do now, DID by DID, and why not where not. Sends nothing that writes.

    Returns 0 when nothing is broken that healing is for, 1 when something is, 2 when a target could not be polled.
    """
    async with HealSession(settings) as session:
        candidates, failed = await session.candidates(), session.unknown
        guards = await session.guards()
        unobserved = await asyncio.to_thread(session.manual.unobserved)
    if output == "json":
        dids = [_candidate_as_json(each) for each in candidates]
        rows = [_unobserved_as_json(each) for each in unobserved]
        print(json.dumps({"guards": guards, "dids": dids, "unobserved": rows}, ensure_ascii=False, indent=2))  # noqa: T201
    else:
        table = Table("number", "issues", "heal state", "what enforce would do now")
        for each in candidates:
            table.add_row(
                *map(Text, (each.label, " ".join(each.issues), each.state.value, _plan_words(each, settings)))
            )
        print_table(table)
        for guard in guards:
            print("{account} {connection}: guard {guard}: {why}".format(**guard))  # noqa: T201
        for attempt in unobserved:
            since, command = moment(attempt.claimed_at), release_command(attempt.number)
            print(  # noqa: T201
                f"{attempt.number}: attempt {attempt.id} of {since} stays open: connection {attempt.connection} is not "
                f"polled, or its polls do not list the number. Look at the number, then: {command}"
            )
        if not candidates:
            print("nothing is broken that healing is for")  # noqa: T201
        if settings.config.heal.mode != "enforce":
            print(f"heal.mode is {settings.config.heal.mode}: the daemon sends nothing")  # noqa: T201
    for line in failed:
        print(line, file=sys.stderr)  # noqa: T201
    if failed:
        return COULD_NOT_TELL
    return NO if candidates else DONE


def _plan_words(each: Candidate, settings: Settings) -> str:
    if not each.healable:
        return f"nothing: {each.why}"
    if each.blocked_by:
        return "blocked: " + "; ".join(each.blocked_by)
    heal = settings.config.heal
    return f"heal, once {heal.confirm_polls} complete polls over {format_duration(heal.confirm_for)} confirm it"


def _candidate_as_json(each: Candidate) -> dict[str, Any]:
    return {
        "account": each.target.account,
        "connection": each.target.connection,
        "phone_number": each.label,
        "issues": list(each.issues),
        "state": each.state.value,
        "healable": each.healable,
        "why": each.why,
        "held": list(each.blocked_by),
        "body": each.shown_body,
    }


def _unobserved_as_json(each: Attempt) -> dict[str, Any]:
    return {
        "account": each.account,
        "connection": each.connection,
        "phone_number": each.number,
        "attempt": each.id,
        "claimed_at": each.claimed_at,
        "release": release_command(each.number),
    }


async def run(settings: Settings, wanted: Wanted) -> int:
    """Heal by hand: ask, send one after the other, print the steps, watch what comes of each.

    Returns 0 when all are healed, 1 when not, 2 when a target could not be polled.
    """
    async with HealSession(settings) as session:
        chosen, failed = await _choose(session, wanted), session.unknown
        for line in failed:
            print(line, file=sys.stderr)  # noqa: T201
        ready = [each for each in chosen if _may_send(each, force=wanted.force)]
        if ready and not wanted.yes and not _agreed(ready):
            print("nothing was sent")  # noqa: T201
            return NO
        healed = [await _heal(session, each, force=wanted.force) for each in ready]
    if not chosen:
        print("nothing to heal")  # noqa: T201
    if failed:
        return COULD_NOT_TELL
    return DONE if len(ready) == len(chosen) and all(healed) else NO


async def _choose(session: HealSession, wanted: Wanted) -> list[Candidate]:
    """Return the DIDs that were asked for. Raises `StartupError` for one that isn't there."""
    numbers = {number_of(text) for text in wanted.numbers}
    every = await session.candidates(numbers)
    missing = numbers - {each.number for each in every}
    if missing and not session.unknown:
        raise StartupError(f"not among the monitored DIDs: {', '.join(sorted(missing))}")
    return [each for each in every if each.number in numbers or (wanted.all_healable and each.healable)]


def _may_send(each: Candidate, *, force: bool) -> bool:
    """Say why not where not."""
    reasons = each.unforceable if force else each.blocked_by
    if not each.healable:
        print(f"{each.label}: not healed: {each.why}")  # noqa: T201
    elif reasons:
        print(f"{each.label}: not healed: {'; '.join(reasons)}")  # noqa: T201
    return each.healable and not reasons


def _agreed(ready: Sequence[Candidate]) -> bool:
    for each in ready:
        print(f"{each.label}: {' '.join(each.issues)}: call-ready with {json.dumps(each.shown_body)}")  # noqa: T201
    try:
        return input(f"Send {len(ready)} call-ready request(s) now? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


async def _heal(session: HealSession, each: Candidate, *, force: bool) -> bool:
    """Send one heal, print what the API said, and wait for what the polls say. Returns whether it is healed."""
    try:
        told = await session.manual.send(each, session.poll_again, force=force)
    except asyncio.CancelledError:
        history = f"voicelink-exporter heal history {each.number}"
        rest = f"whether its request had left, and what becomes of it: {history}"
        print(f"{each.label}: interrupted; {rest}", file=sys.stderr)  # noqa: T201
        raise
    print(f"{each.label}: {told.words}")  # noqa: T201
    for step in told.steps:
        detail = f": {step['detail']}" if step.get("detail") else ""
        print(f"  {plain(step.get('step'))}: {plain(step.get('status'))}{plain(detail)}")  # noqa: T201
    return told.open and await _watch(session, each)


async def _watch(session: HealSession, each: Candidate) -> bool:
    """Poll until a heal is verified, at most for `heal.verify_within`, and say so."""
    clock, config = session.clock, session.settings.config
    end = clock.monotonic() + config.heal.verify_within.total_seconds()
    console = Console(stderr=True)
    status = console.status("waiting for the polls to confirm") if console.is_terminal else nullcontext()
    rest = "the attempt stays open until the polls of a daemon decide, or heal release"
    try:
        with status:
            while clock.monotonic() < end:
                await clock.sleep(min(VERIFY_EVERY, config.poll.interval.total_seconds()))
                await session.poller.poll(each.target)
                state = session.poller.fleet.targets[each.target]
                if await asyncio.to_thread(session.manual.verified, state, each.number):
                    print(f"{each.label}: healed")  # noqa: T201
                    return True
    except asyncio.CancelledError:
        print(f"{each.label}: interrupted; {rest}", file=sys.stderr)  # noqa: T201
        raise
    print(f"{each.label}: not repaired yet; {rest}")  # noqa: T201
    return False
