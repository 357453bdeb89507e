"""`heal …`: what healing would do, what it did, and a person's own word on it. Shares the store with the daemon."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.accounts import account_runtimes
from exporter.cli.output import COULD_NOT_TELL, plain, print_table
from exporter.cli.session import Session
from exporter.clock import SystemClock
from exporter.config import format_duration, parse_duration
from exporter.errors import NoStoreError, StartupError
from exporter.heal.controller import release_command
from exporter.heal.manual import Manual
from exporter.model import Outcome
from exporter.numbers import canonical
from exporter.store import Store
from exporter.store.records import Wanted as AttemptFilter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Self

    from exporter.clock import Clock
    from exporter.config import Settings
    from exporter.heal.manual import Candidate
    from exporter.model import Target
    from exporter.snapshots import TargetState
    from exporter.store.records import Attempt

DONE, NO = 0, 1
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
        self.store = store_of(settings, self.clock)
        self.accounts = account_runtimes(settings, self.clients, self.poller.watches)
        self.manual = Manual(settings.config.heal, self.store, self.accounts, clock=self.clock)

    async def __aenter__(self) -> Self:
        """Attach to the store, then poll."""
        await asyncio.to_thread(attach, self.store)
        accounts = {name: (each.credential, each.fingerprint) for name, each in self.accounts.items()}
        await asyncio.to_thread(self.store.ledger.adopt, accounts)
        return await super().__aenter__()

    async def _close(self) -> None:
        self.store.close()
        await super()._close()

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
            since, command = _moment(attempt.claimed_at), release_command(attempt.number)
            print(  # noqa: T201
                f"{attempt.number}: attempt {attempt.id} of {since} stays open: connection {attempt.connection} is not "
                f"polled. Look at the number, then: {command}"
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
    numbers = {_number(text) for text in wanted.numbers}
    every = await session.candidates(numbers)
    missing = numbers - {each.number for each in every}
    if missing and not session.unknown:
        raise StartupError(f"not among the monitored DIDs: {', '.join(sorted(missing))}")
    return [each for each in every if each.number in numbers or (wanted.all_healable and each.healable)]


def _number(text: str) -> str:
    number = canonical(text)
    if number is None:
        raise StartupError(f'{text!r:.60} is not a phone number; write it with its country code, as "+918011223344"')
    return number


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


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows `heal history` was asked for; `since` is a duration."""

    number: str | None
    since: str | None
    outcome: str | None
    limit: int


def history(settings: Settings, asked: Filter, output: str) -> int:
    """Print the ledger, newest first, and as a table also what people did by hand. Returns 0."""
    number = _number(asked.number) if asked.number else None
    since = _since(asked.since) if asked.since else None
    outcome = Outcome(asked.outcome) if asked.outcome else None
    with _attached(settings) as store:
        _, attempts = store.ledger.page(AttemptFilter(number, outcome=outcome, since=since), 0, asked.limit)
        by_hand = store.actions(number, since or 0.0, asked.limit)
    if output == "json":
        print(json.dumps([_attempt_as_json(each) for each in attempts], ensure_ascii=False, indent=2))  # noqa: T201
        return DONE
    table = Table("attempt", "number", "issues", "claimed", "sent", "HTTP", "status", "outcome", "why")
    for attempt in attempts:
        cells = (
            *(str(attempt.id), attempt.number, " ".join(attempt.issues)),
            *(_moment(attempt.claimed_at), _moment(attempt.sent_at), str(attempt.http_status or "")),
            *(attempt.status.value, attempt.outcome.value if attempt.outcome else "", attempt.reason),
        )
        table.add_row(*(Text(plain(cell)) for cell in cells))
    print_table(table)
    if by_hand and not outcome:
        table = Table("at", "by hand", "number", "why")
        for each in by_hand:
            said = (_moment(each.at), each.action.replace("_", " "), each.number or "", each.reason)
            table.add_row(*(Text(plain(cell)) for cell in said))
        print_table(table)
    return DONE


def _since(text: str) -> float:
    try:
        return SystemClock().time() - parse_duration(text).total_seconds()
    except ValueError as error:
        raise StartupError(f"--since: {error}") from None


def release(settings: Settings, number: str, reason: str) -> int:
    """Lift a DID's quarantine or backoff. Returns 0 when there was something to lift, else 1."""
    which = _number(number)
    with _attached(settings) as store:
        done = store.ledger.release(which, reason, SystemClock().time())
    print("; ".join(done) if done else "there is nothing to lift")  # noqa: T201
    return DONE if done else NO


def pause(settings: Settings, reason: str) -> int:
    """Stop all automatic healing. Returns 0."""
    with _attached(settings) as store:
        store.ledger.pause(reason, SystemClock().time())
    print("healing is paused on every replica that shares this store; start again with heal resume")  # noqa: T201
    return DONE


def resume(settings: Settings, reason: str, *, new_store: bool) -> int:
    """Start automatic healing again; with `new_store` on the store that is there now, or a new one. Returns 0."""
    if new_store:
        with closing(store_of(settings)) as store:
            made = store.begin_anew(reason)
            _say_store(store)
            store.ledger.resume(SystemClock().time(), reason)
        what = "a new store was made" if made else "the store that is there now is to be used"
        print(f"{what}: a daemon that had opened another one goes on with it within 10 seconds, as after a start")  # noqa: T201
        print("what only that other one knew, as pauses, quarantines and counts, is gone")  # noqa: T201
        return DONE
    with _attached(settings) as store:
        store.ledger.resume(SystemClock().time(), reason)
    print("healing goes on; the budgets count what was sent before")  # noqa: T201
    return DONE


def store_of(settings: Settings, clock: Clock | None = None) -> Store:
    """Return the store that the configuration names, unopened; `clock` is for commands that decide by its times."""
    return Store(settings.config, clock=clock, problem=settings.store_problem)


def attach(store: Store) -> None:
    """Use the store of a daemon and say which one it is. Raises `NoStoreError` where there is none: none is made."""
    try:
        store.attach()
    except NoStoreError as error:
        raise NoStoreError(
            f"{error}; a daemon makes it when it starts. If the daemon's is elsewhere, name it: with --config.file, "
            "with store.url in the configuration, or with VOICELINK_STORE_URL. If it was here and a daemon runs, it is "
            "lost, with every pause and quarantine in it: bring it back, or say heal resume --new-store"
        ) from None
    _say_store(store)


def _say_store(store: Store) -> None:
    print(f"store: {store.name}", file=sys.stderr)  # noqa: T201


@contextmanager
def _attached(settings: Settings) -> Iterator[Store]:
    with closing(store_of(settings)) as store:
        attach(store)
        yield store


def _moment(at: float | None) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at else ""


def _attempt_as_json(attempt: Attempt) -> dict[str, Any]:
    shown = {key: value for key, value in asdict(attempt).items() if key != "token"}
    return {**shown, "status": attempt.status.value, "outcome": attempt.outcome and attempt.outcome.value}
