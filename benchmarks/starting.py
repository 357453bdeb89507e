"""How long it takes from the start of the process to the first answer, and what is imported until then."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from benchmarks.running import answers, exporter, wait_for

if TYPE_CHECKING:
    from benchmarks.running import Running

IMPORTED: Final = "import exporter.cli, exporter.config, exporter.logs, exporter.app"  # what serve imports
_LINE: Final = re.compile(r"^import time:\s+(\d+) \|\s+(\d+) \| \s*(\S+)", re.MULTILINE)


def first_answer(api: Running) -> float:
    """Return the seconds from starting the daemon to its first answer on /metrics."""
    begun = time.perf_counter()
    with exporter(api, "60s") as running:
        wait_for(running, lambda: answers(running.port, "/metrics"), pause=0.005)
        return time.perf_counter() - begun


def import_times() -> tuple[float, list[tuple[str, float]]]:
    """Return the seconds that imports take, and by package, the slowest first."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", IMPORTED], capture_output=True, text=True, check=True
    )
    spent: Counter[str] = Counter()
    for microseconds, _, module in _LINE.findall(done.stderr):
        package = module.partition(".")[0]
        spent["the standard library" if package in sys.stdlib_module_names else package] += int(microseconds)
    return spent.total() / 1e6, [(package, micro / 1e6) for package, micro in spent.most_common()]
