"""The kinds of values, each in all its spellings."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.addresses import Address, UnixAddress, parse_address, parse_listen_address
from exporter.config import Config, format_duration, load_settings, parse_duration
from exporter.config.values import Share

if TYPE_CHECKING:
    from pathlib import Path

ACCOUNT = {"api_key_env": "VOCOBASE_API_KEY"}
UNITS = {"y": 31_536_000_000, "w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


@given(st.integers(0, 10**15))
def test_durations_round_trip(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(format_duration(duration)) == duration


@given(st.dictionaries(st.sampled_from(list(UNITS)), st.integers(0, 10**5), min_size=1))
def test_any_mix_of_units_from_large_to_small_is_a_duration(parts: dict[str, int]) -> None:
    text = "".join(f"{parts[unit]}{unit}" for unit in UNITS if unit in parts)
    assert parse_duration(text) == timedelta(milliseconds=sum(count * UNITS[unit] for unit, count in parts.items()))


@given(st.text(max_size=20))
def test_a_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        parsed = parse_duration(text)
    except ValueError:
        return
    assert parsed >= timedelta(0)
    assert text[-1] in "ywdhms"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("2w", 1_209_600), ("1y", 31_536_000), ("0s", 0)],
)
def test_durations_as_prometheus_writes_them(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-5s", "+5s", "1.5h", "5 m", "1m1h", "5m5m", "5M", "٣s", "30s\n", "1d "]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write one as 30s, 5m or 1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(days=90), "90d"),
        (timedelta(hours=1, minutes=30), "1h30m"),
        (timedelta(seconds=60), "1m"),
        (timedelta(seconds=0.1), "100ms"),
    ],
)
def test_durations_are_written_in_the_fewest_units(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":10880", "", 10880),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("localhost:65535", "localhost", 65535),
        ("[::1]:9100", "::1", 9100),
        ("[fe80::1%eth0]:9100", "fe80::1%eth0", 9100),
    ],
)
def test_addresses_round_trip(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)
    assert str(parse_address(text)) == text


@pytest.mark.parametrize("text", ["", "10880", "localhost", "::1:9100", ":x", ":99999", "http://h:1", "h:1/", "h :1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address; write HOST:PORT, :PORT or \[IPV6\]:PORT"):
        parse_address(text)


@pytest.mark.parametrize("text", [":10880", "127.0.0.1:0", "[::1]:9100", "unix:/run/a.sock", "unix:/run/a,b c.sock"])
def test_addresses_to_listen_on_round_trip(text: str) -> None:
    assert str(parse_listen_address(text)) == text


@pytest.mark.parametrize("text", ["unix:", "unix:run/a.sock", "unix:./a", "unix:/a\0b", "unix:/" + "é" * 60])
def test_what_is_no_path_of_a_unix_socket(text: str) -> None:
    with pytest.raises(ValueError, match=r"^the path of a unix socket has "):
        parse_listen_address(text)


def test_one_address_or_several() -> None:
    for told, shown in ((":1", ":1"), ([":1"], ":1"), ([":1", "unix:/a"], [":1", "unix:/a"])):
        config = Config.model_validate({"web": {"listen_address": told}})
        assert config.model_dump(mode="json")["web"] == {"listen_address": shown}
    by_variable = load_settings(None, {"VOCOBASE_API_KEY": "k", "VOICELINK_WEB_LISTEN_ADDRESS": ":1, unix:/a"}).config
    assert by_variable.web.listen_address == (Address("", 1), UnixAddress("/a"))


@pytest.mark.parametrize(
    ("value", "of_ten", "text"), [("30%", 3, "30%"), ("12.5%", 1.25, "12.5%"), (0, 0, "0"), (20, 20, "20")]
)
def test_shares(value: object, of_ten: float, text: str) -> None:
    share = Config.model_validate({"heal": {"max_unhealthy": value}}).heal.max_unhealthy
    assert share.of(10) == pytest.approx(of_ten)
    assert str(share) == text


def test_the_share_of_nothing_is_nothing() -> None:
    assert Share().of(10) == 0


@pytest.mark.parametrize("spelling", ["918011223344", "+91 80 1122 3344", "+918011223344", '"+918011223344"'])
def test_every_spelling_of_a_number_is_one_did(tmp_path: Path, spelling: str) -> None:
    path = tmp_path / "exporter.yml"
    path.write_text(
        f"accounts: [{{api_key_env: KEY, dids: [{{did_number: {spelling}}}], exclude: ['+918011223345']}}]\n"
    )
    account = load_settings(path, {"KEY": "rg_live_x"}).config.accounts[0]
    assert account.dids[0].did_number == account.dids[0].key == "+918011223344"
    assert account.exclude == ("+918011223345",)


def test_a_did_without_a_number_goes_by_its_id() -> None:
    config = Config.model_validate({"accounts": [{**ACCOUNT, "dids": [{"did_id": 812}]}]})
    assert config.accounts[0].dids[0].key == "did:812"


def test_off_may_come_as_false_from_older_yaml(tmp_path: Path) -> None:
    path = tmp_path / "exporter.yml"
    path.write_text("%YAML 1.1\n---\nheal: {mode: off}\n")
    assert load_settings(path, {"VOCOBASE_API_KEY": "rg_live_x"}).config.heal.mode == "off"


def test_ids_are_kept_in_one_spelling() -> None:
    config = Config.model_validate({"accounts": [{**ACCOUNT, "connections": ["F4DF9F8CDF9546D8BB0E6F9F83FD4F55"]}]})
    assert config.accounts[0].connections == ("f4df9f8c-df95-46d8-bb0e-6f9f83fd4f55",)


@pytest.mark.parametrize("url", ["https://[::1]:8443/api/v2", "http://127.0.0.1:10881/api/v2/", "HTTPS://API.EXAMPLE"])
def test_the_base_url_loses_its_last_slash_and_nothing_else(url: str) -> None:
    assert Config.model_validate({"api": {"base_url": url}}).api.base_url == url.rstrip("/")


def test_windows_take_a_cron_expression_and_a_time_zone() -> None:
    window = {"cron": "0 9 * * mon-fri", "duration": "8h", "timezone": "Asia/Kolkata"}
    config = Config.model_validate({"heal": {"windows": [window]}})
    assert config.model_dump(mode="json")["heal"]["windows"] == [window]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///voicelink-exporter.db", "sqlite:///voicelink-exporter.db"),
        ("sqlite:////var/lib/exporter@home.db?mode=rw", "sqlite:////var/lib/exporter@home.db?<secret>"),
        ("postgresql+psycopg://exporter@db/voicelink", "postgresql+psycopg://exporter@db/voicelink"),
        ("postgresql+psycopg://exporter:Canary@db/voicelink", "postgresql+psycopg://exporter:<secret>@db/voicelink"),
        ("postgresql+psycopg://exporter:Can/a#r?y@[::1]/v", "postgresql+psycopg://exporter:<secret>@[::1]/v"),
        ("postgresql+psycopg:///v?password=Canary", "postgresql+psycopg:///v?<secret>"),
    ],
)
def test_a_store_is_shown_without_its_password(url: str, shown: str) -> None:
    config = Config.model_validate({"store": {"url": url}})
    assert config.store.url == url
    assert config.model_dump(mode="json")["store"]["url"] == shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://voice.example.com/stream", "wss://voice.example.com/stream"),
        ("wss://voice.example.com/stream?token=Canary#Canary", "wss://voice.example.com/stream?<secret>"),
        ("wss://voice.example.com/stream#Canary@x", "wss://voice.example.com/stream#<secret>"),
        ("wss://Canary@voice.example.com", "wss://<secret>@voice.example.com"),
        ("wss://me:Canary@voice.example.com:8443/a@b", "wss://<secret>@voice.example.com:8443/a@b"),
        ("ws://h:80/p?token=Can@ary", "ws://h:80/p?<secret>"),
    ],
)
def test_a_websocket_url_is_shown_without_login_and_query(url: str, shown: str) -> None:
    config = Config.model_validate({"accounts": [{**ACCOUNT, "dids": [{"did_id": 812, "websocket_url": url}]}]})
    assert config.accounts[0].dids[0].websocket_url == url
    assert config.model_dump(mode="json")["accounts"][0]["dids"][0]["websocket_url"] == shown


def test_what_is_shown_can_be_read_back() -> None:
    shown = Config().model_dump(mode="json")
    assert Config.model_validate(shown) == Config()


def test_code_may_hand_over_values_as_they_are() -> None:
    config = Config.model_validate(
        {
            "api": {"timeout": timedelta(seconds=1)},
            "heal": {"max_unhealthy": Share(count=4)},
            "web": {"listen_address": Address("::1", 1)},
        }
    )
    assert config.api.timeout == timedelta(seconds=1)
    assert config.heal.max_unhealthy == Share(count=4)
    assert [str(address) for address in config.web.listen_address] == ["[::1]:1"]
