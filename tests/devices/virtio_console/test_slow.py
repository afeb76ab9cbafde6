"""A console whose reader is connected and does not read, or not fast enough. Time passes when the test says so."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from acrn_dm.devices.backlog import KEPT, PATIENCE_S
from acrn_dm.devices.virtio_console.backend import READER_POLL_S
from tests.devices.stopped_clock import StoppedClock
from tests.devices.virtio_console.console_rig import Console, console, tx_queue

CHAIN = 60_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    return StoppedClock(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def connect(c: Console, path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.setblocking(False)
    c.machine.settle()
    return client


def pieces(count: int, first: int = 0) -> list[bytes]:
    """Chains of output, no two bytes near each other alike."""
    return [bytes((7 * i + at % 251) % 256 for at in range(CHAIN)) for i in range(first, first + count)]


def held(c: Console, port: int = 0) -> int:
    """How many chains the guest waits for."""
    c.machine.settle()
    c.sent(port)
    return c.driver.queue(tx_queue(port)).in_flight


def print_(c: Console, chains: list[bytes], port: int = 0) -> None:
    for chain in chains:
        c.send(port, chain)


def stall(c: Console, clock: StoppedClock, count: int = 20) -> list[bytes]:
    """Print until nobody takes more and the patience is over."""
    chains = pieces(count)
    print_(c, chains)
    assert held(c) > 0, "it is waited for first"
    clock.advance(PATIENCE_S)
    assert held(c) == 0
    return chains


def rest(c: Console, client: socket.socket) -> bytes:
    """All that arrives."""
    got = bytearray()
    with contextlib.suppress(BlockingIOError):
        while data := client.recv(1 << 20):
            got += data
            c.machine.settle()
    return bytes(got)


@contextlib.contextmanager
def reader_on_socket(c: Console, path: Path, clock: StoppedClock) -> Iterator[None]:
    with connect(c, path):
        yield


@contextlib.contextmanager
def reader_on_pty(c: Console, path: Path, clock: StoppedClock) -> Iterator[None]:
    fd = os.open(c.device.ports[0].backend.path, os.O_RDWR | os.O_NOCTTY)  # type: ignore[attr-defined]
    clock.advance(READER_POLL_S)
    c.machine.settle()
    yield
    os.close(fd)


@pytest.mark.parametrize("features", [0, None], ids=["one port", "multiport"])
@pytest.mark.parametrize(("text", "reader"), [("socket:s={}", reader_on_socket), ("pty:p", reader_on_pty)])
def test_guest_goes_on_when_its_consoles_reader_stands_still(
    clock: StoppedClock,
    path: Path,
    text: str,
    reader: Callable[[Console, Path, StoppedClock], "contextlib.AbstractContextManager[None]"],
    features: int | None,
) -> None:
    with console("@" + text.format(path), features=features) as c:
        if features is None:
            c.bring_up(0)
        with reader(c, path, clock):
            assert c.device.ports[0].backend.connected
            stall(c, clock)
            chains = pieces(1)
            at_once = 0
            for _ in range(1000):
                print_(c, chains)
                if held(c):  # a pty's own buffers took a little more in the background; they have an end
                    clock.advance(PATIENCE_S)
                    assert held(c) == 0
                    at_once = 0
                else:
                    at_once += 1
                if at_once == 50:
                    break
            assert at_once == 50, "it is not waited for again and again"
            assert c.machine.io_loops["io"].step() == 0, "what waits keeps no loop busy"


def test_reader_that_wakes_up_gets_the_newest_output_and_the_log_says_what_it_missed(
    clock: StoppedClock, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with console(f"@socket:s={path}", features=0) as c, connect(c, path) as client:
        data = b"".join(stall(c, clock))
        got = rest(c, client)
        begin = len(got) - KEPT
        assert begin > 0
        assert got == data[:begin] + data[-KEPT:]
        missed = len(data) - len(got)
        assert [record.getMessage().partition(": port s: ")[2] for record in caplog.records] == [
            "its reader is too slow: the oldest output is dropped",
            f"{missed} bytes were dropped for its slow reader",
        ]
        c.send(0, b"all is well")
        assert rest(c, client) == b"all is well"


def test_reader_that_reads_loses_nothing(clock: StoppedClock, path: Path) -> None:
    with console(f"@socket:s={path}", features=0) as c, connect(c, path) as client:
        chains, got = pieces(20), b""
        for chain in chains:
            print_(c, [chain])
            clock.advance(PATIENCE_S / 2)
            c.machine.settle()
            got += rest(c, client)
        assert got == b"".join(chains)


def test_chain_larger_than_what_is_kept_leaves_its_end(clock: StoppedClock, path: Path) -> None:
    with console(f"@socket:s={path}", features=0) as c, connect(c, path) as client:
        data = b"".join(pieces(20))
        c.send(0, *(data[at : at + CHAIN] for at in range(0, len(data), CHAIN)))
        assert held(c) == 1
        clock.advance(PATIENCE_S)
        assert held(c) == 0
        got = rest(c, client)
        assert got == data[: len(got) - KEPT] + data[-KEPT:]


def test_reader_that_takes_a_large_chain_bit_by_bit_loses_nothing(clock: StoppedClock, path: Path) -> None:
    with console(f"@socket:s={path}", features=0) as c, connect(c, path) as client:
        data, got = b"".join(pieces(20)), b""
        c.send(0, *(data[at : at + CHAIN] for at in range(0, len(data), CHAIN)))
        while len(got) < len(data):
            clock.advance(PATIENCE_S * 0.8)
            got += client.recv(CHAIN)
            c.machine.settle()
        assert got == data


@pytest.mark.parametrize(("text", "port"), [("@socket:s={}:wait", 0), ("pty:other,socket:s={}", 1)])
def test_guest_waits_as_long_as_it_takes_where_output_matters_more(
    clock: StoppedClock, path: Path, text: str, port: int
) -> None:
    with console(text.format(path)) as c:
        c.bring_up(0, 1) if port else c.bring_up(0)
        with connect(c, path) as client:
            chains = pieces(20)
            print_(c, chains, port)
            clock.advance(3600)
            assert held(c, port) > 0
            assert rest(c, client) == b"".join(chains)


def test_port_that_is_no_console_drops_if_told(clock: StoppedClock, path: Path) -> None:
    with console(f"socket:s={path}:drop") as c:
        c.bring_up(0)
        with connect(c, path):
            stall(c, clock)


def test_output_that_is_kept_is_still_given_when_the_driver_has_gone(clock: StoppedClock, path: Path) -> None:
    with console(f"@socket:s={path}", features=0) as c, connect(c, path) as client:
        data = b"".join(pieces(5))
        print_(c, pieces(5))
        assert held(c) == 0
        c.driver.reset()
        c.machine.settle()
        assert rest(c, client) == data


def test_output_that_is_kept_is_offered_once_more_when_the_machine_ends(clock: StoppedClock, path: Path) -> None:
    with console(f"@socket:s={path}", features=0) as c, connect(c, path) as client:
        data = b"".join(pieces(5))
        print_(c, pieces(5))
        first = client.recv(1 << 20)
        c.machine.bus.functions[0].close()
        assert first + rest(c, client) == data


def test_output_kept_for_a_client_that_left_is_thrown_away_and_not_the_next_ones(
    clock: StoppedClock, path: Path
) -> None:
    with console(f"@socket:s={path}", features=0) as c:
        with connect(c, path):
            print_(c, pieces(5))
            second = connect(c, path)
        c.machine.settle()
        assert c.device.ports[0].discarded > 0
        c.send(0, b"for the second")
        assert rest(c, second) == b"for the second"
        second.close()


def test_reset_while_the_guest_waits_leaves_no_timer_that_matters(clock: StoppedClock, path: Path) -> None:
    with console(f"@socket:s={path}", features=0) as c, connect(c, path) as client:
        print_(c, pieces(20))
        assert held(c) > 0
        c.driver.reset()
        c.driver.start(0, queues=range(2))
        clock.advance(PATIENCE_S)
        c.machine.settle()
        rest(c, client)
        c.send(0, b"next driver")
        assert rest(c, client) == b"next driver"
        assert c.machine.failures == []
