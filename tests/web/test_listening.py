"""Unix sockets, and several addresses at once."""

from __future__ import annotations

import socket
import stat
from typing import TYPE_CHECKING

import pytest

from exporter.addresses import Address, UnixAddress
from exporter.errors import StartupError
from exporter.web.listening import name_of, open_all, open_sockets, remove, unix_paths

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a unix socket may be: not too deep."""
    folder = tmp_path_factory.mktemp("s")
    assert len(str(folder)) < 90
    return folder / "w.sock"


def refused(*addresses: Address | UnixAddress) -> str:
    with pytest.raises(StartupError) as caught:
        open_all(addresses)
    return str(caught.value)


def test_a_unix_socket_is_for_owner_and_group(path: Path) -> None:
    (sock,) = open_sockets(UnixAddress(str(path)))
    with sock:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert name_of(sock) == f"unix:{path}"


def test_one_that_a_dead_daemon_left_is_replaced(path: Path) -> None:
    (left,) = open_sockets(UnixAddress(str(path)))
    left.close()
    (sock,) = open_sockets(UnixAddress(str(path)))
    with sock, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_one_that_somebody_listens_on_is_left_alone(path: Path) -> None:
    (sock,) = open_sockets(UnixAddress(str(path)))
    with sock, socket.socket(socket.AF_UNIX) as client:
        assert refused(UnixAddress(str(path))) == (
            f"web.listen_address: can't listen on unix:{path}: Address already in use"
        )
        client.connect(str(path))


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    other = path.with_name("other")
    other.write_text("precious")
    if kind == "file":
        other.rename(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(other)
    assert refused(UnixAddress(str(path))) == (
        f"web.listen_address: can't listen on unix:{path}: there is a file that is no socket"
    )
    assert path.is_dir() if kind == "folder" else path.read_text() == "precious"


def test_a_folder_that_is_not_there_is_named(path: Path) -> None:
    nowhere = path.parent / "none" / "w.sock"
    assert refused(UnixAddress(str(nowhere))) == (
        f"web.listen_address: can't listen on unix:{nowhere}: No such file or directory"
    )


def test_all_addresses_are_opened_or_none(path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(UnixAddress(str(path)), Address("127.0.0.1", port))
    assert said == f"web.listen_address: can't listen on 127.0.0.1:{port}: Address already in use"
    assert not path.exists()
    sockets = open_all([UnixAddress(str(path)), Address("127.0.0.1", 0), Address("127.0.0.1", 0)])
    assert len({name_of(sock) for sock in sockets}) == 3
    for sock in sockets:
        sock.close()


def test_names_are_written_as_the_configuration_has_them() -> None:
    for host, name in (("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")):
        if host == "::1" and not socket.has_dualstack_ipv6():
            continue  # a machine without IPv6
        (sock,) = open_sockets(Address(host, 0))
        with sock:
            assert name_of(sock) == f"{name}:{sock.getsockname()[1]}"


def test_only_what_is_still_ours_is_removed(path: Path) -> None:
    (sock,) = open_sockets(UnixAddress(str(path)))
    with sock:
        assert unix_paths([sock]) == {str(path): path.stat().st_ino}
        path.unlink()
        assert unix_paths([sock]) == {}
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            remove({str(path): path.stat().st_ino + 1})
            assert path.exists()
            remove({str(path): path.stat().st_ino})
            assert not path.exists()
            remove({str(path): 1})
