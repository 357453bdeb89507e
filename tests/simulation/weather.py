"""The weather: what happens in a storm, drawn from a seed. Each event can be left out without changing the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0
REFUSALS: Final = (400, 401, 403, 404, 408, 409, 422, 425, 429, 499, 301, 307, 418)
FAULTS: Final = (500, 502, 503, 504)
BROKEN: Final = (("NO_BOT",), ("ROUTING_MISSING",), ("NO_BOT", "ROUTING_MISSING"), ("NO_BOT", "NO_VOCOBASE_AGENT"))


@dataclass(frozen=True)
class Event:
    """Something that happens `at` seconds after its storm began. `what` names a method of the run, `how` its words."""

    at: float
    what: str
    how: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return it as a line of a story."""
        words = ", ".join(f"{name} {value}" for name, value in self.how.items())
        return f"+{self.at:7.0f} s  {self.what.replace('_', ' ')}" + (f" ({words})" if words else "")


@dataclass(frozen=True)
class Storm:
    """So many seconds of bad weather."""

    seconds: float
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Land:
    """What the weather may touch."""

    slots: int
    dids: int
    connections: int
    accounts: int
    postgres: bool


Draw = dict[str, Any]


def _length(rng: random.Random, shortest: float = 30.0, longest: float = 2 * HOUR) -> float:
    return float(round(shortest * (longest / shortest) ** rng.random()))


def _numbers(rng: random.Random, land: Land, most: int) -> list[int]:
    return sorted(rng.sample(range(land.dids), min(land.dids, rng.randint(1, most))))


def _slot(rng: random.Random, land: Land, *, any_chance: float = 0.4) -> int:
    return -1 if rng.random() < any_chance else rng.randrange(land.slots)


def _single(rng: random.Random, land: Land) -> Draw:
    return {"numbers": _numbers(rng, land, 3), "issues": rng.choice(BROKEN)}


def _mass(rng: random.Random, land: Land) -> Draw:
    share = rng.uniform(0.15, 0.9)
    return {
        "numbers": sorted(rng.sample(range(land.dids), max(1, int(share * land.dids)))),
        "issues": rng.choice(BROKEN),
        "seconds": _length(rng, 120, 2 * HOUR),
    }


def _flap(rng: random.Random, land: Land) -> Draw:
    return {"numbers": _numbers(rng, land, 3), "period": _length(rng, 60, 1800), "seconds": _length(rng, 600, 3 * HOUR)}


def _relapse(rng: random.Random, land: Land) -> Draw:
    return {"numbers": _numbers(rng, land, 2), "after": _length(rng, 60, 2 * HOUR)}


def _change(rng: random.Random, land: Land) -> Draw:
    change = rng.choice(["unlisted", "unlisted", "expired", "unmapped", "stubborn", "moved"])
    return {"numbers": _numbers(rng, land, 4), "change": change, "seconds": _length(rng, 120, 6 * HOUR)}


def _connection(rng: random.Random, land: Land) -> Draw:
    how = rng.choice(["INACTIVE", "gone", "fails"])
    return {"connection": rng.randrange(land.connections), "how": how, "seconds": _length(rng, 300, 8 * HOUR)}


def _answers(rng: random.Random, land: Land) -> Draw:
    where = rng.choice(["", "sync", "call", "call", "call", "list"])
    effect = rng.choice(
        ["fault", "fault", "refusal", "refusal", "limit", "limit", "reset", "lost", "cut", "garbage", "endless"]
    )
    how: Draw = {"where": where, "slot": _slot(rng, land, any_chance=0.8), "works": rng.random() < 0.5}
    match effect:
        case "fault":
            how |= {"effect": "status", "status": rng.choice(FAULTS)}
        case "refusal":
            how |= {"effect": "status", "status": rng.choice(REFUSALS), "works": False}
        case "limit":
            how |= {"effect": "status", "status": 429, "works": False}
            how["retry_after"] = rng.choice(["", "", "0", "7", "90", "600", "html"])
        case "endless":
            how |= {"effect": "endless", "status": rng.choice([200, 400, 401, 403, 409, 429, 500])}
        case _:
            how["effect"] = effect
    if how["where"] == "call" or rng.random() < 0.3:
        how["left"] = rng.choice([1, 1, 2, 3, 6])
    how["chance"] = rng.choice([1.0, 1.0, 0.5, 0.2])
    how["seconds"] = _length(rng, 60, HOUR)
    return how


def _refused(rng: random.Random, land: Land) -> Draw:
    return {
        "status": rng.choice([401, 401, 403, 301]),
        "differs": rng.random() < 0.5,
        "seed": rng.randrange(1 << 30),
        "slot": rng.randrange(land.slots),
        "seconds": _length(rng, 1800, 3 * HOUR),
    }


def _accepted(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {"status": rng.choice([201, 202]), "left": rng.randint(1, 4), "seconds": _length(rng, 600, 2 * HOUR)}


def _late_work(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {"late": _length(rng, 20, 1200), "left": rng.randint(1, 4), "seconds": _length(rng, 600, 2 * HOUR)}


def _slow(rng: random.Random, land: Land) -> Draw:
    return {
        "where": rng.choice(["", "sync", "call"]),
        "slot": _slot(rng, land, any_chance=0.7),
        "late": rng.choice([2.0, 8.0, 20.0, 29.5, 31.0, 45.0, 120.0]),
        "chance": rng.choice([1.0, 0.5, 0.2]),
        "seconds": _length(rng, 60, HOUR),
    }


def _handshake(rng: random.Random, land: Land) -> Draw:
    effect = rng.choice(
        [
            "tls late",
            "tls late",
            "tcp late",
            "connect refused",
            "connect hangs",
            "connect unresolved",
            "tls fails",
            "tls hangs",
        ]
    )
    return {
        "effect": effect,
        "late": rng.choice([0.5, 3.0, 4.9, 5.5, 8.0, 12.0, 14.5]),
        "slot": _slot(rng, land),
        "chance": rng.choice([1.0, 0.6, 0.3]),
        "seconds": _length(rng, 60, HOUR),
    }


def _keepalive(rng: random.Random, land: Land) -> Draw:
    return {
        "effect": rng.choice(["reuse reset", "reuse silent", "closes"]),
        "late": rng.choice([0.0, 0.01, 0.3, 1.0, 3.0]),
        "slot": _slot(rng, land, any_chance=0.8),
        "seconds": _length(rng, 600, 4 * HOUR),
    }


def _partial(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {
        "share": rng.choice([0.05, 0.2, 0.5, 1.0]),
        "left": rng.choice([1, 1, 2, 4, 8]),
        "chance": rng.choice([1.0, 0.3]),
    }


def _lie(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {"seconds": _length(rng, 600, 4 * HOUR), "chance": rng.choice([1.0, 0.5])}


def _lag(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {"polls": rng.randint(1, 5), "seconds": _length(rng, 600, 4 * HOUR)}


def _key(rng: random.Random, land: Land) -> Draw:
    return {"account": rng.randrange(land.accounts), "seconds": _length(rng, 120, HOUR)}


def _when(rng: random.Random) -> Draw:
    """Draw where in a process something strikes: anywhere, or around a heal."""
    point = rng.choice(["step", "commit", "heal commit", "heal commit", "heal commit", "heal commit", "post"])
    skip = rng.randrange(3000) if point == "step" else rng.randrange(12) if point == "commit" else rng.randrange(6)
    steps = 0 if point == "step" else rng.choice([0, 0, 1, 2, 3, 5, 8, 13, 21])
    return {"point": point, "skip": skip, "steps": steps, "before": rng.random() < 0.5}


def _kill(rng: random.Random, land: Land) -> Draw:
    return {"slot": rng.randrange(land.slots), "back": _length(rng, 1, 600)} | _when(rng)


def _crash_loop(rng: random.Random, land: Land) -> Draw:
    return {"slot": rng.randrange(land.slots), "every": rng.choice([2.0, 5.0, 10.0, 20.0]), "times": rng.randint(5, 20)}


def _restart(rng: random.Random, land: Land) -> Draw:
    return {"slot": rng.randrange(land.slots), "back": _length(rng, 0.5, 300)} | _when(rng)


def _suspend(rng: random.Random, land: Land) -> Draw:
    stands = rng.choice(["steady", "steady", "", "steady boot"])
    return {"slot": rng.randrange(land.slots), "seconds": _length(rng, 2, 3 * HOUR), "stands": stands} | _when(rng)


def _clock(rng: random.Random, land: Land) -> Draw:
    far = _length(rng, 2, 3 * DAY)
    return {
        "slot": _slot(rng, land, any_chance=0.15),
        "by": far if rng.random() < 0.5 else -far,
        "seconds": _length(rng, 60, 4 * HOUR),
    }


def _reload(rng: random.Random, land: Land) -> Draw:
    change = rng.choice(
        [
            "limits",
            "limits",
            "issues",
            "mode off",
            "mode observe",
            "rename",
            "key",
            "connection",
            "window",
            "interval",
            "budget",
            "nothing",
        ]
    )
    return {
        "slot": _slot(rng, land, any_chance=0.5),
        "change": change,
        "seed": rng.randrange(1 << 30),
        "seconds": _length(rng, 60, 3 * HOUR),
    }


def _store_slow(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {
        "before": rng.choice([0.0, 0.2, 1.0, 3.0, 6.0]),
        "after": rng.choice([0.0, 0.2, 1.0, 3.0, 6.0, 16.0]),
        "seconds": _length(rng, 30, 1800),
    }


def _store_down(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {"seconds": _length(rng, 5, 2 * HOUR)}


def _store_lost(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {"how": rng.choice(["deleted", "emptied", "replaced", "moved"]), "seconds": _length(rng, 20, 1800)}


def _store_fails(rng: random.Random, land: Land) -> Draw:
    point = {"point": "heal commit", "skip": rng.randrange(6), "before": rng.random() < 0.5}
    return {
        "slot": rng.randrange(land.slots),
        "seconds": _length(rng, 5, 1800),
        "steps": rng.choice([0, 1, 2, 3, 5, 8]),
    } | point


def _commit_lost(rng: random.Random, land: Land) -> Draw:
    return {"slot": rng.randrange(land.slots)} | _when(rng) | {"steps": 0}


def _pause(rng: random.Random, land: Land) -> Draw:  # noqa: ARG001
    return {"seconds": _length(rng, 60, 2 * HOUR)}


def _release(rng: random.Random, land: Land) -> Draw:
    return {"number": rng.randrange(land.dids), "open_one": rng.random() < 0.5}


def _run(rng: random.Random, land: Land) -> Draw:
    return {"numbers": _numbers(rng, land, 3), "broken": rng.random() < 0.8, "force": rng.random() < 0.3}


KINDS: Final[dict[str, tuple[float, Callable[[random.Random, Land], Draw]]]] = {
    "some_break": (5.0, _single),
    "many_break": (1.2, _mass),
    "some_flap": (1.5, _flap),
    "some_relapse": (1.0, _relapse),
    "some_change": (2.0, _change),
    "connection_changes": (1.0, _connection),
    "answers_go_wrong": (4.0, _answers),
    "calls_are_refused": (0.5, _refused),
    "work_is_accepted": (0.4, _accepted),
    "work_is_late": (0.8, _late_work),
    "answers_are_slow": (1.2, _slow),
    "handshakes_go_wrong": (1.5, _handshake),
    "used_connections_drop": (0.8, _keepalive),
    "answers_are_partial": (1.2, _partial),
    "answers_lie": (0.6, _lie),
    "readiness_lags": (1.0, _lag),
    "key_is_refused": (0.5, _key),
    "kill": (3.5, _kill),
    "crash_loop": (0.3, _crash_loop),
    "restart": (1.0, _restart),
    "suspend": (2.0, _suspend),
    "clock_is_set": (1.5, _clock),
    "reload": (1.5, _reload),
    "store_is_slow": (0.8, _store_slow),
    "store_is_down": (0.7, _store_down),
    "store_is_lost": (0.25, _store_lost),
    "store_fails_at_a_heal": (0.7, _store_fails),
    "commit_is_lost": (1.2, _commit_lost),
    "pause": (0.8, _pause),
    "release": (0.7, _release),
    "heal_run": (1.0, _run),
}


def storm(rng: random.Random, land: Land, kinds: Sequence[str] = ()) -> Storm:
    """Draw a storm: breakage all along, so that the rest strikes heals, and some kinds of weather at once.

    `kinds` are those that there may be, without any all of them.
    """
    seconds = round(rng.uniform(1.0, 5.0) * HOUR)
    kinds = kinds or tuple(KINDS)
    chosen = rng.choices(kinds, [KINDS[kind][0] for kind in kinds], k=rng.randint(3, 12))
    breaks = 1 + round(seconds / HOUR * rng.uniform(0.5, 3.0))
    times = [rng.uniform(0, 900), *(rng.uniform(0, seconds * 0.8) for _ in range(breaks))]
    events = [Event(round(at), "some_break", _single(rng, land)) for at in times]
    events += [Event(round(rng.uniform(0, seconds * 0.9)), kind, KINDS[kind][1](rng, land)) for kind in chosen]
    return Storm(seconds, tuple(sorted(events, key=lambda event: event.at)))
