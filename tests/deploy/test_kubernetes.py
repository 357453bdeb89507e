"""The manifests for Kubernetes: built by kustomize, valid, of one piece, configured as the product understands it."""

from __future__ import annotations

import copy
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from exporter import __version__
from exporter.addresses import Address
from exporter.config.load import ENV_PREFIX, environment_names, load_settings
from exporter.config.schema import Api, Config
from tests.support.kubernetes import MANIFESTS, WORKLOADS, Manifest, build, container, kubectl, one, pod, schema_problem
from tests.support.markdown import blocks, read
from tests.support.processes import KEY, run
from tests.support.programs import require

if TYPE_CHECKING:
    from pathlib import Path

Overlays = dict[str, list[Manifest]]
OVERLAYS = ("single", "sharded")
PAGE = "docs/how-to/kubernetes.md"
SELECTED = ("app.kubernetes.io/name", "voicelink-exporter")
pytestmark = [pytest.mark.e2e, pytest.mark.parametrize("overlay", OVERLAYS)]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kubectl(tmp_path_factory.mktemp("kubectl"))


@pytest.fixture(scope="module")
def overlays(program: Path) -> Overlays:
    return {name: build(program, MANIFESTS / name) for name in OVERLAYS}


@pytest.fixture
def manifests(overlays: Overlays, overlay: str) -> list[Manifest]:
    return copy.deepcopy(overlays[overlay])


def paths(value: object) -> list[list[Any]]:
    """Return where every mapping within a manifest is."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [[key, *path] for key, inner in items for path in paths(inner)]
    return [[], *below] if isinstance(value, dict) else below


def budget(text: str) -> float:
    """Return a quantity of memory in MiB."""
    return float(text.removesuffix("Mi"))


def test_every_manifest_keeps_to_the_schema_of_its_kind(manifests: list[Manifest]) -> None:
    assert [problem for manifest in manifests if (problem := schema_problem(manifest))] == []


def test_a_field_too_many_is_noticed_anywhere(manifests: list[Manifest]) -> None:
    free = {"labels", "matchLabels", "data", "annotations", "limits", "requests", "metadata"}
    for kind in ("ServiceAccount", *WORKLOADS, "NetworkPolicy", "ServiceMonitor", "PrometheusRule"):
        for manifest in [each for each in manifests if each["kind"] == kind][:1]:
            places = [path for path in paths(manifest) if not free & set(path)]
            for path in places[:40]:
                changed = copy.deepcopy(manifest)
                place = changed
                for key in path:
                    place = place[key]
                place["unheardOf"] = 1
                assert schema_problem(changed), path


def test_an_overlay_of_ones_own_changes_image_configuration_and_namespace(
    program: Path, manifests: list[Manifest], overlay: str, tmp_path: Path
) -> None:
    (shown,) = [block.text for block in blocks(read(PAGE)) if block.text.startswith("apiVersion: kustomize")]
    (tmp_path / "manifests").symlink_to(MANIFESTS)
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.yml").write_text("poll: {interval: 2m}\n")
    text = shown.replace("../voicelink-exporter/deploy/kubernetes/single", f"../manifests/{overlay}")
    (own / "kustomization.yaml").write_text(text.replace("YOUR-REGISTRY", "registry.example.org"))
    changed = build(program, own)
    assert len(changed) == len(manifests)
    assert {manifest["metadata"]["namespace"] for manifest in changed} == {"voicelink"}
    assert container(changed)["image"].startswith("registry.example.org/voicelink-exporter:")
    assert one(changed, "ConfigMap")["data"] == {"config.yml": "poll: {interval: 2m}\n"}
    names = [
        {volume["configMap"]["name"] for volume in pod(each)["spec"]["volumes"] if "configMap" in volume}
        for each in (manifests, changed)
    ]
    assert names[0] != names[1], "so that the pods are replaced"


def test_names_are_each_given_once(manifests: list[Manifest]) -> None:
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert sorted(set(names)) == sorted(names)
    assert all("namespace" not in manifest["metadata"] for manifest in manifests), "it goes where one applies it"


def test_every_selector_finds_the_pods_and_nothing_says_less(manifests: list[Manifest]) -> None:
    labels = pod(manifests)["metadata"]["labels"]
    assert labels == dict([SELECTED])
    assert one(manifests, "Service")["spec"]["selector"] == labels
    assert one(manifests, "ServiceMonitor")["spec"]["selector"] == {"matchLabels": labels}
    assert one(manifests, "Service")["metadata"]["labels"] == labels
    selectors = [one(manifests, *WORKLOADS)["spec"]["selector"]]
    selectors += [each["spec"]["podSelector"] for each in manifests if each["kind"] == "NetworkPolicy"]
    selectors += [each["spec"]["selector"] for each in manifests if each["kind"] == "PodDisruptionBudget"]
    spec = pod(manifests)["spec"]
    selectors += [each["labelSelector"] for each in spec.get("topologySpreadConstraints", ())]
    terms = (
        spec.get("affinity", {}).get("podAntiAffinity", {}).get("preferredDuringSchedulingIgnoredDuringExecution", ())
    )
    selectors += [each["podAffinityTerm"]["labelSelector"] for each in terms]
    assert all(selector == {"matchLabels": labels} for selector in selectors), selectors


def test_the_rules_know_the_job_that_the_service_monitor_makes(manifests: list[Manifest]) -> None:
    label = one(manifests, "ServiceMonitor")["spec"]["jobLabel"]
    job = one(manifests, "Service")["metadata"]["labels"][label]
    assert f'up{{job="{job}"}}' in json.dumps(one(manifests, "PrometheusRule")).replace('\\"', '"')


def test_every_port_that_is_named_is_the_containers_own(manifests: list[Manifest]) -> None:
    (port,) = container(manifests)["ports"]
    (address,) = Config().web.listen_address
    assert isinstance(address, Address)
    assert port == {"name": "http", "containerPort": address.port, "protocol": "TCP"}
    (served,) = one(manifests, "Service")["spec"]["ports"]
    assert (served["targetPort"], served["port"]) == (port["name"], port["containerPort"])
    assert [each["port"] for each in one(manifests, "ServiceMonitor")["spec"]["endpoints"]] == [served["name"]]
    probes = [container(manifests)[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
    assert [probe["port"] for probe in probes] == [port["name"]] * 2


def test_probes_ask_paths_that_the_product_has(manifests: list[Manifest]) -> None:
    assert container(manifests)["livenessProbe"]["httpGet"]["path"] == "/-/healthy"
    assert container(manifests)["readinessProbe"]["httpGet"]["path"] == "/-/ready"
    assert "/-/healthy" in read("docs/reference/http.md")
    assert "/-/ready" in read("docs/reference/http.md")


def test_prometheus_gets_in_and_the_api_names_and_the_store_are_reached(
    manifests: list[Manifest], overlay: str
) -> None:
    policies = [each["spec"] for each in manifests if each["kind"] == "NetworkPolicy"]
    (coming,) = [rule for policy in policies for rule in policy.get("ingress", ())]
    assert coming["from"][0]["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
    assert coming["from"][0]["namespaceSelector"]
    assert coming["ports"] == [{"port": "http", "protocol": "TCP"}]
    assert any("Ingress" in policy["policyTypes"] for policy in policies)
    assert all("Egress" in policy["policyTypes"] for policy in policies)
    going = {rule["ports"][-1]["port"]: rule for policy in policies for rule in policy["egress"]}
    assert set(going) == ({53, 443} if overlay == "single" else {53, 443, 5432})
    assert {(port["port"], port["protocol"]) for port in going[53]["ports"]} == {(53, "UDP"), (53, "TCP")}
    ranges = {to["ipBlock"]["cidr"]: to["ipBlock"]["except"] for to in going[443]["to"]}
    assert set(ranges) == {"0.0.0.0/0", "::/0"}
    assert "169.254.0.0/16" in ranges["0.0.0.0/0"], "where clouds hand out credentials"


def test_the_rules_are_valid_and_are_the_ones_of_the_configuration(manifests: list[Manifest], tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    spec = one(manifests, "PrometheusRule")["spec"]
    path.write_text(json.dumps(spec))
    command = [require("promtool"), "check", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    written = "".join(path.read_text() for path in (MANIFESTS.parent.parent / "config/prometheus/rules").glob("*.yml"))
    names = re.findall(r"^ *- (?:alert|record): (\S+)", written, re.MULTILINE)
    assert sorted(rule.get("alert") or rule["record"] for group in spec["groups"] for rule in group["rules"]) == sorted(
        names
    )


def test_the_configuration_is_valid_with_the_variables_of_the_container(
    manifests: list[Manifest], tmp_path: Path
) -> None:
    text = one(manifests, "ConfigMap")["data"]["config.yml"]
    (key,) = re.findall(r"api_key_file: (\S+)", text)
    mounts = {mount["name"]: mount["mountPath"] for mount in container(manifests)["volumeMounts"]}
    assert key == f"{mounts['keys']}/vocobase-api-key"
    assert f"--config.file={mounts['config']}/config.yml" in container(manifests)["args"]
    given = {each["name"]: each.get("value") for each in container(manifests).get("env", ())}
    if "VOICELINK_STORE_URL" in given:
        store = given["VOICELINK_STORE_URL"] = "postgresql+psycopg://exporter@db.example.com/voicelink"
    else:
        assert f"sqlite:///{mounts['store']}/store.db" in text
        store = f"{mounts['store']}/store.db".replace("/var/lib", str(tmp_path))
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "config.yml").write_text(text.replace(key, str(tmp_path / "key")).replace("/var/lib", str(tmp_path)))
    (tmp_path / "voicelink-exporter").mkdir()
    if "VOICELINK_SHARD" in given:
        given["VOICELINK_SHARD"] = "voicelink-exporter-5"
    env = {name: value for name, value in given.items() if value}
    assert set(env) == set(given)
    done = run("check-config", "--config.file", str(tmp_path / "config.yml"), env=env)
    assert (done.code, done.out) == (0, f"the configuration is valid\nstore: {store}\n"), done.out + done.err


def test_every_variable_that_is_set_means_something(manifests: list[Manifest]) -> None:
    names = {each["name"] for each in container(manifests).get("env", ())}
    others = dict.fromkeys(names - set(environment_names()), "1")  # no keys of the configuration, but flags
    assert all(name.startswith(ENV_PREFIX) for name in others)
    assert load_settings(None, {**others, "VOCOBASE_API_KEY": "rg_live_MadeUp"}).unknown_environment == ()
    assert pod(manifests)["spec"]["enableServiceLinks"] is False, "Kubernetes would add some of its own"


def test_the_image_is_of_this_version(manifests: list[Manifest]) -> None:
    assert container(manifests)["image"] == f"registry.example.com/voicelink-exporter:{__version__}"


def test_secrets_are_named_and_not_made(manifests: list[Manifest]) -> None:
    assert [each for each in manifests if each["kind"] == "Secret"] == []
    volumes = pod(manifests)["spec"]["volumes"]
    named = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    named |= {each["valueFrom"]["secretKeyRef"]["name"] for each in container(manifests).get("env", ())[2:]}
    assert [name for name in named if f"create secret generic {name} " not in read(PAGE)] == []
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    assert claims == {each["metadata"]["name"] for each in manifests if each["kind"] == "PersistentVolumeClaim"}
    maps = {volume["configMap"]["name"] for volume in volumes if "configMap" in volume}
    assert maps == {one(manifests, "ConfigMap")["metadata"]["name"]}


def test_pods_may_do_nothing_that_they_need_not(manifests: list[Manifest]) -> None:
    spec = pod(manifests)["spec"]
    account = one(manifests, "ServiceAccount")
    assert (spec["serviceAccountName"], spec["automountServiceAccountToken"]) == (account["metadata"]["name"], False)
    assert account["automountServiceAccountToken"] is False
    context = spec["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 65532, 65532)
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}" in read("Dockerfile")
    assert spec["terminationGracePeriodSeconds"] > 10, "the daemon stops within 10 s"


def test_memory_is_enough_for_what_was_measured(manifests: list[Manifest]) -> None:
    table = read("docs/performance.md")
    part = table[table.index("**10,000 DIDs, polled every 2 s**") : table.index("**CPU of one poll of 10,000 DIDs")]
    (measured,) = re.findall(r"RSS after all of this \| (\d+) MiB", part)
    given = container(manifests)["resources"]
    assert budget(given["requests"]["memory"]) >= int(measured)
    assert budget(given["limits"]["memory"]) >= 2 * int(measured)
    assert "cpu" not in given["limits"], "a scrape would wait for it"


def test_the_pods_together_keep_to_the_limit_of_one_key(manifests: list[Manifest]) -> None:
    text = one(manifests, "ConfigMap")["data"]["config.yml"]
    said = re.search(r"requests_per_minute: (\d+)", text)
    given = int(said[1]) if said else Api().requests_per_minute
    env = {each["name"]: each for each in container(manifests).get("env", ())}
    shards = int(env["VOICELINK_TOTAL_SHARDS"]["value"]) if env else 1
    # A shard uses its part of what is given.
    assert given / shards * one(manifests, *WORKLOADS)["spec"]["replicas"] == Api().requests_per_minute


def test_how_many_pods_there_are_goes_with_the_store(manifests: list[Manifest], overlay: str) -> None:
    workload = one(manifests, *WORKLOADS)
    env = {each["name"]: each for each in container(manifests).get("env", ())}
    if overlay == "single":
        assert (workload["kind"], workload["spec"]["replicas"]) == ("Deployment", 1)
        assert workload["spec"]["strategy"] == {"type": "Recreate"}
        assert one(manifests, "PersistentVolumeClaim")["spec"]["accessModes"] == ["ReadWriteOnce"]
        assert env == {}
    else:
        assert workload["kind"] == "StatefulSet"
        assert workload["spec"]["replicas"] == 2 * int(env["VOICELINK_TOTAL_SHARDS"]["value"])
        assert workload["spec"]["serviceName"] == one(manifests, "Service")["metadata"]["name"]
        assert env["VOICELINK_SHARD"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
        assert "secretKeyRef" in env["VOICELINK_STORE_URL"]["valueFrom"]
        assert one(manifests, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
