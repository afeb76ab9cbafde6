"""Serial backends on real files: ptys, pipes, sockets. The loop is stepped, nothing sleeps."""

import contextlib
import fcntl
import os
import socket
import termios
from collections.abc import Iterator
from typing import Any

import pytest

from acrn_dm.base.errors import ConfigError, HostError
from acrn_dm.base.events.ioloop import IoLoop
from acrn_dm.contract.config import UartSpec
from acrn_dm.devices.backlog import PATIENCE_S
from acrn_dm.devices.terminal.stdio import Terminal
from acrn_dm.devices.uart.backends import HOST, StdioBackend, TcpBackend, TtyBackend, check_backend, open_backend
from acrn_dm.devices.uart.port import make_ports
from acrn_dm.devices.uart.stream import Stream
from acrn_dm.devices.uart.uart16550 import BACKLOG, Uart16550
from tests.devices.platform.parts import Level
from tests.devices.stopped_clock import StoppedClock

DATA, LSR = 0, 5
PIPE, LIMIT = 4 * BACKLOG, 8192  # a byte written is two calls: 128 KiB would be half a second


@pytest.fixture
def loop() -> Iterator[IoLoop]:
    loop = IoLoop("test")
    yield loop
    loop.close()


@pytest.fixture
def uart() -> Uart16550:
    uart = Uart16550(Level())
    uart.write(2, 1, 1)
    return uart


@pytest.fixture
def pty() -> Iterator[tuple[int, int]]:
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    yield ours, theirs
    for fd in (ours, theirs):
        os.close(fd)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    monkeypatch.setattr("acrn_dm.devices.uart.stream.OUTPUT_LIMIT", LIMIT)
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE)
    yield reader, writer
    for fd in (reader, writer):
        with contextlib.suppress(OSError):
            os.close(fd)


def send(uart: Uart16550, data: bytes) -> None:
    for byte in data:
        uart.write(DATA, 1, byte)


def taken(uart: Uart16550) -> bytes:
    data = bytearray()
    while uart.read(LSR, 1) & 1:
        data.append(uart.read(DATA, 1))
    return bytes(data)


def typed(uart: Uart16550, loop: IoLoop, count: int) -> bytes:
    """*count* bytes of what was typed at a terminal: the kernel hands them over in its own time."""
    data = b""
    for _ in range(1000):
        data += taken(uart)
        if len(data) >= count:
            return data
        loop.step(0.01)
    raise AssertionError(f"{data!r} is all")


def drain(fd: int) -> bytes:
    data = b""
    try:
        while chunk := os.read(fd, 65536):
            data += chunk
    except BlockingIOError:
        pass
    return data


def test_output_is_written_at_once(uart: Uart16550, loop: IoLoop, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    uart.line = Stream(uart, loop, rx=None, tx=writer)
    send(uart, b"hello")
    assert drain(reader) == b"hello"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    return StoppedClock(monkeypatch)


def fill(uart: Uart16550) -> bytes:
    """Send until the UART is busy; all of it."""
    sent = bytearray()
    while uart.read(LSR, 1) & 0x20:
        byte = len(sent) % 251
        uart.write(DATA, 1, byte)
        sent.append(byte)
    return bytes(sent)


def test_full_file_never_blocks_and_loses_nothing_within_the_limit(
    uart: Uart16550, loop: IoLoop, pipe: tuple[int, int], clock: StoppedClock
) -> None:
    reader, writer = pipe
    stream = Stream(uart, loop, rx=None, tx=writer)
    uart.line = stream
    sent = fill(uart)
    assert len(sent) == LIMIT + PIPE
    uart.write(DATA, 1, 0xFF)  # while busy: lost, as on hardware
    received = b""
    while len(received) < len(sent):
        received += drain(reader)
        loop.step()
    assert received == sent
    assert uart.read(LSR, 1) & 0x20
    stream.close()


def test_guest_that_polls_goes_on_when_the_reader_stands_still(
    uart: Uart16550, loop: IoLoop, pipe: tuple[int, int], clock: StoppedClock, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = pipe
    stream = Stream(uart, loop, rx=None, tx=writer)
    uart.line = stream
    sent = fill(uart)
    clock.advance(PATIENCE_S)
    more = bytes(i % 253 for i in range(1000))
    for byte in more:
        assert uart.read(LSR, 1) & 0x20, "its patience is over for as long as nobody reads"
        uart.write(DATA, 1, byte)
    loop.run_until_idle()
    assert loop.step() == 0, "what waits keeps no loop busy"
    received = b""
    while got := drain(reader):
        received += got
        loop.run_until_idle()
    pipe_size = len(received) - LIMIT
    assert received == sent[:pipe_size] + (sent + more)[-LIMIT:]
    assert [record.getMessage() for record in caplog.records] == [
        "serial port: its reader is too slow: the oldest output is dropped",
        "serial port: 1000 bytes were dropped for its slow reader",
    ]
    stream.close()


def test_guest_waits_as_long_as_it_takes_if_told(
    uart: Uart16550, loop: IoLoop, pipe: tuple[int, int], clock: StoppedClock
) -> None:
    stream = Stream(uart, loop, rx=None, tx=pipe[1], wait=True)
    uart.line = stream
    sent, received = fill(uart), b""
    clock.advance(3600)
    loop.run_until_idle()
    assert not uart.read(LSR, 1) & 0x20
    while got := drain(pipe[0]):
        received += got
        loop.run_until_idle()
    assert received == sent
    assert uart.read(LSR, 1) & 0x20
    stream.close()


@pytest.mark.parametrize("wait", [False, True])
def test_reader_of_standard_output_is_waited_for_if_told(
    uart: Uart16550, loop: IoLoop, pipe: tuple[int, int], clock: StoppedClock, wait: bool
) -> None:
    with open("/dev/null", "rb") as nothing:
        terminal = Terminal("-l com1", stdin=nothing.fileno(), stdout=pipe[1])
        backend = StdioBackend(uart, loop, terminal, lambda: None, wait=wait)
        fill(uart)
        clock.advance(PATIENCE_S)
        loop.run_until_idle()
        busy = not uart.read(LSR, 1) & 0x20
        backend.close()
    assert busy is wait


@pytest.mark.parametrize("wait", [False, True])
def test_port_hands_on_what_was_said_of_slow_readers(
    loop: IoLoop, pty: tuple[int, int], monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    told: list[bool] = []
    init = Stream.__init__

    def note(self: Stream, *args: Any, wait: bool, **how: Any) -> None:
        told.append(wait)
        init(self, *args, wait=wait, **how)

    monkeypatch.setattr(Stream, "__init__", note)
    (port,) = make_ports([UartSpec(number=1, backend=os.ttyname(pty[1]), wait=wait)], lambda irq: Level())
    port.open(loop, lambda: None)
    tcp = open_backend("tcp:0", "-l com2", Uart16550(Level()), loop, lambda: None, wait=wait)
    assert isinstance(tcp, TcpBackend)
    with socket.create_connection((HOST, port_of(tcp))):
        while len(told) < 2:
            loop.step(1)
    tcp.close()
    port.close()
    assert told == [wait, wait]


def test_guest_that_sleeps_is_interrupted_when_the_reader_stands_still(
    loop: IoLoop, pipe: tuple[int, int], clock: StoppedClock
) -> None:
    irq = Level()
    uart = Uart16550(irq)
    stream = Stream(uart, loop, rx=None, tx=pipe[1])
    uart.line = stream
    fill(uart)
    uart.write(1, 1, 2)
    uart.read(2, 1)
    loop.run_until_idle()
    assert not irq.asserted
    clock.advance(PATIENCE_S)
    loop.run_until_idle()
    assert irq.asserted
    stream.close()


def test_output_to_somebody_who_has_gone_gathers_no_work(uart: Uart16550, loop: IoLoop, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    uart.line = Stream(uart, loop, rx=None, tx=writer)
    loop.run_until_idle()
    os.close(reader)
    send(uart, bytes(100))
    assert loop.run_until_idle() <= 1
    assert uart.read(LSR, 1) & 0x20


def test_writer_that_has_gone_is_not_an_error_and_not_busy(
    uart: Uart16550, loop: IoLoop, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    uart.line = Stream(uart, loop, rx=None, tx=writer)
    os.close(reader)
    send(uart, b"nobody")
    loop.run_until_idle()
    assert uart.read(LSR, 1) & 0x20


def test_input_reaches_the_guest(uart: Uart16550, loop: IoLoop, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    stream = Stream(uart, loop, rx=reader, tx=None)
    uart.line = stream
    os.write(writer, b"typed")
    loop.run_until_idle()
    assert taken(uart) == b"typed"
    stream.close()


def test_more_input_than_fits_waits_in_the_file_and_none_is_lost(
    uart: Uart16550, loop: IoLoop, pipe: tuple[int, int]
) -> None:
    reader, writer = pipe
    stream = Stream(uart, loop, rx=reader, tx=None)
    uart.line = stream
    data = bytes(i % 253 for i in range(4 * BACKLOG))
    os.write(writer, data)
    received = b""
    while len(received) < len(data):
        loop.run_until_idle()
        assert uart.room() >= 0
        received += taken(uart)
    assert received == data
    stream.close()


def test_end_of_input_leaves_the_output(uart: Uart16550, loop: IoLoop, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    source, end = os.pipe()
    os.close(end)
    stream = Stream(uart, loop, rx=source, tx=writer)
    uart.line = stream
    loop.run_until_idle()
    send(uart, b"still")
    assert drain(reader) == b"still"
    stream.close()
    os.close(source)


def test_input_that_epoll_refuses_is_no_input(uart: Uart16550, loop: IoLoop) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    stream = Stream(uart, loop, rx=null, tx=None)
    uart.line = stream
    loop.run_until_idle()
    stream.close()
    os.close(null)


def test_tty_is_raw_while_open_and_restored_after(uart: Uart16550, loop: IoLoop, pty: tuple[int, int]) -> None:
    ours, theirs = pty
    before = termios.tcgetattr(theirs)
    backend = TtyBackend(uart, loop, os.ttyname(theirs))
    assert termios.tcgetattr(theirs)[3] & (termios.ECHO | termios.ICANON | termios.ISIG) == 0
    os.write(ours, b"\x03\r")
    assert typed(uart, loop, 2) == b"\x03\r"
    send(uart, b"out")
    assert drain(ours) == b"out"
    backend.close()
    backend.close()
    assert termios.tcgetattr(theirs) == before


def test_path_that_is_no_terminal_is_a_config_error(uart: Uart16550, loop: IoLoop) -> None:
    with pytest.raises(ConfigError, match=r"-l: '/etc/passwd'.*not a terminal"):
        open_backend("/etc/passwd", "-l com1", uart, loop, lambda: None)


@pytest.mark.parametrize(("text", "problem"), [("", None), ("stdio", None), ("tcp:1", None), ("/nowhere", "/nowhere")])
def test_check_looks_at_paths_only(text: str, problem: str | None) -> None:
    said = check_backend(text)
    assert said is None if problem is None else said is not None and problem in said


def port_of(backend: TcpBackend) -> int:
    return int(backend._server.getsockname()[1])


class Tcp:
    """A TCP backend on a free port, and clients."""

    def __init__(self, uart: Uart16550, loop: IoLoop) -> None:
        self.loop = loop
        self.backend = TcpBackend(uart, loop, 0)
        self.clients: list[socket.socket] = []

    def connect(self) -> socket.socket:
        client = socket.create_connection((HOST, port_of(self.backend)))
        client.settimeout(5)
        self.clients.append(client)
        self.loop.run_until_idle()
        return client


@pytest.fixture
def tcp(uart: Uart16550, loop: IoLoop) -> Iterator[Tcp]:
    tcp = Tcp(uart, loop)
    yield tcp
    tcp.backend.close()
    tcp.backend.close()
    for client in tcp.clients:
        client.close()


def test_tcp_carries_both_ways(uart: Uart16550, loop: IoLoop, tcp: Tcp) -> None:
    client = tcp.connect()
    send(uart, b"out")
    assert client.recv(10) == b"out"
    client.sendall(b"in")
    while uart.room() == BACKLOG and not uart.read(LSR, 1) & 1:
        loop.step(1)
    assert taken(uart) == b"in"


def test_tcp_without_a_client_drops_output(uart: Uart16550, tcp: Tcp) -> None:
    send(uart, bytes(1000))
    assert uart.read(LSR, 1) & 0x20
    client = tcp.connect()
    send(uart, b"now")
    assert client.recv(10) == b"now"


def test_tcp_second_client_is_hung_up_and_the_first_stays(uart: Uart16550, tcp: Tcp) -> None:
    first, second = tcp.connect(), tcp.connect()
    assert second.recv(1) == b""
    send(uart, b"x")
    assert first.recv(1) == b"x"


def test_tcp_client_may_come_again(uart: Uart16550, loop: IoLoop, tcp: Tcp) -> None:
    tcp.connect().close()
    loop.step(1)
    loop.run_until_idle()
    again = tcp.connect()
    send(uart, b"x")
    assert again.recv(1) == b"x"


def test_tcp_client_that_left_while_the_guest_read_nothing_gives_way(uart: Uart16550, loop: IoLoop, tcp: Tcp) -> None:
    first = tcp.connect()
    while uart.room():
        first.sendall(bytes(BACKLOG))
        loop.step(1)
    first.sendall(b"unread")
    loop.run_until_idle()
    first.close()
    loop.run_until_idle()
    second = tcp.connect()
    send(uart, b"x")
    assert second.recv(1) == b"x"


def test_tcp_port_in_use_is_a_host_error(uart: Uart16550, loop: IoLoop, tcp: Tcp) -> None:
    with pytest.raises(HostError, match="listening on"):
        TcpBackend(uart, loop, port_of(tcp.backend))


def test_tcp_listens_on_the_loopback_only(tcp: Tcp) -> None:
    server: Any = tcp.backend
    assert server._server.getsockname()[0] == "127.0.0.1"


def test_stdio_uses_the_terminal_raw_and_gives_it_back(uart: Uart16550, loop: IoLoop, pty: tuple[int, int]) -> None:
    ours, theirs = pty
    before = termios.tcgetattr(theirs)
    quits: list[int] = []
    backend = StdioBackend(uart, loop, Terminal("-l com1", stdin=theirs, stdout=theirs), lambda: quits.append(1))
    assert termios.tcgetattr(theirs)[1] & termios.OPOST, "our own messages still get their carriage returns"
    os.write(ours, b"ls\x01x")
    assert typed(uart, loop, 3) == b"ls\x01"
    assert quits == [1]
    send(uart, b"ok")
    assert drain(ours) == b"ok"
    assert os.get_blocking(theirs), "the shell's file is left as it is"
    backend.close()
    backend.close()
    assert termios.tcgetattr(theirs) == before


def test_guest_that_waits_for_room_is_interrupted(loop: IoLoop, pipe: tuple[int, int], clock: StoppedClock) -> None:
    reader, writer = pipe
    irq = Level()
    uart = Uart16550(irq)
    stream = Stream(uart, loop, rx=None, tx=writer)
    uart.line = stream
    fill(uart)
    uart.write(1, 1, 2)
    uart.read(2, 1)
    assert not irq.asserted
    while not irq.asserted:
        assert drain(reader)
        loop.run_until_idle()
    stream.close()
