"""Asks the API and turns its answers into the fleet that everybody else reads."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exporter.errors import ApiError, RateLimitedError, Reason
from exporter.logs import FailureLog
from exporter.model import READY, Anomaly, Connection, HealState, Target
from exporter.shards import ALL, Shard
from exporter.snapshots import (
    Fleet,
    Healing,
    TargetState,
    Watch,
    annotate,
    expire,
    labeller,
    poll_failed,
    poll_succeeded,
    recalled,
    reviewed,
)
from exporter.vocobase import VocobaseClient, parse_connections, parse_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from exporter.clock import Clock
    from exporter.config import Account
    from exporter.vocobase.client import Reading

ACTIVE: Final = "ACTIVE"
MOST_LOGGED: Final = 20  # changes of state that one poll logs one by one
DISCOVERY_PATIENCE: Final = 60.0  # seconds, beyond the time that the polls before it take
LEAST_TURNS: Final = 10  # requests of others of the key that a poll waits for, however short its interval

log = structlog.stdlib.get_logger(__name__)


class Sink(Protocol):
    """Who shows the fleet. Called in the worker thread, one call at a time."""

    def update(self, fleet: Fleet, target: Target | None = None) -> None:
        """Show this fleet; `target` is the one that changed, `None` any."""

    def refresh_own(self) -> None:
        """Show what else changed."""


class Listener(Protocol):
    """Who remembers states from before the start, and acts on complete polls."""

    async def prepare(self, account: str) -> None:
        """Take in what holds an account's requests back, before one is made."""

    async def rate_limited(self, account: str) -> None:
        """Take in that the API has just asked for a pause of an account's key."""

    async def recall(self, target: Target) -> Mapping[str, tuple[str, float, int]]:
        """Return what was known of a target's DIDs, by number: state, since when, how many changes."""

    def polled(self, before: TargetState, after: TargetState) -> None:
        """Take in a complete poll. Returns at once."""


@dataclass(frozen=True, slots=True)
class Polling:
    """What the configuration means for polls: accounts and their clients by name. Replaced whole."""

    accounts: Mapping[str, Account]
    clients: Mapping[str, VocobaseClient]
    stale_after: float  # seconds
    hash_key: bytes | None = field(default=None, repr=False)  # that numbers are shown with
    heal_mode: str = "off"


class Poller:
    """Polls targets, one poll of each at a time, and keeps the fleet.

    `fleet` is replaced whole. Parsing and rendering run in one worker thread, so that scrapes are answered meanwhile.
    """

    def __init__(self, polling: Polling, sink: Sink, *, clock: Clock, shard: Shard = ALL) -> None:
        """Poll nothing yet. `listener` is set afterwards; without one nothing is remembered or healed.

        Targets that are not the shard's are left to the daemons that they belong to.
        """
        self.fleet = Fleet()
        self.listener: Listener | None = None
        self._sink = sink
        self._clock = clock
        self._shard = shard
        self._set_up(polling)
        self._known: dict[str, tuple[Target, ...]] = {}  # by account, of all shards
        self._tried = False
        self._running: dict[Target, asyncio.Task[None]] = {}
        self._attempted: dict[Target, float] = {}  # monotonic time of the last poll's start
        self._discovered: set[str] = set()
        self._stopped = False
        self._worker = ThreadPoolExecutor(1, "fleet")
        self._turn = asyncio.Lock()
        self._failures = FailureLog(clock)

    def _set_up(self, polling: Polling) -> None:
        self._polling = polling
        self._label = labeller(polling.hash_key)
        self.watches = {name: Watch.of(account, self._label) for name, account in polling.accounts.items()}

    @property
    def tried(self) -> bool:
        """Whether every target has been polled once, whatever came of it. What comes later doesn't change that."""
        if not self._tried:
            self._tried = self._discovered >= self._polling.accounts.keys() and all(
                state.up is not None for state in self.fleet.targets.values()
            )
        return self._tried

    def label(self, number: str) -> str:
        """Return how a number is shown: as it is, or as its keyed hash."""
        return self._label(number)

    def close(self) -> None:
        """Stop the worker thread; what it does now it finishes."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def poll(self, target: Target) -> None:
        """Poll a target; if that is being done already, wait for it instead. Never raises: failures are noted."""
        if self._stopped:
            return
        running = self._running.get(target)
        if running is None:
            running = self._running[target] = asyncio.create_task(self._poll(target), name=f"poll {target.connection}")
            running.add_done_callback(lambda _: self._running.pop(target, None))
        await asyncio.wait({running})
        if not running.cancelled():  # as it is by `stop`, and where its account got another client
            running.result()

    async def refresh(self, targets: Iterable[Target]) -> None:
        """Poll those of the targets whose last poll began longer ago than their interval, whatever came of it."""
        now = self._clock.monotonic()
        due = [
            target
            for target in targets
            if target in self._running
            or now - self._attempted.get(target, float("-inf")) > self.fleet.targets[target].interval
        ]
        await asyncio.gather(*(self.poll(target) for target in due))

    async def stop(self) -> None:
        """Abandon the polls that are running, and begin none any more."""
        self._stopped = True
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def reconfigure(self, polling: Polling) -> None:
        """Go by another configuration from now on; what is known of targets and DIDs that stay, stays.

        Accounts that are gone take their targets with them. Polls that run with a client that is no longer an account's
        are abandoned: their answers may speak of something else.
        """
        async with self._turn:
            abandoned = [task for target, task in self._running.items() if self._is_other(target.account, polling)]
            self._set_up(polling)
            for task in abandoned:  # in the same moment: what begins from now on has the new client
                task.cancel()
            await self._publish(self._reviewed, None)
        await asyncio.gather(*abandoned, return_exceptions=True)
        self._discovered &= polling.accounts.keys()
        for gone in self._known.keys() - polling.accounts.keys():
            del self._known[gone]
        for target in self._attempted.keys() - self.fleet.targets.keys():
            del self._attempted[target]

    def _is_other(self, account: str, polling: Polling) -> bool:
        return polling.clients.get(account) is not self._polling.clients.get(account)

    def _reviewed(self, fleet: Fleet) -> Fleet:
        """Return the fleet as the configuration now has it."""
        targets = {
            target: reviewed(state, self.watches[target.account], self._polling.heal_mode)
            for target, state in fleet.targets.items()
            if target.account in self.watches
        }
        connections = {key: each for key, each in fleet.connections.items() if key.account in self.watches}
        return replace(fleet, targets=targets, connections=connections)

    async def discover(self, account: str) -> bool:
        """Find out which targets an account has. Never raises `ApiError`: what can't be listed is asked without a name.

        Where the list was there before and now isn't, or is empty, the targets stay as they were. Returns whether
        there was a list: where there was none, whatever the reason, other connections may go unseen, so ask again soon.
        """
        client = self._polling.clients.get(account)
        if client is None:
            return True
        if self.listener:
            await self.listener.prepare(account)
        listed = await self._list(account, client)
        configured = self._polling.accounts.get(account)
        if configured is None:
            return False
        known = _targets(configured, listed, self._known.get(account, ()))
        targets = tuple(target for target in known if self._owns(target))
        before = tuple(state.target for state in self.fleet.of_account(account))
        fresh = {target: await self._first_state(target) for target in targets if target not in before}
        async with self._turn:
            if self._polling.accounts.get(account) != configured or self._polling.clients.get(account) is not client:
                return False  # another configuration came meanwhile
            self._known[account] = known
            fleet = self.fleet
            for target in before:
                fleet = fleet if target in targets else fleet.without(target)
            for target in targets:
                fleet = fleet if target in fleet.targets else fleet.with_target(fresh[target])
            if listed is not None:
                others = {key: value for key, value in fleet.connections.items() if key.account != account}
                ours = {Target(account, each.connection_id): each for each in listed}
                ours = {target: each for target, each in ours.items() if self._owns(target)}
                fleet = replace(fleet, connections={**others, **ours})
            await self._publish(lambda _: fleet, None)
        for target in set(before) - set(targets):
            self._attempted.pop(target, None)
        self._discovered.add(account)
        self._say_inactive(configured, listed)
        self._log_targets(before, targets)
        return listed is not None

    def _owns(self, target: Target) -> bool:
        return self._shard.owns(target, together=bool(self._polling.accounts[target.account].dids))

    async def annotate(self, target: Target, healing: Healing, states: Mapping[str, HealState] | None) -> None:
        """Show what is known of healing a target's DIDs; `None` leaves where each of them is in its heal."""
        async with self._turn:
            state = self.fleet.targets.get(target)
            if state and annotate(state, healing, states) != state:
                await self._publish(partial(_annotated, target=target, healing=healing, states=states), target)

    async def plan(self, intervals: Mapping[Target, float]) -> None:
        """Note in how many seconds each target will be polled."""
        async with self._turn:
            await self._publish(lambda fleet: _planned(fleet, intervals), None)

    async def tick(self) -> None:
        """Drop the snapshots that are too old to be shown, and show what changes on its own."""
        await self._expire()
        async with self._turn:
            await asyncio.get_running_loop().run_in_executor(self._worker, self._sink.refresh_own)

    async def _expire(self) -> None:
        old = [state for state in self.fleet.targets.values() if self._expired(state) is not state]
        for state in old:
            target = state.target
            async with self._turn:
                before, after = await self._publish(partial(self._without_old, target=target), target)
            if before.targets.get(target) is not after.targets.get(target):  # else it was polled or left meanwhile
                log.warning(
                    "data is stale, its DID series go away",
                    **_fields(target),
                    stale_after_seconds=self._polling.stale_after,
                )

    def _expired(self, state: TargetState) -> TargetState:
        passed = self._clock.monotonic() - state.snapshot.asked if state.snapshot else 0.0
        return expire(state, self._clock.time(), self._polling.stale_after, passed)

    def _without_old(self, fleet: Fleet, *, target: Target) -> Fleet:
        state = fleet.targets.get(target)
        return fleet.with_target(self._expired(state)) if state else fleet

    async def _first_state(self, target: Target) -> TargetState:
        known = await self.listener.recall(target) if self.listener else {}
        return recalled(target, known, Healing(self._polling.heal_mode))

    async def _list(self, account: str, client: VocobaseClient) -> tuple[Connection, ...] | None:
        what = "listing of connections"
        try:
            body = await client.connections(deadline=self._clock.monotonic() + self._patience(account, client))
            listed = parse_connections(body)
        except ApiError as error:
            self._failures.failed(what, error.reason, str(error), account=account)
            await self._note_rate_limit(account, error)
            return None
        self._failures.worked(what, account=account)
        return listed

    def _patience(self, account: str, client: VocobaseClient) -> float:
        """Return how many seconds a look-up may wait: its turn comes after those of other accounts and of the polls."""
        polls = max((state.interval for state in self.fleet.of_account(account)), default=0.0)
        return DISCOVERY_PATIENCE + polls + client.budget.gap * len(self._polling.accounts)

    def _say_inactive(self, account: Account, listed: tuple[Connection, ...] | None) -> None:
        """Say so when no connection is ACTIVE, since the targets stay all the same."""
        if listed is None or account.connections:
            return
        what = "look-up of ACTIVE connections"
        if any(each.status == ACTIVE for each in listed):
            self._failures.worked(what, account=account.name)
        else:
            told = ", ".join(f"{each.connection_id} is {each.status or 'without status'}" for each in listed)
            self._failures.failed(what, "none", told or "the list is empty", account=account.name)

    def _log_targets(self, before: tuple[Target, ...], after: tuple[Target, ...]) -> None:
        for target in sorted(set(after) - set(before)):
            log.info("target found", **_fields(target))
        for target in sorted(set(before) - set(after)):
            listed = self.fleet.connections.get(target)
            status = listed.status if listed else "not listed"
            log.warning("target gone, it is not polled any more", **_fields(target), status=status)

    async def _poll(self, target: Target) -> None:
        state, client = self.fleet.targets.get(target), self._polling.clients.get(target.account)
        if state is None or client is None:
            return
        started = self._clock.monotonic()
        self._attempted[target] = started
        try:
            patience = max(state.interval, LEAST_TURNS * client.budget.gap)
            reading = await client.sync(target.connection_id, deadline=started + patience)
            heard = self._clock.monotonic()
            async with self._turn:
                before, after = await self._publish(
                    lambda fleet: self._take(fleet, target, reading, started=started, heard=heard), target
                )
        except ApiError as error:
            await self._note_failure(target, error.reason, str(error), started)
            await self._note_rate_limit(target.account, error)
        except Exception as error:  # a bug of ours must not stop the polls
            log.exception("poll failed by a fault of the exporter", **_fields(target))
            await self._note_failure(target, Reason.OTHER, type(error).__name__, started)
        else:
            self._failures.worked("poll", **_fields(target))
            if target in after.targets:
                _log_poll(before.targets[target], after.targets[target])
                if self.listener:
                    self.listener.polled(before.targets[target], after.targets[target])  # a queue: nothing to fail

    def _take(self, fleet: Fleet, target: Target, reading: Reading, *, started: float, heard: float) -> Fleet:
        answer = parse_sync(reading.body)
        if target not in fleet.targets:  # it left while it was being polled
            return fleet
        # A wall clock that was set back since then must not make the data younger than it is.
        at = min(reading.asked_at, self._clock.time() - (self._clock.monotonic() - reading.asked))
        watch = self.watches[target.account]
        return poll_succeeded(
            fleet, target, answer, watch, at=at, duration=heard - started, asked=reading.asked, heard=heard
        )

    async def _publish(self, change: Callable[[Fleet], Fleet], target: Target | None) -> tuple[Fleet, Fleet]:
        """Apply a change to the fleet and render it, in the worker. Hold `_turn` around it."""

        def work() -> Fleet:
            fleet = change(before)
            self._sink.update(fleet, target)
            return fleet

        before = self.fleet
        self.fleet = await asyncio.get_running_loop().run_in_executor(self._worker, work)
        return before, self.fleet

    async def _note_rate_limit(self, account: str, error: ApiError) -> None:
        if isinstance(error, RateLimitedError) and self.listener:
            await self.listener.rate_limited(account)

    async def _note_failure(self, target: Target, reason: Reason, message: str, started: float) -> None:
        duration = self._clock.monotonic() - started
        self._failures.failed("poll", reason, message, **_fields(target))
        async with self._turn:
            state = self.fleet.targets.get(target)
            if state is None:
                return
            self.fleet = self.fleet.with_target(poll_failed(state, reason, duration))  # even where it can't be shown
            try:
                await self._publish(lambda fleet: fleet, target)
            except Exception:
                log.exception("a failed poll can't be shown by a fault of the exporter", **_fields(target))


def _targets(account: Account, listed: tuple[Connection, ...] | None, before: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return the targets of an account after its connections were listed, or couldn't be (`None`)."""
    if account.connections:
        return tuple(Target(account.name, connection_id) for connection_id in account.connections)
    active = tuple(Target(account.name, each.connection_id) for each in listed or () if each.status == ACTIVE)
    return tuple(dict.fromkeys(active)) or before or (Target(account.name),)


def _planned(fleet: Fleet, intervals: Mapping[Target, float]) -> Fleet:
    for target, seconds in intervals.items():
        state = fleet.targets.get(target)
        if state and state.interval != seconds:
            fleet = fleet.with_target(replace(state, interval=seconds))
    return fleet


def _annotated(fleet: Fleet, *, target: Target, healing: Healing, states: Mapping[str, HealState] | None) -> Fleet:
    return fleet.with_target(annotate(fleet.targets[target], healing, states))


def _fields(target: Target) -> dict[str, str]:
    return {"account": target.account, "connection": target.connection}


def _log_poll(before: TargetState, after: TargetState) -> None:
    """Log a complete poll in one line, and the first changes of state in one line each."""
    dids = after.memory
    states = Counter(did.state for did in dids.values())
    changed = [
        (old, did) for did in dids.values() if (old := before.memory.get(did.number)) and old.changes != did.changes
    ]
    anomalies = {kind.value: after.anomalies[kind] - before.anomalies[kind] for kind in Anomaly}
    fields = _fields(after.target)
    log.info(
        "polled",
        **fields,
        seconds=round(after.duration or 0.0, 3),
        dids=len(dids),
        ready=states[READY],
        changed=len(changed),
        came=len(dids.keys() - before.memory.keys()),
        left=len(before.memory.keys() - dids.keys()),
        **{kind: count for kind, count in anomalies.items() if count},
    )
    for old, did in changed[:MOST_LOGGED]:
        issues = ",".join(did.codes) or "none"
        log.info("state changed", **fields, phone_number=did.label, old=old.state, new=did.state, issues=issues)
    if len(changed) > MOST_LOGGED:
        log.info("more states changed", **fields, count=len(changed) - MOST_LOGGED)
