"""The simulator itself, and what a test or a control request can do with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypedDict, Unpack

from exporter.simulator.faults import Fault, FaultBook, parse_fault
from exporter.simulator.fleet import Connection, Did, Fleet
from exporter.simulator.heal import import_did, make_ready
from exporter.simulator.journal import Journal, Seen
from exporter.simulator.limits import RateLimiter
from exporter.simulator.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from exporter.simulator.heal import Order, Step
    from exporter.simulator.options import SimulatorOptions


class DidChange(TypedDict, total=False):
    """What can be changed of a DID; what is left out stays."""

    issues: list[str] | None
    """Codes; from then on the DID is off the schedule, until None puts it back with nothing wrong."""
    expired: bool
    client_id: int | None
    """None unmaps it. A client that the connection doesn't have becomes one of its clients."""
    removed: bool
    """Whether it is gone from every answer."""
    connection_id: str
    imported: bool
    """Whether there is a local row."""
    friendly_name: str


@dataclass(frozen=True, slots=True)
class Truth:
    """How a DID is, whatever a spoilt answer says about it."""

    number: str
    did_id: int
    connection_id: str
    client_id: int | None
    state: str
    issues: tuple[str, ...]
    expired: bool
    imported: bool
    removed: bool
    agent_id: str
    bot_name: str

    @property
    def ready(self) -> bool:
        """Whether nothing is wrong."""
        return not self.issues

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return {**asdict(self), "issues": list(self.issues)}


@dataclass(slots=True)
class Writes:
    """How often something was written: sync requests that import, local rows made, call-readys carried out."""

    syncs: int = 0
    imports: int = 0
    heals: int = 0


class Simulator:
    """A fleet, its faults, its rate limit and the journal of its requests.

    `clock` tells Unix seconds, `sleep` waits for seconds.
    """

    def __init__(
        self, options: SimulatorOptions, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.options = options
        self.clock = clock
        self.sleep = sleep
        self.started = clock()
        self.fleet = Fleet(options)
        self.wire = Wire(self.fleet, self.started)
        self.limiter = RateLimiter(options.rate_limit)
        self.journal = Journal(options.journal_size)
        self.book = FaultBook(options.seed)
        self.writes = Writes()
        for fault in options.faults:
            self.book.add(fault)

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return self.clock() - self.started

    def advanced(self) -> Fleet:
        """Bring the fleet to the present."""
        self.fleet.advance(self.elapsed())
        return self.fleet

    @property
    def connection_ids(self) -> list[str]:
        """The connections, the default one first."""
        return list(self.fleet.connections)

    @property
    def numbers(self) -> list[str]:
        """The numbers in the fleet, as E.164."""
        return [did.phone_number for did in self.fleet.dids if not did.removed]

    def truth(self) -> dict[str, Truth]:
        """Return how every DID is now, by its number as E.164; removed ones too."""
        return {did.phone_number: _truth(did) for did in self.advanced().dids}

    def requests(self, endpoint: str = "") -> list[Seen]:
        """Return the requests to the API, oldest first, of one endpoint or of all."""
        return self.journal.requests(endpoint)

    def clear_journal(self) -> None:
        """Forget the requests; the counts of writes stay."""
        self.journal.clear()

    def set_did(self, number: str, **change: Unpack[DidChange]) -> Truth:
        """Change a DID. `KeyError` for a number or connection that isn't there, before anything is changed."""
        fleet = self.advanced()
        did = fleet.by_number[number.removeprefix("+")]
        target = fleet.connections[change["connection_id"]] if "connection_id" in change else None
        if target and target.connection_id != did.connection_id:
            fleet.move(did, target)
        if "issues" in change:
            self._set_issues(did, change["issues"])
        self._set_facts(did, change)
        did.touch(fleet.elapsed)
        return _truth(did)

    def set_connection(self, connection_id: str, *, status: str) -> Connection:
        """Set the status of a connection; anything but ACTIVE is inactive. `KeyError` for an unknown one."""
        connection = self.fleet.connections[connection_id]
        connection.status = status
        return connection

    def add_fault(self, fault: Fault | str) -> int:
        """Put a fault in force, given as such or as text; returns its number. `ValueError` for a text that is none."""
        return self.book.add(parse_fault(fault) if isinstance(fault, str) else fault)

    def faults(self) -> list[Fault]:
        """Return the faults that can still strike."""
        return self.book.all()

    def clear_faults(self) -> None:
        """Lift all faults."""
        self.book.clear()

    def import_all(self, connection: Connection) -> None:
        """Do what a sync with `import_dids` does."""
        self.writes.syncs += 1
        for did in connection.dids():
            if not did.imported:
                import_did(did)
                did.touch(self.fleet.elapsed)
                self.writes.imports += 1

    def make_ready(self, did: Did, connection: Connection, order: Order) -> list[Step]:
        """Do what call-ready does."""
        imported = did.imported
        steps = make_ready(did, connection, order, self.fleet.elapsed)
        self.writes.heals += 1
        self.writes.imports += not imported
        return steps

    def _set_issues(self, did: Did, issues: list[str] | None) -> None:
        if issues is None:
            self.fleet.unpin(did)
        else:
            self.fleet.pin(did, tuple(issues))

    def _set_facts(self, did: Did, change: DidChange) -> None:
        did.expired = change.get("expired", did.expired)
        did.removed = change.get("removed", did.removed)
        did.imported = change.get("imported", did.imported)
        did.friendly_name = change.get("friendly_name", did.friendly_name)
        if "client_id" in change:
            did.client_id = client_id = change["client_id"]
            if client_id is not None:
                self.fleet.connections[did.connection_id].clients.setdefault(client_id, f"Client {client_id}")


def _truth(did: Did) -> Truth:
    return Truth(
        number=did.phone_number,
        did_id=did.did_id,
        connection_id=did.connection_id,
        client_id=did.client_id,
        state=did.state,
        issues=did.issues,
        expired=did.expired,
        imported=did.imported,
        removed=did.removed,
        agent_id=did.agent_id,
        bot_name=did.bot_name,
    )
