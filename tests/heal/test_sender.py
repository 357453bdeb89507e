"""The way from a decision to a request, over real sockets: what leaves, when and how, and what is recorded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import SecretStr

from exporter.accounts import AccountRuntime, account_runtimes
from exporter.clock import Lease
from exporter.config import Config, Settings
from exporter.errors import LeaseExpiredError, NotSentError, StoreError
from exporter.heal import results
from exporter.heal.decide import Send
from exporter.heal.guards import GuardCheck
from exporter.heal.sender import HealRequest, HealSender, Sent
from exporter.model import Outcome, Target
from exporter.snapshots import Watch
from exporter.store import Store
from exporter.store.records import SEND_WITHIN, Attempt, DidRecord, Status
from exporter.store.worker import StoreWorker
from exporter.vocobase import RequestBudget, VocobaseClient
from exporter.vocobase.client import CALL_READY
from tests.support.api import KEY, Requests
from tests.support.certificates import authority
from tests.support.clock import ManualClock
from tests.support.front import READY, Front, Seen, fronting, http
from tests.support.patience import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from exporter.store.records import Counts, Result

NUMBER = "+918011223344"
TARGET = Target("main")
SEND = Send(NUMBER, ("NO_BOT",), {"did_id": 812}, None)
FAST = 1_000_000  # requests a minute


class Bench:
    """One sender with a real store, and a client of an API."""

    def __init__(self, file: Path, base_url: str, clock: ManualClock, tls: ssl.SSLContext | None = None) -> None:
        self.clock = clock
        config = Config.model_validate(
            {
                "api": {"base_url": base_url},
                "accounts": [{"name": "main", "api_key_env": "KEY"}],
                "heal": {"mode": "enforce", "hold_off_polls": 0},
                "store": {"url": f"sqlite:///{file}"},
            }
        )
        self.requests = Requests()
        self.budget = RequestBudget(FAST, clock)
        self.client = VocobaseClient(
            config, "main", SecretStr(KEY), budget=self.budget, observer=self.requests, clock=clock, tls=tls
        )
        settings = Settings(config, {"main": SecretStr(KEY)})
        runtimes = account_runtimes(settings, {"main": self.client}, {"main": Watch.of(config.accounts[0])})
        self.account: AccountRuntime = runtimes["main"]
        self.store = Store(config, "one", clock)
        self.store.open()
        self.worker = StoreWorker(self.store, clock)
        self.sender = HealSender(self.worker, clock, self.after)
        self.said: tuple[str, ...] = ()

    def after(self, _: Result) -> Callable[[DidRecord, Counts], DidRecord]:
        return lambda record, _: record

    def check(self, withdrawn: Callable[[], str] = str) -> GuardCheck:
        return GuardCheck(
            config=self.account.heal,
            fingerprint=self.account.fingerprint,
            now=self.clock.time,
            ramp_start=lambda: 0.0,
            health=lambda: None,
            withdrawn=withdrawn,
        )

    async def send(
        self,
        revise: Callable[[], Any] | None = None,
        *,
        check: GuardCheck | None = None,
        patience: float = 60.0,
        claimed: Callable[[Attempt], None] = lambda _: None,
        decided: Send = SEND,
    ) -> Sent:
        async def same() -> Send | str:
            return decided

        request = HealRequest(self.account, TARGET, decided)
        return await self.sender.send(
            request, revise or same, check or self.check(), patience=patience, claimed=claimed
        )

    async def driven(self, work: asyncio.Task[Sent]) -> Sent:
        """Let time pass only where something waits for it."""
        async with asyncio.timeout(PATIENCE):
            while not work.done():
                await asyncio.wait({work}, timeout=0.05)
                if not work.done():
                    await self.clock.advance(0.001)
        return work.result()

    @property
    def rows(self) -> list[Attempt]:
        return self.store.ledger.history()


@pytest.fixture
async def bench(memory_path: Path) -> AsyncIterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def begin(base_url: str, clock: ManualClock | None = None, tls: ssl.SSLContext | None = None) -> Bench:
        made.append(Bench(memory_path / "ledger.db", base_url, clock or ManualClock(), tls))
        return made[-1]

    yield begin
    for each in made:
        await each.client.aclose()
        each.worker.close()


def trusting() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of a server and of a client that trusts it."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority().issue_cert("127.0.0.1").configure_cert(server)
    authority().configure_trust(client)
    return server, client


def ready(_: Seen) -> bytes:
    return http(READY)


async def test_a_heal_is_sent_once_with_its_row_over_a_connection_of_its_own(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    server, trust = trusting()
    async with fronting(front, server) as url:
        one = bench(url, clock, trust)
        sent = await one.driven(asyncio.ensure_future(one.send()))
    assert sent.result is not None
    assert sent.result.status is Status.VERIFYING
    [row], [seen] = one.rows, front.seen
    assert (row.status, row.http_status, row.body) == (Status.VERIFYING, 200, {"did_id": 812})
    assert row.credential == one.account.credential
    assert seen.requests == 1
    assert seen.data.startswith(b"POST /api/v2/voicelink/call-ready HTTP/1.1\r\n")
    assert seen.data.endswith(b'\r\n\r\n{"did_id": 812}')
    assert one.requests.done[0][1:3] == (CALL_READY, "200")


async def test_a_late_handshake_delays_the_claim_and_not_the_request(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    server, trust = trusting()
    async with fronting(front, server) as url:
        late = url.rpartition(":")[2].partition("/")[0]
        async with delaying(int(late)) as (port, let_through):
            one = bench(f"https://127.0.0.1:{port}/api/v2", clock, trust)
            work = asyncio.ensure_future(one.send())
            await clock.advance(0.01)
            await let_through.wait_for_client()
            await clock.advance(15.0)
            assert one.rows == []  # nothing is claimed while the connection is not there
            let_through.go()
            await one.driven(work)
    [row], [seen] = one.rows, front.posts
    assert row.claimed_at >= 1_800_000_015.0
    assert seen.first_at is not None
    assert seen.first_at - row.claimed_at < SEND_WITHIN


class Gate:
    """Door of a forwarder: bytes wait before it until it is opened."""

    def __init__(self) -> None:
        self._came = asyncio.Event()
        self._open = asyncio.Event()

    async def wait_for_client(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._came.wait()

    def go(self) -> None:
        self._open.set()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                self._came.set()
                await self._open.wait()
                writer.write(data)
                await writer.drain()
            writer.close()


@contextlib.asynccontextmanager
async def delaying(port: int) -> AsyncIterator[tuple[int, Gate]]:
    """Forward a port, and let nothing through until the gate is opened."""
    gate = Gate()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(gate.pass_on(reader, back), gate.pass_on(there, writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], gate


@pytest.mark.parametrize("where", ["claim", "begin_send"])
@pytest.mark.parametrize(
    ("happens", "says"),
    [
        (lambda clock: clock.set_by(60.0), "by the wall clock"),  # a machine that was suspended
        (lambda clock: setattr(clock, "_elapsed", clock.monotonic() + 6.0), "by the monotonic clock"),  # a slow store
        (lambda clock: clock.set_by(-3600.0), "was set back"),
    ],
)
async def test_a_request_that_would_leave_too_late_by_any_clock_does_not(
    bench: Callable[..., Bench], where: str, happens: Callable[[ManualClock], None], says: str
) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    async with fronting(front) as url:
        one = bench(url, clock)
        ledger = one.store.ledger
        real = getattr(ledger, where)

        def slow(*args: Any) -> Any:  # noqa: ANN401 - the ledger's
            found = real(*args)
            happens(clock)
            return found

        vars(ledger)[where] = slow
        sent = await one.driven(asyncio.ensure_future(one.send()))
    assert front.posts == []
    assert sent.result is not None
    assert (sent.result.outcome, sent.result.charged, sent.result.feeds) == (Outcome.NOT_SENT, False, False)
    [row] = one.rows
    assert row.status is Status.ENDED
    assert says in row.reason
    assert "5 s after the claim" in row.reason


async def test_a_front_that_drops_every_used_connection_loses_no_heal(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()

    def first_only(seen: Seen) -> bytes | None:
        return http(READY) if seen.requests == 1 else None

    front = Front(clock.time, first_only)
    async with fronting(front) as url:
        one = bench(url, clock)
        for version in range(3):

            async def revise(version: int = version) -> Send | str:
                return replace(SEND, version=version)

            sent = await one.driven(asyncio.ensure_future(one.send(revise)))
            assert sent.result is not None
            assert sent.result.status is Status.VERIFYING
            assert one.store.ledger.resolve(one.rows[0], Outcome.SUCCEEDED, "", lambda record, _: record, clock.time())
    assert [each.requests for each in front.posts] == [1, 1, 1]


async def test_a_connection_that_the_api_closed_meanwhile_is_not_written_to(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready, close_at_once=True)
    async with fronting(front) as url:
        one = bench(url, clock)

        async def revise() -> Send | str:
            async with asyncio.timeout(PATIENCE):
                await front.closed.wait()
            return SEND

        sent = await one.driven(asyncio.ensure_future(one.send(revise)))
    assert sent.result is not None
    assert sent.result.outcome is Outcome.NOT_SENT
    assert one.rows[0].reason == "the API closed the connection before the request left, so nothing was sent"


@pytest.mark.parametrize("newest", ["nothing is broken any more", Send(NUMBER, ("NO_BOT",), {"did_id": 813}, None)])
async def test_the_newest_poll_has_the_last_word_before_the_claim(bench: Callable[..., Bench], newest: Any) -> None:  # noqa: ANN401
    clock = ManualClock()
    front = Front(clock.time, ready)
    async with fronting(front) as url:
        one = bench(url, clock)

        async def revise() -> Send | str:
            decision: Send | str = newest
            return decision

        sent = await one.driven(asyncio.ensure_future(one.send(revise)))
    assert (sent.attempt, front.posts, one.rows) == (None, [], [])
    assert sent.reasons in {("nothing is broken any more",), ("the newest poll asks for another request",)}


async def test_what_came_up_since_the_claim_is_named_in_the_row(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    async with fronting(front) as url:
        one = bench(url, clock)

        def paused(_: Attempt) -> None:
            one.store.ledger.pause("the carrier's maintenance", clock.time())

        sent = await one.driven(asyncio.ensure_future(one.send(claimed=paused)))
    assert front.posts == []
    [row] = one.rows
    assert (row.outcome, row.charged, row.feeds) == (Outcome.NOT_SENT, False, False)
    assert row.reason == "paused: the carrier's maintenance; start again with heal resume"
    assert sent.result is not None
    assert sent.result.reason == row.reason


async def test_where_there_is_no_connection_a_row_says_why(bench: Callable[..., Bench]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    one = bench(f"http://127.0.0.1:{port}/api/v2")
    await one.driven(asyncio.ensure_future(one.send()))
    [row] = one.rows
    assert (row.status, row.outcome, row.charged, row.feeds) == (Status.ENDED, Outcome.NOT_SENT, False, True)
    assert row.reason == "no connection to 127.0.0.1: refused"
    assert row.sent_at is None


async def test_without_a_place_in_the_budget_nothing_is_claimed(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    async with fronting(front) as url:
        one = bench(url, clock)
        one.budget.pause(600.0)
        work = asyncio.ensure_future(one.send(patience=60.0))
        await clock.advance(30.0)
        assert set(one.sender.waiting) == {("main", NUMBER)}
        await clock.advance(31.0)
        sent = await one.driven(work)
    assert (one.rows, front.seen, one.sender.waiting) == ([], [], {})
    assert "requests a minute has no room" in sent.reasons[0]


async def test_what_another_replica_changed_meanwhile_is_not_claimed(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    async with fronting(front) as url:
        one = bench(url, clock)

        async def revise() -> Send | str:
            assert one.store.ledger.move(DidRecord(NUMBER), lambda record, _: record, clock.time())
            return SEND

        sent = await one.driven(asyncio.ensure_future(one.send(revise)))
    assert (one.rows, front.posts) == ([], [])
    assert sent.reasons == ("another replica changed what is known of it",)


async def test_what_is_under_way_is_known_as_such_until_it_is_recorded(bench: Callable[..., Bench]) -> None:
    clock, seen = ManualClock(), list[tuple[set[int], list[int]]]()
    front = Front(clock.time, ready)
    async with fronting(front) as url:
        one = bench(url, clock)
        ledger = one.store.ledger
        real = ledger.answered

        def answered(*args: Any) -> bool:  # noqa: ANN401 - the ledger's
            seen.append((one.sender.unfinished, [row.id for row in one.rows]))
            return real(*args)

        real_begin = ledger.begin_send

        def begin_send(*args: Any) -> Any:  # noqa: ANN401 - the ledger's
            seen.append((one.sender.unfinished, [row.id for row in one.rows]))
            return real_begin(*args)

        vars(ledger).update(answered=answered, begin_send=begin_send)
        await one.driven(asyncio.ensure_future(one.send()))
    assert [unfinished == set(ids) != set() for unfinished, ids in seen] == [True, True]
    assert one.sender.unfinished == set()


async def test_a_result_that_the_store_does_not_take_is_recorded_when_it_answers_again(
    bench: Callable[..., Bench],
) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    async with fronting(front) as url:
        one = bench(url, clock)

        def fails(*_: Any) -> bool:  # noqa: ANN401 - the ledger's
            raise StoreError("gone")

        vars(one.store.ledger)["answered"] = fails
        with pytest.raises(StoreError):
            await one.driven(asyncio.ensure_future(one.send()))
    [row] = one.rows
    assert (row.status, one.sender.unfinished) == (Status.SENT, {row.id})
    with pytest.raises(StoreError):
        await one.sender.record_rest()
    del vars(one.store.ledger)["answered"]
    [(attempt, result)] = await one.sender.record_rest()
    assert (attempt.id, result.status) == (row.id, Status.VERIFYING)
    assert (one.rows[0].status, one.rows[0].http_status) == (Status.VERIFYING, 200)
    assert (one.sender.unfinished, await one.sender.record_rest()) == (set(), [])
    assert [each.requests for each in front.posts] == [1]


async def test_a_store_that_fails_before_the_request_has_sent_nothing(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    async with fronting(front) as url:
        one = bench(url, clock)

        def fails(*_: Any) -> None:  # noqa: ANN401 - the ledger's
            raise StoreError("gone")

        vars(one.store.ledger)["begin_send"] = fails
        await one.driven(asyncio.ensure_future(one.send()))
    assert front.posts == []
    [row] = one.rows
    assert (row.status, row.outcome, row.charged, row.feeds) == (Status.ENDED, Outcome.NOT_SENT, False, False)
    assert row.reason == "the store did not answer before the request, so nothing was sent"


async def test_the_row_keeps_the_body_without_secrets(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    front = Front(clock.time, ready)
    body = {"did_id": 812, "websocket_url": "wss://me:hidden@example.com/call?token=hidden"}
    async with fronting(front) as url:
        one = bench(url, clock)
        await one.driven(asyncio.ensure_future(one.send(decided=replace(SEND, body=body))))
    [row], [seen] = one.rows, front.posts
    assert row.body["did_id"] == 812
    assert row.body["websocket_url"].startswith("wss://")
    assert "hidden" not in row.body["websocket_url"]
    assert seen.data.count(b"hidden") == 2


async def test_bytes_that_nobody_acknowledges_are_given_up(bench: Callable[..., Bench]) -> None:
    clock = ManualClock()
    async with fronting(Front(clock.time, ready)) as url:
        one = bench(url, clock)
        async with one.client.reserve({"did_id": 812}, deadline=60.0) as reservation:
            sock = reservation._stream.get_extra_info("socket")  # noqa: SLF001 - nothing else tells
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


@pytest.mark.parametrize("when", ["claimed", "sent"])
async def test_a_stop_before_the_request_left_is_not_sent_and_after_it_ambiguous(
    bench: Callable[..., Bench], when: str
) -> None:
    clock = ManualClock()
    arrived = asyncio.Event()

    def never(_: Seen) -> bytes:
        arrived.set()
        return b""

    front = Front(clock.time, never)
    async with fronting(front) as url:
        one = bench(url, clock)
        real = one.store.ledger.begin_send

        def begin(*args: Any) -> Any:  # noqa: ANN401 - the ledger's
            found = real(*args)
            if when == "claimed":
                asyncio.run_coroutine_threadsafe(cancelled(), loop).result(PATIENCE)
            return found

        async def cancelled() -> None:
            work.cancel()

        vars(one.store.ledger)["begin_send"] = begin
        loop = asyncio.get_running_loop()
        work = asyncio.ensure_future(one.send())
        if when == "sent":
            async with asyncio.timeout(PATIENCE):
                while not arrived.is_set():
                    await asyncio.sleep(0)
                    await clock.advance(0.001)
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await one.driven(work)
    [row] = one.rows
    if when == "claimed":
        assert front.posts == []
        assert (row.status, row.outcome, row.charged) == (Status.ENDED, Outcome.NOT_SENT, False)
        assert row.reason == "the exporter stopped before the request left, so nothing was sent"
    else:
        assert (row.status, row.charged) == (Status.AMBIGUOUS, True)
        assert row.reason == "the exporter stopped while it waited for the answer"


async def test_a_transport_that_does_not_ask_sends_nothing(bench: Callable[..., Bench]) -> None:
    """What a later httpcore may call its moments decides nothing: without a lease there is no body."""
    received: list[bytes] = []

    async def swallow(request: httpx.Request) -> httpx.Response:
        received.append(await request.aread())
        return httpx.Response(200, json=READY)

    clock = ManualClock()
    one = bench("http://127.0.0.1:1/api/v2", clock)
    client = VocobaseClient(
        Config.model_validate({"api": {"base_url": "http://127.0.0.1:1/api/v2"}}),
        "main",
        SecretStr(KEY),
        budget=one.budget,
        observer=Requests(),
        clock=clock,
        transport=lambda _: httpx.MockTransport(swallow),
    )
    await clock.advance(1.0)
    with pytest.raises(NotSentError):
        async with client.reserve({"did_id": 1}, deadline=clock.monotonic() + 60):
            pytest.fail("there is no connection that waits")
    assert received == []
    await client.aclose()


def test_a_lease_is_over_by_either_clock_and_lasts_by_both() -> None:
    clock = ManualClock()
    lease = Lease.begin(clock, SEND_WITHIN)
    assert lease.expired == ""
    clock.set_by(-0.5)  # clocks are corrected by less than a second all the time
    assert lease.expired == ""
    clock.set_by(5.4)
    assert lease.expired == ""
    clock.set_by(0.1)
    assert "wall" in lease.expired
    clock.set_by(-6.5)
    assert "set back" in lease.expired
    clock.set_by(1.5)
    vars(clock)["_elapsed"] = 5.0
    assert "monotonic" in lease.expired


def test_a_lease_that_is_over_is_nobodys_fault() -> None:
    found = results.failed(LeaseExpiredError("late"), fingerprint="print")
    assert (found.outcome, found.charged, found.feeds, found.backoff) == (Outcome.NOT_SENT, False, False, False)


@contextlib.asynccontextmanager
async def proxying(asked: list[bytes]) -> AsyncIterator[int]:
    """Serve a proxy that knows CONNECT."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.partition(b"\r\n")[0])
        host, _, port = head.split()[1].decode().rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        gates = Gate(), Gate()
        for gate in gates:
            gate.go()
        await asyncio.gather(gates[0].pass_on(reader, back), gates[1].pass_on(there, writer))

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_through_a_proxy_the_way_is_asked_for_before_the_claim_and_the_request_leaves_after_it(
    bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, asked = ManualClock(), list[bytes]()
    front = Front(clock.time, ready)
    server, trust = trusting()
    async with fronting(front, server) as url, proxying(asked) as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        one = bench(url, clock, trust)

        async def revise() -> Send | str:
            assert asked[0].startswith(b"CONNECT 127.0.0.1:")
            assert (one.rows, front.posts) == ([], [])
            return SEND

        sent = await one.driven(asyncio.ensure_future(one.send(revise)))
    assert sent.result is not None
    assert sent.result.status is Status.VERIFYING
    assert [each.requests for each in front.posts] == [1]
    assert len(asked) == 1
