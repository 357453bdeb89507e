"""A vendor of its own: a front that takes connections, and an API behind it that knows the truth about each number."""

from __future__ import annotations

import json
import random
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.fleet import HEALED_BY_CALL, Fleet, View
from tests.simulation.network import Weather
from tests.simulation.records import Answered, Arrived, Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.simulation.fleet import Did
    from tests.simulation.network import Link
    from tests.simulation.process import Process
    from tests.simulation.records import Record
    from tests.simulation.world import World

SYNC: Final = "/api/v2/voicelink/sync"
CALL: Final = "/api/v2/voicelink/call-ready"
LIST: Final = "/api/v2/telephony/connections"
PATHS: Final = {"sync": SYNC, "call": CALL, "list": LIST}
MINUTE: Final = 60.0
_LISTS: Final = b'"clients":[],"dids":[],"available_dids":[],"bots":[],"routing":[],"local_phone_numbers":[],"drift":[]'
_CODES: Final = {
    400: "VALIDATION_ERROR",
    401: "UNAUTHORIZED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    409: "CONFLICT",
    422: "VALIDATION_ERROR",
    429: "LIMIT_REACHED",
    500: "INTERNAL_ERROR",
}


@dataclass(eq=False)
class Condition:
    """Something that is wrong at the vendor or on the way, until it is taken away.

    It concerns requests to `where` (sync, call, list, or empty for all) from `slot` (-1: all) with `key` about
    `connection`, each with `chance`, and `left` of them.
    """

    effect: str
    where: str = ""
    slot: int = -1
    key: str = ""
    connection: str = ""
    chance: float = 1.0
    left: int | None = None
    status: int = 0
    retry_after: str = ""
    seconds: float = 0.0
    share: float = 0.0
    works: bool = False  # whether the API does its work all the same

    def concerns(self, path: str, slot: int, key: str = "", connection: str = "") -> bool:
        """Tell whether such a request is concerned."""
        return (
            self.left != 0
            and (not self.where or PATHS[self.where] == path)
            and self.slot in {-1, slot}
            and (not self.key or self.key == key)
            and (not self.connection or self.connection == connection)
        )


@dataclass(eq=False)
class Credential:
    """API key. `connections` are the ids that it sees, in order, with their status."""

    key: str
    connections: dict[str, str]
    limit: int = 60
    valid: bool = True


@dataclass(eq=False)
class Request:
    """Request that arrived, and how to answer it."""

    number: int
    link: Link
    path: str
    key: str
    body: dict[str, Any]

    @property
    def connection(self) -> str:
        """The connection that it is about; empty where it names none."""
        return str(self.body.get("connection_id") or "")


class Vendor:
    """The vendor. `tell` takes each record for the judge."""

    def __init__(self, world: World, seed: str, tell: Callable[[Record], None]) -> None:
        self.world = world
        self.fleet = Fleet()
        self.credentials: dict[str, Credential] = {}
        self.conditions: list[Condition] = []
        self.requests = 0
        self.calls = 0
        self._tell = tell
        self._random = random.Random(f"{seed}/vendor")  # noqa: S311 - the same each time
        self._arrivals: dict[str, deque[float]] = {}
        self._network = {slot: Weather(self._latency) for slot in range(-1, 4)}

    def _latency(self) -> float:
        return 0.004 + 0.04 * self._random.random() ** 3

    # The network's side

    def weather(self, process: Process) -> Weather:
        """Return how the network is for a process now."""
        if not self.conditions:
            return self._network[-1]
        found = Weather(self._latency)
        for condition in self.conditions:
            if condition.slot not in {-1, process.slot} or not condition.effect.startswith(("connect", "tls", "tcp")):
                continue
            if condition.chance < 1.0 and self._random.random() > condition.chance:
                continue
            match condition.effect.split():
                case ["connect", how]:
                    found.connect = how
                case ["tls", "late"]:
                    found.tls_late = condition.seconds
                case ["tls", how]:
                    found.tls = how
                case ["tcp", "late"]:
                    found.tcp_late = condition.seconds
        return found

    def opened(self, link: Link) -> None:
        """Note that a connection is there; an idle one may be closed."""
        self._tell(Opened(self.world.now, link.number, link.process.number))

    def closed(self, link: Link) -> None:
        """Note that the client closed a connection."""

    def received(self, link: Link, data: bytes, left_at: float) -> None:
        """Take in a request."""
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("ascii").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        path, _, query = target.partition("?")
        key = headers.get("authorization", "").removeprefix("Bearer ")
        length = int(headers.get("content-length", "0"))
        if len(body) != length or (method == "POST") != (path != LIST):
            raise AssertionError(f"a request that is none: {data[:200]!r}")
        link.requests += 1
        self.requests += 1
        said = json.loads(body) if body else dict(pair.split("=") for pair in query.split("&"))
        request = Request(self.requests, link, path, key, said)
        dropped = link.requests > 1 and self._pick(request, "reuse")
        self._tell(
            Arrived(
                at=self.world.now,
                request=request.number,
                process=link.process.number,
                slot=link.process.slot,
                left=left_at,
                wall=link.process.machine.wall(),
                link=link.number,
                nth=link.requests,
                key=key,
                path=path,
                body=said,
                reached=not dropped,
            )
        )
        if dropped:
            if dropped.effect == "reuse reset":
                link.net.reset(link)
        else:
            self._handle(request)

    # The API's side

    def _pick(self, request: Request, *effects: str) -> Condition | None:
        """Return the first condition with such an effect that concerns a request, and take one from what is left."""
        for condition in self.conditions:
            if condition.effect.startswith(effects) and condition.concerns(
                request.path, request.link.process.slot, request.key, request.connection
            ):
                if condition.chance < 1.0 and self._random.random() > condition.chance:
                    continue
                if condition.left is not None:
                    condition.left -= 1
                return condition
        return None

    def _handle(self, request: Request) -> None:
        slow = self._pick(request, "slow") if self.conditions else None
        work = self._seconds(request.path) + (slow.seconds if slow else 0.0)
        wrong = self._pick(request, "status", "lost", "reset", "cut", "garbage", "endless") if self.conditions else None
        works = wrong is None or wrong.works
        credential = self.credentials.get(request.key)
        arrivals = self._arrivals.setdefault(request.key, deque())
        while arrivals and arrivals[0] <= self.world.now - MINUTE:
            arrivals.popleft()
        arrivals.append(self.world.now)
        if credential is None or not credential.valid:
            self.world.later(0.02, lambda: self._refuse(request, 401))
        elif len(arrivals) > credential.limit:
            self.world.later(0.02, lambda: self._refuse(request, 429))
        else:
            late = self._pick(request, "late work") if self.conditions and request.path == CALL else None

            def carry_out() -> None:
                status, text, view = self._work(request, credential) if works else (0, b"", None)
                if wrong:
                    self._spoil(request, wrong, status, text)
                else:
                    self.answer(request, status, text, view=view)

            if late:  # the answer comes, or not, and the work is done much later
                self.world.later(work, lambda: self._refuse(request, 504))
                self.world.later(work + late.seconds, lambda: self._work_unseen(request, credential))
            else:
                self.world.later(work, carry_out)

    def _work_unseen(self, request: Request, credential: Credential) -> None:
        """Do the work when nobody waits for its answer any more."""
        self._work(request, credential)

    def _seconds(self, path: str) -> float:
        draw = self._random.random()
        return {SYNC: 0.1 + 1.2 * draw**2, CALL: 0.3 + 3.5 * draw, LIST: 0.05 + 0.2 * draw}[path]

    def _work(self, request: Request, credential: Credential) -> tuple[int, bytes, View | None]:
        if request.path == LIST:
            listed = [
                {"id": each, "connection_id": each, "provider": "voicelink", "name": each[:8], "status": status}
                for each, status in credential.connections.items()
                if status != "gone"
            ]
            return 200, _success(listed), None
        connection = request.connection or next(iter(credential.connections))
        if credential.connections.get(connection) in {None, "gone"}:
            return 404, _failure(404), None
        if request.path == SYNC:
            view = self.fleet.poll(connection)
            partial = self._pick(request, "partial") if self.conditions else None
            if partial:
                lost = {number for number in view.dids if self._random.random() < partial.share}
                view = self.fleet.part(view, lost)
            return 200, b'{"success":true,"data":{' + _LISTS + b',"readiness":[' + view.text + b"]}}", view
        return (*self._call_ready(request, connection), None)

    def _call_ready(self, request: Request, connection: str) -> tuple[int, bytes]:
        self.calls += 1
        body = request.body
        did = self._named(body)
        if did is None or did.connection != connection or not did.listed:
            return 404, _failure(404)
        before = did.readiness()
        if did.client is None and "client_id" in body:
            did.client = int(body["client_id"])
            self.fleet.touched(did)
        works = did.curable
        if works:
            self.fleet.change(did, did.issues - set(HEALED_BY_CALL))
            if did.breaks_after is not None:
                self.world.later(did.breaks_after, lambda: self.fleet.change(did, HEALED_BY_CALL))
        lie = self._pick(request, "lie") if self.conditions else None
        ready = not did.issues if not lie else bool(did.issues)
        done = "done" if works else "failed"
        return 200, _success(
            {
                "phone_number": did.number,
                "key": did.number.removeprefix("+"),
                "ready": ready,
                "steps": [{"step": "resolve_did", "status": "done"}, {"step": "ensure_routing", "status": done}],
                "readiness_before": before,
                "readiness": did.readiness(),
            }
        )

    def _named(self, body: dict[str, Any]) -> Did | None:
        if "did_id" in body:
            return self.fleet.by_id.get(body["did_id"])
        return self.fleet.dids.get(f"+{str(body.get('did_number')).removeprefix('+')}")

    # Answers

    def _refuse(self, request: Request, status: int, retry_after: str = "") -> None:
        self.answer(request, status, _failure(status), retry_after=retry_after)

    def _spoil(self, request: Request, wrong: Condition, status: int, text: bytes) -> None:
        """Answer as a condition has it. `status` and `text` are what would be answered, where the work was done."""
        match wrong.effect:
            case "status":
                body = text if wrong.status in {201, 202} and wrong.works else _failure(wrong.status)
                if wrong.retry_after == "html":
                    body, wrong_retry = b"<html>no JSON</html>", ""
                else:
                    wrong_retry = wrong.retry_after
                self.answer(request, wrong.status, body, retry_after=wrong_retry)
            case "lost":
                pass
            case "reset":
                self._broken(request)
                request.link.net.reset(request.link)
            case "cut":
                whole = _response(200, text or b"{" * 200, "")
                request.link.net.give(request.link, whole[: len(whole) - 20])
                self._note(request, 200, usable=False)  # which may be heard, or not before the end
                request.link.net.reset(request.link)
            case "garbage":
                self.answer(request, 200, b'{"success": tru', usable=False)
            case "endless":
                head = _response(wrong.status or status or 500, b" " * 1000, wrong.retry_after)[:-990]
                request.link.net.give(
                    request.link, head, lambda: self._note(request, wrong.status or status or 500, usable=False)
                )

    def _broken(self, request: Request) -> None:
        self._note(request, 0, usable=False)

    def answer(
        self,
        request: Request,
        status: int,
        body: bytes,
        *,
        retry_after: str = "",
        usable: bool = True,
        view: View | None = None,
    ) -> None:
        """Send an answer on its way."""
        link = request.link
        link.answered_at = self.world.now
        link.net.give(
            link,
            _response(status, body, retry_after),
            lambda: self._note(request, status, usable=usable, view=view, retry_after=retry_after),
        )
        closes = self._pick(request, "closes") if self.conditions else None
        if closes:
            self.world.later(closes.seconds, lambda: link.net.finish(link))

    def _note(
        self, request: Request, status: int, *, usable: bool, view: View | None = None, retry_after: str = ""
    ) -> None:
        self._tell(
            Answered(
                self.world.now,
                request.number,
                request.link.process.number,
                status,
                usable,
                view,
                request.connection,
                float(retry_after) if retry_after.isdigit() else None,
            )
        )


def _success(data: object) -> bytes:
    return json.dumps({"success": True, "data": data}).encode()


def _failure(status: int) -> bytes:
    code = _CODES.get(status, "INTERNAL_ERROR" if status >= 500 else "REFUSED")
    return json.dumps({"success": False, "error": {"code": code, "message": "no"}}).encode()


def _response(status: int, body: bytes, retry_after: str) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
    if retry_after and retry_after != "html":
        head += f"retry-after: {retry_after}\r\n"
    if 300 <= status < 400:
        head += "location: https://elsewhere.example/\r\n"
    return head.encode() + b"\r\n" + body


def numbers(prefix: str, count: int) -> Iterable[str]:
    """Return so many phone numbers in E.164."""
    return (f"{prefix}{index:04d}" for index in range(count))
