"""Joins decisions, guards, ledger and sender: after each complete poll it decides, sends and records.

Polls arrive in a queue and are judged one after the other, off the polls' own path. Database calls run in one thread of
their own, so a slow database delays healing and nothing else. When the database fails, healing stops and monitoring
goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from exporter.errors import StoreError
from exporter.heal.aftermath import after_end, after_move
from exporter.heal.assess import Assessment, Followed, assess, restarted
from exporter.heal.decide import Decision, Move, Resolve, Send
from exporter.heal.guards import (
    ActiveGuard,
    GuardCheck,
    TargetHealth,
    account_guards,
    health_after,
    is_unobserved,
    observed,
    room,
    target_guards,
)
from exporter.heal.sender import HealRequest, HealSender
from exporter.heal.watched import TargetHealState, held_by_did_id, is_listed, is_of, unhealthy_of
from exporter.logs import FailureLog
from exporter.model import MISSING, Guard, HealState, Outcome, Target
from exporter.snapshots import Healing, TargetState
from exporter.store.records import (
    HOUR,
    AccountRecord,
    Attempt,
    Counts,
    DidRecord,
    Look,
    Opened,
    Refused,
    Status,
    Transition,
)
from exporter.store.worker import ANSWER_WITHIN, StoreWorker
from exporter.vocobase.budget import Priority

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exporter.accounts import AccountRuntime
    from exporter.clock import Clock
    from exporter.config import Config
    from exporter.model import Did, Snapshot
    from exporter.store import Store
    from exporter.store.history import Known
    from exporter.store.ledger import Next
    from exporter.store.records import Result

DRAIN: Final = 3.0  # seconds that requests under way have at the end
PRUNE_EVERY: Final = 3600.0
MOST_WAITING: Final = 1000  # polls that wait to be judged while the database hangs; later ones go by unseen
LEAST_PATIENCE: Final = 60.0  # seconds that a heal waits for its place at least, which is as long as the API's window
WAITS_LONG: Final = 5.0  # seconds that a heal waits for its place before that is shown as a guard
MOST_UNWRITTEN: Final = 100_000  # changes of state kept while the database is down

log = structlog.stdlib.get_logger(__name__)


class Annotator(Protocol):
    """Display of where DIDs are in their heal."""

    async def annotate(self, target: Target, healing: Healing, states: Mapping[str, HealState] | None) -> None:
        """Show it; `None` leaves the DIDs' states as they are."""


class HealObserver(Protocol):
    """Receiver of healing events, for metrics."""

    def healed(self, target: Target, seconds: float) -> None:
        """Note that a DID was repaired so many seconds after it was first seen broken."""

    def store_answers(self, *, up: bool) -> None:
        """Note whether the store answers."""

    def unobserved(self, attempts: Mapping[str, int]) -> None:
        """Note by account how many open attempts wait on a target that no poll observes."""


class Controller:
    """Healing, within what is configured. `run` consumes the polls that `polled` takes in."""

    def __init__(
        self,
        config: Config,
        store: Store,
        accounts: Mapping[str, AccountRuntime],
        *,
        annotator: Annotator,
        observer: HealObserver,
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        self._heal = config.heal
        self._retention = config.store.retention.total_seconds()
        self._accounts = dict(accounts)
        self._store = store
        self._annotator = annotator
        self._observer = observer
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._targets: dict[Target, TargetHealState] = {}
        self._queue: asyncio.Queue[tuple[TargetState, TargetState]] = asyncio.Queue(MOST_WAITING)
        self._newest: dict[Target, int] = {}  # by target, which poll was taken in last
        self._opened_at = 0.0  # when the store was opened last, monotonic: a poll of before does not count for it
        self._last: dict[Target, Snapshot] = {}  # by target, what its last complete poll said
        self._broken: dict[Target, tuple[Did, ...]] = {}  # by target, those with issues of its last complete poll
        self._judged: dict[Target, int] = {}  # by target, which poll was judged last, or could not be
        self._progress = asyncio.Condition()
        self._worker = StoreWorker(store, clock, observer)
        self._sender = HealSender(self._worker, clock, self._after_result)
        self._sending: dict[str, tuple[AccountRuntime, asyncio.Task[None]]] = {}  # by number
        self._displays: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._unresolved: set[str] = set()  # accounts with open attempts, as of the last tick
        self._unobserved: tuple[Attempt, ...] = ()
        self._open_numbers: frozenset[str] = frozenset()  # of open attempts, as of the last look
        self._left_behind: dict[str, float] = {}  # such of a store that was lost, and until when, monotonic, they wait
        self._failures = FailureLog(clock)
        self._started: dict[str, float] = {}  # by account, when its facts were read first: what was there is of before
        self._began = self._pruned = clock.monotonic()

    # What others call

    def active_guards(self, target: Target) -> tuple[ActiveGuard, ...]:
        """Return which guards keep healing from acting on a target, each with its reason, as of the last look."""
        return self._targets[target].active_guards if target in self._targets else ()

    def last_decision(self, target: Target, number: str) -> str:
        """Return what the last judged poll decided about a DID, and why; empty where there was nothing to decide."""
        return self._targets[target].last_decisions.get(number, "") if target in self._targets else ""

    @property
    def unobserved(self) -> tuple[Attempt, ...]:
        """The open attempts whose targets no poll observes, as of the last look: they wait for a person."""
        return self._unobserved

    async def reconfigure(self, config: Config, accounts: Mapping[str, AccountRuntime]) -> None:
        """Go by another configuration from now on. What was sent goes on, and is ended by the polls.

        What was decided and not sent is dropped. An account for which something changed starts as after a restart: it
        holds off, and its first heal has to be verified before the second is sent.
        """
        before, after = self._accounts, accounts
        same = {name for name, account in after.items() if before.get(name) == account}
        self._heal, self._retention = config.heal, config.store.retention.total_seconds()
        self._accounts = {name: before[name] if name in same else account for name, account in after.items()}
        self._started = {name: started for name, started in self._started.items() if name in same}
        self._worker.executor.submit(self._store.count_within, config.heal.attempts_window.total_seconds())
        for _ in range(self._queue.qsize()):  # polls that were seen by the old configuration go by unseen
            poll = self._queue.get_nowait()
            self._queue.task_done()
            if poll[1].target.account in same:
                self._queue.put_nowait(poll)
            else:
                self._judged[poll[1].target] = poll[1].polls
        for target in [each for each in self._last if each.account not in after]:
            self._last.pop(target, None)
            self._broken.pop(target, None)
            self._newest.pop(target, None)
            self._judged.pop(target, None)
            self._targets.pop(target, None)
        began_anew = [(target, known) for target, known in self._targets.items() if target.account not in same]
        for _, known in began_anew:
            known.begin_anew(config.heal.mode)
        # Until here nothing was waited for, so that nobody saw one part of it and not the other.
        async with self._progress:
            self._progress.notify_all()
        if self._worker.up:
            with contextlib.suppress(StoreError):
                await self._adopt()
        for target, known in began_anew:
            await self._show(target, known, (), states=None if config.heal.mode != "off" else {})

    async def prepare(self, account: str) -> None:
        """Take over a pause of the account's key, as another process or an earlier run of this one was told to make.

        A store that has just failed is not asked again: polls don't wait for it account by account, target by target.
        """
        runtime = self._accounts.get(account)
        if runtime is None or self._worker.failed_just_now:
            return
        with contextlib.suppress(StoreError):
            await self._open()
            facts = await self._worker.call(self._store.ledger.account, runtime.credential, self._clock.time())
            left = facts.key_paused_until - self._clock.time()
            runtime.client.budget.pause(left)
            if left > 1:
                log.warning("the API asked for a pause, and requests wait", account=account, seconds=round(left))

    async def rate_limited(self, account: str) -> None:
        """Share at once the pause that the API has just asked for: nothing else that uses the key knows of it."""
        runtime = self._accounts.get(account)
        if runtime is None or self._worker.failed_just_now:
            return
        with contextlib.suppress(StoreError):
            await self._open()
            await self._share_pause(runtime)

    async def _share_pause(self, account: AccountRuntime) -> None:
        ledger, left = self._store.ledger, account.client.budget.paused_for
        await self._worker.call(ledger.pause_key, account.credential, left, self._clock.time())

    async def recall(self, target: Target) -> Known:
        """Return what was known of a target's DIDs before the start; nothing where the store doesn't answer."""
        if self._worker.failed_just_now:
            return {}
        try:
            await self._open()
            return await self._worker.call(self._store.history.load, target.account, target.connection)
        except StoreError:
            return {}

    def polled(self, before: TargetState, after: TargetState) -> None:
        """Take in a complete poll. One that finds no room goes by unseen, and what it would have confirmed waits."""
        if after.snapshot:
            self._last[after.target] = after.snapshot
            dids = after.snapshot.dids.values()
            self._broken[after.target] = tuple(did for did in dids if did.entry.issues or not did.ready)
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait((before, after))
            self._newest[after.target] = after.polls

    async def run(self) -> None:
        """Judge polls until cancelled."""
        while True:
            before, after = await self._queue.get()
            try:
                try:
                    await self._process(before, after)
                except StoreError:
                    await self._show_down()
            except Exception:  # a bug of ours must not end healing unseen
                log.exception(
                    "healing broke on a poll", account=after.target.account, connection=after.target.connection
                )
            finally:
                self._queue.task_done()
                self._judged[after.target] = after.polls
                async with self._progress:
                    self._progress.notify_all()

    async def settle(self) -> None:
        """Return when every poll taken in was judged and no request is under way."""
        await self._queue.join()
        await asyncio.gather(*(task for _, task in self._sending.values()))
        await asyncio.gather(*self._displays)

    async def tick(self) -> None:
        """Give a sign of life, look after what was left behind, and show which guards hold now."""
        try:
            await self._open()
            for attempt, result in await self._sender.record_rest():
                if result.outcome:
                    self._count(attempt, result.outcome)
            await self._prune()
            accounts, now = dict(self._accounts), self._clock.time()
            credentials = tuple(each.credential for each in accounts.values())
            beat = await self._worker.call(self._store.ledger.heartbeat, now, self._sender.unfinished, credentials)
            for attempt in beat.released:
                self._count(attempt, Outcome.NOT_SENT)
            self._open_numbers = frozenset(each.number for each in beat.open)
            self._note_unobserved(beat.open)
            facts = {name: await self._take_in(each, beat.accounts[each.credential]) for name, each in accounts.items()}
            self._unresolved = {name for name, each in facts.items() if each.open}
            for target, known in list(self._targets.items()):
                account = accounts.get(target.account)
                if account and account.enabled and self._is_current(account, target):
                    of_account = facts[target.account]
                    await self._show(target, known, self._guards(account, known, of_account), of_account)
        except StoreError:
            await self._show_down()

    async def stop(self) -> None:
        """Let requests under way end, for a moment; what isn't answered by then becomes ambiguous in the ledger."""
        self._stopping = True  # what is not sent by now is not sent any more
        under_way = [task for number, (_, task) in self._sending.items() if number in self._sender.claiming]
        waiting = [task for _, task in self._sending.values() if task not in under_way]
        for task in waiting:  # nothing was claimed for these
            task.cancel()
        if under_way:
            await asyncio.wait(under_way, timeout=DRAIN)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*waiting, *under_way, *self._displays, return_exceptions=True)
        self._worker.close()

    async def _prune(self) -> None:
        """Forget, now and then, what is over and counts no more."""
        if self._clock.monotonic() - self._pruned > PRUNE_EVERY:
            self._pruned = self._clock.monotonic()
            now = self._store.stamps.earliest if self._store.stamps else self._clock.time()
            counted = max(self._heal.attempts_window.total_seconds(), HOUR)
            await self._worker.call(self._store.ledger.prune, now - max(self._retention, counted))
            await self._worker.call(self._store.history.prune, now - self._retention)

    def _note_unobserved(self, every: Iterable[Attempt]) -> None:
        """Find those of all open attempts that no observation will end, say so, and count them."""
        now = self._clock.time()
        running = self._clock.monotonic() - self._began
        if running < self._heal.verify_within.total_seconds():
            every = ()  # what was left by the process before may still be polled
        before, self._unobserved = (
            self._unobserved,
            tuple(each for each in every if is_unobserved(each, self._heal, now)),
        )
        for each in self._unobserved:
            message = f"the number stays locked until a poll lists it again, or: {release_command(self._label(each))}"
            self._failures.failed("observing a heal", "not listed by any poll", message, **self._attempt_fields(each))
        still = {each.id for each in self._unobserved}
        for each in before:
            if each.id not in still:
                self._failures.worked("observing a heal", **self._attempt_fields(each))
        counts = dict.fromkeys(self._accounts, 0)
        for each in self._unobserved:
            counts[each.account] = counts.get(each.account, 0) + 1
        self._observer.unobserved(counts)

    # One poll

    async def _process(self, before: TargetState, after: TargetState) -> None:
        target, account, snapshot = after.target, self._accounts.get(after.target.account), after.snapshot
        if snapshot is None or account is None:
            return
        known = self._targets.setdefault(target, TargetHealState(TargetHealth(target), Healing(mode=account.heal.mode)))
        known.sends = {}  # what an older poll asked for is void, whatever becomes of this one
        await self._open()
        complete = after.polls - sum(after.failures.values())
        if complete != known.complete + 1:  # a complete poll went by unseen, so nothing was seen without a gap
            known.followed = {number: restarted(followed) for number, followed in known.followed.items()}
        await self._write_history(known, before, after)
        if not account.enabled and target.account not in self._unresolved:
            await self._show(target, known, ())
            return
        if snapshot.asked < self._opened_at or self._is_overtaken(after, snapshot.asked):
            return
        look = await self._look(account)
        if not self._is_current(account, target):
            return
        await self._note_observation(snapshot, [each.open for each in look.counts.values() if each.open])
        assessment = self._assess(account, known, after, snapshot, look)
        if not await self._apply(account, known, assessment.decisions):
            return
        if account.enabled:
            await self._heal_by(account, known, assessment, look)
        else:  # what was sent by hand, or before it was switched off, is ended by the polls all the same
            await self._show(target, known, ())

    def _is_overtaken(self, after: TargetState, asked: float) -> bool:
        """Whether a poll waited for so long that it is stale, and a newer one of its target waits behind it.

        As after a database that hung: what is judged then is what is true now, and not one old poll after the other.
        """
        where = {"account": after.target.account, "connection": after.target.connection}
        late = self._clock.monotonic() - asked > 2 * after.interval + 1
        if late and self._newest.get(after.target, 0) > after.polls:
            self._failures.failed("judging polls in time", "late", "newer ones are judged instead", **where)
            return True
        self._failures.worked("judging polls in time", **where)
        return False

    async def _note_observation(self, snapshot: Snapshot, opened: Iterable[Attempt]) -> None:
        """Note in the ledger which open attempts a complete poll observed, for all replicas: those whose DID it lists.

        One that it does not list may be anywhere.
        """
        here = [each.id for each in opened if is_listed(snapshot, each)]
        if here:
            asked_at, now = self._wall_time_of(snapshot.asked), self._clock.time()
            await self._worker.call(self._store.ledger.observed, here, asked_at, now)

    def _assess(
        self, account: AccountRuntime, known: TargetHealState, after: TargetState, snapshot: Snapshot, look: Look
    ) -> Assessment:
        """Say what a complete poll asks to be done."""
        target, now, asked_at = after.target, self._clock.time(), self._asked_at(snapshot.at, snapshot.asked)
        known.health = replace(
            health_after(
                known.health,
                at=asked_at,
                total=len(snapshot.dids),
                listed=sum(did.state != MISSING for did in snapshot.dids.values()),
                unhealthy=unhealthy_of(snapshot.dids, look.counts, target),
                config=account.heal,
                resumed_at=look.account.resume_mark,
            ),
            interval=after.interval,
        )
        assessment = assess(
            snapshot,
            account.watch,
            known.followed,
            look.records,
            look.counts,
            broken=self._broken_lately(account),
            config=account.heal,
            asked_at=asked_at,
            passed=known.seconds_to(snapshot) if known.polls == after.polls - 1 else 0.0,
            now=now,
        )
        assessment = assessment.without_sends(
            self._held_by_lost_store() | held_by_did_id(assessment.sends, look.records, look.counts, now)
        )
        known.polls, known.followed = after.polls, assessment.followed
        known.asked, known.asked_at, known.heard = snapshot.asked, snapshot.at, snapshot.heard
        known.complete = after.polls - sum(after.failures.values())
        known.last_decisions = {decision.number: decision.why for decision in assessment.decisions}
        known.sends = {send.number: send for send in assessment.sends} if account.enabled else {}
        known.states = assessment.states
        return assessment

    def _broken_lately(self, account: AccountRuntime) -> list[tuple[Target, Did]]:
        """Return the DIDs with issues of all targets that were polled within `verify_within`."""
        since = self._clock.monotonic() - account.heal.verify_within.total_seconds()
        return [
            (target, did) for target, dids in self._broken.items() if self._last[target].asked >= since for did in dids
        ]

    async def _apply(self, account: AccountRuntime, known: TargetHealState, decisions: Iterable[Decision]) -> bool:
        """Do what was decided, but for sending; return whether the configuration is still the same."""
        target = known.target
        for decision in decisions:
            if isinstance(decision.action, Resolve):
                await self._resolve(target, decision.action)
            elif isinstance(decision.action, Move) and account.enabled:
                await self._move(account, known, decision.action)
            if not self._is_current(account, target):
                return False
            if decision.action and not isinstance(decision.action, Send):
                known.followed = {
                    **known.followed,
                    decision.number: restarted(known.followed.get(decision.number, Followed())),
                }
        return True

    async def _write_history(self, known: TargetHealState, before: TargetState, after: TargetState) -> None:
        snapshot = after.snapshot
        if snapshot is None:
            return
        key = (after.target.account, after.target.connection)
        known.unwritten += [
            Transition(*key, did.number, did.since, None, did.state, did.codes)
            for did in snapshot.dids.values()
            if not known.written
            or ((old := before.memory.get(did.number)) is not did and (old is None or old.state != did.state))
        ]
        del known.unwritten[:-MOST_UNWRITTEN]
        known.gone = (known.gone | (before.memory.keys() - snapshot.dids.keys())) - snapshot.dids.keys()
        if known.unwritten or known.gone:
            await self._worker.call(self._store.history.write, *key, known.unwritten, known.gone)
            known.unwritten, known.gone = [], set()
        known.written = True

    async def _resolve(self, target: Target, action: Resolve) -> None:
        attempt, now = action.attempt, self._clock.time()
        lost = Outcome.AMBIGUOUS if attempt.status is Status.AMBIGUOUS else Outcome.FAILED
        outcome = Outcome.SUCCEEDED if action.succeeded else lost
        after = self._after(outcome, reason=action.reason)
        if await self._worker.call(self._store.ledger.resolve, attempt, outcome, action.reason, after, now):
            self._count(attempt, outcome)
            if outcome is Outcome.SUCCEEDED:
                self._observer.healed(target, max(0.0, now - (attempt.broken_since or attempt.claimed_at)))

    async def _move(self, account: AccountRuntime, known: TargetHealState, action: Move) -> None:
        now, jitter = self._clock.time(), self._rng.random()

        def after(_: DidRecord, counts: Counts) -> DidRecord:
            return after_move(action, attempts=counts, config=account.heal, now=now, jitter=jitter)

        if await self._worker.call(self._store.ledger.move, action.record, after, now):
            log.info(
                "heal state changed",
                phone_number=account.watch.label(action.record.number),
                old=action.record.state.value,
                new=action.state.value,
                reason=action.reason,
            )
            if action.relapse:
                known.healing = replace(known.healing, relapses=known.healing.relapses + 1)

    # Sending

    async def _heal_by(
        self, account: AccountRuntime, known: TargetHealState, assessment: Assessment, look: Look
    ) -> None:
        """Start sending what a poll asks for and the guards allow, and show where everything is then."""
        if assessment.changes:
            look = await self._look(account)
        if account.observing:
            await self._record_would_send(account, known, assessment.sends, look)
            look = await self._look(account) if assessment.sends else look
        guards = self._guards(account, known, look.account)
        if not account.observing and not guards:
            self._start_sending(account, known, assessment.sends, look.account)
        self._log_guards(known, guards, len([each for each in assessment.sends if each.number not in self._sending]))
        if self._is_current(account, known.target):
            known.quarantined = self._quarantined(known, look)
            await self._show(known.target, known, guards, look.account, known.states)

    def _start_sending(
        self, account: AccountRuntime, known: TargetHealState, sends: Iterable[Send], facts: AccountRecord
    ) -> None:
        """Start as many heals as may be unverified at once. Each asks every guard again when it claims."""
        now = self._clock.time()
        most = room(facts, account.heal, ramp_start=self._ramp_start(account))
        under_way = {each.number for each in observed(facts, account.heal, now)}
        under_way |= {number for number, (by, _) in self._sending.items() if by.credential == account.credential}
        for send in sends:
            if len(under_way) >= most:
                return
            if send.number not in under_way and send.number not in self._sending:
                under_way.add(send.number)
                task = asyncio.create_task(self._send(account, known, send), name=f"heal {send.number}")
                self._sending[send.number] = account, task
                task.add_done_callback(partial(self._sent, send.number))

    def _sent(self, number: str, task: asyncio.Task[None]) -> None:
        self._sending.pop(number, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("sending a heal broke", exc_info=error)

    async def _send(self, account: AccountRuntime, known: TargetHealState, send: Send) -> None:
        label = account.watch.label(send.number)
        request = HealRequest(account, known.target, send)

        def claimed(attempt: Attempt) -> None:
            log.info("healing", phone_number=label, issues=",".join(send.issues), attempt=attempt.id)
            known.states = {**known.states, send.number: HealState.IN_FLIGHT}
            known.healing = replace(known.healing, in_flight=known.healing.in_flight + 1)
            shown = asyncio.create_task(self._annotator.annotate(known.target, known.healing, known.states))
            self._displays.add(shown)
            shown.add_done_callback(self._displays.discard)

        try:
            sent = await self._sender.send(
                request,
                partial(self._revise, account, known, send.number),
                self._check(account, known),
                patience=max(LEAST_PATIENCE, known.health.interval),
                claimed=claimed,
            )
        except StoreError:
            await self._show_down()  # where a row says sent, it does until its result can be recorded
            return
        if sent.attempt is None or sent.result is None:
            log.info("heal not claimed", phone_number=label, reason="; ".join(sent.reasons))
            return
        never_left = sent.result.outcome is Outcome.NOT_SENT
        log.info(
            "heal not sent" if never_left else "heal answered",
            phone_number=label,
            attempt=sent.attempt.id,
            status=sent.result.status.value,
            reason=sent.result.reason,
        )
        if sent.result.outcome:
            self._count(sent.attempt, sent.result.outcome)
        await self._refresh(account, known, send.number)

    async def _refresh(self, account: AccountRuntime, known: TargetHealState, number: str) -> None:
        """Show which guards are active now, and where a DID is whose attempt is over."""
        try:
            look = await self._look(account)
        except StoreError:
            await self._show_down()
            return
        if not look.counts.get(number, Counts()).open:
            record = look.records.get(number)
            known.states = {**known.states, number: record.state if record else HealState.IDLE}
        if self._is_current(account, known.target):
            await self._show(
                known.target, known, self._guards(account, known, look.account), look.account, known.states
            )

    async def _revise(self, account: AccountRuntime, known: TargetHealState, number: str) -> Send | str:
        """Return the decision about a DID by the newest poll, once that is judged, or why there is none any more."""
        target = known.target
        try:
            async with asyncio.timeout(ANSWER_WITHIN), self._progress:
                await self._progress.wait_for(lambda: self._judged.get(target, 0) >= self._newest.get(target, 0))
        except TimeoutError:
            return "a newer poll could not be judged in time"
        if withdrawn := self._withdrawn(account, target):
            return withdrawn
        send = known.sends.get(number)
        return send or f"the newest poll asks for no heal: {known.last_decisions.get(number, 'nothing to heal')}"

    def _check(self, account: AccountRuntime, known: TargetHealState) -> GuardCheck:
        target = known.target
        return GuardCheck(
            config=account.heal,
            fingerprint=account.fingerprint,
            now=self._clock.time,
            ramp_start=lambda: self._ramp_start(account),
            health=lambda: self._health(known),
            withdrawn=lambda: self._withdrawn(account, target),
            observing=account.observing,
        )

    def _withdrawn(self, account: AccountRuntime, target: Target) -> str:
        """Say why nothing that was decided is sent any more; an empty string where it may be."""
        if self._stopping:
            return "the exporter stopped before the request left, so nothing was sent"
        return "" if self._is_current(account, target) else "the configuration changed since it was decided"

    async def _record_would_send(
        self, account: AccountRuntime, known: TargetHealState, sends: Iterable[Send], look: Look
    ) -> None:
        """Record what would be sent, as long as the guards allow it."""
        facts, ledger = look.account, self._store.ledger
        for send in sends:
            if self._guards(account, known, facts) or not self._is_current(account, known.target):
                return
            check = self._check(account, known).for_version(send.version)
            wish = HealRequest(account, known.target, send).wish
            recorded = await self._worker.call(ledger.would_send, wish, check, self._clock.time())
            label = account.watch.label(send.number)
            if isinstance(recorded, Refused):
                log.info("heal not claimed", phone_number=label, reason="; ".join(recorded.reasons))
            else:
                known.healing = replace(known.healing, would=known.healing.would + 1)
                log.info("would heal", phone_number=label, issues=",".join(send.issues))
            facts = (await self._look(account)).account

    def _after_result(self, result: Result) -> Next:
        outcome = result.outcome or Outcome.AMBIGUOUS
        return self._after(outcome, reason=result.reason, quarantine=result.quarantine, backoff=result.backoff)

    def _after(self, outcome: Outcome, *, reason: str, quarantine: bool = False, backoff: bool = True) -> Next:
        return partial(
            after_end,
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
        opened = await self._worker.open()
        if opened:
            await self._adopt()
            await self._note_missed_observations()
            for known in self._targets.values():  # whatever happened meanwhile: look again before acting
                known.health = replace(known.health, complete_polls=0)
            self._opened_at = self._clock.monotonic()
        if opened is Opened.ANOTHER:  # as after a start
            self._started = {}
            self._leave_behind()
            self._unresolved, self._unobserved = set(), ()
            for known in self._targets.values():
                known.begin_anew(self._heal.mode)
                known.written = False

    async def _note_missed_observations(self) -> None:
        """Note in the ledger which open attempts were observed while the store did not answer.

        Else they would count as unobserved, and hold nothing back, until the next poll of their target is judged.
        """
        opened = await self._worker.call(self._store.ledger.open_attempts) if self._last else []
        for snapshot in list(self._last.values()):
            await self._note_observation(snapshot, opened)

    def _leave_behind(self) -> None:
        """Remember the numbers with open attempts in a store that was lost: the new one does not lock them."""
        wait = self._heal.verify_within + self._heal.backoff.initial
        until = self._clock.monotonic() + wait.total_seconds()
        self._left_behind |= dict.fromkeys(self._open_numbers | self._sending.keys(), until)
        self._open_numbers = frozenset()

    def _held_by_lost_store(self) -> dict[str, str]:
        """Return by number why nothing is sent for it, although the store that is used knows of no attempt."""
        now = self._clock.monotonic()
        self._left_behind = {number: until for number, until in self._left_behind.items() if until > now}
        return {
            number: f"an attempt on it was open in the store that was lost; left alone for another {until - now:.0f} s"
            for number, until in self._left_behind.items()
        }

    async def _adopt(self) -> None:
        accounts = {name: (each.credential, each.fingerprint) for name, each in self._accounts.items()}
        await self._worker.call(self._store.ledger.adopt, accounts)

    def _is_current(self, account: AccountRuntime, target: Target) -> bool:
        return self._accounts.get(target.account) is account

    async def _look(self, account: AccountRuntime) -> Look:
        """Return what all replicas know, and share the pause of the account's key with them."""
        ledger = self._store.ledger
        look = await self._worker.call(ledger.look, account.credential, self._clock.time())
        self._open_numbers = frozenset(number for number, count in look.counts.items() if count.open)
        facts = await self._take_in(account, look.account)
        return look if facts is look.account else replace(look, account=facts)

    async def _take_in(self, account: AccountRuntime, facts: AccountRecord) -> AccountRecord:
        """Share the pause of the account's key, lift a latch that is over, and return the facts as they are then."""
        now, budget, ledger = self._clock.time(), account.client.budget, self._store.ledger
        if self._accounts.get(account.account.name) is account:
            self._started.setdefault(account.account.name, self._clock.monotonic())
        left = facts.key_paused_until - now
        if left > 0:
            budget.pause(left)
        elif budget.paused_for > 1:
            await self._share_pause(account)
        if (
            facts.latched is not None
            and account.fingerprint not in facts.refused
            and self._polled_since(account, facts.latched_at)
            and await self._worker.call(ledger.unlatch, account.credential, account.fingerprint)
        ):
            return await self._worker.call(ledger.account, account.credential, now)
        return facts

    def _polled_since(self, account: AccountRuntime, when: float) -> bool:
        """Whether a poll with an account's credential was complete after a Unix time."""
        names = {name for name, each in self._accounts.items() if each.credential == account.credential}
        known = [each for target, each in self._targets.items() if target.account in names and each.health.at]
        return any(self._health(each).at > when for each in known)

    # Showing

    def _ramp_start(self, account: AccountRuntime) -> float:
        """Return when this process began to heal an account, by the wall clock as it is set now.

        A heal that was verified by then is of before, also where its time in the store lies in the future.
        """
        started = self._started.get(account.account.name, self._clock.monotonic())
        return self._clock.time() - (self._clock.monotonic() - started)

    def _health(self, known: TargetHealState) -> TargetHealth:
        """Return the state of a target's data, as old as either clock says."""
        if not known.health.at:
            return known.health
        return replace(known.health, at=self._asked_at(known.asked_at, known.asked))

    def _asked_at(self, wall: float, monotonic: float) -> float:
        """Return when the request of a poll left, as the wall clock is set now: the earlier of what the two clocks say.

        While the machine is suspended the one may stand still, and the other may be set.
        """
        return min(wall, self._wall_time_of(monotonic))

    def _wall_time_of(self, monotonic: float) -> float:
        """Return a moment of the monotonic clock by the wall clock as it is set now."""
        return self._clock.time() - (self._clock.monotonic() - monotonic)

    def _guards(self, account: AccountRuntime, known: TargetHealState, facts: AccountRecord) -> list[ActiveGuard]:
        now, waiting = self._clock.time(), self._waiting_for_place(account)
        return [
            *account_guards(
                facts,
                account.heal,
                now,
                ramp_start=self._ramp_start(account),
                fingerprint=account.fingerprint,
                observing=account.observing,
            ),
            *([(Guard.RATE_LIMITED, waiting)] if waiting else ()),
            *target_guards(self._health(known), account.heal, now),
        ]

    def _waiting_for_place(self, account: AccountRuntime) -> str:
        """Say that a heal of an account waits for its place in the budget; an empty string where none does for long."""
        if not account.client.budget.waiting(Priority.HEAL):
            return ""  # for its connection, or its turn to be claimed
        now, name = self._clock.monotonic(), account.account.name
        longest = max((now - since for (of, _), since in self._sender.waiting.items() if of == name), default=0.0)
        return f"waiting for a place in the request budget for {longest:.0f} s" if longest > WAITS_LONG else ""

    def _log_guards(self, known: TargetHealState, guards: list[ActiveGuard], waiting: int) -> None:
        """Log what blocks DIDs that wait for nothing else, when that changes."""
        names = frozenset(guard for guard, _ in guards) if waiting else frozenset()
        if names and names != known.logged_guards:
            log.warning(
                "healing is blocked",
                account=known.target.account,
                connection=known.target.connection,
                waiting=waiting,
                guards=",".join(sorted(names)),
                why="; ".join(why for _, why in guards),
            )
        known.logged_guards = names

    async def _show(
        self,
        target: Target,
        known: TargetHealState,
        guards: Iterable[ActiveGuard],
        facts: AccountRecord | None = None,
        states: Mapping[str, HealState] | None = None,
    ) -> None:
        """Show what blocks a target's heals; `facts` also how many there are, `states` also where each DID is."""
        known.active_guards = tuple(guards)
        if facts:
            in_flight = sum(is_of(each, target) for each in facts.open)
            known.healing = replace(known.healing, in_flight=in_flight, quarantined=known.quarantined)
        known.healing = replace(known.healing, blocked=frozenset(guard for guard, _ in known.active_guards))
        await self._annotator.annotate(target, known.healing, states)

    @staticmethod
    def _quarantined(known: TargetHealState, look: Look) -> int:
        """Count the quarantined DIDs of a target: those that it lists, and those that were healed through it."""
        quarantined = (each for each in look.records.values() if each.state is HealState.QUARANTINED)
        here = _key(known.target)
        return sum(each.number in known.states or (each.account, each.connection) == here for each in quarantined)

    async def _show_down(self) -> None:
        for target, known in list(self._targets.items()):
            if self._heal.mode != "off":
                await self._show(target, known, [(Guard.STORE, self._worker.why_down)])

    def _count(self, attempt: Attempt, outcome: Outcome) -> None:
        known = next((each for target, each in self._targets.items() if self._was_made_for(attempt, target)), None)
        if known:
            attempts = {**known.healing.attempts, outcome: known.healing.attempts[outcome] + 1}
            known.healing = replace(known.healing, attempts=attempts)
        log.info(
            "heal ended",
            phone_number=self._label(attempt),
            attempt=attempt.id,
            outcome=outcome.value,
        )

    def _was_made_for(self, attempt: Attempt, target: Target) -> bool:
        """Whether an attempt was made for a target's DID, whatever its account was called then."""
        account = self._accounts.get(target.account)
        return is_of(attempt, target) or (
            attempt.account not in self._accounts
            and account is not None
            and (account.credential, target.connection) == (attempt.credential, attempt.connection)
        )

    def _label(self, attempt: Attempt) -> str:
        account = self._accounts.get(attempt.account) or next(iter(self._accounts.values()), None)
        return account.watch.label(attempt.number) if account else attempt.number

    def _attempt_fields(self, attempt: Attempt) -> dict[str, str]:
        return {"account": attempt.account, "phone_number": self._label(attempt), "attempt": str(attempt.id)}


def release_command(number: str) -> str:
    """Return what to type to release a number."""
    return f"voicelink-exporter heal release {number} --reason TEXT"


def _key(target: Target) -> tuple[str, str]:
    return target.account, target.connection
