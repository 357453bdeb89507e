"""What a seed means: the vendor's fleet, the replicas and their configuration, and storm after storm."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Final
from uuid import UUID

from tests.simulation.setup import AccountRules, DidRules, HealRules, Setup, Window
from tests.simulation.weather import Land, Storm, storm

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCHS: Final = (
    1_792_843_200.0,  # 2026-10-24 12:00 UTC, before clocks go back in Europe
    1_793_476_800.0,  # 2026-10-31 20:00 UTC, the same in America
    1_804_968_000.0,  # 2027-03-13 20:00 UTC, before they go forward there
    1_806_148_800.0,  # 2027-03-27 12:00 UTC, the same in Europe
    1_788_566_400.0,  # 2026-09-05, no change
)
ZONES: Final = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC")
FLEET: Final = 40  # numbers
DAY: Final = 1 / 7  # in weeks


@dataclass(frozen=True)
class Scenario:
    """World that a seed means. `weeks` is how long its run is to last.

    `lag` is whether threads take a moment, `exact` whether ticks come as often as in production, `upgrade` whether it
    begins with a store of version 0.1.0.
    """

    seed: str
    weeks: float
    epoch: float
    slots: int
    postgres: bool
    upgrade: bool
    exact: bool
    lag: bool
    keys: tuple[str, ...]  # by account; two may share one
    connections: tuple[tuple[str, ...], ...]  # by account
    setup: Setup
    limit: int  # requests a minute that the vendor allows each key
    kinds: tuple[str, ...] = ()  # of weather; all where none is named

    @property
    def land(self) -> Land:
        """What the weather may touch."""
        return Land(self.slots, FLEET, sum(map(len, self.connections)), len(self.keys), self.postgres)

    def storms(self) -> Iterator[Storm]:
        """Draw storm after storm, each from its own number."""
        for number in count():
            yield storm(random.Random(f"{self.seed}/storm/{number}"), self.land, self.kinds)  # noqa: S311


def scenario(seed: str, *, postgres: bool | None = None) -> Scenario:
    """Return what a seed means; `postgres` overrides which database it is."""
    rng = random.Random(f"{seed}/scenario")  # noqa: S311 - the same each time
    slots = rng.choices([1, 2, 3], [0.65, 0.28, 0.07])[0]
    accounts = rng.choices([1, 2], [0.85, 0.15])[0]
    crowded = accounts == 1 and rng.random() < 0.05
    per_account = [rng.choices([1, 2, 3], [0.8, 0.15, 0.05])[0] for _ in range(accounts)]
    if crowded:
        per_account, slots = [20], 1
    connections = tuple(
        tuple(str(UUID(int=rng.getrandbits(128), version=4)) for _ in range(number)) for number in per_account
    )
    keys = tuple(f"rg_live_{name}{rng.randrange(10**6):06d}" for name in ("one", "two")[:accounts])
    if accounts == 2 and rng.random() < 0.4:
        keys = (keys[0], keys[0])
    limit = rng.choice([60, 60, 60, 30, 20]) if not crowded else rng.choice([8, 12, 20])
    setup = _setup(rng, keys, connections, limit // slots)
    weeks = rng.choices([DAY, 2 * DAY, 1.0], [0.6, 0.3, 0.1])[0]
    epoch = rng.choice(EPOCHS)
    on_postgres = rng.random() < 0.1
    upgrade = rng.random() < 0.15
    exact = rng.random() < 0.05
    return Scenario(
        seed=seed,
        weeks=DAY if crowded or exact or slots > 2 else weeks,  # these cost several times as much
        epoch=epoch,
        slots=slots,
        postgres=on_postgres if postgres is None else postgres,
        upgrade=upgrade,
        exact=exact,
        lag=rng.random() < 0.4,
        keys=keys,
        connections=connections,
        setup=setup,
        limit=limit,
    )


def _setup(rng: random.Random, keys: tuple[str, ...], connections: tuple[tuple[str, ...], ...], budget: int) -> Setup:
    heal = HealRules(
        confirm_polls=rng.choice([1, 2, 3]),
        confirm_for=rng.choice([0.0, 60.0, 120.0]),
        verify_within=rng.choice([300.0, 600.0]),
        probation=rng.choice([600.0, 1800.0, 3600.0]),
        backoff_initial=rng.choice([120.0, 300.0, 600.0]),
        backoff_max=rng.choice([600.0, 1200.0, 1800.0]),
        max_attempts=rng.choice([2, 3, 3]),
        attempts_window=rng.choice([7200.0, 21600.0, 86400.0]),
        max_unhealthy=rng.choice([0.1, 0.3, 0.5]),
        max_in_flight=rng.choice([1, 2, 5]),
        max_per_hour=rng.choice([4, 8, 12]),
        requests_per_minute=rng.choice([1, 2, 10]) if budget >= 10 else rng.choice([1, 2]),
        breaker_failures=rng.choice([2, 3, 4]),
        breaker_open_for=rng.choice([600.0, 1200.0, 1800.0]),
        hold_off_polls=rng.choice([0, 1, 3]),
        windows=_windows(rng),
    )
    names = [name for own in connections for name in own]
    accounts = []
    for index, key in enumerate(keys):
        named = connections[index] if rng.random() < 0.3 or len(set(keys)) < len(keys) else ()
        account = AccountRules(("main", "other")[index], key, named)
        if rng.random() < 0.2:
            account = replace(account, dids=_dids(rng, names, connections[index]))
        accounts.append(account)
    return Setup(tuple(accounts), heal, requests_per_minute=budget)


def _windows(rng: random.Random) -> tuple[Window, ...]:
    if rng.random() < 0.6:
        return ()
    return tuple(
        Window(rng.choice([0, 1, 2, 3, 9, 14]), rng.choice([0, 15, 30, 45]), rng.choice([1800.0, 3600.0, 7200.0]), zone)
        for zone in rng.sample(ZONES, rng.randint(1, 2))
    )


def number_of(index: int) -> str:
    """Return the n-th number of the fleet."""
    return f"+9180112{index:05d}"


def place_of(index: int, connections: list[str]) -> str:
    """Return the connection of the n-th number of the fleet."""
    return connections[index % len(connections)]


def _dids(rng: random.Random, names: list[str], own: tuple[str, ...]) -> tuple[DidRules, ...]:
    mine = [index for index in range(FLEET) if place_of(index, names) in own]
    return tuple(
        DidRules(number_of(index), 77 if rng.random() < 0.2 else None, rng.random() > 0.1)
        for index in mine
        if rng.random() < 0.9
    )
