"""What the tests of rules and dashboards share."""

from __future__ import annotations

import pytest

from tests.support.monitoring import RULES, known_from, rules_in
from tests.support.processes import serving, until


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def known() -> dict[str, frozenset[str]]:
    """Return the metrics and labels that the demo shows within a while, and those that the rules record."""
    with serving("--web.listen-address=127.0.0.1:0", env={}, command="demo") as demo:
        rare = ("voicelink_heal_duration_seconds_bucket{", "voicelink_did_heal_state{", "voicelink_did_issue{")
        seen: set[str] = set()

        def has_all() -> bool:
            seen.update(demo.scrape().splitlines(keepends=True))
            return all(any(line.startswith(each) for line in seen) for each in rare)

        until(has_all, "a number broke and was healed", within=60)
    return known_from("".join(sorted(seen)), rules_in(RULES / "voicelink-recording.yml"))
