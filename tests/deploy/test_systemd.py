"""The unit for systemd: valid, tight, runnable under what it forbids, and as the documentation says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from exporter.config.schema import Config
from tests.support.http import ask
from tests.support.markdown import ROOT, blocks, read
from tests.support.processes import KEY, environment, program, run, simulating, until
from tests.support.programs import require
from tests.support.sandbox import settings

FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "voicelink-exporter.service"
PAGE = "docs/how-to/install-and-run.md"
PROGRAM = "/opt/voicelink-exporter/bin/voicelink-exporter"
THRESHOLD = 11  # tenths: what the unit has. Each part of it is in the list below, with what needs it
LEFT_OPEN = {
    "RootDirectory=/RootImage=": "Python and the certificates are the host's",
    "RestrictAddressFamilies=~AF_UNIX": "PostgreSQL and web.listen_address may be a socket in the file system",
    "RestrictAddressFamilies=~AF_(INET|INET6)": "it asks the API and answers Prometheus",
    "PrivateNetwork=": "the same",
    "IPAddressDeny=": "the API's addresses are not ours to know",
    "ProcSubset=": "process_start_time_seconds needs /proc/stat",
    "DeviceAllow=": "ProtectClock= puts the clock onto the list, for reading",
}


def service() -> dict[str, list[str]]:
    return settings(UNIT)


def verify(root: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Have systemd check a unit in a root that holds systemd's own units, and the programs that ours names."""
    (root / "usr/lib/systemd").mkdir(parents=True)
    shutil.copytree("/usr/lib/systemd/system", root / "usr/lib/systemd/system", symlinks=True)
    for name in (PROGRAM, "/bin/kill"):
        path = root / name.removeprefix("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o755)
    unit = root / "etc/systemd/system" / UNIT.name
    unit.parent.mkdir(parents=True)
    unit.write_text(text)
    command = [require("systemd-analyze"), "verify", f"--root={root}", "--man=no", unit.name]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.e2e
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    text = UNIT.read_text()
    done = verify(tmp_path / "ours", text)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "Unknown key" in verify(tmp_path / "wrong", text.replace("LockPersonality", "LockPersonalities")).stderr
    assert "not executable" in verify(tmp_path / "lost", text.replace("exporter/bin", "exporter/sbin")).stderr


@pytest.mark.e2e
def test_nothing_is_left_open_but_what_the_daemon_needs() -> None:
    command = [require("systemd-analyze"), "--no-pager", "security", "--offline=true", f"--threshold={THRESHOLD}"]
    done = subprocess.run([*command, UNIT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    table = subprocess.run([*command, "--json=short", UNIT], capture_output=True, text=True, timeout=60, check=True)
    assert {row["name"] for row in json.loads(table.stdout) if float(row["exposure"] or 0)} == set(LEFT_OPEN)


@pytest.mark.e2e
def test_the_daemon_runs_under_the_system_calls_of_the_unit() -> None:
    require("systemd-analyze")
    under = (sys.executable, "-m", "tests.support.sandbox", str(UNIT))
    with simulating("--dids=3") as simulated:
        given = (f"{name}={value}" for name, value in {**simulated.env, "PYTHONPATH": str(ROOT)}.items())
        with program("env", *given, *under, sys.executable, "-m", "exporter", "serve") as process:
            port = int(process.until_said(r"msg=started .*addresses=\"?127\.0\.0\.1:(\d+)")[1])
            until(lambda: ask(port, "/-/ready").status == 200, "the exporter is ready")
            assert ask(port, "/metrics").text.count("\nvoicelink_did_ready{") == 3
            filters = re.search(
                r"^Seccomp_filters:\t(\d+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE
            )
            assert filters
            assert int(filters[1]) >= 3
            process.end()
            assert "msg=stopped" in process.err
            assert "level=error" not in process.err
    asked = """
import bcrypt, mmap, os, psycopg, socket
bcrypt.checkpw(b"a", bcrypt.hashpw(b"a", bcrypt.gensalt(4)))
def refused(what):
    try: what()
    except OSError: return True
print(refused(lambda: os.chroot("/")), refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
      refused(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)))
"""
    done = subprocess.run(
        [*under, sys.executable, "-c", asked],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("True True True\n", 0), done.stderr


def test_the_daemon_is_given_longer_to_stop_than_it_takes() -> None:
    (given,) = service()["TimeoutStopSec"]
    promised = re.search(r"SIGTERM ends it, within (\d+) seconds", read(PAGE))
    assert promised
    assert int(given.removesuffix("s")) > int(promised[1])


@pytest.mark.e2e
def test_the_configuration_beside_the_unit_is_valid_once_the_key_is_there(tmp_path: Path) -> None:
    text = (FOLDER / "config.yml").read_text()
    config = Config.model_validate(YAML(typ="safe").load(text))
    ((name, path),) = (part.split(":") for part in service()["LoadCredential"])
    assert config.accounts[0].api_key_file == f"/run/credentials/{UNIT.name}/{name}"
    assert Path(path).parent == Path("/etc/voicelink-exporter")
    (state,) = service()["StateDirectory"]
    assert config.store.url == f"sqlite:////var/lib/{state}/store.db"
    assert service()["WorkingDirectory"] == [f"/var/lib/{state}"]

    credential, there = tmp_path / name, tmp_path / "config.yml"
    credential.write_text(KEY)
    there.write_text(
        text.replace(str(config.accounts[0].api_key_file), str(credential)).replace("/var/lib", str(tmp_path))
    )
    (tmp_path / state).mkdir()
    done = run("check-config", "--config.file", str(there))
    assert (done.code, done.out) == (0, f"the configuration is valid\nstore: {tmp_path}/{state}/store.db\n"), done.err


@pytest.mark.e2e
def test_sysusers_makes_the_user_of_the_unit(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    command = [require("systemd-sysusers"), f"--root={tmp_path}", str(FOLDER / "sysusers.conf")]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    name, *_, home, shell = (tmp_path / "etc/passwd").read_text().strip().split(":")
    assert [name] == service()["User"] == service()["Group"]
    assert [home] == service()["WorkingDirectory"]
    assert shell == "/usr/sbin/nologin"


def test_the_page_on_installing_names_the_paths_of_the_unit() -> None:
    shown = "\n".join(block.text for block in blocks(read(PAGE)))
    (start,) = service()["ExecStart"]
    words = start.split()
    assert words[0] == PROGRAM
    (credential,) = service()["LoadCredential"]
    named = [
        words[0],
        words[words.index("--config.file") + 1],
        credential.partition(":")[2],
        *service()["WorkingDirectory"],
    ]
    assert [path for path in named if path not in shown] == []
    for file in FOLDER.iterdir():
        assert f"deploy/systemd/{file.name}" in shown, "how it gets to its place"
    assert f"/etc/systemd/system/{UNIT.name}" in shown
