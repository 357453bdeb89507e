"""`make stack`: everything on loopback at one command, and gone at Ctrl-C."""

from __future__ import annotations

import signal
import socket
import sys

import pytest

from tests.support.http import ask
from tests.support.monitoring import ROOT
from tests.support.monitoring_stack import free_port, get_json
from tests.support.processes import program, until
from tests.support.programs import require

pytestmark = pytest.mark.e2e


def test_it_scrapes_and_ends_at_ctrl_c_without_a_trace() -> None:
    require("prometheus")
    require("prometheus-alertmanager")
    ports = {name: free_port() for name in ("exporter", "prometheus", "alertmanager")}
    flags = [f"--{name}={port}" for name, port in ports.items()]
    with program(sys.executable, str(ROOT / "tools" / "stack.py"), *flags) as stack:
        until(lambda: "Alertmanager" in stack.out, "it says where everything is")

        def scraped() -> bool:
            if ask(ports["prometheus"], "/-/ready").status != 200:
                return False
            return bool(get_json(ports["prometheus"], "/api/v1/query?query=sum(voicelink_dids)")["data"]["result"])

        until(scraped, "Prometheus has the demo's numbers", within=30)
        until(lambda: ask(ports["alertmanager"], "/-/ready").status == 200, "Alertmanager is ready")
        stack.send(signal.SIGINT)
        until(lambda: not stack.alive, "it has ended", within=15)
        assert "stopping" in stack.out
        assert "Traceback" not in stack.err
    for port in ports.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), 1).close()


def test_it_says_which_port_is_taken() -> None:
    require("prometheus")
    require("prometheus-alertmanager")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with program(sys.executable, str(ROOT / "tools" / "stack.py"), f"--exporter={port}") as stack:
            until(lambda: not stack.alive, "it has ended")
            assert stack.err == f"stack: port {port} is taken; choose another with --exporter PORT\n"
