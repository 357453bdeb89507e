"""Where the store is: an absolute path that does not depend on where a command was started, or why there is none."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

FILE: Final = "voicelink-exporter.db"
SQLITE: Final = "sqlite:///"
NAME_ONE: Final = "name one with store.url in the configuration, or with VOICELINK_STORE_URL"
NO_PLACE: Final = (
    "there is no place for the store: this user has no home directory, and STATE_DIRECTORY is not set; " + NAME_ONE
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the store is. Without a `url` there is no place for it; `problem` says why it must not be used."""

    url: str | None
    problem: str = ""


def named_place(url: str, folder: Path) -> Place:
    """Return the place that the configuration names; a relative path is relative to `folder`. Raises `ValueError`."""
    if not url.startswith(SQLITE):
        return Place(url)
    path, mark, query = url.removeprefix(SQLITE).partition("?")
    prefix = "file:" if path.startswith("file:") else ""
    name = path.removeprefix(prefix)
    if not name or ":memory:" in name or os.path.isabs(name):  # noqa: PTH117 - no need for a Path
        return Place(url)
    try:
        # As SQLAlchemy does: the store is opened by the path without `..` in it.
        full = os.path.abspath(folder / name)  # noqa: PTH100 - `Path.absolute` leaves `..` where it is
    except FileNotFoundError:
        raise ValueError("is relative, and the working directory is gone; write an absolute path") from None
    if "?" in full:
        raise ValueError(f"{full} can't be written as a URL, as it holds a question mark; write an absolute path")
    return Place(f"{SQLITE}{prefix}{full}{mark}{query}")


def default_place(environ: Mapping[str, str]) -> Place:
    """Return the place where nothing names another. Raises `ValueError`.

    0.1.0 kept its store in the working directory. One that is there is neither used nor forgotten: it may hold a pause.
    """
    folder = _state_directory(environ)
    file = folder / FILE if folder else None
    url = f"{SQLITE}{file}" if file else None
    # With os.path, as pathlib raises where this user may not look.
    if os.path.isfile(FILE) and not (file and os.path.exists(file) and os.path.samefile(file, FILE)):  # noqa: PTH110, PTH113, PTH121
        return Place(url, _two_places(Path(FILE).absolute(), file))
    return Place(url, "" if url else NO_PLACE)


def store_name(url: str) -> str:
    """Return what a store is called in messages: the file of an SQLite store, else the URL, which has to be masked."""
    return url.removeprefix(SQLITE).removeprefix("file:").partition("?")[0] if url.startswith(SQLITE) else url


def _state_directory(environ: Mapping[str, str]) -> Path | None:
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0].strip()  # systemd separates several by colons
    if given:
        if not os.path.isabs(given):  # noqa: PTH117 - no need for a Path
            raise ValueError(f"STATE_DIRECTORY has to hold an absolute path, not {given!r:.60}")
        folder = given
    else:
        import platformdirs  # noqa: PLC0415 - not needed where a store is named

        try:
            folder = str(platformdirs.user_state_path("voicelink-exporter"))
        except RuntimeError:  # as there is no home directory
            return None
        if not os.path.isabs(folder):  # noqa: PTH117 - no need for a Path
            return None
    if "?" in folder:
        raise ValueError(f"{folder} can't be written as a URL, as it holds a question mark; {NAME_ONE}")
    return Path(folder)


def _two_places(old: Path, new: Path | None) -> str:
    elsewhere = f"this version looks for it at {new}" if new else "this version has no default place for it"
    return (
        f"{old} is a store of version 0.1.0, and {elsewhere}; to keep it, with its pauses and quarantines, put "
        f"store: {{url: {SQLITE}{old}}} into the configuration, or move it there; to begin without it, remove it; "
        "then restart"
    )
