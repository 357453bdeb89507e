"""Where the store is: never where a command happens to be started."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from exporter.config import load_settings
from exporter.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.config import Settings

ENV = {"VOCOBASE_API_KEY": "rg_live_Canary1234567890"}
FILE = "voicelink-exporter.db"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start in a folder that has nothing to do with the configuration, as a user with a home."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return folder


def settings_of(folder: Path | None, url: str | None = None, **environ: str) -> Settings:
    """Load a file in a folder, which names a URL or none; without a folder there is no file."""
    if folder is None:
        return load_settings(None, ENV | environ)
    folder.mkdir(exist_ok=True)
    path = folder / "exporter.yml"
    path.write_text(f"store: {{url: '{url}'}}\n" if url else "")
    return load_settings(path, ENV | environ)


def problem_of(folder: Path | None, url: str | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as refused:
        settings_of(folder, url, **environ)
    (problem,) = refused.value.problems
    return problem


class TestDefault:
    def test_the_state_directory_that_systemd_makes(self, tmp_path: Path) -> None:
        given = settings_of(None, STATE_DIRECTORY=f"{tmp_path}/one:{tmp_path}/two")
        assert given.config.store.url == f"sqlite:///{tmp_path}/one/{FILE}"
        assert given.store_problem == ""

    @pytest.mark.parametrize("nothing", ["", " ", ":/second"])
    def test_else_the_users_own(self, tmp_path: Path, nothing: str) -> None:
        given = settings_of(tmp_path / "etc", STATE_DIRECTORY=nothing)
        assert given.config.store.url == f"sqlite:///{tmp_path}/home/.local/state/voicelink-exporter/{FILE}"

    def test_which_the_user_may_have_put_elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        assert settings_of(None).config.store.url == f"sqlite:///{tmp_path}/state/voicelink-exporter/{FILE}"

    def test_null_is_the_default(self, tmp_path: Path) -> None:
        path = tmp_path / "exporter.yml"
        path.write_text("store: {url: null}\n")
        url = load_settings(path, ENV | {"STATE_DIRECTORY": str(tmp_path)}).config.store.url
        assert url == f"sqlite:///{tmp_path}/{FILE}"

    def test_nothing_is_made(self, tmp_path: Path, elsewhere: Path) -> None:
        settings_of(None)
        settings_of(None, STATE_DIRECTORY=f"{tmp_path}/state")
        assert list(tmp_path.iterdir()) == [elsewhere]
        assert list(elsewhere.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can be a user whom nobody knows")
    def test_a_user_without_a_home_is_told_what_to_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", nobody)
        given = settings_of(None)
        assert given.config.store.url is None
        assert given.store_problem == (
            "there is no place for the store: this user has no home directory, and STATE_DIRECTORY is not set; "
            "name one with store.url in the configuration, or with VOICELINK_STORE_URL"
        )

    def test_a_state_directory_that_is_relative_is_refused(self) -> None:
        assert problem_of(None, STATE_DIRECTORY="state") == (
            "store.url: STATE_DIRECTORY has to hold an absolute path, not 'state'"
        )

    def test_a_folder_that_no_url_can_hold_is_refused(self, tmp_path: Path) -> None:
        problem = problem_of(None, STATE_DIRECTORY=f"{tmp_path}/a?b")
        assert problem.startswith(f"store.url: {tmp_path}/a?b can't be written as a URL")


def nobody(_: int) -> object:
    raise KeyError


class TestNamed:
    def test_in_a_file_it_is_relative_to_the_file(self, tmp_path: Path) -> None:
        url = settings_of(tmp_path / "etc", "sqlite:///ours.db?timeout=7").config.store.url
        assert url == f"sqlite:///{tmp_path}/etc/ours.db?timeout=7"

    def test_also_where_the_file_is_named_relatively(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        settings_of(tmp_path / "etc", "sqlite:///../ours.db")
        monkeypatch.chdir(tmp_path)
        relative = load_settings(tmp_path.joinpath("etc", "exporter.yml").relative_to(tmp_path), ENV)
        assert relative.config.store.url == f"sqlite:///{tmp_path}/ours.db"

    def test_in_the_environment_it_is_relative_to_the_working_directory(self, tmp_path: Path, elsewhere: Path) -> None:
        given = settings_of(tmp_path / "etc", "sqlite:///file.db", VOICELINK_STORE_URL="sqlite:///variable.db")
        assert given.config.store.url == f"sqlite:///{elsewhere}/variable.db"

    @pytest.mark.parametrize("url", ["sqlite:////var/tmp/a.db", "sqlite:///:memory:", "postgresql+psycopg://h/d"])
    def test_what_is_absolute_stays(self, tmp_path: Path, url: str) -> None:
        assert settings_of(tmp_path / "etc", url).config.store.url == url

    def test_sqlites_own_form_of_a_url_too(self, tmp_path: Path) -> None:
        url = settings_of(tmp_path, "sqlite:///file:ours.db?mode=rw&uri=true").config.store.url
        assert url == f"sqlite:///file:{tmp_path}/ours.db?mode=rw&uri=true"

    def test_a_working_directory_that_is_gone_is_said(self, elsewhere: Path) -> None:
        shutil.rmtree(elsewhere)
        assert problem_of(None, VOICELINK_STORE_URL="sqlite:///a.db") == (
            "store.url: is relative, and the working directory is gone; write an absolute path "
            "(from VOICELINK_STORE_URL)"
        )
        assert settings_of(None).store_problem == ""

    def test_a_folder_that_no_url_can_hold_is_refused(self, tmp_path: Path) -> None:
        problem = problem_of(tmp_path / "a?b", "sqlite:///ours.db")
        assert problem.startswith(f"store.url: {tmp_path}/a?b/ours.db can't be written as a URL")

    def test_a_folder_that_is_not_there_is_named_in_full(self, tmp_path: Path) -> None:
        assert problem_of(tmp_path, "sqlite:///none/ours.db") == f"store.url: there is no folder {tmp_path}/none"


class TestStoreOfTheFirstVersion:
    """0.1.0 kept its store in the working directory: what is there may hold a pause, and is not forgotten."""

    def test_it_is_neither_used_nor_forgotten(self, tmp_path: Path, elsewhere: Path) -> None:
        (elsewhere / FILE).touch()
        given = settings_of(tmp_path / "etc", STATE_DIRECTORY=f"{tmp_path}/state")
        assert given.config.store.url == f"sqlite:///{tmp_path}/state/{FILE}"
        assert given.store_problem == (
            f"{elsewhere}/{FILE} is a store of version 0.1.0, and this version looks for it at "
            f"{tmp_path}/state/{FILE}; to keep it, with its pauses and quarantines, put store: "
            f"{{url: sqlite:///{elsewhere}/{FILE}}} into the configuration, or move it there; to begin without it, "
            "remove it; then restart"
        )

    def test_also_beside_a_store_at_the_new_place(self, tmp_path: Path, elsewhere: Path) -> None:
        (elsewhere / FILE).touch()
        (tmp_path / FILE).touch()
        assert settings_of(None, STATE_DIRECTORY=str(tmp_path)).store_problem.startswith(f"{elsewhere}/{FILE} is")

    def test_where_there_is_no_new_place_either(self, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (elsewhere / FILE).touch()
        monkeypatch.delenv("HOME")
        monkeypatch.setattr("pwd.getpwuid", nobody)
        assert "this version has no default place for it; to keep it" in settings_of(None).store_problem

    def test_the_line_that_is_named_settles_it(self, tmp_path: Path, elsewhere: Path) -> None:
        (elsewhere / FILE).touch()
        given = settings_of(tmp_path / "etc", f"sqlite:///{elsewhere}/{FILE}")
        assert (given.config.store.url, given.store_problem) == (f"sqlite:///{elsewhere}/{FILE}", "")
        given = settings_of(None, VOICELINK_STORE_URL=f"sqlite:///{FILE}")
        assert (given.config.store.url, given.store_problem) == (f"sqlite:///{elsewhere}/{FILE}", "")

    def test_moving_it_settles_it(self, tmp_path: Path, elsewhere: Path) -> None:
        (elsewhere / FILE).touch()
        (elsewhere / FILE).rename(tmp_path / FILE)
        assert settings_of(None, STATE_DIRECTORY=str(tmp_path)).store_problem == ""

    def test_a_service_that_ran_in_its_state_directory_goes_on(self, tmp_path: Path, elsewhere: Path) -> None:
        (elsewhere / FILE).touch()
        (tmp_path / "link").symlink_to(elsewhere)
        assert settings_of(None, STATE_DIRECTORY=str(elsewhere)).store_problem == ""
        assert settings_of(None, STATE_DIRECTORY=str(tmp_path / "link")).store_problem == ""
