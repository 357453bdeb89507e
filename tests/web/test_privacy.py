"""With hashed numbers, no page and no JSON holds a number: not in heals, reasons, links or errors either."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from exporter.simulator import Fault
from exporter.snapshots import labeller
from tests.web.test_status import BROKEN, healing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.web.conftest import Web

    Start = Callable[..., Web]

KEY = "a key that is long enough"
NUMBERS = [f"+9180112233{index}" for index in range(44, 52)]
HEALED, REFUSED, STUCK = NUMBERS[1:4]
DIGITS = re.compile(r"9180112233|80112233|8011-?2233|1122[ -]?33")


@pytest.fixture
def hashed(start: Start, tmp_path: Path) -> Web:
    """Return an exporter that mended one number, was refused another, and was told why by an API that is talkative."""
    file = tmp_path / "key"
    file.write_text(KEY)
    config: dict[str, Any] = healing(tmp_path, privacy={"hash_numbers": {"key_file": str(file)}})
    config["accounts"][0]["dids"] = [{"did_number": number, "labels": {"team": "sales"}} for number in NUMBERS]
    config["heal"] |= {"max_unhealthy": "100%", "max_attempts": 1}
    web = start(config, healing=True, hash_key=KEY, dids=7)  # the eighth is missing
    web.simulator.set_did(HEALED, issues=BROKEN)
    web.simulator.add_fault(
        Fault(kind="markup", endpoint="call_ready", text=f" for {HEALED}, +91 80 1122 3345", count=1)
    )
    web.heal()
    web.simulator.add_fault("status:call_ready:status=422,count=1")
    web.simulator.set_did(REFUSED, issues=BROKEN)
    web.heal()
    web.simulator.set_did(STUCK, issues=["NO_VOCOBASE_AGENT"])
    web.poll()
    web.call(web.exporter.controller.settle())
    return web


def assert_no_number(text: str) -> None:
    found = DIGITS.search(text)
    assert found is None, text[max(0, found.start() - 200) : found.end() + 50]


def test_no_page_and_no_json_holds_a_number(hashed: Web) -> None:
    labels = {number: labeller(KEY.encode())(number) for number in NUMBERS}
    listed = json.loads(hashed.get("/api/v1/dids").text)
    assert sorted(did["phone_number"] for did in listed["data"]) == sorted(labels.values())
    paths = ["/", "/?sort=-number", "/?q=nobody", "/api/v1/dids", "/api/v1/targets", "/api/v1/heals", "/dids/none"]
    for label in labels.values():
        paths += [f"/dids/{label}", f"/dids/{label}?span=7d", f"/api/v1/dids/{label}", f"/api/v1/heals?number={label}"]
        paths += [f"/?q={label}", f"/api/v1/dids?q={label}"]
    for path in paths:
        reply = hashed.get(path)
        assert reply.status in {200, 404}, path
        assert_no_number(reply.text)
        assert_no_number(str(reply.headers))


def test_what_became_of_heals_is_shown_all_the_same(hashed: Web) -> None:
    label = labeller(KEY.encode())
    heals = json.loads(hashed.get("/api/v1/heals").text)["data"]
    assert [(heal["phone_number"], heal["outcome"]) for heal in heals] == [
        *((label(REFUSED), "rejected"), (label(HEALED), "succeeded"))
    ]
    assert [step["detail"] for step in heals[1]["steps"]] == [""] * 6
    assert heals[1]["steps"][0]["step"] == f"resolve_did for {label(HEALED)}, {label(HEALED)}"
    refused = json.loads(hashed.get(f"/api/v1/dids/{label(REFUSED)}").text)["data"][0]
    assert refused["heal"] == "quarantined"
    assert f"heal release {label(REFUSED)} --reason" in refused["heal_reason"]


def test_a_person_who_types_the_number_is_led_to_the_hash(hashed: Web) -> None:
    label = labeller(KEY.encode())(HEALED)
    for spelt in (HEALED[1:], f"%2B{HEALED[1:]}", "91%2080%201122%203345"):
        reply = hashed.get(f"/dids/{spelt}")
        assert (reply.status, reply.headers["location"]) == (302, f"/dids/{label}")
        assert_no_number(hashed.get(f"/?q={spelt}").text)
        assert f'data-key="default {hashed.simulator.connection_ids[0]} {label}"' in hashed.get(f"/?q={spelt}").text
        found = json.loads(hashed.get(f"/api/v1/dids/{spelt}").text)
        assert found["data"][0]["phone_number"] == label
        assert json.loads(hashed.get(f"/api/v1/heals?number={spelt}").text)["total"] == 1
    assert "No number matches" in hashed.get("/?q=3345").text


def test_a_person_who_pauses_over_a_number_names_none(hashed: Web) -> None:
    hashed.exporter.archive._store.ledger.pause(f"ask {HEALED} first", 0.0)  # noqa: SLF001 - as `heal pause` does
    hashed.heal(1)
    page = hashed.get("/").text
    assert "ask (hidden) first" in page
    assert_no_number(page)
    assert_no_number(hashed.get("/api/v1/targets").text)


def test_a_configured_id_that_was_never_seen_is_hashed_too(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY)
    accounts = [{"api_key_env": "KEY", "dids": [{"did_id": 999}]}]
    config = healing(tmp_path, privacy={"hash_numbers": {"key_file": str(file)}}, accounts=accounts)
    web = start(config, hash_key=KEY)
    web.poll()
    label = labeller(KEY.encode())("did:999")
    assert web.get("/dids/did:999").headers["location"] == f"/dids/{label}"
    assert web.get(f"/dids/{label}").status == 200


def test_a_configured_id_that_was_never_seen_has_a_page(start: Start) -> None:
    web = start({"accounts": [{"api_key_env": "KEY", "dids": [{"did_id": 999}]}]})
    for address in ("/dids/did:999", "/dids/did%3A999"):
        reply = web.get(address)
        assert reply.status == 200
        assert "MISSING" in reply.text
