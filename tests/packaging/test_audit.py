"""`make audit`: good news only when everything was looked up. The vulnerability service is a stand-in on loopback."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.markdown import ROOT, read

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

LOCKED = len(re.findall(r"^[\w.-]+==", read("requirements/run.txt"), re.MULTILINE))


@contextmanager
def service(answers: dict[str, Any]) -> Iterator[str]:
    """Answer as OSV does: by the name that is asked for, and with nothing for others."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(answers.get(asked["package"]["name"], {})).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/supply_chain.py", "audit", "--vulnerability-service=osv", f"--osv-url={url}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_nothing_known_is_said_of_all_that_was_looked_up() -> None:
    with service({}) as url:
        done = audit(url)
    assert (done.returncode, done.stdout) == (0, f"nothing is known against any of {LOCKED}\n"), done.stderr


def test_what_is_known_is_named() -> None:
    affected = {"package": {"name": "mako", "ecosystem": "PyPI"}, "ranges": []}
    found = {"id": "PYSEC-2026-1", "summary": "made up", "affected": [affected]}
    with service({"mako": {"vulns": [found]}}) as url:
        done = audit(url)
    assert done.returncode == 1
    assert re.fullmatch(r"mako [\d.]+: PYSEC-2026-1\n", done.stderr)


def test_a_service_that_cannot_be_asked_is_no_good_news() -> None:
    with service({}) as url:
        pass
    done = audit(url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("not checked: the vulnerability service could not be asked: ")
    assert "Traceback" not in done.stderr
