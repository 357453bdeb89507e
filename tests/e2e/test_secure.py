"""TLS, client certificates and passwords as people use them: a real process, real curl, a real Prometheus."""

from __future__ import annotations

import re
import ssl
import threading
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_prometheus import api, free_port, until_value, value
from tests.support.certificates import Pair, hashed, issue, write_authority
from tests.support.curl import Got, curl
from tests.support.http import connect, read_reply, sample
from tests.support.processes import KEY, Running, product, program, run, serving, simulating, until
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.processes import Simulated

pytestmark = pytest.mark.e2e

PAIR = "cert_file: server.crt, key_file: server.key"
USERS = f"basic_auth_users: {{prometheus: {hashed('secret', 10)}, other: {hashed('secret', 8)}}}\n"
RELOADED = "voicelink_exporter_web_config_last_reload_successful"
NOBODY = {
    "VOCOBASE_API_KEY": KEY,
    "VOICELINK_API_BASE_URL": "http://127.0.0.1:1/api/v2",
}  # no API is needed to be asked


class Secured:
    """An exporter with a web configuration, and the folder that it and its files are in."""

    def __init__(self, process: Running, port: int, folder: Path) -> None:
        self.process = process
        self.port = port
        self.folder = folder
        self.authority = write_authority(folder)

    @property
    def flags(self) -> list[str]:
        """What `healthcheck` has to be told."""
        return [f"--web.config.file={self.folder}/web.yml", f"--web.listen-address=127.0.0.1:{self.port}"]

    def get(self, path: str, *flags: str | Path, scheme: str = "https") -> Got:
        return curl(f"{scheme}://127.0.0.1:{self.port}{path}", "--cacert", self.authority, *flags)

    def write(self, text: str) -> None:
        """Replace the file in one step, as careful people do."""
        write(self.folder, text)

    def reloaded(self, *flags: str | Path) -> float | None:
        return sample(self.get("/metrics", *flags).text, RELOADED)


def write(folder: Path, text: str) -> Path:
    (folder / "new.yml").write_text(text)
    return (folder / "new.yml").replace(folder / "web.yml")


@contextmanager
def secured(folder: Path, text: str, env: dict[str, str] | None = None) -> Iterator[Secured]:
    """Serve with a web configuration; what is logged never has a password or a hash in it."""
    issue(folder, "server")
    file = write(folder, text)
    env = {"VOICELINK_WEB_LISTEN_ADDRESS": "127.0.0.1:0", **(env or NOBODY)}
    with serving(f"--web.config.file={file}", env=env) as served:
        yield Secured(served.process, served.port, folder)
        said = served.process.err + served.process.out
        assert "$2b$" not in said
        assert "secret" not in said


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulated]:
    """Return an API with six numbers."""
    with simulating("--dids=6", "--connections=2") as simulator:
        yield simulator


def client(folder: Path, name: str, *names: str, by: str = "one") -> list[str | Path]:
    """Return curl's flags for a certificate with these names."""
    pair: Pair = issue(folder, name, *names, by=by)
    return ["--cert", pair.cert, "--key", pair.key]


def test_passwords_over_tls(tmp_path: Path) -> None:
    with secured(tmp_path, f"tls_server_config: {{{PAIR}}}\n{USERS}") as web:
        right = web.get("/metrics", "--user", "prometheus:secret")
        assert (right.status, right.headers["cache-control"]) == (200, "private, no-cache")
        assert web.get("/metrics", "--user", "other:secret").status == 200
        for flags in (
            [],
            ["--user", "prometheus:wrong"],
            ["--user", "prometheus:"],
            ["--user", "nobody:secret"],
            ["--user", ":secret"],
            ["--user", "prometheus:secret "],
            ["--header", "Authorization: Bearer secret"],
            ["--header", "Authorization: Basic !"],
            ["--header", "Authorization: Basic cHJvbWV0aGV1cw=="],
        ):
            for path in ("/metrics", "/nothing"):
                refused = web.get(path, *flags)
                assert (refused.status, refused.text) == (401, "Unauthorized: a user and password are needed.\n")
                assert refused.headers["www-authenticate"].startswith("Basic realm=")
                assert refused.headers["x-content-type-options"] == "nosniff"
        for path in ("/-/healthy", "/-/ready"):
            assert web.get(path).status in (200, 503)
            assert web.get(path, "--user", "prometheus:wrong").status in (200, 503)
        assert web.get("/-/healthy/", "--path-as-is").status == 401
        assert web.get("/-/healthy/../../metrics", "--path-as-is").status == 401
        assert web.reloaded("--user", "prometheus:secret") == 1
        assert web.get("/-/healthy", scheme="http").status == 0


def test_crafted_users_and_passwords_open_nothing(tmp_path: Path) -> None:
    users = f"basic_auth_users: {{a: {hashed('b:c')}, ab: {hashed('other')}}}\n"
    with secured(tmp_path, users) as web:
        assert web.get("/metrics", "--user", "a:b:c", scheme="http").status == 200
        for crafted in ("ab:c", "ab::c", "a:b", "a:bc", "a:b:", "a:b:cc", ":a:b:c", "a::b:c", f"a{hashed('b:c')}:x"):
            assert web.get("/metrics", "--user", crafted, scheme="http").status == 401
        assert web.get("/metrics", "--user", "a:b:c", scheme="http").status == 200


def test_an_unknown_user_takes_as_long_as_a_wrong_password(tmp_path: Path) -> None:
    """With all hashes of one cost. That costs differ by chance alone is shown where the work is counted."""
    users = f"basic_auth_users: {{prometheus: {hashed('secret', 10)}}}\n"

    def took(sent: str) -> float:
        line = f"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {sent}\r\n\r\n".encode()
        started = perf_counter()
        sock.sendall(line)
        assert read_reply(stream).status == 401
        return perf_counter() - started

    with secured(tmp_path, users) as web, connect(web.port) as sock, sock.makefile("rb") as stream:
        known, unknown, none = [], [], []
        for _ in range(9):  # in turns, so that what else the machine does strikes all
            known.append(took("cHJvbWV0aGV1czp3cm9uZw=="))
            unknown.append(took("bm9ib2R5OndyaXRl"))
            none.append(took("!"))
    assert 0.5 < median(known) / median(unknown) < 2
    assert median(none) < median(known) / 5


def test_wrong_passwords_do_not_hold_up_scrapes(tmp_path: Path) -> None:
    users = f"basic_auth_users: {{prometheus: {hashed('secret', 11)}}}\n"
    done = threading.Event()
    answers: list[int] = []

    def flood() -> None:
        number = 0
        while not done.is_set():
            with connect(web.port) as sock, sock.makefile("rb") as stream:
                number += 1
                sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTp3cm9uZw==\r\n\r\n")
                answers.append(read_reply(stream).status)

    with secured(tmp_path, users) as web:
        assert web.get("/metrics", "--user", "prometheus:secret", scheme="http").status == 200
        threads = [threading.Thread(target=flood) for _ in range(30)]
        for thread in threads:
            thread.start()
        until(lambda: 503 in answers, "too many passwords wait")
        took = []
        for _ in range(5):
            started = perf_counter()
            assert web.get("/metrics", "--user", "prometheus:secret", scheme="http").status == 200
            took.append(perf_counter() - started)
        done.set()
        for thread in threads:
            thread.join()
    assert set(answers) == {401, 503}
    assert median(took) < 1


def test_client_certificates(tmp_path: Path) -> None:
    authority = write_authority(tmp_path)
    required = (
        f"tls_server_config: {{{PAIR}, client_auth_type: RequireAndVerifyClientCert, client_ca_file: {authority.name}, "
        "client_allowed_sans: [prometheus.example, 'spiffe://cluster/prometheus', 192.0.2.7]}\n"
    )
    with secured(tmp_path, required) as web:
        for allowed in ("prometheus.example", "192.0.2.7"):
            assert web.get("/-/healthy", *client(tmp_path, "allowed", "extra.example", allowed)).status == 200
        for version in (["--tlsv1.3"], ["--tls-max", "1.2"]):
            for flags in (
                client(tmp_path, "other", "other.example"),
                client(tmp_path, "below", "x.prometheus.example"),
                client(tmp_path, "foreign", "prometheus.example", by="two"),
            ):
                assert web.get("/-/healthy", *version, *flags).status == 0
            none = web.get("/-/healthy", *version)
            assert none.status == 0
            assert re.search("alert certificate required|alert handshake failure", none.error)
        asked = run(
            "healthcheck", f"--web.config.file={tmp_path}/web.yml", f"--web.listen-address=127.0.0.1:{web.port}"
        )
        assert (asked.code, asked.err) == (0, "")


def test_client_certificates_that_are_not_required(tmp_path: Path) -> None:
    authority = write_authority(tmp_path)
    text = f"tls_server_config: {{{PAIR}, client_auth_type: VerifyClientCertIfGiven, client_ca_file: {authority.name}"
    with secured(tmp_path, f"{text}, client_allowed_sans: [prometheus.example]}}\n{USERS}") as web:
        assert web.get("/-/healthy").status == 200
        assert web.get("/metrics", *client(tmp_path, "allowed", "prometheus.example")).status == 401
        assert web.get("/-/healthy", *client(tmp_path, "other", "other.example")).status == 0
        assert web.get("/-/healthy", *client(tmp_path, "foreign", "prometheus.example", by="two")).status == 0


def test_versions_suites_curves_and_headers_hold_and_change_while_it_runs(tmp_path: Path) -> None:
    header = "http_server_config: {headers: {Strict-Transport-Security: max-age=60, X-Frame-Options: deny}}\n"
    with secured(tmp_path, f"tls_server_config: {{{PAIR}, min_version: TLS13}}\n{header}") as web:
        new = web.get("/-/healthy", "--tlsv1.3")
        assert (new.headers["strict-transport-security"], new.headers["x-frame-options"]) == ("max-age=60", "deny")
        old = web.get("/-/healthy", "--tls-max", "1.2")
        assert old.status == 0
        assert "alert protocol version" in old.error
        suite, other = "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256"
        chosen = "cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384], curve_preferences: [CurveP384]"
        web.write(f"tls_server_config: {{{PAIR}, max_version: TLS12, {chosen}}}\n")
        until(lambda: web.get("/-/healthy", "--tls-max", "1.2").status == 200, "TLS 1.2 is spoken")
        assert web.get("/-/healthy", "--tlsv1.3").status == 0
        assert "strict-transport-security" not in web.get("/-/healthy").headers
        assert web.get("/-/healthy", "--ciphers", suite).status == 200
        assert web.get("/-/healthy", "--ciphers", other).status == 0
        assert web.get("/-/healthy", "--curves", "P-256:P-384").status == 200
        assert web.get("/-/healthy", "--curves", "P-256").status == 0


def test_users_change_and_a_broken_file_keeps_them(tmp_path: Path) -> None:
    with secured(tmp_path, f"basic_auth_users: {{a: {hashed('one')}}}\n") as web:
        assert web.get("/metrics", "--user", "a:one", scheme="http").status == 200
        web.write(f"basic_auth_users: {{a: {hashed('two')}, b: {hashed('one')}}}\n")
        until(lambda: web.get("/metrics", "--user", "a:two", scheme="http").status == 200, "the new password holds")
        assert web.get("/metrics", "--user", "a:one", scheme="http").status == 401
        assert web.get("/metrics", "--user", "b:one", scheme="http").status == 200
        web.write("basic_auth_users: {a: secret}\n")
        web.process.until_said('level=warn msg="reading the web configuration failed".*a: is not a bcrypt hash')
        assert web.get("/metrics", "--user", "b:one", scheme="http").status == 200
        until(lambda: sample(web.get("/metrics", "--user", "a:two", scheme="http").text, RELOADED) == 0, "it shows")
        asked = run(
            "healthcheck", f"--web.config.file={tmp_path}/web.yml", f"--web.listen-address=127.0.0.1:{web.port}"
        )
        assert asked.code == 0
        web.write(f"basic_auth_users: {{c: {hashed('one')}}}\n")
        until(lambda: web.get("/metrics", "--user", "c:one", scheme="http").status == 200, "it is read again")
        until(lambda: sample(web.get("/metrics", "--user", "c:one", scheme="http").text, RELOADED) == 1, "it shows")
        assert web.process.err.count("reading the web configuration failed") == 1


def test_certificates_are_exchanged_under_traffic_without_a_failed_request(tmp_path: Path) -> None:
    done, failures, seen = threading.Event(), list[str](), set[bytes | None]()
    context = ssl.create_default_context(cafile=str(write_authority(tmp_path)))

    def scrape() -> None:
        """Ask on a connection that is kept and on new ones, in turns."""
        with context.wrap_socket(connect(web.port), server_hostname="127.0.0.1") as kept, kept.makefile("rb") as stream:
            while not done.is_set():
                try:
                    kept.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert read_reply(stream).status == 200
                    with context.wrap_socket(connect(web.port), server_hostname="127.0.0.1") as new:
                        seen.add(new.getpeercert(binary_form=True))
                        new.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        assert read_reply(new.makefile("rb")).status == 200
                except (OSError, EOFError, AssertionError) as error:
                    failures.append(repr(error))

    with secured(tmp_path, f"tls_server_config: {{{PAIR}}}\n") as web:
        threads = [threading.Thread(target=scrape) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 3):
            until(lambda expected=number: len(seen) == expected, "the certificate is in use")  # type: ignore[misc]
            pair = issue(tmp_path, "next")
            pair.cert.replace(tmp_path / "server.crt")
            pair.key.replace(tmp_path / "server.key")
        until(lambda: len(seen) == 3, "the last certificate is in use")
        done.set()
        for thread in threads:
            thread.join()
        assert web.reloaded() == 1
    assert failures == []


def test_a_prometheus_scrapes_over_tls_with_a_password_and_a_certificate(tmp_path: Path, simulator: Simulated) -> None:
    prometheus = require("prometheus")
    pair, authority = issue(tmp_path, "prometheus", "prometheus.example"), write_authority(tmp_path)
    text = (
        f"tls_server_config: {{{PAIR}, min_version: TLS13, client_auth_type: RequireAndVerifyClientCert, "
        f"client_ca_file: {authority.name}, client_allowed_sans: [prometheus.example]}}\n{USERS}"
    )
    with secured(tmp_path, text, env={**simulator.env}) as web:
        tls = f"ca_file: {authority}, cert_file: {pair.cert}, key_file: {pair.key}"
        jobs = {
            "right": ("prometheus", "secret", tls),
            "wrong": ("prometheus", "wrong", tls),
            "bare": ("prometheus", "secret", f"ca_file: {authority}"),
        }
        config = "global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n" + "".join(
            f"  - {{job_name: {job}, scheme: https, basic_auth: {{username: {user}, password: {password}}}, "
            f"tls_config: {{{files}}}, static_configs: [{{targets: ['127.0.0.1:{web.port}']}}]}}\n"
            for job, (user, password, files) in jobs.items()
        )
        (tmp_path / "prometheus.yml").write_text(config)
        port = free_port()
        with program(
            prometheus,
            f"--config.file={tmp_path}/prometheus.yml",
            f"--web.listen-address=127.0.0.1:{port}",
            f"--storage.tsdb.path={tmp_path}/data",
        ) as process:
            process.until_said("Server is ready to receive web requests")
            until_value(port, 'count(voicelink_did_ready{job="right"})', 6)
            assert value(port, f'{RELOADED}{{job="right"}}') == 1
            until_value(port, 'up{job="wrong"}', 0)
            until_value(port, 'up{job="bare"}', 0)
            told = {each["labels"]["job"]: each["lastError"] for each in api(port, "targets")["activeTargets"]}
        assert told["right"] == ""
        assert "401 Unauthorized" in told["wrong"]
        assert "certificate required" in told["bare"]


def test_several_addresses_and_a_unix_socket_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "web.sock"
    flags = [
        "--web.listen-address=127.0.0.1:0",
        f"--web.listen-address=unix:{path}",
        "--web.listen-address=127.0.0.2:0",
    ]
    with serving(*flags, env=NOBODY) as served:
        told = served.process.until_said(r'addresses="?(\S+?)"?\s')[1].split(",")
        assert [name.partition(":")[0] for name in told] == ["127.0.0.1", "unix", "127.0.0.2"]
        for name in told:
            if name.startswith("unix:"):
                assert curl("http://x/-/healthy", "--unix-socket", path).status == 200
            else:
                assert curl(f"http://{name}/-/healthy").status == 200
        assert run("healthcheck", env={"VOICELINK_WEB_LISTEN_ADDRESS": f"unix:{path},127.0.0.1:1"}).code == 0
        second = run("serve", f"--web.listen-address=unix:{path}", env=NOBODY)
        assert second.code == 2
        assert second.err.endswith(f"can't listen on unix:{path}: Address already in use\n")
    assert not path.exists()


def test_a_file_that_is_wrong_from_the_start_is_refused_problem_by_problem(tmp_path: Path) -> None:
    file = write(tmp_path, "tls_server_config: {cert_file: none.crt, key: x}\n")
    said = [
        f"{file}: tls_server_config.cert_file: {tmp_path}/none.crt can't be read: No such file or directory",
        f"{file}: tls_server_config.key: holds no private key in PEM form",
    ]
    for command in ("serve", "demo"):
        done = run(command, f"--web.config.file={file}", "--web.listen-address=127.0.0.1:0", env=NOBODY)
        assert (done.code, done.err.splitlines()) == (2, said)
    done = run("check-config", env={**NOBODY, "VOICELINK_WEB_CONFIG_FILE": str(file), "VOICELINK_POLL_INTERVAL": "x"})
    assert (done.code, done.err) == (1, "")
    assert done.out.splitlines()[1:] == said
    assert done.out.startswith("poll.interval: ")


def test_healthcheck_over_tls(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("s") / "web.sock"
    issue(tmp_path, "server", "somebody.else")
    file = write(tmp_path, f"tls_server_config: {{{PAIR}}}\n{USERS}")
    flags = [f"--web.config.file={file}", f"--web.listen-address=unix:{path}"]
    with product("serve", *flags, env=NOBODY) as process:
        process.until_said("msg=started")
        assert run("healthcheck", *flags).code == 0
        assert run("healthcheck", flags[1]).code == 1  # in the clear
        file.write_text("nonsense")
        assert run("healthcheck", *flags).code == 0
