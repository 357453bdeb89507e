"""One run: a scenario's world, storm after storm, each followed by a calm in which everything has to come right."""

from __future__ import annotations

import gc
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tests.simulation import upgrade, wiring
from tests.simulation.clocks import ACTIVE
from tests.simulation.events import Events
from tests.simulation.fleet import Did
from tests.simulation.judge import LEAST_UNHEALTHY, Judge, Rule
from tests.simulation.ledger import Watch
from tests.simulation.process import NOWHERE, Process
from tests.simulation.records import Commanded, Ended, Excused, LedgerRead, Reconfigured, Started
from tests.simulation.scenario import FLEET, number_of, place_of
from tests.simulation.stores import Faults
from tests.simulation.vendor import Credential, Vendor
from tests.simulation.weather import HOUR
from tests.simulation.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.judge import Wrong
    from tests.simulation.scenario import Scenario
    from tests.simulation.setup import DidRules, Setup
    from tests.simulation.stores import Place
    from tests.simulation.weather import Event, Storm

WEEK: Final = 7 * 86400.0
_MARKS: Final = ("heal_credentials", "heal_accounts")  # the table of pauses and latches, now and in version 0.1.0
LOOK: Final = 60.0  # seconds between two looks at what should have happened by now
SHORTEST_CALM: Final = 1800.0
TAIL: Final = 180.0  # seconds after an event in which polls may still be late by it


@dataclass
class Replica:
    """One place where a daemon runs."""

    slot: int
    machine: Any
    setup: Setup
    process: Process | None = None
    daemon: wiring.Daemon | None = None
    wanted: bool = True  # whether it is to run


@dataclass
class Result:
    """What came of a run. `weeks` are simulated; `story` are the events until the first promise was broken."""

    seed: str
    weeks: float = 0.0
    requests: int = 0
    calls: int = 0
    heals: int = 0
    kills: int = 0
    suspends: int = 0
    wrong: list[Wrong] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    story: list[tuple[int, int, str]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)


class Run:
    """Runs a scenario on a store. `keep` says which event of which storm happens."""

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        *,
        keep: Callable[[int, int], bool] = lambda _, __: True,
        go_on: bool = False,
        without: frozenset[Rule] = frozenset(),
        brief: bool = False,
        last: int | None = None,
        trace: Callable[[object], None] | None = None,
    ) -> None:
        """Nothing runs yet.

        `go_on` runs on after a promise was broken, `without` are those that don't count. `brief` leaves out storms of
        which nothing is kept, `last` is the number of the last one. `trace` gets every record.
        """
        self.scenario = scenario
        self.place = place
        self.world = World(scenario.epoch)
        names: dict[str, str] = {}
        for account in scenario.setup.accounts:
            names |= {account.name: account.key, f"{account.name}2": account.key}
        self.judge = Judge(names, without)
        self._trace = trace
        self.result = Result(scenario.seed)
        self.vendor = Vendor(self.world, scenario.seed, self.tell)
        self.faults = Faults()
        self.watch = Watch(place.reader)
        self._events = Events(self)
        self._keep = keep
        self._go_on = go_on
        self._brief = brief
        self._last = last
        self.undo: dict[int, Callable[[], object]] = {}
        self._outlasting: set[int] = set()
        self._numbers = 0
        self.refused = False
        self.store_is_away = False
        self.calm = False
        self.active_since: dict[str, float] = {}
        self._lag = random.Random(f"{scenario.seed}/lag")  # noqa: S311 - the same each time
        self.staff = self.world.machine()
        self.connections = [each for own in scenario.connections for each in own]
        for key, own in zip(scenario.keys, scenario.connections, strict=True):
            credential = self.vendor.credentials.setdefault(key, Credential(key, {}, scenario.limit))
            credential.connections |= dict.fromkeys(own, "ACTIVE")
            self.active_since |= dict.fromkeys(own, 0.0)
        for index in range(FLEET):
            did = Did(number_of(index), 800 + index, place_of(index, self.connections))
            self.vendor.fleet.add(did)
        self.replicas = [Replica(slot, self.world.machine(), scenario.setup) for slot in range(scenario.slots)]

    # The whole

    def go(self, weeks: float) -> Result:
        """Run for so many simulated weeks, or until a promise is broken."""
        end = weeks * WEEK
        with wiring.installed(self.scenario.seed, exact=self.scenario.exact):
            gc.collect()
            gc.freeze()
            before = gc.get_threshold()
            gc.set_threshold(50_000, 20, 50)
            try:
                if self.scenario.upgrade:
                    self.judge.adopt(upgrade.fill(self.place, self.scenario, self.vendor.fleet))
                    self.watch.changes()
                for replica in self.replicas:
                    self.start(replica)
                self._look()
                for number, storm in enumerate(self.scenario.storms()):
                    if self.world.now >= end or self._over or (self._last is not None and number > self._last):
                        break
                    if self._brief and not any(self._keep(number, index) for index in range(len(storm.events))):
                        continue
                    self._storm(number, storm)
                    self._calm_down()
                    self._see_off()
            finally:
                for process in self.world.processes:
                    process.kill()
                self.world.end()
                for replica in self.replicas:
                    replica.process = replica.daemon = None
                gc.set_threshold(*before)
                gc.unfreeze()
                gc.collect()
        result, judge = self.result, self.judge
        result.weeks, result.wrong = self.world.now / WEEK, judge.wrong
        result.requests, result.calls, result.heals = judge.requests, judge.calls, judge.heals
        return result

    @property
    def _over(self) -> bool:
        return bool(self.judge.wrong) and not self._go_on

    def tell(self, record: Any) -> None:  # noqa: ANN401 - any record
        """Tell the judge."""
        if self._trace:
            self._trace(record)
        self.judge.take(record)

    def _look(self) -> None:
        self.judge.look(self.world.now, self._expected)
        self.world.later(LOOK, self._look)

    def _expected(self, setup: Setup) -> Iterator[tuple[str, str]]:
        for account in setup.accounts:
            credential = self.vendor.credentials.get(account.key)
            if credential is None:
                continue
            for connection, status in credential.connections.items():
                if account.connections and connection not in account.connections:
                    continue
                if status == "ACTIVE" and self.world.now - self.active_since[connection] > 1300:
                    yield account.key, connection

    # Replicas

    def process(self, slot: int, machine: Any) -> Process:  # noqa: ANN401 - a machine
        """Return a new process on a machine; `slot` is the replica that it is."""
        self._numbers += 1
        lag = (lambda: self._lag.choice((0.0, 0.0005, 0.002, 0.02))) if self.scenario.lag else None
        process = Process(self._numbers, slot, machine, self.faults, lag)
        process.wrote = partial(self._wrote, process)
        self.world.processes.append(process)
        return process

    def start(self, replica: Replica) -> None:
        """Start a replica's daemon, unless it runs."""
        if replica.process or not replica.wanted:
            return
        if self.store_is_away:  # a start without its volume makes a new store: that is no promise's business
            self.world.later(10.0, lambda: self.start(replica))
            return
        process = replica.process = self.process(replica.slot, replica.machine)
        daemon = replica.daemon = wiring.Daemon(self.world, process, self.vendor, replica.setup, self.place.url)
        process.spawn(daemon.main(), "main").add_done_callback(lambda _: self.gone(process, killed=False))
        self.tell(Started(self.world.now, process.number, replica.slot, replica.setup))

    def gone(self, process: Process, *, killed: bool) -> None:
        """Note that a process is no more."""
        if process not in self.world.processes:
            return
        process.kill()
        self.world.processes.remove(process)
        for context in process.loop.faults:
            self.result.faults[f"{context.get('message')}: {context.get('exception')!r:.120}"] += 1
        for replica in self.replicas:
            if replica.process is process:
                replica.process = replica.daemon = None
        self.tell(Ended(self.world.now, process.number, killed))

    def kill(self, replica: Replica, process: Process, back: float) -> None:
        """Kill a replica's process, and start it again after so many seconds."""
        if process.alive:
            self.result.kills += 1
            process.kill()
            self.world.later(0, lambda: self.gone(process, killed=True))
            self.world.later(back, lambda: self.start(replica))

    def _wrote(self, process: Process) -> None:
        active, ACTIVE.process = ACTIVE.process, None
        rows = self.watch.changes()
        ACTIVE.process = active
        if rows:
            self.tell(LedgerRead(self.world.now, process.number, process.machine.wall(), tuple(rows)))

    # Storms

    def _storm(self, number: int, storm: Storm) -> None:
        self.calm = False
        began = self.world.now
        for index, event in enumerate(storm.events):
            if self._keep(number, index):
                self.world.at(began + event.at, partial(self._happen, number, index, event))
        self.world.run(began + storm.seconds, lambda: self._over)

    def _happen(self, number: int, index: int, event: Event) -> None:
        if self._over:
            return
        self.result.story.append((number, index, f"storm {number} {event}"))
        self.result.kinds[event.what] += 1
        getattr(self._events, f"on_{event.what}")(**event.how)

    def until(self, seconds: float, undo: Callable[[], object], *, outlasts: bool = False) -> None:
        """Undo something after so many seconds, or when the storm is over; what `outlasts` it, when the calm is."""
        ticket = self.world.ticket()

        def once() -> None:
            if action := self.undo.pop(ticket, None):
                action()

        self.undo[ticket] = undo
        if outlasts:
            self._outlasting.add(ticket)
        self.world.later(seconds, once)

    def excuse(self, seconds: float, why: str, slot: int = -1, tail: float = TAIL) -> None:
        """Tell the judge that polls may be late for so many seconds, and a while after."""
        self.tell(Excused(self.world.now, self.world.now + seconds + tail, slot, why))

    def reload(self, replica: Replica, setup: Setup) -> None:
        """Give a replica another configuration, now or when it starts."""
        replica.setup = setup
        process, daemon = replica.process, replica.daemon
        if not (process and daemon and process.alive and daemon.exporter):
            return
        number = process.number
        self.tell(Reconfigured(self.world.now, number, setup, done=False))

        async def reload() -> None:
            await daemon.reload(setup)
            self.tell(Reconfigured(self.world.now, number, setup, done=True))

        process.spawn(reload(), "reload")

    # People

    def as_staff(self, act: Callable[[], None], *, elsewhere: bool = False) -> None:
        """Carry out what a person does, in a process of its own.

        `elsewhere`: on a store that none of the replicas use yet, which works whatever happens to theirs.
        """
        process = self.process(NOWHERE, self.staff)
        if elsewhere:
            process.store = Faults()
        active, ACTIVE.process = ACTIVE.process, process
        try:
            act()
        finally:
            ACTIVE.process = active
            self.world.processes.remove(process)

    def command(self, name: str, act: Callable[[Setup, str], None], number: str = "") -> bool:
        """Carry out a command; return whether the store let it."""
        try:
            self.as_staff(lambda: act(self.scenario.setup, self.place.url))
        except Exception as error:  # noqa: BLE001 - the store may be away
            if not self.faults.down:
                self.result.faults[f"heal {name}: {error!r:.120}"] += 1
            return False
        self.tell(Commanded(self.world.now, name, number))
        return True

    def insist(self, name: str, act: Callable[[Setup, str], None]) -> None:
        """Carry out a command, again every minute until the store lets it."""
        if not self.command(name, act):
            self.until(60, lambda: self.insist(name, act))

    # Calm

    def _calm_down(self) -> None:
        """End all weather, let people put right what is theirs, and wait until everything is healed."""
        if self._over:
            return
        self.calm = True
        self._clear()
        end = self.world.now + self._patience()
        earliest = self.world.now + SHORTEST_CALM
        visited = self.world.now
        patience = end - self.world.now
        while self.world.now < end and not self._over:
            self.world.run(self.world.now + LOOK, lambda: self._over)
            if self.world.now - visited > 1800:
                visited = self.world.now
                self._see_to_stops()
            if self.world.now >= earliest and not self._unhealed() and not self._open_rows():
                return
        if not self._over:
            self.judge.unhealed(self.world.now, self._unhealed(), patience)
            self.judge.stuck(self.world.now, patience)

    def _see_off(self) -> None:
        """End what outlasted a storm."""
        for ticket in sorted(self._outlasting):
            if undo := self.undo.pop(ticket, None):
                undo()
        self._outlasting.clear()
        self.refused = False

    def _clear(self) -> None:
        fleet = self.vendor.fleet
        self.vendor.conditions.clear()
        self.faults.down, self.faults.before, self.faults.after = False, 0.0, 0.0
        for ticket in sorted(self.undo.keys() - self._outlasting):
            if undo := self.undo.pop(ticket, None):
                undo()
        self.excuse(0, "calm")
        for replica in self.replicas:
            self.world.wake(replica.machine)
            replica.machine.wall_shift = 0.0
            if replica.process:
                replica.process.traps.clear()
            if replica.setup != self.scenario.setup:
                self.reload(replica, self.scenario.setup)
            self.start(replica)
        for did in fleet.dids.values():
            did.breaks_after = None
            if did.stubborn:
                did.stubborn = False
        self._thin_out()
        self._see_to_stops()

    def _see_to_stops(self) -> None:
        """Let a person lift what only people lift. A process that slept may hear of a refusal long after it."""
        if self._is_paused() or (self.refused and self._is_latched()):
            self.command("resume", wiring.resume)
        self._release_all()

    def _thin_out(self) -> None:
        """Let most numbers come back by themselves where more are broken than healing is for."""
        fleet = self.vendor.fleet
        share = self.scenario.setup.heal.max_unhealthy
        for connection in self.connections:
            dids = fleet.of(connection)
            broken = [did for did in dids if did.issues or did.shown]
            allowed = max(2, int(0.6 * share * len(dids)))
            for did in broken[allowed:]:
                fleet.change(did, ())

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        return self.place.reader.query(sql)

    def _is_paused(self) -> bool:
        return any(self._rows(f"SELECT 1 FROM {table} WHERE paused IS NOT NULL") for table in _MARKS)  # noqa: S608 - ours

    def _is_latched(self) -> bool:
        latched = (self._rows(f"SELECT 1 FROM {table} WHERE latched IS NOT NULL") for table in _MARKS)  # noqa: S608 - ours
        return any(latched) or bool(self._rows("SELECT 1 FROM heal_refusals"))

    def _release_all(self) -> None:
        for row in self._rows("SELECT number FROM heal_dids WHERE state = 'quarantined'"):
            self.command("release", partial(wiring.release, number=row["number"]), row["number"])

    def _open_rows(self) -> bool:
        return any(row.open and self._polled(row.data["connection"]) for row in self.judge.rows.values())

    def _unhealed(self) -> dict[str, str]:
        """Return what can be healed and isn't, with what the ledger says of it."""
        setup = self.scenario.setup
        issues = set(setup.heal.issues)
        watched: dict[str, DidRules] = {}
        for account in setup.accounts:
            watched |= {did.number: did for did in account.dids}
        selective = {
            connection: bool(account.dids)
            for account, own in zip(setup.accounts, self.scenario.connections, strict=True)
            for connection in own
        }
        held = self._held_by_missing()
        found = []
        for did in self.vendor.fleet.dids.values():
            rules = watched.get(did.number)
            if did.connection in held or (selective[did.connection] and (rules is None or not rules.heal)):
                continue
            if did.curable and did.issues & issues and self._polled(did.connection):
                found.append(did.number)
        if not found:
            return {}
        states = {row["number"]: row for row in self._rows("SELECT * FROM heal_dids")}
        return {number: _said(states.get(number)) for number in found}

    def _held_by_missing(self) -> set[str]:
        """Return the connections of accounts where so many configured numbers are missing that healing must wait."""
        held: set[str] = set()
        for account, own in zip(self.scenario.setup.accounts, self.scenario.connections, strict=True):
            dids = [self.vendor.fleet.dids[did.number] for did in account.dids if did.number in self.vendor.fleet.dids]
            missing = [did for did in dids if not self._polled(did.connection)]
            unhealthy = len(missing) + sum(bool(did.issues or did.shown) for did in dids if did not in missing)
            if missing and unhealthy > max(LEAST_UNHEALTHY, self.scenario.setup.heal.max_unhealthy * len(dids)):
                held |= set(own)
        return held

    def _polled(self, connection: str) -> bool:
        return any(
            credential.connections.get(connection) == "ACTIVE" for credential in self.vendor.credentials.values()
        )

    def _patience(self) -> float:
        """Return the seconds within which everything has to be healed: what the configuration allows, added up."""
        heal, setup = self.scenario.setup.heal, self.scenario.setup
        count = len(self._unhealed()) + sum(row.open for row in self.judge.rows.values())
        targets = max(len(own) for own in self.scenario.connections)
        interval = max(setup.interval, 1.4 * targets * 65 / setup.requests_per_minute)
        confirm = heal.confirm_for + (heal.hold_off_polls + heal.confirm_polls + 6) * interval
        windows = sum(window.seconds for window in heal.windows) * 2
        waits = 1.25 * heal.backoff_max + 2 * heal.breaker_open_for + 2 * heal.verify_within + heal.probation
        budget = HOUR * (2 + count // heal.max_per_hour)
        flights = count * 5 * interval / heal.max_in_flight
        return confirm + windows + waits + budget + flights + 1800.0


def _said(row: dict[str, Any] | None) -> str:
    return f"{row['state']}, {row['reason']}" if row else "the ledger knows nothing of it"
