"""Runs a program under what a unit of systemd forbids to processes, without systemd.

    python -m tests.support.sandbox UNIT PROGRAM ARGUMENT…

It takes over NoNewPrivileges, SystemCallFilter, RestrictAddressFamilies and MemoryDenyWriteExecute. They are put into
force as systemd does, by filters of system calls. What systemd does with mounts, users and capabilities isn't here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ALLOW: Final = 0x7FFF0000
REFUSE: Final = 0x00050000 | errno.EPERM
UNSUPPORTED: Final = 0x00050000 | errno.EAFNOSUPPORT
SET_NO_NEW_PRIVS: Final = 38
MASKED_EQUAL: Final = 7
FAMILIES: Final = 46  # of addresses, that Linux knows
PROT_EXEC, PROT_WRITE = 4, 2


class Comparison(ctypes.Structure):
    """What libseccomp compares an argument of a system call with."""

    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def settings(unit: Path) -> dict[str, list[str]]:
    """Return what stands in the section Service, every value of each name."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in unit.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and (match := re.match(r"(\w+)=(.*)", line)):
            found.setdefault(match[1], []).append(match[2])
    return found


def calls(group: str) -> set[str]:
    """Return the system calls of a group, such as `@system-service`, as this machine's systemd has it."""
    if not group.startswith("@"):
        return {group}
    said = subprocess.run(
        ["systemd-analyze", "--no-pager", "syscall-filter", group], capture_output=True, check=True, text=True
    )
    names = [line.strip() for line in said.stdout.splitlines() if line.startswith("    ") and "#" not in line]
    return set().union(*(calls(name) for name in names))


def allowed(filters: list[str]) -> set[str]:
    """Return what a unit's filters leave: the first allows, the ones with a tilde take away."""
    left = set(calls("@default"))
    for line in filters:
        named = set().union(*(calls(group) for group in line.removeprefix("~").split()))
        left = left - named if line.startswith("~") else left | named
    return left


def restrict(service: dict[str, list[str]]) -> None:
    """Put it into force for this process and all that it starts."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p

    def load(default: int, rules: list[tuple[int, str, list[Comparison]]]) -> None:
        context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
        for action, name, comparisons in rules:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number >= 0:  # others are not this machine's
                array: Any = (Comparison * len(comparisons))(*comparisons)
                given = (ctypes.c_uint32(action), number, ctypes.c_uint(len(comparisons)), array)
                assert library.seccomp_rule_add_array(context, *given) == 0, name
        assert library.seccomp_load(context) == 0

    ctypes.CDLL(None).prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    families = {int(getattr(socket, name)) for name in service["RestrictAddressFamilies"][0].split()}
    others = [Comparison(0, MASKED_EQUAL, 0xFFFFFFFF, family) for family in range(FAMILIES) if family not in families]
    load(ALLOW, [(UNSUPPORTED, "socket", [comparison]) for comparison in others])
    if service["MemoryDenyWriteExecute"] == ["yes"]:
        both = PROT_EXEC | PROT_WRITE
        memory = [
            ("mmap", Comparison(2, MASKED_EQUAL, both, both)),
            ("mprotect", Comparison(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC)),
            ("pkey_mprotect", Comparison(2, MASKED_EQUAL, PROT_EXEC, PROT_EXEC)),
        ]
        load(ALLOW, [(REFUSE, name, [comparison]) for name, comparison in memory])
    load(REFUSE, [(ALLOW, name, []) for name in sorted(allowed(service["SystemCallFilter"]))])


if __name__ == "__main__":
    restrict(settings(Path(sys.argv[1])))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - what this is for
