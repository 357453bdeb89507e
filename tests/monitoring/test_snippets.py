"""Every scrape configuration that the project shows gives its targets the job that the rules know."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tests.support.markdown import blocks, pages, read
from tests.support.monitoring import ROOT, RULES, read_yaml
from tests.support.monitoring_stack import Prometheus, prometheus
from tests.support.processes import serving, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JOB = "voicelink-exporter"
OF_THE_JOB = ("VoiceLinkExporterAbsent", "VoiceLinkExporterDown")
EVALUATIONS = 4


def shown(mark: str, *names: str) -> list[str]:
    """Return the blocks of YAML with a mark, of some pages or of all."""
    wanted = names or tuple(page.relative_to(ROOT).as_posix() for page in pages())
    return [block.text for name in wanted for block in blocks(read(name)) if block.info == f"yaml {mark}"]


def parse(text: str) -> Any:  # noqa: ANN401 - YAML
    return YAML(typ="safe", pure=True).load(text)


def job_of(scrape: dict[str, Any]) -> str:
    """Return the job that a scrape configuration gives its targets."""
    steps = [each for each in scrape.get("relabel_configs", ()) if each.get("target_label") == "job"]
    return str([scrape["job_name"], *(each["replacement"] for each in steps)][-1])


def scrapes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every scrape configuration that the project shows, and where."""
    for page in pages():
        name = page.relative_to(ROOT).as_posix()
        for text in shown("prometheus", name):
            yield from ((name, each) for each in parse(text)["scrape_configs"])
    for path in sorted((ROOT / "config" / "prometheus").glob("*.yml")):
        yield from ((path.name, each) for each in read_yaml(path)["scrape_configs"])


SCRAPES = list(scrapes())


@pytest.mark.parametrize(("where", "scrape"), SCRAPES, ids=[where for where, _ in SCRAPES])
def test_it_has_the_job_that_the_rules_know(where: str, scrape: dict[str, Any]) -> None:
    assert job_of(scrape) == JOB, where


def test_every_place_that_shows_one_is_looked_at() -> None:
    assert {where for where, _ in SCRAPES} >= {"README.md", "docs/how-to/secure.md", "prometheus.yml", "stack.yml"}
    rules = "".join(path.read_text(encoding="utf-8") for path in RULES.glob("*.yml"))
    assert set(re.findall(r'\bjob="([^"]*)"', rules)) == {JOB}


def installed(folder: Path, exporter: int) -> Path:
    """Write README's scrape configuration and rules with the rules that are shipped, all in a hurry."""
    (scrape,) = shown("prometheus", "README.md")
    config = parse(scrape)
    ((static,),) = [each["static_configs"] for each in config["scrape_configs"]]
    assert static["targets"] == ["127.0.0.1:10880"]
    static["targets"] = [f"127.0.0.1:{exporter}"]
    for each in config["scrape_configs"]:
        each |= {"scrape_interval": "300ms", "scrape_timeout": "300ms"}
    rules = {f"readme-{index}.yml": text for index, text in enumerate(shown("prometheus-rules", "README.md"))}
    rules |= {path.name: path.read_text(encoding="utf-8") for path in RULES.glob("*.yml")}
    for name, text in rules.items():
        hurried = re.sub(r"\b(for|keep_firing_for|interval): \d+[smh]\n", r"\1: 1s\n", text)
        (folder / name).write_text(hurried, encoding="utf-8")
    config |= {"global": {"evaluation_interval": "300ms"}, "rule_files": [str(folder / name) for name in rules]}
    path = folder / "prometheus.yml"
    with path.open("w") as file:
        YAML().dump(config, file)
    return path


def firing(server: Prometheus) -> set[str]:
    """Return the names of the alerts that fire now."""
    return {each["labels"]["alertname"] for each in server.get("alerts")["alerts"] if each["state"] == "firing"}


def evaluated(server: Prometheus) -> dict[str, str]:
    """Return by group of rules when it was evaluated last."""
    return {each["name"]: each["lastEvaluation"] for each in server.get("rules")["groups"]}


def after_evaluations(server: Prometheus, count: int) -> Iterator[set[str]]:
    """Yield what fires after each of so many evaluations of all groups."""
    for _ in range(count):
        before = evaluated(server)

        def all_are_later(before: dict[str, str] = before) -> bool:
            now = evaluated(server)
            return all(now[name] > when for name, when in before.items())

        until(all_are_later, "every group was evaluated")
        yield firing(server)


@pytest.mark.e2e
def test_readmes_scrape_configuration_and_the_rules_know_of_the_exporter_and_of_its_end(tmp_path: Path) -> None:
    with simulating("--dids=6") as simulator, serving(env=simulator.env) as exporter:
        exporter.until_ready()
        with prometheus(installed(tmp_path, exporter.port), tmp_path / "data") as server:
            ready = 'sum(up{job="voicelink-exporter"}) == 1 and count(voicelink_did_ready == 1) == 6'
            until(lambda: server.get("query", query=ready)["result"], "the fleet is scraped and well")
            until(lambda: "VoiceLinkWatchdog" in firing(server), "rules are evaluated")
            until(lambda: firing(server) == {"VoiceLinkWatchdog"}, "what fired before the first scrape is over")
            for found in after_evaluations(server, EVALUATIONS):
                assert found == {"VoiceLinkWatchdog"}
            exporter.process.send(signal.SIGTERM)
            exporter.process.wait()
            until(lambda: "VoiceLinkExporterDown" in firing(server), "the alert that it is down fires")
            assert "VoiceLinkExporterAbsent" not in firing(server)
