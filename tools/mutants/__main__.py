"""Says which small changes of the code no test notices, and fails where there are too many, or new ones.

First a sample of what mutmut makes of the pure modules of tests/mutants/modules.toml; then our own list,
tests/mutants/list.toml. tests/mutants/explained.toml says why a survivor changes nothing.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from tools.mutants.made import explained, modules, sample
from tools.mutants.own import listed
from tools.mutants.trials import ROOT, Mutant, Trials, UnusableError, Verdict

ENOUGH: Final = 95.0  # percent that are to be killed
SAMPLE: Final = 300
ENDED: Final = 128 + signal.SIGTERM
OWN: Final = "our own list"


def main() -> int:
    """Run mutants; return 0 where enough were killed and all others are explained, 1 otherwise, 2 for a fault."""
    args = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ENDED))  # so that copies are removed
    data = args.root / "tests" / "mutants"
    try:
        reasons = explained(data / "explained.toml", args.root)
        own = listed(data / "list.toml", args.root)
        made = [] if args.own is not None else _sample(args, data / "modules.toml")
        own = [] if args.module else [each for each in own if re.search(args.own or "", each.name)]
        report = Report({(each.file, each.within, each.before, each.after): each.why for each in reasons})
        with Trials(args.root, args.package, args.jobs) as trials:
            trials.run(made + own, report.add)
    except UnusableError as error:
        print(f"mutants: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return report.end()


def _sample(args: argparse.Namespace, file: Path) -> list[Mutant]:
    known = modules(file)
    chosen = [each for each in known if not args.module or each.file in args.module]
    if missing := set(args.module) - {each.file for each in known}:
        raise UnusableError(f"{file.name} has no {', '.join(sorted(missing))}")
    seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    size = f"--sample={args.sample}" if args.sample else "all mutants"
    print(f"{size} --seed={seed}", flush=True)  # noqa: T201
    return sample(args.root, chosen, args.sample, seed)


class Report:
    """Counts verdicts and shows survivors as they are found. `reasons` explain some, by where and what they are."""

    def __init__(self, reasons: dict[tuple[str, str, str, str], str]) -> None:
        self._reasons = reasons
        self._killed: Counter[str] = Counter()
        self._explained: Counter[str] = Counter()
        self._all: Counter[str] = Counter()

    def add(self, verdict: Verdict) -> None:
        """Take in what became of a mutant."""
        mutant = verdict.mutant
        part = OWN if mutant.all_of_them else mutant.file
        self._all[part] += 1
        why = self._reasons.get((mutant.file, mutant.within, mutant.before, mutant.after))
        if verdict.killed:
            self._killed[part] += 1
            if mutant.all_of_them:
                print(f"killed   {mutant.name}\n         by {verdict.by}", flush=True)  # noqa: T201
            if why:
                print(f"explained as a survivor, but killed by {verdict.by}: {mutant.name}\n{mutant.diff}", flush=True)  # noqa: T201
        elif why:
            self._explained[part] += 1
        else:
            print(f"SURVIVED {mutant.name} {verdict.by}\n{mutant.diff}\n", flush=True)  # noqa: T201

    def end(self) -> int:
        """Print the figures; return 1 where too few were killed, or a survivor is not explained."""
        new = 0
        print(f"\n{'':36}{'mutants':>8}{'killed':>8}{'percent':>9}{'explained':>11}{'survived':>10}")  # noqa: T201
        parts = sorted(set(self._all) - {OWN}) + [OWN] * (OWN in self._all)
        total = (sum(self._all.values()), sum(self._killed.values()), sum(self._explained.values()))
        rows = [(part, self._all[part], self._killed[part], self._explained[part]) for part in parts]
        for name, number, killed, known in [*rows, ("all", *total)]:
            new = number - killed - known
            print(f"{name:36}{number:8}{killed:8}{_percent(killed, number):9.1f}{known:11}{new:10}")  # noqa: T201
        return int(bool(new) or _percent(total[1], total[0]) < ENOUGH)


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sample", type=int, default=SAMPLE, metavar="N", help="mutants of the modules; 0 for all")
    parser.add_argument("--seed", type=int, metavar="S", help="which ones; a fresh one where it is not named")
    parser.add_argument("--module", action="append", default=[], metavar="FILE", help="only of this module; no list")
    parser.add_argument(
        "--own", nargs="?", const="", metavar="TEXT", help="only our own list, or what has this in its name"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="at a time (%(default)s)")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    parser.add_argument("--package", default="exporter", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
