"""Healing by hand: the same decisions, guards, claims and ledger as the daemon's, on what was polled a moment ago."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from exporter.errors import StoreError
from exporter.heal.aftermath import after_end
from exporter.heal.decide import CLEAN_POLLS, VERIFIED, Kind, Send, asked_after, classify, request_body
from exporter.heal.guards import (
    FORCEABLE,
    ActiveGuard,
    GuardCheck,
    TargetHealth,
    account_guards,
    blocking_reasons,
    health_after,
    is_unobserved,
    settled,
    target_guards,
)
from exporter.heal.sender import HealRequest, HealSender, masked
from exporter.heal.watched import held_by_did_id, is_listed
from exporter.model import HealState, Outcome
from exporter.store.records import Attempt, Counts, DidRecord, Result, Status
from exporter.store.worker import StoreWorker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from exporter.accounts import AccountRuntime
    from exporter.clock import Clock
    from exporter.config.schema import Heal
    from exporter.model import Snapshot, Target
    from exporter.snapshots import TargetState
    from exporter.store import Store
    from exporter.store.ledger import Next

    Poll = Callable[[Target], Awaitable[TargetState]]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A DID with an issue that healing is for, or one that was asked for by name."""

    target: Target
    number: str
    label: str
    issues: tuple[str, ...]
    state: HealState
    healable: bool
    why: str  # why not, where it isn't healable
    blocked_by: tuple[str, ...]  # what speaks against it now
    unforceable: tuple[str, ...]  # what would even with force
    send: Send

    @property
    def shown_body(self) -> dict[str, Any]:
        """The request's body, without secrets."""
        return masked(self.send.body)


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a heal by hand, in words; `open` while the polls have to decide."""

    words: str
    steps: tuple[Mapping[str, Any], ...] = ()
    open: bool = False


@dataclass
class _Verification:
    """A heal by hand that the polls have to confirm."""

    attempt: Attempt
    clean_polls: int = field(default=0)


class Manual:
    """Heals that a person asks for. The ledger's methods block, so call the methods that are not async in a thread."""

    def __init__(self, config: Heal, store: Store, accounts: Mapping[str, AccountRuntime], *, clock: Clock) -> None:
        self._config = config
        self._store = store
        self._accounts = accounts
        self._clock = clock
        self._worker = StoreWorker(store, clock)
        self._sender = HealSender(self._worker, clock, self._after_result)
        self._sent: dict[str, _Verification] = {}

    def candidates(self, state: TargetState, named: Collection[str] = ()) -> list[Candidate]:
        """Return a target's DIDs that have an issue healing is for, and those that are named. Raises `StoreError`."""
        if state.snapshot is None:
            return []
        now, account = self._clock.time(), self._accounts[state.target.account]
        facts = self._store.ledger.account(account.credential, now)
        records, counts = self._store.ledger.records(now)
        health, found = self._health(state), []
        for number, did in state.snapshot.dids.items():
            configured = account.watch.find(did.entry)
            seen = classify(did, configured, self._config.issues)
            if not seen.issues and number not in named:
                continue
            record, count = records.get(number, DidRecord(number)), counts.get(number, Counts())
            reasons = partial(
                blocking_reasons,
                facts,
                record,
                count,
                health=health,
                config=self._config,
                now=now,
                ramp_start=0.0,
                fingerprint=account.fingerprint,
            )
            body = request_body(did, state.target, configured)
            send = Send(number, seen.issues, body, None, version=record.version, did_id=did.entry.did_id)
            held = tuple(held_by_did_id([send], records, counts, now).values()) if count.open is None else ()
            on_probation = (ON_PROBATION,) if record.state is HealState.PROBATION else ()
            healable = seen.kind is Kind.HEALABLE
            found.append(
                Candidate(
                    target=state.target,
                    number=number,
                    label=did.label,
                    issues=seen.issues,
                    state=_state(record, count),
                    healable=healable,
                    why=seen.why_not or ("" if healable else "it has none of the issues that healing is for"),
                    blocked_by=(*on_probation, *held, *reasons()),
                    unforceable=(*on_probation, *reasons(forced=FORCEABLE, patient=False)),
                    send=send,
                )
            )
        return found

    def guards(self, state: TargetState) -> list[ActiveGuard]:
        """Return the guards of the fleet that are active for a target, as one poll and the ledger tell."""
        now, account = self._clock.time(), self._accounts[state.target.account]
        facts = self._store.ledger.account(account.credential, now)
        return [
            *account_guards(facts, self._config, now, ramp_start=0.0, fingerprint=account.fingerprint),
            *target_guards(self._health(state), self._config, now),
        ]

    def unobserved(self) -> list[Attempt]:
        """Return the open attempts whose targets no poll observes. Raises `StoreError`."""
        now = self._clock.time()
        return [each for each in self._store.ledger.open_attempts() if is_unobserved(each, self._config, now)]

    async def send(self, candidate: Candidate, poll: Poll, *, force: bool) -> Report:
        """Poll again, claim and send, within the guards or past those that force passes.

        `poll` polls a target once more. What changed since `candidate` was made is said, and not sent.
        """
        account = self._accounts[candidate.target.account]
        latest: list[TargetState] = []

        async def observe() -> None:
            latest.append(await poll(candidate.target))

        async def revise() -> Send | str:
            return await self._worker.call(self._decide_anew, latest[-1], candidate)

        check = GuardCheck(
            config=self._config,
            fingerprint=account.fingerprint,
            now=self._clock.time,
            ramp_start=lambda: 0.0,
            health=lambda: self._health(latest[-1]) if latest else None,
            forced=FORCEABLE if force else frozenset(),
            patient=not force,
        )
        request = HealRequest(account, candidate.target, candidate.send, manual=True)
        try:
            await self._worker.call(self._store.ledger.heartbeat, self._clock.time(), self._sender.unfinished)
            patience = account.client.patience
            sent = await self._sender.send(request, revise, check, patience=patience, observe=observe)
        except StoreError as error:
            return Report(f"the store failed: {error}; what was sent stays open in the ledger until the polls decide")
        if sent.attempt is None or sent.result is None:
            return Report(f"not sent: {'; '.join(sent.reasons)}")
        still_open = sent.result.status is not Status.ENDED
        if still_open:
            attempt = replace(sent.attempt, status=sent.result.status, answered_at=self._clock.time())
            self._sent[candidate.number] = _Verification(attempt)
        return Report(sent.result.reason, sent.result.steps, still_open)

    def _decide_anew(self, state: TargetState, candidate: Candidate) -> Send | str:
        """Return what the newest poll asks to be sent for a DID, or why nothing is."""
        if not state.up or state.snapshot is None:
            return "the poll right before it failed, so nothing is known of the number now"
        now = next(
            (each for each in self.candidates(state, (candidate.number,)) if each.number == candidate.number), None
        )
        if now is None:
            return "the API does not list it any more"
        if not now.healable:
            return f"it changed meanwhile: {now.why}"
        if now.issues != candidate.issues:
            return f"it changed meanwhile: its issues are {', '.join(now.issues)}"
        return ON_PROBATION if now.state is HealState.PROBATION else now.send

    def verified(self, state: TargetState, number: str) -> bool:
        """Count one more poll for a heal that was sent; return whether the polls confirm it. Raises `StoreError`."""
        sent, snapshot = self._sent[number], state.snapshot
        if not state.up or snapshot is None or not asked_after(sent.attempt, self._asked_at(snapshot)):
            return False
        shown = snapshot.dids.get(number) if is_listed(snapshot, sent.attempt) else None
        clean = classify(shown, None, sent.attempt.heal_issues).kind is Kind.CLEAN
        sent.clean_polls = sent.clean_polls + 1 if clean else 0
        if sent.clean_polls < CLEAN_POLLS:
            return False
        after = self._after(Outcome.SUCCEEDED, VERIFIED)
        self._store.ledger.resolve(sent.attempt, Outcome.SUCCEEDED, VERIFIED, after, self._clock.time())
        return True

    def _after_result(self, result: Result) -> Next:
        outcome = result.outcome or Outcome.AMBIGUOUS
        return self._after(outcome, result.reason, quarantine=result.quarantine, backoff=result.backoff)

    def _after(self, outcome: Outcome, reason: str, *, quarantine: bool = False, backoff: bool = True) -> Next:
        return partial(
            after_end,
            outcome=outcome,
            quarantine=quarantine,
            backoff=backoff,
            reason=reason,
            config=self._config,
            now=self._clock.time(),
            jitter=0.0,
        )

    def _asked_at(self, snapshot: Snapshot) -> float:
        """Return when the request of a poll left, as the wall clock is set now: the earlier of what two clocks say."""
        return min(snapshot.at, self._clock.time() - (self._clock.monotonic() - snapshot.asked))

    def _health(self, state: TargetState) -> TargetHealth:
        """Return what one poll tells of a target; what the daemon counts over several isn't known here."""
        dids = state.snapshot.dids.values() if state.snapshot else ()
        health = health_after(
            TargetHealth(state.target),
            at=self._asked_at(state.snapshot) if state.snapshot else 0.0,
            total=len(dids),
            unhealthy=sum(not did.ready for did in dids),
            config=self._config,
            resumed_at=0.0,
        )
        return settled(health, state.interval, self._config)


ON_PROBATION = (
    "it is on probation after a heal: a daemon that heals or observes decides by its polls; else say heal release first"
)


def _state(record: DidRecord, counts: Counts) -> HealState:
    if counts.open:
        under_way = counts.open.status in {Status.CLAIMED, Status.SENT}
        return HealState.IN_FLIGHT if under_way else HealState.VERIFYING
    return record.state
