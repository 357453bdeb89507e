"""What a simulator is to be like, and the command line's flags for it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from exporter.simulator.faults import ENDPOINTS, PARAMETERS, Fault, parse_fault

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_DIDS = 1_000_000
_RANGES: dict[str, tuple[float, float]] = {
    "dids": (0, MOST_DIDS),
    "connections": (1, 10_000),
    "broken": (0, 1),
    "churn": (0, 3600),
    "outage": (1, 10**9),
    "latency": (0, 86_400),
    "rate_limit": (0, 10**9),
    "journal_size": (1, 10**7),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorOptions:
    """What a simulator is to be like; a `ValueError` names the option that makes no sense."""

    dids: int = 20
    """Numbers, over all connections."""
    connections: int = 1
    seed: int = 1
    broken: float = 0.0
    """Fraction of the DIDs that are broken from the start until repaired."""
    churn: float = 0.0
    """Fraction of the working DIDs that break in an hour; 0: nothing changes by itself."""
    outage: float = 600.0
    """Mean seconds until a DID that broke by itself recovers by itself."""
    latency: float = 0.0
    """Seconds each answer of the API takes."""
    rate_limit: int = 60
    """Requests a minute of one key; 0: no limit."""
    retry_after: bool = False
    """Whether a 429 says how long to wait; the vendor doesn't document that it does."""
    api_keys: tuple[str, ...] = ()
    """The keys that are valid; none: any that begins with `rg_live_`."""
    faults: tuple[Fault, ...] = ()
    journal_size: int = 10_000
    """Requests that are remembered."""

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low:,} to {high:,}, not {value}")
        if not all(self.api_keys):
            raise ValueError("api_keys must not be empty strings")


def _ranged(name: str, kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return an argparse type for an option that has a range."""

    def read(text: str) -> float:
        try:
            value = kind(text)
            SimulatorOptions(**{name: value})  # type: ignore[arg-type]
        except ValueError as error:
            said = str(error) if str(error).startswith(name) else f"{text!r} is not a number"
            raise argparse.ArgumentTypeError(said) from None
        return value

    return read


def _fault(text: str) -> Fault:
    try:
        return parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_FAULT_HELP = (
    "spoil answers; repeatable. KIND is one of "
    + ", ".join(PARAMETERS)
    + "; endpoint one of "
    + ", ".join(ENDPOINTS)
    + " (default *); every kind takes probability (0 to 1), count (how many answers), after (how many pass first) and "
    "connection (an id), and some take more: "
    + "; ".join(f"{kind} {', '.join(names)}" for kind, names in PARAMETERS.items() if names)
    + ". Example: status:sync:status=503,probability=0.1"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the simulator's flags."""
    default = SimulatorOptions()
    for name, kind, metavar, text in (
        ("dids", int, "N", "numbers in the fleet, over all connections"),
        ("connections", int, "N", "VoiceLink connections the numbers are spread over; the first is the default one"),
        ("broken", float, "FRACTION", "fraction of the numbers that are broken from the start until repaired"),
        ("churn", float, "FRACTION", "fraction of the working numbers that break in an hour; 0: none"),
        ("outage", float, "SECONDS", "mean time until a number that broke by itself recovers by itself"),
        ("latency", float, "SECONDS", "time each answer takes"),
        ("rate_limit", int, "N", "requests a minute that one API key may make; 0: no limit"),
    ):
        flag = "--" + name.replace("_", "-")
        shown = f"{text} (default: %(default)s)"
        parser.add_argument(flag, type=_ranged(name, kind), default=getattr(default, name), metavar=metavar, help=shown)
    parser.add_argument(
        "--seed", type=int, default=default.seed, metavar="N", help="same seed, same fleet (default: %(default)s)"
    )
    parser.add_argument(
        "--retry-after",
        action=argparse.BooleanOptionalAction,
        default=default.retry_after,
        help="whether a 429 carries Retry-After",
    )
    parser.add_argument(
        "--api-key",
        action="append",
        dest="api_keys",
        default=None,
        metavar="KEY",
        help="an API key that is valid; repeatable (default: any that begins with rg_live_)",
    )
    parser.add_argument(
        "--fault",
        action="append",
        dest="faults",
        type=_fault,
        default=None,
        metavar="KIND[:endpoint][:key=value,...]",
        help=_FAULT_HELP,
    )


def options_from(args: argparse.Namespace) -> SimulatorOptions:
    """Make options of what `add_arguments` parsed; `ValueError` where an API key is empty."""
    values = {item.name: getattr(args, item.name) for item in fields(SimulatorOptions) if item.name in args}
    values["api_keys"] = tuple(args.api_keys or ())
    values["faults"] = tuple(args.faults or ())
    return SimulatorOptions(**values)
