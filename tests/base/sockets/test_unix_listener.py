"""Listening UNIX sockets: whose they are, and what may lie in their place."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.base.sockets import unix_listener
from acrn_dm.base.sockets.unix_listener import UnixListener
from acrn_dm.devices.virtio_console.backend_socket import ServerBackend
from acrn_dm.export import sockets
from acrn_dm.management.command_monitor import CommandMonitor
from acrn_dm.management.manager_socket import ManagerSocket
from tests.backends.user.user_rig import returns
from tests.management.conftest import FakeMachine

UMASKS = (0o000, 0o022, 0o077, 0o277, 0o777)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def console(path: Path) -> Callable[[], None]:
    backend = ServerBackend("port", path)
    backend.open()
    return backend.close


def monitor(path: Path) -> Callable[[], None]:
    return CommandMonitor(IoLoop("main"), path, FakeMachine().controls()).close


def manager(path: Path) -> Callable[[], None]:
    server = ManagerSocket(IoLoop("main"), path.parent, "vm", FakeMachine().controls())
    server.path.rename(path)
    return server.close


def export(path: Path) -> Callable[[], None]:
    return UnixListener(path, "--socket-path").close


KINDS = {"console": console, "monitor": monitor, "manager": manager, "export": export}


@pytest.mark.parametrize("kind", KINDS)
def test_socket_is_for_its_owner_alone_whatever_the_umask(kind: str, path: Path, umask: int) -> None:
    close = KINDS[kind](path)
    assert mode(path) == 0o600
    close()


def test_server_program_listens_by_the_same_module() -> None:
    assert sockets.UnixListener is UnixListener


def test_mode_is_right_before_anybody_can_connect(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watched(socket.socket):
        def listen(self, *args: int) -> None:
            seen.append(mode(path))
            super().listen(*args)

    monkeypatch.setattr(unix_listener.socket, "socket", Watched)
    before = os.umask(0)
    UnixListener(path).close()
    os.umask(before)
    assert seen == [0o600]


def test_file_is_never_wider_than_it_stays_not_even_when_bind_makes_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    class Watched(socket.socket):
        def bind(self, address: str) -> None:
            super().bind(address)
            seen.append(mode(path))

    monkeypatch.setattr(unix_listener.socket, "socket", Watched)
    before = os.umask(0)
    UnixListener(path).close()
    os.umask(before)
    assert seen == [0o600]


@pytest.mark.parametrize("kind", ["console", "monitor", "export"])
@pytest.mark.parametrize("target", ["nothing", "socket left behind", "file"])
def test_symbolic_link_is_not_followed_and_stays(kind: str, target: str, path: Path, tmp_path: Path) -> None:
    goal = tmp_path / "goal"
    if target == "file":
        goal.write_text("precious")
    elif target == "socket left behind":
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(str(goal))
    path.symlink_to(goal)
    with pytest.raises(ConfigError, match="is there already, and is no socket"):
        KINDS[kind](path)
    assert path.is_symlink()
    assert goal.exists() == (target != "nothing")


@pytest.mark.parametrize("kind", ["console", "monitor", "export"])
def test_file_in_the_way_is_named_and_stays(kind: str, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(ConfigError) as error:
        KINDS[kind](path)
    assert str(path) in str(error.value)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("kind", ["console", "monitor", "export"])
def test_socket_that_was_left_behind_is_replaced(kind: str, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    KINDS[kind](path)()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["console", "monitor", "export"])
def test_socket_in_use_is_left_alone_even_if_its_owner_is_stopped_and_its_queue_full(kind: str, path: Path) -> None:
    """A connect that waits for room would wait for ever."""
    other = UnixListener(path, backlog=0)
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(8)]
    for client in waiting:
        client.setblocking(False)
        client.connect_ex(str(path))

    def start() -> None:
        with pytest.raises(ConfigError, match="somebody listens there already"):
            KINDS[kind](path)

    assert returns(start)
    assert path.exists()
    for client in waiting:
        client.close()
    other.close()


@pytest.mark.parametrize("kind", ["console", "monitor", "export"])
def test_path_that_is_too_long_is_refused_with_the_bound(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        KINDS[kind](tmp_path / ("x" * 108))


def test_path_of_107_bytes_works(tmp_path: Path) -> None:
    path = tmp_path / ("x" * (107 - len(os.fsencode(tmp_path)) - 1))
    UnixListener(path).close()


def test_another_socket_in_our_path_is_not_removed(path: Path) -> None:
    listener = UnixListener(path)
    path.unlink()
    other = UnixListener(path)
    listener.close()
    assert path.exists()
    other.close()


def test_folder_that_is_missing_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="absent"):
        UnixListener(tmp_path / "absent" / "s")


@pytest.mark.parametrize("listed", [True, False])
def test_deserted_socket_is_told_from_one_that_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    if not listed:  # as from another network namespace
        monkeypatch.setattr(unix_listener, "LISTED", tmp_path / "nothing")
    path = tmp_path / "socket"
    assert not unix_listener.is_deserted(path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert unix_listener.is_deserted(path)
        listener.listen()
        listener.setblocking(False)
        assert not unix_listener.is_deserted(path)
        if listed:
            with pytest.raises(BlockingIOError):  # nobody has come
                listener.accept()
    assert unix_listener.is_deserted(path)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("new", None),
        ("left", None),
        ("file", "is there already, and is no socket"),
        ("alive", "somebody listens there already"),
        ("none/x", "directory {folder}/none does not exist"),
        ("s" * 108, "a socket's path has at most 107 bytes"),
    ],
)
def test_looking_finds_what_listening_would(tmp_path: Path, name: str, problem: str | None) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    with socket.socket(socket.AF_UNIX) as alive:
        alive.bind(str(tmp_path / "alive"))
        alive.listen()
        expected = None if problem is None else problem.format(folder=tmp_path)
        assert unix_listener.problem(tmp_path / name) == expected
    assert {p.name for p in tmp_path.iterdir()} == {"file", "left", "alive"}
