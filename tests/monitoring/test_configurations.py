"""The examples for Prometheus, Alertmanager and Grafana are valid, and route and discover as they say."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from tests.support.monitoring import ROOT, read_yaml
from tests.support.programs import require

if TYPE_CHECKING:
    from pathlib import Path

PROMETHEUS = ROOT / "config" / "prometheus"
ALERTMANAGER = ROOT / "config" / "alertmanager" / "alertmanager.yml"
ROUTES = {
    "dead-mans-switch": {"alertname": "VoiceLinkWatchdog", "severity": "none"},
    "pager": {"alertname": "VoiceLinkConnectionDown", "severity": "critical"},
    "chat": {"alertname": "VoiceLinkDidNotReady", "severity": "warning"},
    "operators": {"alertname": "NodeDown", "severity": "critical"},
}


def complete(folder: Path, config: dict[str, Any]) -> Path:
    """Put a configuration and the files beside it where promtool finds all that it names."""
    shutil.copytree(PROMETHEUS, folder, dirs_exist_ok=True)
    for name in ("ca.pem", "password"):
        (folder / name).write_text("made up")
    for scrape in config["scrape_configs"]:
        if "tls_config" in scrape:
            scrape["tls_config"]["ca_file"] = str(folder / "ca.pem")
        if "basic_auth" in scrape:
            scrape["basic_auth"]["password_file"] = str(folder / "password")
    path = folder / "checked.yml"
    with path.open("w") as file:
        YAML().dump(config, file)
    return path


def check(path: Path) -> str:
    done = subprocess.run([require("promtool"), "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.e2e
def test_the_prometheus_example_is_valid_and_shows_tls_and_a_password(tmp_path: Path) -> None:
    config = read_yaml(PROMETHEUS / "prometheus.yml")
    assert "2 rule files found" in check(complete(tmp_path, config))
    static, files = config["scrape_configs"]
    assert (static["job_name"], files["scheme"]) == ("voicelink-exporter", "https")
    assert files["basic_auth"]["username"]
    assert {"target_label": "job", "replacement": "voicelink-exporter"} in files["relabel_configs"]
    assert [
        group["targets"] for group in read_yaml(PROMETHEUS / files["file_sd_configs"][0]["files"][0].replace("*", ""))
    ]


@pytest.mark.e2e
def test_the_configuration_of_the_stack_is_valid(tmp_path: Path) -> None:
    check(complete(tmp_path, read_yaml(PROMETHEUS / "stack.yml")))


@pytest.mark.e2e
def test_the_kubernetes_example_is_valid_but_for_the_discovery_that_not_every_prometheus_has(tmp_path: Path) -> None:
    config = read_yaml(PROMETHEUS / "prometheus-kubernetes.yml")
    (scrape,) = config["scrape_configs"]
    assert scrape["job_name"] == "voicelink-exporter"
    discovery = scrape.pop("kubernetes_sd_configs")
    assert discovery == [
        {"role": "pod", "selectors": [{"role": "pod", "label": "app.kubernetes.io/name=voicelink-exporter"}]}
    ]
    scrape["static_configs"] = [{"targets": ["127.0.0.1:10880"]}]
    assert "SUCCESS" in check(complete(tmp_path, config))


@pytest.mark.e2e
@pytest.mark.parametrize(("receiver", "labels"), ROUTES.items())
def test_alertmanager_routes_alerts_to_who_is_to_have_them(receiver: str, labels: dict[str, str]) -> None:
    words = [f"{name}={value}" for name, value in labels.items()]
    test = ["config", "routes", "test", f"--config.file={ALERTMANAGER}", f"--verify.receivers={receiver}", *words]
    done = subprocess.run([require("amtool"), *test], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.e2e
def test_alertmanager_accepts_its_example_and_groups_by_account() -> None:
    done = subprocess.run(
        [require("amtool"), "check-config", ALERTMANAGER], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_yaml(ALERTMANAGER)["route"]["group_by"] == ["alertname", "job", "account"]


def test_grafana_finds_the_dashboards_where_the_compose_file_mounts_them() -> None:
    provider = read_yaml(ROOT / "grafana" / "provisioning" / "dashboards" / "voicelink.yml")["providers"][0]
    source = read_yaml(ROOT / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"][0]
    grafana = read_yaml(ROOT / "docker-compose.yml")["services"]["grafana"]
    mounted = {each.split(":")[1]: each.split(":")[0] for each in grafana["volumes"]}
    assert mounted[provider["options"]["path"]] == "./grafana/dashboards"
    assert mounted["/etc/grafana/provisioning"] == "./grafana/provisioning"
    assert source["type"] == "prometheus"
    assert grafana["environment"]["PROMETHEUS_URL"] == "http://prometheus:9090"
