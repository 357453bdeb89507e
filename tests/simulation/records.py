"""What the judge goes by: one record for each thing that happened, with its true time in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.simulation.fleet import View
    from tests.simulation.setup import Setup


@dataclass(frozen=True, slots=True)
class Started:
    """A daemon started, or a command; `slot` is the replica that it is.

    `manual` are the numbers that a command is to heal, `force` is whether past the fleet's guards.
    """

    at: float
    process: int
    slot: int
    setup: Setup
    manual: tuple[str, ...] | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """A daemon goes by another configuration; until it is `done`, by that or the one before."""

    at: float
    process: int
    setup: Setup
    done: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A process is no more. `killed`: without a word."""

    at: float
    process: int
    killed: bool


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request reached the vendor's front, first byte and all.

    `left` is when its first byte left. `link` is its TCP connection, `nth` which request on it, from 1. `wall` is the
    wall clock of its sender when it left. `reached` is whether the API behind the front got it.
    """

    at: float
    request: int
    process: int
    slot: int
    left: float
    wall: float
    link: int
    nth: int
    key: str
    path: str
    body: Mapping[str, Any]
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Answered:
    """A whole answer reached the process that asked.

    `status` is 0 where the connection broke instead. `usable` is whether the answer is what the API documents; `shows`
    is what a complete sync says. `retry_after` is in seconds.
    """

    at: float
    request: int
    process: int
    status: int
    usable: bool
    shows: View | None = None
    connection: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A TCP connection was there."""

    at: float
    link: int
    process: int


@dataclass(frozen=True, slots=True)
class LedgerRead:
    """What a commit changed in the ledger: every row of attempts that is new or was open before, as it is now.

    `process` committed it, `wall` is the time on its wall clock.
    """

    at: float
    process: int
    wall: float
    attempts: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Commanded:
    """A person's command was carried out: `pause`, `resume`, `resume --new-store` or `release` of a `number`."""

    at: float
    command: str
    number: str = ""


@dataclass(frozen=True, slots=True)
class Excused:
    """Something of the weather that explains why polls may be late from `at` to `until`: `slot` -1 is all."""

    at: float
    until: float
    slot: int
    why: str


@dataclass(frozen=True, slots=True)
class StoreLost:
    """The store was wiped, or another one is in its place; `away`: it comes back as it was."""

    at: float
    away: bool = False


@dataclass(frozen=True, slots=True)
class StoreBack:
    """The store that was away is there again."""

    at: float


Record = (
    Started
    | Reconfigured
    | Ended
    | Arrived
    | Answered
    | Opened
    | LedgerRead
    | Commanded
    | Excused
    | StoreLost
    | StoreBack
)
