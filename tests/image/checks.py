"""What the Dockerfile makes: `make image-check` builds it and runs these. Not part of `make test`, as it takes root."""

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
from packaging.utils import canonicalize_name

from tests.support.http import ask
from tests.support.image import Image, build, container
from tests.support.machine import of_this_machine
from tests.support.markdown import read
from tests.support.processes import KEY, assert_clean, simulating, until

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD = {"VERSION": "1.2.3", "REVISION": "0123abc", "SOURCE": "https://example.com/source"}
TOOLS = re.compile(
    r"(pip|ensurepip|setuptools|hatch|hatchling|wheel|uv|gcc|g\+\+|cc|c\+\+|cpp|ld|as|make|cargo|rustc)([-\d]|$)"
)
STOPS_WITHIN = 10.0  # seconds: what the daemon promises


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    assert os.geteuid() == 0, "building without a container engine takes root"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was made is taken away then, too
    folder = tmp_path_factory.mktemp("image")
    folder.parent.chmod(0o755)  # the user of the image has to get to its root
    folder.chmod(0o755)
    try:
        yield build(folder, **BUILD)
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", folder], check=True)


@pytest.fixture
def data(image: Image, tmp_path: Path) -> Path:  # noqa: ARG001 - it opens the folders above
    tmp_path.chmod(0o755)
    return tmp_path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def distributions(image: Image) -> set[str]:
    installed = (image.root / "opt/voicelink-exporter/lib").glob("python3*/site-packages/*.dist-info")
    return {canonicalize_name(path.name.partition("-")[0]) for path in installed}


def test_it_runs_as_a_user_that_is_not_root(image: Image) -> None:
    assert image.config["User"] == "65532:65532"
    assert image.config["WorkingDir"] == "/var/lib/voicelink-exporter"
    folder = (image.root / "var/lib/voicelink-exporter").stat()
    assert (folder.st_uid, folder.st_gid) == (65532, 65532)


def test_nothing_but_the_data_folder_belongs_to_its_user(image: Image) -> None:
    owned = [path for path, (_, uid, *_) in image.files().items() if uid == 65532]
    assert owned == ["var/lib/voicelink-exporter"]


def test_its_labels_say_what_it_is_and_where_it_is_from(image: Image) -> None:
    labels = {name: value for name, value in image.config["Labels"].items() if name.startswith("org.opencontainers.")}
    assert labels == {
        "org.opencontainers.image.title": "voicelink-exporter",
        "org.opencontainers.image.description": "Prometheus exporter for the readiness of VoiceLink numbers",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": "1.2.3",
        "org.opencontainers.image.revision": "0123abc",
        "org.opencontainers.image.source": "https://example.com/source",
    }


def test_it_holds_what_the_lock_names_and_nothing_else(image: Image) -> None:
    locked = {
        canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", read("requirements/run.txt"), re.MULTILINE)
    }
    assert distributions(image) == locked | {"voicelink-exporter"}


def test_no_tools_that_build_or_install_are_left(image: Image) -> None:
    modules = {"site-packages", "dist-packages"}
    left = [
        path
        for path in image.files()
        if TOOLS.match(Path(path).name)
        and (
            Path(path).parent.name in {"bin", "sbin"} | modules
            or re.fullmatch(r"python3[\d.]*", Path(path).parent.name)
        )
    ]
    assert left == []
    assert not (image.root / "usr/share/python-wheels").exists()
    assert not (image.root / "src").exists()


def test_nothing_says_where_this_machine_gets_its_packages_from(image: Image) -> None:
    names = {"pip.conf", ".netrc", "uv.toml", "direct_url.json"}
    # What was mounted for the build left the empty file that it was mounted on.
    assert [path for path, (_, _, size, _) in image.files().items() if Path(path).name in names and size] == []
    assert not any((image.root / "mnt").iterdir())
    told = json.dumps(image.inspected)
    assert [word for word in of_this_machine() if word in told] == []
    assert "PIP_" not in told.replace("PIP_NO_CACHE_DIR", "").replace("PIP_DISABLE_PIP_VERSION_CHECK", "")


def test_it_serves_on_a_root_that_is_read_only_and_stops_in_time(image: Image, data: Path) -> None:
    port = free_port()
    before = image.files()
    check = image.config["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    with simulating("--dids=5") as simulated:
        env = {**simulated.env, "VOICELINK_WEB_LISTEN_ADDRESS": f"127.0.0.1:{port}"}
        with container(image, data, env=env) as running:
            until(lambda: ask(port, "/-/ready").status == 200, "the exporter is ready")
            status = Path(f"/proc/{running.pid}/status").read_text()
            body = ask(port, "/metrics").text
            healthy = running.execute(check[1:])
            elsewhere = running.execute(check[1:], {"VOICELINK_WEB_LISTEN_ADDRESS": "127.0.0.1:1"})
            refused = running.execute(["sh", "-c", "echo x > /opt/voicelink-exporter/x"])
            code, took = running.stop()
        assert_clean(running.outside.out + running.outside.err)
    assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NSpid:\t\d+\t1$", status, re.MULTILINE)
    assert re.search(r"^voicelink_up\{.*\} 1(\.0)?$", body, re.MULTILINE)
    assert body.count("\nvoicelink_did_ready{") == 5
    assert KEY not in body
    assert (healthy, elsewhere) == (0, 1)
    assert refused != 0
    assert code == 0
    assert took < STOPS_WITHIN
    assert image.files() == before
    assert {path.name for path in data.iterdir()} >= {"voicelink-exporter.db"}


def test_the_demo_of_the_compose_file_runs_in_it(image: Image, data: Path) -> None:
    port = free_port()
    with container(image, data, "demo", f"--web.listen-address=127.0.0.1:{port}", env={}) as running:
        until(lambda: ask(port, "/-/ready").status == 200, "the demo is ready")
        assert "\nvoicelink_did_ready{" in ask(port, "/metrics").text
        code, took = running.stop()
    assert code == 0
    assert took < STOPS_WITHIN
    assert list(data.iterdir()) == []


def test_without_a_key_it_says_so_and_ends(image: Image, data: Path) -> None:
    with container(image, data, env={}) as running:
        assert running.outside.wait() == 2
    assert "VOCOBASE_API_KEY" in running.outside.err
