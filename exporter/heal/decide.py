"""What is to be done about one DID: observations and records in, decisions out.

Pure: no clock, no I/O, no randomness of its own. A DID is judged by the polls of this process (`Track`) and by what all
replicas know of it (`DidRecord`, `Attempt`), as if no guard of the fleet existed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final

from exporter.config import format_duration
from exporter.model import MISSING, READY, Did, HealState, Target
from exporter.store.records import HOUR, Attempt, Counts, DidRecord, Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from exporter.config import ConfiguredDid
    from exporter.config.schema import Heal

WOULD_HOLD: Final = HOUR  # observe mode leaves a DID alone for so long after it would have sent
CLEAN_POLLS: Final = 2  # in a row, without any of the issues that healing is for: the DID is repaired
VERIFIED: Final = f"{CLEAN_POLLS} complete polls without the issue"


class Kind(Enum):
    """What one complete poll says of a DID, as healing sees it."""

    CLEAN = auto()  # it is there, and has none of the issues that healing is for
    HEALABLE = auto()
    OTHER = auto()  # it is broken in a way that call-ready is not to be tried on
    ABSENT = auto()  # it is not there, so that nothing is known of it


@dataclass(frozen=True, slots=True)
class Observation:
    """One complete poll's word on one DID."""

    kind: Kind
    issues: tuple[str, ...] = ()
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Track:
    """What the polls of this process saw of a DID, without a gap.

    Durations are in seconds and count only time between two complete polls in a row that list the DID: what happened
    while polls failed, or did not list it, is not known, and not knowing is neither good nor bad.
    """

    broken_polls: int = 0
    broken_for: float = 0.0
    broken_since: float | None = None  # Unix time of the first poll of the incident
    clean_polls: int = 0
    clean_for: float = 0.0
    attempt: int | None = None  # the attempt that is being verified
    unresolved_for: float = 0.0  # since its answer was there
    absent: bool = False  # from the last poll


@dataclass(frozen=True, slots=True)
class Send:
    """Heal this DID, if the guards let it through."""

    number: str
    issues: tuple[str, ...]
    body: dict[str, Any]
    broken_since: float | None
    version: int = 0  # of the record that this was decided on
    did_id: int | None = None  # of the DID, also where only an earlier poll named it


@dataclass(frozen=True, slots=True)
class Resolve:
    """End an open attempt by what the polls saw."""

    attempt: Attempt
    succeeded: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Move:
    """Change what all replicas know of a DID. `relapse`: it broke again within probation."""

    record: DidRecord  # as it was: the change is refused when it isn't any more
    state: HealState
    reason: str
    relapse: bool


Action = Send | Resolve | Move


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about one DID, and in words why, or why nothing."""

    number: str
    state: HealState
    why: str
    action: Action | None = None


def judged_by(record: DidRecord, attempt: Attempt | None, config: Heal) -> tuple[str, ...]:
    """Return the issues by which a DID is judged now.

    An open attempt, and what followed from it, are judged by those that its maker heals: replicas with different
    `heal.issues` come to the same end.
    """
    if attempt is not None:
        return attempt.heal_issues or tuple(dict.fromkeys((*attempt.issues, *config.issues)))
    if record.state is HealState.IDLE:
        return config.issues
    return record.heal_issues or config.issues


def classify(did: Did | None, configured: ConfiguredDid | None, healed: Collection[str]) -> Observation:
    """Say what a complete poll means for healing a DID; `None` is one that it did not contain.

    `healed` are the issues that healing is for.
    """
    if did is None or did.state == MISSING:
        return Observation(Kind.ABSENT, why_not="the API does not list it")
    issues = tuple(issue for issue in did.entry.issues if issue in healed)
    if not issues and did.state in healed:
        issues = (did.state,)
    if not issues:
        return Observation(Kind.CLEAN)
    return (
        Observation(Kind.HEALABLE, issues)
        if not (why := _not_healable(did, configured))
        else Observation(Kind.OTHER, issues, why)
    )


def doubt(
    did: Did,
    seen: Observation,
    record: DidRecord,
    attempt: Attempt | None,
    broken: Iterable[tuple[Target, Did]],
    *,
    target: Target,
    healed: Collection[str],
) -> Observation:
    """Return an observation, or that nothing is known, where it may be about another DID or is contradicted.

    A number can be given another DID, and a DID another number; and one connection can show well what another one
    shows broken. `broken` are the DIDs with issues, of all targets that were polled lately, that have its number or a
    `did_id` of it. What was sent for a DID is ended by what is seen of that DID, and a DID is clean when nothing says
    that it is broken.
    """
    healed_id = attempt.did_id if attempt else record.did_id
    own_id = None if did.entry.id_remembered else did.entry.did_id
    locked = attempt is not None or record.state in {HealState.QUARANTINED, HealState.BACKOFF}
    if locked and None not in {own_id, healed_id} and own_id != healed_id:
        return Observation(Kind.ABSENT, why_not=f"the API lists it with did_id {own_id}, and {healed_id} was healed")
    if seen.kind is not Kind.CLEAN:
        return seen
    did_id = own_id if healed_id is None else healed_id
    for where, other in broken:
        if (where, other.number) == (target, did.number):
            continue
        other_id = other.entry.did_id
        other_did = None not in {did_id, other_id} and did_id != other_id
        same = (did_id is not None and did_id == other_id) or (other.number == did.number and not other_did)
        if same and (issues := classify(other, None, healed).issues):
            place = f"on connection {where.connection}" if where != target else "under another number"
            return Observation(Kind.ABSENT, why_not=f"it has no issue here, and {', '.join(issues)} {place}")
    return seen


def _not_healable(did: Did, configured: ConfiguredDid | None) -> str:
    entry = did.entry
    if configured and not configured.heal:
        return "the configuration says heal: false"
    if did.state == READY:
        return "the API says READY and names an issue at once"
    if entry.repeated:
        return "the API lists it more than once"
    if (entry.did_id is None or entry.id_remembered) and not entry.did_number:
        return "the API names no purchased DID for it"
    if entry.expired is None:
        return "the API does not say whether it is expired"
    if entry.expired:
        return "it is expired at VoiceLink; renew it there"
    if entry.client_id is None and not (configured and configured.client_id):
        return "no client is mapped; map one at VoiceLink, or name client_id in the configuration of this DID"
    return ""


def advance(track: Track, seen: Observation, at: float, passed: float, attempt: Attempt | None) -> Track:
    """Return the track after one more complete poll.

    `at` is when its request left, `passed` the seconds since that of the complete poll right before it, or 0 where the
    one before was not complete. `attempt` is the DID's open attempt.
    """
    clean, broken, absent = seen.kind is Kind.CLEAN, seen.kind is Kind.HEALABLE, seen.kind is Kind.ABSENT
    answered = attempt is not None and attempt.status in {Status.VERIFYING, Status.AMBIGUOUS}
    same = answered and attempt is not None and track.attempt == attempt.id
    if answered and not same:  # what was seen before the answer says nothing about it
        track = Track(broken_since=track.broken_since)
    seen_for = 0.0 if absent or track.absent else passed
    return Track(
        broken_polls=track.broken_polls + 1 if broken else 0,
        broken_for=track.broken_for + passed if broken and track.broken_polls else 0.0,
        broken_since=(track.broken_since or at) if seen.issues else None,
        clean_polls=track.clean_polls + 1 if clean else 0,
        clean_for=track.clean_for + passed if clean and track.clean_polls else 0.0,
        attempt=attempt.id if answered and attempt else None,
        unresolved_for=track.unresolved_for + seen_for if same else 0.0,
        absent=absent and answered,
    )


def asked_after(attempt: Attempt, asked_at: float) -> bool:
    """Whether a poll's request left after an attempt was answered, or sent, so that it can tell what came of it."""
    return asked_at > (attempt.answered_at or attempt.sent_at or attempt.claimed_at)


def decide(
    did: Did | None,
    seen: Observation,
    track: Track,
    record: DidRecord,
    attempts: Counts,
    *,
    target: Target,
    configured: ConfiguredDid | None,
    config: Heal,
    now: float,
) -> Decision:
    """Decide about one DID, as if no guard of the fleet existed."""
    if attempts.open:
        return _verify(attempts.open, track, record.number, config)
    match record.state:
        case HealState.QUARANTINED:
            return _quarantined(track, record, config)
        case HealState.PROBATION:
            return _on_probation(seen, track, record, config)
        case HealState.BACKOFF:
            return _backing_off(track, record, now)
        case _:  # idle: that a DID is pending, in flight or verifying is never in its record
            return _confirm(
                did, seen, track, attempts, record, target=target, configured=configured, config=config, now=now
            )


def _quarantined(track: Track, record: DidRecord, config: Heal) -> Decision:
    if track.clean_for >= config.probation.total_seconds():
        return _move(record, HealState.IDLE, f"clean for {format_duration(config.probation)}, so it leaves quarantine")
    why = f"quarantined: {record.reason}; lift it with heal release {record.number} --reason TEXT"
    return Decision(record.number, record.state, why)


def _on_probation(seen: Observation, track: Track, record: DidRecord, config: Heal) -> Decision:
    span = format_duration(config.probation)
    if seen.issues:
        return _move(record, HealState.BACKOFF, f"broken again ({', '.join(seen.issues)})", relapse=True)
    if track.clean_for >= config.probation.total_seconds():
        return _move(record, HealState.IDLE, f"clean for {span}: its attempts are forgotten")
    return Decision(record.number, record.state, f"repaired; on probation for {span}")


def _backing_off(track: Track, record: DidRecord, now: float) -> Decision:
    if track.clean_polls >= CLEAN_POLLS:
        return _move(record, HealState.PROBATION, "recovered by itself")
    if now < record.until:
        why = f"in backoff for another {record.until - now:.0f} s: {record.reason}"
        return Decision(record.number, record.state, why)
    return _move(record, HealState.IDLE, "backoff is over")


def _verify(attempt: Attempt, track: Track, number: str, config: Heal) -> Decision:
    if attempt.status in {Status.CLAIMED, Status.SENT}:
        return Decision(number, HealState.IN_FLIGHT, f"a request is under way since {_clock(attempt.claimed_at)}")
    if track.attempt == attempt.id and track.clean_polls >= CLEAN_POLLS:
        return Decision(
            number,
            HealState.VERIFYING,
            "the polls see it repaired",
            Resolve(attempt, succeeded=True, reason=VERIFIED),
        )
    within = config.verify_within
    # A poll that is clean when the time is up gets its second one; a DID that flaps does not get for ever.
    still_broken = track.attempt == attempt.id and not track.clean_polls and not track.absent
    if still_broken and track.unresolved_for >= within.total_seconds():
        return Decision(
            number,
            HealState.VERIFYING,
            "the polls still see the issue",
            Resolve(
                attempt, succeeded=False, reason=f"not repaired within {format_duration(within)} of complete polls"
            ),
        )
    return Decision(number, HealState.VERIFYING, f"sent; {CLEAN_POLLS} complete polls without the issue will tell")


def _confirm(
    did: Did | None,
    seen: Observation,
    track: Track,
    attempts: Counts,
    record: DidRecord,
    *,
    target: Target,
    configured: ConfiguredDid | None,
    config: Heal,
    now: float,
) -> Decision:
    number = record.number
    if seen.kind is not Kind.HEALABLE or did is None:
        why = f"not healable: {seen.why_not}" if seen.why_not else "nothing to heal"
        return Decision(number, HealState.IDLE, why)
    if track.broken_polls < config.confirm_polls or track.broken_for < config.confirm_for.total_seconds():
        return Decision(
            number,
            HealState.PENDING,
            f"{', '.join(seen.issues)} in {track.broken_polls} of {config.confirm_polls} complete polls, "
            f"for {track.broken_for:.0f} s of {format_duration(config.confirm_for)}",
        )
    charged = attempts.charged_since(now - config.attempts_window.total_seconds())
    if charged >= config.max_attempts:  # as when the configuration lowered that
        tries = f"{charged} attempts in {format_duration(config.attempts_window)}"
        return _move(replace(record, heal_issues=config.issues), HealState.QUARANTINED, tries)
    if config.mode == "observe" and now - attempts.would_at < WOULD_HOLD:
        return Decision(number, HealState.PENDING, "observe mode would have sent within the last hour")
    return Decision(
        number,
        HealState.PENDING,
        f"{', '.join(seen.issues)} confirmed",
        Send(
            number,
            seen.issues,
            request_body(did, target, configured),
            track.broken_since,
            record.version,
            did.entry.did_id,
        ),
    )


def request_body(did: Did, target: Target, configured: ConfiguredDid | None) -> dict[str, Any]:
    """Return the body of call-ready for a DID.

    The DID goes by its `did_id` as this very observation named it, by its number only where it named none. Nothing else
    is copied from observations: the rest is what the configuration names for this DID.
    """
    unnamed = did.entry.did_id is None or did.entry.id_remembered
    body: dict[str, Any] = {"did_number": did.number.removeprefix("+")} if unnamed else {"did_id": did.entry.did_id}
    if target.connection_id:
        body["connection_id"] = target.connection_id
    for name in ("client_id", "agent_id", "bot_name", "websocket_url"):
        value = getattr(configured, name, None)
        if value is not None:
            body[name] = value
    return body


def _move(record: DidRecord, state: HealState, why: str, *, relapse: bool = False) -> Decision:
    return Decision(record.number, state, why, Move(record, state, why, relapse))


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
