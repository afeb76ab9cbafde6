"""Ports whose bytes move without Python, and what gives their rings to Python and back."""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_console.port import Port
from tests.devices.virtio_console.console_rig import Console, console, tx_queue
from tests.virtio.pause import pause, resume

pytestmark = pytest.mark.both_formats

CHAIN = bytes(i % 251 for i in range(50_000))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the ports for which Python had the rings, one for each time."""
    seen: list[int] = []
    pump = Port.pump

    def watched(port: Port) -> None:
        seen.append(port.index)
        pump(port)

    monkeypatch.setattr(Port, "pump", watched)
    return seen


@pytest.fixture
def one(tmp_path: Path, calls: list[int]) -> Iterator[Console]:
    """A port on a socket that waits for its reader, without MULTIPORT."""
    with console(f"socket:chan={tmp_path}/sock:wait", memory=16 << 20, features=0) as c:
        yield c


@pytest.fixture
def client(one: Console, tmp_path: Path, calls: list[int]) -> Iterator[socket.socket]:
    with connect(one, tmp_path) as made:
        calls.clear()
        yield made


def connect(c: Console, tmp_path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(tmp_path / "sock"))
    made.setblocking(False)
    c.machine.settle()
    return made


def in_c(c: Console) -> tuple[bool, bool]:
    """Whether C has the ring to the guest, and the other."""
    planes = c.device.ports[0].planes
    assert planes is not None
    assert planes.rx is not None
    assert planes.tx is not None
    return not planes.rx.by_python, not planes.tx.by_python


def fill(c: Console) -> bytes:
    """Send until the socket takes no more; returns what was sent."""
    sent = b""
    while c.driver.queue(tx_queue(0)).in_flight == 0:
        c.send(0, CHAIN)
        sent += CHAIN
        c.sent(0)
    return sent


def read(c: Console, client: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count and select.select([client], [], [], 5)[0]:
        with contextlib.suppress(BlockingIOError):
            got += client.recv(1 << 20)
        c.machine.settle()
    return got


def test_output_goes_without_python(one: Console, client: socket.socket, calls: list[int]) -> None:
    for i in range(20):
        one.send(0, b"%02d" % i, b".")
    assert client.recv(100) == b"".join(b"%02d." % i for i in range(20))
    assert one.sent(0) == 20
    assert calls == []


def test_input_comes_without_python(one: Console, client: socket.socket, calls: list[int]) -> None:
    one.post(0, *[16] * 20)
    for i in range(20):
        client.send(b"%02d" % i)
        assert one.received(0) == b"%02d" % i
    assert calls == []


def test_bytes_are_counted(one: Console, client: socket.socket) -> None:
    one.send(0, b"12345")
    one.post(0, 16)
    client.send(b"123")
    one.machine.settle()
    tx, rx = (one.device.ports[0].planes.tx, one.device.ports[0].planes.rx)  # type: ignore[union-attr]
    assert tx is not None
    assert rx is not None
    assert (tx.counters.read()["bytes_out"], rx.counters.read()["bytes_in"]) == (5, 3)


def test_slow_reader_is_pythons_until_it_has_everything(one: Console, client: socket.socket, calls: list[int]) -> None:
    sent = fill(one)
    assert not in_c(one)[1]
    assert read(one, client, len(sent)) == sent
    assert in_c(one)[1]
    calls.clear()
    one.send(0, b"fast again")
    assert client.recv(100) == b"fast again"
    assert calls == []


def test_chain_that_was_half_written_goes_on_where_it_was_after_a_pause(one: Console, client: socket.socket) -> None:
    sent = fill(one)
    pause(one.machine.bus.functions[0])
    resume(one.machine.bus.functions[0])
    assert read(one, client, len(sent) + 1) == sent


def test_input_comes_while_output_waits(one: Console, client: socket.socket) -> None:
    fill(one)
    one.post(0, 16)
    client.send(b"in")
    assert one.received(0) == b"in"


def test_output_to_nobody_is_thrown_away_without_python(one: Console, calls: list[int]) -> None:
    calls.clear()
    one.send(0, b"12345")
    assert one.sent(0) == 1
    assert one.device.ports[0].discarded == 5
    assert calls == []


def test_no_descriptor_outlasts_its_connection(one: Console, client: socket.socket) -> None:
    """A duplicate that is left would keep the peer from seeing the end; a number that is left soon another file's."""
    one.post(0, 16)
    port = one.device.ports[0]
    port.backend.drop()
    assert client.recv(1) == b""
    assert in_c(one) == (False, False)


def test_peer_that_leaves_gives_way_and_its_input_is_kept(one: Console, client: socket.socket, tmp_path: Path) -> None:
    client.send(b"left behind")
    client.close()
    one.machine.settle()
    with connect(one, tmp_path) as second:
        second.send(b", next")
        one.post(0, 64, 64)
        assert one.received(0) == b"left behind, next"
        one.post(0, 64)
        second.send(b" and on")
        assert one.received(0) == b" and on"
        assert in_c(one) == (True, True)


def test_end_of_standard_input_leaves_output(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.pipe()
    saved = os.dup(0)
    os.dup2(ours, 0)
    try:
        with console("stdio:con", features=0) as c:
            c.post(0, 16, 16)
            os.write(theirs, b"last")
            os.close(theirs)
            assert c.received(0) == b"last"
            c.send(0, b"")
            assert c.sent(0) == 1
            assert c.device.ports[0].backend.read_fd == -1
            assert in_c(c)[1]
    finally:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(ours)


@pytest.mark.split_rings("pokes or reads fields that only split rings have")
def test_broken_ring_is_the_devices_failure(one: Console, client: socket.socket) -> None:
    one.driver.queue(tx_queue(0)).ring.make_available(5000)
    one.driver.queue(tx_queue(0)).ring.publish()
    one.driver.queue(tx_queue(0)).kick()
    one.machine.settle()
    assert len(one.machine.failures) == 1


def test_backend_that_a_test_watches_is_called(tmp_path: Path) -> None:
    with console(f"@file:con={tmp_path}/log", features=0, start=False) as c:
        seen: list[int] = []
        backend = c.device.ports[0].backend
        send = backend.send

        def watched(views: list[memoryview]) -> int:  # type: ignore[type-arg]
            seen.append(sum(map(len, views)))
            return send(views)

        backend.send = watched  # type: ignore[assignment, method-assign]
        c.driver.start(0)
        c.machine.settle()
        c.send(0, b"123")
        assert seen == [3]
