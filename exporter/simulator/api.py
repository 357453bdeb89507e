"""The vendor's API as an ASGI app: who may ask, what strikes the request, what the answer is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from exporter.simulator import requests as ask
from exporter.simulator.delivery import Dripping, Hanging, Swollen, Truncated
from exporter.simulator.journal import Seen
from exporter.simulator.mutate import MUTATORS, mutate
from exporter.simulator.refusals import Refusal, envelope, invalid, not_found
from exporter.simulator.wire import did_status, dump, purchased, success

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from exporter.simulator.faults import Fault, Strikes
    from exporter.simulator.simulator import Simulator

PREFIX = "/api/v2"
REDIRECTS = range(300, 400)
NO_CONTENT = 204
HTML = b"<!DOCTYPE html><html><head><title>Maintenance</title></head><body><h1>Back soon</h1></body></html>"
NOT_JSON = b'{"success":true,"data":{"readiness":[{"key":'
DID_TYPE = "local"
"""VoiceLink's `did_type` of every DID; the values are an assumption."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request says."""

    query: dict[str, str]
    body: object


class Api:
    """Answers everything under `/api/v2`; any other path is a 404."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self._endpoints: dict[tuple[str, str], tuple[str, Callable[[Asked], bytes]]] = {
            ("GET", "/telephony/connections"): ("connections", self._connections),
            ("POST", "/voicelink/sync"): ("sync", self._sync),
            ("POST", "/voicelink/call-ready"): ("call_ready", self._call_ready),
            ("GET", "/voicelink/dids/purchased"): ("purchased", self._purchased),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            response = await self._respond(Request(scope, receive))
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        text = await _text(request)
        key = ask.bearer_key(request.headers.get("authorization", ""))
        asked = Asked(dict(request.query_params), ask.parsed(text or ""))
        seen = Seen(self._simulator.clock(), request.method, request.url.path, asked.query)
        seen.body = asked.body[: ask.MOST_KEPT] if isinstance(asked.body, str) else asked.body
        self._simulator.journal.add(seen, key)
        try:
            if text is None:
                raise invalid("The request body is too large")
            ask.check_key(key, self._simulator.options.api_keys, f"{request.url.query} {text}")
            response = await self._admitted(seen, key, asked)
        except Refusal as refusal:
            response = _refused(refusal)
        if not isinstance(response, Hanging):
            seen.status = response.status_code
        return response

    async def _admitted(self, seen: Seen, key: str, asked: Asked) -> Response:
        """Answer a request with a valid key."""
        simulator = self._simulator
        path = seen.path.removeprefix(PREFIX) if seen.path.startswith(PREFIX) else ""
        seen.endpoint, handler = self._endpoints.get((seen.method, path), ("unknown", _unknown))
        wait = simulator.limiter.wait(key, simulator.clock())
        if wait:
            told = {"Retry-After": str(wait)} if simulator.options.retry_after else {}
            raise Refusal(429, "Rate limit reached", told)
        seen.connection_id = self._connection_id(seen.endpoint, asked)
        strikes = simulator.book.strike(seen.endpoint, seen.connection_id)
        pause = simulator.options.latency + sum(fault.pause for fault in strikes.of("latency"))
        if pause:
            await simulator.sleep(pause)
        for fault in strikes.of("hang", "status"):
            return self._failure(fault)
        simulator.advanced()
        body = handler(asked)
        for fault in strikes.of("act_then_fail"):
            return self._failure(fault)
        return self._spoilt(seen.endpoint, body, strikes)

    def _connection_id(self, endpoint: str, asked: Asked) -> str:
        """Return the connection that a request is about, as far as it can be told."""
        if endpoint in ("connections", "unknown"):
            return ""
        values = asked.query if endpoint == "purchased" else asked.body
        try:
            return ask.connection_of(self._simulator.fleet, ask.json_object(values)).connection_id
        except Refusal:
            return ""

    def _failure(self, fault: Fault) -> Response:
        if fault.kind == "hang" or (fault.kind == "act_then_fail" and fault.choice("then") == "hang"):
            return Hanging(fault.pause, self._simulator.sleep)
        headers = {"Location": fault.location} if fault.location else {}
        if fault.retry_after:
            headers["Retry-After"] = fault.retry_after
        if fault.status in REDIRECTS or fault.status == NO_CONTENT:
            return Response(status_code=fault.status, headers=headers)
        return _refused(Refusal(fault.status, "Injected fault", headers))

    def _spoilt(self, endpoint: str, body: bytes, strikes: Strikes) -> Response:
        """Return an answer that went well, or what the faults make of it."""
        simulator = self._simulator
        mutations = strikes.of(*MUTATORS)
        if mutations:
            body = mutate(body, endpoint, mutations, simulator.options.seed)
        media_type = "application/json"
        for fault in strikes.of("html", "not_json"):
            body, media_type = (HTML, "text/html") if fault.kind == "html" else (NOT_JSON, media_type)
        response = Response(body, media_type=media_type)
        for fault in strikes.of("truncate", "drip", "oversize"):
            if fault.kind == "truncate":
                return Truncated(body, media_type=media_type)
            if fault.kind == "drip":
                return Dripping(response, fault.length, fault.pause, simulator.sleep)
            return Swollen(response, fault.length)
        return response

    def _connections(self, asked: Asked) -> bytes:
        """List the connections; that another provider gets an empty list is an assumption."""
        wanted = asked.query.get("provider", "voicelink") == "voicelink"
        return self._simulator.wire.connections(self._simulator.fleet.connections.values() if wanted else ())

    def _sync(self, asked: Asked) -> bytes:
        body = ask.json_object(asked.body)
        connection = ask.connection_of(self._simulator.fleet, body)
        if ask.import_wanted(body):
            self._simulator.import_all(connection)
        return self._simulator.wire.sync(connection)

    def _call_ready(self, asked: Asked) -> bytes:
        body = ask.json_object(asked.body)
        simulator = self._simulator
        connection = ask.connection_of(simulator.fleet, body)
        order = ask.order_of(body)
        did = ask.did_of(simulator.fleet, connection, body)
        before = simulator.wire.entry(did)
        steps = simulator.make_ready(did, connection, order)
        known = {"phone_number": did.phone_number, "key": did.number, "ready": not did.issues, "steps": steps}
        after = simulator.wire.entry(did)
        return success(b'%b,"readiness_before":%b,"readiness":%b}' % (dump(known)[:-1], before, after))

    def _purchased(self, asked: Asked) -> bytes:
        query = asked.query
        dids = ask.connection_of(self._simulator.fleet, query).dids()
        if "client_id" in query:
            client_id = ask.positive(query, "client_id", 1)
            dids = [did for did in dids if did.client_id == client_id]
        if "status" in query:
            dids = [did for did in dids if did_status(did) == query["status"].upper()]
        if query.get("did_type", DID_TYPE) != DID_TYPE:
            dids = []
        return purchased(dids, ask.positive(query, "page", 1), ask.positive(query, "per_page", ask.PER_PAGE))


async def _text(request: Request) -> str | None:
    """Read the body; None where it is too large."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > ask.MOST_BODY_BYTES:
            return None
    return body.decode(errors="replace")


def _unknown(_asked: Asked) -> bytes:
    """Refuse an unknown path or method; that a wrong method is a 404 is an assumption."""
    raise not_found("Endpoint")


def _refused(refusal: Refusal) -> Response:
    body = dump(envelope(refusal.status, refusal.message))
    return Response(body, refusal.status, refusal.headers, media_type="application/json")
