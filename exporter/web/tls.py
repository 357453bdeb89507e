"""TLS as the web configuration file asks for it, and a context whose inside can be exchanged while it serves."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import ssl
import tempfile
from typing import IO, TYPE_CHECKING, Any, Final

from exporter.config.web_file import CURVES, TLS12_SUITES, TLS13_SUITES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from exporter.config.web_file import TlsServer

Problems = list[tuple[str, str]]

_MODES: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_ENCRYPTED: Final = ("BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED")
_MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Connection(ssl.SSLObject):
    """One connection: refuses clients whose certificate has none of the allowed names, and says why it refuses."""

    _refused: ssl.SSLError | None = None

    def do_handshake(self) -> None:
        """Shake hands as far as that goes now.

        asyncio hangs up at once when this fails, and the alert that tells the client why stays behind. So a failure is
        shown as a wait, at which asyncio sends what there is, and raised when the client says or hangs up next.
        """
        if self._refused:
            raise self._refused
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                raise  # that client would not understand an alert
            self._refused = error
            raise ssl.SSLWantReadError from None
        allowed = self.context.allowed_names if isinstance(self.context, Context) else None
        peer = self.getpeercert()
        if allowed is not None and peer and not allowed & names_of(peer):
            raise ssl.SSLCertVerificationError("the client's certificate has none of the allowed names")


class Context(ssl.SSLContext):
    """What holds for connections that begin now. `allowed_names` are those that a client's certificate may have."""

    allowed_names: frozenset[str] | None = None
    sslobject_class = Connection


class CurrentContext(ssl.SSLContext):
    """Stands for the context that is current when a connection begins."""

    current: ssl.SSLContext

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:  # noqa: ANN401 - those of the class above
        """Begin a connection as the current context says. asyncio calls this for each one."""
        return self.current.wrap_bio(*args, **kwargs)


def current_context(first: ssl.SSLContext) -> CurrentContext:
    """Return a stand-in for `first`, and for what its `current` is set to later."""
    context = CurrentContext(ssl.PROTOCOL_TLS_SERVER)
    context.current = first
    return context


def build_context(tls: TlsServer, pem: Mapping[str, str]) -> tuple[Context, Problems]:
    """Return the context, and what is wrong with what it is made of: by key, sentences. With problems it is no use.

    `pem` has the texts of certificate, key and client authorities under `cert`, `key` and `client_ca`.
    """
    context = Context(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.maximum_version = _VERSIONS[tls.min_version], _VERSIONS[tls.max_version]
    context.set_alpn_protocols(["http/1.1"])
    if not tls.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    problems = [*_set_suites(context, tls), *_set_curve(context, tls)]
    problems += _load_certificate(context, pem, tls)
    context.verify_mode = _MODES[tls.client_auth_type]
    if "client_ca" in pem:
        problems += _load_authorities(context, pem["client_ca"], tls)
    if tls.client_allowed_sans is not None:
        context.allowed_names = frozenset(_normal(name) for name in tls.client_allowed_sans)
    return context, problems


def names_of(certificate: Mapping[str, Any]) -> frozenset[str]:
    """Return the names that a certificate, as `getpeercert` gives it, is for."""
    return frozenset(_normal(value) for kind, value in certificate.get("subjectAltName", ()) if isinstance(value, str))


def _normal(name: str) -> str:
    """Return an IP address in its one spelling, and anything else as it is."""
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name


def _key_of(tls: TlsServer, name: str) -> str:
    return f"tls_server_config.{name}_file" if getattr(tls, f"{name}_file") else f"tls_server_config.{name}"


def _set_suites(context: ssl.SSLContext, tls: TlsServer) -> Problems:
    wanted = [TLS12_SUITES[name] for name in tls.cipher_suites if name not in TLS13_SUITES]
    if not wanted:
        return []
    with contextlib.suppress(ssl.SSLError):
        context.set_ciphers(":".join(wanted))
    offered = {str(suite["name"]) for suite in context.get_ciphers()}
    missing = [name for name in tls.cipher_suites if TLS12_SUITES.get(name, "") not in {*offered, ""}]
    text = f"this machine's OpenSSL doesn't offer {', '.join(missing)}"
    return [("tls_server_config.cipher_suites", text)] if missing else []


def _set_curve(context: ssl.SSLContext, tls: TlsServer) -> Problems:
    for name in tls.curve_preferences:
        try:
            context.set_ecdh_curve(CURVES[name])
        except (ssl.SSLError, ValueError):
            return [("tls_server_config.curve_preferences", f"this machine's OpenSSL doesn't offer {name}")]
    return []


def _load_certificate(context: ssl.SSLContext, pem: Mapping[str, str], tls: TlsServer) -> Problems:
    for_cert, for_key = _key_of(tls, "cert"), _key_of(tls, "key")
    cert, key = pem.get("cert"), pem.get("key")
    problems: Problems = []
    if cert is not None and not _is_certificate(cert):
        problems.append((for_cert, "holds no certificate in PEM form"))
    if key is not None and "PRIVATE KEY-----" not in key:
        problems.append((for_key, "holds no private key in PEM form"))
    elif key is not None and any(mark in key for mark in _ENCRYPTED):
        problems.append((for_key, "is encrypted, and nobody is there to ask for the passphrase; decrypt it"))
    if problems or cert is None or key is None:
        return problems
    try:
        with _as_file(cert) as cert_name, _as_file(key) as key_name:
            context.load_cert_chain(cert_name, key_name, password="")
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            return [(for_key, "is not the key of the certificate")]
        which = for_cert if error.reason and error.reason.startswith(("EE_", "CA_")) else for_key
        return [(which, f"can't be used{f': OpenSSL says {error.reason}' if error.reason else ''}")]
    return []


def _load_authorities(context: ssl.SSLContext, authorities: str, tls: TlsServer) -> Problems:
    try:
        context.load_verify_locations(cadata=authorities)
    except (ssl.SSLError, ValueError):
        return [(_key_of(tls, "client_ca"), "holds no certificate in PEM form")]
    return []


def _is_certificate(pem: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
    except (ssl.SSLError, ValueError):
        return False
    return True


@contextlib.contextmanager
def _as_file(pem: str) -> Iterator[str]:
    """Give a text a name, as OpenSSL takes certificates and keys by name only. Where it can, it stays in memory."""
    with _nameless() as file:
        file.write(pem.encode())
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _nameless() -> IO[bytes]:
    try:
        return os.fdopen(os.memfd_create("voicelink-exporter"), "w+b")
    except (AttributeError, OSError):  # not on Linux, or not allowed there
        return tempfile.TemporaryFile()
