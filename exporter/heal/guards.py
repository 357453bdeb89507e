"""Guards: what keeps healing from acting on a target or an account, whatever a DID needs.

Pure, but for `GuardCheck`, which joins what this process knows to the facts of the ledger when a claim asks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from exporter.config import format_duration
from exporter.heal.decide import WOULD_HOLD
from exporter.heal.windows import open_window
from exporter.model import Guard, HealState, Outcome, Target
from exporter.store.records import HOUR, LATE, AccountRecord, Attempt, Counts, DidRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from exporter.config.schema import Heal

MINUTE: Final = 60.0
AGREEING_POLLS: Final = 3  # in a row, under `max_unhealthy`, or that agree about a shrunken fleet
LEAST_UNHEALTHY: Final = 3  # `max_unhealthy` never means fewer
SUSPECT_SHARE: Final = 0.1  # of the DIDs, lost from one poll to the next
SUSPECT_LEAST: Final = 3
FORCEABLE: Final = frozenset(Guard) - {Guard.STORE, Guard.RATE_LIMITED, Guard.STALE}
"""What a person may override for one heal: not the lock, not the vendor's limit, not the lack of data."""

ActiveGuard = tuple[Guard, str]  # a guard and, in words, why it holds and what to do


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """State of a target's data and of its polls, as this process knows it."""

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
    suspect_resumed_at: float = 0.0  # when a person last said resume before that
    suspect_listed: int = 0
    suspect_agreed: int = 0
    suspect_before: int = 0


def health_after(
    health: TargetHealth,
    *,
    at: float,
    total: int,
    unhealthy: int,
    config: Heal,
    resumed_at: float,
    listed: int | None = None,
) -> TargetHealth:
    """Return the health of a target after one more complete poll.

    `listed` are the DIDs that the API listed: all, where nothing else is said.
    """
    over = unhealthy > _most_unhealthy(config, total)
    under = 0 if over else health.polls_under + 1
    held = over or (health.held_since_over and under < AGREEING_POLLS)
    return _suspicion(
        replace(
            health,
            at=at,
            complete_polls=health.complete_polls + 1,
            total=total,
            listed=total if listed is None else listed,
            unhealthy=unhealthy,
            held_since_over=held,
            polls_under=under,
        ),
        before=health,
        resumed_at=resumed_at,
    )


def _suspicion(health: TargetHealth, *, before: TargetHealth, resumed_at: float) -> TargetHealth:
    """Doubt a poll that lost many DIDs until a person, or polls that agree with it, say that it is so."""
    if before.suspect:
        recovered = health.listed >= before.suspect_before - max(
            SUSPECT_LEAST - 1, before.suspect_before * SUSPECT_SHARE
        )
        agreed = before.suspect_agreed + 1 if abs(health.listed - before.suspect_listed) < SUSPECT_LEAST else 0
        if recovered or agreed >= AGREEING_POLLS or resumed_at != before.suspect_resumed_at:
            return replace(health, suspect="", suspect_agreed=0)
        return replace(health, suspect_agreed=agreed, suspect_listed=health.listed)
    lost = before.listed - health.listed
    if lost >= SUSPECT_LEAST and lost > before.listed * SUSPECT_SHARE:
        return replace(
            health,
            suspect=f"a poll lost {lost} of {before.listed} DIDs",
            suspect_resumed_at=resumed_at,
            suspect_listed=health.listed,
            suspect_before=before.listed,
        )
    return health


def settled(health: TargetHealth, interval: float, config: Heal) -> TargetHealth:
    """Return the health of a daemon that has been running for long, for somebody who polled once."""
    return replace(health, interval=interval, complete_polls=max(1, config.hold_off_polls))


def target_guards(health: TargetHealth, config: Heal, now: float) -> Iterator[ActiveGuard]:
    """Name the guards of a target's data that hold now."""
    if health.complete_polls < config.hold_off_polls:
        yield Guard.HOLD_OFF, f"{health.complete_polls} of {config.hold_off_polls} complete polls since the start"
    if now - health.at > 2 * health.interval + 1:
        yield Guard.STALE, f"the data is {now - health.at:.0f} s old; see in the log why polls fail, wait or are late"
    elif health.suspect:
        yield Guard.STALE, f"{health.suspect}; wait for {AGREEING_POLLS} polls that agree, or say so with heal resume"
    if health.held_since_over:
        limit = _most_unhealthy(config, health.total)
        yield (
            Guard.MAX_UNHEALTHY,
            (
                f"{health.unhealthy} of {health.total} DIDs are unhealthy, and more than {limit:g} is too many, "
                f"until {AGREEING_POLLS} complete polls are under it; find the common cause first"
            ),
        )


def observed(facts: AccountRecord, config: Heal, now: float) -> list[Attempt]:
    """Return the open attempts of an account whose targets are being polled: those that an observation will end."""
    return [each for each in facts.open if not is_unobserved(each, config, now)]


def is_unobserved(attempt: Attempt, config: Heal, now: float) -> bool:
    """Whether no complete poll of an open attempt's target came for `heal.verify_within`.

    Such an attempt keeps its DID locked, since only an observation can end it, but it holds nothing else back.
    """
    seen_at = attempt.claimed_at if attempt.observed_at is None else attempt.observed_at
    return now - seen_at >= config.verify_within.total_seconds()


def room(facts: AccountRecord, config: Heal, *, ramp_start: float) -> int:
    """Return how many heals of an account may be unverified at once: one, until the first of a run is verified."""
    closed_at = _breaker_closed_at(facts, config)
    return 1 if facts.verified_at <= max(ramp_start, facts.resumed_at, closed_at) else config.max_in_flight


def account_guards(
    facts: AccountRecord,
    config: Heal,
    now: float,
    *,
    ramp_start: float,
    fingerprint: str,
    observing: bool = False,
) -> Iterator[ActiveGuard]:
    """Name the guards of an account that hold now.

    `ramp_start` is when this process started to heal, `fingerprint` that of the credential and configuration it uses.
    """
    if facts.paused is not None:
        yield Guard.PAUSED, f"{facts.paused}; start again with heal resume"
    if window := open_window(config.windows, now):
        yield Guard.WINDOW, f"inside the window {window}"
    if facts.latched is not None:
        yield Guard.ACCOUNT_LATCHED, f"{facts.latched}; change the credential or the configuration, or say heal resume"
    elif fingerprint in facts.refused:
        yield (
            Guard.ACCOUNT_LATCHED,
            "the API refused this credential and configuration before; change one of them, or say heal resume",
        )
    yield from _budget_guards(facts, config, now, observing=observing)
    broken = _breaker(facts, config, now)
    if broken:
        yield Guard.BREAKER, broken
    if observing:
        return
    most, under_way = room(facts, config, ramp_start=ramp_start), len(observed(facts, config, now))
    if under_way >= most:
        first = (
            "; the first after a start, a resume or a closed breaker goes alone" if most < config.max_in_flight else ""
        )
        yield Guard.MAX_IN_FLIGHT, f"{under_way} of at most {most} heals wait for their verification{first}"


def _budget_guards(facts: AccountRecord, config: Heal, now: float, *, observing: bool) -> Iterator[ActiveGuard]:
    if now < facts.key_paused_until:
        yield Guard.RATE_LIMITED, f"the API limits the rate for another {facts.key_paused_until - now:.0f} s"
    sent = facts.would if observing else facts.sent
    if sum(now - at < MINUTE + LATE for at in sent) >= config.requests_per_minute:
        yield Guard.RATE_LIMITED, f"{config.requests_per_minute} heals were sent within a minute"
    hourly = sum(now - at < HOUR + LATE for at in sent)
    if hourly >= config.max_per_hour:
        yield Guard.MAX_PER_HOUR, f"{hourly} heals were sent within an hour, the most is {config.max_per_hour}"


def blocking_reasons(
    facts: AccountRecord,
    record: DidRecord,
    counts: Counts,
    *,
    health: TargetHealth | None,
    config: Heal,
    now: float,
    ramp_start: float,
    fingerprint: str,
    observing: bool = False,
    forced: frozenset[Guard] = frozenset(),
    patient: bool = True,
    version: int | None = None,
) -> Iterator[str]:
    """Name everything that speaks against sending for a DID now; asked again inside each claim, on locked facts.

    `forced` are guards that a person overrides, and without `patient` the backoff of the DID. `version` is that of the
    record that the decision was made on.
    """
    if counts.open is not None:
        yield f"attempt {counts.open.id} on it is open"
    if record.state is HealState.QUARANTINED:
        yield f"it is quarantined: {record.reason}"
    if patient and record.state is HealState.BACKOFF and now < record.until:
        yield f"it is in backoff for another {record.until - now:.0f} s"
    if version is not None and record.version != version:
        yield "another replica changed what is known of it"
    charged = counts.charged_since(now - config.attempts_window.total_seconds())
    if charged >= config.max_attempts:
        yield f"{charged} attempts within {format_duration(config.attempts_window)} are the most"
    if observing and now - counts.would_at < WOULD_HOLD:
        yield "observe mode would have sent within the last hour"
    held = list(account_guards(facts, config, now, ramp_start=ramp_start, fingerprint=fingerprint, observing=observing))
    held += target_guards(health, config, now) if health else ()
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
    return "one heal is being tried after a row of failures" if observed(facts, config, now) else ""


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
            return facts.recent[index].ended_at
    return 0.0


def _most_unhealthy(config: Heal, total: int) -> float:
    return max(float(LEAST_UNHEALTHY), config.max_unhealthy.of(total))


@dataclass(frozen=True, slots=True)
class GuardCheck:
    """Question that every claim asks: what speaks against healing a DID now.

    It is asked inside each transaction that claims or sends, on facts that are locked there, and looks at what this
    process knows in that moment. `withdrawn` says why the decision itself does not hold any more; `health` returns the
    state of the target's data, and `ramp_start` since when this process heals. See `blocking_reasons` for the rest.
    """

    config: Heal
    fingerprint: str
    now: Callable[[], float]
    ramp_start: Callable[[], float]
    health: Callable[[], TargetHealth | None]
    withdrawn: Callable[[], str] = str
    observing: bool = False
    forced: frozenset[Guard] = frozenset()
    patient: bool = True
    version: int | None = None

    def __call__(self, facts: AccountRecord, record: DidRecord, counts: Counts) -> Iterable[str]:
        """Name everything that speaks against it."""
        if withdrawn := self.withdrawn():
            return [withdrawn]
        return blocking_reasons(
            facts,
            record,
            counts,
            health=self.health(),
            config=self.config,
            now=self.now(),
            ramp_start=self.ramp_start(),
            fingerprint=self.fingerprint,
            observing=self.observing,
            forced=self.forced,
            patient=self.patient,
            version=self.version,
        )

    def for_version(self, version: int) -> GuardCheck:
        """Return the check for a decision that was made on that version of the DID's record."""
        return replace(self, version=version)
