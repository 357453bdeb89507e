"""The web configuration file: what it takes, and each thing that can be wrong with it, to the letter."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from exporter.config.web_file import CURVES, TLS12_SUITES, TLS13_SUITES, WebFile, load_web_file
from exporter.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config" / "web-config.example.yml"
HASH = "$2b$10$nAmM7zfhkF0yi2V5s8kMTeZ3AmWeQ5HLNnCg1xTznPDUj9kE0y3H2"
PAIR = "cert_file: a.crt, key_file: a.key"
NO_HASH = "is not a bcrypt hash; make one with: htpasswd -nBC 10 NAME"
UNVERIFIED = (
    "would take certificates that nobody verified, which is not offered; "
    "write RequireAndVerifyClientCert or VerifyClientCertIfGiven"
)
NO_POLICY = "means nothing without client_auth_type; write RequireAndVerifyClientCert there"
OLD = "TLS 1.0 and 1.1 are broken and not offered; write TLS12 or TLS13"

PROBLEMS: dict[str, tuple[str, ...]] = {
    "[]": ("has to be a mapping of keys to values",),
    "tls: {}": ("tls: unknown key",),
    "tls_server_config: {certfile: a}": ("tls_server_config.certfile: unknown key; did you mean cert_file?",),
    "basic_auth_users:": ("basic_auth_users: has to be a mapping of keys to values",),
    "basic_auth_users: [alice]": ("basic_auth_users: has to be a mapping of keys to values",),
    "basic_auth_users: {alice: Canary}": (f"basic_auth_users.alice: {NO_HASH}",),
    "basic_auth_users: {alice: [Canary]}": ("basic_auth_users.alice: has to be a text",),
    "basic_auth_users: {12: $2b$10$x}": ("basic_auth_users[12]: has to be a text", f"basic_auth_users[12]: {NO_HASH}"),
    f"basic_auth_users: {{{HASH}: alice}}": (f"basic_auth_users.$2…: {NO_HASH}",),
    f"basic_auth_users: {{'a:b': {HASH}}}": (
        "basic_auth_users.a:b: holds a colon, which no client can send in a user's name",
    ),
    f"basic_auth_users: {{a: {HASH.replace('$10', '$31')}}}": (
        "basic_auth_users.a: the cost of a bcrypt hash has to be from 4 to 17",
    ),
    f"basic_auth_users: {{a: {HASH[:28]}9{HASH[29:]}}}": (f"basic_auth_users.a: {NO_HASH}",),
    f"basic_auth_users: {{a: {HASH.replace('$2b', '$2x')}}}": (f"basic_auth_users.a: {NO_HASH}",),
    f"basic_auth_users: {{a: '{HASH} '}}": (f"basic_auth_users.a: {NO_HASH}",),
    "http_server_config: {headers: {X-Foo: bar}}": ("http_server_config.headers.X-Foo: unknown key",),
    "http_server_config: {headers: {content-security-policy: a}}": (
        "http_server_config.headers.content-security-policy: unknown key; did you mean Content-Security-Policy?",
    ),
    "http_server_config: {headers: {X-Frame-Options: maybe}}": (
        "http_server_config.headers.X-Frame-Options: has to be '', 'deny' or 'sameorigin'",
    ),
    'http_server_config: {headers: {Strict-Transport-Security: "a\\r\\nSet-Cookie: b"}}': (
        "http_server_config.headers.Strict-Transport-Security: holds characters that a header can't carry",
    ),
    "http_server_config: {http2: 1}": ("http_server_config.http2: has to be true or false",),
    "rate_limit: {interval: 1}": ("rate_limit.interval: a duration needs a unit; write one as 30s, 5m or 1h30m",),
    "rate_limit: {interval: 1.5s}": ("rate_limit.interval: '1.5s' is not a duration; write one as 30s, 5m or 1h30m",),
    "rate_limit: {interval: 1s}": (
        "rate_limit.burst: is required, and at least 1: without it no request would be answered",
    ),
    "rate_limit: {interval: 1s, burst: -1}": ("rate_limit.burst: has to be greater than or equal to 0",),
    "tls_server_config: {}": (
        "tls_server_config.cert_file: is required, or cert",
        "tls_server_config.key_file: is required, or key",
    ),
    "tls_server_config: {cert_file: a, cert: b, key_file: c, key: d}": (
        "tls_server_config.cert_file: stands beside cert; give one of the two",
        "tls_server_config.key_file: stands beside key; give one of the two",
    ),
    f"tls_server_config: {{{PAIR}, min_version: TLS11, max_version: TLS10}}": (
        f"tls_server_config.min_version: {OLD}",
        f"tls_server_config.max_version: {OLD}",
    ),
    f"tls_server_config: {{{PAIR}, min_version: [TLS12]}}": (
        "tls_server_config.min_version: has to be 'TLS12' or 'TLS13'",
    ),
    f"tls_server_config: {{{PAIR}, min_version: TLS13, max_version: TLS12}}": (
        "tls_server_config.min_version: is newer than max_version, which is TLS12",
    ),
    f"tls_server_config: {{{PAIR}, client_auth_type: RequestClientCert}}": (
        f"tls_server_config.client_auth_type: {UNVERIFIED}",
    ),
    f"tls_server_config: {{{PAIR}, client_auth_type: RequireAnyClientCert}}": (
        f"tls_server_config.client_auth_type: {UNVERIFIED}",
    ),
    f"tls_server_config: {{{PAIR}, client_auth_type: VerifyClientCertIfGiven}}": (
        (
            "tls_server_config.client_ca_file: is required, or client_ca, "
            "since client_auth_type is VerifyClientCertIfGiven"
        ),
    ),
    f"tls_server_config: {{{PAIR}, client_ca_file: c, client_allowed_sans: [x]}}": (
        f"tls_server_config.client_ca_file: {NO_POLICY}",
        f"tls_server_config.client_allowed_sans: {NO_POLICY}",
    ),
    f"tls_server_config: {{{PAIR}, client_allowed_sans: []}}": (
        "tls_server_config.client_allowed_sans: must not be empty",
    ),
    f"tls_server_config: {{{PAIR}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA, 3]}}": (
        "tls_server_config.cipher_suites[0]: is not a cipher suite that is offered; the documentation lists them",
        "tls_server_config.cipher_suites[1]: has to be a text",
    ),
    f"tls_server_config: {{{PAIR}, cipher_suites: [TLS_AES_128_GCM_SHA256, {next(iter(TLS12_SUITES))}]}}": (
        (
            "tls_server_config.cipher_suites: the suites of TLS 1.3 can't be chosen one by one; "
            "name all three of them, or none"
        ),
    ),
    f"tls_server_config: {{{PAIR}, cipher_suites: [{', '.join(TLS13_SUITES)}]}}": (
        "tls_server_config.cipher_suites: names no suite of TLS 1.2; add one, or write min_version: TLS13",
    ),
    f"tls_server_config: {{{PAIR}, curve_preferences: [CurveP256, X25519]}}": (
        "tls_server_config.curve_preferences: has to name one curve, or none: several can't be set here",
    ),
    f"tls_server_config: {{{PAIR}, curve_preferences: [P256]}}": (
        f"tls_server_config.curve_preferences[0]: is not a curve that is offered; write one of {', '.join(CURVES)}",
    ),
}


def written(folder: Path, text: str) -> Path:
    path = folder / "web.yml"
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_web_file(path)
    return caught.value.problems


@pytest.mark.parametrize("text", PROBLEMS)
def test_every_problem_is_named_by_the_file_and_its_path(text: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    found = problems_of(path)
    assert found == tuple(f"{path}: {problem}" for problem in PROBLEMS[text])
    assert not any("Canary" in problem or HASH[:12] in problem for problem in found)


def test_a_hash_in_what_is_no_yaml_is_not_repeated(tmp_path: Path) -> None:
    path = written(tmp_path, f"a: *{HASH}\n")
    (problem,) = problems_of(path)
    assert "is not YAML" in problem
    assert HASH[3:] not in problem


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.yml"
    assert problems_of(path) == (f"{path}: can't be read: No such file or directory",)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "basic_auth_users: {}", "rate_limit: {interval: 0}"])
def test_a_file_may_say_nothing(text: str, tmp_path: Path) -> None:
    file = load_web_file(written(tmp_path, text))
    assert file == WebFile()
    assert (file.tls_server_config, file.basic_auth_users, file.rate_limit.interval.total_seconds()) == (None, {}, 0)


def test_what_is_secret_is_not_in_what_is_printed(tmp_path: Path) -> None:
    text = f"tls_server_config: {{cert: c, key: Canary}}\nbasic_auth_users: {{alice: {HASH}}}\n"
    file = load_web_file(written(tmp_path, text))
    assert file.basic_auth_users["alice"].get_secret_value() == HASH
    assert "Canary" not in repr(file)
    assert HASH not in repr(file)


def test_all_suites_of_the_new_version_may_stand_beside_others(tmp_path: Path) -> None:
    names = ", ".join([*TLS12_SUITES, *TLS13_SUITES])
    file = load_web_file(written(tmp_path, f"tls_server_config: {{{PAIR}, cipher_suites: [{names}]}}"))
    assert file.tls_server_config
    assert len(file.tls_server_config.cipher_suites) == 13
    one = f"tls_server_config: {{{PAIR}, min_version: TLS13, cipher_suites: [{', '.join(TLS13_SUITES)}]}}"
    assert load_web_file(written(tmp_path, one)).tls_server_config


def test_the_example_loads_as_it_is_and_with_every_example_taken_into_use(tmp_path: Path) -> None:
    assert load_web_file(EXAMPLE).basic_auth_users.keys() == {"prometheus"}
    text = re.sub(r"^( *)#(?! )", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    file = load_web_file(written(tmp_path, text))
    assert file.model_fields_set == WebFile.model_fields.keys()
    tls = file.tls_server_config
    assert tls
    assert tls.model_fields_set == type(tls).model_fields.keys() - {"cert", "key", "client_ca"}
