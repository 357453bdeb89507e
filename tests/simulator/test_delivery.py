"""Clients that go away and sends that fail, by bare ASGI; and that answers are made of kept bytes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from exporter.simulator import SimulatorOptions, create_app, simulator_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    import httpx

    from exporter.simulator import Simulator

    Start = Callable[..., tuple[httpx.AsyncClient, Simulator]]
    Message = MutableMapping[str, Any]

SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/api/v2/voicelink/sync",
    "raw_path": b"/api/v2/voicelink/sync",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"authorization", b"Bearer rg_live_x")],
    "server": ("127.0.0.1", 80),
    "client": ("127.0.0.1", 1),
}
BODY: Message = {"type": "http.request", "body": b"", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


def receiving(*messages: Message) -> Callable[[], Awaitable[Message]]:
    """Give the messages one after the other, then none."""
    left = list(messages)

    async def receive() -> Message:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    return receive


async def sent_by(spec: str, *messages: Message) -> list[Message]:
    app = create_app(SimulatorOptions(dids=1))
    simulator_of(app).add_fault(spec)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(dict(SCOPE), receiving(*messages), send)
    return sent


async def test_a_client_that_goes_before_its_request_is_whole_gets_nothing() -> None:
    assert await sent_by("html", GONE) == []


async def test_a_client_that_goes_while_it_hangs_gets_nothing() -> None:
    assert await sent_by("hang:seconds=3000", BODY, BODY, GONE) == []


@pytest.mark.parametrize("spec", ["drip:seconds=3000", "oversize:size=1000000000000"])
async def test_an_answer_nobody_waits_for_is_left_unfinished(spec: str) -> None:
    sent = await sent_by(spec, BODY, GONE)
    assert sent[0]["type"] == "http.response.start"
    assert all(message["more_body"] for message in sent[1:])


async def test_a_server_is_left_to_hang_up() -> None:
    start, body = await sent_by("truncate", BODY)
    assert body["more_body"] is True
    assert int(dict(start["headers"])[b"content-length"]) > len(body["body"])


async def test_a_send_that_fails_is_no_secret() -> None:
    app = create_app(SimulatorOptions(dids=1))
    simulator_of(app).add_fault("drip:seconds=0")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            raise OSError("broken pipe")

    with pytest.raises(OSError, match="broken pipe"):
        await app(dict(SCOPE), receiving(BODY), send)


async def test_only_what_changed_is_written_anew(start: Start) -> None:
    client, simulator = start(dids=10_000)
    read = {"import_dids": False}
    await client.post("/voicelink/sync", json=read)
    kept = [did.parts for did in simulator.fleet.dids]
    simulator.set_did("+918011223346", issues=["NO_BOT"])
    await client.post("/voicelink/sync", json=read)
    anew = [did.index for did, parts in zip(simulator.fleet.dids, kept, strict=True) if did.parts is not parts]
    assert anew == [2]
