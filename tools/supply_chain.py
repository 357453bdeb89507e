"""What an installation consists of, and whether something is known against it.

    python tools/supply_chain.py sbom FILE     writes a bill of materials of what requirements/run.txt installs
    python tools/supply_chain.py audit [...]   asks for known vulnerabilities of that; further words go to pip-audit

`audit` ends with 0 when everything was checked and nothing is known, with 1 when something is, and with 2 when not
everything could be checked, which is no good news.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from exporter import __version__

ROOT: Final = Path(__file__).parent.parent
LOCK: Final = ROOT / "requirements" / "run.txt"
TOOLS: Final = Path(sys.executable).parent
NOTHING, KNOWN, UNCHECKED = 0, 1, 2


def main() -> int:
    """Do what the first word says."""
    match sys.argv[1:]:
        case ["sbom", file]:
            Path(file).write_text(sbom(), encoding="utf-8")
            return 0
        case ["audit", *words]:
            code, lines = audit(words)
            print("\n".join(lines), file=sys.stderr if code else sys.stdout)
            return code
    print(__doc__, file=sys.stderr)  # noqa: T201
    return 2


def sbom() -> str:
    """Install the lock into an empty environment and return what is there, as CycloneDX 1.6 in JSON."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder) / "environment"
        venv.create(environment, with_pip=False, symlinks=True)
        python = environment / "bin" / "python"
        pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "--no-deps", "--requirement", str(LOCK)], check=True)  # noqa: S603
        lister = [
            str(TOOLS / "cyclonedx-py"),
            "environment",
            f"--pyproject={ROOT / 'pyproject.toml'}",
            "--output-reproducible",
        ]
        listed = subprocess.run(  # noqa: S603
            [*lister, "--spec-version=1.6", "--output-format=JSON", str(python)], check=True, stdout=subprocess.PIPE
        )
    bill: dict[str, Any] = json.loads(listed.stdout)
    # The version is in the code and not in pyproject.toml, where it is looked for.
    bill["metadata"]["component"] |= {
        "version": __version__,
        "purl": f"pkg:pypi/voicelink-exporter@{__version__}",
    }
    text = json.dumps(bill, indent=2, sort_keys=True) + "\n"
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if problem is not None:
        raise ValueError(f"the bill of materials is not valid: {problem}")
    return text


def audit(words: list[str]) -> tuple[int, list[str]]:
    """Have pip-audit look every part of the lock up; return the exit code and what to say."""
    command = [str(TOOLS / "pip-audit"), "--disable-pip", "--require-hashes", f"--requirement={LOCK}", "--format=json"]
    done = subprocess.run([*command, "--progress-spinner=off", *words], capture_output=True, text=True, check=False)  # noqa: S603
    try:
        parts = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        return UNCHECKED, [f"not checked: the vulnerability service could not be asked: {reason[0]}"]
    known = [f"{part['name']} {part['version']}: {vuln['id']}" for part in parts for vuln in part.get("vulns", ())]
    skipped = [part["name"] for part in parts if "skip_reason" in part]
    lines = list(known)
    if skipped:
        lines.append(f"not checked: the service knows nothing of {len(skipped)} of {len(parts)}: {', '.join(skipped)}")
    if known:
        return KNOWN, lines
    return (UNCHECKED, lines) if skipped or not parts else (NOTHING, [f"nothing is known against any of {len(parts)}"])


if __name__ == "__main__":
    sys.exit(main())
