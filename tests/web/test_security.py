"""The web configuration file in force: read again when it or what it names changes, whole or not at all."""

from __future__ import annotations

import base64
import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from exporter.clock import SystemClock
from exporter.config.web_file import CURVES, TLS12_SUITES, TLS13_SUITES, TlsServer
from exporter.errors import ConfigError
from exporter.logs import SUMMARY_EVERY
from exporter.web.security import Security
from exporter.web.tls import Context, build_context, names_of
from tests.support.certificates import authority, hashed, issue, write_authority
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.clock import Clock

PAIR = "cert_file: server.crt, key_file: server.key"
TLS = f"tls_server_config: {{{PAIR}}}\n"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Security]]:
    """Return what writes a web configuration beside a certificate and opens it."""
    issue(tmp_path, "server")
    made: list[Security] = []

    def begin(text: str, clock: Clock | None = None) -> Security:
        (tmp_path / "web.yml").write_text(text)
        made.append(Security(tmp_path / "web.yml", clock or SystemClock()))
        return made[-1]

    yield begin
    for security in made:
        security.close()


def problems(opened: Callable[..., Security], text: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        opened(text)
    return [problem.removeprefix(f"{folder}/web.yml: ") for problem in caught.value.problems]


async def lets_in(security: Security, password: str) -> bool:
    assert security.rules.users
    return True is await security.rules.users.may_enter(b"Basic " + base64.b64encode(f"alice:{password}".encode()))


def user(password: str) -> str:
    return f"basic_auth_users: {{alice: {hashed(password)}}}\n"


async def test_without_a_file_everybody_may_ask_in_the_clear() -> None:
    security, told = Security(None, SystemClock()), list[bool]()
    security.report_to(told.append)
    security.reread()
    await security.look()
    security.close()
    assert (security.rules.users, security.rules.bucket, security.server_options, told) == (None, None, {}, [])


def test_every_file_that_is_wrong_is_named_at_once(opened: Callable[..., Security], tmp_path: Path) -> None:
    (tmp_path / "empty.crt").write_text("nothing\n")
    (tmp_path / "binary.key").write_bytes(bytes(range(256)))
    told = problems(
        opened,
        "tls_server_config: {cert_file: empty.crt, key_file: binary.key, client_ca_file: none.crt, "
        "client_auth_type: RequireAndVerifyClientCert}\n",
        tmp_path,
    )
    assert told == [
        f"tls_server_config.client_ca_file: {tmp_path}/none.crt can't be read: No such file or directory",
        "tls_server_config.cert_file: holds no certificate in PEM form",
        "tls_server_config.key_file: holds no private key in PEM form",
    ]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("cert_file: '.', key_file: server.key", "cert_file: {folder} can't be read: Is a directory"),
        ('cert_file: "a\\0b", key_file: server.key', "cert_file: {folder}/a\0b is no name that a file can have"),
        ("cert_file: server.crt, key_file: other.key", "key_file: is not the key of the certificate"),
        ("cert_file: server.crt, key_file: rsa.key", "key_file: is not the key of the certificate"),
        (
            "cert_file: server.crt, key_file: locked.key",
            "key_file: is encrypted, and nobody is there to ask for the passphrase; decrypt it",
        ),
        ("cert_file: server.crt, key_file: broken.key", "key_file: can't be used"),
        ("cert_file: huge.crt, key_file: server.key", "cert_file: {folder}/huge.crt is longer than 4194304 bytes"),
        ("cert: x, key_file: server.key", "cert: holds no certificate in PEM form"),
        (
            f"{PAIR}, client_ca: x, client_auth_type: RequireAndVerifyClientCert",
            "client_ca: holds no certificate in PEM form",
        ),
    ],
)
def test_what_can_not_be_used_is_named(opened: Callable[..., Security], tmp_path: Path, names: str, told: str) -> None:
    issue(tmp_path, "other")
    key = load_pem_private_key((tmp_path / "server.key").read_bytes(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    (tmp_path / "locked.key").write_bytes(locked)
    (tmp_path / "broken.key").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (tmp_path / "huge.crt").write_bytes(b"x" * 4_194_305)
    rsa = authority().issue_cert("localhost", key_type=trustme.KeyType.RSA)
    rsa.private_key_pem.write_to_path(str(tmp_path / "rsa.key"))
    (problem,) = problems(opened, f"tls_server_config: {{{names}}}\n", tmp_path)
    assert problem == f"tls_server_config.{told.format(folder=tmp_path)}"


def test_certificate_and_key_may_stand_in_the_file(opened: Callable[..., Security], tmp_path: Path) -> None:
    cert, key = ((tmp_path / f"server.{end}").read_text() for end in ("crt", "key"))
    indented = [text.replace("\n", "\n    ") for text in (cert, key)]
    security = opened(f"tls_server_config:\n  cert: |\n    {indented[0]}\n  key: |\n    {indented[1]}\n")
    assert security.server_options


def test_certificate_and_key_may_be_one_file(opened: Callable[..., Security], tmp_path: Path) -> None:
    both = [(tmp_path / f"server.{end}").read_text() for end in ("key", "crt")]
    (tmp_path / "both.pem").write_text("".join(both))
    assert opened("tls_server_config: {cert_file: both.pem, key_file: both.pem}\n").server_options


def test_names_of_files_are_relative_to_the_folder_of_the_file(
    opened: Callable[..., Security], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    opened(TLS)
    monkeypatch.chdir(tmp_path)
    opened(f"tls_server_config: {{cert_file: {tmp_path}/server.crt, key_file: {tmp_path}/server.key}}\n")
    Security(tmp_path / "web.yml", SystemClock()).close()


async def test_users_change_without_a_restart(opened: Callable[..., Security], tmp_path: Path) -> None:
    security = opened(user("old"))
    assert await lets_in(security, "old")
    (tmp_path / "web.yml").write_text(user("new"))
    await security.look()
    assert await lets_in(security, "new")
    assert not await lets_in(security, "old")


async def test_what_did_not_change_is_not_read_again(opened: Callable[..., Security]) -> None:
    security = opened(TLS + user("old"))
    before = security.rules
    for _ in range(3):
        await security.look()
    assert security.rules is before
    security.reread()
    assert security.rules is not before


@pytest.mark.parametrize("name", ["server.crt", "server.key", "authority-one.crt", "web.yml"])
async def test_each_file_is_looked_at(opened: Callable[..., Security], tmp_path: Path, name: str) -> None:
    write_authority(tmp_path)
    security = opened(
        f"tls_server_config: {{{PAIR}, client_ca_file: authority-one.crt, client_auth_type: VerifyClientCertIfGiven}}\n"
    )
    before = security.rules
    file = tmp_path / name
    swapped = tmp_path / "swapped"
    swapped.write_bytes(file.read_bytes())
    os.utime(swapped, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    swapped.rename(file)  # the same to the byte and the moment: as a secret of Kubernetes it is another file
    await security.look()
    assert security.rules is not before


async def test_a_broken_file_leaves_what_was_and_says_so_once(opened: Callable[..., Security], tmp_path: Path) -> None:
    clock, told = ManualClock(), list[bool]()
    security = opened(TLS + user("old"), clock)
    security.report_to(told.append)
    with capture_logs() as logs:
        (tmp_path / "web.yml").write_text(TLS + "basic_auth_users: {alice: Canary}\n")
        for _ in range(3):
            await security.look()
        assert await lets_in(security, "old")
        assert told == [True, False]
        (failure,) = logs
        assert "web.yml: basic_auth_users.alice: is not a bcrypt hash" in failure["reason"]
        (tmp_path / "web.yml").write_text(TLS + user("old") + "more: 1\n")
        await security.look()
        assert "more: unknown key" in logs[-1]["reason"]
        await clock.advance(SUMMARY_EVERY)
        await security.look()
        assert logs[-1]["event"] == "reading the web configuration keeps failing"
        (tmp_path / "web.yml").write_text(TLS + user("new"))
        await security.look()
    assert [each["event"] for each in logs[-2:]] == [
        "reading the web configuration works again",
        "the web configuration was read again",
    ]
    assert await lets_in(security, "new")
    assert told == [True, False, False, True]
    assert "Canary" not in str(logs)


async def test_a_pair_that_is_half_written_is_waited_for(opened: Callable[..., Security], tmp_path: Path) -> None:
    security, told = opened(TLS), list[bool]()
    security.report_to(told.append)
    new = issue(tmp_path, "new")
    new.cert.rename(tmp_path / "server.crt")
    await security.look()
    assert told == [True, False]
    new.key.rename(tmp_path / "server.key")
    await security.look()
    assert told == [True, False, True]


async def test_a_file_that_went_away_and_came_back_is_read_again(
    opened: Callable[..., Security], tmp_path: Path
) -> None:
    security, told = opened(TLS), list[bool]()
    security.report_to(told.append)
    kept = (tmp_path / "server.key").rename(tmp_path / "kept")
    await security.look()
    kept.rename(tmp_path / "server.key")
    await security.look()
    assert told == [True, False, True]


@pytest.mark.parametrize(("first", "second"), [(TLS, ""), ("", TLS)])
async def test_encryption_is_not_switched_while_it_runs(
    opened: Callable[..., Security], tmp_path: Path, first: str, second: str
) -> None:
    security = opened(first + user("old"))
    (tmp_path / "web.yml").write_text(second + user("new"))
    with pytest.raises(ConfigError) as caught:
        security.reread()
    assert caught.value.problems == (
        f"{tmp_path}/web.yml: tls_server_config: can't be switched on or off while the exporter runs; restart it",
    )
    assert await lets_in(security, "old")


def test_a_change_elsewhere_does_not_refill_the_rate_limit(opened: Callable[..., Security], tmp_path: Path) -> None:
    limit = "rate_limit: {interval: 1m, burst: 2}\n"
    security = opened(limit)
    bucket = security.rules.bucket
    (tmp_path / "web.yml").write_text(limit + user("new"))
    security.reread()
    assert security.rules.bucket is bucket
    (tmp_path / "web.yml").write_text("rate_limit: {interval: 1m, burst: 3}\n")
    security.reread()
    assert security.rules.bucket is not bucket
    (tmp_path / "web.yml").write_text("rate_limit: {interval: 0s, burst: 3}\n")
    security.reread()
    assert security.rules.bucket is None


def built(tmp_path: Path, **said: Any) -> Context:  # noqa: ANN401 - any key of the section
    pair = issue(tmp_path, "server")
    tls = TlsServer.model_validate({"cert_file": "x", "key_file": "y", **said})
    context, found = build_context(tls, {"cert": pair.cert.read_text(), "key": pair.key.read_text()})
    assert found == []
    return context


def test_versions_are_those_that_are_asked_for(tmp_path: Path) -> None:
    context = built(tmp_path)
    assert (context.minimum_version, context.maximum_version) == (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    context = built(tmp_path, min_version="TLS13")
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    context = built(tmp_path, max_version="TLS12")
    assert context.maximum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("name", TLS12_SUITES)
def test_each_suite_is_offered_alone(tmp_path: Path, name: str) -> None:
    offered = [suite["name"] for suite in built(tmp_path, cipher_suites=[name]).get_ciphers()]
    assert [each for each in offered if each not in TLS13_SUITES] == [TLS12_SUITES[name]]


def test_the_order_of_suites_is_the_servers_unless_it_is_not_to_be(tmp_path: Path) -> None:
    names = list(TLS12_SUITES)[::-1]
    offered = [suite["name"] for suite in built(tmp_path, cipher_suites=names).get_ciphers()]
    assert [each for each in offered if each not in TLS13_SUITES] == [TLS12_SUITES[name] for name in names]
    assert built(tmp_path).options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert not built(tmp_path, prefer_server_cipher_suites=False).options & ssl.OP_CIPHER_SERVER_PREFERENCE


@pytest.mark.parametrize("curve", CURVES)
def test_each_curve_can_be_set(tmp_path: Path, curve: str) -> None:
    assert built(tmp_path, curve_preferences=[curve]).get_ciphers()


def test_the_names_of_a_certificate_are_of_every_kind() -> None:
    certificate = {
        "subject": ((("commonName", "not.this"),),),
        "subjectAltName": (
            ("DNS", "a.example"),
            ("IP Address", "192.0.2.1"),
            ("IP Address", "2001:DB8:0:0:0:0:0:1"),
            ("email", "a@b.example"),
            ("URI", "spiffe://x/y"),
            ("DirName", ((("commonName", "nor.this"),),)),
        ),
    }
    assert names_of(certificate) == {"a.example", "192.0.2.1", "2001:db8::1", "a@b.example", "spiffe://x/y"}
    assert names_of({}) == frozenset()
