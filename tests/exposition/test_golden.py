"""What is served is, byte for byte, what prometheus-client would have written."""

from __future__ import annotations

import gzip
import subprocess
import zlib
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition import FAMILIES, Exposition
from exporter.exposition.body import OPENMETRICS, TEXT
from exporter.model import Connection
from exporter.snapshots import Fleet
from exporter.telemetry import Telemetry
from tests.support.fleet import IDS, ONE, A, entry, fleet_of, polled, watch
from tests.support.programs import require
from tests.support.reference import reference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from exporter.exposition import Body

    Parse = Callable[[str], Iterator[Metric]]


def bodies(fleet: Fleet, own: tuple[bytes, bytes] = (b"", b"")) -> tuple[Body, Body]:
    exposition = Exposition(lambda: own)
    exposition.update(fleet)
    return exposition.bodies.text, exposition.bodies.openmetrics


def plain(body: Body) -> bytes:
    return b"".join(body.plain)


def test_a_fleet_is_written_as_prometheus_client_writes_it(fleet: Fleet) -> None:
    text, openmetrics = bodies(fleet)
    assert (plain(text), plain(openmetrics)) == reference(fleet)


def test_an_empty_fleet_is_written_as_prometheus_client_writes_it() -> None:
    text, openmetrics = bodies(Fleet())
    assert (plain(text), plain(openmetrics)) == reference(Fleet())


def test_a_fleet_of_connections_alone_is_written_too() -> None:
    fleet = Fleet(connections={A: Connection(IDS[0], "only", "INACTIVE")})
    assert tuple(map(plain, bodies(fleet))) == reference(fleet)


def test_some_lines_as_they_are_to_be_read() -> None:
    fleet = polled(fleet_of(A), A, entry(ONE, "NO_BOT", did_id=812, friendly_name='a "b"\\\n'), by=watch(team="x"))
    lines = plain(bodies(fleet)[0]).decode().splitlines()
    owner = f'account="default",connection="{IDS[0]}"'
    assert f'voicelink_did_ready{{{owner},phone_number="{ONE}"}} 0.0' in lines
    assert f'voicelink_did_state{{{owner},phone_number="{ONE}",state="NO_BOT"}} 1.0' in lines
    assert f'voicelink_did_state{{{owner},phone_number="{ONE}",state="MISSING"}} 0.0' in lines
    sorted_in = owner.replace(",", ',code="NO_BOT",')
    assert f'voicelink_did_issue{{{sorted_in},phone_number="{ONE}"}} 1.0' in lines
    assert f"voicelink_up{{{owner}}} 1.0" in lines
    assert f"voicelink_poll_last_success_timestamp_seconds{{{owner}}} 1.8e+09" in lines
    info = next(line for line in lines if line.startswith("voicelink_did_info{"))
    assert 'did_id="812"' in info
    assert r'friendly_name="a \"b\"\\\n"' in info


@pytest.mark.parametrize(("form", "parse"), [(0, parse_text), (1, parse_openmetrics)], ids=["text", "openmetrics"])
def test_parsers_read_what_was_meant(fleet: Fleet, form: int, parse: Parse) -> None:
    body = bodies(fleet, Telemetry().render())[form]
    families = {family.name: family for family in parse(plain(body).decode())}
    for family in FAMILIES:
        name = family.name.removesuffix("_total")
        assert (families[name].type, families[name].documentation) == (family.kind, family.help)
        for sample in families[name].samples:
            own = {"did": ("phone_number",), "target": (), "fleet": ()}[family.level]
            told = {"account", "connection", *own, *family.labels}
            assert sample.name == family.name
            assert told == sample.labels.keys() or (family.name == "voicelink_did_info" and told < sample.labels.keys())
    infos = [sample.labels for sample in families["voicelink_did_info"].samples if "team" in sample.labels]
    meant = [dict(did.labels) for did in fleet.targets[A].memory.values()]
    assert [{key: labels[key] for key in meant[0]} for labels in infos] == meant
    assert "process_cpu_seconds" in families
    assert "python_info" in families


def test_no_series_is_there_twice(fleet: Fleet) -> None:
    for body in bodies(fleet, Telemetry().render()):
        lines = plain(body).decode().split("\n")
        names = [line.rpartition(" ")[0] for line in lines if line and not line.startswith("#")]
        assert [name for name, count in Counter(names).items() if count > 1] == []


@pytest.mark.e2e
def test_promtool_has_no_complaint(fleet: Fleet) -> None:
    text = plain(bodies(fleet, Telemetry().render())[0])
    done = subprocess.run([require("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    complaints = (done.stdout + done.stderr).decode().splitlines()
    assert (done.returncode, complaints) == (0, [])


def test_content_types_and_end_mark(fleet: Fleet) -> None:
    text, openmetrics = bodies(fleet, (b"own 1\n", b"own 1.0\n"))
    assert (text.content_type, openmetrics.content_type) == (TEXT, OPENMETRICS)
    assert plain(text).endswith(b"\nown 1\n")
    assert plain(openmetrics).endswith(b"\nown 1.0\n# EOF\n")


def test_before_the_first_rendering_there_is_nothing_and_it_is_well_formed() -> None:
    exposition = Exposition(lambda: (b"own 1\n", b"own 1.0\n"))
    assert plain(exposition.bodies.text) == b""
    assert plain(exposition.bodies.openmetrics) == b"# EOF\n"
    assert gzip.decompress(exposition.bodies.text.gzip) == b""
    exposition.refresh_own()
    assert plain(exposition.bodies.openmetrics) == b"own 1.0\n# EOF\n"


def test_gzip_is_one_member_that_gives_the_plain_text(fleet: Fleet) -> None:
    for body in bodies(fleet, Telemetry().render()):
        text = plain(body)
        assert body.length == len(text)
        assert gzip.decompress(body.gzip) == text
        stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        pieces = [stream.decompress(body.gzip[start : start + 7]) for start in range(0, len(body.gzip), 7)]
        assert b"".join(pieces) == text
        assert (stream.eof, stream.unused_data) == (True, b"")


@pytest.mark.e2e
def test_the_gzip_program_finds_no_fault(fleet: Fleet) -> None:
    for body in bodies(fleet):
        done = subprocess.run([require("gzip"), "-t"], input=body.gzip, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        unzipped = subprocess.run([require("gzip"), "-dc"], input=body.gzip, capture_output=True, check=True)
        assert unzipped.stdout == plain(body)
