"""docs/reference/configuration.md and the schema say the same, and what any page shows as configuration loads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from exporter.config import Config, environment_names, load_settings
from exporter.config.schema import Section
from tests.support.markdown import ROOT, Block, blocks, codes, pages, read, rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

PAGE = "docs/reference/configuration.md"
OTHER_VARIABLES = {
    *(
        "VOICELINK_CONFIG_FILE",
        "VOICELINK_WEB_CONFIG_FILE",
        "VOICELINK_LOG_LEVEL",
        "VOICELINK_LOG_FORMAT",
        "VOCOBASE_API_KEY",
    ),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTPS_PROXY", "NO_PROXY", "STATE_DIRECTORY"),
}
MARK: Final = "yaml configuration"
Keys = dict[str, tuple[str, str, tuple[str, ...]]]  # by path: default, variable, numbers that bound it


def inner(annotation: Any) -> tuple[type[Section] | None, bool]:  # noqa: ANN401 - a type, of any kind
    """Return the section that a field holds, and whether it holds a list of them."""
    if isinstance(annotation, type):
        return (annotation, False) if issubclass(annotation, Section) else (None, False)
    parts = getattr(annotation, "__args__", ())
    found = [section for part in parts if (section := inner(part)[0])]
    return (found[0], getattr(annotation, "__origin__", None) is tuple) if found else (None, False)


def fields_of(model: type[Section], prefix: str = "") -> Iterator[tuple[str, FieldInfo, type[Section]]]:
    for name, info in model.model_fields.items():
        section, many = inner(info.annotation)
        path = f"{prefix}{name}"
        if section is None or (prefix and (many or info.default is None)):  # a plain section is a heading, and no key
            yield path, info, model
        if section:
            yield from fields_of(section, f"{path}[]." if many else f"{path}.")


def default_of(name: str, info: FieldInfo, model: type[BaseModel]) -> str:
    if info.is_required():
        return "required"
    value = model.model_construct().model_dump(mode="json")[name] if info.default is not PydanticUndefined else {}
    if name == "hash_numbers":
        return "false"  # as the file says it
    if value is None:
        return "none"
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def bounds_of(info: FieldInfo) -> tuple[str, ...]:
    limits = {name: getattr(item, name) for item in info.metadata for name in ("ge", "le") if hasattr(item, name)}
    return tuple(str(limits[name]) for name in ("ge", "le") if name in limits)


def in_the_code() -> Keys:
    variables = {key: name for name, key in environment_names().items()}
    return {
        path: (default_of(path.rpartition(".")[2], info, model), variables.get(path, ""), bounds_of(info))
        for path, info, model in fields_of(Config)
    }


def in_the_docs(text: str) -> Keys:
    found: Keys = {}
    for row in rows(text):
        if "Key" in row:
            (key,) = codes(row["Key"])
            default = (codes(row["Default"]) or [row["Default"]])[0]
            assert key not in found, f"{key} stands there twice"
            found[key] = default, "".join(codes(row["Variable"])), tuple(re.findall(r"(?<![`%])\b\d+\b", row["Bounds"]))
    return found


def differences(text: str) -> dict[str, tuple[Any, Any]]:
    """Return what code and page say differently: the code's word and the page's."""
    code, page = in_the_code(), in_the_docs(text)
    wrong: dict[str, tuple[Any, Any]] = {}
    for key in sorted(code.keys() | page.keys()):
        if key not in code or key not in page or code[key][:2] != page[key][:2]:
            wrong[key] = code.get(key), page.get(key)
        elif code[key][2] and page[key][2][: len(code[key][2])] != code[key][2]:
            wrong[key] = code[key], page[key]
    others = {name for row in rows(text) if list(row) == ["Variable", "Meaning"] for name in codes(row["Variable"])}
    return wrong | dict.fromkeys(OTHER_VARIABLES ^ others, ("a variable", None))


def configurations() -> list[tuple[str, Block]]:
    return [
        (page.relative_to(ROOT).as_posix(), block)
        for page in pages()
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.info == MARK
    ]


def load(block: str, folder: Path) -> None:
    """Load a block as users would, with the files and variables that it names. Raises what is wrong with it."""
    text = block.replace("/run/secrets/", f"{folder}/").replace("/var/lib/voicelink-exporter/", f"{folder}/")
    for name in re.findall(r"_file: (\S+)", text):
        Path(name).write_text("rg_live_a_key_of_the_tests\n", encoding="utf-8")
    path = folder / "block.yml"
    path.write_text(text, encoding="utf-8")
    variables = {"VOCOBASE_API_KEY", *re.findall(r"api_key_env: (\S+)", text)}
    load_settings(path, dict.fromkeys(variables, "rg_live_a_key_of_the_tests"))


def test_the_page_names_every_key_with_default_variable_and_bounds_and_no_other() -> None:
    assert differences(read(PAGE)) == {}


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("| `api.timeout` |", "| `api.time_out` |", {"api.timeout", "api.time_out"}),
        ("| `poll.jitter` | duration | `5s` |", "| `poll.jitter` | duration | `6s` |", {"poll.jitter"}),
        ("`VOICELINK_HEAL_MODE`", "`VOICELINK_HEAL`", {"heal.mode"}),
        ("| 1 to 100000 |", "| 1 to 10000 |", {"api.requests_per_minute"}),
        ("| 1024 or more |", "| |", {"api.max_response_bytes"}),
        (
            "| `accounts[].dids[].bot_name` | text | none |",
            "| `accounts[].dids[].bot_name` | text | `bot` |",
            {"accounts[].dids[].bot_name"},
        ),
        (
            "| `heal.windows[].cron` | text | required |",
            "| `heal.windows[].cron` | text | none |",
            {"heal.windows[].cron"},
        ),
        ("| `VOICELINK_LOG_LEVEL` |", "| `VOICELINK_LEVEL` |", {"VOICELINK_LOG_LEVEL", "VOICELINK_LEVEL"}),
    ],
)
def test_a_page_that_says_something_else_is_noticed(old: str, new: str, found: set[str]) -> None:
    text = read(PAGE)
    assert old in text
    assert set(differences(text.replace(old, new, 1))) - set(differences(text)) == found


@pytest.mark.parametrize(("page", "block"), configurations(), ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_page_shows_as_configuration_loads(
    page: str, block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    load(block.text, tmp_path)
    assert page


def test_a_configuration_that_would_not_load_is_noticed(tmp_path: Path) -> None:
    for wrong in ("poll: {intervall: 60s}", "accounts: [{name: x}]", "heal: {mode: on}"):
        with pytest.raises(Exception, match=r"poll\.intervall|accounts\[0\]|heal\.mode"):
            load(wrong, tmp_path)


def test_every_block_that_is_a_configuration_is_marked() -> None:
    for page in pages():
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.info.split()[:1] in (["yaml"], ["yml"]):
                loaded = YAML(typ="safe", pure=True).load(block.text)
                ours = isinstance(loaded, dict) and loaded.keys() <= Config.model_fields.keys()
                assert (block.info == MARK) == ours, f"{page}: {block.text}"
