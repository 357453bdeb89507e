"""The example file, the schema beside it, and the defaults that both of them promise."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from exporter.config import Config, load_settings
from exporter.config.json_schema import json_schema

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent.parent.parent / "config"
EXAMPLE = FOLDER / "voicelink-exporter.example.yml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
SCHEMA: dict[str, Any] = json.loads((FOLDER / "voicelink-exporter.schema.json").read_text(encoding="utf-8"))
DEFAULTS = {
    "api": {
        "base_url": "https://api.vocobase.com/api/v2",
        "timeout": "30s",
        "requests_per_minute": 60,
        "max_response_bytes": 268435456,
    },
    "accounts": [
        {
            "name": "default",
            "api_key_env": "VOCOBASE_API_KEY",
            "api_key_file": None,
            "connections": [],
            "dids": [],
            "exclude": [],
        }
    ],
    "poll": {"interval": "1m", "jitter": "5s", "stale_after": "5m"},
    "heal": {
        "mode": "off",
        "issues": ["NO_BOT", "ROUTING_MISSING"],
        "confirm_polls": 3,
        "confirm_for": "2m",
        "verify_within": "10m",
        "probation": "1h",
        "backoff": {"initial": "10m", "max": "6h"},
        "max_attempts": 3,
        "attempts_window": "1d",
        "max_unhealthy": "30%",
        "max_in_flight": 5,
        "max_per_hour": 12,
        "requests_per_minute": 10,
        "breaker": {"failures": 3, "open_for": "30m"},
        "hold_off_polls": 3,
        "windows": [],
    },
    "store": {"url": None, "retention": "90d"},
    "privacy": {"hash_numbers": None},
    "web": {"listen_address": ":10880"},
}


def taken_into_use(text: str) -> str:
    """Return the example with every example in it uncommented, instead of the value that holds without it."""
    commented = {match[0].replace("#", "") for match in re.finditer(r"^ *#\w+:", text, re.MULTILINE)}
    lines = [line for line in text.splitlines() if not line.startswith(tuple(commented))]
    return "\n".join(re.sub(r"^( *)#(?! \S)", r"\1", line) for line in lines)


def keys_of(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}"
            if key != "labels":  # its keys are the user's
                yield from keys_of(inner, f"{path}.{key}")
    if isinstance(value, list):
        for inner in value:
            yield from keys_of(inner, f"{path}[]")


def keys_in_schema(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    for part in (schema, *schema.get("anyOf", ())):
        if "$ref" in part:
            yield from keys_in_schema(SCHEMA["$defs"][part["$ref"].rpartition("/")[2]], path)
        for key, inner in part.get("properties", {}).items():
            yield f"{path}.{key}"
            yield from keys_in_schema(inner, f"{path}.{key}")
        if "items" in part:
            yield from keys_in_schema(part["items"], f"{path}[]")


def checker() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())


def test_the_defaults_are_those_that_are_promised() -> None:
    assert Config().model_dump(mode="json") == DEFAULTS


def test_the_example_loads_as_it_is_and_says_what_holds_anyway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    state = {"STATE_DIRECTORY": str(tmp_path / "state")}
    config = load_settings(EXAMPLE, {"VOCOBASE_API_KEY": "rg_live_x", **state}).config
    store = {"url": f"sqlite:///{tmp_path}/state/voicelink-exporter.db", "retention": "90d"}
    assert config.model_dump(mode="json") == DEFAULTS | {"store": store}


def test_the_example_names_every_key_and_no_other() -> None:
    loaded = YAML(typ="safe", pure=True).load(taken_into_use(TEXT))
    assert set(keys_of(loaded)) == set(keys_in_schema(SCHEMA))


def test_every_key_of_the_example_is_explained() -> None:
    """Above each key stands a comment, but for the second one of an either-or and for examples of an empty list."""
    lines = TEXT.splitlines()
    bare = [
        line.strip()
        for before, line in itertools.pairwise(lines)
        if re.match(r"[ #]*(- )?\w+:( |$)", line)
        and not re.match(r" *# ", line)
        and not re.match(r" *#? *# \S", before)
    ]
    assert bare == [
        "#connections: [0d9e2a52-7d5e-4f0e-9a53-2f7d6a1c8b90]",
        "#dids:",
        '#exclude: ["+918011223399"]',
        "#windows:",
        "#url: postgresql+psycopg://exporter@db.example.com/voicelink",
        "#hash_numbers:",
    ]


def test_the_first_line_tells_editors_where_the_schema_is() -> None:
    assert TEXT.splitlines()[0] == "# yaml-language-server: $schema=voicelink-exporter.schema.json"
    assert (FOLDER / "voicelink-exporter.schema.json").is_file()


def test_the_schema_is_a_schema_and_takes_the_example() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    checker().validate(YAML(typ="safe", pure=True).load(TEXT))


def test_the_schema_takes_the_example_with_every_example_taken_into_use() -> None:
    loaded = YAML(typ="safe", pure=True).load(taken_into_use(TEXT))
    del loaded["accounts"][0]["api_key_file"]
    del loaded["accounts"][0]["dids"][0]["did_id"]
    checker().validate(loaded)
    Config.model_validate(loaded)


@pytest.mark.e2e
def test_the_schema_is_up_to_date() -> None:
    assert json.loads(json_schema()) == SCHEMA


def test_every_key_of_the_schema_is_described() -> None:
    sections = [SCHEMA, *SCHEMA["$defs"].values()]
    assert all(section["description"] for section in sections)
    bare = {
        key: value
        for section in sections
        for key, value in section["properties"].items()
        if "description" not in value and "$ref" not in value
    }
    assert bare == {}
