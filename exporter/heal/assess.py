"""One complete poll of a target against what is known of its DIDs: the policy, applied to all of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exporter.heal.decide import Decision, Send, Track, advance, asked_after, classify, decide, doubt, judged_by
from exporter.model import HealState, Target
from exporter.store.records import Counts, DidRecord

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.config.schema import Heal
    from exporter.model import Did, Snapshot
    from exporter.snapshots import Watch
    from exporter.store.records import Attempt

_NEW = Track()


@dataclass(frozen=True, slots=True)
class Followed:
    """A track, and the version of the record that it goes with: when another replica changes that, it starts anew."""

    track: Track = _NEW
    version: int = 0


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a poll asks to be done, DID by DID. DIDs that are idle and fine are not named."""

    decisions: tuple[Decision, ...]
    followed: Mapping[str, Followed]

    @property
    def states(self) -> dict[str, HealState]:
        """Where each DID is in its heal."""
        return {decision.number: decision.state for decision in self.decisions}

    @property
    def changes(self) -> bool:
        """Whether anything is to be changed in the ledger before something is sent."""
        return any(decision.action and not isinstance(decision.action, Send) for decision in self.decisions)

    @property
    def sends(self) -> list[Send]:
        """What is to be sent if the guards allow, what has been broken longest first."""
        sends = [decision.action for decision in self.decisions if isinstance(decision.action, Send)]
        return sorted(sends, key=lambda send: (send.broken_since or 0.0, send.number))

    def without_sends(self, held: Mapping[str, str]) -> Assessment:
        """Return it without the sends for some numbers, each with the reason."""
        decisions = (
            replace(each, action=None, why=held[each.number])
            if each.number in held and isinstance(each.action, Send)
            else each
            for each in self.decisions
        )
        return replace(self, decisions=tuple(decisions))


def assess(
    snapshot: Snapshot,
    watch: Watch,
    followed: Mapping[str, Followed],
    records: Mapping[str, DidRecord],
    counts: Mapping[str, Counts],
    *,
    broken: Sequence[tuple[Target, Did]] = (),
    config: Heal,
    asked_at: float,
    passed: float,
    now: float,
) -> Assessment:
    """Decide about every DID of a target that is not simply fine.

    `records` and `counts` are those of all accounts; `broken` is as in `decide.doubt`, `passed` as in `decide.advance`.
    A poll says nothing about a DID whose record changed after its request left, which was at the Unix time `asked_at`.
    """
    decisions: list[Decision] = []
    kept: dict[str, Followed] = {}
    others = _by_identity(broken)
    for number in _concerned(snapshot, config, followed, records, counts):
        record = records.get(number) or DidRecord(number, snapshot.target.account, snapshot.target.connection)
        known, count = followed.get(number, Followed()), counts.get(number, Counts())
        if record.since >= asked_at and not count.open:
            kept[number] = Followed(_NEW, record.version)
            decisions.append(Decision(number, record.state, "it changed after this poll began"))
            continue
        track = known.track if known.version == record.version else Track(broken_since=known.track.broken_since)
        did = snapshot.dids.get(number)
        configured = watch.find(did.entry) if did else None
        healed = judged_by(record, count.open, config)
        seen = shown = classify(did, configured, healed)
        if did is not None:
            same = {number, did.entry.did_id, count.open.did_id if count.open else record.did_id}
            alike = [other for identity in same for other in others.get(identity, ())]
            seen = doubt(did, shown, record, count.open, alike, target=snapshot.target, healed=healed)
        attempt = count.open if count.open and asked_after(count.open, asked_at) else None
        track = advance(track, seen, snapshot.at, passed, attempt)
        decision = decide(
            did, seen, track, record, count, target=snapshot.target, configured=configured, config=config, now=now
        )
        if seen is not shown:
            decision = replace(decision, why=f"{decision.why}; {seen.why_not}")
        decisions.append(decision)
        if track != _NEW or decision.state is not HealState.IDLE:
            kept[number] = Followed(track, record.version)
    return Assessment(tuple(decisions), kept)


def _by_identity(broken: Sequence[tuple[Target, Did]]) -> Mapping[str | int | None, list[tuple[Target, Did]]]:
    """Return DIDs by their numbers and by their `did_id`."""
    found: dict[str | int | None, list[tuple[Target, Did]]] = defaultdict(list)
    for target, did in broken:
        found[did.number].append((target, did))
        if did.entry.did_id is not None:
            found[did.entry.did_id].append((target, did))
    return found


def _concerned(
    snapshot: Snapshot,
    config: Heal,
    followed: Mapping[str, Followed],
    records: Mapping[str, DidRecord],
    counts: Mapping[str, Counts],
) -> list[str]:
    """Return the numbers there is something to say about, in order."""
    issues = set(config.issues)
    broken = {
        number
        for number, did in snapshot.dids.items()
        if not did.ready and (did.state in issues or not issues.isdisjoint(did.entry.issues))
    }
    broken |= {number for number, did in snapshot.dids.items() if did.ready and did.entry.issues}
    here = snapshot.target  # and a DID that came here from another connection, or before connections could be listed
    known = {
        number
        for number, record in records.items()
        if record.state is not HealState.IDLE and (_is_here(record, here) or number in snapshot.dids)
    }
    tried = {
        number
        for number, count in counts.items()
        if count.open and (_is_here(count.open, here) or number in snapshot.dids)
    }
    return sorted(broken | known | tried | {number for number in followed if number in snapshot.dids})


def _is_here(record: DidRecord | Attempt, target: Target) -> bool:
    return (record.account, record.connection) == (target.account, target.connection)


def restarted(followed: Followed) -> Followed:
    """Return a track that counts from now on, after something was decided on it."""
    return replace(followed, track=Track(broken_since=followed.track.broken_since))
