"""Ages of what the store keeps, read without believing a clock that was set.

Times in the store are wall times of the process that wrote them. A process knows three things that no clock can change:
how much monotonic time passed, how far behind its own wall clock has ever been, and which rows were not there when it
looked before. So a stamp is read as old as the latest that its wall clock may have been behind says, never more; one
that lies in the future then can only be a clock's fault, and counts as written when it was first read; and one that is
new since the last look is no older than that look. All of them age by the monotonic clock. A claim counts in budgets
from the look that showed it first, as it may have been made just before that, whatever its stamps say.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from exporter.clock import SET

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Iterable

    from exporter.clock import Clock
    from exporter.store.records import AccountRecord, Attempt, DidRecord, EndedAttempt

R = TypeVar("R", "AccountRecord", "Attempt", "DidRecord", "EndedAttempt")

MOST_REMEMBERED: Final = 10_000  # stamps that are not believed; beyond that the oldest are forgotten


class StampReader:
    """Reader of the store's times, as this process's wall clock would have written them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._behind = clock.time() - clock.monotonic()  # the least that the wall clock was ever ahead of the monotonic
        self._ahead = self._behind  # and the most
        self._first_read: dict[float, float] = {}  # stamps that are not believed: since when they age, monotonic
        self._seen: dict[float, float] = {}  # all stamps that were read: when first, monotonic
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget which rows there were, as where another store is used from now on."""
        self._last_changed: dict[Hashable, tuple[object, float]] = {}
        self._ids: list[tuple[float, int]] = []  # when, monotonic, which was the highest id of a row
        self._stamps_of: dict[int, tuple[float | None, ...]] = {}  # of rows that may still get some, by id
        self._noted: dict[Hashable, tuple[object, float]] = {}  # value and when it was read last, monotonic
        self._looked_at: float | None = None
        self._gap: float | None = None  # seconds between the last look and the one before
        self._listed_at: float | None = None  # when all keys that are `listed` were read last

    @property
    def earliest(self) -> float:
        """The earliest time that it may be now, as a Unix time: what is asked for since then is asked for in full."""
        monotonic = self._clock.monotonic()
        offset = self._clock.time() - monotonic
        self._behind, self._ahead = min(self._behind, offset), max(self._ahead, offset)
        return monotonic + self._behind

    def age(self, stamp: float) -> float:
        """Return how many seconds ago a stamp was written, at least."""
        now, earliest = self._clock.monotonic(), self.earliest
        if stamp > earliest + SET and stamp not in self._first_read:
            self._remember(stamp)
        since = self._first_read.get(stamp)
        if since is None:  # it was written before it was first read, whatever the clock was set to since
            return max(0.0, earliest - stamp, now - self._seen.get(stamp, now))
        return max(0.0, now - since)

    def _remember(self, stamp: float) -> None:
        """Have a stamp age from when it was first read: it was written by then, whatever the clock was set to since."""
        _keep(self._first_read, stamp, self._seen.get(stamp, self._clock.monotonic()))

    # What is new since the last look

    def look(self, highest: int, rows: Iterable[tuple[int, bool, tuple[float | None, ...]]]) -> None:
        """Take in the attempts that are new or were open at the last look: id, whether it is open, and its stamps.

        `highest` is the highest id of all. At the first look, `rows` are those that are open.
        """
        self.look_again()
        now = self._clock.monotonic()
        before, self._stamps_of = self._stamps_of, {}
        for row, is_open, stamps in rows:
            if self._gap is not None:
                self._distrust(set(stamps) - set(before.get(row, ())), self._gap)
            if is_open:
                self._stamps_of[row] = stamps
        if highest > self.highest or not self._ids:
            self._ids.append((now, highest))
            del self._ids[:-MOST_REMEMBERED]

    def look_again(self) -> None:
        """Note a look that would have found what the last one did, as nothing was changed since."""
        now = self._clock.monotonic()
        self._gap = None if self._looked_at is None else now - self._looked_at
        self._looked_at = now

    def note(self, key: Hashable, value: object, stamp: float, *, listed: bool = False) -> None:
        """Take in a stamp that was written together with a value: where that is another, the stamp is new.

        `listed`: all such keys are read now and then, so one that is not known is new since then, too.
        """
        known = self._noted.get(key)
        if known is not None and known[0] != value:
            self._distrust({stamp}, self._clock.monotonic() - known[1])
        elif known is None and listed and self._listed_at is not None:
            self._distrust({stamp}, self._clock.monotonic() - self._listed_at)
        self._noted[key] = value, self._clock.monotonic()

    def all_listed(self) -> None:
        """Note that all keys that are `listed` were read now."""
        self._listed_at = self._clock.monotonic()

    def _distrust(self, stamps: Iterable[float | None], gap: float) -> None:
        """Remember stamps that are new within so many seconds but say that they are older: a clock is behind.

        None and 0 are the stamps of what never happened.
        """
        for stamp in stamps:
            if stamp and self.earliest - stamp > gap + SET:
                self._remember(stamp)

    @property
    def looked(self) -> bool:
        """Whether there was a look."""
        return self._looked_at is not None

    @property
    def highest(self) -> int:
        """The highest id of a row that was there at the last look."""
        return self._ids[-1][1] if self._ids else 0

    @property
    def open_rows(self) -> tuple[int, ...]:
        """The ids of the rows that were open at the last look."""
        return tuple(self._stamps_of)

    def has_looked_for(self, seconds: float) -> bool:
        """Whether the first look was at least so many seconds ago."""
        return bool(self._ids) and self._clock.monotonic() - self._ids[0][0] >= seconds

    def highest_before(self, seconds: float) -> int:
        """Return the highest id that was there so many seconds ago, or at this process's first look.

        Every row with a higher one was made since, whatever its stamps say.
        """
        known = bisect_right(self._ids, (self._clock.monotonic() - seconds, 2**63)) - 1
        return self._ids[max(known, 0)][1] if self._ids else 0

    def local_of(self, row: int, stamp: float) -> float:
        """Return the stamp of a row as `local` does, but no earlier than the look that showed the row first.

        Rows that were there at this process's first look may be as old as they say.
        """
        local, first = self.local(stamp), bisect_left(self._ids, row, key=lambda look: look[1])
        if first == 0:
            return local
        since = self._clock.monotonic() - self._ids[first][0] if first < len(self._ids) else 0.0
        return max(local, self._clock.time() - since)

    def local(self, stamp: float) -> float:
        """Return a stamp as this process's wall clock would have written it."""
        if stamp not in self._seen:
            _keep(self._seen, stamp, self._clock.monotonic())
        now, earliest = self._clock.time(), self.earliest
        if self._ahead - self._behind <= SET and stamp <= earliest + SET and stamp not in self._first_read:
            return stamp  # the clock was never set, and the stamp is of the past: nearly always
        return now - self.age(stamp)

    def unchanged_for(self, key: Hashable, value: object) -> float:
        """Return for how many seconds of monotonic time `key` was seen with this value; 0 at the first sight."""
        now = self._clock.monotonic()
        known, since = self._last_changed.get(key, (None, now))
        if key not in self._last_changed or known != value:
            self._last_changed[key] = value, now
            return 0.0
        return now - since

    def retain(self, keys: Collection[Hashable]) -> None:
        """Forget what `unchanged_for` knows of all other keys."""
        for key in self._last_changed.keys() - keys:
            del self._last_changed[key]

    # What the ledger returns, with all times read. While no clock was ever wrong, these return what they are given.

    def account(self, facts: AccountRecord) -> AccountRecord:
        """Return the facts of a credential with their times as this process reads them, but those of `local_of`."""
        self.note("resumed", facts.resume_mark, facts.resumed_at)
        for name, at in (("latched", facts.latched_at), ("paused", facts.key_paused_at), ("403", facts.forbidden_at)):
            self.note((name, facts.credential), at, at)
        read = self._read(facts, "resumed_at", "latched_at", "key_paused_at", "forbidden_at")
        return replace(read, recent=tuple(self._read(each, "ended_at") for each in facts.recent))

    def attempt(self, attempt: Attempt) -> Attempt:
        """Return an attempt with its times as this process reads them."""
        return self._read(attempt, "claimed_at", "sent_at", "answered_at", "ended_at", "observed_at", "broken_since")

    def record(self, record: DidRecord) -> DidRecord:
        """Return what is known of a DID with its times as this process reads them; a backoff keeps its length."""
        read = self._read(record, "since", "broken_since")
        if read is record or not record.until:
            return read
        return replace(read, until=read.since + (record.until - record.since))

    def _read(self, of: R, *names: str) -> R:
        """Return something with these times of it read."""
        changed: dict[str, Any] = {
            name: local
            for name in names
            if (stamp := getattr(of, name)) is not None and (local := self.local(stamp)) != stamp
        }
        return replace(of, **changed) if changed else of


def _keep(moments: dict[float, float], stamp: float, at: float) -> None:
    """Remember a stamp's moment, and forget the oldest where there are too many."""
    if len(moments) >= MOST_REMEMBERED:
        del moments[next(iter(moments))]
    moments[stamp] = at
