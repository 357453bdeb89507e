"""The control endpoint: what a test or a person does to the simulator over HTTP. No part of the vendor's API."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporter.simulator.faults import fault_of
from exporter.simulator.refusals import Refusal, envelope, invalid, not_found

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from exporter.simulator.fleet import Connection
    from exporter.simulator.simulator import DidChange, Simulator

    Handler = Callable[[Request], Awaitable[Response]]

CHANGES: dict[str, tuple[type, ...]] = {
    "issues": (list, type(None)),
    "expired": (bool,),
    "client_id": (int, type(None)),
    "removed": (bool,),
    "connection_id": (str,),
    "imported": (bool,),
    "friendly_name": (str,),
}
"""The JSON types of what can be changed of a DID."""


class Control:
    """The handlers of the control endpoint."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator

    def routes(self) -> list[Route]:
        """Return the routes, all under `/control`."""
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/journal", self._journal),
            ("DELETE", "/journal", self._clear_journal),
            ("GET", "/fleet", self._fleet),
            ("PUT", "/dids/{number}", self._set_did),
            ("PUT", "/connections/{connection_id}", self._set_connection),
            ("GET", "/faults", self._faults),
            ("POST", "/faults", self._add_fault),
            ("DELETE", "/faults", self._clear_faults),
        ]
        return [Route(f"/control{path}", _guarded(handler), methods=[method]) for method, path, handler in table]

    async def _journal(self, _request: Request) -> Response:
        requests = [seen.as_json() for seen in self._simulator.requests()]
        return JSONResponse({"requests": requests, "writes": asdict(self._simulator.writes)})

    async def _clear_journal(self, _request: Request) -> Response:
        self._simulator.clear_journal()
        return Response(status_code=204)

    async def _fleet(self, _request: Request) -> Response:
        simulator = self._simulator
        return JSONResponse(
            {
                "elapsed": simulator.elapsed(),
                "connections": [_connection(connection) for connection in simulator.fleet.connections.values()],
                "dids": {number: truth.as_json() for number, truth in simulator.truth().items()},
            }
        )

    async def _set_did(self, request: Request) -> Response:
        change = await _body(request)
        for name, value in change.items():
            _check_change(name, value)
        try:
            truth = self._simulator.set_did(request.path_params["number"], **cast("DidChange", change))
        except KeyError as error:
            raise not_found(str(error)) from None
        return JSONResponse(truth.as_json())

    async def _set_connection(self, request: Request) -> Response:
        status = (await _body(request)).get("status")
        if not isinstance(status, str):
            raise invalid("status must be a string")
        try:
            connection = self._simulator.set_connection(request.path_params["connection_id"], status=status)
        except KeyError as error:
            raise not_found(str(error)) from None
        return JSONResponse(_connection(connection))

    async def _faults(self, _request: Request) -> Response:
        return JSONResponse({"faults": [fault.spec() for fault in self._simulator.faults()]})

    async def _add_fault(self, request: Request) -> Response:
        values = await _body(request)
        try:
            text = values.get("fault")
            number = self._simulator.add_fault(text if isinstance(text, str) else fault_of(values))
        except ValueError as error:
            raise invalid(str(error)) from None
        return JSONResponse({"id": number}, 201)

    async def _clear_faults(self, _request: Request) -> Response:
        self._simulator.clear_faults()
        return Response(status_code=204)


def _check_change(name: str, value: object) -> None:
    types = CHANGES.get(name)
    if types is None:
        raise invalid(f"{name} can't be changed: one of {', '.join(CHANGES)}")
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise invalid(f"{name} has the wrong type")
    if isinstance(value, list) and not all(isinstance(code, str) and code for code in value):
        raise invalid("issues must be a list of codes")


def _connection(connection: Connection) -> dict[str, object]:
    return {
        "connection_id": connection.connection_id,
        "name": connection.name,
        "status": connection.status,
        "is_default": connection.is_default,
    }


async def _body(request: Request) -> dict[str, object]:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise invalid("The request body must be JSON") from None
    if not isinstance(body, dict):
        raise invalid("The request body must be a JSON object")
    return body


def _guarded(handler: Handler) -> Handler:
    """Answer a refusal with the API's error envelope."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except Refusal as refusal:
            return JSONResponse(envelope(refusal.status, refusal.message), refusal.status)

    return guarded
