"""The fleet at a glance: what the status page says before its table. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.model import READY
from exporter.web.timeline import kind
from exporter.web.words import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporter.web.models import Target
    from exporter.web.rows import Rows


@dataclass(frozen=True, slots=True)
class Share:
    """How many numbers are in a state; `x` and `width` are percent of the bar."""

    state: str
    kind: str
    number: int
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Holding:
    """A guard that holds, why, and in how many targets it says just that."""

    guard: str
    reason: str
    targets: int


@dataclass(frozen=True, slots=True)
class Glance:
    """What there is to say of the whole fleet."""

    ready: int
    total: int
    sentence: str
    level: str  # ok, bad or unknown
    bar: tuple[Share, ...]
    issues: tuple[tuple[str, int], ...]
    mode: str
    guards: tuple[Holding, ...]
    in_flight: int
    quarantined: int
    heals: Mapping[str, int]

    @property
    def missing(self) -> int:
        """How many aren't ready."""
        return self.total - self.ready


def glance(rows: Rows, targets: Sequence[Target], *, tried: bool) -> Glance:
    """Sum up."""
    total, ready = len(rows.all), rows.ready
    level, sentence = _sentence(total, ready, targets, tried=tried)
    modes = [target.healing.mode for target in targets]
    guards = Counter((held.guard, held.reason) for target in targets for held in target.healing.guards)
    return Glance(
        ready=ready,
        total=total,
        sentence=sentence,
        level=level,
        bar=_bar(rows.states, total),
        issues=tuple(rows.issues.most_common()),
        mode=modes[0] if modes else "off",
        guards=tuple(Holding(guard, reason, targets) for (guard, reason), targets in guards.most_common()),
        in_flight=sum(target.healing.in_flight for target in targets),
        quarantined=sum(target.healing.quarantined for target in targets),
        heals=rows.heals,
    )


def _sentence(total: int, ready: int, targets: Sequence[Target], *, tried: bool) -> tuple[str, str]:
    """Return how it looks, and that in words."""
    if not targets:
        if tried:
            return "unknown", "The API lists no active VoiceLink connection, so there is nothing to watch."
        return "unknown", "The connections are being looked up. Nothing is known yet."
    unknown = [target for target in targets if not target.current]
    if len(unknown) == len(targets):
        if all(target.up is None for target in targets):
            return "unknown", "The first poll has not ended yet. Nothing is known yet."
        return "unknown", "Nothing current is known of any number: the polls fail."
    if unknown:
        known = f"Nothing current is known of {count(len(unknown), 'target')} of {len(targets)}."
        if ready == total:
            return "unknown", f"{known} Every other number is ready."
        return "bad", f"{_not_ready(total - ready)} {known}"
    if not total:
        return "unknown", "The API lists no number that is to be watched."
    if ready == total:
        return "ok", "Every number is ready for calls."
    return "bad", _not_ready(total - ready)


def _not_ready(number: int) -> str:
    return f"{number:,} {'number is' if number == 1 else 'numbers are'} not ready for calls."


def _bar(states: Counter[str], total: int) -> tuple[Share, ...]:
    """Return the states, READY first, then the most frequent."""
    shares, x = [], 0.0
    for state, number in sorted(states.items(), key=lambda item: (item[0] != READY, -item[1], item[0])):
        width = 100 * number / total
        shares.append(Share(state, kind(state), number, round(x, 3), round(width, 3)))
        x += width
    return tuple(shares)
