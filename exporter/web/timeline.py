"""A number's states over time, as pieces of a line. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from exporter.model import MISSING, OTHER, READY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.store.records import Transition

UNKNOWN: Final = ""  # the state where nothing is known
LEAST_DRAWN: Final = 0.3  # percent of the line


@dataclass(frozen=True, slots=True)
class Piece:
    """A time in one state. `x` and `width` are percent of the whole line."""

    state: str
    start: float
    end: float
    x: float
    width: float
    issues: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """How it is drawn."""
        return kind(self.state)

    @property
    def layer(self) -> int:
        """What is drawn over what: what is wrong over what is well, however short it was."""
        return ("unknown", "ok", "gone", "bad").index(self.kind)

    @property
    def drawn(self) -> float:
        """The width that is drawn: never so little that nobody sees it."""
        return self.width if self.kind == "unknown" else max(self.width, LEAST_DRAWN)


def kind(state: str) -> str:
    """Return what a state amounts to: ok, bad, gone, or unknown."""
    return {READY: "ok", MISSING: "gone", OTHER: "bad", UNKNOWN: "unknown"}.get(state, "bad")


def pieces(
    changes: Sequence[Transition], now: tuple[str, float], *, until: float, start: float, end: float
) -> tuple[Piece, ...]:
    """Return the states from `start` to `end`, oldest first, without gaps.

    `changes` are those of one target, in any order. `now` is the state that is known, and since when: the store may lag
    behind. `until` is the time that this holds to; after it, and before the first change, nothing is known.
    """
    points = [(change.at, change.new, change.issues) for change in sorted(changes, key=lambda change: change.at)]
    state, since = now
    if not points or points[-1][1] != state:
        points.append((max(since, points[-1][0]) if points else since, state, ()))
    starts = [(float("-inf"), UNKNOWN, ()), *points, (until, UNKNOWN, ())]
    spans = zip(starts, [at for at, _, _ in starts[1:]] + [float("inf")], strict=True)
    found = []
    for (at, name, issues), then in spans:
        left, right = max(at, start), min(then, end)
        if left < right:
            x, width = (100 * (left - start) / (end - start), 100 * (right - left) / (end - start))
            found.append(Piece(name, left, right, round(x, 3), round(width, 3), issues))
    return tuple(found)
