"""What is known of a DID once an attempt on it ended, or once it changed without one. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.config import format_duration
from exporter.model import HealState, Outcome

if TYPE_CHECKING:
    from exporter.config.schema import Heal
    from exporter.heal.decide import Move
    from exporter.store.records import Counts, DidRecord


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
    charged = attempts.charged_since(now - config.attempts_window.total_seconds())
    if quarantine or charged >= config.max_attempts:
        why = reason if quarantine else f"{charged} attempts in {format_duration(config.attempts_window)}: {reason}"
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
