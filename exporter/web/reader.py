"""What the pages and the JSON API have in common: they ask here, and get what is shown."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from exporter.numbers import to_e164
from exporter.store.records import Wanted
from exporter.threads import DaemonThread
from exporter.web.models import Dids, Heals, OneDid, Targets
from exporter.web.recent import Recent
from exporter.web.rows import Rows, place, select
from exporter.web.views import Names, detail_of, did_of, heal_of, targets_of, transition_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from exporter.config import Config
    from exporter.model import Did, Guard, Target
    from exporter.snapshots import Fleet
    from exporter.store.records import Attempt, Transition
    from exporter.web.query import DidQuery, HealQuery, Paged
    from exporter.web.site import Health, Site

LOOK_EVERY: Final = 1.0  # seconds for which guards and plans are taken as they were, while the fleet is the same
T = TypeVar("T")


class UnknownDidError(LookupError):
    """No number like this is known."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything at one moment. `number` counts the fleets: while it is the same, the fleet is."""

    number: int
    fleet: Fleet
    tried: bool
    config: Config
    names: Names
    held: Mapping[Target, Sequence[tuple[Guard, str]]]
    unobserved: Sequence[Attempt]
    next_polls: Mapping[Target, float | None]
    health: Health
    at: float  # on a clock that nobody sets


@dataclass(frozen=True, slots=True)
class Found:
    """A number, by target what is known of it, and what was decided about its heals."""

    number: str
    dids: Mapping[Target, Did]
    whys: Mapping[Target, str]


class Reader:
    """Answers what can be asked. Building runs in a thread of its own, so that scrapes are answered meanwhile."""

    def __init__(self, site: Site, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.recent = Recent(site.past, monotonic)
        self._site = site
        self._monotonic = monotonic
        self._thread: DaemonThread | None = None
        self._scene: Scene | None = None
        self._rows: Rows | None = None

    def scene(self) -> Scene:
        """Return how everything is now. To be called on the event loop."""
        site, last, now, fleet = self._site, self._scene, self._monotonic(), self._site.watcher.fleet
        config = site.config()
        if last and last.fleet is fleet and last.config is config and now - last.at < LOOK_EVERY:
            return last
        number = 0 if last is None else last.number + (last.fleet is not fleet or last.config is not config)
        self._scene = Scene(
            number=number,
            fleet=fleet,
            tried=site.watcher.tried,
            config=config,
            names=Names(site.watcher.label, hashed=config.privacy.hash_numbers is not None),
            held={target: tuple(site.healer.active_guards(target)) for target in fleet.targets},
            unobserved=tuple(site.healer.unobserved),
            next_polls={target: site.planner.next_poll(target) for target in fleet.targets},
            health=site.health(),
            at=now,
        )
        return self._scene

    async def built(self, build: Callable[[], T]) -> T:
        """Return what a function builds, in the thread."""
        if self._thread is None:
            self._thread = DaemonThread("pages")
        work: asyncio.Future[Any] = asyncio.wrap_future(self._thread.submit(build))
        answer: T = await work
        return answer

    def rows(self, fleet: Fleet) -> Rows:
        """Return a fleet's rows, built once. To be called in the thread."""
        if self._rows is None or self._rows.fleet is not fleet:
            self._rows = Rows(fleet, self._rows)
        return self._rows

    # What is asked

    async def dids(self, query: DidQuery) -> Dids:
        """Return the numbers that a query asks for."""
        scene = self.scene()

        def build() -> Dids:
            found = select(self.rows(scene.fleet), query, scene.names.label)
            return Dids(
                data=tuple(did_of(row.target, row.did, scene.fleet, scene.names) for row in found.rows),
                page=found.page,
                per_page=found.per_page,
                total=found.total,
                pages=found.pages,
            )

        return await self.built(build)

    async def targets(self, query: Paged) -> Targets:
        """Return one page of the targets."""
        scene = self.scene()

        def build() -> Targets:
            every = targets_of(scene.fleet, scene.held, scene.next_polls, scene.names)
            start = (query.page - 1) * query.per_page
            return Targets(data=every[start : start + query.per_page], **paging(query, len(every)))

        return await self.built(build)

    async def heals(self, query: HealQuery) -> Heals:
        """Return one page of the ledger. Raises `StoreError`, and `UnknownDidError` for a number that is nobody's."""
        scene = self.scene()
        number = None if query.number is None else await self._ledger_number(scene, query.number)
        wanted = Wanted(number, query.account, query.outcome)
        total, attempts = await self.recent.page(wanted, (query.page - 1) * query.per_page, query.per_page)

        def build() -> Heals:
            return Heals(data=tuple(heal_of(each, scene.names) for each in attempts), **paging(query, total))

        return await self.built(build)

    async def did(self, key: str) -> OneDid:
        """Return all about one number. Raises `StoreError` and `UnknownDidError`."""
        scene = self.scene()
        found = await self.find(scene, key)
        transitions = await self.recent.transitions(found.number)
        attempts = await self.recent.attempts(found.number)
        return await self.built(lambda: self.one(scene, found, transitions, attempts))

    def one(self, scene: Scene, found: Found, changes: Sequence[Transition], attempts: Sequence[Attempt]) -> OneDid:
        """Show one number."""
        return OneDid(
            data=tuple(
                detail_of(target, did, scene.fleet, scene.names, config=scene.config, why=found.whys[target])
                for target, did in found.dids.items()
            ),
            transitions=tuple(transition_of(change) for change in changes),
            heals=tuple(heal_of(attempt, scene.names) for attempt in attempts),
        )

    async def find(self, scene: Scene, key: str) -> Found:
        """Return the number that is shown as `key`, or that `key` spells. Raises `UnknownDidError`."""
        number = await self.built(lambda: self._number(scene, key))
        targets = scene.fleet.targets
        known = {target: targets[target].memory.get(number or "") for target in sorted(targets, key=place)}
        dids = {target: did for target, did in known.items() if did is not None}
        if number is None or not dids:
            raise UnknownDidError(key)
        return Found(number, dids, {target: self._site.healer.last_decision(target, number) for target in dids})

    def _number(self, scene: Scene, key: str) -> str | None:
        shown = self.rows(scene.fleet).by_label.get(key)
        if shown:
            return shown[0].did.number
        memories = [state.memory for state in scene.fleet.targets.values()]
        spelt = to_e164(key)
        if spelt and any(spelt in memory for memory in memories):
            return spelt
        by_id = key.removeprefix("did:") if key.startswith("did:") else None
        for memory in memories:
            for number, did in memory.items():
                if by_id and by_id == str(did.entry.did_id):
                    return number
                if (did.label or scene.names.label(number)) == key:
                    return number
        return None

    async def _ledger_number(self, scene: Scene, key: str) -> str:
        """Return the number whose heals are asked for: the ledger may know one that nobody monitors any more."""
        try:
            return (await self.find(scene, key)).number
        except UnknownDidError:
            spelt = to_e164(key)
            if spelt is None:
                raise
            return spelt


def paging(query: Paged, total: int) -> dict[str, int]:
    """Return what a list says about its pages."""
    pages = max(1, -(-total // query.per_page))
    return {"page": query.page, "per_page": query.per_page, "total": total, "pages": pages}
