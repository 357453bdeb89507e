"""Where a configuration comes from, which place wins, and what is said when a place is no good."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from exporter.config import Config, environment_names, load_settings, suspicious
from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENV = {"VOCOBASE_API_KEY": "rg_live_Canary1234567890"}
NOT_SET = (
    "is not set, or empty; it has to hold your Vocobase API key. "
    "To try the exporter without one, run: voicelink-exporter demo"
)
KEY_FILE = "accounts: [{api_key_file: FILE}]\n"
HASH_FILE = "privacy: {hash_numbers: {key_file: FILE}}\n"
IMPOSSIBLE = "the key holds characters that an HTTP header can't carry; is it one line with nothing else?"


def written(folder: Path, text: str | bytes, name: str = "exporter.yml") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems_of(
    path: Path | None, environ: Mapping[str, str] = ENV, flags: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, environ, flags)
    assert "Canary" not in str(caught.value)
    return caught.value.problems


def without_store(config: Config) -> dict[str, object]:
    """Return a configuration but for where the store is, which depends on who asks: tests/config/test_places.py."""
    return config.model_dump(exclude={"store": {"url"}})


def test_without_a_file_a_key_is_enough() -> None:
    settings = load_settings(None, ENV)
    assert without_store(settings.config) == without_store(Config())
    assert settings.api_keys["default"].get_secret_value() == "rg_live_Canary1234567890"
    assert settings.hash_key is None
    assert settings.unknown_environment == ()
    assert "Canary" not in repr(settings)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "\ufeffpoll: {interval: 60s}\n"])
def test_a_file_that_says_nothing_new_changes_nothing(tmp_path: Path, text: str) -> None:
    assert without_store(load_settings(written(tmp_path, text), ENV).config) == without_store(Config())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.yml"
    assert problems_of(path) == (f"{path}: can't be read: No such file or directory",)


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    assert problems_of(tmp_path) == (f"{tmp_path}: can't be read: Is a directory",)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = written(tmp_path, b"poll:\n  interval: \xff")
    assert problems_of(path) == (f"{path}: is not UTF-8 text (byte 18)",)


def test_a_file_without_bottom(tmp_path: Path) -> None:
    path = written(tmp_path, "[" * 600)
    assert problems_of(path) == (f"{path}: is nested too deep",)


def test_aliases_that_multiply_cost_nothing(tmp_path: Path) -> None:
    levels = "".join(f"  - &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]\n" for level in range(1, 40))
    path = written(tmp_path, f"bomb:\n  - &l0 [a]\n{levels}")
    assert problems_of(path) == ("bomb: unknown key",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "FILE can't be read: No such file or directory"),
        (b"", "FILE is empty"),
        (b" \n\n", "FILE is empty"),
        (b"rg_live_\xff", "FILE is not text, so it is no key"),
        (b"k" * 4097, "FILE is longer than 4096 bytes, so it is no key"),
        (b"rg_live_Canary\nrg_live_Canary", IMPOSSIBLE),
        (b"rg_live_Canary Canary", IMPOSSIBLE),
        ("rg_live_Canary\u00e9".encode(), IMPOSSIBLE),
        (b"rg_live_Canary\0", IMPOSSIBLE),
    ],
)
def test_a_key_file_that_holds_no_key(tmp_path: Path, content: bytes | None, problem: str) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    path = written(tmp_path, KEY_FILE.replace("FILE", str(key)))
    assert problems_of(path) == (f"accounts[0].api_key_file: {problem.replace('FILE', str(key))}",)


def test_a_key_file_that_is_a_folder(tmp_path: Path) -> None:
    path = written(tmp_path, KEY_FILE.replace("FILE", str(tmp_path)))
    assert problems_of(path) == (f"accounts[0].api_key_file: {tmp_path} can't be read: Is a directory",)


def test_a_key_file_may_end_in_a_newline(tmp_path: Path) -> None:
    key = written(tmp_path, "rg_live_Canary\r\n", "key")
    settings = load_settings(written(tmp_path, KEY_FILE.replace("FILE", str(key))), {})
    assert settings.api_keys["default"].get_secret_value() == "rg_live_Canary"


@pytest.mark.parametrize("environ", [{}, {"VOCOBASE_API_KEY": ""}, {"VOCOBASE_API_KEY": " \n"}])
def test_a_key_that_is_not_in_the_environment(environ: dict[str, str]) -> None:
    assert problems_of(None, environ) == (
        f"accounts[0].api_key_env: the environment variable VOCOBASE_API_KEY {NOT_SET}",
    )


@pytest.mark.parametrize("key", ["rg_live_Canary\nX-Evil: 1", "rg_live_Canary\u00e9", "rg_live_Canary Canary"])
def test_a_key_in_the_environment_that_no_header_can_carry(key: str) -> None:
    assert problems_of(None, {"VOCOBASE_API_KEY": key}) == (f"accounts[0].api_key_env: {IMPOSSIBLE}",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "FILE can't be read: No such file or directory"),
        (b"Canary123456789", "the key has to have 16 bytes or more"),
        (b"\xff" * 16, "FILE is not text, so it is no key"),
    ],
)
def test_a_hash_key_file_that_is_no_good(tmp_path: Path, content: bytes | None, problem: str) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
    path = written(tmp_path, HASH_FILE.replace("FILE", str(key)))
    assert problems_of(path) == (f"privacy.hash_numbers.key_file: {problem.replace('FILE', str(key))}",)


def test_a_hash_key(tmp_path: Path) -> None:
    key = written(tmp_path, "Canary1234567890\n", "key")
    settings = load_settings(written(tmp_path, HASH_FILE.replace("FILE", str(key))), ENV)
    assert settings.hash_key
    assert settings.hash_key.get_secret_value() == "Canary1234567890"
    assert "Canary" not in repr(settings)


def test_hashing_can_be_switched_off_by_false(tmp_path: Path) -> None:
    assert load_settings(written(tmp_path, "privacy: {hash_numbers: false}\n"), ENV).config.privacy.hash_numbers is None


def test_every_secret_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "accounts:\n"
        "  - {name: one, api_key_env: KEY_ONE}\n"
        "  - {name: two, api_key_file: /nonexistent/two}\n"
        "privacy: {hash_numbers: {key_file: /nonexistent/hash}}\n"
        "store: {url: sqlite:////nonexistent/exporter.db}\n",
    )
    assert problems_of(path) == (
        f"accounts[0].api_key_env: the environment variable KEY_ONE {NOT_SET}",
        "accounts[1].api_key_file: /nonexistent/two can't be read: No such file or directory",
        "privacy.hash_numbers.key_file: /nonexistent/hash can't be read: No such file or directory",
        "store.url: there is no folder /nonexistent",
    )


def test_an_anchor_may_be_used_again(tmp_path: Path) -> None:
    path = written(tmp_path, "poll: {interval: &a 1m, jitter: &a 2s, stale_after: 1h}\napi: {timeout: *a}\n")
    assert load_settings(path, ENV).config.api.timeout.total_seconds() == 2


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "web: {listen_address: ':1'}\napi: {timeout: 1s}\npoll: {interval: 10s}\n")
    environ = {**ENV, "VOICELINK_WEB_LISTEN_ADDRESS": ":2", "VOICELINK_API_TIMEOUT": "2s"}
    config = load_settings(path, environ, {"web.listen_address": ":3"}).config
    assert [str(address) for address in config.web.listen_address] == [":3"]
    assert config.api.timeout.total_seconds() == 2
    assert config.poll.interval.total_seconds() == 10


def test_a_problem_names_the_variable_or_flag_it_comes_from(tmp_path: Path) -> None:
    path = written(tmp_path, "poll: {interval: never}\n")
    environ = {
        **ENV,
        "VOICELINK_API_TIMEOUT": "soon",
        "VOICELINK_WEB_LISTEN_ADDRESS": "nowhere",
        "VOICELINK_HEAL_ISSUES": "NO_BOT, nobot",
    }
    assert set(problems_of(path, environ, {"web.listen_address": "there"})) == {
        "api.timeout: 'soon' is not a duration; write one as 30s, 5m or 1h30m (from VOICELINK_API_TIMEOUT)",
        "poll.interval: 'never' is not a duration; write one as 30s, 5m or 1h30m",
        "heal.issues[1]: is not an issue code; they look like NO_BOT (from VOICELINK_HEAL_ISSUES)",
        (
            "web.listen_address: 'there' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH "
            "(from the command line)"
        ),
    }


def test_a_problem_found_late_names_its_variable_too() -> None:
    environ = {**ENV, "VOICELINK_STORE_URL": "sqlite:////nonexistent/a.db"}
    assert problems_of(None, environ) == ("store.url: there is no folder /nonexistent (from VOICELINK_STORE_URL)",)


def test_a_key_in_a_variable_of_ours_is_not_repeated() -> None:
    assert problems_of(None, {**ENV, "VOICELINK_API_BASE_URL": "https://h/?key=rg_live_Canary"}) == (
        "api.base_url: this looks like an API key; secrets don't belong into this file (from VOICELINK_API_BASE_URL)",
    )


def test_a_variable_fits_into_a_section_that_the_file_leaves_out_or_switches_off(tmp_path: Path) -> None:
    key = written(tmp_path, "Canary1234567890", "key")
    path = written(tmp_path, "privacy: {hash_numbers: false}\nstore:\n")
    environ = {**ENV, "VOICELINK_PRIVACY_HASH_NUMBERS_KEY_FILE": str(key), "VOICELINK_STORE_RETENTION": "1d"}
    settings = load_settings(path, environ)
    assert settings.hash_key
    assert settings.config.store.retention.days == 1


def test_a_variable_mends_no_file_that_is_wrong_there(tmp_path: Path) -> None:
    path = written(tmp_path, "poll: often\n")
    assert problems_of(path, {**ENV, "VOICELINK_POLL_INTERVAL": "1s"}) == (
        "poll: has to be a mapping of keys to values",
    )


def test_every_kind_of_value_fits_into_a_variable() -> None:
    config = load_settings(
        None,
        {
            **ENV,
            "VOICELINK_API_REQUESTS_PER_MINUTE": "30",
            "VOICELINK_HEAL_MODE": "off",
            "VOICELINK_HEAL_MAX_UNHEALTHY": "20",
            "VOICELINK_HEAL_ISSUES": "NO_BOT, NO_VOCOBASE_AGENT,",
            "VOICELINK_HEAL_BACKOFF_MAX": "1h",
            "VOICELINK_STORE_URL": "sqlite:///:memory:",
        },
    ).config
    assert config.api.requests_per_minute == 30
    assert config.heal.mode == "off"
    assert config.heal.max_unhealthy.count == 20
    assert config.heal.issues == ("NO_BOT", "NO_VOCOBASE_AGENT")
    assert config.heal.backoff.max.total_seconds() == 3600
    assert config.store.url == "sqlite:///:memory:"


def test_variables_that_mean_nothing_are_told_and_others_are_left_alone() -> None:
    environ = {
        **ENV,
        "VOICELINK_POLL_INTERVALL": "1s",
        "VOICELINK_API_KEY": "rg_live_Canary",
        "VOICELINK_CONFIG_FILE": "a.yml",
        "VOICELINK_LOG_LEVEL": "info",
        "VOICELINK_EXPORTER_SERVICE_HOST": "10.0.0.1",
        "PATH": "/bin",
    }
    settings = load_settings(None, environ)
    assert settings.unknown_environment == ("VOICELINK_API_KEY", "VOICELINK_POLL_INTERVALL")
    assert without_store(settings.config) == without_store(Config())


def test_what_is_most_likely_a_mistake_is_named() -> None:
    environ = {"VOCOBASE_API_KEY": "hello", "VOICELINK_POLL_INTERVALL": "1s", "VOICELINK_COLOUR": "blue"}
    assert suspicious(load_settings(None, environ)) == [
        "VOICELINK_POLL_INTERVALL: no setting has this name; is VOICELINK_POLL_INTERVAL meant?",
        "accounts[0].api_key_env: the key does not begin with rg_live_, as Vocobase's do",
    ]


@pytest.mark.parametrize(
    "environ",
    [
        ENV,
        {**ENV, "VOICELINK_API_BASE_URL": "https://api.vocobase.com/api/v3"},
        {"VOCOBASE_API_KEY": "hello", "VOICELINK_API_BASE_URL": "https://gateway.example/api/v2"},
    ],
)
def test_what_may_well_be_meant_is_not_named(environ: dict[str, str]) -> None:
    assert suspicious(load_settings(None, environ)) == []


@pytest.mark.parametrize(
    ("url", "clear"),
    [
        ("https://api.vocobase.com/api/v2", False),
        ("http://api.vocobase.com/api/v2", True),
        ("http://10.0.0.1/api/v2", True),
        ("http://127.0.0.1:8080/api/v2", False),
        ("http://[::1]:8080/api/v2", False),
        ("http://localhost/api/v2", False),
    ],
)
def test_a_key_travels_in_the_clear_where_it_leaves_the_machine_without_tls(url: str, clear: bool) -> None:  # noqa: FBT001 - expected
    assert load_settings(None, {**ENV, "VOICELINK_API_BASE_URL": url}).key_travels_in_the_clear is clear


def test_every_single_value_has_its_variable() -> None:
    names = environment_names()
    assert names["VOICELINK_API_BASE_URL"] == "api.base_url"
    assert names["VOICELINK_PRIVACY_HASH_NUMBERS_KEY_FILE"] == "privacy.hash_numbers.key_file"
    assert names["VOICELINK_HEAL_ISSUES"] == "heal.issues"
    assert {"accounts", "heal.windows", "api", "heal.breaker"}.isdisjoint(names.values())
    assert len(names) == 28


@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("FOLDER/none/exporter.db", "there is no folder FOLDER/none"),
        ("FOLDER/file/exporter.db", "there is no folder FOLDER/file"),
        ("FOLDER/folder", "FOLDER/folder is a folder"),
        ("FOLDER/" + "a" * 300 + "/exporter.db", "there is no folder FOLDER/" + "a" * 300),
    ],
)
def test_a_store_that_nothing_can_be_kept_in(tmp_path: Path, place: str, problem: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    path = written(tmp_path, f"store: {{url: sqlite:///{place.replace('FOLDER', str(tmp_path))}}}\n")
    assert problems_of(path) == (f"store.url: {problem.replace('FOLDER', str(tmp_path))}",)


def test_a_store_that_nobody_may_write_to(tmp_path: Path) -> None:
    """A file of the kernel's own refuses even root."""
    name = "/proc/self/mountinfo" if os.geteuid() else "/proc/sys/kernel/random/boot_id"
    refused = not os.access(name, os.W_OK)
    path = written(tmp_path, f"store: {{url: 'sqlite:///{name}'}}\n")
    assert refused
    assert problems_of(path) == (f"store.url: {name} can't be written to",)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///:memory:",
        "sqlite:///FOLDER/a.db",
        "sqlite:///FOLDER/a.db?mode=rw",
        "postgresql+psycopg://exporter@db.example.com/voicelink",
    ],
)
def test_a_store_that_can_be(tmp_path: Path, url: str) -> None:
    url = url.replace("FOLDER", str(tmp_path))
    assert load_settings(written(tmp_path, f"store: {{url: '{url}'}}\n"), ENV).config.store.url == url


def test_a_variable_that_is_empty_is_a_variable_that_is_not_set() -> None:
    environ = {**ENV, "VOICELINK_POLL_INTERVAL": "", "VOICELINK_STORE_URL": " ", "VOICELINK_NONSENSE": ""}
    settings = load_settings(None, environ)
    assert settings.unknown_environment == ()
    assert settings.config == load_settings(None, ENV).config
