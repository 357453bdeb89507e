"""Healing by hand: the same policy, claims and ledger as the daemon's, on what a person has just polled."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from exporter.errors import StoreError
from exporter.heal import policy
from exporter.heal.controller import masked
from exporter.heal.executor import execute
from exporter.heal.policy import Kind, TargetView
from exporter.model import HealState, Outcome
from exporter.store.records import AccountRecord, Attempt, Counts, DidRecord, Refused, Result, Status, Wish

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from exporter.clock import Clock
    from exporter.config.schema import Heal
    from exporter.model import Target
    from exporter.snapshots import TargetState, Watch
    from exporter.store import Store
    from exporter.vocobase import VocobaseClient


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
    held: tuple[str, ...]  # what holds it back now
    unforceable: tuple[str, ...]  # what would even with force
    body: Mapping[str, Any] = field(repr=False)

    @property
    def shown_body(self) -> dict[str, Any]:
        """The request's body, without secrets."""
        return masked(self.body)


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a request, in words; `open` while the polls have to decide."""

    words: str
    steps: tuple[Mapping[str, Any], ...] = ()
    open: bool = False


class Manual:
    """Heals that a person asks for. The ledger's methods block, so call `candidates` and `verify` in a thread."""

    def __init__(
        self,
        config: Heal,
        store: Store,
        clients: Mapping[str, VocobaseClient],
        watches: Mapping[str, Watch],
        *,
        fingerprints: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self._config = config
        self._store = store
        self._clients = clients
        self._watches = watches
        self._fingerprints = fingerprints
        self._clock = clock
        self._clean: dict[str, int] = {}
        self._sent: dict[str, Attempt] = {}

    def candidates(self, state: TargetState, named: Collection[str] = ()) -> list[Candidate]:
        """Return a target's DIDs that have an issue healing is for, and those that are named. Raises `StoreError`."""
        if state.snapshot is None:
            return []
        now, target = self._clock.time(), state.target
        facts = self._store.ledger.account(target.account, now)
        records, counts = self._store.ledger.records(now)
        view, found = _view(state, self._config), []
        watch = self._watches[target.account]
        for number, did in state.snapshot.dids.items():
            configured = watch.find(did.entry)
            seen = policy.observe(did, configured, self._config)
            if not seen.issues and number not in named:
                continue
            record, count = records.get(number, DidRecord(number, target.account)), counts.get(number, Counts())

            def held(
                record: DidRecord = record,
                count: Counts = count,
                **more: Any,  # noqa: ANN401 - policy's
            ) -> tuple[str, ...]:
                return tuple(
                    policy.objections(
                        facts, record, count, view=view, config=self._config, now=now, ramp_start=0.0, **more
                    )
                )

            found.append(
                Candidate(
                    target=target,
                    number=number,
                    label=did.label,
                    issues=seen.issues,
                    state=_state(record, count),
                    healable=seen.kind is Kind.HEALABLE,
                    why=seen.why_not or "it has none of the issues that healing is for",
                    held=held(),
                    unforceable=held(forced=policy.FORCEABLE, patient=False),
                    body=policy.request_body(did, target, configured),
                )
            )
        return found

    def guards(self, state: TargetState) -> list[policy.Held]:
        """Return the guards of the fleet that hold for a target, as one poll and the ledger tell."""
        now = self._clock.time()
        facts = self._store.ledger.account(state.target.account, now)
        view = _view(state, self._config)
        return [
            *policy.account_guards(facts, self._config, now, ramp_start=0.0),
            *policy.target_guards(view, self._config, now),
        ]

    async def send(self, candidate: Candidate, *, force: bool) -> Told:
        """Claim and send, within the guards or past those that force passes."""
        target, started, now = candidate.target, self._clock.monotonic(), self._clock.time()
        forced = policy.FORCEABLE if force else frozenset()

        def judge(facts: AccountRecord, record: DidRecord, counts: Counts) -> Iterable[str]:
            return policy.objections(
                facts,
                record,
                counts,
                view=None,
                config=self._config,
                now=self._clock.time(),
                ramp_start=0.0,
                forced=forced,
                patient=not force,
            )

        try:
            self._store.ledger.alive(now, (each.id for each in self._sent.values()))
            wish = Wish(
                candidate.number, target.account, target.connection, candidate.issues, candidate.shown_body, manual=True
            )
            claimed = self._store.ledger.claim(wish, judge, now)
            if isinstance(claimed, Refused):
                return Told(f"held back: {'; '.join(claimed.reasons)}")
            self._sent[candidate.number] = claimed

            async def begin() -> bool:
                return self._store.ledger.begin_send(claimed, judge, self._clock.time())

            result = await execute(
                self._clients[target.account],
                candidate.body,
                begin,
                clock=self._clock,
                claimed_at=started,
                fingerprint=self._fingerprints[target.account],
            )
            self._record(claimed, result)
        except StoreError as error:
            return Told(f"the store failed: {error}; what was sent stays open in the ledger until the polls decide")
        return Told(result.reason, result.steps, result.status is not Status.ENDED)

    def verified(self, state: TargetState, number: str) -> bool:
        """Count one more poll for a heal that was sent; return whether the polls confirm it. Raises `StoreError`."""
        attempt, snapshot = self._sent[number], state.snapshot
        if not state.up or snapshot is None or not policy.started_after(attempt, snapshot.started):
            return False
        clean = policy.observe(snapshot.dids.get(number), None, self._config).kind is Kind.CLEAN
        self._clean[number] = self._clean.get(number, 0) + 1 if clean else 0
        if self._clean[number] < policy.CLEAN_POLLS:
            return False
        reason = f"{policy.CLEAN_POLLS} complete polls without the issue"
        after = self._after(Outcome.SUCCEEDED, reason)
        self._store.ledger.resolve(attempt, Outcome.SUCCEEDED, reason, after, self._clock.time())
        return True

    def _record(self, attempt: Attempt, result: Result) -> None:
        outcome = result.outcome or Outcome.AMBIGUOUS
        after = self._after(outcome, result.reason, quarantine=result.quarantine, backoff=result.backoff)
        now = self._clock.time()
        self._store.ledger.answered(attempt, result, after, now)
        self._sent[attempt.number] = replace(attempt, status=result.status, answered_at=now)

    def _after(
        self, outcome: Outcome, reason: str, *, quarantine: bool = False, backoff: bool = True
    ) -> Callable[[DidRecord, Counts], DidRecord]:
        return partial(
            policy.after_end,
            outcome=outcome,
            quarantine=quarantine,
            backoff=backoff,
            reason=reason,
            config=self._config,
            now=self._clock.time(),
            jitter=0.0,
        )


def _view(state: TargetState, config: Heal) -> TargetView:
    """Return what one poll tells of a target; what the daemon counts over several isn't known here."""
    dids = state.snapshot.dids.values() if state.snapshot else ()
    unhealthy = sum(not did.ready for did in dids)
    view = policy.view_after(
        TargetView(state.target),
        at=state.last_success or 0.0,
        total=len(dids),
        unhealthy=unhealthy,
        config=config,
        resumed_at=0.0,
    )
    return policy.settled(view, state.interval, config)


def _state(record: DidRecord, counts: Counts) -> HealState:
    if counts.open:
        under_way = counts.open.status in {Status.CLAIMED, Status.SENT}
        return HealState.IN_FLIGHT if under_way else HealState.VERIFYING
    return record.state
