"""The vendor's numbers as they truly are, and as its answers show them, which may lag behind."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

HEALED_BY_CALL: Final = ("NO_BOT", "ROUTING_MISSING")  # what call-ready sees to
ORDER: Final = ("NO_BOT", "ROUTING_MISSING", "NO_VOCOBASE_AGENT")


@dataclass(frozen=True)
class Shown:
    """What one answer says of one DID. `healable` is whether call-ready may be sent for it as far as the answer tells.

    `client` is the client that it is mapped to.
    """

    did_id: int
    state: str
    issues: frozenset[str]
    client: int | None
    expired: bool

    @property
    def ready(self) -> bool:
        """Whether calls can be made over it."""
        return self.state == "READY"


@dataclass(frozen=True, eq=False)
class View:
    """What one answer says of all DIDs of a connection, by number, and its text."""

    dids: dict[str, Shown]
    text: bytes = b""

    @cached_property
    def unready(self) -> frozenset[str]:
        """The numbers that calls can't be made over."""
        return frozenset(number for number, shown in self.dids.items() if not shown.ready)

    def unhealthy(self, issues: tuple[str, ...]) -> frozenset[str]:
        """Return the numbers that have one of these issues."""
        return frozenset(number for number in self.unready if self.dids[number].issues.intersection(issues))


@dataclass(eq=False)
class Did:
    """One number. `stubborn`: call-ready has no effect; `breaks_after` seconds after each heal it breaks again."""

    number: str
    did_id: int
    connection: str
    client: int | None = 415
    expired: bool = False
    listed: bool = True
    issues: frozenset[str] = frozenset()
    stubborn: bool = False
    breaks_after: float | None = None
    shown: frozenset[str] = frozenset()
    coming: list[tuple[int, frozenset[str]]] = field(default_factory=list)  # by which poll it shows
    cached: tuple[Shown, bytes] | None = None

    @property
    def curable(self) -> bool:
        """Whether a call-ready would make it better now."""
        return bool(
            self.listed
            and not self.expired
            and self.client is not None
            and not self.stubborn
            and self.issues & frozenset(HEALED_BY_CALL)
        )

    def entry(self) -> tuple[Shown, bytes]:
        """Return how it is shown now, and as JSON."""
        if self.cached is None:
            state = next((issue for issue in ORDER if issue in self.shown), "READY") if self.shown else "READY"
            shown = Shown(self.did_id, state, self.shown, self.client, self.expired)
            self.cached = shown, json.dumps(self._json(shown)).encode()
        return self.cached

    def readiness(self) -> dict[str, Any]:
        """Return its entry as call-ready's answer holds it."""
        return self._json(self.entry()[0])

    def _json(self, shown: Shown) -> dict[str, Any]:
        key = self.number.removeprefix("+")
        issues = sorted(shown.issues)
        remote = {"did_id": self.did_id, "client_id": self.client, "is_expired": self.expired}
        return {"key": key, "phone_number": self.number, "state": shown.state, "issues": issues, "remote_did": remote}


class Fleet:
    """All numbers of the vendor. Polls are counted by connection, so that what is shown can lag by polls."""

    def __init__(self) -> None:
        self.dids: dict[str, Did] = {}
        self.by_id: dict[int, Did] = {}
        self.lag = 0  # polls by which changes show late
        self._polls: dict[str, int] = {}
        self._views: dict[str, View] = {}
        self._late: set[str] = set()  # connections with changes that don't show yet

    def add(self, did: Did) -> None:
        """Buy a number."""
        self.dids[did.number] = did
        self.by_id[did.did_id] = did

    def of(self, connection: str) -> list[Did]:
        """Return the numbers of a connection, listed or not."""
        return [did for did in self.dids.values() if did.connection == connection]

    def touched(self, *dids: Did) -> None:
        """Note that something of a number's entry changed, which shows at once."""
        for did in dids:
            did.cached = None
            self._views.pop(did.connection, None)

    def change(self, did: Did, issues: Iterable[str], lag: int | None = None) -> None:
        """Let a number have these issues from now on; it shows after so many polls."""
        did.issues = frozenset(issues)
        lag = self.lag if lag is None else lag
        if lag or did.coming:
            did.coming.append((self._polls.get(did.connection, 0) + lag + 1, did.issues))
            self._late.add(did.connection)
        elif did.shown != did.issues:
            did.shown = did.issues
            self.touched(did)

    def move(self, did: Did, connection: str) -> None:
        """Let a number belong to another connection."""
        self.touched(did)
        did.connection, did.coming = connection, []
        did.shown = did.issues
        self.touched(did)

    def poll(self, connection: str) -> View:
        """Return what an answer says of a connection now; this counts as a poll of it."""
        number = self._polls[connection] = self._polls.get(connection, 0) + 1
        if connection in self._late:
            self._catch_up(connection, number)
        view = self._views.get(connection)
        if view is None:
            entries = [(did.number, *did.entry()) for did in self.of(connection) if did.listed]
            text = b",".join(text for _, _, text in entries)
            view = self._views[connection] = View({number: shown for number, shown, _ in entries}, text)
        return view

    def part(self, view: View, numbers: set[str]) -> View:
        """Return a view without some numbers."""
        kept = {number: shown for number, shown in view.dids.items() if number not in numbers}
        text = b",".join(self.dids[number].entry()[1] for number in kept)
        return View(kept, text)

    def _catch_up(self, connection: str, poll: int) -> None:
        waiting = False
        for did in self.of(connection):
            while did.coming and did.coming[0][0] <= poll:
                did.shown = did.coming.pop(0)[1]
                self.touched(did)
            waiting |= bool(did.coming)
        if not waiting:
            self._late.discard(connection)
