"""docs/reference/json-api.md and the OpenAPI document say the same."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from exporter.app import site_of
from exporter.config import Config, Settings
from exporter.parts import Exporter
from exporter.web.api import CODES, create_api
from exporter.web.reader import Reader
from tests.support.markdown import blocks, codes, read, rows, section, sections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = "docs/reference/json-api.md"
Told = dict[str, dict[str, tuple[str, ...]]]
INHERITED = {"DidDetail": "Did"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    exporter = Exporter(Settings(Config(), {"default": SecretStr("rg_live_MadeUp")}))
    exporter.poller.close()
    return create_api(Reader(site_of(exporter))).openapi()


def in_the_code(document: dict[str, Any]) -> Told:
    """Return by heading what a table says: parameters with type and default, fields with their type."""
    schemas = document["components"]["schemas"]
    told: Told = {}
    for path, item in document["paths"].items():
        parameters = item["get"]["parameters"]
        told[f"`GET /api/v1{path}`"] = {
            each["name"]: (kind(each["schema"]), str(each["schema"].get("default", ""))) for each in parameters
        }
    for name, schema in schemas.items():
        inherited = schemas[INHERITED[name]]["properties"] if name in INHERITED else {}
        fields: dict[str, tuple[str, ...]] = {
            field: (kind(each),) for field, each in schema.get("properties", {}).items() if field not in inherited
        }
        told[f"`{name}`"] = fields or dict.fromkeys(schema["enum"], ())
    return told


def kind(schema: dict[str, Any]) -> str:
    """Return how the page writes a type; a parameter that may be left out is no `null`."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        kinds = [kind(each) for each in schema["anyOf"]]
        return " or ".join(kinds)
    if schema["type"] == "array":
        return f"list of {kind(schema['items'])}"
    if schema["type"] == "object":
        return f"object of {kind(schema['additionalProperties'])}"
    return "time" if schema.get("format") == "date-time" else str(schema["type"])


def in_the_docs(text: str) -> Told:
    told: Told = {}
    for each in sections(text):
        table = rows(each.text)
        if each.title.startswith("`GET"):
            told[each.title] = {
                codes(row["Parameter"])[0]: (plain(row["Type"]), row["Default"].strip("`")) for row in table
            }
        elif each.title.startswith("`"):
            fields: dict[str, tuple[str, ...]] = {codes(row["Field"])[0]: (plain(row["Type"]),) for row in table}
            told[each.title] = fields or dict.fromkeys(codes(each.text.partition("One of")[2]), ())
    return told


def plain(text: str) -> str:
    return re.sub(r"\[(\w+)\]\(#\w+\)", r"\1", text)


def differences(document: dict[str, Any], text: str) -> set[str]:
    code, page = in_the_code(document), in_the_docs(text)
    for told in code.values():
        for name, (type_, *rest) in [(name, values) for name, values in told.items() if len(values) == 2]:
            told[name] = (type_.removesuffix(" or null"), *rest)
    return {
        f"{heading} {name}"
        for heading in code.keys() | page.keys()
        for name in code.get(heading, {}).keys() | page.get(heading, {}).keys()
        if code.get(heading, {}).get(name) != page.get(heading, {}).get(name)
    }


def test_the_page_names_every_parameter_and_field_with_its_type_and_no_other(document: dict[str, Any]) -> None:
    assert differences(document, read(PAGE)) == set()


def test_the_page_names_every_error(document: dict[str, Any]) -> None:
    table = rows(section(read(PAGE), "Errors").text)
    assert {int(row["Status"]): codes(row["`code`"])[0] for row in table} == {**CODES, 500: "internal"}
    assert document["components"]["schemas"]["Error"]["properties"].keys() == {"code", "message", "details"}
    for block in blocks(read(PAGE)):
        if block.info == "json":
            assert json.loads(block.text)["error"].keys() == {"code", "message", "details"}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            lambda text: text.replace("| `per_page` | integer | `100` |", "| `per_page` | integer | `50` |", 1),
            "per_page",
        ),
        (lambda text: text.replace("| `since` | time |", "| `since` | number |", 1), "since"),
        (lambda text: text.replace("| `drift_items` |", "| `drift` |", 1), "drift"),
        (lambda text: text.replace("`not_sent`, ", "", 1), "not_sent"),
        (lambda text: text.replace("| `seen` | time or null |", "| `seen` | time |", 1), "seen"),
    ],
)
def test_a_page_that_says_something_else_is_noticed(
    document: dict[str, Any], change: Callable[[str], str], found: str
) -> None:
    assert any(name.endswith(f" {found}") for name in differences(document, change(read(PAGE))))


def references(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Return what a document refers to."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield str(value["$ref"]).rpartition("/")[2]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_model_of_the_document_is_used(document: dict[str, Any]) -> None:
    assert set(references(document)) == set(document["components"]["schemas"])
