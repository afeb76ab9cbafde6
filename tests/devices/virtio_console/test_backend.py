"""What is behind console ports: ptys, terminals, stdio, sockets. No guest, except where a whole console is quicker."""

import fcntl
import os
import socket
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.devices.virtio_console.backend import TtyBackend
from acrn_dm.devices.virtio_console.backend_socket import ClientBackend, ServerBackend
from tests.devices.virtio_console.console_rig import PORT_OPEN, RESIZE, console


@pytest.fixture
def terminal() -> Iterator[tuple[int, str]]:
    """A terminal in its usual mode: the master and the path of the other end."""
    master, other = os.openpty()
    os.set_blocking(master, False)
    yield master, os.ttyname(other)
    os.close(master)
    os.close(other)


def mode(fd: int) -> tuple[int, int]:
    """Echo and canonical mode, and output processing."""
    attributes = termios.tcgetattr(fd)
    return attributes[3] & (termios.ECHO | termios.ICANON), attributes[1] & termios.OPOST


def set_size(fd: int, columns: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_tty_carries_bytes_both_ways(terminal: tuple[int, str]) -> None:
    master, path = terminal
    with console(f"@tty:con={path}", features=0) as c:
        c.send(0, b"out")
        assert os.read(master, 100) == b"out"
        c.post(0, 64, 64, 64, 64)
        os.write(master, b"in\x03\r")
        got = bytearray()
        c.wait(lambda: got.extend(c.received(0)) or len(got) == 4)  # the kernel hands it over in its own time
        assert got == b"in\x03\r"


def test_tty_is_raw_while_used_and_given_back(terminal: tuple[int, str]) -> None:
    master, path = terminal
    before = mode(master)
    with console(f"tty:con={path}", features=0):
        assert mode(master) == (0, before[1])
    assert mode(master) == before


def test_tty_size_is_in_the_configuration_and_followed(terminal: tuple[int, str]) -> None:
    master, path = terminal
    set_size(master, 120, 40)
    with console(f"@tty:con={path}", features=1) as c:
        assert struct.unpack("<HH", c.driver.read_config(0, 4)) == (120, 40)
        set_size(master, 90, 20)
        c.device.window_changed()
        c.machine.settle()
        assert struct.unpack("<HH", c.driver.read_config(0, 4)) == (90, 20)


def test_tty_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(HostError, match="not a terminal"):
        TtyBackend("t", path).open()


def test_tty_that_hangs_up_is_survived(terminal: tuple[int, str]) -> None:
    master, other = os.openpty()
    path = os.ttyname(other)
    with console(f"tty:con={path}", features=0) as c:
        c.post(0, 64)
        os.close(other)
        os.close(master)
        c.machine.settle()
        c.send(0, b"nobody")
        assert c.sent(0) == 1
        assert not c.device.ports[0].backend.connected


def test_pty_path_is_told_and_bytes_cross_it(capfd: pytest.CaptureFixture[str]) -> None:
    with console("pty:con", features=0) as c:
        path = capfd.readouterr().err.strip().rpartition(" ")[2]
        assert path.startswith("/dev/pts/")
        reader = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        assert mode(reader)[0] == 0, "an echo would feed the guest its own output"
        c.wait(lambda: c.device.ports[0].backend.connected)
        c.send(0, b"out")
        assert os.read(reader, 100) == b"out"
        c.post(0, 64)
        os.write(reader, b"in")
        c.wait(c.driver.queue(0).ring.used_idx)
        assert c.received(0) == b"in"
        os.close(reader)


def test_pty_without_reader_throws_output_away_instead_of_stopping_the_guest() -> None:
    with console("pty:con", features=0) as c:
        for _ in range(50):
            c.send(0, bytes(4096))
        assert c.sent(0) == 50


def test_pty_reader_comes_goes_and_comes_again(capfd: pytest.CaptureFixture[str]) -> None:
    with console("pty:con") as c:
        path = capfd.readouterr().err.strip().rpartition(" ")[2]
        c.bring_up(0)
        c.post(0, 64)
        for _ in range(2):
            reader = os.open(path, os.O_RDWR | os.O_NOCTTY)
            c.wait(lambda: c.device.ports[0].backend.connected)
            os.close(reader)
            c.wait(lambda: not c.device.ports[0].backend.connected)
        assert [m[2] for m in c.messages() if m[1] == PORT_OPEN][-4:] == [1, 0, 1, 0]


def test_pty_reader_that_leaves_while_output_waits_is_noticed(capfd: pytest.CaptureFixture[str]) -> None:
    with console("pty:con:wait", features=0) as c:
        reader = os.open(capfd.readouterr().err.strip().rpartition(" ")[2], os.O_RDWR | os.O_NOCTTY)
        c.wait(lambda: c.device.ports[0].backend.connected)
        for _ in range(50):
            c.send(0, bytes(4096))
        before = c.sent(0)
        assert before < 50
        os.close(reader)
        c.wait(lambda: not c.driver.queue(1).in_flight or c.sent(0))
        c.machine.settle()
        c.sent(0)
        assert c.driver.queue(1).in_flight == 0


def test_client_connects_once_somebody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClientBackend, "pause_s", 0.05)
    with console(f"socket:chan={tmp_path}/peer:client", features=0) as c, socket.socket(socket.AF_UNIX) as listener:
        assert not c.device.ports[0].backend.connected
        listener.bind(str(tmp_path / "peer"))
        listener.listen(1)
        c.wait(lambda: c.device.ports[0].backend.connected)
        connection, _ = listener.accept()
        c.send(0, b"hello")
        assert connection.recv(100) == b"hello"
        c.post(0, 64)
        connection.close()
        c.wait(lambda: not c.device.ports[0].backend.connected)
        c.wait(lambda: c.device.ports[0].backend.connected)
        connection, _ = listener.accept()
        connection.send(b"again")
        c.wait(c.driver.queue(0).ring.used_idx)
        assert c.received(0) == b"again"
        connection.close()


def test_server_replaces_a_socket_left_behind_but_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    backend = ServerBackend("s", path)
    backend.open()
    backend.close()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(ConfigError, match="is no socket"):
        ServerBackend("s", path).open()
    assert path.read_text() == "precious"


def test_server_refuses_a_path_that_is_served(tmp_path: Path) -> None:
    first = ServerBackend("s", tmp_path / "sock")
    first.open()
    with pytest.raises(ConfigError, match="somebody listens"):
        ServerBackend("s", tmp_path / "sock").open()
    first.close()


def test_failed_realize_closes_the_ports_that_were_open(tmp_path: Path) -> None:
    with pytest.raises(HostError), console(f"socket:a={tmp_path}/a,tty:b=/dev/null"):
        pass
    assert not (tmp_path / "a").exists()


STDIO_SCRIPT = """
import sys
from tests.devices.virtio_console.console_rig import console
with console("@stdio:con", features=1) as c:
    c.send(0, b"raw\\n")
    print(*c.driver.read_config(0, 4), file=sys.stderr, flush=True)
    c.post(0, 64)
    got = b""
    def more():
        global got
        got += c.received(0)
        return len(got) >= 3
    c.wait(more)
    c.send(0, b"<" + got + b">\\n")
"""


def run_stdio(**streams: object) -> "subprocess.Popen[bytes]":
    """A process whose stdio is the console."""
    root = Path(__file__).parents[3]
    return subprocess.Popen([sys.executable, "-c", STDIO_SCRIPT], cwd=root, **streams)  # type: ignore[call-overload,no-any-return]


def test_stdio_on_pipes_carries_bytes() -> None:
    process = run_stdio(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(b"abc", timeout=60)
    assert (out, process.returncode) == (b"raw\n<abc>\n", 0), err.decode()


def test_stdio_on_a_terminal_is_raw_sized_and_given_back(terminal: tuple[int, str]) -> None:
    master, path = terminal
    set_size(master, 101, 33)
    before = mode(master)
    with open(path, "r+b", buffering=0) as other:
        process = run_stdio(stdin=other, stdout=other, stderr=subprocess.PIPE)
        os.set_blocking(master, True)
        out = b""
        while b"raw" not in out:
            out += os.read(master, 100)
        raw = mode(master)
        os.write(master, b"a\x03c")
        while b">" not in out:
            out += os.read(master, 100)
        _, err = process.communicate(timeout=60)
        assert os.get_blocking(other.fileno())
    assert process.returncode == 0, err.decode()
    assert b"<a\x03c>" in out
    assert raw[0] == 0
    assert mode(master) == before
    assert err.split() == [b"101", b"0", b"33", b"0"]


def test_stdio_output_to_a_file_is_appended(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        out.write(b"before\n")
        out.flush()
        process = run_stdio(stdin=subprocess.PIPE, stdout=out, stderr=subprocess.PIPE)
        _, err = process.communicate(b"abc", timeout=60)
    assert process.returncode == 0, err.decode()
    assert (tmp_path / "out").read_bytes() == b"before\nraw\n<abc>\n"


def test_emergency_write_never_goes_into_a_file_that_got_the_sockets_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes on a vCPU's thread while the loop closes a connection that the peer ended."""
    backend = ClientBackend("port", tmp_path / "socket")
    loop = IoLoop("test")
    backend.attach(loop, lambda: None, lambda: None)
    near, far = socket.socketpair()
    backend.use(near)
    stray: list[int] = []

    def peer_ends() -> None:
        backend.drop()
        stray.append(os.open(tmp_path / "stray", os.O_RDWR | os.O_CREAT))  # takes the number over

    other = threading.Thread(target=peer_ends)
    write = os.write

    def interrupted(fd: int, data: bytes) -> int:
        other.start()
        other.join(0.1)
        return write(fd, data)

    monkeypatch.setattr("os.write", interrupted)
    backend.emergency(b"!")
    other.join()
    assert os.pread(stray[0], 10, 0) == b""
    assert far.recv(10) == b"!"
    os.close(stray[0])
    far.close()
    backend.close()
    loop.close()


def test_client_that_comes_and_goes_costs_an_absent_listener_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with console(f"socket:port={path}:server") as c:
        c.bring_up()
        assert c.device.control is not None
        while c.driver.queue(2).in_flight:  # the driver's buffers are used up
            c.device.control.connection_changed(c.device.ports[0], connected=False)
            c.messages()
        for _ in range(500):
            c.device.control.connection_changed(c.device.ports[0], connected=False)
        assert len(c.device.control._waiting) == 1
        c.post_control(2)
        assert c.messages() == [(0, PORT_OPEN, 0, b"")]


@pytest.mark.parametrize("features", [1, None], ids=["configuration", "control queue"])
def test_pty_reader_that_changes_the_size_is_heard_by_the_guest(
    capfd: pytest.CaptureFixture[str], features: int | None
) -> None:
    with console("@pty:con", features=features) as c:
        reader = os.open(capfd.readouterr().err.strip().rpartition(" ")[2], os.O_RDWR | os.O_NOCTTY)
        if features is None:
            c.bring_up(0)
        for size in ((132, 43), (90, 20)):
            set_size(reader, *size)
            c.wait(lambda size=size: struct.unpack("<HH", c.driver.read_config(0, 4)) == size)  # type: ignore[misc]
            if features is None:
                assert [m for m in c.messages() if m[1] == RESIZE] == [(0, RESIZE, 0, struct.pack("<HH", *size))]
        os.close(reader)


def test_pty_size_of_a_second_port_is_told_by_the_control_queue_only(capfd: pytest.CaptureFixture[str]) -> None:
    with console("@pty:one,@pty:two") as c:
        before = c.driver.read_config(0, 4)
        path = capfd.readouterr().err.split()[-1]
        reader = os.open(path, os.O_RDWR | os.O_NOCTTY)
        c.bring_up(0, 1)
        set_size(reader, 70, 30)
        seen: list[object] = []

        def heard() -> bool:
            seen.extend(m for m in c.messages() if m[1] == RESIZE)
            return bool(seen)

        c.wait(heard)
        assert seen == [(1, RESIZE, 0, struct.pack("<HH", 70, 30))]
        assert c.driver.read_config(0, 4) == before
        os.close(reader)


def test_tty_that_is_not_our_own_terminal_is_followed_by_looking(terminal: tuple[int, str]) -> None:
    """SIGWINCH goes to the processes on it."""
    master, path = terminal
    set_size(master, 120, 40)
    with console(f"@tty:con={path}", features=1) as c:
        set_size(master, 90, 20)
        c.wait(lambda: struct.unpack("<HH", c.driver.read_config(0, 4)) == (90, 20))


def test_window_change_that_changes_no_size_is_not_told(terminal: tuple[int, str]) -> None:
    master, path = terminal
    set_size(master, 120, 40)
    with console(f"@tty:con={path}") as c:
        c.bring_up(0)
        c.device.window_changed()
        c.machine.settle()
        c.messages()
        for _ in range(3):
            c.device.window_changed()
        c.machine.settle()
        assert c.messages() == []


@pytest.mark.parametrize("kind", ["socket", "terminal"])
def test_stdio_that_we_share_is_never_non_blocking(kind: str, terminal: tuple[int, str]) -> None:
    """Neither while the console runs nor afterwards, also if it is killed."""
    if kind == "socket":
        far, near = socket.socketpair()
        master = far.detach()
    else:
        master, near = os.dup(terminal[0]), open(terminal[1], "r+b", buffering=0)  # noqa: SIM115
        os.set_blocking(master, True)
    with near:
        for end in ("by itself", "killed"):
            process = run_stdio(stdin=near, stdout=near, stderr=subprocess.PIPE)
            while b"raw" not in os.read(master, 100):
                pass
            assert os.get_blocking(near.fileno())
            if end == "killed":
                process.kill()
            else:
                os.write(master, b"abc")
                while b">" not in os.read(master, 100):
                    pass
            process.communicate(timeout=60)
            assert os.get_blocking(near.fileno())
    os.close(master)


def test_console_file_is_private_whatever_the_umask_and_not_made_through_a_link(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with console(f"file:con={tmp_path}/log", features=0):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(HostError, match="File exists"), console(f"file:con={tmp_path}/link", features=0):
        pass
    assert not (tmp_path / "elsewhere").exists()
