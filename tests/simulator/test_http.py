"""Over real HTTP: what only a socket shows, and that nothing is left hanging."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.simulator import Simulator

    Serve = Callable[..., tuple[str, Simulator]]

READ = {"import_dids": False}
HEADERS = {"Authorization": "Bearer rg_live_test"}


def sync(base: str, timeout: float = 20) -> httpx.Response:
    return httpx.post(f"{base}/voicelink/sync", json=READ, headers=HEADERS, timeout=timeout)


def test_a_whole_answer(serve: Serve) -> None:
    base, simulator = serve(dids=30)
    answer = sync(base)
    assert [entry["phone_number"] for entry in answer.json()["data"]["readiness"]] == simulator.numbers
    assert answer.headers["content-length"] == str(len(answer.content))


def test_truncate_hangs_up_in_the_middle(serve: Serve) -> None:
    base, simulator = serve(dids=30)
    simulator.add_fault("truncate")
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        sync(base)


def test_hang_lasts_until_the_client_is_gone(serve: Serve) -> None:
    base, simulator = serve(dids=1)
    simulator.add_fault("hang:seconds=3000,count=1")
    with pytest.raises(httpx.ReadTimeout):
        sync(base, timeout=0.3)
    assert simulator.requests()[0].status is None
    assert sync(base).status_code == 200


def test_hang_hangs_up_at_its_limit(serve: Serve) -> None:
    base, simulator = serve(dids=1)
    simulator.add_fault("hang:seconds=0.2")
    with pytest.raises(httpx.RemoteProtocolError):
        sync(base)


def test_drip_is_slow_and_whole(serve: Serve) -> None:
    base, simulator = serve(dids=1)
    whole = sync(base).content
    simulator.add_fault("drip:seconds=0.02,size=200")
    started = time.monotonic()
    with httpx.stream("POST", f"{base}/voicelink/sync", json=READ, headers=HEADERS, timeout=20) as answer:
        pieces = list(answer.iter_raw())
    assert time.monotonic() - started >= 0.02 * (len(whole) // 200)
    assert b"".join(pieces) == whole
    assert len(pieces) > 2


def test_drip_stops_when_the_client_is_gone(serve: Serve) -> None:
    base, simulator = serve(dids=30)
    simulator.add_fault("drip:seconds=1,count=1")
    with httpx.stream("POST", f"{base}/voicelink/sync", json=READ, headers=HEADERS, timeout=20) as answer:
        next(answer.iter_raw())
    assert sync(base).status_code == 200


def test_oversize_has_no_length_and_stops_when_the_client_is_gone(serve: Serve) -> None:
    base, simulator = serve(dids=1)
    simulator.add_fault("oversize:size=1000000000000,count=1")
    read = 0
    with httpx.stream("POST", f"{base}/voicelink/sync", json=READ, headers=HEADERS, timeout=20) as answer:
        assert "content-length" not in answer.headers
        for piece in answer.iter_raw():
            read += len(piece)
            if read > 1_000_000:
                break
    assert sync(base).status_code == 200


def test_control_over_http(serve: Serve) -> None:
    base, _ = serve(dids=1)
    host = base.removesuffix("/api/v2")
    assert httpx.put(f"{host}/control/dids/918011223344", json={"issues": ["NO_BOT"]}).json()["state"] == "NO_BOT"
    assert sync(base).json()["data"]["readiness"][0]["state"] == "NO_BOT"
