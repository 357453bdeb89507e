"""The JSON API, by FastAPI. The document at `openapi.json` describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from exporter import __version__
from exporter.errors import StoreError
from exporter.web.models import NUMBER, Detail, Dids, Error, Failed, Heals, Model, OneDid, Targets
from exporter.web.query import BadQueryError, DidQuery, HealQuery, Paged, problems_of, refuse_repeats
from exporter.web.reader import Reader, UnknownDidError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

UNKNOWN: Final = "no such number is known"
NO_PAST: Final = "the store does not answer, so nothing can be said of the past"
CODES: Final = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 503: "store_unavailable"}
_ABOUT: Final = """\
What the status page shows, for scripts. Read only.

- Times are RFC 3339 in UTC.
- Lists are paged: `page` and `per_page`. `total` counts all pages.
- An unknown parameter, one that is given twice, or a value that makes no sense is refused with 400.
- With `privacy.hash_numbers` a keyed hash stands for the number everywhere.
"""
_FAILURES: Final[dict[int, str]] = {
    400: "A parameter can't be used; `details` says which and why.",
    404: "No such number is known.",
    503: "The store doesn't answer, so that nothing can be said of the past.",
}


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failed, "description": _FAILURES[status]} for status in statuses}


def _once(request: Request) -> None:
    refuse_repeats(request.query_params.multi_items())


class _Api(FastAPI):
    """FastAPI, which documents a 422 that this API never answers."""

    def openapi(self) -> dict[str, Any]:
        """Return the document, in which only what can be answered stands."""
        document = super().openapi()
        for item in document["paths"].values():
            for operation in item.values():
                operation["responses"].pop("422", None)
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        return document


def create_api(reader: Reader) -> Heads:
    """Make the ASGI application, to be mounted at `/api/v1`."""
    api = _Api(
        title="voicelink-exporter",
        version=__version__,
        description=_ABOUT,
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(_once)],
    )

    @api.get("/dids", response_model=Dids, responses=_failures(400), summary="List numbers", operation_id="listDids")
    async def dids(query: Annotated[DidQuery, Query()]) -> Response:
        """List every number that a current poll tells of, under each target that lists it."""
        return _json(await reader.dids(query))

    @api.get(
        "/dids/{number}",
        response_model=OneDid,
        responses=_failures(400, 404, 503),
        summary="Show one number",
        operation_id="getDid",
    )
    async def did(
        number: Annotated[
            str,
            Path(
                description="As `phone_number` shows it, the number in any usual spelling, or `did:` and its id.",
                examples=[NUMBER],
            ),
        ],
    ) -> Response:
        """Show a number: an entry for each target that lists it, its changes of state and its heals."""
        return _json(await reader.did(number))

    @api.get(
        "/targets", response_model=Targets, responses=_failures(400), summary="List targets", operation_id="listTargets"
    )
    async def targets(query: Annotated[Paged, Query()]) -> Response:
        """List the connections of each account: how their polls go, and what holds their heals back."""
        return _json(await reader.targets(query))

    @api.get(
        "/heals",
        response_model=Heals,
        responses=_failures(400, 404, 503),
        summary="List heals",
        operation_id="listHeals",
    )
    async def heals(query: Annotated[HealQuery, Query()]) -> Response:
        """List the ledger, newest first: every request that was sent to heal a number, or would have been."""
        return _json(await reader.heals(query))

    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(BadQueryError, _refused)
    api.add_exception_handler(UnknownDidError, _unknown)
    api.add_exception_handler(StoreError, _no_past)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(Exception, _broken)
    return Heads(api)


class Heads:
    """Answers HEAD as GET; the server leaves the body out."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def openapi(self) -> dict[str, Any]:
        """Return the document that describes it."""
        return self._app.openapi()

    @property
    def routes(self) -> list[BaseRoute]:
        """What it answers at."""
        return self._app.routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        head = scope.get("method") == "HEAD"
        await self._app({**scope, "method": "GET"} if head else scope, receive, send)


def _json(answer: Model, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    kept = {"Cache-Control": "no-cache", **(headers or {})}
    return Response(answer.model_dump_json(), status, kept, media_type="application/json")


def _failed(
    status: int, message: str, problems: Iterable[tuple[str, str]] = (), headers: dict[str, str] | None = None
) -> Response:
    details = tuple(Detail(field=name, message=why) for name, why in problems)
    error = Error(code=CODES.get(status, "internal"), message=message, details=details)
    return _json(Failed(error=error), status, headers)


async def _invalid(_: Request, error: Exception) -> Response:
    errors = error.errors() if isinstance(error, RequestValidationError) else ()
    return _failed(400, "a parameter can't be used", problems_of(errors))


async def _refused(_: Request, error: Exception) -> Response:
    problems = error.problems if isinstance(error, BadQueryError) else ()
    return _failed(400, "a parameter can't be used", problems)


async def _unknown(_: Request, __: Exception) -> Response:
    return _failed(404, UNKNOWN)


async def _no_past(_: Request, __: Exception) -> Response:
    return _failed(503, NO_PAST)


async def _http(_: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    said = {404: "there is nothing at this path", 405: "this path takes GET alone"}
    return _failed(status, said.get(status, "the request can't be answered"), headers=headers)


async def _broken(_: Request, __: Exception) -> Response:
    return _failed(500, "the exporter has a fault; its log says where")
