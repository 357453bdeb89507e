"""What the tests of rules and dashboards share."""

from __future__ import annotations

import pytest

from tests.support.monitoring import RULES, known_from, rules_in
from tests.support.processes import serving, until


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, frozenset[str]]:
    """Return the metrics and labels that the demo shows within a while, and those that the rules record."""
    web_file = tmp_path_factory.mktemp("web") / "web.yml"  # there are metrics about it only where there is one
    web_file.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    flags = ("--web.listen-address=127.0.0.1:0", f"--web.config.file={web_file}")
    with serving(*flags, env={}, command="demo") as demo:
        rare = ("voicelink_heal_duration_seconds_bucket{", "voicelink_did_heal_state{", "voicelink_did_issue{")
        seen: set[str] = set()

        def has_all() -> bool:
            seen.update(demo.scrape().splitlines(keepends=True))
            return all(any(line.startswith(each) for line in seen) for each in rare)

        until(has_all, "a number broke and was healed", within=60)
    return known_from(
        "".join(sorted(seen)), rules_in(RULES / "voicelink-recording.yml", RULES / "voicelink-alerts.yml")
    )
