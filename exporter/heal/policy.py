"""What healing does: observations and records in, decisions out. Pure: no clock, no I/O, no randomness of its own.

Three things are judged, each by its own functions:
- a DID: from the polls of this process (`Track`) and what all replicas know of it (`DidRecord`, `Attempt`);
- a target's data: whether it can be relied on (`TargetView`);
- an account's budgets: from the ledger (`AccountRecord`), once to plan and again inside each claim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from exporter.config import format_duration
from exporter.heal.windows import open_window
from exporter.model import MISSING, READY, Did, Guard, HealState, Outcome, Target
from exporter.store.records import HOUR, LATE, AccountRecord, Attempt, Counts, DidRecord, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from exporter.config import ConfiguredDid
    from exporter.config.schema import Heal

MINUTE: Final = 60.0
WOULD_HOLD: Final = HOUR  # observe mode leaves a DID alone for so long after it would have sent
CLEAN_POLLS: Final = 2  # in a row, without any of `heal.issues`: it is mended
AGREEING_POLLS: Final = 3  # in a row, under `max_unhealthy`, or that agree about a shrunken fleet
LEAST_UNHEALTHY: Final = 3  # `max_unhealthy` never means fewer
SUSPECT_SHARE: Final = 0.1  # of the DIDs, lost from one poll to the next
SUSPECT_LEAST: Final = 3


FORCEABLE: Final = frozenset(Guard) - {Guard.STORE, Guard.RATE_LIMITED, Guard.STALE}
"""What a person may override for one heal: not the lock, not the vendor's limit, not the lack of data."""

Held = tuple[Guard, str]  # a guard and, in words, why it holds and what to do


class Kind(StrEnum):
    """What one complete poll says of a DID, as healing sees it."""

    CLEAN = "clean"  # it is there, and has none of `heal.issues`
    HEALABLE = "healable"
    OTHER = "other"  # it is broken in a way that call-ready is not to be tried on


@dataclass(frozen=True, slots=True)
class Observation:
    """One complete poll's word on one DID."""

    kind: Kind
    issues: tuple[str, ...] = ()
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Track:
    """What the polls of this process saw of a DID, without a gap.

    Durations are in seconds and count only time between two complete polls in a row: what happened while polls failed
    is not known, and not knowing is neither good nor bad.
    """

    broken_polls: int = 0
    broken_for: float = 0.0
    broken_since: float | None = None  # Unix time of the first poll of the incident
    clean_polls: int = 0
    clean_for: float = 0.0
    attempt: int | None = None  # the attempt that is being verified
    unresolved_for: float = 0.0  # since its answer was there


@dataclass(frozen=True, slots=True)
class TargetView:
    """What this process knows of a target's data and of itself."""

    target: Target
    at: float = 0.0  # Unix time of the data
    interval: float = 0.0
    complete_polls: int = 0  # since the start
    total: int = 0
    listed: int = 0  # those of them that the API listed
    unhealthy: int = 0
    held_since_over: bool = False  # unhealthy was over the limit, and not yet long enough under it
    polls_under: int = 0
    suspect: str = ""  # why the last polls are doubted
    suspect_at: float = 0.0
    suspect_listed: int = 0
    suspect_agreed: int = 0
    suspect_before: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Heal this DID, if the guards let it through."""

    number: str
    issues: tuple[str, ...]
    body: dict[str, Any]
    broken_since: float | None


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
    relapse: bool = False


Action = Send | Resolve | Move


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done about one DID, and in words why, or why nothing."""

    number: str
    state: HealState
    why: str
    action: Action | None = None


def observe(did: Did | None, configured: ConfiguredDid | None, config: Heal) -> Observation:
    """Say what a complete poll means for healing a DID; `None` is one that it did not contain."""
    if did is None or did.state == MISSING:
        return Observation(Kind.OTHER, why_not="the API does not list it")
    issues = tuple(issue for issue in did.entry.issues if issue in config.issues)
    if not issues and did.state in config.issues:
        issues = (did.state,)
    if not issues:
        return Observation(Kind.CLEAN)
    return (
        Observation(Kind.HEALABLE, issues)
        if not (why := _not_healable(did, configured))
        else Observation(Kind.OTHER, issues, why)
    )


def _not_healable(did: Did, configured: ConfiguredDid | None) -> str:
    entry = did.entry
    if configured and not configured.heal:
        return "the configuration says heal: false"
    if did.state == READY:
        return "the API says READY and names an issue at once"
    if entry.repeated:
        return "the API lists it more than once"
    if entry.did_id is None:
        return "the API names no purchased DID for it"
    if entry.expired is None:
        return "the API does not say whether it is expired"
    if entry.expired:
        return "it is expired at VoiceLink; renew it there"
    if entry.client_id is None and not (configured and configured.client_id):
        return "no client is mapped; map one at VoiceLink, or name client_id in the configuration of this DID"
    return ""


def follow(track: Track, seen: Observation, at: float, passed: float, attempt: Attempt | None) -> Track:
    """Return the track after one more complete poll.

    `at` is when its answer was there, `passed` the seconds since the complete poll right before it, or 0 where the one
    before was not complete. `attempt` is the DID's open attempt.
    """
    clean, broken = seen.kind is Kind.CLEAN, seen.kind is Kind.HEALABLE
    answered = attempt is not None and attempt.status in {Status.VERIFYING, Status.AMBIGUOUS}
    same = answered and attempt is not None and track.attempt == attempt.id
    if answered and not same:  # what was seen before the answer says nothing about it
        track = Track(broken_since=track.broken_since)
    return Track(
        broken_polls=track.broken_polls + 1 if broken else 0,
        broken_for=track.broken_for + passed if broken and track.broken_polls else 0.0,
        broken_since=(track.broken_since or at) if seen.issues else None,
        clean_polls=track.clean_polls + 1 if clean else 0,
        clean_for=track.clean_for + passed if clean and track.clean_polls else 0.0,
        attempt=attempt.id if answered and attempt else None,
        unresolved_for=track.unresolved_for + passed if same else 0.0,
    )


def started_after(attempt: Attempt, poll_started: float) -> bool:
    """Whether a poll began after an attempt was answered, or sent, so that it can tell what came of it."""
    return poll_started > (attempt.answered_at or attempt.sent_at or attempt.claimed_at)


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
    return Decision(record.number, record.state, f"mended, and watched for {span}")


def _backing_off(track: Track, record: DidRecord, now: float) -> Decision:
    if track.clean_polls >= CLEAN_POLLS:
        return _move(record, HealState.PROBATION, "mended by itself")
    if now < record.until:
        why = f"left alone for another {record.until - now:.0f} s: {record.reason}"
        return Decision(record.number, record.state, why)
    return _move(record, HealState.IDLE, "backoff is over")


def _verify(attempt: Attempt, track: Track, number: str, config: Heal) -> Decision:
    if attempt.status in {Status.CLAIMED, Status.SENT}:
        return Decision(number, HealState.IN_FLIGHT, f"a request is under way since {_clock(attempt.claimed_at)}")
    if track.attempt == attempt.id and track.clean_polls >= CLEAN_POLLS:
        return Decision(
            number,
            HealState.VERIFYING,
            "the polls see it mended",
            Resolve(attempt, succeeded=True, reason=f"{CLEAN_POLLS} complete polls without the issue"),
        )
    within = config.verify_within
    # A poll that is clean when the time is up gets its second one; a DID that flaps does not get for ever.
    if track.attempt == attempt.id and not track.clean_polls and track.unresolved_for >= within.total_seconds():
        return Decision(
            number,
            HealState.VERIFYING,
            "the polls still see the issue",
            Resolve(attempt, succeeded=False, reason=f"not mended within {format_duration(within)} of complete polls"),
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
    if len(attempts.charged) >= config.max_attempts:  # as when the configuration lowered that
        tries = f"{len(attempts.charged)} attempts in {format_duration(config.attempts_window)}"
        return _move(record, HealState.QUARANTINED, tries)
    if config.mode == "observe" and now - attempts.would_at < WOULD_HOLD:
        return Decision(number, HealState.PENDING, "observe mode would have sent within the last hour")
    return Decision(
        number,
        HealState.PENDING,
        f"{', '.join(seen.issues)} confirmed",
        Send(number, seen.issues, request_body(did, target, configured), track.broken_since),
    )


def request_body(did: Did, target: Target, configured: ConfiguredDid | None) -> dict[str, Any]:
    """Return the body of call-ready for a DID: nothing that the configuration doesn't name for this very DID."""
    body: dict[str, Any] = {"did_number": did.number.removeprefix("+")}
    if target.connection_id:
        body["connection_id"] = target.connection_id
    for name in ("client_id", "agent_id", "bot_name", "websocket_url"):
        value = getattr(configured, name, None)
        if value is not None:
            body[name] = value
    return body


def _move(record: DidRecord, state: HealState, why: str, *, relapse: bool = False) -> Decision:
    return Decision(record.number, state, why, Move(record, state, why, relapse))


# After an attempt


def after_end(
    record: DidRecord,
    attempts: Counts,
    outcome: Outcome,
    *,
    quarantine: bool,
    backoff: bool,
    reason: str,
    config: Heal,
    now: float,
    jitter: float,
) -> DidRecord:
    """Return what is known of a DID once an attempt on it ended.

    `attempts.charged` includes the one that ended. `jitter` is from 0 to 1, drawn by the caller.
    """
    if outcome is Outcome.SUCCEEDED:
        return replace(
            record, state=HealState.PROBATION, since=now, until=0.0, failures=0, broken_since=None, reason=reason
        )
    if quarantine or len(attempts.charged) >= config.max_attempts:
        why = (
            reason
            if quarantine
            else f"{len(attempts.charged)} attempts in {format_duration(config.attempts_window)}: {reason}"
        )
        return replace(record, state=HealState.QUARANTINED, since=now, until=0.0, reason=why)
    if not backoff:
        return replace(record, state=HealState.IDLE, since=now, until=0.0, reason=reason)
    failures = record.failures + 1
    return replace(
        record,
        state=HealState.BACKOFF,
        since=now,
        reason=reason,
        failures=failures,
        until=now + backoff_seconds(config, failures, jitter),
    )


def after_move(move: Move, *, attempts: Counts, config: Heal, now: float, jitter: float) -> DidRecord:
    """Return the record after a move that no attempt caused."""
    record = replace(move.record, state=move.state, since=now, until=0.0, reason=move.reason)
    if move.relapse:
        return after_end(
            replace(move.record, broken_since=None),
            attempts,
            Outcome.FAILED,
            quarantine=False,
            backoff=True,
            reason=move.reason,
            config=config,
            now=now,
            jitter=jitter,
        )
    if move.state is HealState.IDLE and move.record.state is not HealState.BACKOFF:
        return replace(record, failures=0, forgotten_at=now, broken_since=None)
    return record


def backoff_seconds(config: Heal, failures: int, jitter: float) -> float:
    """Return how long a DID is left alone after so many unverified heals: doubling, plus up to 25 %."""
    first, most = config.backoff.initial.total_seconds(), config.backoff.max.total_seconds()
    return min(first * 2.0 ** min(failures - 1, 60), most) * (1 + 0.25 * jitter)


# The fleet


def view_after(
    view: TargetView,
    *,
    at: float,
    total: int,
    unhealthy: int,
    config: Heal,
    resumed_at: float,
    listed: int | None = None,
) -> TargetView:
    """Return the view of a target after one more complete poll.

    `listed` are the DIDs that the API listed: all, where nothing else is said.
    """
    over = unhealthy > _most_unhealthy(config, total)
    under = 0 if over else view.polls_under + 1
    held = over or (view.held_since_over and under < AGREEING_POLLS)
    return _suspicion(
        replace(
            view,
            at=at,
            complete_polls=view.complete_polls + 1,
            total=total,
            listed=total if listed is None else listed,
            unhealthy=unhealthy,
            held_since_over=held,
            polls_under=under,
        ),
        before=view,
        resumed_at=resumed_at,
    )


def _suspicion(view: TargetView, *, before: TargetView, resumed_at: float) -> TargetView:
    """Doubt a poll that lost many DIDs until a person, or polls that agree with it, say that it is so."""
    if before.suspect:
        recovered = view.listed >= before.suspect_before - max(SUSPECT_LEAST - 1, before.suspect_before * SUSPECT_SHARE)
        agreed = before.suspect_agreed + 1 if abs(view.listed - before.suspect_listed) < SUSPECT_LEAST else 0
        if recovered or agreed >= AGREEING_POLLS or resumed_at > before.suspect_at:
            return replace(view, suspect="", suspect_agreed=0)
        return replace(view, suspect_agreed=agreed, suspect_listed=view.listed)
    lost = before.listed - view.listed
    if lost >= SUSPECT_LEAST and lost > before.listed * SUSPECT_SHARE:
        return replace(
            view,
            suspect=f"a poll lost {lost} of {before.listed} DIDs",
            suspect_at=view.at,
            suspect_listed=view.listed,
            suspect_agreed=0,
            suspect_before=before.listed,
        )
    return view


def settled(view: TargetView, interval: float, config: Heal) -> TargetView:
    """Return the view of a daemon that has been running for long, for somebody who polled once."""
    return replace(view, interval=interval, complete_polls=max(1, config.hold_off_polls))


def target_guards(view: TargetView, config: Heal, now: float) -> Iterator[Held]:
    """Name the guards of a target's data that hold now."""
    if view.complete_polls < config.hold_off_polls:
        yield Guard.HOLD_OFF, f"{view.complete_polls} of {config.hold_off_polls} complete polls since the start"
    if now - view.at > 2 * view.interval + 1:
        yield Guard.STALE, f"the data is {now - view.at:.0f} s old; see why the polls fail"
    elif view.suspect:
        yield Guard.STALE, f"{view.suspect}; wait for {AGREEING_POLLS} polls that agree, or say so with heal resume"
    if view.held_since_over:
        limit = _most_unhealthy(config, view.total)
        yield (
            Guard.MAX_UNHEALTHY,
            (
                f"{view.unhealthy} of {view.total} DIDs are unhealthy, and more than {limit:g} is too many, "
                f"until {AGREEING_POLLS} complete polls are under it; find the common cause first"
            ),
        )


def account_guards(
    facts: AccountRecord, config: Heal, now: float, *, ramp_start: float, observing: bool = False
) -> Iterator[Held]:
    """Name the guards of an account that hold now. `ramp_start` is when this process started to heal."""
    if facts.paused is not None:
        yield Guard.PAUSED, f"paused: {facts.paused}; start again with heal resume"
    if window := open_window(config.windows, now):
        yield Guard.WINDOW, f"inside the window {window}"
    if facts.latched is not None:
        yield Guard.ACCOUNT_LATCHED, f"{facts.latched}; change the credential or the configuration, or say heal resume"
    if now < facts.key_paused_until:
        yield Guard.RATE_LIMITED, f"the API limits the rate for another {facts.key_paused_until - now:.0f} s"
    sent = facts.would if observing else facts.sent
    if sum(now - at < MINUTE + LATE for at in sent) >= config.requests_per_minute:
        yield Guard.RATE_LIMITED, f"{config.requests_per_minute} heals were sent within a minute"
    if len(sent) >= config.max_per_hour:
        yield Guard.MAX_PER_HOUR, f"{len(sent)} heals were sent within an hour, the most is {config.max_per_hour}"
    broken = _breaker(facts, config, now)
    if broken:
        yield Guard.BREAKER, broken
    if observing:
        return
    closed_at = _breaker_closed_at(facts, config)
    ramping = facts.verified_at <= max(ramp_start, facts.resumed_at, closed_at)
    most = 1 if ramping else config.max_in_flight
    if len(facts.open) >= most:
        until = " until one is verified, which starts every run" if ramping else ""
        yield Guard.MAX_IN_FLIGHT, f"{len(facts.open)} heals are not yet verified, the most is {most}{until}"


def objections(
    facts: AccountRecord,
    record: DidRecord,
    counts: Counts,
    *,
    view: TargetView | None,
    config: Heal,
    now: float,
    ramp_start: float,
    observing: bool = False,
    forced: frozenset[Guard] = frozenset(),
    patient: bool = True,
    version: int | None = None,
) -> Iterator[str]:
    """Name everything that speaks against sending for a DID now; asked again inside each claim, on locked facts.

    `view` is `None` for a person who has just looked; `forced` are guards that person overrides, and without `patient`
    the DID's backoff, too. `version` is that of the record that the decision was made on.
    """
    if counts.open is not None:
        yield f"attempt {counts.open.id} on it is open"
    if record.state is HealState.QUARANTINED:
        yield f"it is quarantined: {record.reason}"
    if patient and record.state is HealState.BACKOFF and now < record.until:
        yield f"it is left alone for another {record.until - now:.0f} s"
    if version is not None and record.version != version:
        yield "another replica changed what is known of it"
    if len(counts.charged) >= config.max_attempts:
        yield f"{len(counts.charged)} attempts within {format_duration(config.attempts_window)} are the most"
    if observing and now - counts.would_at < WOULD_HOLD:
        yield "observe mode would have sent within the last hour"
    held = list(account_guards(facts, config, now, ramp_start=ramp_start, observing=observing))
    held += target_guards(view, config, now) if view else ()
    yield from (f"{guard}: {why}" for guard, why in held if guard not in forced)


def _breaker(facts: AccountRecord, config: Heal, now: float) -> str:
    """Tell why the breaker is open, or that its one probe is under way; an empty string when it is closed."""
    tripped_at = _tripped_at(facts, config)
    if tripped_at is None:
        return ""
    left = tripped_at + config.breaker.open_for.total_seconds() - now
    if left > 0:
        return (
            f"{config.breaker.failures} heals in a row did not help; open for another {left:.0f} s, then one is tried"
        )
    return "one heal is being tried after a row of failures" if facts.open else ""


def _tripped_at(facts: AccountRecord, config: Heal) -> float | None:
    last = facts.recent[: config.breaker.failures]
    if len(last) < config.breaker.failures or any(each.outcome is Outcome.SUCCEEDED for each in last):
        return None
    return last[0].ended_at


def _breaker_closed_at(facts: AccountRecord, config: Heal) -> float:
    """Return when a verified heal closed the breaker last, as far as the recent attempts tell; 0 where none did."""
    outcomes = [each.outcome is Outcome.SUCCEEDED for each in facts.recent]
    for index, good in enumerate(outcomes):
        before = outcomes[index + 1 : index + 1 + config.breaker.failures]
        if good and len(before) == config.breaker.failures and not any(before):
            return facts.recent[index].ended_at or 0.0
    return 0.0


def _most_unhealthy(config: Heal, total: int) -> float:
    return max(float(LEAST_UNHEALTHY), config.max_unhealthy.of(total))


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
