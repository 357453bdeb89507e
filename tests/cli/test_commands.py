"""Every command as a user runs it: what it prints, where, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter import __version__
from tests.support.processes import (
    KEY,
    PRODUCT,
    Simulated,
    assert_clean,
    environment,
    product,
    run,
    serving,
    simulating,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
COMMANDS = ("serve", "check-config", "config-schema", "poll", "simulate", "demo", "healthcheck")
WITH_KEY = {"VOCOBASE_API_KEY": KEY}
VALID = "the configuration is valid\nstore: /none/voicelink-exporter.db\n"
NO_KEY = (
    "accounts[0].api_key_env: the environment variable VOCOBASE_API_KEY is not set, or empty; it has to hold your "
    "Vocobase API key. To try the exporter without one, run: voicelink-exporter demo\n"
)

NO_AUTHORITIES = (
    "can't load the trusted authorities: (No such file or directory|no usable certificate in it); "
    "see SSL_CERT_FILE and SSL_CERT_DIR"
)
NO_PROXIES = "can't use the environment's proxies; see HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
NO_PORT = "'nowhere' is not an address; write HOST:PORT, :PORT or [IPV6]:PORT"
NO_ADDRESS = "'nowhere' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH"


@pytest.fixture(scope="module")
def simulated() -> Iterator[Simulated]:
    """Return a simulator of four DIDs on two connections."""
    with simulating("--dids=4", "--connections=2") as simulator:
        yield simulator


@pytest.fixture
def taken() -> Iterator[int]:
    """Return a port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        yield port


def closed_pipe(*arguments: str, env: dict[str, str]) -> tuple[int, str]:
    """Run a command whose reader is gone; return its exit code and standard error."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [*PRODUCT, *arguments],
            env=environment(env) | {"PYTHONUNBUFFERED": ""},
            cwd="/",
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=20,
            check=False,
        )
    finally:
        os.close(writer)
    assert_clean(done.stderr)
    return done.returncode, done.stderr


def test_version() -> None:
    done = run("--version")
    assert (done.code, done.out, done.err) == (0, f"voicelink-exporter {__version__}\n", "")


def test_help_lists_the_commands() -> None:
    done = run("--help")
    assert (done.code, done.err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^    {command}\s+\S", done.out, re.MULTILINE)
    assert "Exit codes: 0 fine, 1 the answer is no, 2 it could not be done." in " ".join(done.out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(command: str) -> None:
    done = run(command, "--help", env={"COLUMNS": "200"})
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"usage: voicelink-exporter {command} ")
    for flag in ("--config.file FILE", "--log.level {debug,info,warn,error}", "--log.format {logfmt,json}"):
        assert flag in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nonsense"], "voicelink-exporter: error: unrecognized arguments: --nonsense\n"),
        (["poll", "--output", "xml"], "error: argument --output: invalid choice: 'xml' (choose from"),
        (["serve", "--log.level", "loud"], "error: argument --log.level: invalid choice: 'loud' (choose from"),
        (["serve", "--web.listen-address"], "error: argument --web.listen-address: expected one argument\n"),
        (["swerve"], "error: argument COMMAND: invalid choice: 'swerve' (choose from"),
        (["simulate", "--dids=-1"], "error: argument --dids: dids must be from 0 to 1,000,000, not -1\n"),
        (["simulate", "--fault=quake"], "error: argument --fault: "),
    ],
)
def test_a_wrong_command_line_is_refused(arguments: list[str], said: str) -> None:
    done = run(*arguments, env=WITH_KEY)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("usage: voicelink-exporter ")
    assert said in done.err


@pytest.mark.parametrize("command", ["serve", "poll", "check-config", "simulate", "demo"])
def test_a_wrong_value_in_the_environment_is_refused(command: str) -> None:
    done = run(command, env={**WITH_KEY, "VOICELINK_LOG_LEVEL": "loud", "VOICELINK_LOG_FORMAT": "xml"})
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "VOICELINK_LOG_LEVEL: has to be one of debug, info, warn, error, not 'loud'\n"
        "VOICELINK_LOG_FORMAT: has to be one of logfmt, json, not 'xml'\n"
    )


def test_a_flag_wins_over_the_environment() -> None:
    env = {**WITH_KEY, "VOICELINK_LOG_LEVEL": "loud", "VOICELINK_LOG_FORMAT": "", "STATE_DIRECTORY": "/none"}
    done = run("check-config", "--log.level=debug", env=env)
    assert (done.code, done.out, done.err) == (0, VALID, "")


def test_check_config_of_a_valid_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("accounts: [{name: a, api_key_env: VOCOBASE_API_KEY}]\npoll: {interval: 30s}\n")
    done = run("check-config", f"--config.file={file}", env={**WITH_KEY, "STATE_DIRECTORY": "/none"})
    assert (done.code, done.out, done.err) == (0, VALID, "")


def test_check_config_names_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(
        "pol: {}\npoll: {interval: 30, jitter: 1x}\naccounts: [{api_key_env: A, dids: [{did_number: maybe}]}]\n"
        "web: {listen_address: nowhere}\n"
    )
    done = run("check-config", f"--config.file={file}")
    assert (done.code, done.err) == (1, "")
    assert sorted(done.out.splitlines()) == [
        'accounts[0].dids[0].did_number: is not a phone number; write it with its country code, as "+918011223344"',
        "pol: unknown key; did you mean poll?",
        "poll.interval: a duration needs a unit; write one as 30s, 5m or 1h30m",
        "poll.jitter: '1x' is not a duration; write one as 30s, 5m or 1h30m",
        "web.listen_address: 'nowhere' is not an address; write HOST:PORT, :PORT, [IPV6]:PORT or unix:/PATH",
    ]


def test_check_config_names_what_is_most_likely_a_mistake() -> None:
    done = run("check-config", env={"VOCOBASE_API_KEY": "hello", "VOICELINK_POLL_INTERVALL": "5s"})
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines() == [
        "VOICELINK_POLL_INTERVALL: no setting has this name; is VOICELINK_POLL_INTERVAL meant?",
        "accounts[0].api_key_env: the key does not begin with rg_live_, as Vocobase's do",
    ]


def test_the_demo_says_what_to_open() -> None:
    with serving("--web.listen-address=127.0.0.1:0", env={}, command="demo") as demo:
        until(lambda: f"open http://127.0.0.1:{demo.port} in a browser" in demo.process.out, "it says what to open")
        assert "travels in the clear" not in demo.process.err


def test_check_config_of_no_file(tmp_path: Path) -> None:
    done = run("check-config", f"--config.file={tmp_path}/none.yml")
    assert (done.code, done.out) == (1, f"{tmp_path}/none.yml: can't be read: No such file or directory\n")


def test_the_file_may_come_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("poll: {interval: 0s}\n")
    done = run("check-config", env={**WITH_KEY, "VOICELINK_CONFIG_FILE": str(file)})
    assert (done.code, done.out) == (1, "poll.interval: has to be longer than zero\n")


def test_config_schema_is_the_one_that_is_shipped() -> None:
    done = run("config-schema")
    assert (done.code, done.err) == (0, "")
    assert done.out == (ROOT / "config" / "voicelink-exporter.schema.json").read_text()


@pytest.mark.parametrize("arguments", [[], ["serve"], ["poll"], ["--web.listen-address=127.0.0.1:0"]])
def test_without_a_key_it_says_so(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.code, done.out, done.err) == (2, "", NO_KEY)


@pytest.mark.parametrize(
    ("command", "flag", "name"),
    [
        ("serve", "--web.listen-address", "web.listen_address"),
        ("demo", "--web.listen-address", "web.listen_address"),
        ("simulate", "--listen", "--listen"),
    ],
)
def test_a_port_in_use_is_named(command: str, flag: str, name: str, taken: int) -> None:
    done = run(command, f"{flag}=127.0.0.1:{taken}", env=WITH_KEY)
    assert (done.code, done.out) == (2, "")
    said = f"voicelink-exporter: {name}: can't listen on 127.0.0.1:{taken}: Address already in use\n"
    assert done.err.endswith(said)
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("command", [["serve", "--web.listen-address=127.0.0.1:0"], ["poll"], ["heal", "plan"]])
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("SSL_CERT_FILE", "/none/hidden.pem", NO_AUTHORITIES),
        ("SSL_CERT_FILE", os.devnull, NO_AUTHORITIES),
        ("HTTP_PROXY", "socks5://me:hidden@proxy:1080", NO_PROXIES),
        ("ALL_PROXY", "gopher://me:hidden@proxy", NO_PROXIES),
        ("NO_PROXY", "fe80::/10", NO_PROXIES),
    ],
)
def test_an_environment_that_can_not_be_used_is_named(
    command: list[str], name: str, value: str, said: str, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/store.db"
    done = run(*command, env={**WITH_KEY, "VOICELINK_STORE_URL": store, name: value})
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(f"voicelink-exporter: {said}\n", done.err)


@pytest.mark.parametrize(
    ("command", "flag", "said"), [("simulate", "--listen", NO_PORT), ("demo", "--web.listen-address", NO_ADDRESS)]
)
def test_an_address_that_is_none_is_refused(command: str, flag: str, said: str) -> None:
    done = run(command, f"{flag}=nowhere")
    assert (done.code, done.out, done.err) == (2, "", f"voicelink-exporter: {flag}: {said}\n")


def test_serve_refuses_an_address_that_is_none() -> None:
    done = run("serve", "--web.listen-address=nowhere", env=WITH_KEY)
    assert (done.code, done.err) == (2, f"web.listen_address: {NO_ADDRESS} (from the command line)\n")


def test_simulate_refuses_an_empty_key() -> None:
    done = run("simulate", "--listen=127.0.0.1:0", "--api-key=")
    assert (done.code, done.err) == (2, "voicelink-exporter: api_keys must not be empty strings\n")


def test_no_command_means_serve(simulated: Simulated) -> None:
    with product(env=simulated.env) as process:
        process.until_said("msg=polled")
        process.send(signal.SIGTERM)
        assert process.wait() == 0
        assert process.out == ""


def test_serve_logs_json(simulated: Simulated) -> None:
    with product("serve", "--log.format=json", env=simulated.env) as process:
        process.until_said('"msg": "polled"')
    lines = [json.loads(line) for line in process.err.splitlines()]
    assert {"started", "target found", "polled", "stopped"} <= {line["msg"] for line in lines}
    assert all(line["ts"].endswith("Z") and line["level"] in {"info", "warn"} for line in lines)


def test_serve_warns_of_a_variable_that_means_nothing(simulated: Simulated) -> None:
    with product("--log.level=warn", env={**simulated.env, "VOICELINK_POL_INTERVAL": "1s"}) as process:
        process.until_said('level=warn msg="an environment variable means nothing.*" variable=VOICELINK_POL_INTERVAL')
    assert "level=info" not in process.err


class TestPoll:
    def test_all_ready(self, simulated: Simulated) -> None:
        done = run("poll", env=simulated.env)
        assert done.code == 0
        first, second = sorted({each["connection_id"] for each in simulated.control("GET", "fleet")["connections"]})
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.out.splitlines() if "│" in line]
        assert [row[:4] for row in rows] == sorted(
            ["default", truth["connection_id"], number, "READY"]
            for number, truth in simulated.control("GET", "fleet")["dids"].items()
        )
        assert {row[1] for row in rows} == {first, second}
        assert "\x1b" not in done.out

    def test_some_not(self, simulated: Simulated) -> None:
        simulated.set_did("+918011223345", issues=["NO_BOT", "ROUTING_MISSING"])
        done = run("poll", "--log.level=error", env=simulated.env)
        (row,) = (line for line in done.out.splitlines() if "+918011223345" in line)
        simulated.set_did("+918011223345", issues=[])
        assert (done.code, done.err) == (1, "")
        assert [cell.strip() for cell in row.split("│")[3:6]] == ["+918011223345", "NO_BOT", "NO_BOT ROUTING_MISSING"]

    def test_json(self, simulated: Simulated) -> None:
        simulated.set_did("+918011223344", issues=["NO_BOT"])
        done = run("poll", "--output=json", env=simulated.env)
        truth = simulated.control("GET", "fleet")["dids"]
        simulated.set_did("+918011223344", issues=[])
        assert done.code == 1
        shown = {each["phone_number"]: each for each in json.loads(done.out)}
        assert shown.keys() == truth.keys()
        for number, each in shown.items():
            assert each["ready"] is (number != "+918011223344")
            for key in ("state", "issues", "did_id", "client_id"):
                assert each[key] == truth[number][key]

    def test_a_failing_api(self, simulated: Simulated) -> None:
        simulated.add_fault("status:sync:status=401")
        done = run("poll", env=simulated.env)
        simulated.clear_faults()
        assert done.code == 2
        assert done.err.count("level=warn") == 2
        assert 'msg="poll failed" reason=auth error="the API refuses (401 UNAUTHORIZED)"' in done.err

    def test_one_connection_of_two_failing_is_not_known_rather_than_not_ready(self, simulated: Simulated) -> None:
        connection = simulated.control("GET", "fleet")["connections"][1]["connection_id"]
        simulated.add_fault(f"status:sync:status=403,connection={connection}")
        done = run("poll", "--output=json", env=simulated.env)
        simulated.clear_faults()
        assert done.code == 2
        assert {each["connection"] for each in json.loads(done.out)}.isdisjoint({connection})
        assert len(json.loads(done.out)) == 2

    def test_no_api(self) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # nobody listens there
            url = f"http://127.0.0.1:{unused.getsockname()[1]}"
            done = run("poll", "--output=json", env={**WITH_KEY, "VOICELINK_API_BASE_URL": url})
        assert (done.code, done.out) == (2, "[]\n")
        assert 'error="no connection to 127.0.0.1: refused"' in done.err

    def test_markup_and_control_characters_stay_text(self, simulated: Simulated) -> None:
        name = "[red]x[/red] \x1b[2J\x07 a\nb\u202e │"
        simulated.set_did("+918011223344", friendly_name=name)
        table, as_json = run("poll", env=simulated.env), run("poll", "--output=json", env=simulated.env)
        simulated.set_did("+918011223344", friendly_name="Line 1")
        assert "[red]x[/red] \ufffd[2J\ufffd a\ufffdb\ufffd │" in table.out
        assert not {"\x1b", "\x07", "\u202e"} & set(table.out)
        assert table.code == 0
        (shown,) = (each for each in json.loads(as_json.out) if each["phone_number"] == "+918011223344")
        assert shown["friendly_name"].startswith("[red]x[/red]")

    def test_it_writes_nothing(self, simulated: Simulated) -> None:
        assert simulated.control("GET", "journal")["writes"] == {"syncs": 0, "imports": 0, "heals": 0}

    @pytest.mark.parametrize("output", ["table", "json"])
    def test_a_reader_that_went_away(self, simulated: Simulated, output: str) -> None:
        code, err = closed_pipe("poll", f"--output={output}", "--log.level=error", env=simulated.env)
        assert (code, err) == (2, "")

    def test_ctrl_c(self, simulated: Simulated) -> None:
        simulated.add_fault("hang:sync")
        with product("poll", env=simulated.env) as process:
            before = len(simulated.requests("sync"))
            until(lambda: len(simulated.requests("sync")) > before, "it polls")
            process.send(signal.SIGINT)
            code = process.wait()
        simulated.clear_faults()
        assert (code, process.out) == (2, "")


@pytest.mark.parametrize("command", ["config-schema", "check-config"])
def test_a_reader_that_went_away(command: str) -> None:
    assert closed_pipe(command, env=WITH_KEY) == (2, "")


class TestHealthcheck:
    def test_healthy(self, simulated: Simulated, tmp_path: Path) -> None:
        with serving(env=simulated.env) as exporter:
            address = f"127.0.0.1:{exporter.port}"
            file = tmp_path / "config.yml"
            file.write_text(f'web: {{listen_address: "{address}"}}\n')
            by_flag = run("healthcheck", f"--web.listen-address={address}")
            by_variable = run("healthcheck", env={"VOICELINK_WEB_LISTEN_ADDRESS": f"0.0.0.0:{exporter.port}"})
            by_file = run("healthcheck", f"--config.file={file}", env=WITH_KEY)
        for done in (by_flag, by_variable, by_file):
            assert (done.code, done.out, done.err) == (0, "", "")

    @pytest.mark.parametrize("host", ["127.0.0.1", "", "a..b", "nowhere.invalid"])
    def test_nobody_there(self, host: str) -> None:
        done = run("healthcheck", f"--web.listen-address={host}:1")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"voicelink-exporter: not healthy at {host}:1: ")
        assert done.err.endswith(". If the daemon listens elsewhere, name it with --web.listen-address\n")
        assert host != "127.0.0.1" or "no connection: Connection refused" in done.err

    def test_somebody_else_there(self, simulated: Simulated) -> None:
        done = run("healthcheck", f"--web.listen-address=127.0.0.1:{simulated.port}")
        assert done.code == 1
        assert "what answers there says 401, which an exporter would not" in done.err

    def test_somebody_there_who_says_nothing(self, taken: int) -> None:
        done = run("healthcheck", f"--web.listen-address=127.0.0.1:{taken}")
        assert done.code == 1
        assert "nothing answers within 3 s" in done.err

    def test_no_address(self) -> None:
        done = run("healthcheck", "--web.listen-address=nowhere")
        assert (done.code, done.err) == (2, f"voicelink-exporter: web.listen_address: {NO_ADDRESS}\n")

    def test_no_configuration(self, tmp_path: Path) -> None:
        assert run("healthcheck", f"--config.file={tmp_path}/none.yml").code == 2
