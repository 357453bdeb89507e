"""The sdist and the wheel: nothing missing, nothing too much, the same bytes whoever builds them."""

from __future__ import annotations

import os
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from exporter import __version__
from tests.support.distributions import build
from tests.support.markdown import ROOT

pytestmark = pytest.mark.e2e

Built = tuple[Path, Path]
LONG_AGO = 1_000_000_000.0


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(tmp_path_factory.mktemp("dist"))


def files(folder: Path, base: Path) -> set[str]:
    """Return the files of a folder that are sources, named from a base."""
    return {
        path.relative_to(base).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: Built) -> None:
    names = set(zipfile.ZipFile(built[1]).namelist())
    package = files(ROOT / "exporter", ROOT)
    assert {name for name in names if ".dist-info/" not in name} == package
    assert {"exporter/py.typed", "exporter/store/migrations/versions/0001_first.py"} <= package
    info = f"voicelink_exporter-{__version__}.dist-info"
    kept = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert {name for name in names if ".dist-info/" in name} == {f"{info}/{name}" for name in kept}


def test_the_sdist_holds_what_a_checkout_does(built: Built) -> None:
    with tarfile.open(built[0]) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    # What isn't for those who get the sdist: this project's own CI, and settings of editors. PKG-INFO is the build's.
    tracked = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    known = set(subprocess.run(tracked, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines())
    there = {name for name in known if (ROOT / name).is_file() and not name.startswith((".ci/", ".github/"))}
    assert held - {"PKG-INFO"} == there - {".editorconfig", ".pre-commit-config.yaml"}


def test_what_is_in_the_sdist_builds_both_again_byte_by_byte(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built[0]) as tar:
        tar.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    for path in source.rglob("*"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    again = build(tmp_path / "again", source)
    assert [path.name for path in again] == [path.name for path in built]
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in built]


def test_the_date_in_it_is_the_one_that_is_given(built: Built, tmp_path: Path) -> None:
    dated, again = (build(tmp_path / name, env={"SOURCE_DATE_EPOCH": "1700000000"}) for name in ("first", "again"))
    assert [path.read_bytes() for path in dated] == [path.read_bytes() for path in again]
    assert {info.date_time for info in zipfile.ZipFile(dated[1]).infolist()} == {(2023, 11, 14, 22, 13, 20)}
    assert dated[1].read_bytes() != built[1].read_bytes()
