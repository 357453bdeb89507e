"""What is known of every target, and how one poll changes it. Pure: values in, values out.

A `TargetState` is replaced whole by each poll of its target. A `Did` whose poll said the same as the one before stays
the very same object, so that whoever renders can tell by identity what changed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from exporter.errors import Reason
from exporter.model import (
    CODE,
    COUNTED,
    KNOWN_CODES,
    KNOWN_STATES,
    MISSING,
    OTHER,
    Anomaly,
    Answer,
    Connection,
    Did,
    Entry,
    Guard,
    HealState,
    Outcome,
    Snapshot,
    Target,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from exporter.config import Account, ConfiguredDid

MOST_WORDS: Final = 64  # distinct undocumented states, and as many codes, that get a name of their own


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words that metrics show as they are: those the vendor documents and the first 64 others that came up."""

    known: tuple[str, ...]
    reserved: frozenset[str] = frozenset({MISSING, OTHER})  # ours: the API can't say them for us
    others: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that was or may be shown, documented ones first."""
        return self.known + self.others

    def learn(self, word: str) -> Vocabulary:
        """Return the vocabulary with a word in it, where it can be shown and there is room."""
        if word in self.known and word not in self.reserved:
            return self
        fits = CODE.fullmatch(word) and word not in self.reserved
        taken = len(self.others) - (OTHER in self.others)
        new = word if fits and (word in self.others or taken < MOST_WORDS) else OTHER
        return self if new in self.others else replace(self, others=(*self.others, new))

    def show(self, word: str) -> str:
        """Return how a word is shown: as it is, or as `OTHER`."""
        if word in self.reserved:
            return OTHER
        return word if word in self.known or word in self.others else OTHER


STATES: Final = Vocabulary(KNOWN_STATES)
CODES: Final = Vocabulary(KNOWN_CODES)


@dataclass(frozen=True, slots=True)
class Watch:
    """What of an account is monitored: the configuration's word on its DIDs, ready for look-ups."""

    by_number: Mapping[str, ConfiguredDid]
    by_id: Mapping[int, ConfiguredDid]
    exclude: frozenset[str]
    label: Callable[[str], str]

    @classmethod
    def of(cls, account: Account, label: Callable[[str], str] = str) -> Watch:
        """Build it for an account; `label` says how numbers are shown."""
        return cls(
            by_number={did.did_number: did for did in account.dids if did.did_number},
            by_id={did.did_id: did for did in account.dids if did.did_id is not None},
            exclude=frozenset(account.exclude),
            label=label,
        )

    @property
    def selective(self) -> bool:
        """Whether only configured DIDs are monitored."""
        return bool(self.by_number or self.by_id)

    def find(self, entry: Entry) -> ConfiguredDid | None:
        """Return what the configuration says of the DID of an entry, by number first."""
        found = self.by_number.get(entry.number)
        return found if found or entry.did_id is None else self.by_id.get(entry.did_id)

    def labels(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        """Return the labels that the user gave a DID."""
        configured = self.find(entry)
        return tuple(sorted(configured.labels.items())) if configured else ()

    def wants(self, entry: Entry) -> bool:
        """Whether the DID of an entry is monitored."""
        return entry.number not in self.exclude and (not self.selective or self.find(entry) is not None)


@dataclass(frozen=True, slots=True)
class NumberHash:
    """A function from a number to its keyed hash: 16 hexadecimal digits of HMAC-SHA-256."""

    key: bytes = field(repr=False)

    def __call__(self, number: str) -> str:
        """Return the hash."""
        return hmac.new(self.key, number.encode(), hashlib.sha256).hexdigest()[:16]


def labeller(hash_key: bytes | None) -> Callable[[str], str]:
    """Return how numbers are shown: as they are, or as their keyed hash."""
    return NumberHash(hash_key) if hash_key else str


@dataclass(frozen=True, slots=True)
class Healing:
    """What is known of healing a target's DIDs: the counts of this process, and what holds it back now."""

    mode: str = "off"
    attempts: Mapping[Outcome, int] = field(default_factory=lambda: MappingProxyType(dict.fromkeys(COUNTED, 0)))
    would: int = 0
    blocked: frozenset[Guard] = frozenset()
    in_flight: int = 0
    quarantined: int = 0
    relapses: int = 0


@dataclass(frozen=True, slots=True)
class TargetState:
    """All that is known of a target.

    `up` is `None` until a poll ended. `snapshot` is `None` until one was complete and when the last one is stale;
    `memory` keeps what the DIDs were like even then, so that no change of state is lost or invented. Times are Unix
    seconds.
    """

    target: Target
    up: bool | None = None
    failure: Reason | None = None  # of the last poll, where it failed
    snapshot: Snapshot | None = None
    memory: Mapping[str, Did] = field(default_factory=dict)
    polls: int = 0
    failures: Mapping[Reason, int] = field(default_factory=lambda: MappingProxyType(dict.fromkeys(Reason, 0)))
    anomalies: Mapping[Anomaly, int] = field(default_factory=lambda: MappingProxyType(dict.fromkeys(Anomaly, 0)))
    duration: float | None = None  # seconds, the last poll's
    last_success: float | None = None
    interval: float = 0.0  # seconds between polls, as planned
    healing: Healing = Healing()

    def holds(self, number: str) -> bool:
        """Whether the last complete poll contained the DID."""
        did = self.memory.get(number)
        return did is not None and did.state != MISSING


@dataclass(frozen=True, slots=True)
class Fleet:
    """All targets' states and the words they use. Immutable: a reader keeps one and is never surprised."""

    targets: Mapping[Target, TargetState] = field(default_factory=dict)
    connections: Mapping[Target, Connection] = field(default_factory=dict)  # all that the API listed, monitored or not
    states: Vocabulary = STATES
    codes: Vocabulary = CODES

    def of_account(self, account: str) -> list[TargetState]:
        """Return the states of an account's targets, in order."""
        return [state for target, state in sorted(self.targets.items()) if target.account == account]

    def with_target(self, state: TargetState) -> Fleet:
        """Return the fleet with one target's state replaced or added."""
        return replace(self, targets={**self.targets, state.target: state})

    def without(self, target: Target) -> Fleet:
        """Return the fleet without a target."""
        return replace(self, targets={key: state for key, state in self.targets.items() if key != target})


def poll_failed(state: TargetState, reason: Reason, duration: float) -> TargetState:
    """Return the state after a failed poll: nothing that was known of the DIDs changes."""
    failures = {**state.failures, reason: state.failures[reason] + 1}
    return replace(state, up=False, failure=reason, polls=state.polls + 1, failures=failures, duration=duration)


def recalled(target: Target, known: Mapping[str, tuple[str, float, int]], healing: Healing) -> TargetState:
    """Return a target's first state, with what was known of its DIDs: state, since when, how many changes."""
    dids = {
        number: Did(Entry(number, state), state, since=since, changes=changes)
        for number, (state, since, changes) in known.items()
    }
    return TargetState(target, memory=MappingProxyType(dids), healing=healing)


def annotate(state: TargetState, healing: Healing, states: Mapping[str, HealState] | None) -> TargetState:
    """Return the state with where each DID is in its heal; DIDs that `states` doesn't name are idle.

    `None` leaves that as it is.
    """
    if states is None:
        return replace(state, healing=healing)
    wanted = {number: _shown(states.get(number, HealState.IDLE)) for number in state.memory}
    changed = {
        number: replace(did, heal=wanted[number]) for number, did in state.memory.items() if did.heal != wanted[number]
    }
    if not changed:
        return replace(state, healing=healing)
    memory = MappingProxyType({**state.memory, **changed})
    snapshot = state.snapshot and replace(state.snapshot, dids=memory)  # a snapshot shows what is remembered
    return replace(state, healing=healing, memory=memory, snapshot=snapshot)


def reviewed(state: TargetState, watch: Watch, heal_mode: str) -> TargetState:
    """Return the state under another configuration: DIDs that are still monitored, with the labels that it gives them.

    What is missing from now on, the next complete poll tells.
    """
    memory = MappingProxyType(
        {
            number: _relabelled(did, watch, heal_mode)
            for number, did in state.memory.items()
            if _still_wanted(did, watch)
        }
    )
    snapshot = state.snapshot and replace(state.snapshot, dids=memory)
    return replace(state, memory=memory, snapshot=snapshot, healing=replace(state.healing, mode=heal_mode))


def _still_wanted(did: Did, watch: Watch) -> bool:
    return watch.wants(did.entry) and (did.state != MISSING or watch.find(did.entry) is not None)


def _relabelled(did: Did, watch: Watch, heal_mode: str) -> Did:
    """Return the DID with its labels; the very same object where they stay as they are."""
    heal = "" if heal_mode == "off" else did.heal
    shown = (watch.label(did.number), watch.labels(did.entry), heal)
    return (
        did if (did.label, did.labels, did.heal) == shown else replace(did, label=shown[0], labels=shown[1], heal=heal)
    )


def _shown(state: HealState) -> str:
    return "" if state is HealState.IDLE else state.value


def expire(state: TargetState, now: float, stale_after: float, passed: float = 0.0) -> TargetState:
    """Return the state without its snapshot when that is older than `stale_after` seconds.

    `passed` is its age on a clock that nobody sets; the greater age counts. Where the interval had to be stretched
    beyond `stale_after`, data lasts for two intervals, or it would be gone before each poll.
    """
    if state.snapshot is None:
        return state
    patience = stale_after if state.interval <= stale_after else 2 * state.interval
    return replace(state, snapshot=None) if max(now - state.snapshot.at, passed) > patience else state


def poll_succeeded(
    fleet: Fleet,
    target: Target,
    answer: Answer,
    watch: Watch,
    *,
    at: float,
    duration: float,
    asked: float = 0.0,
    heard: float = 0.0,
) -> Fleet:
    """Return the fleet after a complete poll of one target.

    `at` is when its request left, `asked` the same on a clock that nobody sets, `heard` when its answer was there.
    Words that the API used for the first time join the vocabularies.
    """
    before = fleet.targets[target]
    entries, duplicates = _monitored(answer, watch, before.memory)
    states, codes = _learn(fleet, entries.values())
    unknown = sum(states.show(entry.state) == OTHER for entry in entries.values())
    unknown += sum(codes.show(code) == OTHER for entry in entries.values() for code in entry.issues)
    fleet = replace(fleet, states=states, codes=codes)
    absent = _missing(fleet, before, entries, watch)
    dids = {
        entry.number: _did(before.memory.get(entry.number), entry, state, codes=fleet.codes, watch=watch, at=at)
        for entry, state in [
            *((entry, states.show(entry.state)) for entry in entries.values()),
            *((entry, MISSING) for entry in absent),
        ]
    }
    memory = MappingProxyType({number: dids[number] for number in sorted(dids)})
    counted = Counter(answer.anomalies)
    counted.update({Anomaly.DUPLICATE_DID: duplicates, Anomaly.UNKNOWN_CODE: unknown})
    return fleet.with_target(
        replace(
            before,
            up=True,
            failure=None,
            snapshot=Snapshot(target, at, memory, answer.drift_items, asked=asked, heard=heard),
            memory=memory,
            polls=before.polls + 1,
            anomalies={kind: count + counted[kind] for kind, count in before.anomalies.items()},
            duration=duration,
            last_success=at,
        )
    )


def _monitored(answer: Answer, watch: Watch, memory: Mapping[str, Did]) -> tuple[dict[str, Entry], int]:
    """Return the entries that are monitored by number, the first of each, and how many were repeated.

    A DID that is configured by its id stays known by its number when the API leaves the id out.
    """
    entries: dict[str, Entry] = {}
    duplicates = 0
    for each in answer.entries:
        entry = each
        if watch.by_id and entry.did_id is None and entry.number in memory:
            entry = replace(entry, did_id=memory[entry.number].entry.did_id, id_remembered=True)
        if watch.wants(entry):
            first = entries.setdefault(entry.number, entry)
            if first is not entry:
                duplicates += 1
                entries[entry.number] = replace(first, repeated=True)
    return entries, duplicates


def _learn(fleet: Fleet, entries: Iterable[Entry]) -> tuple[Vocabulary, Vocabulary]:
    states, codes = fleet.states, fleet.codes
    for entry in entries:
        states = states.learn(entry.state)
        for code in entry.issues:
            codes = codes.learn(code)
    return states, codes


def _missing(fleet: Fleet, before: TargetState, entries: Mapping[str, Entry], watch: Watch) -> list[Entry]:
    """Return an entry for every configured DID that is nowhere and whose absence is this target's to report.

    A DID is reported by the target that had it last. One that was never seen is reported by the account's first target,
    once every target of the account had a complete poll: until then it may be in one that hasn't answered.
    """
    if not watch.selective:
        return []
    account = fleet.of_account(before.target.account)
    others = [state for state in account if state.target != before.target]
    first = account[0].target == before.target and all(state.last_success is not None for state in others)
    numbers = _numbers_by_id(before, others, entries) if watch.by_id else {}
    absent = []
    for configured in (*watch.by_number.values(), *watch.by_id.values()):
        number = configured.did_number or numbers.get(configured.did_id) or configured.key
        if number in entries or any(state.holds(number) for state in others):
            continue
        known = before.memory.get(number)
        elsewhere = [state.memory[number].since for state in others if number in state.memory]
        had_it_last = known and (known.state != MISSING or all(known.since > since for since in elsewhere))
        if had_it_last or (first and not known and not elsewhere):
            last = known.entry if known else Entry(number, MISSING, did_id=configured.did_id)
            absent.append(
                Entry(number, MISSING, did_id=last.did_id, client_id=last.client_id, friendly_name=last.friendly_name)
            )
    return absent


def _numbers_by_id(
    before: TargetState, others: Iterable[TargetState], entries: Mapping[str, Entry]
) -> dict[int | None, str]:
    """Return the number of every DID whose id was ever named, by id.

    What this poll says wins, then what another target holds, then the last number there was.
    """
    best: dict[int | None, tuple[tuple[bool, bool, float], str]] = {}
    for state in (before, *others):
        for number, did in state.memory.items():
            held = did.state != MISSING and state is not before
            worth = (held, not number.startswith("did:"), did.since)
            known = best.get(did.entry.did_id)
            if known is None or worth > known[0]:
                best[did.entry.did_id] = worth, number
    remembered = {did_id: number for did_id, (_, number) in best.items()}
    return {**remembered, **{entry.did_id: entry.number for entry in entries.values()}}


def _did(before: Did | None, entry: Entry, state: str, *, codes: Vocabulary, watch: Watch, at: float) -> Did:
    shown = tuple(dict.fromkeys(codes.show(code) for code in entry.issues))
    same = before is not None and before.entry == entry and before.state == state and before.codes == shown
    if before and before.label and same:  # what was recalled from before the start has no labels yet
        return before
    changed = before is not None and before.state != state
    return Did(
        entry=entry,
        state=state,
        codes=shown,
        since=before.since if before and not changed else at,
        changes=(before.changes if before else 0) + changed,
        label=watch.label(entry.number),
        labels=watch.labels(entry),
        heal=before.heal if before else "",
    )
