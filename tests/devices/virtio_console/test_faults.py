"""A console whose host side fails, leaves or comes back, at any moment: the guest's chains always come back.

Every test also fails when a handler raised: loops log that and go on.
"""

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from acrn_dm.devices.virtio_console.backend import READER_POLL_S
from acrn_dm.testing.driver import NEEDS_RESET
from tests.devices.virtio_console.console_rig import MULTIPORT, PORT_OPEN, SIZE, Console, console, tx_queue


@pytest.fixture(autouse=True)
def no_handler_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    client.setblocking(False)
    return client


def queue_up(c: Console, port: int, chains: int, size: int = 60_000) -> None:
    """Send *chains* at once; what the host does not take waits in the ring."""
    for _ in range(chains):
        c.driver.queue(tx_queue(port)).send([bytes(size)])
    c.driver.queue(tx_queue(port)).kick()
    c.machine.settle()


def all_back(c: Console, port: int) -> bool:
    """Whether every chain came back and the device is well."""
    c.machine.settle()
    c.sent(port)
    well = not c.driver.status & NEEDS_RESET and c.machine.failures == []
    return well and c.driver.queue(tx_queue(port)).in_flight == 0


# The host side fails inside a write


@pytest.mark.parametrize("features", [SIZE, SIZE | MULTIPORT])
def test_output_to_a_full_device_is_thrown_away_and_every_chain_comes_back(features: int) -> None:
    with console("@file:con=/dev/full,pty:other", features=features) as c:
        if features & MULTIPORT:
            c.bring_up(0)
        queue_up(c, 0, chains=3, size=7)
        assert all_back(c, 0)
        queue_up(c, 0, chains=3, size=7)
        assert all_back(c, 0)
        assert c.device.ports[0].discarded == 42


def test_driver_is_told_that_a_full_device_takes_nothing_more() -> None:
    with console("@file:con=/dev/full") as c:
        assert (0, PORT_OPEN, 1, b"") in c.bring_up(0)
        queue_up(c, 0, chains=1, size=7)
        assert c.messages() == [(0, PORT_OPEN, 0, b"")]


def test_socket_reader_that_leaves_while_output_waits_gives_way_to_the_next(tmp_path: Path) -> None:
    with console(f"socket:s={tmp_path}/s") as c:
        c.bring_up(0)
        first = connect(tmp_path / "s")
        c.machine.settle()
        queue_up(c, 0, chains=20)
        assert c.driver.queue(tx_queue(0)).in_flight
        c.messages()
        first.close()
        assert all_back(c, 0)
        assert c.messages() == [(0, PORT_OPEN, 0, b"")]
        with connect(tmp_path / "s") as second:
            c.machine.settle()
            assert c.messages() == [(0, PORT_OPEN, 1, b"")]
            c.send(0, b"for the second")
            assert second.recv(1 << 20) == b"for the second"


def test_fifo_reader_that_leaves_while_output_waits_gives_way_to_the_next(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with console(f"file:f={tmp_path}/fifo") as c:
        c.bring_up(0)
        queue_up(c, 0, chains=20)
        assert c.driver.queue(tx_queue(0)).in_flight
        os.close(reader)
        assert all_back(c, 0)
        assert c.messages() == [(0, PORT_OPEN, 0, b"")]
        c.send(0, b"for nobody")
        assert all_back(c, 0)
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        c.wait(lambda: c.device.ports[0].backend.connected)
        assert c.messages() == [(0, PORT_OPEN, 1, b"")]
        os.read(reader, 1 << 20)  # what the FIFO itself still held
        c.send(0, b"for the second")
        assert os.read(reader, 1 << 20) == b"for the second"
        os.close(reader)


def test_callback_about_a_lost_connection_comes_after_the_write_that_lost_it(tmp_path: Path) -> None:
    """Whoever writes goes on with the state it had: a nested call would push its chain a second time."""
    with console(f"socket:s={tmp_path}/s") as c:
        client = connect(tmp_path / "s")
        c.machine.settle()
        client.close()
        told: list[bool] = []
        backend = c.device.ports[0].backend
        backend._changed = told.append
        assert backend.send([b"x"]) == 0
        assert (backend.connected, told) == (False, [])
        c.machine.settle()
        assert told == [False]


# A client leaves while the guest does not read


@pytest.mark.parametrize("opened", [False, True], ids=["port not opened", "no buffer posted"])
def test_client_that_leaves_unread_is_noticed_and_the_next_one_is_served(tmp_path: Path, opened: bool) -> None:
    with console(f"socket:s={tmp_path}/s") as c:
        c.bring_up(*([0] if opened else []))
        with connect(tmp_path / "s"):
            c.machine.settle()
            assert c.messages() == [(0, PORT_OPEN, 1, b"")]
            second = connect(tmp_path / "s")
        c.machine.settle()
        assert c.messages() == [(0, PORT_OPEN, 0, b""), (0, PORT_OPEN, 1, b"")]
        c.send(0, b"for the second")
        assert second.recv(100) == b"for the second"
        second.close()


@pytest.mark.parametrize("opened", [False, True], ids=["port not opened", "no buffer posted"])
def test_d_con_open_both_client_that_leaves_closes_the_port_for_the_driver(tmp_path: Path, opened: bool) -> None:
    """d.con.open_both: PORT_OPEN is sent by both sides, value 0 closed, 1 open."""
    with console(f"socket:s={tmp_path}/s") as c:
        c.bring_up(*([0] if opened else []))
        with connect(tmp_path / "s"):
            c.machine.settle()
            assert c.messages() == [(0, PORT_OPEN, 1, b"")]
        c.machine.settle()
        assert c.messages() == [(0, PORT_OPEN, 0, b"")]


def test_input_of_a_client_that_left_reaches_the_guest_before_that_of_the_next(tmp_path: Path) -> None:
    with console(f"socket:s={tmp_path}/s") as c:
        c.bring_up()
        for text in (b"first,", b"second,", b"third"):
            with connect(tmp_path / "s") as client:
                client.send(text)
                c.machine.settle()
            c.machine.settle()
        c.control(PORT_OPEN, 0)
        c.post(0, 8, 64, 64)
        assert c.received(0) == b"first,second,third"


def test_input_kept_for_clients_that_left_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("acrn_dm.devices.virtio_console.backend_socket.INPUT_KEPT", 100)
    with console(f"socket:s={tmp_path}/s") as c:
        c.bring_up()
        for _ in range(3):
            with connect(tmp_path / "s") as client:
                client.send(bytes(90))
                c.machine.settle()
            c.machine.settle()
        c.control(PORT_OPEN, 0)
        c.post(0, 1000, 1000, 1000)
        assert len(c.received(0)) == 100


def test_client_that_only_ends_its_input_is_gone(tmp_path: Path) -> None:
    """Its other half would hold the place of the next client for as long as the guest says nothing."""
    with console(f"socket:s={tmp_path}/s") as c, connect(tmp_path / "s") as client:
        c.machine.settle()
        client.shutdown(socket.SHUT_WR)
        c.machine.settle()
        assert not c.device.ports[0].backend.connected


def test_pty_reader_that_leaves_unread_is_noticed(capfd: pytest.CaptureFixture[str]) -> None:
    with console("pty:con") as c:
        path = capfd.readouterr().err.strip().rpartition(" ")[2]
        c.bring_up()
        reader = os.open(path, os.O_RDWR | os.O_NOCTTY)
        c.wait(lambda: c.device.ports[0].backend.connected)
        os.close(reader)
        c.machine.settle()
        assert c.messages() == [(0, PORT_OPEN, 1, b""), (0, PORT_OPEN, 0, b"")]


def test_terminal_that_hangs_up_unread_is_noticed() -> None:
    master, other = os.openpty()
    with console(f"tty:con={os.ttyname(other)}") as c:
        c.bring_up()
        os.close(other)
        os.close(master)
        c.machine.settle()
        assert c.messages() == [(0, PORT_OPEN, 0, b"")]


def test_connection_that_waits_for_the_guest_keeps_no_loop_busy(tmp_path: Path) -> None:
    with console(f"socket:s={tmp_path}/s") as c, connect(tmp_path / "s") as client:
        c.bring_up()
        client.send(b"unread")
        c.machine.settle()
        assert c.machine.io_loops["io"].step() == 0


def test_fifo_without_a_reader_is_looked_at_now_and_then(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    with console(f"file:f={tmp_path}/fifo") as c:
        os.close(reader)
        c.machine.settle()
        loop = c.machine.io_loops["io"]
        assert loop.step() == 0
        assert 0 < loop._patience(None) <= READER_POLL_S
