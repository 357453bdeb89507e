"""Who may ask: what the web configuration file says, in force, and in force anew when the file or one it names changes.

A change is taken whole or not at all. Connections that are open go on as they began.
"""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.config.web_file import WebFile, load_web_file, web_file_error
from exporter.errors import ConfigError
from exporter.logs import FailureLog
from exporter.threads import DaemonThread
from exporter.web.guard import Guard, Rules, headers_of
from exporter.web.limit import TokenBucket
from exporter.web.passwords import PasswordChecker, Users
from exporter.web.tls import CurrentContext, build_context, current_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from starlette.types import ASGIApp

    from exporter.clock import Clock
    from exporter.config.web_file import TlsServer
    from exporter.web.tls import Problems

LONGEST_PEM: Final = 4_194_304  # bytes; no bundle of authorities is longer
_SWITCHED: Final = "can't be switched on or off while the exporter runs; restart it"
Stamp = tuple[int, ...]
Watched = dict["Path", Stamp]

log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _State:
    rules: Rules
    context: ssl.SSLContext | None


class Security:
    """The web configuration file in force. Without a file everybody may ask, without encryption."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        """Read the file. Raises `ConfigError`."""
        self._path = path
        self._clock = clock
        self._report: Callable[[bool], None] = lambda _: None
        self._failures = FailureLog(clock)
        self._lock = threading.Lock()
        self._thread = DaemonThread("web configuration") if path else None
        self._checker: PasswordChecker | None = None
        self._watched: Watched = {}
        self._error: ConfigError | None = None
        self._state = _State(Rules(headers_of({})), None)
        self._context: CurrentContext | None = None
        if path:
            self._state = self._read(path, self._watched)
        if self._state.context:
            self._context = current_context(self._state.context)

    def report_to(self, report: Callable[[bool], None]) -> None:
        """Tell `report` whether the file was accepted: now, and after each reading. Where there is none, never."""
        if self._path:
            self._report = report
            report(self._error is None)

    @property
    def rules(self) -> Rules:
        """What holds for requests that begin now."""
        return self._state.rules

    @property
    def server_options(self) -> dict[str, Any]:
        """What `Server` has to be told."""
        context = self._context
        return {"ssl_context_factory": lambda *_: context} if context else {}

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return the application, guarded."""
        return Guard(app, lambda: self._state.rules)

    def reread(self) -> None:
        """Read all files again and put them in force. Raises `ConfigError`, and then what was stays."""
        if self._path is None:
            return
        with self._lock:
            watched: Watched = {}
            try:
                state = self._read(self._path, watched)
                if (state.context is None) != (self._context is None):
                    raise web_file_error(self._path, [("tls_server_config", _SWITCHED)])
            except ConfigError as error:
                self._error = error
                self._report(False)  # noqa: FBT003 - that is all there is to say
                raise
            finally:
                self._watched = watched
            self._state, self._error = state, None
            if self._context and state.context:
                self._context.current = state.context
            self._report(True)  # noqa: FBT003 - that is all there is to say

    async def look(self) -> None:
        """Read again if a file changed; say so, and what is wrong as long as something is."""
        if self._thread is None:
            return
        changed = await asyncio.get_running_loop().run_in_executor(self._thread, self._reread_if_changed)
        what, error = "reading the web configuration", self._error
        if error:
            self._failures.failed(what, "; ".join(error.problems), "what was in force stays")
        elif changed:
            self._failures.worked(what)
            log.info("the web configuration was read again", file=str(self._path))

    def close(self) -> None:
        """End the threads."""
        if self._thread:
            self._thread.shutdown()
        if self._checker:
            self._checker.close()

    def _reread_if_changed(self) -> bool:
        if all(_stamp(path) == stamp for path, stamp in list(self._watched.items())):
            return False
        try:
            self.reread()
        except ConfigError:
            return False  # it is remembered
        return True

    def _read(self, path: Path, watched: Watched) -> _State:
        """Return what the file says. Each file goes into `watched` before it is read, with what it looked like."""
        watched[path] = _stamp(path)
        file = load_web_file(path)
        context = None
        if file.tls_server_config:
            pem, problems = _read_pem(path, file.tls_server_config, watched)
            context, more = build_context(file.tls_server_config, pem)
            problems += more
            if problems:
                raise web_file_error(path, problems)
        return _State(self._rules_of(file), context)

    def _rules_of(self, file: WebFile) -> Rules:
        hashes = {name: hashed.get_secret_value() for name, hashed in file.basic_auth_users.items()}
        users = None
        if hashes:
            self._checker = self._checker or PasswordChecker()
            users = Users(hashes, self._checker)
        interval, bucket = file.rate_limit.interval.total_seconds(), self.rules.bucket
        if not bucket or (bucket.interval, bucket.burst) != (interval, file.rate_limit.burst):
            bucket = TokenBucket(interval, file.rate_limit.burst, self._clock) if interval else None
        headers = headers_of(file.http_server_config.headers.model_dump(by_alias=True, exclude_none=True))
        return Rules(headers, users, bucket)


def _read_pem(path: Path, tls: TlsServer, watched: Watched) -> tuple[dict[str, str], Problems]:
    """Return the texts of certificate, key and client authorities, and what is wrong with their files."""
    pem, problems = {}, []
    inline = {"cert": tls.cert, "key": tls.key.get_secret_value() if tls.key else None, "client_ca": tls.client_ca}
    for name, text in inline.items():
        named = getattr(tls, f"{name}_file")
        if named:
            file = path.parent / named
            watched[file] = _stamp(file)
            try:
                pem[name] = _text_of(file)
            except ValueError as error:
                problems.append((f"tls_server_config.{name}_file", f"{file} {error}"))
        elif text:
            pem[name] = text
    return pem, problems


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            data = stream.read(LONGEST_PEM + 1)
    except OSError as error:
        raise ValueError(f"can't be read: {error.strerror}") from None
    except ValueError:
        raise ValueError("is no name that a file can have") from None
    if len(data) > LONGEST_PEM:
        raise ValueError(f"is longer than {LONGEST_PEM} bytes")
    return data.decode("ascii", errors="replace")


def _stamp(path: Path) -> Stamp:
    """Return what changes when the file does."""
    try:
        told = os.stat(path)  # noqa: PTH116 - pathlib's raises for the same reasons, and does no more
    except (OSError, ValueError):
        return ()
    return told.st_mtime_ns, told.st_size, told.st_ino, told.st_dev
