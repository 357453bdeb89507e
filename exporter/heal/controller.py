"""Joins policy, ledger and executor: after each complete poll it decides, claims, sends and records.

Polls arrive in a queue and are judged one after the other, off the polls' own path. Database calls run in one thread of
their own, so a slow database delays healing and nothing else. When the database fails, healing stops and monitoring
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import structlog

from exporter.config.schema import masked_url
from exporter.errors import StoreError
from exporter.heal import policy
from exporter.heal.assess import Assessment, Followed, assess, restarted
from exporter.heal.executor import execute
from exporter.heal.policy import Decision, Move, Resolve, Send, TargetView
from exporter.heal.watched import Seen, Setup, open_here, setups_of, unhealthy_of
from exporter.logs import FailureLog
from exporter.model import MISSING, Guard, HealState, Outcome, Target
from exporter.snapshots import Healing, TargetState, Watch
from exporter.store.records import (
    HOUR,
    AccountRecord,
    Attempt,
    Counts,
    DidRecord,
    Look,
    Refused,
    Result,
    Status,
    Transition,
    Wish,
)
from exporter.threads import DaemonThread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from exporter.clock import Clock
    from exporter.config import Account, Config
    from exporter.model import Snapshot
    from exporter.store import Store
    from exporter.store.history import Known
    from exporter.vocobase import VocobaseClient

ANSWER_WITHIN: Final = 15.0  # seconds for one database call; later it counts as down
DRAIN: Final = 3.0  # seconds that requests under way have at the end
PRUNE_EVERY: Final = 3600.0
MOST_WAITING: Final = 1000  # polls that wait to be judged while the database hangs; later ones go by unseen
TRY_AGAIN: Final = 10.0  # seconds after a failure before a start asks the store again
STORE_DOWN: Final = "the store does not answer, and nothing is sent that can't be recorded; the log says why"
MOST_UNWRITTEN: Final = 100_000  # changes of state kept while the database is down
T = TypeVar("T")

log = structlog.stdlib.get_logger(__name__)


class Annotator(Protocol):
    """Who shows where DIDs are in their heal."""

    async def annotate(self, target: Target, healing: Healing, states: Mapping[str, HealState] | None) -> None:
        """Show it; `None` leaves the DIDs' states as they are."""


class HealObserver(Protocol):
    """Who counts."""

    def healed(self, target: Target, seconds: float) -> None:
        """Note that a DID was mended so many seconds after it was first seen broken."""

    def store_answers(self, *, up: bool) -> None:
        """Note whether the store answers."""


class Controller:
    """Heals, within what is configured. `run` consumes the polls that `polled` takes in."""

    def __init__(
        self,
        config: Config,
        store: Store,
        clients: Mapping[str, VocobaseClient],
        watches: Mapping[str, Watch],
        *,
        annotator: Annotator,
        observer: HealObserver,
        fingerprints: Mapping[str, str],
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self._heal = config.heal
        self._retention = config.store.retention.total_seconds()
        self._setups = setups_of(config, clients, watches, fingerprints)
        self._store = store
        self._annotator = annotator
        self._observer = observer
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._seen: dict[Target, Seen] = {}
        self._queue: asyncio.Queue[tuple[TargetState, TargetState, float]] = asyncio.Queue(MOST_WAITING)
        self._newest: dict[Target, int] = {}  # by target, which poll was taken in last
        self._thread = DaemonThread("store")
        self._running: dict[int, asyncio.Task[None]] = {}
        self._unrecorded: dict[int, tuple[Attempt, Result]] = {}
        self._unresolved: set[str] = set()  # accounts with open attempts, as of the last tick
        self._failures = FailureLog(clock)
        self._up = False
        self._failed_at = float("-inf")
        self._started = dict.fromkeys(self._setups, clock.time())  # when healing of each account began
        self._pruned = clock.monotonic()

    # What others call

    def held(self, target: Target) -> tuple[policy.Held, ...]:
        """Return which guards hold a target's heals back, each with its reason, as of the last look."""
        return self._seen[target].held if target in self._seen else ()

    def why(self, target: Target, number: str) -> str:
        """Return what the last judged poll decided about a DID, and why; empty where there was nothing to decide."""
        return self._seen[target].whys.get(number, "") if target in self._seen else ""

    async def reconfigure(
        self,
        config: Config,
        clients: Mapping[str, VocobaseClient],
        watches: Mapping[str, Watch],
        fingerprints: Mapping[str, str],
    ) -> None:
        """Go by another configuration from now on. What was sent goes on, and is seen through by the polls.

        What was decided and not sent is dropped. An account for which something changed starts as after a restart: it
        holds off, and its first heal has to be verified before the second is sent.
        """
        before, after = self._setups, setups_of(config, clients, watches, fingerprints)
        same = {account for account, setup in after.items() if before.get(account) == setup}
        self._heal, self._retention = config.heal, config.store.retention.total_seconds()
        self._setups = {account: before[account] if account in same else setup for account, setup in after.items()}
        self._started |= dict.fromkeys(after.keys() - same, self._clock.time())
        self._thread.submit(self._store.count_within, config.heal.attempts_window.total_seconds())
        for _ in range(self._queue.qsize()):  # polls that were seen by the old configuration go by unseen
            poll = self._queue.get_nowait()
            self._queue.task_done()
            if poll[1].target.account in same:
                self._queue.put_nowait(poll)
        for target in [each for each in self._newest if each.account not in after]:
            del self._newest[target]
            self._seen.pop(target, None)
        began_anew = [(target, seen) for target, seen in self._seen.items() if target.account not in same]
        for _, seen in began_anew:
            seen.begin_anew(config.heal.mode)
        for target, seen in began_anew:
            await self._show(target, seen, (), states=None if config.heal.mode != "off" else {})

    async def recall(self, target: Target) -> Known:
        """Return what was known of a target's DIDs before the start; nothing where the store doesn't answer.

        A store that has just failed is not asked again: the first poll doesn't wait for it target by target.
        """
        if not self._up and self._clock.monotonic() - self._failed_at < TRY_AGAIN:
            return {}
        try:
            if not self._up:
                await self._open()
            return await self._call(self._store.history.load, target.account, target.connection)
        except StoreError:
            return {}

    def polled(self, before: TargetState, after: TargetState) -> None:
        """Take in a complete poll. One that finds no room goes by unseen, and what it would have confirmed waits."""
        self._newest[after.target] = after.polls
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((before, after, self._clock.monotonic()))

    async def run(self) -> None:
        """Judge polls until cancelled."""
        while True:
            before, after, heard = await self._queue.get()
            try:
                try:
                    await self._judge(before, after, heard)
                except StoreError:
                    await self._show_down()
            except Exception:  # a bug of ours must not end healing unseen
                log.exception(
                    "healing broke on a poll", account=after.target.account, connection=after.target.connection
                )
            finally:
                self._queue.task_done()

    async def settle(self) -> None:
        """Return when every poll taken in was judged and no request is under way."""
        await self._queue.join()
        await asyncio.gather(*self._running.values())

    async def tick(self) -> None:
        """Give a sign of life, look after what was left behind, and show which guards hold now."""
        try:
            if not self._up:
                await self._open()
            now = self._clock.time()
            busy = {*self._running, *self._unrecorded}
            for attempt in await self._call(self._store.ledger.alive, now, busy):
                self._count(attempt, Outcome.NOT_SENT)
            for attempt, result in list(self._unrecorded.values()):
                await self._record(attempt, result)
            await self._prune(now)
            setups = dict(self._setups)
            looks = {account: await self._look(setup, account) for account, setup in setups.items()}
            self._unresolved = {account for account, look in looks.items() if look.account.open}
            for target, seen in list(self._seen.items()):
                setup = setups.get(target.account)
                if setup and setup.enabled and self._is_current(setup, target):
                    look = looks[target.account]
                    await self._show(target, seen, self._held(setup, seen, look.account), look)
        except StoreError:
            await self._show_down()

    async def _prune(self, now: float) -> None:
        """Forget, now and then, what is over and counts no more."""
        if self._clock.monotonic() - self._pruned > PRUNE_EVERY:
            self._pruned = self._clock.monotonic()
            counted = max(self._heal.attempts_window.total_seconds(), HOUR)
            await self._call(self._store.ledger.prune, now - max(self._retention, counted))
            await self._call(self._store.history.prune, now - self._retention)

    async def stop(self) -> None:
        """Let requests under way end, for a moment; what isn't answered by then becomes ambiguous in the ledger."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=DRAIN)
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        self._thread.shutdown(wait=False)

    # One poll

    async def _judge(self, before: TargetState, after: TargetState, heard: float) -> None:
        target, setup = after.target, self._setups.get(after.target.account)
        if after.snapshot is None or setup is None:
            return
        if not self._up:
            await self._open()
        seen = self._seen.setdefault(target, Seen(TargetView(target), Healing(mode=setup.heal.mode)))
        complete = after.polls - sum(after.failures.values())
        if complete != seen.complete + 1:  # a complete poll went by unseen, so nothing was seen without a gap
            seen.followed = {number: restarted(followed) for number, followed in seen.followed.items()}
        await self._write_history(seen, before, after)
        if not setup.enabled and target.account not in self._unresolved:
            await self._show(target, seen, ())
            return
        if self._is_overtaken(after, heard):
            return
        look = await self._look(setup, target.account)
        if not self._is_current(setup, target):
            return
        found = self._assess(setup, seen, after, look=look, heard=heard)
        if not await self._carry_out(setup, seen, found.decisions):
            return
        if setup.enabled:
            await self._heal_by(setup, seen, found, look)
        else:  # what was sent by hand, or before it was switched off, is seen through all the same
            await self._show(target, seen, ())

    def _is_overtaken(self, after: TargetState, heard: float) -> bool:
        """Whether a poll waited for so long that it is stale, and a newer one of its target waits behind it.

        As after a database that hung: what is judged then is what is true now, and not one old poll after the other.
        """
        where = {"account": after.target.account, "connection": after.target.connection}
        late = self._clock.monotonic() - heard > 2 * after.interval + 1
        if late and self._newest.get(after.target, 0) > after.polls:
            self._failures.failed("judging polls in time", "late", "newer ones are judged instead", **where)
            return True
        self._failures.worked("judging polls in time", **where)
        return False

    async def _heal_by(self, setup: Setup, seen: Seen, found: Assessment, look: Look) -> None:
        """Send what a poll asks for and the guards allow, and show where everything is then."""
        target = seen.view.target
        if found.changes:
            look = await self._look(setup, target.account)
        held = await self._send(setup, seen, found.sends, look)
        if found.sends:
            look = await self._look(setup, target.account)
        if self._is_current(setup, target):
            in_flight = {Status.CLAIMED, Status.SENT}
            sending = {each.number: HealState.IN_FLIGHT for each in open_here(look, target) if each.status in in_flight}
            await self._show(target, seen, held, look, found.states | sending)

    def _assess(self, setup: Setup, seen: Seen, after: TargetState, *, look: Look, heard: float) -> Assessment:
        """Say what a complete poll asks to be done."""
        target, snapshot = after.target, cast("Snapshot", after.snapshot)
        seen.view = replace(
            policy.view_after(
                seen.view,
                at=snapshot.at,
                total=len(snapshot.dids),
                listed=sum(did.state != MISSING for did in snapshot.dids.values()),
                unhealthy=unhealthy_of(snapshot.dids.values(), look.counts, target),
                config=setup.heal,
                resumed_at=look.account.resumed_at,
            ),
            interval=after.interval,
        )
        found = assess(
            snapshot,
            setup.watch,
            seen.followed,
            look.records,
            look.counts,
            config=setup.heal,
            passed=heard - seen.heard if seen.polls == after.polls - 1 else 0.0,
            now=self._clock.time(),
        )
        seen.polls, seen.heard, seen.followed = after.polls, heard, found.followed
        seen.complete = after.polls - sum(after.failures.values())
        seen.whys = {decision.number: decision.why for decision in found.decisions}
        return found

    async def _carry_out(self, setup: Setup, seen: Seen, decisions: Iterable[Decision]) -> bool:
        """Do what was decided, but for sending; return whether the configuration is still the same."""
        target = seen.view.target
        for decision in decisions:
            if isinstance(decision.action, Resolve):
                await self._resolve(target, decision.action)
            elif isinstance(decision.action, Move) and setup.enabled:
                await self._move(setup, seen, decision.action)
            if not self._is_current(setup, target):
                return False
            if decision.action and not isinstance(decision.action, Send):
                seen.followed = {
                    **seen.followed,
                    decision.number: restarted(seen.followed.get(decision.number, Followed())),
                }
        return True

    async def _write_history(self, seen: Seen, before: TargetState, after: TargetState) -> None:
        snapshot = after.snapshot
        if snapshot is None:
            return
        key = (after.target.account, after.target.connection)
        seen.unwritten += [
            Transition(*key, did.number, did.since, None, did.state, did.codes)
            for did in snapshot.dids.values()
            if (old := before.memory.get(did.number)) is not did and (old is None or old.state != did.state)
        ]
        del seen.unwritten[:-MOST_UNWRITTEN]
        seen.gone = (seen.gone | (before.memory.keys() - snapshot.dids.keys())) - snapshot.dids.keys()
        if seen.unwritten or seen.gone:
            await self._call(self._store.history.write, *key, seen.unwritten, seen.gone)
            seen.unwritten, seen.gone = [], set()

    async def _resolve(self, target: Target, action: Resolve) -> None:
        attempt, now = action.attempt, self._clock.time()
        lost = Outcome.AMBIGUOUS if attempt.status is Status.AMBIGUOUS else Outcome.FAILED
        outcome = Outcome.SUCCEEDED if action.succeeded else lost
        after = self._after(outcome, reason=action.reason)
        if await self._call(self._store.ledger.resolve, attempt, outcome, action.reason, after, now):
            self._count(attempt, outcome)
            if outcome is Outcome.SUCCEEDED:
                self._observer.healed(target, now - (attempt.broken_since or attempt.claimed_at))

    async def _move(self, setup: Setup, seen: Seen, action: Move) -> None:
        now, jitter = self._clock.time(), self._rng.random()

        def after(_: DidRecord, counts: Counts) -> DidRecord:
            return policy.after_move(action, attempts=counts, config=setup.heal, now=now, jitter=jitter)

        if await self._call(self._store.ledger.move, action.record, after, now):
            log.info(
                "heal state changed",
                phone_number=setup.watch.label(action.record.number),
                old=action.record.state.value,
                new=action.state.value,
                reason=action.reason,
            )
            if action.relapse:
                seen.healing = replace(seen.healing, relapses=seen.healing.relapses + 1)

    # Sending

    async def _send(self, setup: Setup, seen: Seen, sends: list[Send], look: Look) -> list[policy.Held]:
        """Send what the guards allow; return what holds back then."""
        target = seen.view.target
        held, waiting = self._held(setup, seen, look.account), list(sends)
        while waiting and not held and self._is_current(setup, target):
            send = waiting.pop(0)
            record = look.records.get(send.number)
            await self._claim(setup, seen, send, record.version if record else 0)
            held = self._held(setup, seen, (await self._look(setup, target.account)).account)
        self._say_held(seen, held, len(waiting))
        return held

    async def _claim(self, setup: Setup, seen: Seen, send: Send, version: int) -> None:
        target, started, now = seen.view.target, self._clock.monotonic(), self._clock.time()
        observing = setup.observing

        def judge(facts: AccountRecord, record: DidRecord, counts: Counts) -> Iterable[str]:
            if not self._is_current(setup, target):
                return ["the configuration changed since it was decided"]
            return policy.objections(
                facts,
                record,
                counts,
                view=seen.view,
                config=setup.heal,
                now=self._clock.time(),
                ramp_start=self._started[target.account],
                observing=observing,
                version=version,
            )

        wish = Wish(send.number, target.account, target.connection, send.issues, masked(send.body), send.broken_since)
        ledger = self._store.ledger
        claimed = await self._call(ledger.would_send if observing else ledger.claim, wish, judge, now)
        label = setup.watch.label(send.number)
        if isinstance(claimed, Refused):
            log.info("heal not claimed", phone_number=label, reason="; ".join(claimed.reasons))
        elif observing:
            seen.healing = replace(seen.healing, would=seen.healing.would + 1)
            log.info("would heal", phone_number=label, issues=",".join(send.issues))
        else:
            log.info("healing", phone_number=label, issues=",".join(send.issues), attempt=claimed.id)
            work = self._execute(setup, claimed, send, judge, started)
            task = asyncio.create_task(work, name=f"heal {claimed.id}")
            self._running[claimed.id] = task
            task.add_done_callback(lambda _: self._running.pop(claimed.id, None))

    async def _execute(
        self, setup: Setup, attempt: Attempt, send: Send, judge: Callable[..., Iterable[str]], started: float
    ) -> None:
        async def begin() -> bool:
            return await self._call(self._store.ledger.begin_send, attempt, judge, self._clock.time())

        try:
            result = await execute(
                setup.client,
                send.body,
                begin,
                clock=self._clock,
                claimed_at=started,
                fingerprint=setup.fingerprint,
            )
        except StoreError:  # whether the row says sent is not known, but nothing was sent
            reason = "the store did not answer before the request, so nothing was sent"
            result = Result(Status.ENDED, Outcome.NOT_SENT, reason, charged=False, feeds=False, backoff=False)
        except asyncio.CancelledError:
            reason = "the exporter stopped while it waited for the answer"
            result = Result(Status.AMBIGUOUS, None, reason, charged=True, feeds=True)
            self._store.ledger.answered(attempt, result, lambda record, _: record, self._clock.time())
            raise
        log.info(
            "heal answered",
            phone_number=setup.watch.label(attempt.number),
            attempt=attempt.id,
            status=result.status.value,
            reason=result.reason,
        )
        self._unrecorded[attempt.id] = (attempt, result)
        try:
            await self._record(attempt, result)
        except StoreError:
            await self._show_down()  # the row says sent until it can be recorded

    async def _record(self, attempt: Attempt, result: Result) -> None:
        outcome = result.outcome or Outcome.AMBIGUOUS
        after = self._after(outcome, reason=result.reason, quarantine=result.quarantine, backoff=result.backoff)
        recorded = await self._call(self._store.ledger.answered, attempt, result, after, self._clock.time())
        self._unrecorded.pop(attempt.id, None)
        if recorded and result.outcome:
            self._count(attempt, result.outcome)

    def _after(
        self, outcome: Outcome, *, reason: str, quarantine: bool = False, backoff: bool = True
    ) -> Callable[[DidRecord, Counts], DidRecord]:
        return partial(
            policy.after_end,
            outcome=outcome,
            quarantine=quarantine,
            backoff=backoff,
            reason=reason,
            config=self._heal,
            now=self._clock.time(),
            jitter=self._rng.random(),
        )

    # The store

    async def _open(self) -> None:
        await self._call(self._store.open)
        self._up = True
        self._observer.store_answers(up=True)
        self._failures.worked("store")
        for seen in self._seen.values():  # whatever happened meanwhile: look again before acting
            seen.view = replace(seen.view, complete_polls=0)

    async def _call(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - the function's
        """Call the store in its thread. Raises `StoreError` when it fails or takes too long."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                answer = await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
        except TimeoutError:
            self._down(StoreError(f"the store does not answer within {ANSWER_WITHIN:g} s"))
            raise StoreError("the store does not answer") from None
        except StoreError as error:
            self._down(error)
            raise
        return answer

    def _down(self, error: StoreError) -> None:
        self._up, self._failed_at = False, self._clock.monotonic()
        self._observer.store_answers(up=False)
        self._failures.failed("store", type(error).__name__, str(error))

    def _is_current(self, setup: Setup, target: Target) -> bool:
        return self._setups.get(target.account) is setup

    async def _look(self, setup: Setup, account: str) -> Look:
        """Return what all replicas know, and share the pause of the account's key with them."""
        now, budget = self._clock.time(), setup.client.budget
        look = await self._call(self._store.ledger.look, account, now)
        facts = look.account
        if facts.key_paused_until > now:
            budget.pause(facts.key_paused_until - now)
        elif budget.paused_for > 1:
            await self._call(self._store.ledger.pause_key, account, now + budget.paused_for)
        if (
            facts.latched is not None
            and facts.latch_print != setup.fingerprint
            and self._polled_since(account, facts.latched_at)
        ):
            await self._call(self._store.ledger.unlatch, account, setup.fingerprint)
            return await self._call(self._store.ledger.look, account, now)
        return look

    def _polled_since(self, account: str, when: float) -> bool:
        return any(target.account == account and seen.view.at > when for target, seen in self._seen.items())

    # Showing

    def _held(self, setup: Setup, seen: Seen, facts: AccountRecord) -> list[policy.Held]:
        ramp_start, now = self._started[facts.account], self._clock.time()
        return [
            *policy.account_guards(facts, setup.heal, now, ramp_start=ramp_start, observing=setup.observing),
            *policy.target_guards(seen.view, setup.heal, now),
        ]

    def _say_held(self, seen: Seen, held: list[policy.Held], waiting: int) -> None:
        """Log what holds back DIDs that wait for nothing else, when that changes."""
        guards = frozenset(guard for guard, _ in held) if waiting else frozenset()
        if guards and guards != seen.said:
            where = {"account": seen.view.target.account, "connection": seen.view.target.connection}
            log.warning(
                "healing is held back",
                **where,
                waiting=waiting,
                guards=",".join(sorted(guards)),
                why="; ".join(why for _, why in held),
            )
        seen.said = guards

    async def _show(
        self,
        target: Target,
        seen: Seen,
        held: Iterable[policy.Held],
        look: Look | None = None,
        states: Mapping[str, HealState] | None = None,
    ) -> None:
        """Show what holds a target's heals back; `look` also how many there are, `states` also where each DID is."""
        seen.held = tuple(held)
        guards = frozenset(guard for guard, _ in seen.held)
        if look:
            here = [each for each in look.records.values() if each.connection == target.connection]
            seen.healing = replace(
                seen.healing,
                in_flight=len(open_here(look, target)),
                quarantined=sum(each.state is HealState.QUARANTINED for each in here),
            )
        seen.healing = replace(seen.healing, blocked=guards)
        await self._annotator.annotate(target, seen.healing, states)

    async def _show_down(self) -> None:
        for target, seen in list(self._seen.items()):
            if self._heal.mode != "off":
                await self._show(target, seen, [(Guard.STORE, STORE_DOWN)])

    def _count(self, attempt: Attempt, outcome: Outcome) -> None:
        seen = self._seen.get(_target(self._seen, attempt))
        if seen:
            attempts = {**seen.healing.attempts, outcome: seen.healing.attempts[outcome] + 1}
            seen.healing = replace(seen.healing, attempts=attempts)
        log.info(
            "heal ended",
            phone_number=self._label(Target(attempt.account, attempt.connection), attempt.number),
            attempt=attempt.id,
            outcome=outcome.value,
        )

    def _label(self, target: Target, number: str) -> str:
        setup = self._setups.get(target.account)
        return setup.watch.label(number) if setup else number


def _target(seen: Mapping[Target, Seen], attempt: Attempt) -> Target:
    """Return the target that an attempt was made for, of those that are known."""
    where = (attempt.account, attempt.connection)
    known = (target for target in seen if (target.account, target.connection) == where)
    return next(known, Target(*where))


def masked(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's body as it may be kept: a websocket URL without its query and password."""
    return {key: masked_url(value) if key == "websocket_url" else value for key, value in body.items()}


def fingerprint(account: Account, key: str, config: Config) -> str:
    """Return a mark that changes when an account's credential or the configuration does; tells nothing of either."""
    text = f"{key}\n{account.model_dump_json()}\n{config.heal.model_dump_json()}\n{config.api.model_dump_json()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
