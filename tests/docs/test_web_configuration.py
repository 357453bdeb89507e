"""docs/reference/web-configuration.md and the schema say the same, and what a page shows of such a file loads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

import pytest
from ruamel.yaml import YAML

from exporter.clock import SystemClock
from exporter.config.document import section_of
from exporter.config.web_file import COSTS, CURVES, TLS12_SUITES, TLS13_SUITES, WebFile
from exporter.web.security import Security
from tests.docs.test_configuration import default_of
from tests.support.certificates import issue, write_authority
from tests.support.markdown import blocks, codes, inline_code, pages, read, rows, section

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydantic import BaseModel

PAGE = "docs/reference/web-configuration.md"
MARK: Final = "yaml web-configuration"
Keys = dict[str, tuple[str, frozenset[str]]]  # by path: default, and the values where there is a choice


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, frozenset[str]]]:
    for name, info in model.model_fields.items():
        path = f"{prefix}{info.alias or name}"
        inner = section_of(info.annotation)
        if inner:
            yield from fields_of(inner, f"{path}.")
        else:
            yield path, default_of(name, info, model), choices(info.annotation)


def choices(annotation: Any) -> frozenset[str]:  # noqa: ANN401 - a type, of any kind
    """Return the values that a field may have, where it is a choice; a blank one stands for itself."""
    if get_origin(annotation) is Literal:
        return frozenset(get_args(annotation)) - {""}
    return frozenset().union(*(choices(part) for part in get_args(annotation)))


def in_the_code() -> Keys:
    found = {path: (default, values) for path, default, values in fields_of(WebFile)}
    curves = "tls_server_config.curve_preferences"
    return found | {curves: (found[curves][0], frozenset(CURVES))}


def in_the_docs(text: str) -> Keys:
    found: Keys = {}
    for row in rows(text):
        if "Key" in row:
            (key,) = codes(row["Key"])
            assert key not in found, f"{key} stands there twice"
            found[key] = (codes(row["Default"]) or [row["Default"]])[0], frozenset(codes(row["Values"]))
    return found


def differences(text: str) -> dict[str, tuple[Any, Any]]:
    """Return what code and page say differently: the code's word and the page's."""
    code, page = in_the_code(), in_the_docs(text)
    return {key: (code.get(key), page.get(key)) for key in code.keys() | page.keys() if code.get(key) != page.get(key)}


def test_the_page_names_every_key_with_its_default_and_values_and_no_other() -> None:
    assert differences(read(PAGE)) == {}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("| `rate_limit.burst` |", "| `rate_limit.bursts` |", {"rate_limit.burst", "rate_limit.bursts"}),
        ("| text | `TLS12` |", "| text | `TLS13` |", {"tls_server_config.min_version"}),
        ("| `deny`, `sameorigin` |", "| `deny` |", {"http_server_config.headers.X-Frame-Options"}),
        ("`CurveP521`, `X25519` |", "`CurveP521` |", {"tls_server_config.curve_preferences"}),
    ],
)
def test_a_page_that_says_something_else_is_noticed(old: str, new: str, found: set[str]) -> None:
    text = read(PAGE)
    assert old in text
    assert set(differences(text.replace(old, new, 1))) == found


def test_the_page_names_every_cipher_suite_and_the_costs() -> None:
    assert set(inline_code(section(read(PAGE), "Cipher suites").text)) == {*TLS12_SUITES, *TLS13_SUITES}
    assert f"costs from {COSTS[0]} to {COSTS[-1]}" in read(PAGE)
    assert f"a cost of {COSTS[-1]} at most" in read(PAGE)


def test_what_a_page_shows_as_web_configuration_loads(tmp_path: Path) -> None:
    issue(tmp_path, "server")
    write_authority(tmp_path).rename(tmp_path / "clients-ca.crt")
    shown = [block.text for page in pages() for block in blocks(page.read_text(encoding="utf-8")) if block.info == MARK]
    assert len(shown) >= 2
    for text in shown:
        path = tmp_path / "web-config.yml"
        path.write_text(text, encoding="utf-8")
        Security(path, SystemClock()).close()


def test_every_block_that_is_a_web_configuration_is_marked() -> None:
    for page in pages():
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.info.split()[:1] in (["yaml"], ["yml"]):
                loaded = YAML(typ="safe", pure=True).load(block.text)
                ours = isinstance(loaded, dict) and loaded.keys() <= WebFile.model_fields.keys()
                assert (block.info == MARK) == ours, f"{page}: {block.text}"
