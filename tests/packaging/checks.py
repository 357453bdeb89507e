"""What installs from the registry: `make package-check` runs these, beside the tests in CI, as they take their time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from packaging.utils import canonicalize_name

from exporter import __version__
from tests.support.distributions import build
from tests.support.http import ask
from tests.support.machine import of_this_machine
from tests.support.markdown import ROOT, read
from tests.support.processes import KEY, environment, program, until

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Installed:
    """What pipx made: a folder for all of it, and the program."""

    home: Path
    program: Path

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        command = [str(self.program), *arguments]
        done = subprocess.run(
            command, env=environment(env), cwd=self.home, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout


def locked() -> dict[str, str]:
    """Return what the lock of the daemon names, with its versions."""
    pinned = re.findall(r"^([\w.-]+)==(\S+)", read("requirements/run.txt"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pinned}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("pipx")
    _, wheel = build(folder / "dist")
    # The versions of the lock: what somebody else released today is not what is looked at here.
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in locked().items()))
    places = {f"PIPX_{name}": str(folder / name.lower()) for name in ("HOME", "BIN_DIR", "MAN_DIR")}
    command = [
        sys.executable,
        "-m",
        "pipx",
        "install",
        "--backend=pip",
        f"--pip-args=--constraint={constraints}",
        str(wheel),
    ]
    done = subprocess.run(
        command, env={**os.environ, **places}, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Installed(folder, folder / "bin_dir" / "voicelink-exporter")


def test_pipx_installs_the_wheel_as_one_program(installed: Installed) -> None:
    assert [path.name for path in installed.program.parent.iterdir()] == ["voicelink-exporter"]
    assert installed.run("--version") == (0, f"voicelink-exporter {__version__}\n")


def test_the_installed_program_checks_a_configuration(installed: Installed) -> None:
    done = installed.run("check-config", VOCOBASE_API_KEY=KEY, STATE_DIRECTORY="/none")
    assert done == (0, "the configuration is valid\nstore: /none/voicelink-exporter.db\n")
    assert installed.run("check-config")[0] == 1


def test_the_installed_programs_demo_is_scraped(installed: Installed) -> None:
    with program(str(installed.program), "demo", "--web.listen-address=127.0.0.1:0") as process:
        port = int(process.until_said(r"msg=started .*addresses=\"?127\.0\.0\.1:(\d+)")[1])
        until(lambda: ask(port, "/-/ready").status == 200, "the demo is ready")
        assert ask(port, "/metrics").text.count("\nvoicelink_did_ready{") == 40
        process.end()
        assert "msg=stopped" in process.err


def test_the_bill_of_materials_is_the_lock_and_says_nothing_of_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "bill.json"
    command = [sys.executable, "tools/supply_chain.py", "sbom", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    bill = json.loads(text)
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/voicelink-exporter@{__version__}"
    parts = {canonicalize_name(part["name"]): part["version"] for part in bill["components"]}
    assert parts == locked()
    assert [part["name"] for part in bill["components"] if not part["purl"].startswith("pkg:pypi/")] == []
    assert [part["name"] for part in bill["components"] if "licenses" not in part] == []
    (ours,) = [each for each in bill["dependencies"] if each["ref"] == bill["metadata"]["component"]["bom-ref"]]
    assert len(ours["dependsOn"]) > 15
    assert [word for word in {*of_this_machine(), str(ROOT), "file:", str(tmp_path.parent)} if word in text] == []
