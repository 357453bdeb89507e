"""When each DID breaks and recovers: a function of the seed, the DID and the time."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.simulator.codes import pick_break
from exporter.simulator.seeded import exponential, unit

SECONDS_AN_HOUR = 3600.0
SHORTEST_OUTAGE = 1.0


@dataclass(frozen=True, slots=True)
class Episode:
    """One break of one DID; `start` and `end` in seconds since the simulator's start."""

    ordinal: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """The breaks of every DID.

    A working DID breaks `churn` times an hour on average and stays broken for `outage` seconds on average, both
    exponentially distributed.
    """

    seed: int
    churn: float
    outage: float

    @property
    def alive(self) -> bool:
        """Whether anything ever breaks."""
        return self.churn > 0

    def first(self, index: int) -> Episode:
        """Return the first break of a DID."""
        return self._episode(index, 0, 0.0)

    def following(self, index: int, episode: Episode) -> Episode:
        """Return the break after this one."""
        return self._episode(index, episode.ordinal + 1, episode.end)

    def codes(self, index: int, episode: Episode) -> tuple[str, ...]:
        """Say what is wrong with the DID during the break."""
        return pick_break(unit(self.seed, "break", index, episode.ordinal))

    def _episode(self, index: int, ordinal: int, since: float) -> Episode:
        start = since + exponential(SECONDS_AN_HOUR / self.churn, self.seed, "up", index, ordinal)
        lasts = exponential(self.outage, self.seed, "down", index, ordinal)
        return Episode(ordinal, start, start + max(lasts, SHORTEST_OUTAGE))
