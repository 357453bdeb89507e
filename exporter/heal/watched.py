"""What the controller holds of a target: what its polls said, and what was decided about its DIDs."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from exporter.heal.assess import Followed, restarted
from exporter.heal.guards import TargetHealth
from exporter.model import MISSING, HealState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from exporter.heal.decide import Send
    from exporter.heal.guards import ActiveGuard
    from exporter.model import Did, Guard, Snapshot, Target
    from exporter.snapshots import Healing
    from exporter.store.records import Attempt, Counts, DidRecord, Transition


@dataclass(slots=True)
class TargetHealState:
    """State of healing on a target, as this process knows it."""

    health: TargetHealth
    healing: Healing
    polls: int = -1  # polls of the target, up to the last that was judged
    asked: float = 0.0  # when that one's request left, on the clock's `monotonic`
    asked_at: float = 0.0  # and on the wall clock, as it was set then
    heard: float = 0.0  # when its answer was there, on the clock's `monotonic`
    complete: int = 0  # those of them that were complete
    followed: Mapping[str, Followed] = field(default_factory=dict)
    sends: Mapping[str, Send] = field(default_factory=dict)  # by number, what the last judged poll asks to be sent
    states: Mapping[str, HealState] = field(default_factory=dict)
    last_decisions: Mapping[str, str] = field(default_factory=dict)  # by number, what was decided about it and why
    active_guards: tuple[ActiveGuard, ...] = ()
    logged_guards: frozenset[Guard] = frozenset()
    quarantined: int = 0  # DIDs of the target, as of the last judged poll
    unwritten: list[Transition] = field(default_factory=list)
    written: bool = True  # whether the store has every DID's state, but for `unwritten`
    gone: set[str] = field(default_factory=set)

    @property
    def target(self) -> Target:
        """Whose state it is."""
        return self.health.target

    def seconds_to(self, snapshot: Snapshot) -> float:
        """Return how many seconds lie between the last poll and a newer one, at least.

        What an answer says was so at some moment between its request and itself.
        """
        return min(snapshot.asked - self.asked, snapshot.heard - self.heard)

    def begin_anew(self, mode: str) -> None:
        """Forget what counts towards a heal, as a restart would; what was counted for the metrics stays."""
        self.health, self.active_guards, self.last_decisions = TargetHealth(self.health.target), (), {}
        self.sends, self.states = {}, {}
        self.followed = {number: restarted(followed) for number, followed in self.followed.items()}
        self.healing = replace(self.healing, mode=mode)


def is_of(attempt: Attempt, target: Target) -> bool:
    """Whether an attempt was made for a target's DID."""
    return (attempt.account, attempt.connection) == (target.account, target.connection)


def is_listed(snapshot: Snapshot, attempt: Attempt) -> bool:
    """Whether the API listed an attempt's DID in a poll, so that the poll tells something of it."""
    did = snapshot.dids.get(attempt.number)
    if did is None or did.state == MISSING:
        return False
    return did.entry.id_remembered or None in {did.entry.did_id, attempt.did_id} or did.entry.did_id == attempt.did_id


def held_by_did_id(
    sends: Iterable[Send], records: Mapping[str, DidRecord], counts: Mapping[str, Counts], now: float
) -> dict[str, str]:
    """Return by number why some sends wait: for what is known of the same DID under another number."""
    known: dict[int | None, dict[str, str]] = defaultdict(dict)  # by `did_id` and number
    for record in records.values():
        if record.state is HealState.QUARANTINED or (record.state is HealState.BACKOFF and now < record.until):
            known[record.did_id][record.number] = f"{record.state}: {record.reason}"
    for count in counts.values():
        if count.open:
            known[count.open.did_id][count.open.number] = f"attempt {count.open.id} is open"
    return {
        send.number: f"another number has the same did_id, and of that: {reason}"
        for send in sends
        if send.did_id is not None
        for number, reason in known.get(send.did_id, {}).items()
        if number != send.number
    }


def unhealthy_of(dids: Mapping[str, Did], counts: Mapping[str, Counts], target: Target) -> int:
    """Count DIDs that are not ready, and those that a heal may still act on."""
    acted_on = {
        number for number, count in counts.items() if count.open and (number in dids or is_of(count.open, target))
    }
    return len({number for number, did in dids.items() if not did.ready} | acted_on)
