"""The DIDs and connections, and how they change as time passes.

The truth about a DID is kept as facts (is it mapped, is it imported, which codes are wrong with it); its state and
issues follow from them. One simplification: each DID has a bot of its own, where VoiceLink has one for each client.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from exporter.simulator.codes import (
    AGENT_PAUSED,
    DID_EXPIRED,
    DID_UNMAPPED,
    NO_AGENT,
    NO_BOT,
    READY,
    ROUTING_MISSING,
    in_order,
)
from exporter.simulator.schedule import Episode, Schedule
from exporter.simulator.seeded import unit, uuid_of

if TYPE_CHECKING:
    from exporter.simulator.options import SimulatorOptions

FIRST_NUMBER = 918011223344
FIRST_DID_ID = 800
FIRST_CLIENT_ID = 415
DIDS_A_CLIENT = 10
ACTIVE = "ACTIVE"

STANDING_BREAKS = (
    (NO_BOT, ROUTING_MISSING, NO_AGENT),
    (NO_BOT, ROUTING_MISSING),
    (ROUTING_MISSING,),
    (NO_BOT,),
    (NO_AGENT,),
    (AGENT_PAUSED,),
    (DID_UNMAPPED,),
    (DID_EXPIRED,),
)
"""What `broken` DIDs have, in turn; the first is the vendor's own sample, a number that was never imported."""


@dataclass(slots=True)
class Did:
    """One number. `parts` is the cached JSON of its readiness; whatever changes a fact sets it to None."""

    index: int
    number: str
    did_id: int
    connection_id: str
    client_id: int | None
    agent_id: str
    agent_name: str
    bot_name: str
    friendly_name: str
    bot_ordinal: int = 0
    routing_ordinal: int = 0
    defects: tuple[str, ...] = ()
    """What is wrong until somebody mends it."""
    broke: tuple[str, ...] = ()
    """What the schedule broke and nobody has repaired yet."""
    pinned: bool = False
    expired: bool = False
    imported: bool = True
    removed: bool = False
    updated: float = 0.0
    parts: tuple[bytes, ...] | None = field(default=None, repr=False)

    @property
    def phone_number(self) -> str:
        """The number as E.164."""
        return f"+{self.number}"

    @property
    def issues(self) -> tuple[str, ...]:
        """The codes of what is wrong, deepest first."""
        codes = [*self.defects, *self.broke]
        if self.expired:
            codes.append(DID_EXPIRED)
        if self.client_id is None:
            codes += (DID_UNMAPPED, NO_BOT, ROUTING_MISSING)
        if not self.imported:
            codes.append(NO_AGENT)
        return in_order(codes) if codes else ()

    @property
    def state(self) -> str:
        """READY, or the first thing that is wrong."""
        issues = self.issues
        return issues[0] if issues else READY

    def touch(self, elapsed: float) -> None:
        """Say that a fact has changed."""
        self.updated = elapsed
        self.parts = None

    def repair(self, *codes: str) -> None:
        """Take codes off it."""
        self.defects = tuple(code for code in self.defects if code not in codes)
        self.broke = tuple(code for code in self.broke if code not in codes)

    def assume(self, codes: tuple[str, ...]) -> None:
        """Set what is wrong until somebody mends it; DID_EXPIRED and DID_UNMAPPED are facts of their own."""
        self.expired = DID_EXPIRED in codes
        self.client_id = None if DID_UNMAPPED in codes else self.client_id or client_of(self.index)
        self.defects = in_order(code for code in codes if code not in (DID_EXPIRED, DID_UNMAPPED))
        self.imported = self.imported or NO_AGENT not in codes


@dataclass(slots=True)
class Connection:
    """One connected VoiceLink account."""

    connection_id: str
    name: str
    is_default: bool
    status: str = ACTIVE
    members: list[Did] = field(default_factory=list, repr=False)
    clients: dict[int, str] = field(default_factory=dict, repr=False)

    def dids(self) -> list[Did]:
        """Return the DIDs that are in the fleet."""
        return [did for did in self.members if not did.removed]

    def take(self, did: Did) -> None:
        """Make a DID a member, and its client known."""
        self.members.append(did)
        client_id = did.client_id or client_of(did.index)
        self.clients.setdefault(client_id, f"Client {client_id}")


def client_of(index: int) -> int:
    """Return the VoiceLink client that a DID is mapped to at first."""
    return FIRST_CLIENT_ID + index // DIDS_A_CLIENT


class Fleet:
    """All DIDs: a function of the options and of the seconds since the start, and of what was repaired or changed."""

    def __init__(self, options: SimulatorOptions) -> None:
        self.seed = options.seed
        self.schedule = Schedule(options.seed, options.churn, options.outage)
        self.connections = {made.connection_id: made for made in map(self._connection, range(options.connections))}
        self.dids: list[Did] = []
        connections = list(self.connections.values())
        for index in range(options.dids):
            connection = connections[index * len(connections) // options.dids]
            did = self._did(index, connection.connection_id)
            self.dids.append(did)
            connection.take(did)
        self.by_number = {did.number: did for did in self.dids}
        self.elapsed = 0.0
        self._break_some(options.broken)
        self.episodes: dict[int, Episode] = {}
        self._due: list[tuple[float, int]] = []
        if self.schedule.alive:
            self._start()

    def advance(self, elapsed: float) -> None:
        """Bring every DID to this time; a time that lies back is taken for the latest one."""
        self.elapsed = elapsed = max(elapsed, self.elapsed)
        due = self._due
        while due and due[0][0] <= elapsed:
            moment, index = due[0]
            heapq.heapreplace(due, (self._turn(self.dids[index], moment), index))

    def _turn(self, did: Did, moment: float) -> float:
        """Break or recover a DID as scheduled; returns when it turns next."""
        episode = self.episodes[did.index]
        if moment < episode.end:
            broke, following, then = self.schedule.codes(did.index, episode), episode, episode.end
        else:
            following = self.schedule.following(did.index, episode)
            broke, then = (), following.start
        self.episodes[did.index] = following
        if not did.pinned:
            did.broke = broke
            did.touch(moment)
        return then

    def pin(self, did: Did, codes: tuple[str, ...]) -> None:
        """Take a DID off the schedule and set what is wrong with it."""
        did.pinned = True
        did.broke = ()
        did.assume(codes)

    def unpin(self, did: Did) -> None:
        """Put a DID back on the schedule, with nothing else wrong with it."""
        did.pinned = False
        did.assume(())
        episode = self.episodes.get(did.index)
        if episode and episode.start <= self.elapsed < episode.end:
            did.broke = self.schedule.codes(did.index, episode)

    def move(self, did: Did, connection: Connection) -> None:
        """Move a DID to another connection."""
        self.connections[did.connection_id].members.remove(did)
        did.connection_id = connection.connection_id
        connection.take(did)

    def _connection(self, ordinal: int) -> Connection:
        name = f"VoiceLink account {ordinal + 1}"
        return Connection(uuid_of(self.seed, "connection", ordinal), name, is_default=ordinal == 0)

    def _did(self, index: int, connection_id: str) -> Did:
        return Did(
            index=index,
            number=str(FIRST_NUMBER + index),
            did_id=FIRST_DID_ID + index,
            connection_id=connection_id,
            client_id=client_of(index),
            agent_id=uuid_of(self.seed, "agent", index // 2),
            agent_name=f"Agent {index // 2 + 1}",
            bot_name=f"Bot {index + 1}",
            friendly_name=f"Line {index + 1}",
        )

    def _break_some(self, fraction: float) -> None:
        count = round(fraction * len(self.dids))
        drawn = sorted(self.dids, key=lambda did: unit(self.seed, "broken", did.index)) if count else []
        for ordinal, did in enumerate(drawn[:count]):
            codes = STANDING_BREAKS[ordinal % len(STANDING_BREAKS)]
            did.imported = ordinal % len(STANDING_BREAKS) > 0
            did.assume(codes)

    def _start(self) -> None:
        for did in self.dids:
            episode = self.episodes[did.index] = self.schedule.first(did.index)
            self._due.append((episode.start, did.index))
        heapq.heapify(self._due)
