"""Faults that can be put into the API's answers: what they are, how they are written, and when one strikes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from exporter.simulator.seeded import unit

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENDPOINTS = ("*", "sync", "connections", "call_ready", "purchased")

PARAMETERS: dict[str, tuple[str, ...]] = {
    "status": ("status", "location", "retry_after"),
    "latency": ("seconds",),
    "hang": ("seconds",),
    "drip": ("seconds", "size"),
    "truncate": (),
    "oversize": ("size",),
    "html": (),
    "not_json": (),
    "wrong_types": ("level",),
    "unknown_states": ("state",),
    "null_fields": ("level",),
    "extra_fields": (),
    "markup": ("text",),
    "many_codes": ("codes",),
    "duplicates": (),
    "invalid_entry": ("variant",),
    "partial": ("percent",),
    "act_then_fail": ("then", "status", "seconds"),
    "envelope": ("shape",),
}
"""The kinds of fault, each with the parameters of its own."""

COMMON = ("kind", "endpoint", "probability", "count", "after", "connection")

CHOICES: dict[tuple[str, str], tuple[str, ...]] = {
    ("wrong_types", "level"): ("field", "root", "data", "readiness", "entry"),
    ("null_fields", "level"): ("entry", "field"),
    ("invalid_entry", "variant"): ("both", "number", "unnumbered"),
    ("act_then_fail", "then"): ("status", "hang"),
    ("envelope", "shape"): ("data.connections", "data.data", "data"),
}
"""What a parameter of a kind can be; the first is the default."""

SECONDS = {"latency": 1.0, "hang": 300.0, "drip": 0.01, "act_then_fail": 300.0}
SIZES = {"drip": 1, "oversize": 1 << 20}
RANGES: dict[str, tuple[float, float]] = {
    "probability": (0, 1),
    "count": (0, 10**9),
    "after": (0, 10**9),
    "status": (200, 599),
    "seconds": (0, 86_400),
    "size": (1, 1 << 40),
    "percent": (0, 100),
    "codes": (1, 1_000_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault and when it strikes. `ValueError` where a value makes no sense or the kind has no such parameter."""

    kind: str
    endpoint: str = "*"
    probability: float = 1.0
    count: int | None = None
    """How many answers it spoils; None: all."""
    after: int = 0
    """How many matching requests pass first."""
    connection: str = ""
    """Only requests that name or default to this connection; empty: all."""
    status: int = 500
    location: str = ""
    retry_after: str = ""
    seconds: float | None = None
    size: int | None = None
    level: str = ""
    state: str = ""
    codes: int = 100
    variant: str = ""
    percent: float = 50.0
    then: str = ""
    shape: str = ""
    text: str = ""
    """What every string of the answer ends with; empty: some markup. Only JSON can say a text with a comma."""

    def __post_init__(self) -> None:
        if self.kind not in PARAMETERS:
            raise ValueError(f"unknown fault {self.kind!r}: one of {', '.join(PARAMETERS)}")
        if self.endpoint not in ENDPOINTS:
            raise ValueError(f"unknown endpoint {self.endpoint!r}: one of {', '.join(ENDPOINTS)}")
        for given in self._given():
            _check_taken(self.kind, given)
            self._check(given, getattr(self, given))

    def choice(self, parameter: str) -> str:
        """Return a parameter that is one of several words."""
        return str(getattr(self, parameter)) or CHOICES[self.kind, parameter][0]

    @property
    def pause(self) -> float:
        """How long it waits, in seconds."""
        return SECONDS.get(self.kind, 0.0) if self.seconds is None else self.seconds

    @property
    def length(self) -> int:
        """How many bytes it sends."""
        return SIZES.get(self.kind, 0) if self.size is None else self.size

    def spec(self) -> str:
        """Return the text that `parse_fault` reads."""
        pairs = [f"{name}={getattr(self, name)}" for name in self._given() if name not in ("kind", "endpoint")]
        return ":".join([self.kind, self.endpoint, *([",".join(pairs)] if pairs else [])])

    def _given(self) -> list[str]:
        return [item.name for item in fields(self) if getattr(self, item.name) != item.default]

    def _check(self, name: str, value: object) -> None:
        allowed = CHOICES.get((self.kind, name))
        if allowed and value not in allowed:
            raise ValueError(f"{name} of {self.kind} must be one of {', '.join(allowed)}, not {value!r}")
        if name in RANGES:
            low, high = RANGES[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(f"{name} must be a number from {low} to {high}, not {value!r}")


def _check_taken(kind: str, name: str) -> None:
    if name not in COMMON and name not in PARAMETERS.get(kind, (name,)):
        raise ValueError(f"{kind} takes no {name!r}")


_NUMBERS = {"probability": float, "seconds": float, "percent": float}
_INTEGERS = ("count", "after", "status", "size", "codes")


def fault_of(values: Mapping[str, object]) -> Fault:
    """Make a fault of a mapping, such as a JSON object; `ValueError` says what is wrong with it."""
    known = {item.name for item in fields(Fault)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"a fault has no {name!r}")
        if name not in RANGES and not isinstance(value, str):
            raise ValueError(f"{name} must be a string, not {value!r}")
        if name in _INTEGERS and not isinstance(value, int):
            raise ValueError(f"{name} must be an integer, not {value!r}")
    if "kind" not in values:
        raise ValueError("a fault needs a kind")
    for name in values:
        _check_taken(str(values["kind"]), name)
    return Fault(**values)  # type: ignore[arg-type]  # checked above, and by Fault itself


def parse_fault(text: str) -> Fault:
    """Read `KIND[:endpoint][:key=value,…]`; `ValueError` says what is wrong with it.

    A colon in a value is fine, a comma is not.
    """
    kind, _, rest = text.partition(":")
    values: dict[str, object] = {"kind": kind}
    endpoint, separator, pairs = rest.partition(":")
    if "=" in endpoint:
        pairs = rest
    elif endpoint or separator:
        values["endpoint"] = endpoint or "*"
    for pair in filter(None, pairs.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} in fault {text!r} is not key=value")
        if name in ("kind", "endpoint"):
            raise ValueError(f"{name} of fault {text!r} goes before the key=value pairs")
        values[name] = _value(name, value)
    return fault_of(values)


def _value(name: str, text: str) -> object:
    if name not in RANGES:
        return text
    try:
        return _NUMBERS.get(name, int)(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}") from None


@dataclass(slots=True)
class _Armed:
    number: int
    fault: Fault
    drawn: int = 0
    struck: int = 0

    def strikes(self, seed: int) -> bool:
        """Take one matching request into account."""
        self.drawn += 1
        fault = self.fault
        if self.drawn <= fault.after or (fault.count is not None and self.struck >= fault.count):
            return False
        if fault.probability < 1 and unit(seed, "fault", self.number, self.drawn) >= fault.probability:
            return False
        self.struck += 1
        return True


@dataclass(slots=True)
class FaultBook:
    """The faults in force. Whether one strikes depends on the seed and on the requests it has seen, on nothing else."""

    seed: int
    _armed: list[_Armed] = field(default_factory=list)
    _added: int = 0

    def add(self, fault: Fault) -> int:
        """Put a fault in force; returns its number, counted from 1."""
        self._added += 1
        self._armed.append(_Armed(self._added, fault))
        return self._added

    def clear(self) -> None:
        """Lift all faults."""
        self._armed.clear()

    def all(self) -> list[Fault]:
        """Return those that can still strike."""
        return [armed.fault for armed in self._armed if armed.fault.count is None or armed.struck < armed.fault.count]

    def strike(self, endpoint: str, connection_id: str) -> Strikes:
        """Return the faults that strike this request, in the order they were added."""
        hit = [
            armed.fault
            for armed in self._armed
            if armed.fault.endpoint in ("*", endpoint)
            and armed.fault.connection in ("", connection_id)
            and armed.strikes(self.seed)
        ]
        return Strikes(hit)


@dataclass(frozen=True, slots=True)
class Strikes:
    """The faults that strike one request."""

    faults: Iterable[Fault] = ()

    def of(self, *kinds: str) -> list[Fault]:
        """Return those of these kinds."""
        return [fault for fault in self.faults if fault.kind in kinds]
