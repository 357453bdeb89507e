"""Writes the files that are made from code, or with --check says which ones are out of date."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from ruamel.yaml import YAML

from exporter.config.json_schema import json_schema

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from grafana.source.dashboards import files as dashboards  # noqa: E402 - found by the line above


def generated() -> dict[Path, str]:
    """Return every generated file with its content."""
    return {
        ROOT / "config" / "voicelink-exporter.schema.json": json_schema(),
        ROOT / "deploy" / "kubernetes" / "base" / "prometheusrule.yaml": prometheus_rule(),
        **dashboards(),
    }


def prometheus_rule() -> str:
    """Return the rules as the Prometheus Operator takes them."""
    sources = sorted((ROOT / "config" / "prometheus" / "rules").glob("*.yml"))
    groups = [group for source in sources for group in YAML(typ="safe").load(source)["groups"]]
    yaml = YAML()
    yaml.width = 4096  # a line for each text
    yaml.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    text.write("# Written by make generate from config/prometheus/rules. Change those.\n")
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "voicelink-exporter"},
    }
    yaml.dump({**rule, "spec": {"groups": groups}}, text)
    return text.getvalue()


def main() -> int:
    """Write or check; return 1 when a check found something."""
    stale = {
        path: text
        for path, text in generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    if "--check" not in sys.argv:
        for path, text in stale.items():
            path.write_text(text, encoding="utf-8")
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is out of date: run make generate")  # noqa: T201
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
