"""One file for each thing that can be wrong with a configuration, with what is said about it to the letter."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from exporter.config import load_settings
from exporter.errors import ConfigError

HERE = Path(__file__).parent
SCHEMA = HERE.parent.parent / "config" / "voicelink-exporter.schema.json"
CANARY = "Canary1234567890"

INLINE = "secrets don't belong into this file; name a file with api_key_file or a variable with api_key_env"

PROBLEMS: dict[str, tuple[str, ...]] = {
    "not-yaml": ("{path}:3:2: is not YAML: expected <block end>, but found '<block mapping start>'",),
    "control-character": ("{path}:2: is not YAML: special characters are not allowed",),
    "unknown-tag": (
        "{path}:1:6: is not YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object'",
    ),
    "impossible-value": ("{path}: is not YAML: it holds a value that its own type doesn't allow",),
    "not-a-mapping": ("{path}: has to be a mapping of keys to values",),
    "two-documents": ("{path}:2:1: is not YAML: expected a single document in the stream, but found another document",),
    "duplicate-key": ("{path}:4:3: the same key stands twice in one mapping",),
    "duplicate-section": ("{path}:3:1: the same key stands twice in one mapping",),
    "unknown-key": ("poll.intervall: unknown key; did you mean interval?",),
    "unknown-section": ("monitoring: unknown key",),
    "unknown-key-in-list": ("accounts[0].dids[0].web_socket_url: unknown key; did you mean websocket_url?",),
    "key-that-is-no-text": ("api[1]: is no text, as keys have to be",),
    "text-for-number": ("api.requests_per_minute: has to be a whole number",),
    "fraction-for-number": ("api.requests_per_minute: has to be a whole number",),
    "boolean-for-number": ("api.requests_per_minute: has to be a whole number",),
    "number-for-text": ("accounts[0].name: has to be a text",),
    "text-for-boolean": ("accounts[0].dids[0].heal: has to be true or false",),
    "list-for-mapping": ("poll: has to be a mapping of keys to values",),
    "nothing-for-mapping": ("poll: has to be a mapping of keys to values",),
    "mapping-for-list": ("accounts: has to be a list",),
    "text-for-list": ("accounts[0].exclude: has to be a list",),
    "number-for-label": ("accounts[0].dids[0].labels.floor: has to be a text",),
    "list-for-labels": ("accounts[0].dids[0].labels: has to be a mapping of keys to values",),
    "true-for-hash": ("privacy.hash_numbers: has to be a mapping of keys to values",),
    "hash-without-key": ("privacy.hash_numbers.key_file: is required",),
    "too-small": ("api.requests_per_minute: has to be greater than or equal to 1",),
    "too-large": ("api.requests_per_minute: has to be less than or equal to 100000",),
    "choice": ("heal.mode: has to be 'off', 'observe' or 'enforce'",),
    "empty-name": ("accounts[0].name: must not be empty",),
    "long-name": ("accounts[0].name: has to have at most 200 characters",),
    "no-accounts": ("accounts: must not be empty",),
    "no-issues": ("heal.issues: must not be empty",),
    "duration": ("poll.interval: '1 minute' is not a duration; write one as 30s, 5m or 1h30m",),
    "duration-without-unit": ("poll.interval: a duration needs a unit; write one as 30s, 5m or 1h30m",),
    "duration-order": ("poll.interval: '30s1m' is not a duration; write one as 30s, 5m or 1h30m",),
    "duration-empty": ("poll.interval: '' is not a duration; write one as 30s, 5m or 1h30m",),
    "duration-zero": ("poll.interval: has to be longer than zero",),
    "duration-endless": ("store.retention: is longer than any clock lasts",),
    "duration-digits": ("store.retention: is longer than any clock lasts",),
    "inline-key": ("accounts[0].api_key: " + INLINE,),
    "inline-key-of-another-kind": ("accounts[0].token: " + INLINE,),
    "inline-key-anywhere": (
        "accounts[0].name: this looks like an API key; secrets don't belong into this file",
        "accounts[0].exclude[1]: this looks like an API key; secrets don't belong into this file",
        "poll.interval: this looks like an API key; secrets don't belong into this file",
    ),
    "inline-key-as-key": ("accounts[0].rg_live_…: this looks like an API key; secrets don't belong into this file",),
    "inline-key-as-alias": ("{path}:1:11: is not YAML: found undefined alias 'rg_live_…'",),
    "inline-key-as-variable": (
        (
            "accounts[0].api_key_env: this looks like an API key; "
            "put the name of the environment variable that holds it here"
        ),
    ),
    "inline-key-in-circle": (
        "accounts[0].labels[1]: this looks like an API key; secrets don't belong into this file",
        "accounts[0].labels: unknown key",
    ),
    "variable-name": ("accounts[0].api_key_env: is not the name of an environment variable",),
    "duplicate-accounts": ("accounts[2].name: accounts[0] is called 'main' already",),
    "two-default-accounts": (
        "accounts[1].name: accounts[0] is called 'default' already",
        "accounts[1].connections[0]: has to be a UUID, as f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55",
    ),
    "account-without-key": ("accounts[0]: needs either api_key_env or api_key_file, and not both",),
    "account-with-two-keys": ("accounts[0]: needs either api_key_env or api_key_file, and not both",),
    "number": (
        'accounts[0].dids[0].did_number: is not a phone number; write it with its country code, as "+918011223344"',
        'accounts[0].dids[1].did_number: is not a phone number; write it with its country code, as "+918011223344"',
        'accounts[0].dids[2].did_number: is not a phone number; write it with its country code, as "+918011223344"',
        'accounts[0].dids[3].did_number: is not a phone number; write it with its country code, as "+918011223344"',
        'accounts[0].dids[4].did_number: is not a phone number; write it with its country code, as "+918011223344"',
    ),
    "excluded-number": (
        'accounts[0].exclude[0]: is not a phone number; write it with its country code, as "+918011223344"',
    ),
    "duplicate-dids": ("accounts[0].dids: named more than once: +918011223344, did:812",),
    "excluded-did": ("accounts[0]: dids and exclude both name +918011223344, +918011223345",),
    "did-without-name": ("accounts[0].dids[0]: needs either did_number or did_id, and not both",),
    "did-with-two-names": ("accounts[0].dids[0]: needs either did_number or did_id, and not both",),
    "label-of-ours": ("accounts[0].dids[0].labels: account is a label the exporter sets itself",),
    "label-name": (
        "accounts[0].dids[0].labels: 'cost-centre' is not a label name; use letters, digits and _",
        "accounts[0].dids[1].labels: '__name__' is not a label name; use letters, digits and _",
    ),
    "connection": ("accounts[0].connections[0]: has to be a UUID, as f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55",),
    "duplicate-connections": ("accounts[0].connections: named more than once: f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55",),
    "agent": ("accounts[0].dids[0].agent_id: has to be a UUID, as f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55",),
    "websocket-url": ("accounts[0].dids[0].websocket_url: has to be a URL that begins with wss:// or ws://",),
    "base-url": ("api.base_url: has to be a URL that begins with https:// or http://",),
    "base-url-port": (
        "api.base_url: is no URL that can be called: check its host and port, and for spaces and letters with accents",
    ),
    "base-url-brackets": (
        "api.base_url: is no URL that can be called: check its host and port, and for spaces and letters with accents",
    ),
    "base-url-newline": (
        "api.base_url: is no URL that can be called: check its host and port, and for spaces and letters with accents",
    ),
    "base-url-login": (
        "api.base_url: holds a user name or password; the API wants its key alone, by api_key_file or api_key_env",
    ),
    "base-url-query": ("api.base_url: has to end with the path, without ? or #",),
    "jitter": ("poll.jitter: has to be shorter than interval, which is 30s",),
    "stale-after": ("poll.stale_after: has to be longer than interval, which is 5m",),
    "interval": ("poll.interval: has to be at least 100ms",),
    "backoff": ("heal.backoff.max: has to be at least initial, which is 1h",),
    "heal-budget": ("heal.requests_per_minute: is more than api.requests_per_minute, out of which it comes",),
    "issue": ("heal.issues[0]: is not an issue code; they look like NO_BOT",),
    "duplicate-issues": ("heal.issues: named more than once: NO_BOT",),
    "share": ("heal.max_unhealthy: has to be a share as 30% or a number of DIDs as 20",),
    "share-above-all": ("heal.max_unhealthy: has to be a share as 30% or a number of DIDs as 20",),
    "cron": ('heal.windows[0].cron: is not a cron expression; write five fields, as "0 9 * * mon-fri"',),
    "cron-with-seconds": ('heal.windows[0].cron: is not a cron expression; write five fields, as "0 9 * * mon-fri"',),
    "window-without-duration": ("heal.windows[0].duration: is required",),
    "time-zone": ("heal.windows[0].timezone: is not a time zone; write its IANA name, as Asia/Kolkata",),
    "address": (
        "web.listen_address: 'localhost' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH",
    ),
    "address-port": (
        "web.listen_address: ':65536' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH",
    ),
    "address-number": (
        "web.listen_address: '10880' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH",
    ),
    "address-in-list": (
        "web.listen_address[1]: 'localhost' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH",
        "web.listen_address[2]: '[::1]' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH",
    ),
    "duplicate-addresses": ("web.listen_address: named more than once: :10880",),
    "no-addresses": ("web.listen_address: must not be empty",),
    "unix-address": (
        "web.listen_address: the path of a unix socket has to be absolute, as unix:/run/voicelink-exporter.sock",
    ),
    "unix-address-length": ("web.listen_address: the path of a unix socket has at most 103 bytes",),
    "store": ("store.url: has to be sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE",),
    "store-without-folder": ("store.url: there is no folder /nonexistent/folder",),
    "many": (
        "accounts[0].api_key: " + INLINE,
        "accounts[1].name: accounts[0] is called 'main' already",
        "api.timeout: 'soon' is not a duration; write one as 30s, 5m or 1h30m",
        "api.requests_per_minute: has to be a whole number",
        "accounts[0].connections[0]: has to be a UUID, as f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55",
        "poll.interval: has to be longer than zero",
        "poll.retries: unknown key",
        "heal.mode: has to be 'off', 'observe' or 'enforce'",
        "web.listen_address: 'web' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH",
    ),
}
BEYOND_A_SCHEMA = {
    *("backoff", "heal-budget", "interval", "jitter", "stale-after"),
    *("base-url-brackets", "base-url-login", "base-url-newline", "base-url-port", "base-url-query", "address-port"),
    "unix-address-length",
    *("duplicate-accounts", "duplicate-dids", "excluded-did", "excluded-number", "label-name", "label-of-ours"),
    *("cron", "cron-with-seconds", "time-zone", "duration-digits", "duration-endless", "duration-zero"),
    *("inline-key-as-variable", "share-above-all", "store-without-folder"),
}
"""What takes more than a JSON Schema to see."""


def problems_of(name: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(HERE / f"invalid-{name}.yml", {"VOCOBASE_API_KEY": "rg_live_k"})
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_is_named_by_its_path(name: str) -> None:
    expected = tuple(text.replace("{path}", str(HERE / f"invalid-{name}.yml")) for text in PROBLEMS[name])
    assert problems_of(name) == expected


def test_every_file_is_told_about() -> None:
    assert {path.stem.removeprefix("invalid-") for path in HERE.glob("*.yml")} == set(PROBLEMS)


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name.startswith("inline-key") or name == "many"])
def test_a_secret_is_in_the_file_but_never_in_what_is_said_about_it(name: str) -> None:
    assert CANARY in (HERE / f"invalid-{name}.yml").read_text(encoding="utf-8")
    assert not any(CANARY in problem for problem in problems_of(name))


@pytest.mark.parametrize("name", PROBLEMS)
def test_an_editor_sees_what_a_schema_can_say(name: str) -> None:
    try:
        data = YAML(typ="safe", pure=True).load(HERE / f"invalid-{name}.yml")
    except (YAMLError, ValueError):
        assert PROBLEMS[name][0].startswith("{path}")
        return
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    formats = jsonschema.FormatChecker(["uuid"])  # that of URIs is checked only where another library is installed
    checker = jsonschema.Draft202012Validator(schema, format_checker=formats)
    assert checker.is_valid(data) == (name in BEYOND_A_SCHEMA)
