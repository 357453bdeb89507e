"""Builds the Dockerfile without a container engine, on a base made by debootstrap, and runs what came of it.

For root on Debian. buildah builds by chroot; what was built runs in namespaces of its own, on a root that is read-only,
as one does that is given to Kubernetes. Mounts are made inside a mount namespace and go with its last process.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil

from tests.support.markdown import ROOT
from tests.support.patience import PATIENCE
from tests.support.processes import Running, environment, until
from tests.support.programs import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RELEASE: Final = "bookworm"
PYTHON: Final = "3.11"  # that release's
PACKAGES: Final = ("python3", "python3-venv")
LEFT_OUT: Final = ("./dev/*", "./proc/*", "./sys/*", "./var/cache/apt/*", "./var/lib/apt/lists/*", "./var/log/*")
KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
NAMESPACES: Final = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
# Arguments: the root, the folder for the data and where it goes, the user, and what is run there.
ENTER: Final = """
set -eu
mount --bind "$1" "$1"
mount --bind "$2" "$1$3"
mount -t proc proc "$1/proc"
mount -t tmpfs -o mode=755,size=64k tmpfs "$1/dev"
touch "$1/dev/null"
mount --bind /dev/null "$1/dev/null"
mount -o remount,bind,ro "$1"
root=$1 user=$4
shift 4
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" "$@"
"""


def call(*command: str | Path, within: float) -> str:
    """Run a program to its end; return what it said. Fails where it failed.

    It has namespaces of its own, so that what it started and mounted is gone with it, however it ends.
    """
    done = subprocess.run(
        [*NAMESPACES, "--mount-proc", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=within,
        check=False,
        text=True,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout[-8000:]}"
    return done.stdout


def base(folder: Path) -> Path:
    """Return an archive of a Debian that has Python and venv: the cached one, or one made now.

    The cache is the user's (`~/.cache`, or `$XDG_CACHE_HOME`); delete the archive to have it made from newer packages.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "voicelink-exporter"
    recipe = hashlib.sha256(repr((RELEASE, PACKAGES, LEFT_OUT)).encode()).hexdigest()[:12]
    archive = cache / f"base-{RELEASE}-{platform.machine()}-{recipe}.tar"
    if not archive.exists():
        made, packed = folder / "debian", folder / "base.tar"
        include = f"--include={','.join(PACKAGES)}"
        keys = ("--force-check-gpg", f"--keyring={KEYRING}")
        call(require("debootstrap"), "--variant=minbase", include, *keys, RELEASE, made, within=600)
        call("tar", "-C", made, "-cf", packed, *(f"--exclude={name}" for name in LEFT_OUT), ".", within=120)
        cache.mkdir(parents=True, exist_ok=True)
        moved = archive.with_name(f"{archive.name}.{os.getpid()}")
        call("cp", packed, moved, within=120)
        moved.replace(archive)
    return archive


def wheels(folder: Path) -> Path:
    """Download what the locks name for the base's Python, by pip as it is set up here, checked by hash."""
    tags = [f"manylinux_2_{minor}_{platform.machine()}" for minor in range(36, 16, -1)]
    target = ("--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}", "--no-deps")
    for lock in ("run", "build"):
        call(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", *target),
            *(f"--platform={tag}" for tag in (*tags, f"manylinux2014_{platform.machine()}")),
            *("--dest", folder / "wheels", "--requirement", ROOT / "requirements" / f"{lock}.txt"),
            within=300,
        )
    return folder / "wheels"


@dataclass(frozen=True, slots=True)
class Image:
    """A built image, unpacked at `root`. `inspected` is all that is said about it."""

    root: Path
    inspected: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        """The part that says how it is to be run."""
        config: dict[str, Any] = self.inspected["Docker"]["config"]
        return config

    def command(self, words: list[str], env: Mapping[str, str]) -> list[str]:
        """Return what runs words as the image says: with its variables, in its working folder."""
        given = [*self.config["Env"], *(f"{name}={value}" for name, value in env.items())]
        return ["env", "-i", "-C", self.config["WorkingDir"], *given, *words]

    def files(self) -> dict[str, tuple[int, int, int, int]]:
        """Return every file of the image with its mode, owner, size and time: what changes when somebody writes it."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            for name in (*folders, *names):
                status = os.lstat(Path(folder, name))
                kept = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns)
                found[str(Path(folder, name).relative_to(self.root))] = kept
        return found


def build(folder: Path, **arguments: str) -> Image:
    """Build the Dockerfile and unpack what came of it. `arguments` are those of the build.

    The build gets the wheels, and a configuration that tells pip to look nowhere else: it needs no network, and nothing
    that says where this machine gets its packages from can end in the image.
    """
    storage = (f"--root={folder / 'storage'}", f"--runroot={folder / 'run'}", "--storage-driver=vfs")
    buildah = (require("buildah"), *storage)
    pip = folder / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /mnt\n")
    archive, downloaded = base(folder), wheels(folder)
    working = call(*buildah, "from", "scratch", within=60).strip()
    call(*buildah, "add", "--quiet", working, archive, "/", within=120)
    call(*buildah, "commit", "--quiet", "--rm", working, "stand-in-base", within=120)
    call(
        *(*buildah, "bud", "--isolation=chroot", "--network=host", "--format=docker", "--pull-never"),
        *(f"--volume={downloaded}:/mnt:ro", f"--volume={pip}:/etc/pip.conf:ro"),
        *("--build-arg=BASE_IMAGE=localhost/stand-in-base", "--tag=voicelink-exporter"),
        *(f"--build-arg={name}={value}" for name, value in arguments.items()),
        ROOT,
        within=600,
    )
    inspected = json.loads(call(*buildah, "inspect", "--type=image", "voicelink-exporter", within=60))
    working = call(*buildah, "from", "--pull-never", "voicelink-exporter", within=120).strip()
    return Image(Path(call(*buildah, "mount", working, within=60).strip()), inspected)


@dataclass(frozen=True, slots=True)
class Contained:
    """A process that runs in an image: the first one of its namespace, as in a container."""

    image: Image
    outside: Running
    pid: int
    env: Mapping[str, str]

    def execute(self, words: list[str], env: Mapping[str, str] | None = None) -> int:
        """Run something beside it, as the same user; return its exit code."""
        inside = self.image.command(words, {**self.env, **(env or {})})
        entry = [
            "nsenter",
            f"--target={self.pid}",
            "--mount",
            "--pid",
            "chroot",
            f"--userspec={self.image.config['User']}",
        ]
        return subprocess.run([*entry, self.image.root, *inside], timeout=PATIENCE, check=False).returncode

    def stop(self) -> tuple[int, float]:
        """Send SIGTERM; return the exit code and how many seconds it took."""
        started = time.monotonic()
        psutil.Process(self.pid).terminate()
        return self.outside.wait(), time.monotonic() - started


@contextmanager
def container(image: Image, data: Path, *arguments: str, env: Mapping[str, str]) -> Iterator[Contained]:
    """Run the image on a root that is read-only but for the folder of its data, until the context ends."""
    user = image.config["User"]
    os.chown(data, *(int(part) for part in user.split(":")))
    words = image.command([*image.config["Entrypoint"], *arguments], env)
    enter = ("sh", "-c", ENTER, "enter", str(image.root), str(data), image.config["WorkingDir"], user)
    outside = Running((*NAMESPACES, *enter, *words), environment())
    try:
        inside = until(lambda: psutil.Process(outside.pid).children(), "the container has a process")
        yield Contained(image, outside, inside[0].pid, env)
    finally:
        for process in psutil.Process(outside.pid).children() if outside.alive else []:
            process.kill()
        outside.end()
