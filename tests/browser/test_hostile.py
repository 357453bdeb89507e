"""Whatever the API and the configuration call things, it stays text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import exporting, look
from tests.support.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.support.processes import Served

    Visit = Callable[..., Page]

pytestmark = pytest.mark.e2e

NUMBER, BROKEN = "+918011223345", "+918011223346"
PAYLOAD = "\"'><img src=/x onerror=window.hacked=1><script>window.hacked=1</script>{{7919*7907}}"
CONFIG = f"""
accounts:
  - name: {json.dumps("main" + PAYLOAD)}
    api_key_env: VOCOBASE_API_KEY
    dids:
      - did_number: "{NUMBER}"
        bot_name: {json.dumps("bot" + PAYLOAD)}
        websocket_url: wss://bot.example/'><img/src=x>
        labels: {{team: {json.dumps("sales" + PAYLOAD)}}}
      - did_number: "{BROKEN}"
heal: {{mode: enforce, confirm_polls: 1, confirm_for: 0s, hold_off_polls: 1}}
"""
SPOILT = (  # the number's own, the API's, the configuration's, and a heal's
    *("Line 2", "Agent 1", "ACTIVE", "READY", "main", "sales", "bot", "resolve_did", "done", "DID found"),
)
HANDLERS = "[...document.querySelectorAll('*')].some(e => [...e.attributes].some(a => a.name.startsWith('on')))"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return an exporter to which every text was told with a script in it: of the fleet, and of a heal."""
    folder: Path = tmp_path_factory.mktemp("store")
    with exporting(folder, "--dids=3", config=CONFIG) as (simulator, exporter):
        spoil = {"kind": "markup", "text": PAYLOAD}
        simulator.control("POST", "faults", spoil | {"endpoint": "call_ready"})
        simulator.set_did(NUMBER, issues=["NO_BOT"])
        until(lambda: 'outcome="succeeded"} 1' in exporter.scrape(), "it is mended")
        simulator.set_did(BROKEN, issues=["NO_VOCOBASE_AGENT"])
        simulator.control("POST", "faults", spoil | {"endpoint": "sync"})
        until(lambda: 'state="OTHER"} 1' in exporter.scrape(), "the exporter sees what is spoilt")
        yield exporter


@pytest.fixture(scope="module")
def hostile_connections(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return an exporter whose connections were spoilt from the start."""
    folder: Path = tmp_path_factory.mktemp("store")
    fault = f"--fault=markup:connections:text={PAYLOAD.replace(',', '')}"
    with exporting(folder, "--dids=3", fault, config=CONFIG) as (simulator, exporter):
        simulator.control("POST", "faults", {"kind": "markup", "endpoint": "sync", "text": PAYLOAD})
        until(lambda: 'state="OTHER"} 1' in exporter.scrape(), "the exporter sees what is spoilt")
        yield exporter


def assert_harmless(page: Page) -> str:
    """See that nothing ran and nothing was made of it; return the page's text."""
    look(page)
    expect(page.locator("#live-text")).to_contain_text("Live")  # what is new, the script puts into the page itself
    assert page.evaluate("window.hacked") is None
    assert page.locator("#content img, #content script, #content iframe").count() == 0
    assert not page.evaluate(HANDLERS)
    for details in page.locator("main details:not([open]) > summary").all():
        details.click()
    text: str = page.locator("body").inner_text()
    assert "62615533" not in text  # what a template would make of it
    return text


def test_what_the_api_says_stays_text(visit: Visit, hostile: Served) -> None:
    fleet = assert_harmless(visit(hostile))
    for spoilt in ("Line 2", "Agent 1", "main"):
        assert spoilt + PAYLOAD in fleet, spoilt
    page = visit(hostile, f"/dids/%2B{NUMBER[1:]}")
    did = assert_harmless(page)
    for spoilt in SPOILT:
        assert spoilt + PAYLOAD in did, spoilt
    assert "wss://bot.example/'><img/src=x>" in did


def test_what_connections_are_called_stays_text(visit: Visit, hostile_connections: Served) -> None:
    for path in ("/", f"/dids/%2B{NUMBER[1:]}"):
        text = assert_harmless(visit(hostile_connections, path))
        assert "VoiceLink account 1" + PAYLOAD in text


def test_what_a_link_says_stays_text(visit: Visit, hostile: Served) -> None:
    page = visit(hostile, "/?q=%22%3E%3Cimg%20src%3Dx%20onerror%3Dwindow.hacked%3D1%3E&label=team%3D%3Cscript%3E")
    assert '"><img src=x onerror=window.hacked=1>' in assert_harmless(page)


def test_what_is_wrong_stays_text(visit: Visit, hostile: Served) -> None:
    text = assert_harmless(visit(hostile, f"/dids/%2B{BROKEN[1:]}"))
    for spoilt in ("NO_VOCOBASE_AGENT", "Assign a Vocobase agent to the phone number."):
        assert spoilt + PAYLOAD in text, spoilt
