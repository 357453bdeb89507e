"""The real client against the simulator in process: what it sends, and what each answer of the API becomes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpx
import pytest
from pydantic import SecretStr

from exporter import errors
from exporter.clock import Lease
from exporter.errors import ApiError, QuotaError, RateLimitedError, RejectedError
from exporter.vocobase import RequestBudget, VocobaseClient, parse_connections, parse_sync
from tests.support.api import KEY, Requests, Scripted, api_config, client_of, simulated
from tests.support.clock import ManualClock, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Mapping

    from exporter.vocobase.client import Reservation

FAR = 1e6
FAST = 60_000  # requests a minute: nothing waits for its place for long
SYNC = "voicelink/sync"
CONNECTIONS = "telephony/connections"
Result = TypeVar("Result")


@contextlib.asynccontextmanager
async def reserved(
    clock: ManualClock, client: VocobaseClient, body: Mapping[str, Any], *, patience: float = 60.0, step: float = 0.001
) -> AsyncIterator[Reservation]:
    """Reserve a write and wait for its turn, turning the clock until there are its place, connection and turn."""
    async with contextlib.AsyncExitStack() as stack:
        deadline = clock.monotonic() + patience

        async def wait() -> Reservation:
            reservation = await stack.enter_async_context(client.reserve(body, deadline=deadline))
            await reservation.turn(deadline)
            return reservation

        waiting = asyncio.ensure_future(wait())
        while not waiting.done():
            await clock.advance(step)
        yield await waiting


async def finish(clock: ManualClock, work: Coroutine[Any, Any, Result]) -> Result:
    """Turn the clock until the work is done."""
    task = asyncio.ensure_future(work)
    for _ in range(10_000):
        if task.done():
            break
        await clock.advance(0.125)
    return await task


async def test_a_sync_writes_nothing_and_names_its_connection() -> None:
    simulator, transport = simulated(dids=3, connections=2)
    first = simulator.connection_ids[1]
    async with client_of(api_config(), transport=transport) as client:
        answer = parse_sync((await client.sync(first, deadline=FAR)).body)
    assert [entry.number for entry in answer.entries] == [
        truth.number for truth in simulator.truth().values() if truth.connection_id == first
    ]
    (seen,) = simulator.requests()
    assert (seen.method, seen.path, seen.query) == ("POST", "/api/v2/voicelink/sync", {})
    assert seen.body == {"import_dids": False, "connection_id": first}
    assert (simulator.writes.syncs, simulator.writes.imports, simulator.writes.heals) == (0, 0, 0)


async def test_a_sync_without_a_connection_names_none() -> None:
    simulator, transport = simulated(dids=3)
    async with client_of(api_config(), transport=transport) as client:
        assert len(parse_sync((await client.sync(None, deadline=FAR)).body).entries) == 3
    assert simulator.requests()[0].body == {"import_dids": False}
    assert simulator.writes.syncs == 0


@pytest.mark.parametrize("shape", ["data", "data.connections", "data.data"])
async def test_the_connections_are_those_of_voicelink(shape: str) -> None:
    simulator, transport = simulated(connections=3)
    simulator.add_fault(f"envelope:connections:shape={shape}")
    async with client_of(api_config(), transport=transport) as client:
        listed = parse_connections(await client.connections(deadline=FAR))
    assert [each.connection_id for each in listed] == simulator.connection_ids
    (seen,) = simulator.requests()
    assert (seen.method, seen.path, seen.query) == (
        "GET",
        "/api/v2/telephony/connections",
        {"provider": "voicelink"},
    )
    assert seen.body is None


async def test_the_key_goes_into_the_header_and_nowhere_else() -> None:
    sent: list[httpx.Request] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        await request.aread()
        sent.append(request)
        return httpx.Response(200, json={"success": True})

    async with client_of(api_config(), transport=Scripted(handle)) as client:
        await client.sync("some-connection", deadline=FAR)
        await client.connections(deadline=FAR)
        assert KEY not in repr(vars(client))
    for request in sent:
        assert request.headers["Authorization"] == f"Bearer {KEY}"
        others = [value for name, value in request.headers.multi_items() if name != "authorization"]
        assert KEY not in f"{request.url} {request.content!r} {others}"
        assert request.headers["User-Agent"].startswith("voicelink-exporter/")


REJECTIONS: list[tuple[str, type[RejectedError], str, str]] = [
    ("status=400", errors.ValidationError, "validation", "the API refuses (400 VALIDATION_ERROR)"),
    ("status=401", errors.AuthError, "auth", "the API refuses (401 UNAUTHORIZED)"),
    ("status=403", errors.ForbiddenError, "forbidden", "the API refuses (403 FORBIDDEN)"),
    ("status=404", errors.NotFoundError, "not_found", "the API refuses (404 NOT_FOUND)"),
    ("status=409", errors.ConflictError, "conflict", "the API refuses (409 CONFLICT)"),
    ("status=422", errors.ValidationError, "validation", "the API refuses (422 HTTP_422)"),
    ("status=418", RejectedError, "other", "the API refuses (418 HTTP_418)"),
    ("status=429", RateLimitedError, "rate_limited", "the API limits our rate (429 LIMIT_REACHED)"),
    ("status=500", errors.ServerError, "server_error", "the API has a fault (500 INTERNAL_ERROR)"),
    ("status=503", errors.ServerError, "server_error", "the API has a fault (503 INTERNAL_ERROR)"),
    (
        "status=302,location=http://simulator/api/v2/elsewhere",
        errors.RedirectError,
        "bad_response",
        "the API redirects (302), which is not followed",
    ),
    ("status=201", RejectedError, "other", "the API answered with a status it doesn't document (201 HTTP_201)"),
    ("status=204", RejectedError, "other", "the API answered with a status it doesn't document (204)"),
]


@pytest.mark.parametrize(("fault", "kind", "reason", "message"), REJECTIONS)
async def test_each_row_of_the_apis_table(fault: str, kind: type[RejectedError], reason: str, message: str) -> None:
    simulator, transport = simulated()
    simulator.add_fault(f"status:sync:{fault}")
    clock, requests = ManualClock(), Requests()
    status = int(fault.partition("=")[2][:3])
    async with client_of(api_config(), transport=transport, clock=clock, requests=requests) as client:
        with pytest.raises(ApiError) as caught:
            await finish(clock, client.sync(None, deadline=FAR))
    error = caught.value
    assert type(error) is kind
    assert (str(error), error.reason.value, error.status) == (message, reason, status)
    assert requests.statuses == [str(status)] * (3 if status >= 500 else 1)
    assert len(simulator.requests()) == len(requests.done)
    assert {(account, endpoint) for account, endpoint, _, _ in requests.done} == {("main", SYNC)}


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_fault_that_passes_is_tried_past(failures: int) -> None:
    simulator, transport = simulated(dids=3)
    simulator.add_fault(f"status:sync:status=500,count={failures}")
    clock, requests = ManualClock(), Requests()
    async with client_of(api_config(), transport=transport, clock=clock, requests=requests) as client:
        answer = parse_sync((await finish(clock, client.sync(None, deadline=FAR))).body)
    assert len(answer.entries) == 3
    assert requests.statuses == ["500"] * failures + ["200"]


async def test_retries_wait_a_little_and_never_past_the_deadline() -> None:
    simulator, transport = simulated()
    simulator.add_fault("status:sync:status=500")
    clock = ManualClock()
    async with client_of(api_config(), transport=transport, clock=clock, per_minute=6000) as client:
        with pytest.raises(errors.ServerError):
            await finish(clock, client.sync(None, deadline=0))
        assert (len(simulator.requests()), clock.monotonic()) == (1, 0.125)
        simulator.clear_journal()
        with pytest.raises(errors.ServerError):
            await finish(clock, client.sync(None, deadline=FAR))
    assert len(simulator.requests()) == 3
    assert 0.125 < clock.monotonic() <= 2


async def test_a_retry_that_waits_for_its_place_ends_before_the_deadline_all_the_same() -> None:
    """The second try gets its place 60 s after the first one; of its 30 s only the rest until the deadline is left."""
    moments: list[float] = []
    clock = ManualClock()
    hang = asyncio.Event()

    async def handle(_: httpx.Request) -> httpx.Response:
        moments.append(clock.monotonic())
        if len(moments) == 2:
            await hang.wait()
        return httpx.Response(500)

    async with client_of(api_config(timeout=30), transport=Scripted(handle), clock=clock, per_minute=1) as client:
        with pytest.raises(errors.ApiTimeoutError) as caught:
            await finish(clock, client.sync(None, deadline=60.25))
    assert moments == [0, 60]
    assert str(caught.value) == f"no complete answer to {SYNC} within 0.25 s"


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, 60),
        ("7", 7),
        (" 7 ", 7),
        ("0", 0),
        ("-7", 60),
        ("1.5", 60),
        ("\u00b2", 60),
        ("soon", 60),
        ("", 60),
        ("9" * 400, 3600),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30),
        ("Fri, 15 Jan 2027 08:00:30 -0000", 30),
        ("Fri, 15 Jan 2027 13:30:30 +0530", 30),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("Fri, 15 Jan 9999 08:00:00 GMT", 3600),
        ("Fri, 15 Jan 99999999999999999999 08:00:00 GMT", 60),
        ("Fri, 15 Jan 2027 08:00:30 +99999999999999999999", 60),
    ],
)
async def test_a_rate_limit_pauses_the_key_for_as_long_as_the_api_says_or_a_minute(
    retry_after: str | None, seconds: float
) -> None:
    async def handle(_: httpx.Request) -> httpx.Response:
        headers = [] if retry_after is None else [(b"Retry-After", retry_after.encode("latin-1"))]
        return httpx.Response(429, headers=headers)

    clock = ManualClock(1_800_000_000.0)  # Fri, 15 Jan 2027 08:00:00 GMT
    async with client_of(api_config(), transport=Scripted(handle), clock=clock) as client:
        with pytest.raises(RateLimitedError):
            await client.sync(None, deadline=FAR)
        assert client.budget.paused_for == seconds
        if seconds:
            with pytest.raises(QuotaError) as caught:
                await finish(clock, client.connections(deadline=1))
            assert str(caught.value) == (
                f"the budget of 60 requests a minute has no room; the API asked us to wait another {seconds - 1:.0f} s"
            )


async def test_what_was_refused_for_want_of_budget_is_no_request() -> None:
    simulator, transport = simulated()
    clock, requests = ManualClock(), Requests()
    async with client_of(api_config(), transport=transport, clock=clock, requests=requests, per_minute=1) as client:
        await client.sync(None, deadline=FAR)
        with pytest.raises(QuotaError) as caught:
            await finish(clock, client.sync(None, deadline=5))
    assert str(caught.value) == "the budget of 1 requests a minute has no room"
    assert requests.statuses == ["200"]
    assert len(simulator.requests()) == 1


@pytest.mark.parametrize("fault", ["html", "not_json", "truncate", "wrong_types:sync:level=root"])
async def test_what_is_not_the_documented_json_is_a_bad_response(fault: str) -> None:
    simulator, transport = simulated(dids=3)
    simulator.add_fault(fault)
    async with client_of(api_config(), transport=transport) as client:
        with pytest.raises(errors.BadResponseError):
            parse_sync((await client.sync(None, deadline=FAR)).body)


async def answered_with(response: httpx.Response, clock: ManualClock | None = None, **api: Any) -> bytes:  # noqa: ANN401
    async def handle(_: httpx.Request) -> httpx.Response:
        return response

    clock = clock or ManualClock()
    async with client_of(api_config(**api), transport=Scripted(handle), clock=clock) as client:
        return bytes((await client.sync(None, deadline=0)).body)


@pytest.mark.parametrize("zipped", [False, True])
async def test_an_answer_may_be_just_as_long_as_is_allowed(zipped: bool) -> None:  # noqa: FBT001 - a parameter
    headers = {"Content-Encoding": "gzip"} if zipped else {}
    for size in (2047, 2048):
        body = b" " * size
        response = httpx.Response(200, headers=headers, content=gzip.compress(body) if zipped else body)
        assert await answered_with(response, max_response_bytes=2048) == body
    body = b" " * 2049
    response = httpx.Response(200, headers=headers, content=gzip.compress(body) if zipped else body)
    with pytest.raises(errors.TooLargeError) as caught:
        await answered_with(response, max_response_bytes=2048)
    assert str(caught.value) == "the answer is longer than api.max_response_bytes, which is 2048"
    assert caught.value.reason.value == "too_large"


class Stream(httpx.AsyncByteStream):
    """Pieces of an answer, each followed by what goes wrong."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.left = list(pieces)

    async def __aiter__(self) -> Any:  # noqa: ANN401 - an async generator
        while self.left:
            piece = self.left.pop(0)
            if isinstance(piece, Exception):
                raise piece
            yield piece


async def test_reading_stops_where_it_is_too_long() -> None:
    stream = Stream(*([b" " * 1024] * 100))
    with pytest.raises(errors.TooLargeError):
        await answered_with(httpx.Response(200, stream=stream), max_response_bytes=2048)
    assert len(stream.left) == 97


async def test_a_small_answer_that_unzips_to_a_huge_one_is_too_large() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 60_000
    with pytest.raises(errors.TooLargeError):
        await answered_with(
            httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Stream(bomb)), max_response_bytes=1_000_000
        )


async def test_an_answer_that_can_not_be_unzipped_is_a_bad_response() -> None:
    response = httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Stream(b"no gzip at all"))
    with pytest.raises(errors.BadResponseError) as caught:
        await answered_with(response)
    assert str(caught.value) == f"the answer to {SYNC} is compressed in a way that can't be undone"


@pytest.mark.parametrize(
    "stream",
    [Stream(b"{}", httpx.ReadError("gone")), Stream(b"no gzip"), Stream(b'{"error": {"code": "<b>"}}')],
    ids=["broken", "not gzip", "no code"],
)
async def test_a_status_says_enough_where_the_body_says_nothing(stream: Stream) -> None:
    headers = {"Content-Encoding": "gzip"} if stream.left == [b"no gzip"] else {}
    with pytest.raises(errors.AuthError) as caught:
        await answered_with(httpx.Response(401, headers=headers, stream=stream))
    assert str(caught.value) == "the API refuses (401)"
    assert caught.value.code is None


async def test_a_long_error_is_not_read_to_its_end() -> None:
    stream = Stream(*([b" " * 32768] * 10))
    with pytest.raises(errors.NotFoundError):
        await answered_with(httpx.Response(404, stream=stream))
    assert len(stream.left) == 8


async def test_a_rate_limit_counts_even_if_its_body_breaks_off() -> None:
    async def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": "7"}, stream=Stream(b"{", httpx.ReadError("gone")))

    clock = ManualClock()
    async with client_of(api_config(), transport=Scripted(handle), clock=clock) as client:
        with pytest.raises(RateLimitedError) as caught:
            await client.sync(None, deadline=FAR)
        assert caught.value.retry_after == client.budget.paused_for == 7


async def test_who_observes_hears_how_long_each_request_took() -> None:
    clock, requests = ManualClock(), Requests()

    async def handle(_: httpx.Request) -> httpx.Response:
        await clock.sleep(2.5)
        return httpx.Response(200, json={})

    async with client_of(api_config(), transport=Scripted(handle), clock=clock, requests=requests) as client:
        await finish(clock, client.connections(deadline=FAR))
    assert requests.done == [("main", CONNECTIONS, "200", 2.5)]


CALL_READY = "voicelink/call-ready"


async def test_a_write_leaves_when_it_is_sent_and_not_otherwise() -> None:
    simulator, transport = simulated(dids=1)
    body = {"did_number": simulator.numbers[0]}
    clock, requests = ManualClock(), Requests()
    async with client_of(api_config(), transport=transport, clock=clock, requests=requests, per_minute=FAST) as client:
        async with reserved(clock, client, body) as reservation:
            assert client.budget.remaining == FAST - 1
            await settle()
            assert not reservation.left
        assert (simulator.requests(), simulator.writes.heals, requests.done) == ([], 0, [])
        assert client.budget.remaining == FAST  # its place is free at once
        async with reserved(clock, client, body) as reservation:
            reply = await reservation.send(Lease.begin(clock, 5.0))
            assert reservation.left
    assert (reply.status, b'"ready"' in reply.body) == (200, True)
    (seen,) = simulator.requests()
    assert (seen.method, seen.path, seen.query, seen.body) == ("POST", "/api/v2/voicelink/call-ready", {}, body)
    assert simulator.writes.heals == 1
    assert [(endpoint, status) for _, endpoint, status, _ in requests.done] == [(CALL_READY, "200")]


async def test_a_write_whose_lease_is_over_never_leaves() -> None:
    simulator, transport = simulated(dids=1)
    clock, requests = ManualClock(), Requests()
    async with (
        client_of(api_config(), transport=transport, clock=clock, requests=requests, per_minute=FAST) as client,
        reserved(clock, client, {"did_number": simulator.numbers[0]}) as reservation,
    ):
        lease = Lease.begin(clock, 5.0)
        await clock.advance(5.0)
        with pytest.raises(errors.LeaseExpiredError) as caught:
            await reservation.send(lease)
        assert not reservation.left
    assert str(caught.value) == (
        "more than 5 s after the claim (5.0 s passed by the monotonic clock), so the request was not sent"
    )
    assert (simulator.requests(), requests.done) == ([], [])


async def test_a_write_whose_turn_is_over_never_leaves() -> None:
    simulator, transport = simulated(dids=1)
    clock = ManualClock()
    async with (
        client_of(api_config(), transport=transport, clock=clock, per_minute=FAST) as client,
        reserved(clock, client, {"did_number": simulator.numbers[0]}) as reservation,
    ):
        await clock.advance(5.1)
        with pytest.raises(errors.LeaseExpiredError) as caught:
            await reservation.send(Lease.begin(clock, 5.0))
        assert not reservation.left
    assert str(caught.value).startswith("it did not leave within 5 s of its turn in the request budget")
    assert simulator.requests() == []


async def test_a_write_whose_lease_ends_after_its_headers_has_no_body() -> None:
    clock, bodies = ManualClock(), list[bytes]()

    async def handle(request: httpx.Request) -> httpx.Response:
        clock.set_by(60.0)  # the machine was suspended just then
        bodies.append(await request.aread())
        return httpx.Response(200)

    async with (
        client_of(api_config(), transport=Scripted(handle), clock=clock, per_minute=FAST) as client,
        reserved(clock, client, {}) as reservation,
    ):
        with pytest.raises(errors.BrokenAnswerError) as caught:
            await reservation.send(Lease.begin(clock, 5.0))
        assert reservation.left
    assert str(caught.value) == (
        "the request was cut off before its body: 60.0 s passed by the wall clock since the claim"
    )
    assert bodies == []


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("status:status=500", errors.ServerError), ("status:status=429", RateLimitedError)],
)
async def test_a_write_that_fails_is_never_sent_again(fault: str, kind: type[RejectedError]) -> None:
    simulator, transport = simulated(dids=1)
    simulator.add_fault(fault)
    clock = ManualClock()
    async with client_of(api_config(), transport=transport, clock=clock, per_minute=FAST) as client:
        async with reserved(clock, client, {"did_number": simulator.numbers[0]}) as reservation:
            with pytest.raises(kind):
                await reservation.send(Lease.begin(clock, 5.0))
        await clock.advance(3600)
    assert len(simulator.requests()) == 1


async def test_a_transport_that_tries_a_write_again_is_stopped() -> None:
    moments: list[str] = []

    async def handle(request: httpx.Request) -> httpx.Response:
        moments.append("sent")
        await request.extensions["trace"]("http11.send_request_headers.started", {"request": request})
        moments.append("sent again")
        return httpx.Response(200)

    clock = ManualClock()
    async with (
        client_of(api_config(), transport=Scripted(handle), clock=clock, per_minute=FAST) as client,
        reserved(clock, client, {}) as reservation,
    ):
        with pytest.raises(errors.NotSentError):
            await reservation.send(Lease.begin(clock, 5.0))
    assert moments == ["sent"]


class Silent(httpx.AsyncBaseTransport):
    """Transport that reports no moments, and sends whatever it is given at once."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async for piece in cast("httpx.AsyncByteStream", request.stream):
            self.sent.append(piece)
        return httpx.Response(200)


async def test_a_transport_that_does_not_ask_gets_no_body_before_the_write_may_leave() -> None:
    transport, clock = Silent(), ManualClock()
    client = VocobaseClient(
        api_config(),
        "main",
        SecretStr(KEY),
        budget=RequestBudget(FAST, clock),
        observer=Requests(),
        clock=clock,
        transport=lambda _: transport,
    )
    with pytest.raises(errors.NotSentError):
        async with reserved(clock, client, {"did_id": 812}):
            pass
    await client.aclose()
    assert transport.sent == []


async def test_a_write_waits_for_its_place_no_longer_than_it_may_and_holds_none_then() -> None:
    simulator, transport = simulated(dids=1)
    clock, requests = ManualClock(), Requests()
    async with client_of(api_config(), transport=transport, clock=clock, requests=requests) as client:
        client.budget.pause(30.0)
        with pytest.raises(QuotaError):
            async with reserved(clock, client, {"did_number": simulator.numbers[0]}, patience=20.0, step=0.5):
                pass
        assert 20.0 <= clock.monotonic() < 30.0
        await clock.advance(3600)
        assert client.budget.remaining == 60
    assert (simulator.requests(), requests.done) == ([], [])


@pytest.mark.parametrize("accepted", [200, 201, 202])
async def test_a_write_is_accepted_by_three_statuses(accepted: int) -> None:
    async def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(accepted, json={})

    clock = ManualClock()
    async with (
        client_of(api_config(), transport=Scripted(handle), clock=clock, per_minute=FAST) as client,
        reserved(clock, client, {}) as reservation,
    ):
        reply = await reservation.send(Lease.begin(clock, 5.0))
    assert (reply.status, bytes(reply.body)) == (accepted, b"{}")
