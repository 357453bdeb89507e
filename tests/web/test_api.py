"""The JSON API: what it answers, how lists are paged, and what every refusal looks like."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from exporter.web.api import NO_PAST, UNKNOWN
from tests.web.test_status import BROKEN, TWO, forgetful, healing

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.http import Reply
    from tests.web.conftest import Web

    Start = Callable[..., Web]

PATHS = ("/api/v1/dids", "/api/v1/dids/918011223344", "/api/v1/targets", "/api/v1/heals", "/api/v1/openapi.json")


def ok(reply: Reply) -> Any:  # noqa: ANN401 - JSON
    assert reply.status == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    return json.loads(reply.text)


def refused(reply: Reply, status: int, code: str, *fields: str) -> str:
    """See that a refusal has its shape; return its sentence."""
    assert reply.status == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    error = json.loads(reply.text)["error"]
    assert error.keys() == {"code", "message", "details"}
    assert error["code"] == code
    assert [detail["field"] for detail in error["details"]] == list(fields)
    assert all(detail["message"] for detail in error["details"])
    return str(error["message"])


@pytest.fixture(scope="module")
def healed(tmp_path_factory: pytest.TempPathFactory, module_start: Start) -> Web:
    """Return an exporter of seven numbers on two connections that has mended one."""
    config = healing(tmp_path_factory.mktemp("store"))
    config["accounts"][0]["dids"] = []
    web = module_start(config, healing=True, dids=7, connections=2)
    web.simulator.set_did(TWO, issues=BROKEN)
    web.heal()
    return web


def test_numbers_are_listed_page_by_page(healed: Web) -> None:
    every = ok(healed.get("/api/v1/dids"))
    assert {name: every[name] for name in ("page", "per_page", "total", "pages")} == {
        "page": 1,
        "per_page": 100,
        "total": 7,
        "pages": 1,
    }
    assert [did["phone_number"] for did in every["data"]] == sorted(healed.simulator.numbers)
    second = ok(healed.get("/api/v1/dids?page=2&per_page=3"))
    assert second["data"] == every["data"][3:6]
    assert (second["page"], second["pages"]) == (2, 3)
    assert ok(healed.get("/api/v1/dids?page=99"))["data"] == []


def test_what_is_listed_is_what_the_simulator_is_like(healed: Web) -> None:
    for did in ok(healed.get("/api/v1/dids"))["data"]:
        truth = healed.simulator.truth()[did["phone_number"]]
        assert (did["did_id"], did["client_id"], did["state"]) == (truth.did_id, truth.client_id, truth.state)
        assert (did["connection"], did["agent_id"], did["bot_name"]) == (
            *(truth.connection_id, truth.agent_id, truth.bot_name),
        )


def test_filters_and_orders_are_those_of_the_page(healed: Web) -> None:
    found = ok(healed.get("/api/v1/dids?heal=probation&ready=true&sort=-since&q=3345"))
    assert [did["phone_number"] for did in found["data"]] == [TWO]
    connection = healed.simulator.connection_ids[1]
    assert ok(healed.get(f"/api/v1/dids?connection={connection}"))["total"] == 3


def test_one_number_has_its_past(healed: Web) -> None:
    one = ok(healed.get("/api/v1/dids/918011223345"))
    assert one == ok(healed.get("/api/v1/dids/%2B918011223345")) == ok(healed.get("/api/v1/dids/did:801"))
    (did,) = one["data"]
    assert (did["phone_number"], did["state"], did["heal"], did["current"]) == (TWO, "READY", "probation", True)
    assert did["heal_reason"] == "repaired; on probation for 1h"
    assert [(change["old"], change["new"]) for change in one["transitions"]] == [
        *(("NO_BOT", "READY"), ("READY", "NO_BOT"), (None, "READY"))
    ]
    (heal,) = one["heals"]
    assert (heal["status"], heal["outcome"], heal["issues"], heal["manual"]) == ("ended", "succeeded", BROKEN, False)
    assert heal["steps"][0]["step"] == "resolve_did"
    assert "token" not in heal
    assert "body" not in heal


def test_heals_are_listed_and_filtered(healed: Web) -> None:
    heals = ok(healed.get("/api/v1/heals"))
    assert (heals["total"], heals["data"][0]["phone_number"]) == (1, TWO)
    for query, total in (
        ("outcome=succeeded", 1),
        ("outcome=failed", 0),
        ("account=default", 1),
        ("account=other", 0),
        ("number=918011223345", 1),
        ("number=%2B91%2080%201122%203345", 1),
        ("number=918011223344", 0),
        ("number=14155550100", 0),
        ("page=2", 1),
    ):
        assert ok(healed.get(f"/api/v1/heals?{query}"))["total"] == total, query
    assert ok(healed.get("/api/v1/heals?page=2"))["data"] == []
    assert refused(healed.get("/api/v1/heals?number=nobody"), 404, "not_found") == UNKNOWN


def test_targets_are_listed_page_by_page(healed: Web) -> None:
    targets = ok(healed.get("/api/v1/targets"))
    assert [target["connection"] for target in targets["data"]] == sorted(healed.simulator.connection_ids)
    assert sum(target["dids"] for target in targets["data"]) == 7
    assert ok(healed.get("/api/v1/targets?per_page=1&page=2"))["data"] == targets["data"][1:]


def test_a_number_under_two_targets_is_shown_twice(start: Start, tmp_path: Path) -> None:
    accounts = [{"name": name, "api_key_env": "KEY"} for name in ("default", "second")]
    web = start(healing(tmp_path, accounts=accounts), healing=True, polled=False)
    web.call(web.poller.discover("second"))
    web.discover()
    web.heal(1)
    assert ok(web.get("/api/v1/dids"))["total"] == 6
    assert [did["account"] for did in ok(web.get("/api/v1/dids?q=3344"))["data"]] == ["default", "second"]
    one = ok(web.get("/api/v1/dids/918011223344"))
    assert [did["account"] for did in one["data"]] == ["default", "second"]
    assert {change["account"] for change in one["transitions"]} == {"default", "second"}
    page = web.get("/dids/%2B918011223344").text
    assert page.count('<svg class="timeline"') == 2
    assert page.count("data-news=") == 2


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("page=0", ["page"]),
        ("page=", ["page"]),
        ("per_page=1001", ["per_page"]),
        ("sort=age&state=ready", ["state", "sort"]),
        ("color=red", ["color"]),
        ("state=READY&state=NO_BOT", ["state"]),
        ("label=team", ["label"]),
        ("ready=1", ["ready"]),
        ("q=%00", ["q"]),
    ],
)
def test_what_cannot_be_asked_for_is_refused(web: Web, query: str, fields: list[str]) -> None:
    assert refused(web.get(f"/api/v1/dids?{query}"), 400, "bad_request", *fields) == "a parameter can't be used"


def test_parameters_are_refused_wherever_there_are_none(web: Web) -> None:
    refused(web.get("/api/v1/targets?state=READY"), 400, "bad_request", "state")
    refused(web.get("/api/v1/heals?outcome=well"), 400, "bad_request", "outcome")


@pytest.mark.parametrize("path", ["", "dids/", "nothing", "dids/a/b", "docs", "redoc", "%00"])
def test_an_unknown_path_is_not_found(web: Web, path: str) -> None:
    refused(web.get(f"/api/v1/{path}"), 404, "not_found")


def test_an_unknown_number_is_not_found(web: Web) -> None:
    for key in ("918011229999", "nobody", "%00", "did:1"):
        assert refused(web.get(f"/api/v1/dids/{key}"), 404, "not_found") == UNKNOWN


@pytest.mark.parametrize("path", PATHS)
def test_another_method_is_refused(web: Web, path: str) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        reply = web.get(path, method)
        refused(reply, 405, "method_not_allowed")
        assert "GET" in reply.headers["allow"]


def test_head_is_get_without_a_body(healed: Web) -> None:
    for path in PATHS:
        head, full = healed.get(path, "HEAD"), healed.get(path)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == full.headers["content-length"]


def test_without_a_past_what_is_of_now_is_answered(start: Start) -> None:
    web = start(change=forgetful)
    for path in ("/api/v1/heals", "/api/v1/dids/918011223344"):
        reply = web.get(path)
        assert refused(reply, 503, "store_unavailable") == NO_PAST
        assert "secret words" not in reply.text
    assert ok(web.get("/api/v1/dids"))["total"] == 3
    assert ok(web.get("/api/v1/targets"))["total"] == 1


def test_a_fault_of_ours_is_told_without_its_insides(start: Start) -> None:
    class Broken:
        def held(self, target: object) -> Any:  # noqa: ANN401 - never returns
            raise RuntimeError(f"secret words about {target}")

        def why(self, target: object, number: str) -> str:
            raise RuntimeError(f"secret words about {target} and {number}")

    web = start(change=lambda site: replace(site, healer=Broken()))
    reply = web.get("/api/v1/dids")
    refused(reply, 500, "internal")
    assert "secret words" not in reply.text


def test_the_document_describes_every_path_and_refusal(web: Web) -> None:
    document = ok(web.get("/api/v1/openapi.json"))
    assert document["openapi"].startswith("3.1")
    assert document["servers"] == [{"url": "/api/v1"}]
    failures = {path: set(item["get"]["responses"]) for path, item in document["paths"].items()}
    assert failures == {
        "/dids": {"200", "400"},
        "/dids/{number}": {"200", "400", "404", "503"},
        "/targets": {"200", "400"},
        "/heals": {"200", "400", "404", "503"},
    }
    for item in document["paths"].values():
        assert item.keys() == {"get"}
        assert item["get"]["summary"]
        assert item["get"]["description"]
        assert all(parameter["description"] for parameter in item["get"].get("parameters", []))
    for name in ("Did", "DidDetail", "Target", "Heal", "Failed"):
        assert document["components"]["schemas"][name]["examples"]
    assert "HTTPValidationError" not in document["components"]["schemas"]
